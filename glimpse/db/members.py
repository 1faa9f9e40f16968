"""With whom images are shared: rows of `image_members`.

One row stands for an image and a project for ever: who is taken off the list keeps a soft-deleted row, and gets it back
when the image is shared with them again (so does Glance). Whoever writes here holds the image's row (`images.get` with
`lock`), as nothing in the table keeps two writers from adding the same project.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from glimpse.db.tables import image_members
from glimpse.domain.record import Member
from glimpse.domain.schema import is_storable

_ROWS = sa.select(
    image_members.c.image_id, image_members.c.member, image_members.c.status, image_members.c.created_at,
    image_members.c.updated_at,
)  # fmt: skip


def find(connection: Connection, image_id: str, member_id: str | None = None) -> list[Member]:
    """The members of an image, oldest row first, or the one of that name.

    MariaDB's collation decides there whether names that differ by case are the same, as it does for Glance.
    """
    if member_id is not None and not is_storable(member_id):
        return []  # nobody has such a name, and some plans of MariaDB fail to look for it
    query = _ROWS.where(*_of(image_id, member_id), image_members.c.deleted == sa.false()).order_by(image_members.c.id)
    return [
        Member(row.image_id, row.member, row.status, row.created_at, row.updated_at or row.created_at)
        for row in connection.execute(query)
    ]


def count(connection: Connection, image_id: str) -> int:
    """How many members an image has."""
    query = sa.select(sa.func.count()).select_from(image_members)
    return int(connection.scalar(query.where(*_of(image_id), image_members.c.deleted == sa.false())) or 0)


def add(connection: Connection, image_id: str, member_id: str, when: datetime) -> None:
    """Share the image with a project that is not among its members; its status is pending."""
    row = sa.select(sa.func.min(image_members.c.id)).where(*_of(image_id, member_id))
    former = connection.scalar(row)
    values = {"status": "pending", "updated_at": when, "deleted": False, "deleted_at": None}
    if former is not None:
        connection.execute(image_members.update().where(image_members.c.id == former).values(**values))
        return
    connection.execute(
        image_members.insert().values(image_id=image_id, member=member_id, can_share=False, created_at=when, **values)
    )


def set_status(connection: Connection, member: Member, status: str, when: datetime) -> None:
    """Note what a member makes of the image: pending, accepted or rejected."""
    connection.execute(_live(member.image_id, member.member_id).values(status=status, updated_at=when))


def remove(connection: Connection, member: Member, when: datetime) -> None:
    """Share the image no longer with that member."""
    connection.execute(_live(member.image_id, member.member_id).values(deleted=True, deleted_at=when))


def _live(image_id: str, member_id: str) -> sa.Update:
    return image_members.update().where(*_of(image_id, member_id), image_members.c.deleted == sa.false())


def _of(image_id: str, member_id: str | None = None) -> list[sa.ColumnElement[Any]]:
    own = [image_members.c.image_id == image_id]
    return own if member_id is None else [*own, image_members.c.member == member_id]
