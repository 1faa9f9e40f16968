"""The location API: a place is given with one call, looked at and hashed after it (spec 1.4, 2.4).

The truth is in the database: a task, the import lock `os_glance_import_task` of the image, which names it, and beside
it a lease of the process that works on it, of the same kind as an upload's. The image's own status tells how far the
work has come, so that whoever takes a dead process's lease over goes on from there:

    queued      the location is not recorded yet
    importing   it is, and its bytes have to match what the caller said of them
    active      it is, and its bytes may be hashed, for the record

The work ends in one transaction: status, hashes, task, lock and lease change together.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from glimpse.access.policy import Policy
from glimpse.access.quota import Quotas
from glimpse.db import images, tasks
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import LOCATION_LEASE_PROPERTY as LEASE
from glimpse.domain.locations import NewLocation, Unmeasured
from glimpse.domain.record import Image, Location, Task
from glimpse.errors import BadRequest, Conflict, Forbidden, GlimpseError, Gone, NotFound, Unavailable
from glimpse.images import import_lock
from glimpse.images.leases import Lease, Leases, parse
from glimpse.images.locations import Locations, is_web
from glimpse.images.tasks import Tasks
from glimpse.notifications import Notifications
from glimpse.settings import Settings
from glimpse.stores.registry import Stores

LOG = logging.getLogger(__name__)


LOOK = 5.0  # seconds between two looks whether the image is still there, which renew the lease
RESUME = 45.0  # seconds between two looks for work whose process died; a new process looks at once
AT_ONCE = 16  # places that one worker looks at and hashes; more of them wait

FAILED = "The location cannot be used"  # all that clients learn: the reason would tell of ports (OSSN-0078)
_SYSTEM = Context(is_admin=True)


class _Refused(Exception):
    """The place cannot be this image's; the text is for the log."""


