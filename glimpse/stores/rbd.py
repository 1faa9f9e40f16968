"""Store `rbd`: images as block devices in a pool of Ceph, as Glance keeps them.

    <pool>/<image id>@snap      an image: complete, with a protected snapshot from which volumes and servers are cloned
    <pool>/<image id>           without that snapshot: an upload that is under way, or that was killed

Bytes go to and from Ceph several chunks at a time, without a thread that waits for each.
"""

from __future__ import annotations

import asyncio
import configparser
import errno
import logging
import os
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote

from oslo_config import cfg

from glimpse.errors import Conflict, Forbidden, NotFound, SettingsError, Unavailable, Unconfigured
from glimpse.stores.ceph import LONG, MARGIN, Cluster, Connection, load
from glimpse.stores.driver import BLOCK, HOLE, Facts, Stored

LOG = logging.getLogger(__name__)

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt("rbd_store_chunk_size", default=8, min=1, help="MiB in an object of an image, a power of two"),
    cfg.StrOpt("rbd_store_pool", default="images"),
    cfg.StrOpt("rbd_store_user", help="Without client. in front; Ceph's own default is admin"),
    cfg.StrOpt("rbd_store_ceph_conf", default="", help="Without it, where Ceph's own programs look"),
    cfg.IntOpt("rados_connect_timeout", default=-1, help="Seconds, for every operation; negative: as in ceph.conf"),
    cfg.BoolOpt("rbd_thin_provisioning", default=False, help="Chunks of nothing but zero bytes are not written"),
]

SNAPSHOT = "snap"
AT_ONCE = 4  # chunks on their way to or from Ceph, in one upload or download,
MEMORY = 256 << 20  # but so many bytes in all of them together, as far as each has at least one chunk or block
GROWTH = 8 << 30  # bytes by which an image of unknown size grows at most at a time
WATCH = 35.0  # seconds after which Ceph no longer takes a killed process for alive (osd_client_watch_timeout, and more)
OPEN = 30.0  # seconds for a download to begin; after those another place may have the bytes
CLOSE = 2.0  # seconds to wait for the end of a download, which comes without us too
CHECK = 8.0  # seconds in which `check` has its answer
_LARGEST_ORDER = 25  # librbd's limit: objects of 32 MiB
_LAYERING = 1  # the feature without which an image cannot be cloned
_CLONES_OF_THEIR_OWN = 1  # RBD_OPERATION_FEATURE_CLONE_PARENT: clones that hold their parent by themselves

Image = Any  # rbd.Image


