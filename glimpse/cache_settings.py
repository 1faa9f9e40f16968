"""Whether this node keeps copies of image bytes, and where: options `image_cache_*`, and the flavor's second part."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oslo_config import cfg

from glimpse.config_files import refuse

# Glance's flavors with a cache; the part before the plus is the identity.
SUFFIXES = ("+caching", "+cachemanagement")


@dataclass(frozen=True)
class CacheSettings:
    """`image_cache_*`: copies of image bytes on this node. `directory` is "" where there is no cache.

    `serves` tells whether downloads are answered from it (a flavor with caching), `management` whether the older calls
    are there (cachemanagement). `node` is the URL by which the database knows this node. Size in bytes, time in
    seconds.
    """

    directory: str
    serves: bool
    management: bool
    driver: str
    max_size: int
    stall_time: int
    node: str


def without_cache(flavor: str) -> str:
    """The part of a flavor that tells how callers are known."""
    identity = "" if flavor in ("caching", "cachemanagement") else flavor
    for suffix in SUFFIXES:
        identity = identity.removesuffix(suffix)
    return identity


def cache_from(conf: cfg.ConfigOpts, default: Mapping[str, Any], flavor: str) -> CacheSettings:
    """Check it all; `default` are the values of `[DEFAULT]`, `flavor` is the whole one. Raises `SettingsError`."""
    kind = flavor.rpartition("+")[2]
    serves = kind in ("caching", "cachemanagement")
    if serves and not default["image_cache_dir"]:
        raise refuse(conf, "DEFAULT", "image_cache_dir", f"is not set, and flavor {flavor} needs it")
    return CacheSettings(
        directory=default["image_cache_dir"] or "",
        serves=serves,
        management=kind == "cachemanagement",
        driver=default["image_cache_driver"],
        max_size=default["image_cache_max_size"],
        stall_time=default["image_cache_stall_time"],
        # Not public_endpoint: behind a balancer all nodes have the same, and would forget each other's copies.
        node=default["worker_self_reference_url"] or f"http://{socket.gethostname()}:{default['bind_port']}",
    )
