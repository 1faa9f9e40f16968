"""The bytes of images on their way to and from a pool of Ceph: several chunks at a time, no thread waits for each."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from threading import Lock
from typing import Any

from glimpse.errors import Unavailable
from glimpse.stores.ceph import LONG, MARGIN, Connection
from glimpse.stores.driver import BLOCK, HOLE
from glimpse.stores.rbd_pool import AT_ONCE, SNAPSHOT, Place, Pool

LOG = logging.getLogger(__name__)

GROWTH = 8 << 30  # bytes by which an image of unknown size grows at most at a time
CLOSE = 2.0  # seconds to wait for the end of a download, which comes without us too
_LAYERING = 1  # the feature without which an image cannot be cloned

Image = Any  # rbd.Image


class OnTheWay:
    """Operations of librbd that have begun; their ends come to the event loop, in a thread nobody waits for them."""

    def __init__(self, pool: Pool) -> None:
        self._cluster = pool.cluster
        self._loop = asyncio.get_running_loop()
        self._futures: deque[asyncio.Future[bytes | None]] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    async def begin(self, operation: Callable[..., object], *args: Any) -> None:
        """Begin `operation(*args, callback)`; to hand over the bytes takes a thread for a moment."""
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        self._futures.append(future)

        def ended(completion: Any, data: bytes | None = None) -> None:
            number = completion.get_return_value()
            with suppress(RuntimeError):  # the loop is gone, and whoever waited
                self._loop.call_soon_threadsafe(self._end, future, number, data)

        await self._cluster.run(lambda: operation(*args, ended))

    def _end(self, future: asyncio.Future[bytes | None], number: int, data: bytes | None) -> None:
        if future.done():
            return
        if number < 0:
            future.set_exception(self._cluster.failure(number, "a chunk was not read or written"))
        else:
            future.set_result(data)

    async def first(self) -> bytes | None:
        """Wait for the one that began first; what it has read. Raises `StoreFull`, `Unavailable`."""
        future = self._futures.popleft()
        done, _ = await asyncio.wait([future], timeout=self._cluster.operation + MARGIN)
        if not done:
            raise Unavailable("The store does not answer in time.")
        return future.result()

    def forget(self) -> None:
        """Want to know of none any more."""
        while self._futures:
            self._futures.pop().cancel()


class OpenImage:
    """A `driver.Reader` on a snapshot, or on an image without one."""

    def __init__(self, pool: Pool, connection: Connection, place: Place) -> None:
        self.size: int | None = None
        self._pool = pool
        self._connection = connection
        self._place = place
        self._lock = Lock()  # an end that comes early waits for a beginning that is late
        self._image: Image = None
        self._closed = False

    def begin(self) -> None:
        """Open it; blocks."""
        place = self._place
        with self._lock, self._pool.opened(self._connection, place.pool) as ioctx:
            if self._closed:
                return
            self._image = self._pool.rbd.Image(ioctx, place.name, snapshot=place.snapshot, read_only=True)
            self._pool.open_images.add(self)
            self.size = self._image.size()

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        size = self.size or 0
        end = size if length is None else min(size, offset + length)
        reading = OnTheWay(self._pool)
        try:
            while offset < end or reading:
                portion = self._pool.portion
                step = min(self._pool.chunk, max(BLOCK, portion // AT_ONCE))
                while offset < end and len(reading) < max(1, portion // step):
                    part = min(end - offset, step - offset % step)
                    await reading.begin(self._image.aio_read, offset, part)
                    offset += part
                for block in _blocks(await reading.first() or b""):
                    yield block
        finally:
            reading.forget()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._pool.cluster.make_sure(CLOSE, self._close)

    def _close(self) -> None:
        with self._lock:
            if self._image is not None:
                self._pool.open_images.discard(self)
                self._image.close()


class Upload:
    """An image on its way into the pool. Its threads may be late: `drop`, which waits for them, has the last word."""

    def __init__(self, pool: Pool, connection: Connection, name: str) -> None:
        self.size = 0  # bytes that have come
        self._pool = pool
        self._connection = connection
        self._name = name
        self._lock = Lock()
        self._image: Image = None
        self._created = False
        self._dropped = False
        self._id: str | None = None  # Ceph's own for the image, which no other of that name has
        self._room = 0  # the size that the image has in the pool
        self._growth = pool.chunk
        self._pieces: list[bytes | memoryview] = []  # the bytes before `size` that are not on their way yet
        self._writing = OnTheWay(pool)

    async def begin(self, size: int) -> None:
        """Make the image. Raises `Duplicate`, `StoreFull`, `Unavailable`."""
        await self._pool.cluster.run(self._begin, size)

    def _begin(self, size: int) -> None:
        rbd = self._pool.rbd.RBD()
        # An image that cannot be cloned is of no use to Nova and Cinder.
        features = int(self._connection.conf_get("rbd_default_features") or 0) | _LAYERING
        with self._lock, self._pool.opened(self._connection) as ioctx:
            if self._dropped:
                return
            rbd.create(ioctx, self._name, size, self._pool.order, old_format=False, features=features)
            self._created = True
            self._image = self._pool.rbd.Image(ioctx, self._name)
            self._pool.open_images.add(self)
            self._id = self._image.id()
            self._room = size

    async def add(self, block: bytes) -> None:
        """The next bytes. Raises `StoreFull`, `Unavailable`, also for bytes that came before."""
        if block is HOLE:
            await self._send()
            self.size += len(block)
            return
        rest = memoryview(block)
        while rest:
            piece = rest[: self._pool.chunk - self.size % self._pool.chunk]
            rest = rest[len(piece) :]
            self._pieces.append(piece)
            self.size += len(piece)
            if self.size % self._pool.chunk == 0:
                await self._send()

    async def _send(self) -> None:
        """Write what has come of a chunk."""
        if not self._pieces:
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._pool.thin and data == bytes(len(data)):
            return
        if self.size > self._room:
            self._growth = min(self._growth * 2, GROWTH)
            await self._resize(max(self.size, self._room + self._growth))
        while self._writing and len(self._writing) >= self._pool.portion // self._pool.chunk:
            await self._writing.first()
        await self._writing.begin(self._image.aio_write, data, self.size - len(data))

    async def _resize(self, size: int) -> None:
        await self._pool.cluster.run_for(LONG, self._image.resize, size)
        self._room = size

    async def finish(self) -> None:
        """All bytes have come: make it an image. Raises `StoreFull`, `Unavailable`."""
        await self._send()
        while self._writing:
            await self._writing.first()
        if self._room != self.size:
            await self._resize(self.size)
        await self._pool.cluster.run(self._publish)

    def _publish(self) -> None:
        with self._lock:
            if self._image is None:
                return
            self._image.flush()
            self._image.create_snap(SNAPSHOT)
            self._image.protect_snap(SNAPSHOT)
            self._close()

    def _close(self) -> None:
        if self._image is not None:
            image, self._image = self._image, None
            self._pool.open_images.discard(self)
            image.close()

    async def drop(self) -> None:
        """Leave nothing of it. What the cluster does not let us remove now is left for `discard`."""
        self._writing.forget()
        if not await self._pool.cluster.make_sure(MARGIN, self._drop):
            LOG.warning("something of image %s may be left in the pool", self._name)

    def _drop(self) -> None:
        with self._lock:
            self._dropped = True
            self._close()
            if self._created:
                with self._pool.opened(self._connection) as ioctx, suppress(self._pool.rbd.ImageNotFound):
                    if self._is_there(ioctx):
                        self._pool.remove(self._connection, ioctx, self._name, SNAPSHOT)

    def _is_there(self, ioctx: Any) -> bool:
        """Whether the image of that name is still this one: we may be late, and another upload has taken its place."""
        with self._pool.rbd.Image(ioctx, self._name, read_only=True) as image:
            return self._id in (None, image.id())


def _blocks(data: bytes) -> Iterator[bytes]:
    """A chunk in blocks; `HOLE` itself for zero bytes, so that the next store may leave them out."""
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        yield HOLE if block == HOLE else block