class RbdStore:
    """A `driver.Store` on a pool of Ceph. One connection for a process, made when it is first needed."""

    facts = Facts("rbd", ("rbd",), writable=True, ranges=True)

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """`where` names the section. Raises `Unconfigured`, `SettingsError`."""
        self.chunk: int = options["rbd_store_chunk_size"] << 20
        self.order = self.chunk.bit_length() - 1  # rounded down, as Glance does
        if self.order > _LARGEST_ORDER:
            raise SettingsError(f"{where} rbd_store_chunk_size: {self.chunk >> 20}; allowed: 1 to 32 (MiB)")
        self.rbd = load("rbd", where)
        self.pool: str = options["rbd_store_pool"]
        self.thin: bool = options["rbd_thin_provisioning"]
        conf = options["rbd_store_ceph_conf"]
        if conf and not os.access(conf, os.R_OK):
            raise Unconfigured(f"{where} rbd_store_ceph_conf: {conf} cannot be read")
        self.cluster = Cluster(conf, options["rbd_store_user"], options["rados_connect_timeout"], where)
        self.details: Mapping[str, Any] = {
            "chunk_size": self.chunk,
            "pool": self.pool,
            "thin_provisioning": self.thin,
            "fsid": _fsid_in(conf or os.environ.get("CEPH_CONF") or "/etc/ceph/ceph.conf"),
        }
        self._checking: asyncio.Task[None] | None = None
        self.open_images: set[object] = set()  # whoever has one; while there are any, the connection must stay

    async def _connected(self) -> Connection:
        connection = await self.cluster.connected()
        self.details = {**self.details, "fsid": self.cluster.fsid}
        return connection

    def owns(self, url: str) -> bool:
        try:
            fsid, pool, _, _ = _parse(url)
        except NotFound:
            return False
        return pool == self.pool and self.details["fsid"] in (None, fsid)

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        upload = _Upload(self, await self._connected(), image_id)
        complete = False
        try:
            await upload.begin(size or 0)
            async for block in blocks:
                await upload.add(block)
            await upload.finish()
            complete = True
        finally:
            if not complete:
                # Also when the task is cancelled: the thread cleans up, whatever becomes of this coroutine.
                await asyncio.shield(upload.drop())
        names = (self.cluster.fsid or "", self.pool, image_id, SNAPSHOT)
        return Stored("rbd://" + "/".join(quote(name, safe="") for name in names), upload.size)

    async def open(self, url: str) -> OpenImage:
        reader = OpenImage(self, await self._connected(), url)
        try:
            await self.cluster.run_for(OPEN, reader.begin)
        except BaseException:
            await asyncio.shield(reader.close())
            raise
        return reader

    def pool_of(self, connection: Connection, name: str | None) -> Any:
        """A pool, this store's own by default. A full one answers so, where Ceph would let its clients wait."""
        name = name or self.pool
        try:
            ioctx = connection.open_ioctx(name)
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENOENT and name == self.pool:
                LOG.warning("Ceph has no pool %s", name)
                raise Unavailable("The store is not there.") from error
            raise
        ioctx.set_osdmap_full_try()
        return ioctx

    @property
    def portion(self) -> int:
        """The bytes that one transfer may have on their way now."""
        return min(AT_ONCE * self.chunk, MEMORY // max(1, len(self.open_images)))

    async def stat(self, url: str) -> int | None:
        reader = await self.open(url)
        await reader.close()
        return reader.size

    async def delete(self, url: str) -> None:
        await self.cluster.run_for(LONG, self._delete, await self._connected(), url)

    def _delete(self, connection: Connection, url: str) -> None:
        fsid, pool, name, snapshot = _parse(url)
        if fsid not in (None, self.cluster.fsid):
            # It can be read, as with Glance: perhaps its cluster was replaced. But so can a location lead to the bytes
            # of another image, under a name by which nobody notices.
            raise Forbidden("The image data is in another cluster.")
        with self.pool_of(connection, pool) as ioctx:
            self.remove(connection, ioctx, name, snapshot)

    def remove(self, connection: Connection, ioctx: Any, name: str, snapshot: str | None) -> None:
        """Remove an image with its snapshot. One that has others goes to the trash of its pool, as with Glance.

        Raises `Conflict` when it has clones that need it, or when somebody has it open to write.
        """
        rbd = self.rbd
        removed = False
        if snapshot is not None:
            with suppress(rbd.ImageNotFound), rbd.Image(ioctx, name) as image:
                # Looked at first: an image that cannot be removed must not lose its snapshot.
                me = connection.get_instance_id()
                if any(watcher["id"] != me for watcher in image.watchers_list()):
                    raise Conflict("The image data is in use.")
                with suppress(rbd.InvalidArgument):  # it is not protected
                    image.unprotect_snap(snapshot)
                image.remove_snap(snapshot)
                removed = True
        try:
            rbd.RBD().remove(ioctx, name)
        except rbd.ImageHasSnapshots as error:
            if snapshot is None:
                raise Conflict("The image data is in use.") from error  # an image of ours, by the wrong name
            rbd.RBD().trash_move(ioctx, name)
        except rbd.ImageBusy:
            if removed:
                with rbd.Image(ioctx, name) as image:
                    image.create_snap(snapshot)
                    image.protect_snap(snapshot)
            raise

    async def in_use(self, url: str) -> bool:
        """Whether the image has clones that need it. Those that hold their parent by themselves are none of them."""
        return await self.cluster.run(self._in_use, await self._connected(), url)

    def _in_use(self, connection: Connection, url: str) -> bool:
        _, pool, name, snapshot = _parse(url)
        if snapshot is None:
            return False
        with (
            self.pool_of(connection, pool) as ioctx,
            self.rbd.Image(ioctx, name, snapshot=snapshot, read_only=True) as image,
        ):
            if image.op_features() & _CLONES_OF_THEIR_OWN:
                return False
            try:
                return any(True for _ in image.list_children2())
            except self.rbd.PermissionError:
                return True  # somebody's, in a pool into which we may not look

    async def discard(self, image_id: str) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + WATCH
        while True:
            try:
                return await self.cluster.run_for(LONG, self._discard, await self._connected(), image_id)
            except NotFound:
                return None
            except Conflict as error:
                # For half a minute Ceph takes a process that was killed for one that is slow.
                if clock() > end:
                    raise Unavailable("The image data is still in use.") from error
            await asyncio.sleep(2)

    def _discard(self, connection: Connection, image_id: str) -> None:
        with self.pool_of(connection, None) as ioctx:
            self.remove(connection, ioctx, image_id, SNAPSHOT)

    async def check(self) -> None:
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check())  # one for all who want to know
            self._checking.add_done_callback(_heard)
        try:
            async with asyncio.timeout(CHECK):
                await asyncio.shield(self._checking)
        except TimeoutError as error:
            raise Unavailable("The store does not answer in time.") from error

    async def _check(self) -> None:
        await self.cluster.run(self._look, await self._connected())

    def _look(self, connection: Connection) -> None:
        with self.pool_of(connection, None) as ioctx:
            try:
                ioctx.stat("rbd_directory")
            except Exception as error:
                if getattr(error, "errno", None) != errno.ENOENT:  # no image yet, but an answer
                    raise

    async def close(self) -> None:
        await self.cluster.close(idle=not self.open_images)


