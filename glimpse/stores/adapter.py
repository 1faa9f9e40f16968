"""Stores that a driver of glance_store works: `cinder`, `vmware`, and any type that other packages bring.

Such a driver is a blocking object with `add`, `get`, `get_size` and `delete`, found under the entry points
`glance_store.drivers` (https://docs.openstack.org/glance_store). Here it works in threads, as a `driver.Store`. It gets
a configuration of its own, and is never entered in glance_store's tables of schemes, so any number of stores of one
type stand side by side. The package is not imported unless such a store is configured.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from typing import Any, ClassVar, TypeVar

from oslo_config import cfg
from oslo_utils import strutils

from glimpse.config_files import one_line
from glimpse.domain.context import Context
from glimpse.errors import (
    Conflict,
    Duplicate,
    Forbidden,
    GlimpseError,
    Gone,
    NotFound,
    SizeMismatch,
    StoreFull,
    Unavailable,
    Unconfigured,
)
from glimpse.settings import Settings
from glimpse.store_settings import DRIVERS_FROM_OUTSIDE, FALLBACK_GROUP, StoreSettings
from glimpse.stores.caller import Caller, Keystone
from glimpse.stores.driver import BLOCK, Facts, Stored
from glimpse.stores.feed import Feed
from glimpse.threads import at_rest

LOG = logging.getLogger(__name__)

CALL_THREADS = 16
UPLOAD_THREADS = 32  # apart, as an upload keeps its thread for as long as the client sends
# One step of a driver, such as a read. Cinder alone is given 300 seconds to change the state of a volume, twice.
STEP_SECONDS = 900.0
CHECK_SECONDS = 8.0  # less than who asks at the start waits
# Drivers hash while they write, whether somebody wants that or not; among hashlib's this one costs the least (SHA-NI).
CHEAP_HASH = "sha256"

_READ_RANDOM, _WRITE, _REUSABLE = 0b111, 0b1000, 0b1000000  # glance_store.capabilities.BitMasks

T = TypeVar("T")

# By the names of glance_store's exceptions, the nearest ancestor first; all others are `Unavailable`.
_MEANINGS: Mapping[str, GlimpseError] = {
    "NotFound": NotFound("The store does not have these bytes."),
    "UnknownScheme": NotFound("The store cannot read such a location."),
    "BadStoreUri": NotFound("The store cannot read such a location."),
    "Duplicate": Duplicate("The store holds bytes for this image already."),
    "StorageFull": StoreFull("The store is full."),
    "StorageWriteDenied": Unavailable("The store may not be written to."),
    "StoreAddDisabled": Gone("The store cannot be written to."),
    "StoreDeleteNotSupported": Forbidden("The store does not support deleting."),
    "Forbidden": Forbidden("The store does not allow that."),
    "InUseByStore": Conflict("The image's bytes are in use in the store."),
    "HasSnapshot": Conflict("The image's bytes are in use in the store."),
    "Invalid": SizeMismatch("The store got more or fewer bytes than were announced."),
}


class AdaptedStore:
    """A `driver.Store` and a `PersonalStore`, over one driver of glance_store.

    It knows no more of its product than glance_store says; subclasses do. `discard` finds what is at the store's own
    prefix followed by the image's id, which is where drivers commonly put an image, and nothing that is elsewhere.
    """

    package: ClassVar[str] = "glance_store"  # what to install
    schemes: ClassVar[tuple[str, ...]] = ()  # of its URLs, where that is known without the package

    def __init__(self, settings: Settings, store: StoreSettings) -> None:
        """Raises `Unconfigured` for what is not installed or not set, `SettingsError` for a wrong value."""
        where = f"[{store.group}]"
        kind = self._load(store.type, where)
        fallback = FALLBACK_GROUP if settings.multi_store else None
        self._options = settings.group(store.group, kind.OPTIONS or [], fallback)
        conf = settings.for_library()
        _tell_libraries(conf)
        self._require(where)
        self._product = _Product(kind, conf, store.group if settings.multi_store else None, self._prepare)
        capabilities = getattr(kind, "_CAPABILITIES", 0)
        self.facts = Facts(
            store.type, tuple(self._product.schemes),
            writable=bool(capabilities & _WRITE), ranges=capabilities & _READ_RANDOM == _READ_RANDOM,
        )  # fmt: skip
        self.details: Mapping[str, Any] = self._details()
        self._keystone = Keystone.of(conf)
        self._caller = Caller(self._keystone, None, None)
        self._under_way: set[str] = set()
        self._calls = ThreadPoolExecutor(CALL_THREADS, f"{store.id}-calls")
        self._uploads = ThreadPoolExecutor(UPLOAD_THREADS, f"{store.id}-uploads")

    def _load(self, name: str, where: str) -> Any:
        from oslo_service.backend import BackendType, init_backend

        init_backend(BackendType.THREADING)  # else os-brick and oslo.vmware load eventlet, and notifications fail
        for found in metadata.entry_points(group=DRIVERS_FROM_OUTSIDE, name=name):
            try:
                return found.load()
            except ImportError as error:
                missing = f"the Python module {error.name}"
                raise Unconfigured(
                    f"{where}: a store of type {name} needs {missing}; pip install {self.package!r}"
                ) from error
        raise Unconfigured(f"{where}: a store of type {name} needs its driver; pip install {self.package!r}")

    def _require(self, where: str) -> None:
        """Raise `Unconfigured` where an option is missing without which the product cannot be used."""

    def _prepare(self, driver: Any) -> None:
        """Do to a new driver what its product needs."""
        driver.READ_CHUNKSIZE = driver.WRITE_CHUNKSIZE = BLOCK

    def _details(self) -> Mapping[str, Any]:
        return {}

    def on_behalf_of(self, context: Context | None, owner: str | None) -> AdaptedStore:
        """See `PersonalStore`: whether the driver looks at the context is the driver's affair."""
        other = copy.copy(self)
        other._caller = Caller(self._keystone, context, owner)
        return other

    def owns(self, url: str) -> bool:
        prefix = self._prefix()
        return prefix is not None and url.startswith(prefix)

    def _prefix(self) -> str | None:
        """What the URLs of this store begin with, None where its driver does not say (yet)."""
        return self._product.prefix

    async def _run(self, call: Callable[..., T], *args: Any, undo: Callable[[T], object] | None = None,
                   seconds: float = STEP_SECONDS) -> T:  # fmt: skip
        """One step, in a thread. `undo` is for its result, should nobody wait for that any more."""
        future = asyncio.get_running_loop().run_in_executor(self._calls, call, *args)

        def abandoned(late: asyncio.Future[T]) -> None:
            if undo is not None and not late.cancelled() and late.exception() is None:
                threading.Thread(target=undo, args=(late.result(),)).start()  # also when the store is closed

        try:
            done = await at_rest(future, seconds)
        except asyncio.CancelledError:
            future.add_done_callback(abandoned)
            raise
        if not done:
            future.add_done_callback(abandoned)
            raise Unavailable("The store does not answer in time.")
        try:
            return future.result()
        except Exception as error:
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> GlimpseError:
        """What a failure of the driver says to a client; the rest of it goes to the log."""
        if isinstance(error, GlimpseError):
            return error
        known = (_MEANINGS[kind.__name__] for kind in type(error).__mro__
                 if kind.__module__.startswith("glance_store.") and kind.__name__ in _MEANINGS)  # fmt: skip
        meaning = next(known, None)
        if meaning is None and isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            meaning = _MEANINGS["StorageFull"]
        if meaning is None:
            LOG.error("%s: %s", type(error).__name__, strutils.mask_password(one_line(str(error))))
            return Unavailable("The store cannot be used now.")
        return type(meaning)(meaning.message)

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        if not self.facts.writable:
            raise Gone("The store cannot be written to.")
        if image_id in self._under_way:
            raise Duplicate("The store holds bytes for this image already.")
        self._under_way.add(image_id)
        try:
            if await self._run(self._kept, image_id):
                raise Duplicate("The store holds bytes for this image already.")
            return await self._add(image_id, blocks, size)
        finally:
            self._under_way.discard(image_id)

    async def _add(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        loop = asyncio.get_running_loop()
        feed = Feed(loop)

        def add() -> tuple[Any, ...]:
            driver = self._product.driver()
            if not driver.is_capable(_WRITE):
                raise Gone("The store cannot be written to.")
            result: tuple[Any, ...] = driver.add(image_id, feed, size or 0, CHEAP_HASH, context=self._caller)
            return result

        begun = self._uploads.submit(add)
        work = asyncio.wrap_future(begun)
        work.add_done_callback(lambda _: feed.leave())
        try:
            total = await feed.fill(blocks, STEP_SECONDS)
            try:
                url, written, _, _, about = await asyncio.wait_for(asyncio.shield(work), STEP_SECONDS)
            except Exception as error:
                raise self._meaning(error) from error
            if written != total:
                raise Unavailable("The store did not take all bytes.")
        except BaseException:
            feed.break_off()
            if not begun.cancel():  # else it was still waiting for a thread
                await asyncio.shield(self._take_back(image_id, work))
            raise
        return Stored(url, written, about or {})

    async def _take_back(self, image_id: str, work: asyncio.Future[tuple[Any, ...]]) -> None:
        """Leave nothing of a put that failed: drivers clean up by themselves, but not after every failure."""
        if not await at_rest(work, STEP_SECONDS):
            LOG.error("image %s: its upload hangs in the store's driver, and may leave something", image_id)
            return
        error = None if work.cancelled() else work.exception()
        if isinstance(error, Exception) and isinstance(self._meaning(error), Duplicate):
            return  # what is there belongs to somebody else
        try:
            left = set(await self._run(self._kept, image_id))
            if error is None and not work.cancelled():
                left.add(work.result()[0])
            for url in left:
                with suppress(NotFound):
                    await self._run(self._remove, url)
        except GlimpseError as failure:
            LOG.error("image %s: what a failed upload left could not be removed: %s", image_id, failure)

    def _kept(self, image_id: str) -> Sequence[str]:
        """URLs of all that the store has of an image, finished or not; blocks."""
        driver, prefix = self._product.driver(), self._prefix()
        if prefix is None or prefix.endswith("://"):
            return ()
        url = f"{prefix}{image_id}"
        try:
            driver.get_size(self._product.location(url), context=self._caller)
        except NotImplementedError:
            return ()
        except Exception as error:
            if isinstance(self._meaning(error), NotFound):
                return ()
            raise
        return (url,)

    def _remove(self, url: str) -> None:
        """What `discard` does with each URL of `_kept`; blocks."""
        self._product.driver().delete(self._product.location(url), context=self._caller)

    async def open(self, url: str) -> AdaptedReader:
        chunks, size = await self._run(self._begin, url, 0, None, undo=lambda begun: _let_go(begun[0]))
        return AdaptedReader(self, url, chunks, size)

    def _begin(self, url: str, offset: int, length: int | None) -> tuple[Iterator[bytes], int | None]:
        """Begin to read; blocks. A driver says 0 for a size that it does not know."""
        part = {"offset": offset, "chunk_size": length} if offset else {}
        chunks, size = self._product.driver().get(self._product.location(url), context=self._caller, **part)
        return chunks, int(size or 0) or None

    async def stat(self, url: str) -> int | None:
        def size() -> int | None:
            location = self._product.location(url)
            return int(self._product.driver().get_size(location, context=self._caller) or 0) or None

        return await self._run(size)

    async def delete(self, url: str) -> None:
        def delete() -> None:
            self._product.driver().delete(self._product.location(url), context=self._caller)

        await self._run(delete)

    async def discard(self, image_id: str) -> None:
        for url in await self._run(self._kept, image_id):
            with suppress(NotFound):
                await self._run(self._remove, url)

    async def check(self) -> None:
        await self._run(self._ask, seconds=CHECK_SECONDS)

    def _ask(self) -> None:
        """Raise where the product cannot be used now; blocks. A driver that can be set up is all there is to see."""
        self._product.driver()

    async def close(self) -> None:
        self._calls.shutdown(wait=False, cancel_futures=True)
        self._uploads.shutdown(wait=False, cancel_futures=True)


class AdaptedReader:
    """A `driver.Reader` over the iterator of a driver's `get`."""

    def __init__(self, store: AdaptedStore, url: str, chunks: Iterator[bytes], size: int | None) -> None:
        self.size = size
        self._store, self._url = store, url
        self._chunks: Iterator[bytes] | None = chunks
        self._untouched = True

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        if offset or not self._untouched:
            run, begin, before = self._store._run, self._store._begin, self._chunks
            self._chunks, _ = await run(begin, self._url, offset, length, undo=lambda begun: _let_go(begun[0]))
            if before is not None:
                await run(_let_go, before)  # not earlier: what both have in common, such as a device, stays
        self._untouched = False
        left = length if length is not None or self.size is None else self.size - offset
        chunks = iter(self._chunks or ())
        while left is None or left > 0:
            chunk = await self._store._run(next, chunks, b"")
            if not chunk:
                break
            if left is not None:
                chunk = chunk[:left]
                left -= len(chunk)
            yield chunk
        if left:
            # Drivers may end an iterator as if that were all when the product fails.
            raise Unavailable("The store broke off.")

    async def close(self) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            await self._store._run(_let_go, chunks)


def _let_go(chunks: Any) -> None:
    """Close an iterator of a driver, or what it is wrapped around."""
    for thing in (chunks, getattr(chunks, "wrapped", None)):
        if close := getattr(thing, "close", None):
            close()


class _Product:
    """A driver of glance_store with its configuration, set up when it is first used: some ask their server then."""

    def __init__(self, kind: Any, conf: cfg.ConfigOpts, group: str | None, prepare: Callable[[Any], None]) -> None:
        self._kind, self._conf, self._group, self._prepare = kind, conf, group, prepare
        self._lock = threading.Lock()
        self._driver = self._make()
        self._set_up = False
        self.schemes: Sequence[str] = self._driver.get_schemes()

    def _make(self) -> Any:
        driver = self._kind(self._conf, backend=self._group) if self._group else self._kind(self._conf)
        self._prepare(driver)
        return driver

    def driver(self) -> Any:
        """The driver, ready; blocks."""
        with self._lock:
            if not self._set_up:
                # What it has to complain of goes to the log, and it refuses to write: glance_store's own rule.
                self._driver.configure()
                self._set_up = True
            elif not self._driver.is_capable(_REUSABLE):
                self._driver = self._make()
                self._driver.configure()
            return self._driver

    @property
    def prefix(self) -> str | None:
        """What this store's URLs begin with: without store ids all that have its scheme."""
        if not self._group:
            return f"{self.schemes[0]}://"
        prefix: str | None = self._driver.url_prefix
        return prefix.rstrip("/") + "/" if prefix else None

    def location(self, url: str) -> Any:
        """The URL as drivers want it. Raises `NotFound`, and glance_store's `BadStoreUri`."""
        from glance_store.location import Location

        scheme = url.partition("://")[0]
        try:
            if scheme in self.schemes:
                kind = self._driver.get_store_location_class()
                return Location(scheme, kind, self._conf, uri=url, backend=self._group)
        except ValueError:
            pass
        raise NotFound("The store cannot read such a location.")


def _tell_libraries(conf: cfg.ConfigOpts) -> None:
    """Give the operator's files to oslo.concurrency, oslo.privsep and os-brick.

    They know one configuration only, that of the process, which nothing else of this service uses.
    """
    cfg.CONF([], project="glance", default_config_files=conf.config_file, default_config_dirs=conf.config_dir)
