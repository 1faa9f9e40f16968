"""Who has a task: a process that has claimed it holds it by a lease, and another one can see whether that one lives.

The truth is the task's row. An order writes it as `pending`, together with the lock of the image (`import_lock`). A
process takes it by compare-and-swap to `processing`, and leaves a lease beside the lock in the same transaction, which
it renews until the task ends. So at each moment one process works on a task. When the lease is dead another takes it
over by compare-and-swap of the lease; a process that lost its lease lets everything lie: it belongs to another now.

On the machine of a lease the kernel says whether its process lives. Elsewhere a lease counts as dead when this process
has watched it for STALE seconds, by its own clock, without seeing it renewed. A task without a lease is a Glance's, and
nobody's when its lock may be broken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from glimpse.db import images, tasks
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.lifecycle import TASK_LEASE_PROPERTY as LEASE
from glimpse.domain.record import Task
from glimpse.errors import Conflict
from glimpse.images import import_lock
from glimpse.images.leases import Lease, Leases, parse
from glimpse.imports.plan import Work
from glimpse.notifications import Notifications

LOG = logging.getLogger(__name__)

STALE = 30.0  # seconds without a renewal after which another machine's process counts as dead


class Lost(Conflict):
    """Another process has the task, or it has ended."""


class Claims:
    """The leases of this process on tasks, and what it has seen of those of others."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications
        self._leases = Leases()
        self._watched: dict[str, tuple[datetime | None, float]] = {}  # lease: its last renewal, and when that was seen

    def claim(self, task_id: str) -> tuple[Task, Lease] | None:
        """Have a pending task, under a new lease; None when another process was quicker. Raises `Unavailable`."""
        lease = self._leases.take("")

        def work(connection: Connection) -> Task | None:
            now = lifecycle.now()
            task = tasks.get(connection, task_id)
            if task is None or task.image_id is None or not tasks.claim(connection, task_id, now):
                return None
            images.set_property(connection, task.image_id, LEASE, lease.text(), now)
            return replace(task, status="processing", updated_at=now)

        claimed = self._write(work, lease)
        if claimed is not None:
            self._notifications.tell("task.processing", claimed[0])
        return claimed

    def take_over(self, task_id: str, image_id: str, mark: str | None) -> tuple[Task, Lease] | None:
        """Have a task whose lease `mark` is dead, or that has none; None when another process was quicker.

        Raises `Unavailable`, `Conflict`.
        """
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

        claimed = self._write(work, lease)
        if claimed is not None:
            LOG.warning("task %s: taken over, as the process that had it is gone", task_id)
        return claimed

    def _write(self, work: Callable[[Connection], Task | None], lease: Lease) -> tuple[Task, Lease] | None:
        task = None
        try:
            task = self._database.write(work)
        finally:
            if task is None:
                self._leases.drop(lease)
        return None if task is None else (task, lease)

    def drop(self, lease: Lease) -> None:
        """This process works on it no longer."""
        self._leases.drop(lease)

    def is_left(self, mark: str | None, renewed: datetime | None, silent: float) -> bool:
        """Whether nobody works under the lease `mark`, `renewed` then; or on a task that was not heard of so long.

        A lease of another machine is watched from the first look on.
        """
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

    def forget_watched(self, present: set[str]) -> None:
        """Watch no leases but these any more."""
        for mark in self._watched.keys() - present:
            del self._watched[mark]


def require(connection: Connection, work: Work) -> None:
    """Raise `Lost` when the work was taken over, or has ended."""
    text = work.lease.text()
    if not images.replace_property(connection, work.image_id, LEASE, text, text, lifecycle.now()):
        raise Lost("The lease was taken over.")
