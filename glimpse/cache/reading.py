"""What an image is read from: where it is kept, a whole copy of it, or one that still grows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from io import FileIO

from glimpse.errors import Unavailable
from glimpse.stores.driver import BLOCK, Reader


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of an image, open, where they are kept; `ranges` tells whether they can be read from the middle."""

    reader: Reader
    ranges: bool

    async def blocks(self, offset: int, length: int | None) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset`, from any store. Closes the reader at the end."""
        skip = 0 if self.ranges else offset
        left = length
        try:
            async for block in self.reader.stream(offset - skip, None if length is None else skip + length):
                if skip >= len(block):
                    skip -= len(block)
                    continue
                part = block[skip:] if skip else block
                skip = 0
                part = part if left is None else part[:left]
                yield part
                if left is not None:
                    left -= len(part)
                    if not left:
                        return
        finally:
            await self.reader.close()


Opener = Callable[[], Awaitable[Source]]  # raises `GlimpseError`: nobody has the bytes


class CompleteCopy:
    """A `driver.FileReader` on a copy."""

    def __init__(self, file: FileIO, size: int) -> None:
        self.file = file
        self.size: int | None = size
        self._end = size

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = self._end if length is None else offset + length
        while offset < end:
            block = await asyncio.to_thread(os.pread, self.file.fileno(), min(BLOCK, end - offset), offset)
            if not block:
                raise Unavailable("The copy of the image data is shorter than it was.")
            offset += len(block)
            yield block

    async def close(self) -> None:
        self.file.close()


class GrowingCopy(CompleteCopy):
    """A `driver.GrowingReader` on a copy that is being filled."""

    def __init__(self, file: FileIO, size: int, beyond: Callable[[int], Awaitable[int]], source: Opener) -> None:
        """`beyond` knows how far it has grown; what the file will not get is read from `source`."""
        super().__init__(file, size)
        self._beyond, self._source = beyond, source

    async def beyond(self, offset: int) -> int:
        return await self._beyond(offset)

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = self._end if length is None else offset + length
        while offset < end:
            there = min(end, await self.beyond(offset))
            if there <= offset:
                break
            async for block in super().stream(offset, there - offset):
                offset += len(block)
                yield block
        if offset < end:
            source = await self._source()
            async with aclosing(source.blocks(offset, end - offset)) as blocks:
                async for block in blocks:
                    yield block