@dataclass(frozen=True)
class LocationImport:
    """POST of a location and what follows, with what it needs."""

    settings: Settings
    database: Database
    policy: Policy
    stores: Stores
    locations: Locations
    tasks: Tasks
    quotas: Quotas
    notifications: Notifications
    leases: Leases = field(default_factory=Leases)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    # --- the calls ---------------------------------------------------------------------------------------------------

    async def add(self, context: Context, image_id: str, wanted: NewLocation, request_id: str) -> None:
        """Take the order to give a queued image a location; the work goes on after the call.

        Raises `NotFound`, `Conflict` (not queued, or something else is going on), `Forbidden`, `BadRequest`.
        """
        now = lifecycle.now()
        task = Task(
            id=str(uuid.uuid4()), type="location_import", status="pending", owner=context.project_id or "",
            created_at=now, updated_at=now, image_id=image_id, request_id=request_id, user_id=context.user_id,
            input={"image_id": image_id, "loc_url": wanted.url, "validation_data": wanted.validation_data()},
        )  # fmt: skip
        lease = self.leases.take("")
        try:
            try:
                await self.database.run(self._order, context, wanted, task, lease, None)
            except Unmeasured:
                passes = await self.locations.filter.passes(wanted.url)
                await self.database.run(self._order, context, wanted, task, lease, passes)
        except BaseException:
            self.leases.drop(lease)
            raise
        self._spawn(self._work(image_id, task.id, lease))

    def _order(self, context: Context, wanted: NewLocation, task: Task, lease: Lease, passes: bool | None) -> None:
        """`passes`: what the filter says of the URL; raises `Unmeasured` where that is asked for and not known yet."""
        assert task.image_id is not None
        image_id = task.image_id

        def work(connection: Connection) -> Task | None:
            image = images.get(connection, image_id, context, lock=True)
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
            images.set_property(connection, image_id, LEASE, lease.text(), task.created_at)
            return given_up

        given_up = self.database.write(work)
        if given_up is not None:
            self.notifications.tell("task.failure", given_up)
        self.notifications.tell("task.create", task)

    def _check_caller(self, context: Context, url: str) -> None:
        """Other services name any place; people only what is on the web, and only where a store reads from there."""
        if "service" in context.roles | context.service_roles:
            return
        web = any(each.store.facts.type == "http" for each in self.stores)
        if not web or not is_web(url):
            raise Forbidden("Only places on the web can be named, and only where a store reads from there.")

    # --- the work ----------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def stop(self) -> None:
        """Let go of everything: the next process that looks goes on with it."""
        for task in list(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    async def _work(self, image_id: str, task_id: str, lease: Lease) -> None:
        """One order, from where it is to its end. What the database keeps from ending is left to `resume`."""
        there = asyncio.create_task(self._renew(image_id, task_id, lease))
        try:
            async with self.slots:
                await self._run(image_id, task_id, lease, there)
        except Unavailable:
            LOG.warning("image %s: its location waits for the database", image_id)
        except Conflict:
            LOG.info("image %s: its location is in other hands", image_id)
        except Exception:
            LOG.exception("image %s: unexpected failure with its location", image_id)
        finally:
            there.cancel()
            self.leases.drop(lease)

    async def _run(self, image_id: str, task_id: str, lease: Lease, there: asyncio.Task[None]) -> None:
        run, write = self.database.run, self.database.write
        task = await run(self.database.read, lambda connection: tasks.get(connection, task_id))
        if task is None or task.status not in ("pending", "processing"):
            await run(write, lambda connection: _let_go(connection, image_id, task_id, lease))
            return
        wanted = NewLocation.from_task(task.input or {})
        if task.status == "pending":
            self.notifications.tell("task.processing", replace(task, status="processing", updated_at=lifecycle.now()))
        try:
            image = await run(self._image, image_id)
            if image.status == "queued":
                size = await self.locations.measure(wanted.url)
                image = await run(self._record, image, task, wanted, size, lease)
            facts = await self._hash(image, wanted, there)
        except (_Refused, GlimpseError) as error:
            if isinstance(error, Unavailable | Conflict):
                raise
            LOG.warning("image %s: location refused: %s", image_id, error)
            await run(self._give_back, image_id, task, lease)
            return
        await run(self._finish, image_id, task, facts, lease)

    def _image(self, image_id: str) -> Image:
        return self.database.read(lambda connection: images.get(connection, image_id, _SYSTEM))

    def _record(self, image: Image, task: Task, wanted: NewLocation, size: int | None, lease: Lease) -> Image:
        """Give the image its location, and its next status; what can be refused is refused before."""
        if not size:
            raise _Refused("no store can read it")
        if size > self.settings.image_size_cap:
            raise _Refused("it is larger than image_size_cap allows")
        secure, said = self.settings.do_secure_hash, wanted.validation_data()
        status = "importing" if secure and said else "active"
        store = self.locations.store_of(wanted.url)
        location = Location(wanted.url, {"store": store} if store else {})
        account = self.quotas.storage_account(image.owner)

        def work(connection: Connection) -> Image:
            account.take_turn(connection)
            now = lifecycle.now()
            found = images.get(connection, image.id, _SYSTEM, lock=True)
            _require(connection, image.id, lease)
            if found.status != "queued":
                raise _Refused(f"the image is {found.status} by now")
            lifecycle.check_transition(found, status)
            if self.settings.image_location_quota == 0:
                raise _Refused("no image may have a location here")
            account.admit_bytes(connection, image.id, size)
            for leftover in found.locations:  # refused before, or an upload that Glance has refused
                images.remove_location(connection, leftover.id, now)
            images.add_location(connection, image.id, location, now)
            # The algorithm at once, so that clients see that a hash is on its way (so does Glance).
            facts = {"os_hash_algo": wanted.algorithm or self.settings.hashing_algorithm} if secure else said
            images.set_status(connection, image.id, "queued", status, now, size=size, **facts)
            tasks.start(connection, task.id, now)
            return images.get(connection, image.id, _SYSTEM)

        image = self.quotas.write(work)
        self.notifications.tell("image.update", image)
        return image

    async def _hash(self, image: Image, wanted: NewLocation, there: asyncio.Task[None]) -> dict[str, str]:
        """What the bytes hash to; nothing when that is not wanted, or could not be found out.

        Raises `_Refused` when an image that still waits for it does not get what its caller promised, `Gone`.
        """
        if image.status != "importing" and (image.os_hash_value or not self.settings.do_secure_hash):
            return {}
        location = next((each for each in image.locations if each.url == wanted.url), None)
        if location is None:
            raise _Refused("somebody else has taken it away")
        algorithm = wanted.algorithm or self.settings.hashing_algorithm
        for attempt in range(self.settings.http_retries + 1):
            if attempt:
                await asyncio.sleep(min(attempt, 5))
            try:
                facts = await self._digest(location, image.size, algorithm, there)
                break
            except Gone:
                raise
            except GlimpseError as error:
                LOG.info("image %s: hashing failed, attempt %d: %s", image.id, attempt + 1, error.message)
        else:
            if image.status == "importing":
                raise _Refused("its bytes cannot be read")
            LOG.warning("image %s has no hash, as its bytes cannot be read", image.id)
            return {}
        if wanted.value and facts["os_hash_value"] != wanted.value.lower():
            raise _Refused("its bytes are others than promised")
        return facts

    async def _digest(
        self, location: Location, size: int | None, algorithm: str, there: asyncio.Task[None]
    ) -> dict[str, str]:
        store = self.stores.holding(location)
        if store is None:
            raise NotFound("No configured store understands the location.")
        md5, other = hashlib.md5(usedforsecurity=False), hashlib.new(algorithm, usedforsecurity=False)
        read = 0
        reader = await store.store.open(location.url)
        try:
            async for block in reader.stream(0, None):
                if there.done():
                    raise Gone("The image was deleted while its bytes were hashed.")
                await asyncio.gather(asyncio.to_thread(md5.update, block), asyncio.to_thread(other.update, block))
                read += len(block)
                if size is not None and read > size:
                    break
        finally:
            await reader.close()
        if read != size:
            raise Unavailable(f"The store gave {read} bytes of {size}.")
        return {"checksum": md5.hexdigest(), "os_hash_algo": algorithm, "os_hash_value": other.hexdigest()}

    def _finish(self, image_id: str, task: Task, facts: dict[str, str], lease: Lease) -> None:
        # Without a hash there is no algorithm either.
        learnt: dict[str, str | None] = {**facts} if facts else {"os_hash_algo": None}

        def work(connection: Connection) -> tuple[Image | None, Task]:
            now, changed = lifecycle.now(), None
            _require(connection, image_id, lease)
            try:
                image = images.get(connection, image_id, _SYSTEM, lock=True)
            except NotFound:
                ended = self.tasks.ended(task, "failure", FAILED)
            else:
                if image.status == "importing" or (image.os_hash_algo and not image.os_hash_value):
                    after = "active" if image.status == "importing" else image.status
                    images.set_status(connection, image_id, image.status, after, now, **learnt)
                    changed = image.with_(status=after, updated_at=now, **learnt)
                ended = self.tasks.ended(task, "success", "", {"image_id": image_id})
            tasks.end(connection, ended)
            _let_go(connection, image_id, task.id, lease)
            return changed, ended

        self._tell_end(*self.database.write(work))

    def _give_back(self, image_id: str, task: Task, lease: Lease) -> None:
        """The end of a refused location: the image is queued again.

        As with Glance, and as its clients expect, a place on the web stays with the queued image; nobody can read from
        it, and the next upload or location takes its place. Bytes elsewhere were never ours to erase.
        """

        def work(connection: Connection) -> tuple[Image | None, Task]:
            now, changed = lifecycle.now(), None
            _require(connection, image_id, lease)
            with contextlib.suppress(NotFound):
                image = images.get(connection, image_id, _SYSTEM, lock=True)
                if image.status == "importing":
                    for location in image.locations:
                        if not is_web(location.url):
                            images.remove_location(connection, location.id, now, "deleted")
                    images.set_status(connection, image_id, "importing", "queued", now, os_hash_algo=None)
                    changed = image.with_(
                        status="queued", size=None, virtual_size=None, os_hash_algo=None, updated_at=now
                    )
            ended = self.tasks.ended(task, "failure", FAILED)
            tasks.end(connection, ended)
            _let_go(connection, image_id, task.id, lease)
            return changed, ended

        self._tell_end(*self.database.write(work))

    def _tell_end(self, image: Image | None, task: Task) -> None:
        if image is not None:
            self.notifications.tell("image.update", image)
        self.notifications.tell(f"task.{task.status}", task)
        if task.status == "success":
            self.notifications.tell("task.run", task)

    async def _renew(self, image_id: str, task_id: str, lease: Lease) -> None:
        """Says from time to time that the work goes on; ends when the image was deleted or taken over."""

        def work(connection: Connection) -> bool:
            now, text = lifecycle.now(), lease.text()
            mine = images.replace_property(connection, image_id, LEASE, text, text, now)
            tasks.start(connection, task_id, now)
            return mine and images.exists(connection, image_id)

        while True:
            await asyncio.sleep(LOOK)
            with contextlib.suppress(Unavailable):
                if not await self.database.run(self.database.write, work):
                    return

    # --- what a dead process left ------------------------------------------------------------------------------------

    async def keep_resuming(self) -> None:
        """Look for work without a worker now and then, for as long as the process lives."""
        while True:
            try:
                await self.resume()
            except Unavailable:
                LOG.info("locations of dead processes wait for the database")
            except Exception:
                LOG.exception("resuming failed")
            # Spread out, as every worker of every node does this.
            await asyncio.sleep(RESUME * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def resume(self) -> None:
        """Go on with every order whose process has died. Raises `Unavailable`."""
        open_ones = await self.database.run(
            self.database.read, lambda c: tasks.open_with_marks(c, "location_import", import_lock.LOCK, LEASE)
        )
        for task_id, image_id, text, renewed in open_ones:
            old = parse(text)
            if old is not None and self.leases.is_alive(old, renewed, lifecycle.now()):
                continue
            mine = self.leases.take("")
            if not await self.database.run(self._take_over, image_id, text, mine):
                self.leases.drop(mine)
                continue
            LOG.warning("image %s: going on with its location, as the process that had begun is gone", image_id)
            self._spawn(self._work(image_id, task_id, mine))

    def _take_over(self, image_id: str, text: str, mine: Lease) -> bool:
        """Put another lease in the place of a dead one; false when another process was quicker."""
        now = lifecycle.now()
        return self.database.write(lambda c: images.replace_property(c, image_id, LEASE, text, mine.text(), now))


def _require(connection: Connection, image_id: str, lease: Lease) -> None:
    """Raise `Conflict` when the work was taken over."""
    text = lease.text()
    if not images.replace_property(connection, image_id, LEASE, text, text, lifecycle.now()):
        raise Conflict("The lease was taken over.")


def _let_go(connection: Connection, image_id: str, task_id: str, lease: Lease) -> None:
    """Take lock and lease off the image, also off a deleted one."""
    images.drop_property(connection, image_id, LEASE, lease.text())
    import_lock.release(connection, image_id, task_id)
