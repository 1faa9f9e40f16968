"""Store `rbd`: images as block devices in a pool of Ceph, as Glance keeps them.

<pool>/<image id>@snap      an image: complete, with a protected snapshot from which volumes and servers are cloned
<pool>/<image id>           without that snapshot: an upload that is under way, or that was killed
"""

from __future__ import annotations

import asyncio
import configparser
import errno
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from oslo_config import cfg

from glimpse.errors import Conflict, Forbidden, NotFound, Unavailable, Unconfigured
from glimpse.stores.ceph import LONG, Connection
from glimpse.stores.driver import Facts, Stored
from glimpse.stores.rbd_pool import SNAPSHOT, Pool, parse
from glimpse.stores.rbd_transfers import OpenImage, Upload

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt("rbd_store_chunk_size", default=8, min=1, help="MiB in an object of an image, a power of two"),
    cfg.StrOpt("rbd_store_pool", default="images"),
    cfg.StrOpt("rbd_store_user", help="Without client. in front; Ceph's own default is admin"),
    cfg.StrOpt("rbd_store_ceph_conf", default="", help="Without it, where Ceph's own programs look"),
    cfg.IntOpt("rados_connect_timeout", default=-1, help="Seconds, for every operation; negative: as in ceph.conf"),
    cfg.BoolOpt("rbd_thin_provisioning", default=False, help="Chunks of nothing but zero bytes are not written"),
]

WATCH = 35.0  # seconds after which Ceph no longer takes a killed process for alive (osd_client_watch_timeout, and more)
OPEN = 30.0  # seconds for a download to begin; after those another place may have the bytes
CHECK = 8.0  # seconds in which `check` has its answer
_CLONES_OF_THEIR_OWN = 1  # RBD_OPERATION_FEATURE_CLONE_PARENT: clones that hold their parent by themselves


class RbdStore:
    """A `driver.Store` on a pool of Ceph. One connection for a process, made when it is first needed."""

    facts = Facts("rbd", ("rbd",), writable=True, ranges=True)

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """`where` names the section. Raises `Unconfigured`, `SettingsError`."""
        self.pool = Pool(options, where)
        self.cluster = self.pool.cluster
        conf = options["rbd_store_ceph_conf"]
        if conf and not os.access(conf, os.R_OK):
            raise Unconfigured(f"{where} rbd_store_ceph_conf: {conf} cannot be read")
        self.details: Mapping[str, Any] = {
            "chunk_size": self.pool.chunk,
            "pool": self.pool.name,
            "thin_provisioning": self.pool.thin,
            "fsid": _fsid_in(conf or os.environ.get("CEPH_CONF") or "/etc/ceph/ceph.conf"),
        }
        self._checking: asyncio.Task[None] | None = None

    async def _connected(self) -> Connection:
        connection = await self.cluster.connected()
        self.details = {**self.details, "fsid": self.cluster.fsid}
        return connection

    def owns(self, url: str) -> bool:
        try:
            place = parse(url)
        except NotFound:
            return False
        return place.pool == self.pool.name and self.details["fsid"] in (None, place.fsid)

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        upload = Upload(self.pool, await self._connected(), image_id)
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
        names = (self.cluster.fsid or "", self.pool.name, image_id, SNAPSHOT)
        return Stored("rbd://" + "/".join(quote(name, safe="") for name in names), upload.size)

    async def open(self, url: str) -> OpenImage:
        reader = OpenImage(self.pool, await self._connected(), parse(url))
        try:
            await self.cluster.run_for(OPEN, reader.begin)
        except BaseException:
            await asyncio.shield(reader.close())
            raise
        return reader

    async def stat(self, url: str) -> int | None:
        reader = await self.open(url)
        await reader.close()
        return reader.size

    async def delete(self, url: str) -> None:
        await self.cluster.run_for(LONG, self._delete, await self._connected(), url)

    def _delete(self, connection: Connection, url: str) -> None:
        place = parse(url)
        if place.fsid not in (None, self.cluster.fsid):
            # It can be read, as with Glance: perhaps its cluster was replaced. But so can a location lead to the bytes
            # of another image, under a name by which nobody notices.
            raise Forbidden("The image data is in another cluster.")
        with self.pool.opened(connection, place.pool) as ioctx:
            self.pool.remove(connection, ioctx, place.name, place.snapshot)

    async def in_use(self, url: str) -> bool:
        """Whether the image has clones that need it. Those that hold their parent by themselves are none of them."""
        return await self.cluster.run(self._in_use, await self._connected(), url)

    def _in_use(self, connection: Connection, url: str) -> bool:
        place, rbd = parse(url), self.pool.rbd
        if place.snapshot is None:
            return False
        with (
            self.pool.opened(connection, place.pool) as ioctx,
            rbd.Image(ioctx, place.name, snapshot=place.snapshot, read_only=True) as image,
        ):
            if image.op_features() & _CLONES_OF_THEIR_OWN:
                return False
            try:
                return any(True for _ in image.list_children2())
            except rbd.PermissionError:
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
        with self.pool.opened(connection) as ioctx:
            self.pool.remove(connection, ioctx, image_id, SNAPSHOT)

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
        with self.pool.opened(connection) as ioctx:
            try:
                ioctx.stat("rbd_directory")
            except Exception as error:
                if getattr(error, "errno", None) != errno.ENOENT:  # no image yet, but an answer
                    raise

    async def close(self) -> None:
        await self.cluster.close(idle=not self.pool.open_images)


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
