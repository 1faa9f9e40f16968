"""What happens to the bytes of an upload between the client and the store, once for all drivers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from glimpse.domain.formats import ContentInspector
from glimpse.domain.record import Image
from glimpse.errors import Gone, SizeMismatch, TooLarge
from glimpse.images.signatures import Verifier
from glimpse.settings import FormatSettings, Settings

Room = Callable[[int], Awaitable[None]]

INLINE = 64 * 1024  # bytes; a thread costs more than hashing so little


def inspector_for(image: Image, formats: FormatSettings) -> ContentInspector | None:
    """What looks into the bytes of an image; None for a container, whose content is nobody's disk."""
    if image.container_format != "bare":
        return None
    return ContentInspector(image.disk_format or "", formats.require_match, formats.gpt_checks_nonfatal)


class Counted:
    """Bytes on their way: as many as were announced, as the cap and the quota allow, and for somebody."""

    def __init__(self, cap: int, size: int | None, room: Room | None, alive: asyncio.Task[Any]) -> None:
        """`room` is asked before so many bytes in all go on; `alive` ends when the work is nobody's any more."""
        self._cap = cap
        self._expected = size
        self._room = room
        self._alive = alive
        self.size = 0

    async def through(self, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The same blocks. Raises `SizeMismatch`, `TooLarge`, `Gone`."""
        async for block in blocks:
            await self._count(len(block))
            yield block
        self._check_end()

    async def _count(self, length: int) -> None:
        self.size += length
        if self.size > self._cap:
            raise over_cap(self._cap)
        if self._expected is not None and self.size > self._expected:
            raise SizeMismatch(f"The image data has more than the {self._expected} bytes that were announced.")
        if self._alive.done():
            raise Gone("The image was deleted during its upload.")
        if self._room is not None:
            await self._room(self.size)

    def _check_end(self) -> None:
        if self._expected is not None and self.size != self._expected:
            raise SizeMismatch(f"The image data has {self.size} bytes, but {self._expected} were announced.")


class Passage(Counted):
    """Bytes on their way into stores: counted, hashed, inspected, held against their signature."""

    def __init__(
        self,
        settings: Settings,
        image: Image,
        size: int | None,
        room: Room | None,
        alive: asyncio.Task[Any],
        verifier: Verifier | None,
    ) -> None:
        super().__init__(settings.image_size_cap, size, room, alive)
        self._verifier = verifier
        self._algorithm = settings.hashing_algorithm
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hash = hashlib.new(self._algorithm, usedforsecurity=False)
        self._inspector = inspector_for(image, settings.formats)
        self._virtual_size: int | None = None

    async def through(self, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The same blocks; while the store writes one, its hashes are computed beside.

        Raises `SizeMismatch`, `TooLarge`, `Gone`, and before the stream ends `UnsupportedMediaType` and `BadRequest` (a
        wrong signature), so that a store never publishes what is refused.
        """
        async for block in blocks:
            await self._count(len(block))
            work = [self._md5.update, self._look_at]
            if self._verifier is not None:
                work.append(self._verifier.update)
            if len(block) <= INLINE:
                for step in work:
                    step(block)
                yield block
                continue
            steps = [asyncio.ensure_future(asyncio.to_thread(step, block)) for step in work]
            try:
                yield block
            finally:
                await asyncio.wait(steps)
            for finished in steps:
                finished.result()
        self._check_end()
        if self._inspector is not None:
            self._virtual_size = await asyncio.to_thread(self._inspector.conclude)
        if self._verifier is not None:
            await asyncio.to_thread(self._verifier.verify)

    def _look_at(self, block: bytes) -> None:
        # Together they take about as long as MD5 alone, and a thread less to wait for.
        self._hash.update(block)
        if self._inspector is not None:
            self._inspector.feed(block)

    def hexdigest(self) -> str:
        """The hash of all that passed."""
        return self._hash.hexdigest()

    def facts(self) -> dict[str, Any]:
        """What the record learns from the bytes."""
        return {
            "checksum": self._md5.hexdigest(),
            "os_hash_algo": self._algorithm,
            "os_hash_value": self.hexdigest(),
            "virtual_size": self._virtual_size,
        }


def over_cap(cap: int) -> TooLarge:
    """The refusal of more bytes than image_size_cap."""
    return TooLarge(f"The image data is larger than image_size_cap allows ({cap} bytes).")
