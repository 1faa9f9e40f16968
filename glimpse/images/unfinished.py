"""What becomes of an image whose bytes have not all come: at once where this process sees it, by a sweep where it died.

The record returns to `queued`, and the store holds nothing of it. A store that does not answer keeps no image waiting:
what it may have left is noted as a place that is to be erased, for the scrubber, and for the next upload to that store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass, field

from glimpse.access.quota import Quotas
from glimpse.db import images, scrub
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import LEASE_PROPERTY
from glimpse.domain.record import Image, Location
from glimpse.errors import Conflict, Duplicate, GlimpseError, Gone, NotFound, Unavailable
from glimpse.images.leases import RENEW, Lease, Leases, parse
from glimpse.images.staging import STAGING, Staging
from glimpse.notifications import Notifications
from glimpse.stores.registry import ConfiguredStore, Stores

LOG = logging.getLogger(__name__)

SWEEP = 300.0  # seconds between two looks for killed uploads; a new process looks at once
SWEEP_WITHOUT_DATABASE = 2.0  # seconds, while the database is away
DISCARD_FOR = 30.0  # seconds that a store gets to put away what is left in it


@dataclass(frozen=True)
class Unfinished:
    """The ends of uploads that failed, under the leases of this process."""

    database: Database
    stores: Stores
    notifications: Notifications
    quotas: Quotas
    staging: Staging
    leases: Leases = field(default_factory=Leases)

    async def renew(self, image_id: str, lease: Lease) -> None:
        """Says from time to time that the upload is alive; ends when the image was deleted or taken over."""

        def work(connection: Connection) -> bool:
            text = lease.text()
            mine = images.replace_property(connection, image_id, LEASE_PROPERTY, text, text, lifecycle.now())
            return mine and images.is_in(connection, image_id, _status_under(lease))

        while True:
            await asyncio.sleep(RENEW)
            with contextlib.suppress(Unavailable):
                if not await self.database.run(self.database.write, work):
                    return

    async def clear(self, image_id: str, store: ConfiguredStore) -> None:
        """Before new bytes go into a store: put away what it may have left of earlier ones. Raises `Unavailable`."""
        left = await self.database.run(self.database.read, lambda c: scrub.leftovers(c, image_id, store.id))
        if left:
            await store.store.discard(image_id)
            await self.database.run(self.database.write, lambda c: _erased(c, left))

    async def clean(self, image_id: str, store: ConfiguredStore) -> None:
        """Have the store put away what it has of a deleted image, now or soon."""
        if not await _discarded(store, image_id):
            now = lifecycle.now()
            await self.database.run(self.database.write, lambda c: images.add_leftover(c, image_id, store.id, now))

    async def give_up(self, image: Image, lease: Lease, store: ConfiguredStore, error: BaseException) -> None:
        """After an upload into a store has failed with that error: nothing is left of it, now or soon."""
        if isinstance(error, Duplicate):
            clean = True  # what is there is not of this upload
        elif isinstance(error, Gone):
            # Somebody else may have the image, so only its record says whether the store may be asked. A store that
            # cannot be written to has nothing.
            clean = not store.store.facts.writable
        else:
            clean = await _discarded(store, image.id)
        await self.put_back(image, lease, None if clean else store.id)

    async def put_back(self, image: Image, lease: Lease, litter: str | None = None) -> None:
        """Give the image back to `queued`, if it is still this lease's; `litter` is a store that is not clean."""
        try:
            released = await self.database.run(self.database.write, lambda c: self._release(c, image.id, lease, litter))
        except Conflict:
            LOG.info("image %s is in other hands", image.id)
        except Unavailable:
            LOG.warning("image %s stays in %s until the database is back", image.id, _status_under(lease))
        else:
            if released:
                queued = image.with_(status="queued", size=None, virtual_size=None, updated_at=lifecycle.now())
                self.notifications.tell("image.update", queued)

    def _release(self, connection: Connection, image_id: str, lease: Lease, litter: str | None = None) -> bool:
        """Give an image back to `queued`; False for one that was deleted meanwhile, which only loses its mark."""
        images.drop_property(connection, image_id, LEASE_PROPERTY, lease.text())
        self.quotas.release(connection, image_id)
        now = lifecycle.now()
        if litter is not None:
            images.add_leftover(connection, image_id, litter, now)
        try:
            images.set_status(connection, image_id, _status_under(lease), "queued", now)
        except Conflict:
            return False
        return True

    def forget(self, connection: Connection, image_id: str, lease: Lease) -> bool:
        """Drop the mark of an upload whose image is deleted; tells whether it still was this upload's."""
        try:
            images.drop_property(connection, image_id, LEASE_PROPERTY, lease.text())
        except Conflict:
            return False
        self.quotas.release(connection, image_id)
        return True

    # --- sweep -------------------------------------------------------------------------------------------------------

    async def keep_sweeping(self) -> None:
        """Sweep now and then for as long as the process lives; a database that is away is waited for."""
        while True:
            pause = SWEEP
            try:
                await self.sweep()
            except Unavailable:
                pause = SWEEP_WITHOUT_DATABASE
            except Exception:
                LOG.exception("sweep failed")
            # Spread out, as every worker of every node does this.
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def sweep(self) -> None:
        """Put back the images of killed uploads. Raises `Unavailable`."""
        await self.database.run(self.quotas.forget_dead)
        marks = await self.database.run(self.database.read, lambda c: images.with_property(c, LEASE_PROPERTY))
        away: set[str] = set()
        for image_id, text, renewed in marks:
            lease = parse(text)
            if lease is None or self.leases.is_alive(lease, renewed, lifecycle.now()):
                continue
            if lease.store != STAGING and self.stores.get(lease.store) is None:
                LOG.warning(
                    "image %s: its killed upload went to store %s, which is not configured", image_id, lease.store
                )
                continue
            await self._recover(image_id, text, lease, away)
        await self.staging.sweep(self.database)

    async def _recover(self, image_id: str, text: str, dead: Lease, away: set[str]) -> None:
        """`away` are the stores that did not answer in this sweep: each is waited for once."""
        mine = self.leases.take(dead.store)

        def claim(connection: Connection) -> bool:
            return images.replace_property(connection, image_id, LEASE_PROPERTY, text, mine.text(), lifecycle.now())

        try:
            if not await self.database.run(self.database.write, claim):
                return  # another process was quicker
            if dead.store == STAGING:
                clean = await self._staging_is_clean(image_id)
                if not clean:
                    return
            else:
                clean = dead.store not in away and await self._is_clean(image_id, dead.store)
            litter = None if clean else dead.store
            away |= {litter} if litter else set()
            released = await self.database.run(self.database.write, lambda c: self._release(c, image_id, mine, litter))
            if released:
                await self._tell_queued(image_id)
            left = "nothing of it is left" if clean else f"what store {dead.store} has of it is erased later"
            LOG.warning("image %s: its upload was cut off when process %d ended; %s", image_id, dead.process.pid, left)
        finally:
            self.leases.drop(mine)

    async def _staging_is_clean(self, image_id: str) -> bool:
        try:
            await self.staging.discard(image_id)
        except GlimpseError as error:
            LOG.warning("image %s waits for the staging store: %s", image_id, error.message)
            return False
        return True

    async def _is_clean(self, image_id: str, store_id: str) -> bool:
        owner = await self.database.run(self.database.read, lambda c: images.owner(c, image_id))
        store = self.stores.acting_for(None, owner).get(store_id)
        return store is not None and await _discarded(store, image_id)

    async def _tell_queued(self, image_id: str) -> None:
        with contextlib.suppress(NotFound):  # somebody may delete it at any moment
            everybody = Context(is_admin=True)
            image = await self.database.run(self.database.read, lambda c: images.get(c, image_id, everybody))
            self.notifications.tell("image.update", image)


async def _discarded(store: ConfiguredStore, image_id: str) -> bool:
    """Whether the store has put away what it had of an image; it says so within `DISCARD_FOR` seconds."""
    try:
        async with asyncio.timeout(DISCARD_FOR):
            await store.store.discard(image_id)
    except (GlimpseError, TimeoutError) as error:
        LOG.warning("store %s may have something left of image %s: %s", store.id, image_id,
                    error.message if isinstance(error, GlimpseError) else "no answer in time")  # fmt: skip
        return False
    return True


def _erased(connection: Connection, places: list[Location]) -> None:
    for place in places:
        images.erased(connection, place)


def _status_under(lease: Lease) -> str:
    """The status of an image while its bytes come in under this lease."""
    return "uploading" if lease.store == STAGING else "saving"
