"""Bytes to the client: whole, or visibly broken off; never something else behind them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from io import FileIO
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError, ClientSession, web

from glimpse.api import sending
from glimpse.api.wire import REQUEST_ID
from glimpse.errors import Unavailable

Start = Callable[[object, int], Awaitable[str]]


class Stream:
    """A reader that gives what it is told to give."""

    size: int | None = None

    def __init__(self, *blocks: bytes | Exception) -> None:
        self.blocks = blocks

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        for block in self.blocks:
            if isinstance(block, Exception):
                raise block
            yield block

    async def close(self) -> None:
        """Nothing is open."""


class File(Stream):
    """A reader with a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = FileIO(path, "rb")


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    runners = []

    async def serve(reader: object, length: int) -> str:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            request[REQUEST_ID] = "req-test"
            return await sending.send(request, reader, 200, {"X-Test": "1"}, 0, length)

        runner = web.ServerRunner(web.Server(handle))
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve
    for runner in runners:
        await runner.cleanup()


async def fetch(url: str) -> bytes:
    async with ClientSession() as session, session.get(url) as response:
        return await response.read()


async def test_a_stream(start: Start) -> None:
    assert await fetch(await start(Stream(b"abc", b"def"), 6)) == b"abcdef"


@pytest.mark.parametrize("blocks", [(b"abc",), (b"abc", Unavailable("gone")), (b"abc", OSError(5, "EIO"))])
async def test_a_store_that_fails_midway(start: Start, blocks: tuple[bytes | Exception, ...]) -> None:
    with pytest.raises(ClientPayloadError):
        await fetch(await start(Stream(*blocks), 6))


@pytest.mark.parametrize("size", [0, 1, sending.SMALLEST_BURST, 3 * sending.SMALLEST_BURST + 5, sending.BURST + 1])
async def test_a_file(start: Start, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "image").write_bytes(content)
    assert await fetch(await start(File(tmp_path / "image"), size)) == content


async def test_clients_slower_than_the_threads(start: Start, tmp_path: Path) -> None:
    content = os.urandom(16 << 20)
    (tmp_path / "image").write_bytes(content)

    async def slowly(url: str) -> bytes:
        async with ClientSession() as session, session.get(url) as response:
            parts = []
            async for part in response.content.iter_chunked(1 << 20):
                parts.append(part)
                await asyncio.sleep(0.01)
            return b"".join(parts)

    urls = [await start(File(tmp_path / "image"), len(content)) for _ in range(6)]
    assert await asyncio.gather(*map(slowly, urls)) == [content] * 6


async def test_a_file_that_was_cut(start: Start, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"abc")
    with pytest.raises(ClientPayloadError):
        await fetch(await start(File(tmp_path / "image"), 6))


async def test_a_client_that_goes_away(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "image").write_bytes(bytes(64 << 20))
    url = await start(File(tmp_path / "image"), 64 << 20)
    for _ in range(3):
        async with ClientSession() as session, session.get(url) as response:
            await response.content.read(10)
    await asyncio.sleep(0.2)
    assert sending._running == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
