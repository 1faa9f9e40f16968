"""The places of an image's bytes while a caller waits: what of that needs a store, and so cannot be one transaction.

A change of records runs in a record thread as ever. When it meets a URL that no store has been asked about, it is
given up, the store is asked without a lock or a thread being held, and the change runs again from its start: every
check comes before the first byte goes to a place that a caller named, and again when the answer is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from glimpse.access.policy import Policy, require_owner
from glimpse.db import images, scrub
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.locations import LocationRules, Unmeasured
from glimpse.domain.record import Image, Location
from glimpse.domain.schema import is_storable
from glimpse.errors import BadRequest, Conflict, Forbidden, GlimpseError, NotFound
from glimpse.images.data import require_unused
from glimpse.images.scrub import Scrubber
from glimpse.notifications import Notifications
from glimpse.settings import Settings
from glimpse.stores.registry import ConfiguredStore, Stores
from glimpse.stores.uri_filter import UriFilter

LOG = logging.getLogger(__name__)
T = TypeVar("T")

# Whoever may name files names every file of this machine (OSSA-2014-041, OSSA-2015-003); the last one names accounts.
RESTRICTED = frozenset({"file", "filesystem", "swift+config"})
# These are read with credentials of the service, whoever asks: it could read what no image of the caller's is.
WITH_OWN_CREDENTIALS = frozenset({"s3", "rbd", "gcs", "azure", "vmware"})
MOST_ASKED = 128  # URLs for one call: a body has room for so many that one call would be an attack on their servers


def is_web(url: str) -> bool:
    """Whether reading from a URL takes the service to a web server."""
    return url.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Locations:
    """The calls on locations, with what they need."""

    settings: Settings
    database: Database
    policy: Policy
    stores: Stores
    scrubber: Scrubber
    notifications: Notifications
    filter: UriFilter

    async def settle(
        self, context: Context, change: Callable[[LocationRules | None], tuple[T, Sequence[Location]]]
    ) -> T:
        """Run a change of records, again when a store has to be asked first; then erase what an image lost by it.

        `change` gets the rules, None where the option show_multiple_locations forbids it all. It answers its result and
        the locations that went. Raises what `change` raises, and `BadRequest` for too many URLs.
        """
        sizes: dict[str, int | None] = {}
        while True:
            try:
                result, lost = await self.database.run(change, self._rules(sizes))
                break
            except Unmeasured as question:
                if len(sizes) + len(question.urls) > MOST_ASKED:
                    raise BadRequest(f"One call may name {MOST_ASKED} new locations at most.") from question
                answers = await asyncio.gather(
                    *(self.measure(context, context.project_id, url) for url in question.urls)
                )
                sizes |= zip(question.urls, answers, strict=True)
        await asyncio.shield(self.scrubber.erase(lost))
        return result

    def _rules(self, sizes: dict[str, int | None]) -> LocationRules | None:
        settings = self.settings
        if not settings.show_multiple_locations:
            return None
        return LocationRules(settings.image_location_quota, settings.hashing_algorithm, self.store_of, sizes)

    def store_of(self, url: str) -> str | None:
        """The id of the store that a URL belongs to, None where clients do not see ids (spec 3.4)."""
        store = self.stores.owning(url)
        return store.id if store is not None and self.stores.multi else None

    async def measure(self, context: Context | None, owner: str | None, url: str) -> int | None:
        """The bytes behind a URL that a caller named; None when it cannot be used, for whichever reason (OSSN-0078)."""
        store = self._outside(url)
        if store is None or (is_web(url) and not await self.filter.passes(url)):
            return None
        if context is not None and not await self.database.run(self._may_name, context, store, url):
            LOG.warning("a caller of project %s names a place that is not one of its images", context.project_id)
            return None
        try:
            return await store.acting_for(context, owner).store.stat(url) or None
        except GlimpseError:
            return None

    def _outside(self, url: str) -> ConfiguredStore | None:
        """The store for a URL that is nobody's file, spelled exactly as a store understands it."""
        scheme, _, rest = url.partition("://")
        if scheme in RESTRICTED or not rest or not url.isprintable() or " " in url or not is_storable(url):
            return None
        knowing = (each for each in self.stores if scheme in each.store.facts.schemes)
        return self.stores.owning(url) or next(knowing, None)

    def _may_name(self, context: Context, store: ConfiguredStore, url: str) -> bool:
        """Whether that caller may have the service look there.

        Admins and other services may, as in Glance. What the service reads with its own credentials is not open to
        everybody else by that: the place has to be in a store's own pool or bucket, and not be that of an
        image which the caller does not see.
        """
        if context.is_admin or "service" in context.roles | context.service_roles:
            return True
        if store.store.facts.type not in WITH_OWN_CREDENTIALS:
            return True

        def sees_all(connection: Connection) -> bool:
            for image_id in scrub.images_named(connection, url):
                images.get(connection, image_id, context)
            return True

        with contextlib.suppress(NotFound):
            return store.store.owns(url) and self.database.read(sees_all)
        return False

    def find(self, context: Context, image_id: str) -> tuple[Location, ...]:
        """All locations, for other services. Raises `NotFound`, `Forbidden`."""
        image = self.database.read(lambda connection: images.get(connection, image_id, context))
        self.policy.require_for_image("fetch_image_location", context, image)
        if image.status == "deactivated" and not context.is_admin:
            return ()
        return tuple(self.stores.by_weight(image.locations))

    def leave(self, context: Context, image_id: str, store_id: str) -> tuple[None, list[Location]]:
        """Take an image out of one of its stores (API reference, Delete image from store); for `settle`.

        Raises `NotFound`, `Forbidden`, `Conflict`.
        """
        if not self.stores.multi:
            raise NotFound("This service has a single store without a name.")
        if self.stores.get(store_id) is None:
            raise Conflict(f"Store {store_id[:64]!r} is not configured here.")

        def work(connection: Connection) -> tuple[Image, Location]:
            image = images.get(connection, image_id, context, lock=True)
            location = self._leaving(context, image, store_id)
            images.remove_location(connection, location.id, lifecycle.now())
            return image, location

        image, location = self.database.write(work)
        self.notifications.tell("image.update", image)
        return None, [location]

    async def require_unused(self, context: Context, image_id: str, store_id: str) -> None:
        """Before an image leaves a store: raise `Conflict` where others build on what it has there.

        What else there is against it, `leave` says.
        """

        def leaving() -> Location:
            image = self.database.read(lambda connection: images.get(connection, image_id, context))
            return self._leaving(context, image, store_id)

        if self.stores.lending:
            with contextlib.suppress(NotFound, Forbidden):
                await require_unused(self.stores, await self.database.run(leaving))

    def _leaving(self, context: Context, image: Image, store_id: str) -> Location:
        for rule in ("get_image_location", "delete_image_location"):
            self.policy.require_for_image(rule, context, image)
        require_owner(context, image)
        if image.status != "active":
            raise Conflict(f"Only an active image can leave a store, and this one is {image.status}.")
        if len(image.locations) == 1:
            raise Forbidden("The image is in this store only. Consider deleting the image instead.")
        for location in image.locations:
            store = self.stores.holding(location)
            if store is not None and store.id == store_id:
                return location
        raise NotFound(f"Image {image.id} is not stored in store {store_id}.")
