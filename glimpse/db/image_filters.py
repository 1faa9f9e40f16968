"""Filters of image lists, and which of them to begin with.

A filter that few images pass is not waited for on a walk along an index: those images are looked up by it (`fewest`).
So each filter is there in two ways: as a condition on a row of `images`, and as the rows that lead to images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from glimpse.db import additions, image_documents
from glimpse.db.prepared import Prepared
from glimpse.db.tables import image_members, image_properties, image_tags, images

Condition = sa.ColumnElement[bool]
Sort = tuple[tuple[str, bool], ...]  # (key, ascending)

OPERATORS = {
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "in": lambda column, value: column.in_(value),
}

FEW = 3_000  # images: looking up and sorting so many costs as much as walking past all others (measured with a million)
FORMS = 512  # of queries, whose statements are kept
LARGE_FORMS = 8  # of those with more than `LARGE` values: they take megabytes each
LARGE = 32


@dataclass(frozen=True, slots=True)
class Form:
    """All of a query that its statements depend on; the values go into their parameters.

    `columns` holds (column, operator, number of values), `marker` whether each of its sort values is NULL. `indexed`:
    the added indexes are there. `only_own`: the caller's project is the owner that is asked for. `many_shared`: so many
    images are shared with it that a walk soon meets some. `few` names the filter that images are looked up by. `edge`
    tells whether the first sort key of the page's last row is NULL, once it is known.
    """

    dialect: str
    indexed: bool
    is_admin: bool
    only_own: bool
    sort: Sort
    marker: tuple[bool, ...]
    columns: tuple[tuple[str, str, int], ...]
    properties: int
    tags: int
    visibility: str | None
    any_member_status: bool
    os_hidden: bool
    many_shared: bool = False
    few: str | None = None
    edge: bool | None = None

    @property
    def first(self) -> str:
        """The first sort key."""
        return self.sort[0][0]

    @property
    def is_large(self) -> bool:
        """Whether its statements are so long that only a few of the kind are kept."""
        return sum(count for _, _, count in self.columns) + self.properties + self.tags > LARGE

    @property
    def sorts_all(self) -> bool:
        """Whether the database would sort all that there is, though an index has the first key in order.

        PostgreSQL and SQLite sort only what is equal in it.
        """
        if self.dialect != "mysql" or not self.indexed or self.few is not None or self.first not in additions.KEYS:
            return False
        names = [name for name, _ in self.sort]
        in_order = names == list(dict.fromkeys([self.first, "created_at", "id"]))
        return not in_order or len({ascending for _, ascending in self.sort}) > 1


class Kept:
    """Makes each statement once, as long as callers do not ask for ever new large ones."""

    def __init__(self, make: Callable[..., Prepared]) -> None:
        self.small, self.large = lru_cache(FORMS)(make), lru_cache(LARGE_FORMS)(make)

    def __call__(self, form: Form, *more: tuple[str, ...]) -> Prepared:
        return (self.large if form.is_large else self.small)(form, *more)


def conditions_of(form: Form) -> list[Condition]:
    """What an image has to be like to be in the list, but for the filter that it is looked up by."""
    hidden = sa.true() if form.os_hidden else sa.false()
    conditions = [images.c.deleted == sa.false(), images.c.os_hidden == hidden, images.c.status != "killed"]
    conditions += [_column_filter(form, number) for number in range(len(form.columns))]
    for name in _children(form):
        if name != form.few:
            table, is_it, _ = rows_of(form, name)
            conditions.append(belongs(sa.select(table.c.image_id).where(is_it), table.c.image_id))
    return conditions


def _column_filter(form: Form, number: int) -> Condition:
    name, how, count = form.columns[number]
    column = images.c[name]
    # Any number may be asked for; PostgreSQL would not cast it down.
    kind = sa.BigInteger() if isinstance(column.type, sa.Integer) else column.type
    values = [sa.bindparam(f"column_{number}_{index}", type_=kind) for index in range(count)]
    if not values:
        return sa.false()
    condition: Condition = OPERATORS[how](column, values if how == "in" else values[0])
    return condition


def _children(form: Form) -> list[str]:
    return [f"property_{n}" for n in range(form.properties)] + [f"tag_{n}" for n in range(form.tags)]


# Indexes of Glance that lead to images by one column.
GLANCES = {
    "id": "PRIMARY",
    "checksum": "checksum_image_idx",
    "os_hash_value": "os_hash_value_image_idx",
    "updated_at": "updated_at_image_idx",
}


def rows_of(form: Form, name: str) -> tuple[sa.FromClause, Condition, str]:
    """Where a filter finds its images: the table, the condition, and the index for MySQL."""
    kind, _, number = name.partition("_")
    if kind == "column":
        column = form.columns[int(number)][0]
        return images, _column_filter(form, int(number)), GLANCES.get(column) or additions.list_index(None, column)
    if kind == "tag":
        tags = image_tags.alias(name)
        is_it = sa.and_(tags.c.value == sa.bindparam(name, type_=sa.String), tags.c.deleted == sa.false())
        return tags, is_it, "image_tags_list_value"
    rows = image_properties.alias(name)
    value: Any = sa.bindparam(f"{name}_value", type_=sa.Text)
    label = sa.bindparam(f"{name}_name", type_=sa.String)
    is_it = sa.and_(rows.c.name == label, rows.c.value == value)
    if form.dialect == "mysql":
        # Else another spelling of the name would find a property that the caller may not read.
        is_it = sa.and_(is_it, sa.cast(rows.c.name, sa.LargeBinary) == sa.cast(label, sa.LargeBinary))
    if form.dialect == "postgresql":
        start = sa.func.left(rows.c.value, additions.VALUE_PREFIX)
        is_it = sa.and_(is_it, start == sa.func.left(value, additions.VALUE_PREFIX))
    return rows, sa.and_(is_it, rows.c.deleted == sa.false()), "image_properties_list_value"


MOST_COUNTED = 8  # filters


def fewest(connection: Connection, form: Form, values: Mapping[str, Any]) -> str | None:
    """The filter that fewest images pass, if they are few enough to begin with them."""
    doubtful = _children(form)
    for number, (name, how, _) in enumerate(form.columns):
        if name in ("id", "checksum", "os_hash_value"):
            return f"column_{number}"
        # A walk along the column itself begins at the right place anyway.
        if name in ("name", "size", "created_at", "updated_at") and how != "neq" and name != form.first:
            doubtful.append(f"column_{number}")
    if not doubtful:
        return None
    doubtful = doubtful[:MOST_COUNTED]
    [counts] = _count(form, tuple(doubtful)).run(connection, values)
    count, name = min(zip(counts, doubtful, strict=True))
    return name if count <= FEW else None


@Kept
def _count(form: Form, names: tuple[str, ...]) -> Prepared:
    """How many rows each of the filters finds, but counted to no more than one too many."""
    counts = []
    for name in names:
        table, is_it, index = rows_of(form, name)
        rows: sa.Select[Any] = (
            sa.select(sa.literal_column("1").label("one")).select_from(table).where(is_it).limit(FEW + 1)
        )
        if table is images:
            hidden = sa.true() if form.os_hidden else sa.false()
            rows = rows.where(images.c.deleted == sa.false(), images.c.os_hidden == hidden)
        rows = rows.with_hint(table, f"FORCE INDEX ({index})", "mysql")
        counts.append(sa.select(sa.func.count()).select_from(rows.subquery()).scalar_subquery())
    return Prepared(sa.select(*counts))


REMEMBERED = 60.0  # seconds
_sharing: dict[str, tuple[bool, float]] = {}  # by project; what is long past only makes a list slower
_COUNT_SHARED = Prepared(
    sa.select(sa.func.count()).select_from(
        sa.select(image_members.c.id)
        .where(image_members.c.member == image_documents.PROJECT, image_members.c.deleted == sa.false())
        .limit(FEW + 1)
        .subquery()
    )
)


def has_many_shared(connection: Connection, project: str | None) -> bool:
    """Whether more images are shared with the project than are quickly looked up and sorted."""
    if project is None:
        return False
    many, looked = _sharing.get(project, (False, -REMEMBERED))
    if time.monotonic() - looked >= REMEMBERED:
        many = _COUNT_SHARED.run(connection, {"project": project})[0][0] > FEW
        if len(_sharing) >= 10_000:
            _sharing.clear()
        _sharing[project] = many, time.monotonic()
    return many


def memberships(form: Form) -> sa.Select[Any]:
    members = image_members.c
    rows = sa.select(members.image_id).where(members.member == image_documents.PROJECT, members.deleted == sa.false())
    if form.any_member_status:
        return rows
    return rows.where(members.status == sa.bindparam("member_status", type_=sa.String))


def belongs(rows: sa.Select[Any], image_id: sa.ColumnElement[str]) -> Condition:
    """Whether some of these rows belong to the image. Not EXISTS: MariaDB would feel free to begin with their table."""
    counted = rows.with_only_columns(sa.func.count()).where(image_id == images.c.id)
    return counted.correlate(images).scalar_subquery() > 0
