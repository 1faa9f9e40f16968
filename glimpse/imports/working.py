"""One task in the hands of this process: its steps, one after the other, and the transaction that ends it.

The lease is renewed beside, with the message about the progress, until one transaction ends all of it: status of the
image, task, lock and lease. Whoever has lost the lease lets everything lie.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from glimpse.access.quota import Quotas
from glimpse.db import images, tasks
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import TASK_LEASE_PROPERTY as LEASE
from glimpse.domain.record import Task
from glimpse.errors import GlimpseError, Gone, NotFound, Unavailable
from glimpse.images import import_lock
from glimpse.images.acls import Acls
from glimpse.images.tasks import Tasks
from glimpse.imports.claims import Lost, require
from glimpse.imports.plan import Ending, Plan, Work
from glimpse.notifications import Notifications

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

RENEW = 5.0  # seconds between two renewals of a lease, which also look whether the image is still there
ATTEMPTS = 5  # processes that may die of a task before it is given up
INSIST = 60.0  # seconds to try to write the end of a task while the database is away
UNDO_PAUSES = (1.0, 4.0)  # seconds before what a store refuses to remove is tried again

LONGEST = 4000  # characters of a message; what an image says of itself may be quoted in it
UNEXPECTED = "Task failed due to Internal Error"
SYSTEM = Context(is_admin=True)


@dataclass(frozen=True)
class Working:
    """Working on tasks, with what it needs."""

    database: Database
    quotas: Quotas
    tasks: Tasks
    notifications: Notifications
    acls: Acls

    async def run(self, work: Work, plan: Plan) -> None:
        """One task to its end, good or bad.

        Raises `Lost` when it belongs to another process now, `Unavailable` when the database keeps it from ending.
        """
        work.alive = asyncio.create_task(self._renew(work))
        try:
            await self._run(work, plan)
        finally:
            work.alive.cancel()

    async def _run(self, work: Work, plan: Plan) -> None:
        if work.lease.attempt > ATTEMPTS:
            await self._fail(work, plan, GlimpseError(f"Given up: {ATTEMPTS} processes have died working on it."))
            return
        try:
            for step in plan.steps:
                LOG.info("task %s: %s", work.task.id, step.name)
                await self._step(work, step.run(work))
            LOG.info("task %s: finish", work.task.id)
            await self._insist(self._end, work, plan, None)
        except Lost:
            raise
        except GlimpseError as error:
            await self._fail(work, plan, error)
            return
        except Exception as error:
            LOG.exception("task %s: unexpected failure", work.task.id)
            failure = GlimpseError(UNEXPECTED)
            failure.__cause__ = error
            await self._fail(work, plan, failure)
            return
        await self.acls.spread_new(work.caller, work.image_id)
        await self._clean(work, plan, None)

    async def _step(self, work: Work, call: Coroutine[Any, Any, None]) -> None:
        """Run a step, and stop it in the middle as soon as it is nobody's business any more."""
        step = asyncio.create_task(call)
        try:
            await asyncio.wait({step, work.alive}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not step.done():
                step.cancel()
                await asyncio.wait({step})
        if work.alive.done():
            raise work.alive.result()
        step.result()

    async def _fail(self, work: Work, plan: Plan, error: GlimpseError) -> None:
        if work.alive.done() and isinstance(work.alive.result(), Lost):
            raise work.alive.result()
        # Before anything is removed: if another process has the task by now, what is there is its.
        await self._insist(self.database.write, lambda connection: require(connection, work))
        LOG.warning("task %s: failed: %s", work.task.id, error.message)
        for step in reversed(plan.steps):
            LOG.info("task %s: undo %s", work.task.id, step.name)
            for pause in (*UNDO_PAUSES, None):
                try:
                    await step.undo(work)
                    break
                except GlimpseError as failure:
                    if pause is None:
                        LOG.warning("task %s: what is left is for the scrubber: %s", work.task.id, failure.message)
                        break
                    await asyncio.sleep(pause)
        await self._insist(self._end, work, plan, error)
        await self._clean(work, plan, error)

    async def _clean(self, work: Work, plan: Plan, error: GlimpseError | None) -> None:
        try:
            await plan.clean(work, error)
        except GlimpseError as failure:
            LOG.warning("task %s: what is left of it is for the sweep: %s", work.task.id, failure.message)

    def _end(self, work: Work, plan: Plan, error: GlimpseError | None) -> None:
        """The last transaction. Raises `Lost`, `Gone` when the image was deleted before it succeeded, `Unavailable`."""
        task = work.task

        def transaction(connection: Connection) -> tuple[Ending, Task]:
            now, ending = lifecycle.now(), Ending(None)
            require(connection, work)
            if not tasks.report(connection, task.id, work.said, now):
                raise Lost("The task was ended by others.")
            try:
                image = images.get(connection, work.image_id, SYSTEM, lock=True)
            except NotFound as deleted:
                if error is None:
                    raise Gone("The image was deleted.") from deleted
            else:
                if error is None:
                    ending = plan.finish(connection, work, image, now)
                else:
                    ending = plan.give_back(connection, work, image, error, now)
            if error is None:
                ended = self.tasks.ended(task, "success", work.said, {"image_id": work.image_id})
            else:
                ended = self.tasks.ended(task, "failure", (error.message or UNEXPECTED)[:LONGEST])
            for store_id in work.leftovers:
                images.add_leftover(connection, work.image_id, store_id, now)
            tasks.end(connection, ended)
            self.quotas.release(connection, work.image_id)
            images.drop_property(connection, work.image_id, LEASE, work.lease.text())
            import_lock.release(connection, work.image_id, task.id)
            return ending, ended

        ending, ended = self.quotas.write(transaction)
        for event, more in ending.events:
            self.notifications.tell(event, ending.image, **more)
        self.notifications.tell(f"task.{ended.status}", ended)
        self.notifications.tell("task.run", ended)

    async def _insist(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Gigabytes have been moved: a database that is away for a moment shall not cost them."""
        deadline = time.monotonic() + INSIST
        while True:
            try:
                return await self.database.run(call, *args, **kwargs)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(1)

    async def _renew(self, work: Work) -> GlimpseError:
        """Says from time to time that the work goes on, and how far; ends with the reason why it need not."""

        def renewal(connection: Connection) -> GlimpseError | None:
            now, text = lifecycle.now(), work.lease.text()
            if not images.replace_property(connection, work.image_id, LEASE, text, text, now):
                return Lost("The lease was taken over.")
            if not tasks.report(connection, work.task.id, work.said, now):
                return Lost("The task was ended by others.")
            return None if images.exists(connection, work.image_id) else Gone("The image was deleted.")

        while True:
            await asyncio.sleep(RENEW)
            with contextlib.suppress(Unavailable):
                verdict = await self.database.run(self.database.write, renewal)
                if verdict is not None:
                    return verdict
