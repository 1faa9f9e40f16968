"""The connection of a process to a Ceph cluster, and the threads that wait for it.

librados and librbd come with Ceph, not from PyPI (Debian: python3-rados and python3-rbd), so they are imported when a
store needs them. Nothing here runs in the event loop but waiting: every call of theirs is made in a thread.

Left to itself librados waits for ever for a cluster that does not answer. Here each of its operations has an end,
`OPERATION` seconds if neither `ceph.conf` nor `rados_connect_timeout` says otherwise: more than the time in which Ceph
replaces an OSD that died, so that such a failure costs a pause and no upload.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from glimpse.errors import Conflict, Duplicate, GlimpseError, NotFound, StoreFull, Unavailable, Unconfigured
from glimpse.threads import at_rest

LOG = logging.getLogger(__name__)

OPERATION = 60  # seconds for one operation of librados
CONNECT = 10  # seconds until a cluster has answered for the first time
MARGIN = 15  # seconds beyond those, for a call that is a few operations
LONG = 3600  # seconds for a call that may be many of them: removing a large image
THREADS = 64  # each waits for the cluster; those for a part of it that hangs must leave room for others
QUEUE = 256  # calls that run or wait for a thread before more are turned away

# Options of Ceph, the seconds with which it comes (0 is for ever), and those that it gets where nobody has set others.
_LIMITS = (
    ("rados_osd_op_timeout", 0, OPERATION),
    ("rados_mon_op_timeout", 0, OPERATION),
    ("client_mount_timeout", 300, CONNECT),
)

# An upload that was lost together with the cluster leaves a lock of this very client on its image. To remove that image
# librbd breaks the lock, and as it comes it has the owner shut out of the cluster first, or gives up where that is the
# client itself. Before Ceph 16 the option had the second name.
_BREAK_LOCKS_GENTLY = ("rbd_blocklist_on_break_lock", "rbd_blacklist_on_break_lock")

Connection = Any  # rados.Rados; the libraries have no types
P = ParamSpec("P")
T = TypeVar("T")


def load(name: str, where: str) -> Any:
    """The module `rados` or `rbd`. Raises `Unconfigured` that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unconfigured(
            f"{where} a store of type rbd needs the Python module {name} of Ceph (Debian: python3-{name}), and this"
            f" Python does not find it: {error}. Into a virtual environment it comes with --system-site-packages, or by"
            f" a link to {name}.*.so of the system, whose version of Python has to be the same"
        ) from error


