"""Quotas in the database: what a project uses, and what its running uploads and imports have reserved.

Usage is computed from the images' own rows whenever it is asked for. A reservation counts only while the lease of its
upload or task stands, so whatever ends that, in this process or in the sweep of another, ends its reservation too. The
status of its image tells what it is for: while that is `uploading`, for staging, else for the stores.

In a transaction that reserves, `take_turn` comes before everything else: MariaDB and MySQL show a transaction the
database as it was at its first plain SELECT, which has to be after the turn.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection

from glimpse.db.additions import quota_reservations, quota_turns
from glimpse.db.tables import image_locations, image_properties, images
from glimpse.domain.lifecycle import COPY_PROPERTY, LEASE_PROPERTY, TASK_LEASE_PROPERTY
from glimpse.errors import Gone

_STAGED = ("uploading", "importing")
_GONE = ("killed", "deleted", "pending_delete")


def take_turn(connection: Connection, project: str | None) -> None:
    """Wait until no other transaction reserves for the project; holds until the end of this one."""
    row = {"project_id": project or "", "turn": 1}
    further = {"turn": quota_turns.c.turn + 1}
    key = ["project_id"]
    statement: sa.Insert
    match connection.dialect.name:
        case "mysql":
            statement = mysql.insert(quota_turns).values(row).on_duplicate_key_update(further)
        case "postgresql":
            statement = postgresql.insert(quota_turns).values(row)
            statement = statement.on_conflict_do_update(index_elements=key, set_=further)
        case _:
            statement = sqlite.insert(quota_turns).values(row)
            statement = statement.on_conflict_do_update(index_elements=key, set_=further)
    connection.execute(statement)


def used_bytes(connection: Connection, project: str | None, besides: str | None = None) -> int:
    """Bytes in the stores, each copy counted, and those that uploads have reserved; not those of image `besides`."""
    stored = (
        sa.select(_sum(images.c.size))
        .select_from(images.join(image_locations, image_locations.c.image_id == images.c.id))
        .where(*_live(project), image_locations.c.status != "deleted")
    )
    reserved = sa.select(_sum(quota_reservations.c.size)).where(*_running(project), ~_being_staged())
    if besides is not None:
        stored = stored.where(images.c.id != besides)
        reserved = reserved.where(quota_reservations.c.image_id != besides)
    # One statement: an upload that ends between two of them would be missed by both.
    return int(connection.scalar(sa.select(stored.scalar_subquery() + reserved.scalar_subquery())) or 0)


def staged_bytes(connection: Connection, project: str | None) -> int:
    """Bytes of images on their way through staging, and those that are reserved there."""
    staged = sa.select(_sum(images.c.size)).where(*_live(project), _in_staging())
    reserved = sa.select(_sum(quota_reservations.c.size)).where(*_running(project), _being_staged())
    return int(connection.scalar(sa.select(staged.scalar_subquery() + reserved.scalar_subquery())) or 0)


def image_count(connection: Connection, project: str | None) -> int:
    """Images that are not deleted."""
    return connection.scalar(sa.select(sa.func.count()).select_from(images).where(*_live(project))) or 0


def uploading_count(connection: Connection, project: str | None) -> int:
    """Images that are being uploaded, staged or imported, with those deleted since whose upload still runs."""
    busy = sa.or_(images.c.status == "saving", _in_staging())
    alive = sa.select(sa.func.count()).select_from(images).where(*_live(project), busy)
    deleted = sa.exists().where(images.c.id == quota_reservations.c.image_id, images.c.deleted == sa.true())
    cut_off = sa.select(sa.func.count()).select_from(quota_reservations).where(*_running(project), deleted)
    return connection.scalar(sa.select(alive.scalar_subquery() + cut_off.scalar_subquery())) or 0


def reserve(connection: Connection, project: str | None, image_id: str, size: int) -> None:
    """Count `size` bytes for an upload that begins."""
    release(connection, image_id)
    connection.execute(quota_reservations.insert().values(image_id=image_id, project_id=project or "", size=size))


def change(connection: Connection, image_id: str, size: int) -> None:
    """Count `size` bytes for a running upload. Raises `Gone` when it was given up by others."""
    ours = quota_reservations.update().where(quota_reservations.c.image_id == image_id)
    if connection.execute(ours.values(size=size)).rowcount != 1:
        raise Gone("The upload was given up, as it seemed to be dead.")


def release(connection: Connection, image_id: str) -> None:
    """Count nothing for the image any more but what its record says."""
    connection.execute(quota_reservations.delete().where(quota_reservations.c.image_id == image_id))


def forget_dead(connection: Connection) -> None:
    """Remove reservations without a lease: an upload that ended while quotas were switched off leaves one."""
    connection.execute(quota_reservations.delete().where(~_leased()))


def _sum(column: sa.Column[Any]) -> sa.Function[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _live(project: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    return images.c.owner == project, images.c.deleted == sa.false(), images.c.status.not_in(_GONE)


def _in_staging() -> sa.ColumnElement[bool]:
    mark = image_properties
    copying = sa.exists().where(mark.c.image_id == images.c.id, mark.c.name == COPY_PROPERTY, mark.c.value != "",
                                mark.c.deleted == sa.false())  # fmt: skip
    return sa.or_(images.c.status.in_(_STAGED), copying)


def _running(project: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    return quota_reservations.c.project_id == (project or ""), _leased()


def _leased() -> sa.ColumnElement[bool]:
    # Also the mark of an image that was deleted meanwhile: its bytes are there until the upload notices.
    mark = image_properties
    leases = (LEASE_PROPERTY, TASK_LEASE_PROPERTY)
    return sa.exists().where(mark.c.image_id == quota_reservations.c.image_id, mark.c.name.in_(leases))


def _being_staged() -> sa.ColumnElement[bool]:
    return sa.exists().where(images.c.id == quota_reservations.c.image_id, images.c.status == "uploading")
