"""The location API: a place is given with one call, looked at and hashed after it (spec 1.4, 2.4).

The image's own status tells how far the work has come, so that whoever takes it over goes on from there:

    queued      the location is not recorded yet
    importing   it is, and its bytes have to match what the caller said of them
    active      it is, and its bytes may be hashed, for the record
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from glimpse.access.policy import Policy
from glimpse.access.quota import Quotas
from glimpse.db import images, tasks
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.formats import ContentInspector
from glimpse.domain.locations import NewLocation, Unmeasured
from glimpse.domain.record import Image, Location, Task
from glimpse.errors import BadRequest, Conflict, Forbidden, GlimpseError, NotFound, Unavailable, UnsupportedMediaType
from glimpse.images import import_lock
from glimpse.images.locations import Locations, is_web
from glimpse.images.passage import inspector_for
from glimpse.images.tasks import Tasks
from glimpse.imports.claims import require
from glimpse.imports.engine import Engine
from glimpse.imports.plan import Ending, Step, Work
from glimpse.imports.working import SYSTEM
from glimpse.notifications import Notifications
from glimpse.settings import Settings
from glimpse.stores.registry import Stores

LOG = logging.getLogger(__name__)

TYPE = "location_import"
FAILED = "The location cannot be used"  # all that clients learn: the reason would tell of ports (OSSN-0078)


def _refused(image_id: str, reason: str) -> BadRequest:
    """The place cannot be this image's; the reason is for the log."""
    LOG.warning("image %s: location refused: %s", image_id, reason)
    return BadRequest(FAILED)


@dataclass(frozen=True)
class LocationOrders:
    """POST of a location, with what it needs."""

    database: Database
    policy: Policy
    stores: Stores
    locations: Locations
    tasks: Tasks
    engine: Engine

    async def add(self, context: Context, image_id: str, wanted: NewLocation, request_id: str) -> None:
        """Take the order to give a queued image a location; the work goes on after the call.

        Raises `NotFound`, `Conflict` (not queued, or something else is going on), `Forbidden`, `BadRequest`.
        """
        now = lifecycle.now()
        task = Task(
            id=str(uuid.uuid4()), type=TYPE, status="pending", owner=context.project_id or "", created_at=now,
            updated_at=now, image_id=image_id, request_id=request_id, user_id=context.user_id,
            input={"image_id": image_id, "loc_url": wanted.url, "validation_data": wanted.validation_data()},
        )  # fmt: skip
        try:
            await self.database.run(self._order, context, wanted, task, None)
        except Unmeasured:
            passes = await self.locations.filter.passes(wanted.url)
            await self.database.run(self._order, context, wanted, task, passes)
        if self.stores.personal:
            self.engine.lend_token(task.id, context.token)
        await self.engine.begin(task, anywhere=not self.stores.personal)

    def _order(self, context: Context, wanted: NewLocation, task: Task, passes: bool | None) -> None:
        """`passes`: what the filter says of the URL; raises `Unmeasured` where that is asked for and not known yet."""

        def work(connection: Connection) -> Task | None:
            image = images.get(connection, str(task.image_id), context, lock=True)
            if image.status != "queued":
                raise Conflict(f"Only a queued image can be given a location, and this one is {image.status}.")
            self.policy.require_for_image("add_image_location", context, image)
            self._check_caller(context, wanted.url)
            wanted.check()
            if is_web(wanted.url) and passes is None:
                raise Unmeasured([wanted.url])
            if passes is False:
                # Clients look for the words about filtering.
                raise BadRequest("The URI does not pass filtering: the service may not fetch from there.")
            given_up = import_lock.take(connection, image, task, self.tasks)
            tasks.insert(connection, task)
            return given_up

        self.engine.tell_order(task, self.database.write(work))

    def _check_caller(self, context: Context, url: str) -> None:
        """Other services name any place; people only what is on the web, and only where a store reads from there."""
        if "service" in context.roles | context.service_roles:
            return
        web = any(each.store.facts.type == "http" for each in self.stores)
        if not web or not is_web(url):
            raise Forbidden("Only places on the web can be named, and only where a store reads from there.")


