"""The import lock: which task works on an image, told by a property of the image (spec 1.3.6).

Glance knows it too, so neither service starts work on an image that a task of the other holds.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

from glimpse.db import images, scrub, tasks
from glimpse.db.engine import Connection
from glimpse.domain.lifecycle import COPY_PROPERTY, FAILED_PROPERTY
from glimpse.domain.record import Image, Task
from glimpse.errors import Conflict
from glimpse.images.tasks import Tasks

LOCK = "os_glance_import_task"
HOLDS = timedelta(minutes=60)  # since the task was last heard of; twice that while it has not begun

# What an import was doing to stores when its lock was broken.
_PROGRESS = (COPY_PROPERTY, FAILED_PROPERTY)


def take(connection: Connection, image: Image, task: Task, ends: Tasks) -> Task | None:
    """Let the task hold the image, whose row is locked; another task that failed by it, if there was one.

    Raises `Conflict` while another task holds the image, or while bytes that it has lost are being erased.
    """
    scrub.check_at_rest(connection, image.id, task.created_at)
    given_up = None
    if LOCK in image.properties:
        given_up = _break(connection, image, image.properties[LOCK] or "", task, ends)
    images.set_property(connection, image.id, LOCK, task.id, task.created_at)
    return given_up


def release(connection: Connection, image_id: str, task_id: str) -> None:
    """The task works on the image no longer; nothing happens when another has it by now."""
    with contextlib.suppress(Conflict):
        images.drop_property(connection, image_id, LOCK, task_id)


def _break(connection: Connection, image: Image, holder_id: str, task: Task, ends: Tasks) -> Task | None:
    """Take the lock of a task that has not been heard of for long; that task, if it failed by it."""
    holder, given_up, now = tasks.get(connection, holder_id), None, task.created_at
    if holder is not None:
        if now - holder.updated_at < HOLDS * (2 if holder.status == "pending" else 1):
            raise Conflict("Another task works on the image.")
        if holder.status in ("pending", "processing"):
            given_up = ends.ended(holder, "failure", "Expired lock preempted")
            tasks.end(connection, given_up)
        stores = (holder.input or {}).get("backend") or ()
        for name in _PROGRESS:
            names = (image.properties.get(name) or "").split(",")
            if not set(stores).isdisjoint(names):
                left = ",".join(each for each in names if each not in stores)
                images.set_property(connection, image.id, name, left, now)
    images.drop_property(connection, image.id, LOCK, holder_id)
    return given_up
