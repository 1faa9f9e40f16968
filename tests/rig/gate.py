"""A way to a server that can be shut, opened again, and made slow, while the server itself knows nothing of it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from tests.rig.process import free_port

_PIECE = 64 * 1024


class Gate:
    """Forwards connections on `port` to another port of this machine: `async with Gate(server.port) as gate`."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.passed = 0  # bytes, both ways
        self.shut_at: int | None = None  # that many bytes, and it shuts by itself
        self.pause = 0.0  # seconds between two pieces of 64 KiB
        self.deaf = False  # takes connections, forwards nothing
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Gate:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def open(self) -> None:
        """Let connections through, from now on."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)

    async def open_again(self) -> None:
        """Wait until it has shut by itself, and let connections through again."""
        while self.shut_at is not None:
            await asyncio.sleep(0.05)
        await self.open()

    def keep_little(self) -> None:
        """Let the kernel take no more than that from who sends faster than this forwards."""
        assert self._server is not None
        for each in self._server.sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)

    def shut(self) -> None:
        """Break all connections and refuse new ones, as a server does that is stopped."""
        self.shut_at = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, forth}
        for source, sink in ((reader, forth), (back, writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(_PIECE):
                while self.deaf and sink in self._open:
                    await asyncio.sleep(0.05)
                self.passed += len(piece)
                if self.shut_at is not None and self.passed >= self.shut_at:
                    self.shut()
                    return
                sink.write(piece)
                await sink.drain()
                if self.pause:
                    await asyncio.sleep(self.pause)
        self._open.discard(sink)
        sink.close()
