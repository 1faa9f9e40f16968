"""An upload as a file that a thread reads, for drivers of glance_store."""

from __future__ import annotations

import asyncio
import queue
import sys
from collections.abc import AsyncIterator, Iterator

from glimpse.errors import Unavailable
from glimpse.stores.driver import BLOCK

AHEAD = 4  # blocks that the stream may be ahead of the driver


class Feed:
    """The stream of an upload as a driver wants it: a file, to be read in the driver's own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._blocks: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # an empty one is the end
        self._room = asyncio.Semaphore(AHEAD)
        self._left = self._broken = False
        self._block, self._at, self._ended = b"", 0, False

    async def fill(self, blocks: AsyncIterator[bytes], patience: float | None = None) -> int:
        """Hand over all blocks; returns before their end when the driver has. How many bytes there were.

        Raises `Unavailable` when the driver takes nothing for that many seconds.
        """
        total = 0
        async for block in blocks:
            total += len(block)
            try:
                async with asyncio.timeout(patience):
                    await self._room.acquire()
            except TimeoutError as error:
                raise Unavailable("The store does not answer in time.") from error
            if self._left:
                return total
            if block:
                self._blocks.put(block)
        self._blocks.put(b"")
        return total

    def leave(self) -> None:
        """The driver reads no more."""
        self._left = True
        self._room.release()

    def break_off(self) -> None:
        """Nothing more comes, and what came is not all."""
        self._broken = True
        self._blocks.put(b"")

    def read(self, size: int | None = -1) -> bytes:
        """As of a file: fewer than `size` bytes only at the end. Raises when the stream has broken off."""
        parts, wanted = [], sys.maxsize if size is None or size < 0 else size
        while wanted and (self._at < len(self._block) or self._next()):
            part = self._block[self._at : self._at + wanted]
            self._at += len(part)
            wanted -= len(part)
            parts.append(part)
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(BLOCK):
            yield block

    def _next(self) -> bool:
        if not self._ended:
            self._block, self._at = self._blocks.get(), 0
            self._ended = not self._block
            self._loop.call_soon_threadsafe(self._room.release)
        if self._broken:
            raise BrokenOff("the upload has broken off")
        return not self._ended


class BrokenOff(Exception):
    """What a driver gets from a stream that has no proper end."""
