"""A pool of Ceph as a place for RBD images: what the store, its uploads and its downloads have in common."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from glimpse.errors import Conflict, NotFound, SettingsError, Unavailable
from glimpse.stores.ceph import Cluster, Connection, load

LOG = logging.getLogger(__name__)

SNAPSHOT = "snap"
AT_ONCE = 4  # chunks on their way to or from Ceph, in one upload or download,
MEMORY = 256 << 20  # but so many bytes in all of them together, as far as each has at least one chunk or block
_LARGEST_ORDER = 25  # librbd's limit: objects of 32 MiB


class Place(NamedTuple):
    """Where an image is. An old location has nothing but its name."""

    fsid: str | None
    pool: str | None
    name: str
    snapshot: str | None


class Pool:
    """The images of one store in their pool. What takes a `Connection` blocks, and is for threads."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """`where` names the section. Raises `Unconfigured`, `SettingsError`."""
        self.chunk: int = options["rbd_store_chunk_size"] << 20
        self.order = self.chunk.bit_length() - 1  # rounded down, as Glance does
        if self.order > _LARGEST_ORDER:
            raise SettingsError(f"{where} rbd_store_chunk_size: {self.chunk >> 20}; allowed: 1 to 32 (MiB)")
        self.rbd = load("rbd", where)
        self.name: str = options["rbd_store_pool"]
        self.thin: bool = options["rbd_thin_provisioning"]
        self.cluster = Cluster(
            options["rbd_store_ceph_conf"], options["rbd_store_user"], options["rados_connect_timeout"], where
        )
        self.open_images: set[object] = set()  # whoever has one; while there are any, the connection must stay

    @property
    def portion(self) -> int:
        """The bytes that one transfer may have on their way now."""
        return min(AT_ONCE * self.chunk, MEMORY // max(1, len(self.open_images)))

    def opened(self, connection: Connection, name: str | None = None) -> Any:
        """This pool, or one of another name. A full one answers so, where Ceph would let its clients wait."""
        name = name or self.name
        try:
            ioctx = connection.open_ioctx(name)
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENOENT and name == self.name:
                LOG.warning("Ceph has no pool %s", name)
                raise Unavailable("The store is not there.") from error
            raise
        ioctx.set_osdmap_full_try()
        return ioctx

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
        except rbd.OSError as error:
            if error.errno == errno.ESTALE:  # somebody else removes it at this moment
                raise Conflict("The image data is in use.") from error
            raise


def parse(url: str) -> Place:
    """What a location names. Raises `NotFound`.

    What needs no escape may have none: the same place must not have two names.
    """
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    if scheme != "rbd" or not url.isascii() or len(parts) not in (1, 4) or not all(parts):
        raise NotFound("The location is not one of an RBD store.")
    if len(parts) == 1:
        return Place(None, None, parts[0], None)
    fsid, pool, name, snapshot = plain = [unquote(part) for part in parts]
    if any("%" in part and quote(name, safe="") != part for part, name in zip(parts, plain, strict=True)):
        raise NotFound("The location is not one of an RBD store.")
    return Place(fsid, pool, name, snapshot)
