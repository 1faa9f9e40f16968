"""One image on its way into the cache: filled by one process of the node, read by all while it grows.

Whoever holds the lock (flock) on `incomplete/<image id>` fills it; other processes watch the file. The kernel drops the
lock of a process that dies, and then one of those that watch goes on where it stopped. The mode of the file says how it
ended, also to those who have it open while it is renamed: what the group may read is a copy that was checked.

Nobody gets the last byte before the whole was held against the record, so that nobody takes a wrong copy for the image.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from io import FileIO
from typing import ParamSpec, TypeVar

from glimpse.cache.directory import Directory
from glimpse.cache.ledger import Ledger
from glimpse.cache.reading import GrowingCopy, Opener
from glimpse.domain import lifecycle
from glimpse.domain.record import Copy, Image
from glimpse.errors import GlimpseError, Unavailable
from glimpse.stores.driver import BLOCK
from glimpse.threads import at_rest

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

FILLING, COMPLETE, NO_ROOM = 0o600, 0o640, 0o700  # the owner may always write: others open the file at any moment
SETTLED = 0.5  # seconds after the last change of a record without a checksum: the time of a copy that is of it for sure
TICK = 0.02  # seconds between two looks at a file that another process fills, and between two calls to those who wait


def checksum_of(image: Image) -> str | None:
    """The MD5 that the bytes must have; whoever gave an image a place may have written it in capitals."""
    return image.checksum.lower() if image.checksum else None


class Superseded(Exception):
    """The copy was complete before it could be begun: look again."""


class _NoRoom(Exception):
    """The cache cannot take the image; the store still has it."""


class Copying:
    """The copy as this process sees it, from its first request to its end; `run` works in the task of `start`."""

    def __init__(
        self, directory: Directory, ledger: Ledger, make_room: Callable[[int], object], image: Image, source: Opener
    ) -> None:
        self._directory, self._ledger, self._make_room = directory, ledger, make_room
        self._image, self._source = image, source
        self._size = image.size or 0
        self._checksum = checksum_of(image)
        self._file: FileIO | None = None
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._there = 0
        self._is_mine = False  # to fill, and to be given its name
        self._began = 0.0
        self._ended = False
        self._failure: Exception | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._wake_up: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in a task of its own, which nobody's disappearance ends."""
        self.task = asyncio.create_task(self._run())

    def is_of(self, image: Image) -> bool:
        """Whether this is the same content."""
        mine = self._image
        same_time = self._checksum is not None or mine.updated_at == image.updated_at
        return same_time and (mine.checksum, mine.size) == (image.checksum, image.size)

    async def reader(self, source: Opener) -> GrowingCopy | None:
        """The bytes, once the first of them are there; None when the cache cannot take them.

        Raises `Superseded`, and `GlimpseError` as the source does.
        """
        while not self._there and not self._ended:
            await self._change()
        if self._ended and self._failure is not None:
            if isinstance(self._failure, _NoRoom):
                return None
            raise self._failure
        if self._file is None or self._file.closed:
            raise Superseded
        return GrowingCopy(FileIO(os.dup(self._file.fileno())), self._size, self.beyond, source)

    async def wait(self) -> None:
        """Return when the copy is there. Raises as `reader` does, `Unavailable` also when the cache has no room."""
        if self.task is not None:
            await asyncio.wait([self.task])
        if isinstance(self._failure, _NoRoom):
            raise Unavailable("The cache has no room for the image.")
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Let go of what is not complete; what is, is still given its name."""
        if self.task is not None:
            if not (self._ended and self._is_mine):
                self.task.cancel()
            await asyncio.wait([self.task])

    async def beyond(self, offset: int) -> int:
        """As `driver.GrowingReader.beyond`."""
        while True:
            complete = self._ended and self._failure is None
            there = self._size if complete else min(self._there, self._size - 1)
            if there > offset or complete:
                return there
            if isinstance(self._failure, _NoRoom):
                return offset
            if self._failure is not None:
                raise self._failure
            await self._change()

    async def _change(self) -> None:
        changed = asyncio.get_running_loop().create_future()
        self._waiting.add(changed)
        try:
            await changed
        finally:
            self._waiting.discard(changed)

    def _grew(self, there: int) -> None:
        pause = TICK if self._there else 0
        self._there = there
        if self._wake_up is None and there:
            # Hundreds may wait: they are called now and then, not for every block.
            self._wake_up = asyncio.get_running_loop().call_later(pause, self._wake)

    def _wake(self) -> None:
        self._wake_up = None
        for changed in self._waiting:
            if not changed.done():
                changed.set_result(None)

    def _end(self, failure: Exception | None) -> None:
        if not self._ended:
            self._ended, self._failure = True, failure
            if self._wake_up is not None:
                self._wake_up.cancel()
            self._wake()

    # --- the task ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            self._file = await _in_thread(self._open)
            await self._fill_or_watch(self._file)
            self._end(None)
        except asyncio.CancelledError:
            self._end(Unavailable("The service is being stopped."))
            raise
        except (GlimpseError, Superseded, _NoRoom) as error:
            self._end(error)
        except OSError as error:
            LOG.warning("image %s cannot be cached: %s", self._image.id, error.strerror)
            self._end(_NoRoom())
        except Exception:
            LOG.exception("image %s: caching failed", self._image.id)
            self._end(Unavailable("The image data broke off."))
        finally:
            if self._file is not None:
                # Whoever reads has the same lock with a number of their own.
                with suppress(OSError):
                    fcntl.flock(self._file, fcntl.LOCK_UN)
                self._file.close()

    def _open(self) -> FileIO:
        return FileIO(os.open(self._directory.incomplete(self._image.id), os.O_RDWR | os.O_CREAT, FILLING), "rb+")

    async def _fill_or_watch(self, file: FileIO) -> None:
        while True:
            if _lock(file):
                if self._is_in_its_place(file):
                    self._is_mine = True
                    await self._fill(file)
                    return
                # It ended while we waited for the lock.
                await self._learn_the_end(file)
                return
            facts = os.fstat(file.fileno())
            if facts.st_mode & 0o777 != FILLING:
                await self._learn_the_end(file)
                self._end(None)
                # The disk may take its time before the copy has its name; who asks until then reads here.
                while not _lock(file):  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(TICK)
                return
            self._grew(min(facts.st_size, self._size))
            await asyncio.sleep(TICK)

    def _is_in_its_place(self, file: FileIO) -> bool:
        try:
            return os.path.samestat(os.stat(self._directory.incomplete(self._image.id)), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    async def _learn_the_end(self, file: FileIO) -> None:
        """How another process ended its work."""
        facts = os.fstat(file.fileno())
        if facts.st_mode & 0o777 == NO_ROOM:
            self._grew(min(facts.st_size, self._size))
            raise _NoRoom
        if facts.st_mode & 0o777 != COMPLETE or facts.st_size != self._size:
            raise Unavailable("The image data broke off.") if self._there else Superseded
        if self._checksum is None and facts.st_mtime < lifecycle.epoch(self._image.updated_at):
            raise _other_data()
        noted = None
        with suppress(Unavailable):
            noted = await _in_thread(self._ledger.get, self._image.id)
        if noted is not None and self._checksum not in (None, noted.checksum):
            raise _other_data()

    async def _fill(self, file: FileIO) -> None:
        have = await _in_thread(self._prepare, file)
        self._grew(have)
        try:
            await _in_thread(self._take_over, file, have)
            if have < self._size:
                source = await self._source()
                async with aclosing(source.blocks(have, None)) as blocks:
                    async for block in blocks:
                        have += len(block)
                        if have > self._size:
                            break
                        await _in_thread(self._take, file, block)
                        self._grew(have)
            if have < self._size:
                raise Unavailable("The store broke off before the end of the image.")
            if have > self._size or self._checksum not in (None, self._md5.hexdigest()):
                await _in_thread(self._reject, file)
                raise Unavailable("The data in the store is not the image's.")
        except (_NoRoom, OSError) as error:
            LOG.warning("image %s cannot be cached: no room, or the disk fails", self._image.id)
            await _in_thread(self._give_up, file, NO_ROOM)
            raise _NoRoom from error
        except GlimpseError:
            if not have:
                await _in_thread(self._give_up, file, FILLING)
            raise
        await self._publish(file)

    def _prepare(self, file: FileIO) -> int:
        """The number of bytes that a process which died has left, when they can be of any use."""
        if self._directory.copy(self._image.id).exists():
            self._give_up(file, FILLING)
            raise Superseded
        facts = os.fstat(file.fileno())
        self._began = time.time()
        # It may have holes, after a crash of the machine, or be of older data: without a checksum nobody would notice.
        known = self._checksum is not None
        if facts.st_size and (
            not known or facts.st_mtime < lifecycle.epoch(self._image.updated_at) or facts.st_size > self._size
        ):
            # Perhaps of other content; somebody may be reading it, so the file stays as it is, without its name.
            self._give_up(file, FILLING)
            raise Superseded
        os.fchmod(file.fileno(), FILLING)
        return facts.st_size

    def _take_over(self, file: FileIO, have: int) -> None:
        self._make_room(self._size)
        if self._directory.free() < self._size - have:
            raise _NoRoom
        offset = 0
        while offset < have:
            block = os.pread(file.fileno(), min(BLOCK, have - offset), offset)
            if not block:
                raise OSError(errno.EIO, "the file is shorter than it was")
            self._md5.update(block)
            offset += len(block)
        file.seek(have)

    def _take(self, file: FileIO, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[file.write(view) :]
        self._md5.update(block)

    async def _publish(self, file: FileIO) -> None:
        now = lifecycle.now()
        copy = Copy(self._image.id, self._size, self._md5.hexdigest(), now, now)
        noted = True
        try:
            # First the note: a copy without one is not believed.
            await _in_thread(self._ledger.put, copy, file.fileno())
        except GlimpseError as error:
            LOG.warning("image %s is not kept in the cache: %s", self._image.id, error.message)
            noted = False
        if self._checksum is None:
            self._date(file)
        os.fchmod(file.fileno(), COMPLETE)
        self._end(None)  # the disk need not be waited for
        if noted:
            await _in_thread(self._name, file)
        else:
            await _in_thread(self._give_up, file, COMPLETE)

    def _date(self, file: FileIO) -> None:
        """Without a checksum the file's time says of which record the copy is: it is that of its last change."""
        changed, accessed = lifecycle.epoch(self._image.updated_at), os.fstat(file.fileno()).st_atime_ns
        # Records know whole seconds: one that was read within its second may have changed once more.
        settled = self._began >= changed + 1
        os.utime(file.fileno(), ns=(accessed, int((changed + (SETTLED if settled else 0)) * 10**9)))

    def _name(self, file: FileIO) -> None:
        os.fsync(file.fileno())
        if self._is_in_its_place(file):
            with suppress(FileNotFoundError):
                os.rename(self._directory.incomplete(self._image.id), self._directory.copy(self._image.id))
                self._directory.sync()
                LOG.info("image %s is cached", self._image.id)
                return
        self._ledger.remove([self._image.id])  # it was dropped while it came

    def _reject(self, file: FileIO) -> None:
        LOG.error("image %s: what the store has is not what the record says; it is not cached", self._image.id)
        if self._is_in_its_place(file):
            with suppress(FileNotFoundError):
                self._directory.reject(self._image.id)

    def _give_up(self, file: FileIO, mode: int) -> None:
        os.fchmod(file.fileno(), mode)
        if self._is_in_its_place(file):
            self._directory.incomplete(self._image.id).unlink(missing_ok=True)


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A cancelled task waits for the thread: nobody closes its file meanwhile."""
    future = asyncio.get_running_loop().run_in_executor(None, lambda: call(*args, **kwargs))
    await at_rest(future)
    return future.result()


def _other_data() -> Unavailable:
    return Unavailable("The image got other data meanwhile.")


def _lock(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
