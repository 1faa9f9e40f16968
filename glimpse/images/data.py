"""The bytes of images while a caller waits: upload, download, erase.

An upload is two short transactions with a stream between. The first moves the record to `saving` by compare-and-swap
and leaves a lease; the second makes it `active` with everything that was learnt from the bytes. Whatever goes wrong in
between, the record returns to `queued` and the store holds nothing; if the process is killed, a sweep does that
(`unfinished`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from glimpse.access.policy import Policy, require_owner
from glimpse.access.quota import Quotas, Reservation
from glimpse.cache.copies import Cache
from glimpse.cache.reading import Source
from glimpse.db import images, scrub
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import LEASE_PROPERTY
from glimpse.domain.record import Image, Location
from glimpse.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GlimpseError,
    Gone,
    NotFound,
    Unavailable,
)
from glimpse.images.leases import Lease
from glimpse.images.opening import in_order, open_any
from glimpse.images.passage import Passage, over_cap
from glimpse.images.signatures import Signatures, claim_of
from glimpse.images.staging import Staging
from glimpse.images.unfinished import Unfinished
from glimpse.notifications import Notifications, stores_of_import
from glimpse.settings import Settings
from glimpse.stores.driver import LendingStore, LinkingStore, Stored
from glimpse.stores.registry import ConfiguredStore, Stores
from glimpse.stores.unusable import UnusableStore

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

LINK_SECONDS = 300  # for which a client that is sent to a store can begin to read there
FINISH_FOR = 30.0  # seconds to try to make a stored image active while the database is away


@dataclass(frozen=True)
class ImageData:
    """The calls on image bytes, with what they need."""

    settings: Settings
    database: Database
    policy: Policy
    stores: Stores
    notifications: Notifications
    quotas: Quotas
    staging: Staging
    signatures: Signatures
    unfinished: Unfinished
    cache: Cache | None = None

    # --- upload ------------------------------------------------------------------------------------------------------

    async def upload(
        self, context: Context, image_id: str, blocks: AsyncIterator[bytes], size: int | None, store_id: str | None
    ) -> None:
        """Store the bytes of a queued image and make it active (API reference, Upload binary image data).

        `blocks` are about 1 MiB each; `size` is the announced number of bytes. Raises `BadRequest`, `NotFound`,
        `Forbidden`, `Conflict` (not queued), `Gone` (deleted meanwhile), `TooLarge`, `UnsupportedMediaType`,
        `Unavailable`, and whatever `blocks` raises.
        """
        store = self._choose(store_id)
        if size is not None and size > self.settings.image_size_cap:
            raise over_cap(self.settings.image_size_cap)
        lease = self.unfinished.leases.take(store.id)
        renewal = None
        try:
            image, reservation = await self.quotas.run(self._begin, context, image_id, lease, size)
            store = store.acting_for(context, image.owner)
            self.notifications.tell("image.update", image)
            backend = {"backend": store.id} if self.stores.multi else {}
            self.notifications.tell("image.prepare", image, **stores_of_import(image), **backend)
            renewal = asyncio.create_task(self.unfinished.renew(image_id, lease))
            asked = False  # the store: until then it has nothing of this upload
            try:
                await self.unfinished.clear(image_id, store)
                room = None if reservation is None or size is not None else self.room(reservation)
                verifier = await self.signatures.verifier(context, image)
                passage = Passage(self.settings, image, size, room, renewal, verifier)
                async with contextlib.aclosing(passage.through(blocks)) as stream:
                    asked = True
                    stored = await store.store.put(image_id, stream, size)
            except BaseException as error:
                self._tell_failure(image, error)
                end = (
                    self.unfinished.give_up(image, lease, store, error)
                    if asked
                    else self.unfinished.put_back(image, lease)
                )
                await asyncio.shield(end)
                raise
            try:
                await asyncio.shield(self._finish(image, lease, store, stored, passage))
            except GlimpseError as error:
                self._tell_failure(image, error)
                raise
        finally:
            if renewal is not None:
                renewal.cancel()
            self.unfinished.leases.drop(lease)

    def _choose(self, store_id: str | None) -> ConfiguredStore:
        # With a single store there is nothing to choose, and the header is ignored as Glance does.
        if store_id is None or not self.stores.multi:
            return self.stores.default
        store = self.stores.get(store_id)
        if store is None:
            raise BadRequest(f"Store {store_id[:64]!r} is not configured; known are {', '.join(self.stores.ids)}")
        return store

    def _begin(
        self, context: Context, image_id: str, lease: Lease, size: int | None
    ) -> tuple[Image, Reservation | None]:
        owner = None
        if self.quotas.on:
            owner = self.database.read(lambda connection: images.get(connection, image_id, context)).owner
        account = self.quotas.account(owner)

        def work(connection: Connection) -> tuple[Image, Reservation | None]:
            account.take_turn(connection)
            image = images.get(connection, image_id, context, lock=True)
            self.policy.require_for_image("upload_image", context, image)
            require_owner(context, image)
            lifecycle.check_transition(image, "saving")
            claim_of(image.properties)
            if self.quotas.on and image.owner != owner:
                raise Conflict(f"Image {image_id} changed its owner just now.")
            now = lifecycle.now()
            scrub.check_at_rest(connection, image_id, now)
            reservation = account.admit_upload(connection, image_id, size)
            try:
                images.set_status(connection, image_id, "queued", "saving", now)
            except Conflict as error:
                raise Gone(f"Image {image_id} was changed by another call.") from error
            images.set_property(connection, image_id, LEASE_PROPERTY, lease.text(), now)
            for location in image.locations:
                store = self.stores.holding(location)
                if store is not None and not store.store.facts.writable:
                    # A place that failed its validation (spec 2.4): it must not come to life with these bytes.
                    images.remove_location(connection, location.id, now, "deleted")
            return image.with_(status="saving", updated_at=now), reservation

        return self.quotas.write(work)

    def room(self, reservation: Reservation) -> Callable[[int], Awaitable[None]]:
        """Lets an upload of unknown size have so many bytes altogether; raises `TooLarge` where they do not fit."""

        async def room(size: int) -> None:
            nonlocal reservation
            if size > reservation.size:
                reservation = await self.insist(self.quotas.extend, reservation, size)

        return room

    def _tell_failure(self, image: Image, error: BaseException) -> None:
        # The first words are the event's format; of the reason, only what a client is told too: it may name paths.
        why = error.message if isinstance(error, GlimpseError) else type(error).__name__
        text = f"Failed to upload image data for image {image.id} due to {why}"
        self.notifications.tell("image.upload", text, "ERROR")

    async def _finish(
        self, image: Image, lease: Lease, store: ConfiguredStore, stored: Stored, passage: Passage
    ) -> None:
        image_id = image.id
        metadata = {**stored.metadata, **({"store": store.id} if self.stores.multi else {})}
        location = Location(stored.url, metadata)

        def work(connection: Connection) -> None:
            now = lifecycle.now()
            images.drop_property(connection, image_id, LEASE_PROPERTY, lease.text())
            self.quotas.release(connection, image_id)
            images.set_status(connection, image_id, "saving", "active", now, size=stored.size, **passage.facts())
            images.add_location(connection, image_id, location, now)

        try:
            await self.insist(self.database.write, work)
        except Conflict as error:
            # Perhaps the commit had happened, and only its answer was lost.
            if not await self.database.run(
                self.database.read, lambda c: images.has_hash(c, image_id, passage.hexdigest())
            ):
                await self._undo(image_id, lease, store)
                raise Gone(f"Image {image_id} was deleted during its upload.") from error
        now = lifecycle.now()
        done = image.with_(status="active", size=stored.size, updated_at=now, **passage.facts())
        self.notifications.tell("image.upload", done, **stores_of_import(done))
        self.notifications.tell("image.activate", done)
        self.notifications.tell("image.update", done)

    async def _undo(self, image_id: str, lease: Lease, store: ConfiguredStore) -> None:
        if await self.database.run(self.database.write, lambda c: self.unfinished.forget(c, image_id, lease)):
            await self.unfinished.clean(image_id, store)
        # Else somebody took over, and what is there now is theirs.

    async def insist(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Gigabytes have arrived: a database that is away for a moment shall not cost them."""
        deadline = asyncio.get_running_loop().time() + FINISH_FOR
        while True:
            try:
                return await self.database.run(call, *args, **kwargs)
            except Unavailable:
                # Past the deadline the lease is dropped, and a sweep cleans up what was stored.
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(1)

    # --- download ----------------------------------------------------------------------------------------------------

    async def download(
        self, context: Context, image_id: str, prefer: Sequence[str] | None = None
    ) -> tuple[Image, Source | None]:
        """The image and its open bytes; None when it has none (API reference, Download binary image data).

        They come from the cache where that has them or may get them, else from the locations: by weight, those in
        stores that the caller prefers before the others. Raises `NotFound`, `Forbidden`, `BadRequest`, `Unavailable`
        before the first byte.
        """
        image = await self.database.run(self._may_download, context, image_id, prefer)
        locations = in_order(self.stores, image, prefer or ())
        opener = partial(open_any, self.stores.acting_for(context, image.owner), image, locations)
        try:
            if self.cache is not None and self.settings.cache.serves and image.status == "active" and locations:
                copy = await self.cache.read(image, None if _is_near(self.stores, locations[0]) else opener)
                if copy is not None:
                    return image, Source(copy, ranges=True)
            return image, await opener()
        except NotFound:
            return image, None

    async def link(self, context: Context, image_id: str, prefer: Sequence[str] | None = None) -> str | None:
        """A URL from which the caller can read the image's bytes for `LINK_SECONDS`, by the rules of `download`.

        None where none of the stores that have them makes one, or may. Raises as `download`.
        """
        image = await self.database.run(self._may_download, context, image_id, prefer)
        stores = self.stores.acting_for(context, image.owner)
        for location in in_order(stores, image, prefer or ()):
            configured = stores.holding(location)
            if configured is None or not configured.redirects or not isinstance(configured.store, LinkingStore):
                continue
            try:
                return await configured.store.link(location.url, LINK_SECONDS)
            except GlimpseError as error:
                LOG.warning("image %s gets no link to store %s: %s", image_id, configured.id, error.message)
        return None

    def _may_download(self, context: Context, image_id: str, prefer: Sequence[str] | None) -> Image:
        image = self.database.read(lambda connection: images.get(connection, image_id, context))
        if image.size and not image.locations:
            # Its rows were read one after the other: perhaps it was deleted in between.
            image = self.database.read(lambda connection: images.get(connection, image_id, context))
        if image.status == "deactivated" and not context.is_admin:
            raise Forbidden("The image is deactivated: only admins may have its data.")
        self.policy.require_for_image("download_image", context, image)
        if prefer is not None:
            self.policy.require_for_image("download_from_store", context, image)
            self._check_stores(prefer)
        # Before an image is active, a location may be one whose bytes are still checked, or have failed.
        return image if image.status in ("active", "deactivated") else image.with_(locations=())

    def _check_stores(self, wanted: Sequence[str]) -> None:
        if not self.stores.multi:
            raise BadRequest("This service has a single store without a name.")
        for store_id in wanted:
            if self.stores.get(store_id) is None:
                raise BadRequest(f"Store {store_id[:64]!r} is not configured; known are {', '.join(self.stores.ids)}")

    def delivered(self, context: Context, image: Image, sent: int, wanted: int) -> None:
        """Tell that a download has ended, with `sent` of the `wanted` bytes; fewer of them are an error."""
        event = {
            "bytes_sent": sent,
            "image_id": image.id,
            "owner_id": image.owner,
            "receiver_tenant_id": context.project_id,
            "receiver_user_id": context.user_id,
        }
        self.notifications.tell("image.send", event, "INFO" if sent == wanted else "ERROR")

    # --- erase -------------------------------------------------------------------------------------------------------

    async def require_unused(self, image: Image) -> None:
        """Before a record is deleted: raise `Conflict` where others build on the image's bytes (`LendingStore`).

        A store that does not answer now is asked again by the scrubber, with the same outcome for the bytes.
        """
        for location in image.locations:
            await require_unused(self.stores, location)

    async def erase_image(self, context: Context, image: Image) -> None:
        """Remove the bytes of a deleted image, also those that are in staging, and its copy on this node."""
        if self.cache is not None and image.locations:  # else there never was anything to copy
            try:
                await asyncio.to_thread(self.cache.forget, image.id)
            except (OSError, GlimpseError) as error:
                LOG.warning("the copy of image %s stays for now: %s", image.id, error)
        stores = self.stores.acting_for(context, image.owner)
        for location in image.locations:
            await self._erase_one(image.id, stores.holding(location), location)
        # Bytes have a number and no place yet: they are in staging.
        if image.status == "deleted" and not image.locations and image.size is not None:
            try:
                await self.staging.discard(image.id)
            except GlimpseError as error:
                LOG.warning("staged bytes of image %s stay for now: %s", image.id, error.message)

    async def _erase_one(self, image_id: str, store: ConfiguredStore | None, location: Location) -> None:
        """What a store refuses now, the scrubber tries again."""
        if store is None:
            LOG.warning("bytes stay where they are: no configured store understands their location")
            return
        try:
            await erase_place(self.database, store, image_id, location)
        except NotFound:
            LOG.info("store %s had no bytes left to erase", store.id)
        except GlimpseError as error:
            LOG.warning("bytes stay in store %s for now: %s", store.id, error.message)
            return
        if location.id is not None:
            with contextlib.suppress(Unavailable):
                await self.database.run(self.database.write, lambda connection: images.erased(connection, location))


