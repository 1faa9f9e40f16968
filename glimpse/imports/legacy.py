"""Imports that begin with POST /v2/tasks: an image is made from a description and a place on the web (spec 1.7, 2.5).

The call is older than that of images and does the same in another way; clients that know only it still exist.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from glimpse.db import tasks
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.record import Task
from glimpse.domain.tasks import IMPORT, NewTask
from glimpse.errors import BadRequest
from glimpse.images.tasks import Tasks
from glimpse.notifications import Notifications
from glimpse.stores.uri_filter import UriFilter

NOT_HERE = "Tasks of this type begin with a call on their image."


@dataclass(frozen=True)
class LegacyImports:
    """The orders of POST /v2/tasks, with what they need."""

    database: Database
    tasks: Tasks
    filter: UriFilter
    notifications: Notifications

    async def order(self, context: Context, wanted: NewTask, request_id: str) -> Task:
        """Take an order; the work goes on after the call. Raises `BadRequest` for a place that is not allowed.

        A task of another type has no image that waits for it, so it fails at once (as with Glance, if not so soon).
        """
        now = lifecycle.now()
        task = Task(
            id=str(uuid.uuid4()), type=wanted.type, status="pending", owner=context.project_id or "", created_at=now,
            updated_at=now, image_id=wanted.input.get("image_id"), request_id=request_id, user_id=context.user_id,
            input=wanted.input,
        )  # fmt: skip
        if wanted.type != IMPORT:
            task = self.tasks.ended(task, "failure", NOT_HERE)
        elif not await self.filter.passes(wanted.input["import_from"]):
            raise BadRequest("The URI does not pass filtering: the service may not fetch from there.")
        await self.database.run(self.database.write, lambda connection: tasks.insert(connection, task))
        self.notifications.tell("task.create", task)
        return task