class _OnTheWay:
    """Operations of librbd that have begun; their ends come to the event loop, in a thread nobody waits for them."""

    def __init__(self, store: RbdStore) -> None:
        self._cluster = store.cluster
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

    def __init__(self, store: RbdStore, connection: Connection, url: str) -> None:
        self.size: int | None = None
        self._store = store
        self._connection = connection
        self._place = _parse(url)
        self._lock = Lock()  # an end that comes early waits for a beginning that is late
        self._image: Image = None
        self._closed = False

    def begin(self) -> None:
        """Open it; blocks."""
        _, pool, name, snapshot = self._place
        with self._lock, self._store.pool_of(self._connection, pool) as ioctx:
            if self._closed:
                return
            self._image = self._store.rbd.Image(ioctx, name, snapshot=snapshot, read_only=True)
            self._store.open_images.add(self)
            self.size = self._image.size()

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        size = self.size or 0
        end = size if length is None else min(size, offset + length)
        reading = _OnTheWay(self._store)
        try:
            while offset < end or reading:
                portion = self._store.portion
                step = min(self._store.chunk, max(BLOCK, portion // AT_ONCE))
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
            await self._store.cluster.make_sure(CLOSE, self._close)

    def _close(self) -> None:
        with self._lock:
            if self._image is not None:
                self._store.open_images.discard(self)
                self._image.close()


class _Upload:
    """An image on its way into the pool. Its threads may be late: `drop`, which waits for them, has the last word."""

    def __init__(self, store: RbdStore, connection: Connection, name: str) -> None:
        self.size = 0  # bytes that have come
        self._store = store
        self._connection = connection
        self._name = name
        self._lock = Lock()
        self._image: Image = None
        self._created = False
        self._dropped = False
        self._room = 0  # the size that the image has in the pool
        self._growth = store.chunk
        self._pieces: list[bytes | memoryview] = []  # the bytes before `size` that are not on their way yet
        self._writing = _OnTheWay(store)

    async def begin(self, size: int) -> None:
        """Make the image. Raises `Duplicate`, `StoreFull`, `Unavailable`."""
        await self._store.cluster.run(self._begin, size)

    def _begin(self, size: int) -> None:
        rbd = self._store.rbd.RBD()
        # An image that cannot be cloned is of no use to Nova and Cinder.
        features = int(self._connection.conf_get("rbd_default_features") or 0) | _LAYERING
        with self._lock, self._store.pool_of(self._connection, None) as ioctx:
            if self._dropped:
                return
            rbd.create(ioctx, self._name, size, self._store.order, old_format=False, features=features)
            self._created = True
            self._image = self._store.rbd.Image(ioctx, self._name)
            self._store.open_images.add(self)
            self._room = size

    async def add(self, block: bytes) -> None:
        """The next bytes. Raises `StoreFull`, `Unavailable`, also for bytes that came before."""
        if block is HOLE:
            await self._send()
            self.size += len(block)
            return
        rest = memoryview(block)
        while rest:
            piece = rest[: self._store.chunk - self.size % self._store.chunk]
            rest = rest[len(piece) :]
            self._pieces.append(piece)
            self.size += len(piece)
            if self.size % self._store.chunk == 0:
                await self._send()

    async def _send(self) -> None:
        """Write what has come of a chunk."""
        if not self._pieces:
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._store.thin and data == bytes(len(data)):
            return
        if self.size > self._room:
            self._growth = min(self._growth * 2, GROWTH)
            await self._resize(max(self.size, self._room + self._growth))
        while self._writing and len(self._writing) >= self._store.portion // self._store.chunk:
            await self._writing.first()
        await self._writing.begin(self._image.aio_write, data, self.size - len(data))

    async def _resize(self, size: int) -> None:
        await self._store.cluster.run_for(LONG, self._image.resize, size)
        self._room = size

    async def finish(self) -> None:
        """All bytes have come: make it an image. Raises `StoreFull`, `Unavailable`."""
        await self._send()
        while self._writing:
            await self._writing.first()
        if self._room != self.size:
            await self._resize(self.size)
        await self._store.cluster.run(self._publish)

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
            self._store.open_images.discard(self)
            image.close()

    async def drop(self) -> None:
        """Leave nothing of it. What the cluster does not let us remove now is left for `discard`."""
        self._writing.forget()
        if not await self._store.cluster.make_sure(MARGIN, self._drop):
            LOG.warning("something of image %s may be left in the pool", self._name)

    def _drop(self) -> None:
        with self._lock:
            self._dropped = True
            self._close()
            if self._created:
                with self._store.pool_of(self._connection, None) as ioctx, suppress(self._store.rbd.ImageNotFound):
                    self._store.remove(self._connection, ioctx, self._name, SNAPSHOT)


def _blocks(data: bytes) -> Iterator[bytes]:
    """A chunk in blocks; `HOLE` itself for zero bytes, so that the next store may leave them out."""
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        yield HOLE if block == HOLE else block


def _parse(url: str) -> tuple[str | None, str | None, str, str | None]:
    """Cluster, pool, image and snapshot of a location; an old one has nothing but the image.

    What needs no escape may have none: the same place must not have two names.
    """
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    if scheme != "rbd" or not url.isascii() or len(parts) not in (1, 4) or not all(parts):
        raise NotFound("The location is not one of an RBD store.")
    if len(parts) == 1:
        return None, None, parts[0], None
    fsid, pool, name, snapshot = plain = [unquote(part) for part in parts]
    if any("%" in part and quote(name, safe="") != part for part, name in zip(parts, plain, strict=True)):
        raise NotFound("The location is not one of an RBD store.")
    return fsid, pool, name, snapshot


def _fsid_in(conf: str) -> str | None:
    """The cluster's id as `ceph.conf` has it, so that it is known before there is a connection."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    try:
        parser.read(conf)
        return str(uuid.UUID(parser.get("global", "fsid").split()[0]))
    except (configparser.Error, ValueError, LookupError, AttributeError):
        return None


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever asked may have gone
