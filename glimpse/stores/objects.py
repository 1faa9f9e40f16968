"""What the stores of objects have in common (S3, Google Cloud Storage, Azure Blob): one object in one bucket per image.

A driver brings a `Bucket`: the calls that its product knows. Here is what is the same for all of them: two puts of one
image, reads that go on where a connection broke, time limits of calls that are short.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from glimpse.errors import Duplicate, NotFound, Unavailable
from glimpse.stores.driver import Facts, Stored

LOG = logging.getLogger(__name__)

MIB = 1 << 20
CHECK_SECONDS = 9.0  # for all of a check; its requests have less
UNDO_SECONDS = 30.0  # that the end of a failed upload is waited for; it goes on after that
# Seconds before a read goes on where it broke off, each without a byte between.
PAUSES = (0.2, 1.0, 3.0, 5.0, 10.0, 10.0)

NOT_OURS = "The location is not one of this store."
NOT_HERE = "The store does not hold the image data."
HELD = "The store holds data for this image already."
NO_ANSWER = "The store does not answer."
NO_BUCKET = "The store has no place for images yet: its bucket does not exist."
REFUSED = "The store does not accept the service's credentials, or they do not allow this."
FULL = "The store is full."
CHANGED = "The image data in the store is not what it was."


class Interrupted(Exception):
    """A read broke off for a reason that may pass."""


class Denied(Unavailable):
    """The server knows who asks, and does not allow it; or does not believe it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a bucket says of an object: its bytes, and a mark that changes with them (ETag)."""

    size: int
    etag: str | None


class Bucket(Protocol):
    """The calls of one product. They translate its failures into `glimpse.errors`, and retry what can be retried."""

    def place(self, url: str) -> Place | None:
        """What a URL means; None when it is not one of this product that can be read."""
        ...

    def is_own(self, url: str) -> bool:
        """Whether it is in this very bucket."""
        ...

    def url(self, key: str) -> str:
        """The location of an object, without credentials."""
        ...

    async def find(self, place: Place) -> Found:
        """Raises `NotFound`, `Unavailable`."""
        ...

    def fetch(self, place: Place, found: Found, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` to before `end`, in one request. Raises `Interrupted`, or as `find`."""
        ...

    async def ready(self) -> None:
        """Make the bucket, where that is wanted and needed. Raises `Unavailable` without one."""
        ...

    async def upload(self, key: str, blocks: AsyncIterator[bytes], size: int | None) -> int:
        """Keep all of it, or nothing; how many bytes. Raises as `Store.put`."""
        ...

    async def remove(self, place: Place) -> None:
        """Raises `NotFound`, `Forbidden`, `Unavailable`."""
        ...

    async def forget(self, key: str) -> None:
        """Remove the object and what unfinished uploads of it left; nothing there is fine."""
        ...

    async def look(self) -> None:
        """Raise the reason why the bucket cannot be used now. One try."""
        ...

    async def sign(self, place: Place, seconds: int) -> str | None:
        """A URL that lets anybody read."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class ObjectStore:
    """A `driver.Store` and `driver.LinkingStore` on a bucket."""

    def __init__(self, facts: Facts, bucket: Bucket, details: Mapping[str, Any]) -> None:
        self.facts = facts
        self.details = details
        self._bucket = bucket
        self._under_way: set[str] = set()  # not every product can refuse to overwrite

    def owns(self, url: str) -> bool:
        return self._bucket.is_own(url)

    def _place(self, url: str) -> Place:
        place = self._bucket.place(url)
        if place is None:
            raise NotFound(NOT_OURS)
        return place

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        if image_id in self._under_way:
            raise Duplicate(HELD)
        self._under_way.add(image_id)
        try:
            url = self._bucket.url(image_id)
            if await self._exists(self._place(url)):
                raise Duplicate(HELD)
            await self._bucket.ready()
            return Stored(url, await self._bucket.upload(image_id, blocks, size))
        finally:
            self._under_way.discard(image_id)

    async def _exists(self, place: Place) -> bool:
        try:
            await self._bucket.find(place)
        except NotFound:
            return False
        return True

    async def open(self, url: str) -> ObjectReader:
        place = self._place(url)
        return ObjectReader(self._bucket, place, await self._bucket.find(place))

    async def stat(self, url: str) -> int | None:
        return (await self._bucket.find(self._place(url))).size

    async def delete(self, url: str) -> None:
        await self._bucket.remove(self._place(url))

    async def discard(self, image_id: str) -> None:
        await self._bucket.forget(image_id)

    async def check(self) -> None:
        try:
            await asyncio.wait_for(self._bucket.look(), CHECK_SECONDS)
        except TimeoutError as error:
            raise Unavailable(NO_ANSWER) from error

    async def link(self, url: str, seconds: int) -> str | None:
        return await self._bucket.sign(self._place(url), seconds)

    async def close(self) -> None:
        await self._bucket.close()


class Undoing:
    """The ends of uploads that failed: they go on, whatever becomes of the coroutine that waits for them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, undo: Coroutine[Any, Any, None]) -> None:
        """Begin to undo something, and wait for it, but not longer than `UNDO_SECONDS`."""
        task = asyncio.create_task(undo)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait([task], timeout=UNDO_SECONDS)

    async def close(self) -> None:
        """Wait for what still goes on, just as long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=UNDO_SECONDS)


class ObjectReader:
    """A `driver.Reader`. What breaks off is asked for again from there on; a changed object is not."""

    def __init__(self, bucket: Bucket, place: Place, found: Found) -> None:
        self._bucket = bucket
        self._place = place
        self._found = found
        self.size: int | None = found.size

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = self._found.size if length is None else min(offset + length, self._found.size)
        failures = 0
        while offset < end:
            try:
                async with aclosing(self._bucket.fetch(self._place, self._found, offset, end)) as blocks:
                    async for block in blocks:
                        failures = 0
                        offset += len(block)
                        yield block
                if offset < end:
                    raise Interrupted("the answer was shorter than announced")
            except Interrupted as error:
                if failures == len(PAUSES):
                    raise Unavailable("The store broke off in the middle of the image data.") from error
                LOG.warning("reading %s stopped at byte %d, goes on: %s", self._place.key, offset, error)
                await asyncio.sleep(PAUSES[failures])
                failures += 1

    async def close(self) -> None:
        """There is nothing to let go of: a request ends with its stream."""
