"""The tasks of images: who sees them, how they end, when they are forgotten (API reference, Tasks)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from glimpse.access.policy import Policy
from glimpse.db import images, tasks
from glimpse.db.engine import Connection, Database
from glimpse.db.tasks import TaskQuery
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Task
from glimpse.errors import NotFound
from glimpse.settings import Settings


@dataclass(frozen=True)
class Tasks:
    """The calls on tasks, with what they need."""

    settings: Settings
    database: Database
    policy: Policy

    def find(self, context: Context, image_id: str) -> list[Task]:
        """The tasks of an image, as far as they are the caller's. Raises `NotFound`."""
        now = lifecycle.now()

        def read(connection: Connection) -> tuple[Image, list[Task], bool]:
            image = images.get(connection, image_id, context)
            found = tasks.of_image(connection, image_id, context, now)
            return image, found, tasks.expired(connection, context.project_id, now)

        try:
            image, found, expired = self.database.read(read)
            self.policy.require_for_image("get_image", context, image)
        except NotFound as error:
            raise NotFound("There is no such image.") from error
        if expired and not context.read_only:
            self.database.write(lambda connection: tasks.forget(connection, context.project_id, now))
        return found

    def require_access(self, context: Context) -> None:
        """Raise `Forbidden` for a caller who has no business with the tasks of all images."""
        self.policy.require("tasks_api_access", context, {})

    def page(self, context: Context, query: TaskQuery) -> list[Task]:
        """A page of the tasks of the caller's project, of all for administrators. Raises `Forbidden`, `BadRequest`."""
        self.require_access(context)
        now = lifecycle.now()
        if self.database.read(lambda connection: tasks.expired(connection, context.project_id, now)):
            self.database.write(lambda connection: tasks.forget(connection, context.project_id, now))
        return self.database.read(lambda connection: tasks.find(connection, query, context))

    def show(self, context: Context, task_id: str) -> Task:
        """One task. Raises `Forbidden`, `NotFound`."""
        self.require_access(context)
        task = self.database.read(lambda connection: tasks.get(connection, task_id))
        if task is None or not (context.is_admin or task.owner == context.project_id):
            raise NotFound(f"No task found with ID {task_id[:64]}")
        return task

    def ended(self, task: Task, status: str, message: str, result: dict[str, str] | None = None) -> Task:
        """The task as it is when it has ended; it is forgotten task_time_to_live hours later."""
        now = lifecycle.now()
        expires = now + timedelta(hours=self.settings.task_time_to_live)
        return replace(task, status=status, message=message, result=result, updated_at=now, expires_at=expires)
