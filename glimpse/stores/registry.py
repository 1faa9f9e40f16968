"""The configured stores of one process: made from the settings, found by id or by a location."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from oslo_config import cfg

from glimpse.domain.context import Context
from glimpse.domain.record import Location
from glimpse.errors import GlimpseError, Unconfigured
from glimpse.settings import Settings
from glimpse.store_settings import FALLBACK_GROUP, StoreSettings
from glimpse.stores import azure, file, gcs, http, rbd, s3, swift
from glimpse.stores.adapter import AdaptedStore
from glimpse.stores.cinder import CinderStore
from glimpse.stores.driver import LendingStore, PersonalStore, Store
from glimpse.stores.unusable import UnusableStore
from glimpse.stores.vmware import VmwareStore

LOG = logging.getLogger(__name__)

CHECK_FOR = 10.0  # seconds that a store gets to say whether it can be used


class _Make(Protocol):
    def __call__(self, options: Mapping[str, Any], where: str) -> Store: ...


@dataclass(frozen=True, slots=True)
class Driver:
    """A kind of store: the options of its section, how it is made of them, and the schemes of its URLs."""

    options: Sequence[cfg.Opt]
    make: _Make
    schemes: tuple[str, ...]


DRIVERS: Mapping[str, Driver] = {
    "file": Driver(file.OPTIONS, file.FileStore, ("file", "filesystem")),
    "http": Driver(http.OPTIONS, http.HttpStore, ("http", "https")),
    "rbd": Driver(rbd.OPTIONS, rbd.RbdStore, ("rbd",)),
    "s3": Driver(s3.OPTIONS, s3.S3Store, s3.SCHEMES),
    "gcs": Driver(gcs.OPTIONS, gcs.GcsStore, ("gs",)),
    "azure": Driver(azure.OPTIONS, azure.AzureBlobStore, ("azure",)),
    "swift": Driver(swift.OPTIONS, swift.open_swift, swift.SCHEMES),
}

# Those of glance_store that need more than `AdaptedStore`, which takes every type that is not here.
ADAPTED: Mapping[str, type[AdaptedStore]] = {"cinder": CinderStore, "vmware": VmwareStore}


@dataclass(frozen=True)
class ConfiguredStore:
    """A store under the id that operators and locations know it by.

    With `redirects`, clients may be sent to the store itself for the bytes.
    """

    id: str
    weight: int
    store: Store
    description: str = ""
    redirects: bool = False

    def acting_for(self, context: Context | None, owner: str | None) -> ConfiguredStore:
        """The same for calls about images of one project, where the store tells projects apart (`PersonalStore`)."""
        if isinstance(self.store, PersonalStore):
            return replace(self, store=self.store.on_behalf_of(context, owner))
        return self


class Stores:
    """All stores of the service. `multi` tells whether clients see store ids (`enabled_backends` is set).

    `personal` tells whether one of them tells projects apart, `lending` whether others build on the bytes in one.
    """

    def __init__(self, stores: Iterable[ConfiguredStore], default: str, multi: bool) -> None:
        self._by_id = {store.id: store for store in stores}
        self.default = self._by_id[default]
        self.multi = multi
        self.personal = any(isinstance(store.store, PersonalStore) for store in self)
        self.lending = any(isinstance(store.store, LendingStore) for store in self)

    def __iter__(self) -> Iterator[ConfiguredStore]:
        """In the order of `enabled_backends`."""
        return iter(self._by_id.values())

    def acting_for(self, context: Context | None, owner: str | None) -> Stores:
        """The same stores for calls about images of one project; see `ConfiguredStore.acting_for`."""
        if not self.personal:
            return self
        return Stores((store.acting_for(context, owner) for store in self), self.default.id, self.multi)

    @property
    def ids(self) -> list[str]:
        """In the order of `enabled_backends`."""
        return list(self._by_id)

    def get(self, store_id: str) -> ConfiguredStore | None:
        """The store with that id, if it is configured."""
        return self._by_id.get(store_id)

    def holding(self, location: Location) -> ConfiguredStore | None:
        """The store that a location belongs to: the one it names, or that has its place, or just knows its scheme.

        The last of these is a guess, which must not lead from a store that is not configured any more into another one:
        there may be bytes of the same image under the same name.
        """
        scheme = location.url.partition("://")[0].lower()
        name = str(location.metadata.get("store", ""))
        named = self._by_id.get(name)
        if named is not None and scheme in named.store.facts.schemes:
            return named
        knowing = (store for store in self._by_id.values() if scheme in store.store.facts.schemes)
        guessed = (store for store in knowing if not name or not store.store.facts.writable)
        return self.owning(location.url) or next(guessed, None)

    def owning(self, url: str) -> ConfiguredStore | None:
        """The store whose own place a URL is in (spec 3.4)."""
        return next((store for store in self._by_id.values() if store.store.owns(url)), None)

    def by_weight(self, locations: Iterable[Location]) -> list[Location]:
        """Locations in the order to try them: highest weight first, else as they came (spec 3.4)."""

        def weight(location: Location) -> int:
            store = self.holding(location)
            return store.weight if store is not None else 0

        return sorted(locations, key=weight, reverse=True)

    async def look(self) -> None:
        """Say in the log which stores cannot be used now: at the start of a service, rather than at the first call."""
        await asyncio.gather(*map(_look, self))

    async def close(self) -> None:
        """Close every store."""
        for store in self._by_id.values():
            await store.store.close()


async def _look(store: ConfiguredStore) -> None:
    try:
        async with asyncio.timeout(CHECK_FOR):
            await store.store.check()
    except TimeoutError:
        LOG.warning("store %s does not answer; it is used as soon as it does", store.id)
    except GlimpseError as error:
        LOG.warning("store %s cannot be used now: %s", store.id, error.message)


def open_stores(settings: Settings) -> Stores:
    """Make every configured store. Raises `SettingsError` for options that a driver cannot work with.

    A store that is not the default one and lacks a library or credentials is left out of service, with a warning.
    """
    made = []
    for store in settings.stores:
        opened = _opened(settings, store)
        made.append(ConfiguredStore(store.id, store.weight, opened, store.description, store.redirects))
    return Stores(made, settings.default_store, settings.multi_store)


def _opened(settings: Settings, store: StoreSettings) -> Store:
    driver = DRIVERS.get(store.type)
    adapted = ADAPTED.get(store.type, AdaptedStore)
    try:
        if driver is None:
            return adapted(settings, store)
        values = settings.group(store.group, driver.options, FALLBACK_GROUP if settings.multi_store else None)
        whole = {"uri_filter": settings.uri_filter, "keystone_url": settings.keystone_url()}
        return driver.make({**values, **whole}, f"[{store.group}]")
    except Unconfigured as error:
        if store.id == settings.default_store:
            raise
        LOG.warning("store %s is out of service: %s", store.id, error)
        return UnusableStore(store.type, driver.schemes if driver else adapted.schemes)
