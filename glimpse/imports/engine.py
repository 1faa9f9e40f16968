"""The engine: takes tasks, runs their steps, and takes over what other processes left when they died.

The truth is the task's row. An order writes it as `pending`, together with the lock of the image (`import_lock`). A
process takes it by compare-and-swap to `processing`, and leaves a lease beside the lock in the same transaction. It
renews the lease, with the message about the progress, until one transaction ends all of it: status of the image, task,
lock and lease. So at each moment one process works on a task, and each process can see whether that one lives:

    pending, for MISSED seconds     whoever looks takes it: its process died, or the message about it was lost; one that
                                    only a certain process can do well is said to wait by it, every TELL seconds
    processing, lease is dead       taken over by compare-and-swap of the lease; the steps run again from the first
    lease lost                      the process lets everything lie: it belongs to another now

On the machine of a lease the kernel says whether its process lives. Elsewhere a lease counts as dead when this process
has watched it for STALE seconds, by its own clock, without seeing it renewed. A task without a lease is a Glance's, and
nobody's when its lock may be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, ParamSpec, Protocol, TypeVar

from glimpse.access.quota import Quotas
from glimpse.db import images, tasks
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import TASK_LEASE_PROPERTY as LEASE
from glimpse.domain.record import Task
from glimpse.errors import Conflict, GlimpseError, Gone, NotFound, Unavailable
from glimpse.images import import_lock
from glimpse.images.acls import Acls
from glimpse.images.leases import Lease, Leases, parse
from glimpse.images.tasks import Tasks
from glimpse.imports.plan import Ending, Plan, Work
from glimpse.notifications import Notifications

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

RENEW = 5.0  # seconds between two renewals of a lease, which also look whether the image is still there
STALE = 30.0  # seconds without a renewal after which another machine's process counts as dead
LOOK = 10.0  # seconds between two looks for tasks that nobody works on
MISSED = 20.0  # seconds after which a pending task is taken by whoever sees it
TELL = 25.0  # seconds after which a task that waits for room in its own process is heard of again
ATTEMPTS = 5  # processes that may die of a task before it is given up
INSIST = 60.0  # seconds to try to write the end of a task while the database is away
UNDO_PAUSES = (1.0, 4.0)  # seconds before what a store refuses to remove is tried again

LONGEST = 4000  # characters of a message; what an image says of itself may be quoted in it
UNEXPECTED = "Task failed due to Internal Error"
SYSTEM = Context(is_admin=True)


class Lost(Conflict):
    """Another process has the task, or it has ended."""


class Broker(Protocol):
    """Tells other processes of pending tasks."""

    async def hand_out(self, task_id: str) -> bool:
        """Whether the message is on its way."""
        ...


class Engine:
    """The tasks of one process."""

    def __init__(
        self, at_once: int, database: Database, quotas: Quotas, tasks: Tasks, notifications: Notifications,
        plans: Mapping[str, Callable[[Task], Plan]], acls: Acls, broker: Broker | None = None,
    ) -> None:  # fmt: skip
        """`plans` makes the plan of a task, by the task's type; `at_once` tasks are worked on at the same time."""
        self._database = database
        self._quotas = quotas
        self._tasks = tasks
        self._notifications = notifications
        self._plans = plans
        self._acls = acls
        self._broker = broker
        self._leases = Leases()
        self._free = at_once
        self.room = asyncio.Event()  # set while one more task can be worked on
        self.room.set()
        self._running: dict[asyncio.Task[None], str] = {}  # what waits for room here, or is worked on
        self._at_work: set[asyncio.Task[None]] = set()  # the latter
        self._ours: set[str] = set()  # tasks that wait for room here, and that others cannot do as well
        self._stopping = False
        self._tokens: dict[str, str] = {}
        self._watched: dict[str, tuple[datetime | None, float]] = {}  # lease: its last renewal, and when that was seen

    # --- orders ------------------------------------------------------------------------------------------------------

    def tell_order(self, task: Task, given_up: Task | None) -> None:
        """Tell of an order whose transaction is through: the task is written, and holds its image.

        `given_up` is a task that has failed by it (see `import_lock.take`).
        """
        if given_up is not None:
            self._notifications.tell("task.failure", given_up)
        self._notifications.tell("task.create", task)

    def lend_token(self, task_id: str, token: str | None) -> None:
        """A caller's token, for the steps of a task that has to speak for its caller. It never leaves this process."""
        if token is not None:
            self._tokens[task_id] = token

    async def begin(self, task: Task, anywhere: bool = True) -> None:
        """Have the task worked on; `anywhere` in the cloud, or in this process. Returns at once."""
        if anywhere and self._broker is not None and await self._broker.hand_out(task.id):
            return
        taking = self._spawn(task.id, self.take(task.id))
        if not anywhere:
            self._ours.add(task.id)
            taking.add_done_callback(lambda _: self._ours.discard(task.id))

    # --- taking ------------------------------------------------------------------------------------------------------

    async def take(self, task_id: str) -> None:
        """Claim a pending task as soon as there is room, and work on it beside; returns when that is settled.

        Another process may have been quicker, and while the database is away whoever looks next takes it.
        """
        await self._enter()
        claimed = None
        try:
            with contextlib.suppress(Unavailable):
                claimed = await self._database.run(self._claim, task_id)
        finally:
            self._begin_or_leave(claimed)

    async def _enter(self) -> None:
        while not self._free:
            await self.room.wait()
        self._free -= 1
        if not self._free:
            self.room.clear()

    def _leave(self) -> None:
        self._free += 1
        if not self._stopping:
            self.room.set()

    def _begin_or_leave(self, claimed: tuple[Task, Lease] | None) -> None:
        if claimed is None:
            self._leave()
        else:
            work = self._spawn(claimed[0].id, self._work(*claimed))
            self._at_work.add(work)
            work.add_done_callback(self._at_work.discard)

    def _claim(self, task_id: str) -> tuple[Task, Lease] | None:
        lease = self._leases.take("")

        def work(connection: Connection) -> Task | None:
            now = lifecycle.now()
            task = tasks.get(connection, task_id)
            if task is None or task.image_id is None or not tasks.claim(connection, task_id, now):
                return None
            images.set_property(connection, task.image_id, LEASE, lease.text(), now)
            return replace(task, status="processing", updated_at=now)

        task = None
        try:
            task = self._database.write(work)
        finally:
            if task is None:
                self._leases.drop(lease)
        if task is None:
            return None
        self._notifications.tell("task.processing", task)
        return task, lease

    async def keep_looking(self) -> None:
        """Look now and then for tasks that nobody works on, for as long as the process lives."""
        while True:
            try:
                await self.look()
            except Unavailable:
                self._watched.clear()  # nobody could renew anything
                LOG.info("tasks of dead processes wait for the database")
            except Exception:
                LOG.exception("looking for tasks failed")
            # Spread out, as every worker of every node does this.
            await asyncio.sleep(LOOK * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def look(self) -> None:
        """Take every task that nobody works on. Raises `Unavailable`."""
        found = await self._database.run(self._database.read, lambda c: tasks.unfinished(c, import_lock.LOCK, LEASE))
        now = lifecycle.now()
        self._forget_watched({mark for *_, mark, _ in found if mark is not None})
        for over in self._tokens.keys() - {task_id for task_id, *_ in found} - set(self._running.values()):
            del self._tokens[over]  # others were quicker
        for task_id, status, image_id, heard, mark, renewed in found:
            silent = (now - heard).total_seconds()
            if task_id in self._running.values():
                if status == "pending" and silent >= TELL and task_id in self._ours:
                    await self._database.run(self._database.write, lambda c: tasks.waits(c, task_id, now))  # noqa: B023 - awaited in its own turn
            elif self._stopping or not self._free:
                continue
            elif status == "pending":
                if silent >= MISSED and await self._is_for_us(task_id):
                    self._spawn(task_id, self.take(task_id))
            elif self._is_left(mark, renewed, silent) and await self._is_for_us(task_id):
                self._spawn(task_id, self._take_over(task_id, image_id, mark))

    async def _is_for_us(self, task_id: str) -> bool:
        task = await self._database.run(self._database.read, lambda c: tasks.get(c, task_id))
        if task is None or task.type not in self._plans:
            return False
        try:
            return await self._plans[task.type](task).is_here()
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError):
            LOG.warning("task %s: its input makes no sense here; its lock will be broken", task_id)
            return False

    def _is_left(self, mark: str | None, renewed: datetime | None, silent: float) -> bool:
        if mark is None:
            return silent >= import_lock.HOLDS.total_seconds()
        return not self._is_alive(mark, renewed)

    def _is_alive(self, mark: str, renewed: datetime | None) -> bool:
        lease = parse(mark)
        if lease is None:
            return False
        known = self._leases.knows(lease)
        if known is not None:
            return known
        before, since = self._watched.get(mark, (None, 0.0))
        if mark not in self._watched or before != renewed:
            self._watched[mark] = (renewed, time.monotonic())
            return True
        return time.monotonic() - since < STALE

    def _forget_watched(self, present: set[str]) -> None:
        for mark in self._watched.keys() - present:
            del self._watched[mark]

    async def _take_over(self, task_id: str, image_id: str, mark: str | None) -> None:
        old = parse(mark) if mark else None
        lease = self._leases.take("", (old.attempt if old else 0) + 1)

        def work(connection: Connection) -> Task | None:
            now, text = lifecycle.now(), lease.text()
            task = tasks.get(connection, task_id)
            if task is None or task.status != "processing":
                return None
            if mark is None:
                images.set_property(connection, image_id, LEASE, text, now)
                return task
            return task if images.replace_property(connection, image_id, LEASE, mark, text, now) else None

        await self._enter()
        task = None
        try:
            task = await self._database.run(self._database.write, work)
        except (Unavailable, Conflict):
            LOG.info("task %s could not be taken over now", task_id)
        finally:
            if task is None:
                self._leases.drop(lease)
            else:
                LOG.warning("task %s: taken over, as the process that had it is gone", task_id)
            self._begin_or_leave(None if task is None else (task, lease))

    # --- working -----------------------------------------------------------------------------------------------------

    def _spawn(self, task_id: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        running = asyncio.create_task(work)
        self._running[running] = task_id
        running.add_done_callback(self._running.pop)
        return running

    @property
    def busy(self) -> bool:
        """Whether anything is being worked on."""
        return bool(self._running)

    def rest(self) -> None:
        """Take no more tasks; what waits for room is left to others."""
        self._stopping = True
        self.room.clear()
        for task in self._running.keys() - self._at_work:
            task.cancel()

    async def stop(self, patience: float) -> None:
        """Finish what is worked on within so many seconds; the next process that looks goes on with the rest."""
        self.rest()
        if self._at_work:
            await asyncio.wait(self._at_work, timeout=max(0.0, patience))
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _work(self, task: Task, lease: Lease) -> None:
        """One task to its end. What the database keeps from ending is left to whoever looks next."""
        assert task.image_id is not None
        work = Work(task, task.image_id, lease, self._tokens.pop(task.id, None))
        work.alive = asyncio.create_task(self._renew(work))
        try:
            await self._run(work, self._plans[task.type](task))
        except Unavailable as error:
            LOG.warning("task %s waits: %s", task.id, error.message)
        except Lost:
            LOG.warning("task %s is in other hands", task.id)
        except Exception:
            LOG.exception("task %s: unexpected failure, it will be taken up again", task.id)
        finally:
            work.alive.cancel()
            self._leases.drop(lease)
            self._leave()

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
        await self._acls.spread_new(work.caller, work.image_id)
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
        await self._insist(self._database.write, lambda connection: require(connection, work))
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
                ended = self._tasks.ended(task, "success", work.said, {"image_id": work.image_id})
            else:
                ended = self._tasks.ended(task, "failure", (error.message or UNEXPECTED)[:LONGEST])
            for store_id in work.leftovers:
                images.add_leftover(connection, work.image_id, store_id, now)
            tasks.end(connection, ended)
            self._quotas.release(connection, work.image_id)
            images.drop_property(connection, work.image_id, LEASE, work.lease.text())
            import_lock.release(connection, work.image_id, task.id)
            return ending, ended

        ending, ended = self._quotas.write(transaction)
        for event, more in ending.events:
            self._notifications.tell(event, ending.image, **more)
        self._notifications.tell(f"task.{ended.status}", ended)
        self._notifications.tell("task.run", ended)

    async def _insist(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Gigabytes have been moved: a database that is away for a moment shall not cost them."""
        deadline = time.monotonic() + INSIST
        while True:
            try:
                return await self._database.run(call, *args, **kwargs)
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
                verdict = await self._database.run(self._database.write, renewal)
                if verdict is not None:
                    return verdict


def require(connection: Connection, work: Work) -> None:
    """Raise `Lost` when the work was taken over, or has ended."""
    text = work.lease.text()
    if not images.replace_property(connection, work.image_id, LEASE, text, text, lifecycle.now()):
        raise Lost("The lease was taken over.")
