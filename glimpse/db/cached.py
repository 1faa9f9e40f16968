"""Copies in the caches of the nodes: which node holds which image, how often it was asked for and when last.

Everything here runs on the connection that it is given. A node is known by its URL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from glimpse.db.tables import cached_images, images, node_reference
from glimpse.domain.record import Copy

AT_ONCE = 500  # ids in one statement

_rows = cached_images.c


def copies(connection: Connection, node: str) -> list[Copy]:
    """All copies of a node."""
    query = sa.select(cached_images).where(_rows.node_reference_id == _number(node))
    return [_copy(row) for row in connection.execute(query).mappings()]


def get(connection: Connection, node: str, image_id: str) -> Copy | None:
    """A node's copy of an image."""
    query = sa.select(cached_images).where(_rows.node_reference_id == _number(node), _rows.image_id == image_id)
    row = connection.execute(query).mappings().first()
    return None if row is None else _copy(row)


def put(connection: Connection, node: str, copy: Copy) -> None:
    """Note a new copy, in place of one that is noted."""
    number = _node(connection, node)
    remove(connection, node, [copy.image_id])
    connection.execute(
        cached_images.insert().values(
            image_id=copy.image_id, last_accessed=copy.last_accessed, last_modified=copy.last_modified, size=copy.size,
            hits=copy.hits, checksum=copy.checksum, node_reference_id=number,
        )
    )  # fmt: skip


def hit(connection: Connection, node: str, counts: Mapping[str, int], when: datetime) -> None:
    """Copies were asked for, each so many times."""
    for image_id, count in sorted(counts.items()):
        connection.execute(
            cached_images.update()
            .where(_rows.node_reference_id == _number(node), _rows.image_id == image_id)
            .values(hits=_rows.hits + count, last_accessed=when)
        )


def remove(connection: Connection, node: str, image_ids: Iterable[str]) -> None:
    """Forget copies of a node; those that it does not have are fine."""
    for part in _parts(image_ids):
        connection.execute(
            cached_images.delete().where(_rows.node_reference_id == _number(node), _rows.image_id.in_(part))
        )


def nodes(connection: Connection, image_id: str) -> list[str]:
    """The URLs of the nodes that hold a copy of the image."""
    query = (
        sa.select(node_reference.c.node_reference_url)
        .join(cached_images, _rows.node_reference_id == node_reference.c.node_reference_id)
        .where(_rows.image_id == image_id)
        .order_by(node_reference.c.node_reference_id)
    )
    return list(connection.execute(query).scalars())


def gone(connection: Connection, image_ids: Iterable[str]) -> set[str]:
    """Those among the ids whose images are not there any more."""
    wanted = set(image_ids)
    there: set[str] = set()
    for part in _parts(wanted):
        query = sa.select(images.c.id).where(images.c.id.in_(part), images.c.deleted == sa.false())
        there.update(connection.execute(query).scalars())
    return wanted - there


def _parts(image_ids: Iterable[str]) -> list[list[str]]:
    ids = sorted(image_ids)
    return [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]


def _number(node: str) -> sa.ScalarSelect[int]:
    references = node_reference.c
    return sa.select(references.node_reference_id).where(references.node_reference_url == node).scalar_subquery()


def _node(connection: Connection, node: str) -> int:
    """The number of a node; a new one gets the next."""
    # Locked: after a collision with another worker an unlocked read would still not see its row.
    query = sa.select(node_reference.c.node_reference_id).where(node_reference.c.node_reference_url == node)
    known = connection.execute(query).scalar()
    if known is None:
        try:
            with connection.begin_nested():
                connection.execute(node_reference.insert().values(node_reference_url=node))
        except IntegrityError:
            pass
        known = connection.execute(query.with_for_update()).scalar_one()
    return int(known)


def _copy(row: RowMapping) -> Copy:
    return Copy(**{name: row[name] for name in Copy.__dataclass_fields__})
