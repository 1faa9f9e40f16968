"""Lists of images: filters, order, and pages that go on exactly behind their marker.

API reference, List images. A page costs the same wherever it stands: the marker's own values are compared against the
sort columns (never OFFSET), so an index on the first of them is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from glimpse.db.images import IMAGE_ROWS, with_children
from glimpse.db.tables import image_members, image_properties, image_tags, images
from glimpse.domain.context import Context
from glimpse.domain.record import Image

SORT_KEYS = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")

Condition = sa.ColumnElement[bool]

OPERATORS = {
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "in": lambda column, value: column.in_(value),
}


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """What a list call asks for, parsed.

    `columns` holds (column of images, operator, value), `properties` exact values of extra properties, `visibility` one
    of the four, "all", or None for the default set. `sort` is (key, ascending) with tie breakers already appended.
    """

    limit: int
    sort: Sequence[tuple[str, bool]]
    marker: Image | None = None
    columns: Sequence[tuple[str, str, Any]] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    visibility: str | None = None
    member_status: str = "accepted"
    os_hidden: bool = False


def find(connection: Connection, query: ImageQuery, context: Context) -> list[Image]:
    """One page of the images that the caller may see."""
    if query.limit == 0:
        return []
    statement = IMAGE_ROWS.where(images.c.deleted == sa.false(), images.c.status != "killed")
    statement = statement.where(*_seen_by(context, query), *_filters(query))
    if query.marker is not None:
        statement = statement.where(_behind(query.marker, query.sort))
    order = [_key(name).asc() if ascending else _key(name).desc() for name, ascending in query.sort]
    rows = connection.execute(_steered(statement, query).order_by(*order).limit(query.limit)).mappings().all()
    return with_children(connection, rows, context)


def _steered(statement: sa.Select[Any], query: ImageQuery) -> sa.Select[Any]:
    """MariaDB prefers to sort every live row over walking an index that is in order already, unless told."""
    filtered = query.columns or query.properties or query.tags
    if query.sort[0][0] in ("created_at", "updated_at") and not filtered:
        return statement.with_hint(images, f"FORCE INDEX ({query.sort[0][0]}_image_idx)", "mysql")
    return statement


def _seen_by(context: Context, query: ImageQuery) -> list[Condition]:
    """The visibility matrix (spec, List images): what the caller may see, cut down to what was asked for."""
    own = images.c.owner == context.project_id if context.project_id is not None else sa.false()
    conditions: list[Condition] = []
    if not context.is_admin:
        member = sa.select(image_members.c.image_id).where(
            image_members.c.member == context.project_id, image_members.c.deleted == sa.false()
        )
        if query.member_status != "all":
            member = member.where(image_members.c.status == query.member_status)
        shared = sa.and_(images.c.visibility == "shared", images.c.id.in_(member))
        conditions.append(sa.or_(images.c.visibility.in_(["public", "community"]), own, shared))
    if query.visibility is None:
        conditions.append(sa.or_(images.c.visibility != "community", own))
    elif query.visibility != "all":
        conditions.append(images.c.visibility == query.visibility)
    return conditions


def _filters(query: ImageQuery) -> list[Condition]:
    conditions: list[Condition] = [images.c.os_hidden == (sa.true() if query.os_hidden else sa.false())]
    for name, operator, value in query.columns:
        if isinstance(images.c[name].type, sa.Integer):
            value = sa.literal(value, sa.BigInteger)  # any number may be asked for; PostgreSQL would not cast it down
        conditions.append(OPERATORS[operator](images.c[name], value))
    for name, value in query.properties.items():
        rows = image_properties.alias()
        match = (rows.c.image_id == images.c.id) & (rows.c.name == name) & (rows.c.value == value)
        conditions.append(sa.exists().where(match, rows.c.deleted == sa.false()))
    for tag in query.tags:
        tagged = image_tags.alias()
        match = (tagged.c.image_id == images.c.id) & (tagged.c.value == tag)
        conditions.append(sa.exists().where(match, tagged.c.deleted == sa.false()))
    return conditions


_NULL_AS: dict[str, str | int] = {"name": "", "container_format": "", "disk_format": "", "size": 0}


def _key(name: str) -> sa.ColumnElement[Any]:
    """A column to sort and page by; the ones that can be NULL count as '' or 0, so that every row has its place."""
    column: sa.ColumnElement[Any] = images.c[name]
    return sa.func.coalesce(column, _NULL_AS[name]) if name in _NULL_AS else column


def _behind(marker: Image, sort: Sequence[tuple[str, bool]]) -> Condition:
    """Rows after the marker: a > x, or a = x and b > y, or …, written so that the first key stays a plain range."""
    condition: Condition = sa.false()
    for position, (name, ascending) in reversed(list(enumerate(sort))):
        value = getattr(marker, name)
        value = _NULL_AS.get(name) if value is None else value
        key = _key(name)
        beyond = key > value if ascending else key < value
        if position == len(sort) - 1:
            condition = beyond
            continue
        not_before = key >= value if ascending else key <= value
        condition = sa.and_(not_before, sa.or_(beyond, condition))
    return condition
