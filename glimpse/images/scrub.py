"""Erasing what was deleted a while ago: images under `delayed_delete`, locations that left their image, and whatever a
store refused to erase, or a killed process did not come to, when it was deleted.

Every worker of every node scrubs. Each place is claimed first (`db/scrub.py`), so one of them erases it. Each store has
its own task: one that is away, or hangs, delays nobody's images but its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from glimpse.db import images, scrub
from glimpse.db.engine import Database
from glimpse.db.scrub import Deadlines, Waiting
from glimpse.domain import lifecycle
from glimpse.domain.lifecycle import LEASE_PROPERTY
from glimpse.domain.record import LEFTOVER, Location
from glimpse.errors import Conflict, GlimpseError, NotFound, Unavailable
from glimpse.images.data import erase_place
from glimpse.images.import_lock import LOCK
from glimpse.settings import Settings
from glimpse.stores.registry import ConfiguredStore, Stores

LOG = logging.getLogger(__name__)

ERASE_AFTER = 60  # seconds that the caller who deleted an image gets to erase its bytes before the scrubber does
RENEW = 20  # seconds between two renewals of a claim
WITHOUT_DATABASE = 2.0  # seconds between two tries while the database is away
FIRST = 10.0  # seconds, at most, from the start of a process to its first pass
MOST = 10_000  # locations of one store in one pass
GIVE_UP_AFTER = 5  # places that a store cannot be asked about, one after the other


@dataclass(frozen=True)
class Scrubber:
    """Erases late, and brings back what is not erased yet. `_at_work` are the tasks of stores, by id."""

    settings: Settings
    database: Database
    stores: Stores
    _at_work: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def keep_scrubbing(self) -> None:
        """A pass now and then (`wakeup_time`) for as long as the process lives; a database that is away is waited for.

        A store that is not done within that time goes on beside the next passes.
        """
        pause = min(FIRST, self.settings.wakeup_time) / 2
        try:
            while True:
                # Spread out, as every worker of every node does this.
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
                pause = float(self.settings.wakeup_time)
                try:
                    await self.pass_once(pause)
                except Unavailable:
                    pause = min(pause, WITHOUT_DATABASE)
                except Exception:
                    LOG.exception("scrubbing failed")
        finally:
            for task in self._at_work.values():
                task.cancel()

    async def pass_once(self, patience: float | None = None) -> None:
        """Erase what is due. `patience` is how long to wait for the stores, in seconds; None for no limit.

        Raises `Unavailable` when the database does not answer.
        """
        for store_id, places in (await self._due()).items():
            self._at_work[store_id] = asyncio.create_task(self._erase_all(places))
        if self._at_work:
            done, _ = await asyncio.wait(self._at_work.values(), timeout=patience)
            for store_id in [store_id for store_id, task in self._at_work.items() if task in done]:
                del self._at_work[store_id]
        until, now = self._deadlines().delayed, lifecycle.now()
        for image_id in await self.database.run(self.database.write, lambda c: scrub.finish(c, until, now)):
            LOG.info("image %s is scrubbed", image_id)

    def _deadlines(self) -> Deadlines:
        now = lifecycle.now()
        delayed, soon = now - timedelta(seconds=self.settings.scrub_time), now - timedelta(seconds=ERASE_AFTER)
        # Without delayed_delete it is their caller's to erase them at once.
        return Deadlines(delayed, soon, delayed if self.settings.delayed_delete else soon)

    async def _due(self) -> dict[str, list[Waiting]]:
        """What is to be erased, by the id of the store that has it; stores that are still at work are left out."""
        found: dict[str, list[Waiting]] = {}
        until, now, after, unknown = self._deadlines(), lifecycle.now(), 0, 0
        while page := await self.database.run(self._page, until, now, after):
            after = page[-1].location.id or 0
            for waiting in page:
                store = self._store_of(waiting)
                if store is None:
                    unknown += 1
                elif store.id not in self._at_work and len(found.setdefault(store.id, [])) < MOST:
                    found[store.id].append(waiting)
        if unknown:
            LOG.warning("bytes at %d places stay there: no configured store understands their location", unknown)
        return found

    def _page(self, until: Deadlines, now: datetime, after: int) -> list[Waiting]:
        return self.database.read(lambda connection: scrub.due(connection, until, now, after))

    async def _erase_all(self, places: Iterable[Waiting]) -> None:
        """`scrub_pool_size` at once, until the end or until the store is found to be away."""
        failures = 0

        async def work(left: Iterator[Waiting]) -> None:
            nonlocal failures
            for waiting in left:
                try:
                    await self._erase_one(waiting)
                    failures = 0
                except Unavailable as error:
                    LOG.warning("image %s keeps its bytes for now: %s", waiting.image_id, error.message)
                    failures += 1
                except Exception:
                    LOG.exception("image %s cannot be scrubbed", waiting.image_id)
                if failures >= GIVE_UP_AFTER:
                    return

        left = iter(places)
        await asyncio.gather(*(work(left) for _ in range(self.settings.scrub_pool_size)))

    async def _erase_one(self, waiting: Waiting) -> None:
        """Raises `Unavailable`: the store, or the database, does not answer."""
        store = self._store_of(waiting)
        if store is None:
            LOG.warning("bytes stay where they are: no configured store understands their location")
            return
        marks, now = (LEASE_PROPERTY, LOCK), lifecycle.now()
        claimed = await self.database.run(self.database.write, lambda c: scrub.claim(c, waiting, now, marks))
        if claimed is None:
            return
        claim = _Claim(self.database, waiting.location, claimed)
        renewal = asyncio.create_task(claim.keep())
        try:
            await self._delete(store, waiting)
        except GlimpseError as error:
            renewal.cancel()
            await claim.give_back()
            if isinstance(error, Unavailable):
                raise
            LOG.warning("image %s keeps its bytes in store %s: %s", waiting.image_id, store.id, error.message)
        else:
            await self.database.run(self.database.write, lambda c: images.erased(c, waiting.location))
        finally:
            renewal.cancel()

    def _store_of(self, waiting: Waiting) -> ConfiguredStore | None:
        location = waiting.location
        if location.url.startswith(LEFTOVER):
            store = self.stores.get(str(location.metadata.get("store", "")))
        else:
            store = self.stores.holding(location)
        return None if store is None else store.acting_for(None, waiting.owner)

    async def _delete(self, store: ConfiguredStore, waiting: Waiting) -> None:
        try:
            if waiting.location.url.startswith(LEFTOVER):
                await store.store.discard(waiting.image_id)
            else:
                await erase_place(self.database, store, waiting.image_id, waiting.location)
        except NotFound:
            LOG.info("image %s: store %s had no bytes left to erase", waiting.image_id, store.id)
        else:
            LOG.info("image %s: erased from store %s", waiting.image_id, store.id)

    async def erase(self, locations: Iterable[Location]) -> None:
        """Erase the bytes of locations that left their image; with `delayed_delete` they wait as whole images do.

        What a store refuses now, a pass tries again.
        """
        if self.settings.delayed_delete:
            return
        for location in locations:
            with contextlib.suppress(Unavailable):
                waiting = await self.database.run(self._with_image, location)
                if waiting is not None:
                    await self._erase_one(waiting)

    def _with_image(self, location: Location) -> Waiting | None:
        return self.database.read(lambda connection: scrub.with_image(connection, location))

    async def restore(self, image_id: str) -> str:
        """Bring back an image that waits to be scrubbed; the status that it has now.

        It comes with the places that still have its bytes, and the properties, tags and members that it had. Raises
        `NotFound`, `Conflict` (not waiting, being erased, or no bytes left), `Unavailable`.
        """
        places = await self.database.run(self.database.read, lambda c: scrub.restorable(c, image_id))
        owner = await self.database.run(self.database.read, lambda c: images.owner(c, image_id))
        stores = self.stores.acting_for(None, owner)
        whole = [place for place in places if await _may_be_there(stores, place)]
        if not whole:
            raise Conflict(f"Image {image_id} cannot be restored: its data is gone.")
        now = lifecycle.now()
        return await self.database.run(self.database.write, lambda c: scrub.restore(c, image_id, whole, now))


class _Claim:
    """The right to erase a place, kept alive by `keep` in a task of its own."""

    def __init__(self, database: Database, location: Location, claimed: datetime) -> None:
        self._database = database
        self._location = location
        self._claimed = claimed

    async def keep(self) -> None:
        """Renew it until the task is cancelled, or somebody else has it."""
        while True:
            await asyncio.sleep(RENEW)
            with contextlib.suppress(Unavailable):
                renewed = await self._database.run(self._renew)
                if renewed is None:
                    return
                self._claimed = renewed

    def _renew(self) -> datetime | None:
        now = lifecycle.now()
        return self._database.write(lambda c: scrub.renew(c, self._location, self._claimed, now))

    async def give_back(self) -> None:
        """Let others have it; one that cannot be given back runs out."""
        with contextlib.suppress(Unavailable):
            claimed = self._claimed
            await self._database.run(self._database.write, lambda c: scrub.release(c, self._location, claimed))


async def _may_be_there(stores: Stores, location: Location) -> bool:
    store = stores.holding(location)
    try:
        if store is not None:
            await store.store.stat(location.url)
    except NotFound:
        return False
    except GlimpseError as error:
        LOG.warning("store does not say whether it has the bytes: %s", error.message)
    return True