class Cluster:
    """A Ceph cluster as one user sees it. Connects when it is first needed, and again when that was in vain."""

    def __init__(self, conf: str, user: str | None, timeout: int, where: str) -> None:
        """`timeout` is `rados_connect_timeout`: seconds for every operation, as Glance takes it; negative: not set.

        Raises `Unconfigured`.
        """
        self._rados = load("rados", where)
        self._conf = conf
        self._user = user
        self._given = timeout
        self._where = where
        self._threads = ThreadPoolExecutor(THREADS, "rbd-store")
        self._waiting = 0
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.operation = OPERATION  # seconds, when connected
        self.fsid: str | None = None  # known from the first connection on

    async def connected(self) -> Connection:
        """The connection. Raises `Unavailable`."""
        if self._connection is None:
            if self._connecting is None or self._connecting.done():
                self._connecting = asyncio.create_task(self._connect())  # one for all who want it
            await asyncio.shield(self._connecting)
        return self._connection

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A call of librados or librbd in a thread. Raises `Unavailable`, and its failures as errors of ours."""
        return await self.run_for(self.operation + MARGIN, call, *args, **kwargs)

    async def run_for(self, seconds: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for a call that may take longer than one operation, or shall not take so long."""
        return await self._in_thread(seconds, lambda: self._translating(call, *args, **kwargs))

    def _translating(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except Exception as error:  # rados.Error and rbd.Error have nothing in common but the number
            number = getattr(error, "errno", None)
            if number is None:
                raise
            raise self.failure(number, str(error)) from error

    def failure(self, number: int, what: str) -> GlimpseError:
        """What an error number of librados means; `what` is for the log."""
        if abs(number) == errno.ESHUTDOWN:
            # The cluster took this client for dead and lets it do nothing any more; a new one may.
            self._connection = None
        found = _translated(abs(number))
        if isinstance(found, Unavailable):
            LOG.warning("%s Ceph: %s (error %d)", self._where, what, abs(number))
        return found

    async def make_sure(self, seconds: float, call: Callable[[], object]) -> bool:
        """Make a call of which nobody waits for the end, though it must come; whether it came in time and well."""
        try:
            future = asyncio.wrap_future(self._submit(lambda: self._translating(call)))
        except RuntimeError:
            return False  # the store was closed before
        future.add_done_callback(self._is_done)
        return await at_rest(future, seconds) and future.exception() is None

    async def _in_thread(self, seconds: float, call: Callable[[], T]) -> T:
        if self._waiting >= QUEUE:
            raise Unavailable("Too many calls wait for the store; try again in a moment.", {"Retry-After": "5"})
        running = self._submit(call)
        future = asyncio.wrap_future(running)
        future.add_done_callback(self._is_done)
        if not await at_rest(future, seconds):
            if not running.cancel():
                # It has its thread until librados gives up.
                LOG.warning("%s Ceph has not answered for %.0f seconds", self._where, seconds)
            raise Unavailable("The store does not answer in time.")
        return future.result()

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        future = self._threads.submit(call)
        self._waiting += 1
        return future

    def _is_done(self, future: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # whoever waited may be gone

    async def _connect(self) -> None:
        self._connection, self.operation, self.fsid = await self._in_thread(CONNECT + MARGIN, self._open)

    def _open(self) -> tuple[Connection, int, str]:
        """A new connection, the seconds that its operations may take, and the cluster's id."""
        connection = None
        try:
            connection = self._rados.Rados(conffile=self._conf, rados_id=self._user)
            operation = self._set_limits(connection)
            for option in _BREAK_LOCKS_GENTLY:
                with suppress(Exception):  # one of them is not known to this version
                    connection.conf_set(option, "false")
            connection.connect()
            return connection, operation, connection.get_fsid()
        except Exception as error:
            LOG.warning("%s cannot connect to Ceph: %s", self._where, error)
            if connection is not None:
                connection.shutdown()
            raise Unavailable("The store cannot be reached.") from error

    def _set_limits(self, connection: Connection) -> int:
        for option, as_it_comes, ours in _LIMITS:
            if self._given >= 0:
                connection.conf_set(option, str(self._given))
            elif float(connection.conf_get(option)) == as_it_comes:
                connection.conf_set(option, str(ours))
        return int(float(connection.conf_get("rados_osd_op_timeout"))) or OPERATION

    async def close(self, idle: bool) -> None:
        """Let go of the threads, and of the connection if it is `idle`: no image is open."""
        if self._connection is not None and idle:
            connection, self._connection = self._connection, None
            with suppress(Unavailable):
                await self._in_thread(MARGIN, connection.shutdown)
        self._threads.shutdown(wait=False)


def _translated(number: int) -> GlimpseError:
    match number:
        case errno.ENOENT:
            return NotFound("The store does not hold the image data.")
        case errno.EEXIST:
            return Duplicate("The store holds data for this image already.")
        case errno.ENOSPC | errno.EDQUOT:
            return StoreFull("The store is full.")
        case errno.EBUSY:
            return Conflict("The image data is in use.")
        case errno.EPERM | errno.EACCES | errno.EROFS:
            return Unavailable("The store may not be used in this way.")
        case errno.ETIMEDOUT:
            return Unavailable("The store does not answer in time.")
        case _:
            return Unavailable("The store failed to read or write.")
