"""The configured stores of one process: made from the settings, found by id or by a location."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from oslo_config import cfg

from glimpse.domain.record import Location
from glimpse.settings import Settings
from glimpse.stores import file, http
from glimpse.stores.driver import Store

FALLBACK_GROUP = "backend_defaults"


class _Driver(Protocol):
    def __call__(self, options: Mapping[str, Any], where: str) -> Store: ...


DRIVERS: Mapping[str, tuple[Sequence[cfg.Opt], _Driver]] = {
    "file": (file.OPTIONS, file.FileStore),
    "http": (http.OPTIONS, http.HttpStore),
}


@dataclass(frozen=True)
class ConfiguredStore:
    """A store under the id that operators and locations know it by."""

    id: str
    weight: int
    store: Store
    description: str = ""


class Stores:
    """All stores of the service. `multi` tells whether clients see store ids (`enabled_backends` is set)."""

    def __init__(self, stores: Iterable[ConfiguredStore], default: str, multi: bool) -> None:
        self._by_id = {store.id: store for store in stores}
        self.default = self._by_id[default]
        self.multi = multi

    def __iter__(self) -> Iterator[ConfiguredStore]:
        """In the order of `enabled_backends`."""
        return iter(self._by_id.values())

    @property
    def ids(self) -> list[str]:
        """In the order of `enabled_backends`."""
        return list(self._by_id)

    def get(self, store_id: str) -> ConfiguredStore | None:
        """The store with that id, if it is configured."""
        return self._by_id.get(store_id)

    def holding(self, location: Location) -> ConfiguredStore | None:
        """The store that a location belongs to: the one it names, or that has its place, or just knows its scheme."""
        scheme = location.url.partition("://")[0].lower()
        named = self._by_id.get(str(location.metadata.get("store", "")))
        if named is not None and scheme in named.store.facts.schemes:
            return named
        knowing = (store for store in self._by_id.values() if scheme in store.store.facts.schemes)
        return self.owning(location.url) or next(knowing, None)

    def owning(self, url: str) -> ConfiguredStore | None:
        """The store whose own place a URL is in (spec 3.4)."""
        return next((store for store in self._by_id.values() if store.store.owns(url)), None)

    def by_weight(self, locations: Iterable[Location]) -> list[Location]:
        """Locations in the order to try them: highest weight first, else as they came (spec 3.4)."""

        def weight(location: Location) -> int:
            store = self.holding(location)
            return store.weight if store is not None else 0

        return sorted(locations, key=weight, reverse=True)

    async def close(self) -> None:
        """Close every store."""
        for store in self._by_id.values():
            await store.store.close()


def open_stores(settings: Settings) -> Stores:
    """Make every configured store. Raises `SettingsError` for options that a driver cannot work with."""
    fallback = FALLBACK_GROUP if settings.multi_store else None
    made = []
    for store in settings.stores:
        options, driver = DRIVERS[store.type]
        values = {**settings.group(store.group, options, fallback), "uri_filter": settings.uri_filter}
        made.append(ConfiguredStore(store.id, store.weight, driver(values, f"[{store.group}]"), store.description))
    return Stores(made, settings.default_store, settings.multi_store)