async def erase_place(database: Database, store: ConfiguredStore, image_id: str, location: Location) -> None:
    """Remove the bytes at a place that an image had, but not those that another image has too.

    Callers of the API may give a place to any number of images. Raises as `Store.delete`.
    """
    url = location.url
    if not store.store.facts.writable and not isinstance(store.store, UnusableStore):
        return  # one that is out of service, however, has bytes of ours, and is asked again when it is back
    if not scrub.is_own(image_id, url) and await database.run(
        database.read, lambda c: scrub.is_shared(c, image_id, url)
    ):
        LOG.info("image %s: its bytes stay in store %s, as another image has them too", image_id, store.id)
        return
    await store.store.delete(url)


async def require_unused(stores: Stores, location: Location) -> None:
    """Raise `Conflict` where others build on these bytes."""
    configured = stores.holding(location)
    if configured is not None and isinstance(configured.store, LendingStore):
        with contextlib.suppress(NotFound, Unavailable, Forbidden):
            if await configured.store.in_use(location.url):
                raise Conflict("The image cannot be deleted: volumes or servers build on its data in the store.")


def _is_near(stores: Stores, location: Location) -> bool:
    """Whether the bytes are in files of this machine, of which a copy would be no better."""
    store = stores.holding(location)
    return store is not None and store.store.facts.type == "file"
