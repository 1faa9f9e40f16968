"""Forget for good what was deleted long ago (`glance-manage db purge`): rows that are only marked as deleted.

Rows go in batches, each a transaction of its own, so that nobody waits long for a lock and Galera gets small
write-sets. Tables are walked along their primary key, which needs no sorting and never sees a row twice.

What still speaks of bytes stays: a location in `pending_delete` (the sweep or the scrubber has not erased them), an
image in the status `pending_delete`, the mark of an upload that was killed. An image goes only when no row refers to
it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from glimpse.db.engine import Connection, Database
from glimpse.db.tables import image_locations, image_members, image_properties, image_tags, images, task_info, tasks

BATCH = 1000  # rows in one transaction
TELL_EVERY = 20  # batches between two lines about one table

_CHILDREN = (image_locations, image_members, image_properties, image_tags)
_PENDING = "pending_delete"


@dataclass(frozen=True, slots=True)
class Kept:
    """Images that are old enough, but were left: their bytes are not erased yet, or other rows refer to them."""

    unerased: int
    referred: int


class Purge:
    """Deletes rows that were marked as deleted before a moment (naive UTC), at most `most` of each table.

    `most` None means all. `marks` are names of properties that stand for work on an image's bytes which is not
    finished. `tell` gets a line for each table, and more for long ones. Raises `Unavailable` when the database does
    not answer; what was deleted until then stays deleted.
    """

    def __init__(
        self,
        database: Database,
        before: datetime,
        most: int | None,
        marks: Collection[str],
        tell: Callable[[str], None],
    ) -> None:
        self._database = database
        self._before = before
        self._most = most
        self._marks = sorted(marks)
        self._tell = tell

    def parts(self) -> None:
        """Everything but images: what belonged to them, and tasks with their texts."""
        unfinished = {
            image_locations: image_locations.c.status != _PENDING,
            image_properties: image_properties.c.name.not_in(self._marks),
        }
        for table in _CHILDREN:
            self._walk(table, sa.and_(self._old(table), unfinished.get(table, sa.true())))
        self._walk(tasks, self._old(tasks), (task_info, task_info.c.task_id))

    def images(self) -> Kept:
        """The images themselves, after which their IDs can be used again (OSSN-0075). Returns what had to stay."""
        referred = sa.or_(*(sa.exists().where(table.c.image_id == images.c.id) for table in _CHILDREN))
        self._walk(images, sa.and_(self._old(images), images.c.status != _PENDING, sa.not_(referred)))
        unerased = sa.or_(
            images.c.status == _PENDING,
            sa.exists().where(image_locations.c.image_id == images.c.id, image_locations.c.status == _PENDING),
            sa.exists().where(image_properties.c.image_id == images.c.id, image_properties.c.name.in_(self._marks)),
        )
        return Kept(self._count(unerased), self._count(sa.and_(sa.not_(unerased), referred)))

    def _old(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return sa.and_(table.c.deleted == sa.true(), table.c.deleted_at < self._before)

    def _count(self, condition: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).select_from(images).where(self._old(images), condition)
        return self._database.read(lambda connection: int(connection.execute(query).scalar_one()))

    def _walk(
        self, table: sa.Table, condition: sa.ColumnElement[bool], child: tuple[sa.Table, sa.Column[Any]] | None = None
    ) -> None:
        """Delete the rows that meet the condition, batch by batch, with the rows of a `child` table before them."""
        last, gone, batches = None, 0, 0
        while self._most is None or gone < self._most:
            size = BATCH if self._most is None else min(BATCH, self._most - gone)
            keys = self._next_keys(table, condition, last, size)
            if not keys:
                break
            gone += self._delete(table, condition, keys, child)
            last, batches = keys[-1], batches + 1
            if batches % TELL_EVERY == 0:
                self._tell(f"{table.name}: {gone} rows purged so far.")
        self._tell(f"{table.name}: {gone} rows purged.")

    def _next_keys(self, table: sa.Table, condition: sa.ColumnElement[bool], last: Any, size: int) -> list[Any]:
        query = sa.select(table.c.id).where(condition).order_by(table.c.id).limit(size)
        if last is not None:
            query = query.where(table.c.id > last)
        return self._database.read(lambda connection: list(connection.execute(query).scalars()))

    def _delete(
        self,
        table: sa.Table,
        condition: sa.ColumnElement[bool],
        keys: list[Any],
        child: tuple[sa.Table, sa.Column[Any]] | None,
    ) -> int:
        # The condition again: since it was read, a row may have come back to life, as members and properties do.
        delete = sa.delete(table).where(table.c.id.in_(keys), condition)

        def work(connection: Connection) -> int:
            if child is not None:
                connection.execute(sa.delete(child[0]).where(child[1].in_(keys)))
            return connection.execute(delete).rowcount

        return self._database.write(work)
