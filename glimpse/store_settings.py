"""Which stores are configured: `enabled_backends`, or the single store of `[glance_store]`, as one list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from oslo_config import cfg

from glimpse.config_files import read, refuse
from glimpse.options import GLANCE_STORE_OPTS, REDIRECT_OPTS, STORE_OPTS

RESERVED_STORE_PREFIX = "os_glance_"
FALLBACK_GROUP = "backend_defaults"  # has what the section of a store does not
STORE_TYPES = ("file", "http", "rbd", "s3", "swift", "gcs", "azure", "cinder", "vmware")
DRIVERS_FROM_OUTSIDE = "glance_store.drivers"  # entry points of packages that bring other types


@dataclass(frozen=True)
class StoreSettings:
    """One store: its id, its driver, and the section that holds the driver's options.

    With `redirects`, clients may be sent to the store itself for the bytes.
    """

    id: str
    type: str
    group: str
    description: str = ""
    weight: int = 0
    redirects: bool = False


def stores_from(conf: cfg.ConfigOpts, backends: Mapping[str, str] | None) -> tuple[tuple[StoreSettings, ...], str]:
    """Both ways to configure stores, and the default: a single store is a list of length one (plus http to read from).

    Raises `SettingsError`.
    """
    legacy = read(conf, "glance_store", GLANCE_STORE_OPTS)
    if not backends:
        return _legacy_stores(conf, legacy)
    stores = []
    for store_id, kind in backends.items():
        if store_id.startswith(RESERVED_STORE_PREFIX):
            raise refuse(conf, "DEFAULT", "enabled_backends", f"{store_id!r}: ids with os_glance_ are reserved")
        if not _is_known(kind):
            raise refuse(conf, "DEFAULT", "enabled_backends",
                          f"{store_id}:{kind} has an unknown type; allowed: {', '.join(STORE_TYPES)}")  # fmt: skip
        own = read(conf, store_id, [*STORE_OPTS, *REDIRECT_OPTS])
        description, weight, redirects = own["store_description"], own["weight"], own["redirect_downloads"]
        stores.append(StoreSettings(store_id, kind, store_id, description, weight, redirects))
    default = legacy["default_backend"]
    if default not in backends:
        raise refuse(conf, "glance_store", "default_backend",
                      f"{default!r} is not in enabled_backends; allowed: {', '.join(backends)}")  # fmt: skip
    return tuple(stores), default


def _is_known(kind: str) -> bool:
    return kind in STORE_TYPES or bool(metadata.entry_points(group=DRIVERS_FROM_OUTSIDE, name=kind))


# `default_store`, and sometimes `stores`, name a scheme of URLs instead of the driver.
_LEGACY_SCHEMES = {
    "filesystem": "file", "https": "http", "swift+http": "swift", "swift+https": "swift", "swift+config": "swift",
    "s3+http": "s3", "s3+https": "s3", "vsphere": "vmware", "vmware_datastore": "vmware",
}  # fmt: skip


def _legacy_type(name: str) -> str:
    short = name.removeprefix("glance.store.").removesuffix(".Store")  # as in the first files of all
    return _LEGACY_SCHEMES.get(short, short)


def _legacy_stores(conf: cfg.ConfigOpts, legacy: Mapping[str, Any]) -> tuple[tuple[StoreSettings, ...], str]:
    wanted = [_legacy_type(name) for name in legacy["stores"]]
    unknown = [name for name in wanted if not _is_known(name)]
    if unknown:
        raise refuse(conf, "glance_store", "stores", f"{unknown[0]!r} is not known; allowed: {', '.join(STORE_TYPES)}")
    default = _LEGACY_SCHEMES.get(legacy["default_store"], legacy["default_store"])
    if default not in wanted:
        raise refuse(conf, "glance_store", "default_store",
                      f"{default!r} is not in stores; allowed: {', '.join(legacy['stores'])}")  # fmt: skip
    redirects = read(conf, "glance_store", REDIRECT_OPTS)["redirect_downloads"]
    kinds = dict.fromkeys(wanted)
    return tuple(StoreSettings(kind, kind, "glance_store", redirects=redirects) for kind in kinds), default