@dataclass(frozen=True)
class LocationParts:
    """What the steps work with."""

    settings: Settings
    database: Database
    stores: Stores
    locations: Locations
    quotas: Quotas
    notifications: Notifications

    async def image(self, work: Work) -> Image:
        """The image as it is now. Raises `NotFound`."""
        return await self.database.run(self.database.read, lambda c: images.get(c, work.image_id, SYSTEM))


@dataclass(frozen=True)
class Look:
    """See what is there, and give the image its location."""

    parts: LocationParts
    wanted: NewLocation
    name = "look"

    async def run(self, work: Work) -> None:
        if (await self.parts.image(work)).status == "queued":
            size = await self.parts.locations.measure(work.caller, work.task.owner, self.wanted.url)
            await self.parts.database.run(self._record, work, size)

    def _record(self, work: Work, size: int | None) -> None:
        """The image's location, and its next status; what can be refused is refused before."""
        settings, wanted = self.parts.settings, self.wanted
        if not size:
            raise _refused(work.image_id, "no store can read it")
        if size > settings.image_size_cap:
            raise _refused(work.image_id, "it is larger than image_size_cap allows")
        if settings.image_location_quota == 0:
            raise _refused(work.image_id, "no image may have a location here")
        secure, said = settings.do_secure_hash, wanted.validation_data()
        status = "importing" if secure and said else "active"
        store = self.parts.locations.store_of(wanted.url)
        location = Location(wanted.url, {"store": store} if store else {})
        owner = self.parts.database.read(lambda c: images.get(c, work.image_id, SYSTEM)).owner
        account = self.parts.quotas.storage_account(owner)

        def transaction(connection: Connection) -> Image:
            account.take_turn(connection)
            now = lifecycle.now()
            found = images.get(connection, work.image_id, SYSTEM, lock=True)
            require(connection, work)
            if found.status != "queued":
                raise _refused(work.image_id, f"the image is {found.status} by now")
            lifecycle.check_transition(found, status)
            account.admit_bytes(connection, work.image_id, size)
            for leftover in found.locations:  # refused before, or an upload that Glance has refused
                images.remove_location(connection, leftover.id, now)
            images.add_location(connection, work.image_id, location, now)
            # The algorithm at once, so that clients see that a hash is on its way (so does Glance).
            facts = {"os_hash_algo": wanted.algorithm or settings.hashing_algorithm} if secure else said
            images.set_status(connection, work.image_id, "queued", status, now, size=size, **facts)
            return images.get(connection, work.image_id, SYSTEM)

        self.parts.notifications.tell("image.update", self.parts.quotas.write(transaction))

    async def undo(self, work: Work) -> None:
        """Bytes elsewhere were never ours to erase; the record is put right at the end."""


