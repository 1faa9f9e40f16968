"""What operators do with the cache of a node; and what it does alone: fetch what is queued, forget what is deleted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from glimpse.access.policy import Policy, image_target
from glimpse.cache.copies import Cache
from glimpse.cache_settings import CacheSettings
from glimpse.db import cached, images
from glimpse.db.engine import Database
from glimpse.domain.context import Context
from glimpse.domain.record import Copy, Image
from glimpse.errors import BadRequest, Conflict, GlimpseError, NotFound, TooLarge, Unavailable
from glimpse.images.opening import in_order, open_any
from glimpse.stores.registry import Stores

LOG = logging.getLogger(__name__)

LOOK = 30.0  # seconds between two looks into the queue
TIDY_EVERY = 10  # looks
AT_ONCE = 2  # queued images that one process fetches

_EVERYBODY = Context(is_admin=True)


@dataclass(frozen=True)
class Caching:
    """The calls on the cache. What is not a coroutine waits for disks and database, and belongs in a thread."""

    settings: CacheSettings
    database: Database
    policy: Policy
    stores: Stores
    cache: Cache | None
    _fetching: set[asyncio.Task[None]] = field(default_factory=set)
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    # --- calls (API reference, Cache Manage) -------------------------------------------------------------------------

    def list(self, context: Context, rule: str = "cache_list") -> tuple[Sequence[Copy], Sequence[str]]:
        """The copies, and the ids of the images that are to be fetched."""
        cache = self.require(context, rule)
        return cache.held(), cache.directory.queued()

    def nodes(self, context: Context, image_id: str) -> Sequence[str]:
        """The nodes that hold a copy of the image. Raises `Conflict` where only each node knows its own."""
        self.require(context, "list_cached_nodes")
        if self.settings.driver != "centralized_db":
            raise Conflict("The nodes' caches are not in the database: image_cache_driver is not centralized_db.")
        self.database.read(lambda connection: images.get(connection, image_id, context))
        return self.database.read(lambda connection: cached.nodes(connection, image_id))

    def queue(self, context: Context, image_id: str) -> None:
        """Have the image fetched. Raises `NotFound`, `Forbidden`, `BadRequest` (it has no data to fetch)."""
        image = self.database.read(lambda connection: images.get(connection, image_id, context))
        cache = self.require(context, "cache_image", image)
        if image.status != "active":
            raise BadRequest("Only active images can be cached.")
        cache.directory.queue(image_id)

    def remove(self, context: Context, image_id: str) -> None:
        """Neither a copy nor a wish for one is left. Raises `NotFound` where there is neither image nor copy."""
        image = None
        try:
            image = self.database.read(lambda connection: images.get(connection, image_id, context))
        except NotFound:
            if self.cache is None or not self._has(self.cache, image_id):
                raise
        self.require(context, "cache_delete", image).forget(image_id)

    def _has(self, cache: Cache, image_id: str) -> bool:
        return cache.directory.copy(image_id).exists() or image_id in cache.directory.queued()

    def require(self, context: Context, rule: str, image: Image | None = None) -> Cache:
        """The cache. Raises `Forbidden` when the rule refuses, and then `NotFound` where there is no cache."""
        self.policy.require(rule, context, image_target(image) if image is not None else {})
        if self.cache is None:
            raise NotFound("This service has no cache.")
        return self.cache

    def require_management(self, context: Context) -> Cache:
        """The same for the older calls, which are there with flavor cachemanagement only."""
        if not self.settings.management:
            raise NotFound("The resource could not be found.")
        return self.require(context, "manage_image_cache")

    # --- fetching ----------------------------------------------------------------------------------------------------

    def fetch_soon(self, image_id: str) -> None:
        """Fetch a queued image behind the call that asked for it."""
        task = asyncio.create_task(self._fetch(image_id))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    async def fetch_queued(self) -> int:
        """Fetch what is queued, one after the other; the number of those that have to be tried again."""
        if self.cache is None:
            return 0
        for image_id in await asyncio.to_thread(self.cache.directory.queued):
            await self._fetch(image_id)
        return len(await asyncio.to_thread(self.cache.directory.queued))

    async def _fetch(self, image_id: str) -> None:
        """Fetch one. It stays in the queue while its store, or the database, does not answer."""
        if self.cache is None:
            return
        try:
            image = await asyncio.to_thread(self.database.read, lambda c: images.get(c, image_id, _EVERYBODY))
            if image.status == "active":
                opener = partial(
                    open_any, self.stores.acting_for(None, image.owner), image, in_order(self.stores, image, ())
                )
                async with self._turn:
                    await self.cache.fetch(image, opener)
        except (NotFound, TooLarge) as error:
            LOG.warning("image %s is not fetched into the cache: %s", image_id, error.message)
        except GlimpseError as error:
            LOG.warning("image %s is not fetched into the cache now: %s", image_id, error.message)
            return
        except Exception:
            LOG.exception("image %s was not fetched into the cache", image_id)
            return
        await asyncio.to_thread(self.cache.directory.unqueue, image_id)

    # --- what goes on beside -----------------------------------------------------------------------------------------

    async def keep_house(self) -> None:
        """For as long as the process lives: fetch what is queued, forget what was deleted elsewhere, tidy up."""
        cache = self.cache
        if cache is None:
            return
        looks = 0
        while True:
            try:
                if looks % TIDY_EVERY == 0:
                    await asyncio.to_thread(self._tidy, cache)
                await self.fetch_queued()
            except (Unavailable, OSError) as error:
                LOG.warning("the cache could not be looked after: %s", error)
            except Exception:
                LOG.exception("the cache could not be looked after")
            looks += 1
            # Spread out, as every worker does this.
            await asyncio.sleep(LOOK * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    def _tidy(self, cache: Cache) -> None:
        known = {*cache.directory.held(), *cache.directory.queued()}
        for image_id in self.database.read(lambda connection: cached.gone(connection, known)):
            cache.forget(image_id)
        cache.tidy()

    async def stop(self) -> None:
        """End what is being fetched; it stays queued."""
        for task in self._fetching:
            task.cancel()
        await asyncio.gather(*self._fetching, return_exceptions=True)
        if self.cache is not None:
            await self.cache.stop()
