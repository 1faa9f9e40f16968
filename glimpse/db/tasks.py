"""Tasks in the database: work on an image that goes on after the call that asked for it.

Everything here runs on the connection that it is given; whoever calls decides where a transaction begins and ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from glimpse.db import pages
from glimpse.db.tables import image_properties, task_info, tasks
from glimpse.domain.context import Context
from glimpse.domain.record import Task
from glimpse.errors import BadRequest

_COLUMNS = (
    "id", "type", "status", "owner", "created_at", "updated_at", "image_id", "request_id", "user_id", "expires_at",
)  # fmt: skip

SORT_KEYS = _COLUMNS
TIMES = ("created_at", "updated_at", "expires_at")

_OPEN = ("pending", "processing")

_ROWS = sa.select(
    *(tasks.c[name] for name in _COLUMNS), task_info.c.input, task_info.c.result, task_info.c.message
).join(task_info, task_info.c.task_id == tasks.c.id)


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """What a list call asks for, parsed: `columns` holds exact values, `marker` is the id of a task."""

    limit: int
    sort_key: str = "created_at"
    ascending: bool = False
    marker: str | None = None
    columns: Mapping[str, str | datetime] = field(default_factory=dict)


def insert(connection: Connection, task: Task) -> None:
    """Store a new task."""
    connection.execute(tasks.insert().values(**{name: getattr(task, name) for name in _COLUMNS}, deleted=False))
    texts = {"input": _text(task.input), "result": _text(task.result), "message": task.message}
    connection.execute(task_info.insert().values(task_id=task.id, **texts))


def get(connection: Connection, task_id: str) -> Task | None:
    """The task, whoever owns it; None when there is none."""
    row = connection.execute(_ROWS.where(tasks.c.id == task_id, tasks.c.deleted == sa.false())).mappings().first()
    return None if row is None else _assemble(row)


def of_image(connection: Connection, image_id: str, context: Context, now: datetime) -> list[Task]:
    """What the caller may see of the tasks of an image, oldest first, without those that have expired."""
    query = _ROWS.where(tasks.c.image_id == image_id, tasks.c.deleted == sa.false())
    query = query.where(sa.or_(tasks.c.expires_at.is_(None), tasks.c.expires_at >= now))
    if not context.is_admin:
        query = query.where(tasks.c.owner == context.project_id)
    rows = connection.execute(query.order_by(tasks.c.created_at, tasks.c.id)).mappings()
    return [_assemble(row) for row in rows]


def find(connection: Connection, query: TaskQuery, context: Context) -> list[Task]:
    """A page of the tasks that the caller may see. Raises `BadRequest` for a marker that is none of them."""
    seen = [tasks.c.deleted == sa.false()]
    if not context.is_admin:
        seen.append(tasks.c.owner == context.project_id)
    keys, behind = pages.sort_keys(tasks, query.sort_key), None
    if query.marker is not None:
        behind = connection.execute(sa.select(*keys).where(tasks.c.id == query.marker, *seen)).first()
        if behind is None:
            raise BadRequest(f"Invalid marker {query.marker[:64]!r}: no such task.")
    wanted = _ROWS.where(*seen, *(tasks.c[name] == value for name, value in query.columns.items()))
    rows = connection.execute(pages.page(wanted, keys, query.ascending, query.limit, behind)).mappings()
    return [_assemble(row) for row in rows]


def unfinished(
    connection: Connection, lock: str, mark: str
) -> list[tuple[str, str, str, datetime, str | None, datetime | None]]:
    """Tasks that have not ended and hold their image: (id, status, image id, when it was last heard of, the mark, when
    that was last changed); the last two are None where nobody has taken the task yet.

    `lock` is the property of the image that names the task, `mark` the one beside it that tells who works on it; both
    also of deleted images. Begins at the few open tasks: no table is read as a whole.
    """
    held, mine = image_properties.alias(), image_properties.alias()
    query = (
        sa.select(tasks.c.id, tasks.c.status, tasks.c.image_id, tasks.c.updated_at, mine.c.value, mine.c.updated_at)
        .join(held, sa.and_(held.c.image_id == tasks.c.image_id, held.c.name == lock))
        .outerjoin(mine, sa.and_(mine.c.image_id == tasks.c.image_id, mine.c.name == mark))
        .where(tasks.c.status.in_(_OPEN), tasks.c.deleted == sa.false(), held.c.value == tasks.c.id)
    )
    return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in connection.execute(query)]


def claim(connection: Connection, task_id: str, now: datetime) -> bool:
    """Begin a pending task: `processing`, by compare-and-swap; tells whether it was still pending."""
    pending = tasks.update().where(tasks.c.id == task_id, tasks.c.status == "pending", tasks.c.deleted == sa.false())
    return connection.execute(pending.values(status="processing", updated_at=now)).rowcount == 1


def report(connection: Connection, task_id: str, message: str, now: datetime) -> bool:
    """The task goes on, and this is how far it is; tells whether it is still open."""
    mine = tasks.update().where(tasks.c.id == task_id, tasks.c.status == "processing")
    if connection.execute(mine.values(updated_at=now)).rowcount != 1:
        return False
    connection.execute(task_info.update().where(task_info.c.task_id == task_id).values(message=message))
    return True


def waits(connection: Connection, task_id: str, now: datetime) -> None:
    """Somebody lives who will begin the task, if it is still pending."""
    pending = tasks.update().where(tasks.c.id == task_id, tasks.c.status == "pending")
    connection.execute(pending.values(updated_at=now))


def end(connection: Connection, task: Task) -> None:
    """Write how a task ended: its status, message, result, and the time when it is forgotten."""
    values = {"status": task.status, "updated_at": task.updated_at, "expires_at": task.expires_at}
    connection.execute(tasks.update().where(tasks.c.id == task.id).values(**values))
    texts = {"result": _text(task.result), "message": task.message}
    connection.execute(task_info.update().where(task_info.c.task_id == task.id).values(**texts))


def expired(connection: Connection, owner: str | None, now: datetime) -> bool:
    """Whether a project has tasks whose time is over."""
    return connection.execute(sa.select(tasks.c.id).where(*_over(owner, now)).limit(1)).first() is not None


def forget(connection: Connection, owner: str | None, now: datetime) -> None:
    """Soft-delete a project's tasks whose time is over."""
    connection.execute(tasks.update().where(*_over(owner, now)).values(deleted=True, deleted_at=now))


def _over(owner: str | None, now: datetime) -> list[sa.ColumnElement[bool]]:
    return [tasks.c.owner == owner, tasks.c.deleted == sa.false(), tasks.c.expires_at <= now]


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _assemble(row: RowMapping) -> Task:
    values = dict(row)
    for name in ("input", "result"):
        values[name] = None if values[name] is None else json.loads(values[name])
    values["message"] = values["message"] or ""
    values["updated_at"] = values["updated_at"] or values["created_at"]
    return Task(**values)
