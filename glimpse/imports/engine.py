"""The engine: takes tasks while there is room, and takes over what other processes left when they died.

Who has a task is said in `claims`, what is done with it in `working`. A process looks now and then for tasks that
nobody works on:

    pending, for MISSED seconds     whoever looks takes it: its process died, or the message about it was lost; one that
                                    only a certain process can do well is said to wait by it, every TELL seconds
    processing, lease is dead       taken over; the steps run again from the first
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from glimpse.access.quota import Quotas
from glimpse.db import tasks
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.lifecycle import TASK_LEASE_PROPERTY as LEASE
from glimpse.domain.record import Task
from glimpse.errors import Conflict, Unavailable
from glimpse.images import import_lock
from glimpse.images.acls import Acls
from glimpse.images.leases import Lease
from glimpse.images.tasks import Tasks
from glimpse.imports.claims import Claims, Lost
from glimpse.imports.plan import Plan, Work
from glimpse.imports.working import Working
from glimpse.notifications import Notifications

LOG = logging.getLogger(__name__)

LOOK = 10.0  # seconds between two looks for tasks that nobody works on
MISSED = 20.0  # seconds after which a pending task is taken by whoever sees it
TELL = 25.0  # seconds after which a task that waits for room in its own process is heard of again


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
        self._notifications = notifications
        self._plans = plans
        self._claims = Claims(database, notifications)
        self._working = Working(database, quotas, tasks, notifications, acls)
        self._broker = broker
        self._free = at_once
        self.room = asyncio.Event()  # set while one more task can be worked on
        self.room.set()
        self._running: dict[asyncio.Task[None], str] = {}  # what waits for room here, or is worked on
        self._at_work: set[asyncio.Task[None]] = set()  # the latter
        self._ours: set[str] = set()  # tasks that wait for room here, and that others cannot do as well
        self._stopping = False
        self._tokens: dict[str, str] = {}

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
                claimed = await self._database.run(self._claims.claim, task_id)
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

    async def keep_looking(self) -> None:
        """Look now and then for tasks that nobody works on, for as long as the process lives."""
        while True:
            try:
                await self.look()
            except Unavailable:
                self._claims.forget_watched(set())  # nobody could renew anything
                LOG.info("tasks of dead processes wait for the database")
            except Exception:
                LOG.exception("looking for tasks failed")
            # Spread out, as every worker of every node does this.
            await asyncio.sleep(LOOK * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def look(self) -> None:
        """Take every task that nobody works on. Raises `Unavailable`."""
        found = await self._database.run(self._database.read, lambda c: tasks.unfinished(c, import_lock.LOCK, LEASE))
        now = lifecycle.now()
        self._claims.forget_watched({mark for *_, mark, _ in found if mark is not None})
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
            elif self._claims.is_left(mark, renewed, silent) and await self._is_for_us(task_id):
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

    async def _take_over(self, task_id: str, image_id: str, mark: str | None) -> None:
        await self._enter()
        claimed = None
        try:
            claimed = await self._database.run(self._claims.take_over, task_id, image_id, mark)
        except (Unavailable, Conflict):
            LOG.info("task %s could not be taken over now", task_id)
        finally:
            self._begin_or_leave(claimed)

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
        try:
            await self._working.run(work, self._plans[task.type](task))
        except Unavailable as error:
            LOG.warning("task %s waits: %s", task.id, error.message)
        except Lost:
            LOG.warning("task %s is in other hands", task.id)
        except Exception:
            LOG.exception("task %s: unexpected failure, it will be taken up again", task.id)
        finally:
            self._claims.drop(lease)
            self._leave()
