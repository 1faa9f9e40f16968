"""`glance-cache-prefetcher`, `glance-cache-pruner`, `glance-cache-cleaner`: one pass over this node's cache, for cron.

The service does all of it by itself (`images/caching.py`); nothing has to be stopped while one of these runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

from oslo_log import log as oslo_log

from glimpse import config_files, settings
from glimpse.access.policy import Policy
from glimpse.cache.copies import Cache
from glimpse.cache.ledger import prepare
from glimpse.db.engine import Database
from glimpse.errors import GlimpseError, SettingsError
from glimpse.images.caching import Caching
from glimpse.settings import Settings
from glimpse.stores.registry import open_stores

PROG = "glance-cache"  # its file is glance-cache.conf, read after glance-api.conf

_Pass = Callable[[Settings, Database, Cache], int]


def prefetch(argv: Sequence[str] | None = None) -> int:
    """Fetch what is queued; exit code 1 when a store did not answer, and then the image stays queued."""
    return _run(argv, lambda chosen, database, cache: asyncio.run(_fetch(chosen, database, cache)))


def prune(argv: Sequence[str] | None = None) -> int:
    """Remove what has not been asked for the longest, down to image_cache_max_size."""

    def work(chosen: Settings, database: Database, cache: Cache) -> int:
        cache.prune()
        return 0

    return _run(argv, work)


def clean(argv: Sequence[str] | None = None) -> int:
    """Remove what is invalid, and what was not filled to its end for image_cache_stall_time seconds."""

    def work(chosen: Settings, database: Database, cache: Cache) -> int:
        cache.clean()
        return 0

    return _run(argv, work)


def _run(argv: Sequence[str] | None, work: _Pass) -> int:
    try:
        conf = config_files.parse(list(sys.argv[1:] if argv is None else argv), PROG)
        conf.set_default("use_stderr", True)
        oslo_log.setup(conf, "glance")
        chosen = settings.settings_from(conf)
        if not chosen.cache.directory:
            raise SettingsError(f"{config_files.files_of(conf)}: [DEFAULT] image_cache_dir: is not set")
        prepare(chosen.cache)
        database = Database(chosen.database, 1)
        try:
            return work(chosen, database, Cache(chosen.cache, database))
        finally:
            database.close()
    except (SettingsError, GlimpseError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


async def _fetch(chosen: Settings, database: Database, cache: Cache) -> int:
    stores = open_stores(chosen)
    caching = Caching(chosen.cache, database, Policy(chosen.conf), stores, cache)
    try:
        return 1 if await caching.fetch_queued() else 0
    finally:
        await caching.stop()
        await stores.close()