@dataclass(frozen=True)
class Hash:
    """What the bytes hash to, where that is wanted, and on the way what they are.

    An image that waits for it is refused when its bytes are not what its caller promised, or nothing that could be
    uploaded. One that is active already keeps its place: no hash is no harm, and for bad content it is deactivated.
    """

    parts: LocationParts
    wanted: NewLocation
    name = "hash"

    async def run(self, work: Work) -> None:
        image, settings = await self.parts.image(work), self.parts.settings
        if image.status != "importing" and (image.os_hash_value or not settings.do_secure_hash):
            return
        location = next((each for each in image.locations if each.url == self.wanted.url), None)
        if location is None:
            raise _refused(image.id, "somebody else has taken it away")
        algorithm = self.wanted.algorithm or settings.hashing_algorithm
        for attempt in range(settings.http_retries + 1):
            if attempt:
                await asyncio.sleep(min(attempt, 5))
            inspector = inspector_for(image, settings.formats)
            try:
                facts = await self._digest(work, location, image.size, algorithm, inspector)
                break
            except GlimpseError as error:
                LOG.info("image %s: hashing failed, attempt %d: %s", image.id, attempt + 1, error.message)
        else:
            if image.status == "importing":
                raise _refused(image.id, "its bytes cannot be read")
            LOG.warning("image %s has no hash, as its bytes cannot be read", image.id)
            return
        if self.wanted.value and facts["os_hash_value"] != self.wanted.value.lower():
            raise _refused(image.id, "its bytes are others than promised")
        work.facts = facts
        try:
            if inspector is not None:
                await asyncio.to_thread(inspector.conclude)
        except UnsupportedMediaType as error:
            if image.status == "importing":
                raise _refused(image.id, error.message) from error
            LOG.warning("image %s is deactivated: %s", image.id, error.message)
            work.facts, work.said = {**facts, "status": "deactivated"}, f"The image is deactivated: {error.message}"

    async def _digest(
        self, work: Work, location: Location, size: int | None, algorithm: str, inspector: ContentInspector | None
    ) -> dict[str, str]:
        store = self.parts.stores.acting_for(work.caller, work.task.owner).holding(location)
        if store is None:
            raise NotFound("No configured store understands the location.")
        md5, other = hashlib.md5(usedforsecurity=False), hashlib.new(algorithm, usedforsecurity=False)
        steps = [md5.update, other.update, *([inspector.feed] if inspector else [])]
        read = 0
        reader = await store.store.open(location.url)
        try:
            async for block in reader.stream(0, None):
                await asyncio.gather(*(asyncio.to_thread(step, block) for step in steps))
                read += len(block)
                if size is not None and read > size:
                    break
        finally:
            await reader.close()
        if read != size:
            raise Unavailable(f"The store gave {read} bytes of {size}.")
        return {"checksum": md5.hexdigest(), "os_hash_algo": algorithm, "os_hash_value": other.hexdigest()}

    async def undo(self, work: Work) -> None:
        """Nothing was changed."""


@dataclass(frozen=True)
class LocationImport:
    """A `plan.Plan`."""

    parts: LocationParts
    task: Task
    steps: Sequence[Step] = field(init=False)

    def __post_init__(self) -> None:
        wanted = NewLocation.from_task(self.task.input or {})
        object.__setattr__(self, "steps", (Look(self.parts, wanted), Hash(self.parts, wanted)))

    async def is_here(self) -> bool:
        return True

    def finish(self, connection: Connection, work: Work, image: Image, now: datetime) -> Ending:
        if image.status != "importing" and (not image.os_hash_algo or image.os_hash_value):
            return Ending(None)
        # Without a hash there is no algorithm either.
        learnt: dict[str, str | None] = {**work.facts} if work.facts else {"os_hash_algo": None}
        found = learnt.pop("status", None)
        after = "active" if image.status == "importing" else image.status
        if image.status == "active" and found is not None:
            after = found
        images.set_status(connection, image.id, image.status, after, now, **learnt)
        return Ending(image.with_(status=after, updated_at=now, **learnt), [("image.update", {})])

    def give_back(self, connection: Connection, work: Work, image: Image, error: GlimpseError, now: datetime) -> Ending:
        """The image is queued again.

        As with Glance, and as its clients expect, a place on the web stays with the queued image; nobody can read from
        it, and the next upload or location takes its place.
        """
        if image.status != "importing":
            return Ending(None)
        for location in image.locations:
            if not is_web(location.url):
                images.remove_location(connection, location.id, now, "deleted")
        images.set_status(connection, image.id, "importing", "queued", now, os_hash_algo=None)
        queued = image.with_(status="queued", size=None, virtual_size=None, os_hash_algo=None, updated_at=now)
        return Ending(queued, [("image.update", {})])

    async def clean(self, work: Work, error: GlimpseError | None) -> None:
        """There is nothing to put away."""
