"""Metadata definitions in the database: one set of queries for every kind (`domain.metadef.Kind`).

Only associations with resource types differ: their name is in another table. Everything here runs on the connection
that it is given. Names compare as the database compares them: MariaDB takes names that differ by case for the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.exc import IntegrityError

from glimpse.db import galera, pages
from glimpse.db.tables import metadata, metadef_namespaces, metadef_resource_types
from glimpse.domain.context import Context
from glimpse.domain.metadef import ASSOCIATION, NAMESPACE, PARTS, RESOURCE_TYPE, Definition, Kind, Part, Values
from glimpse.domain.schema import is_storable
from glimpse.errors import Duplicate, NotFound


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: at most `limit` items (None: all) behind the one that is called `marker`."""

    sort_key: str = "created_at"
    ascending: bool = False
    limit: int | None = None
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which namespaces are wanted: of that visibility, associated with one of these resource types. None: any."""

    visibility: str | None = None
    resource_types: Sequence[str] | None = None


def get(
    connection: Connection, kind: Kind, name: str, home: Definition | None = None, lock: bool = False
) -> Definition:
    """The one of that name, in the namespace `home` where the kind has one. `lock` holds its row to the end.

    Raises `NotFound`.
    """
    found = find(connection, kind, name, home, lock)
    if found is None:
        where = f" in namespace {home.name}" if home else ""
        raise NotFound(f"Metadata definition {kind.noun} {name[:80]} was not found{where}.")
    return found


def find(
    connection: Connection, kind: Kind, name: str, home: Definition | None = None, lock: bool = False
) -> Definition | None:
    """As `get`, but None where there is none."""
    if not is_storable(name):
        return None
    if lock and kind is NAMESPACE:
        galera.claim(connection, f"namespace {name}")
    query = _rows(kind).where(_name(kind) == name, *_of(kind, home))
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else _definition(kind, row)


def all_of(connection: Connection, kind: Kind, homes: Iterable[Definition] = ()) -> list[Definition]:
    """Every one of a kind, of these namespaces if the kind has one, in the order of the kind."""
    table = _table(kind)
    query = _rows(kind)
    if "namespace_id" in table.c:
        query = query.where(table.c.namespace_id.in_([home.id for home in homes]))
    orders: dict[str, list[Any]] = {
        "id": [_id(kind)],
        "name": [_name(kind)],
        "created_at": [table.c.created_at.desc(), _id(kind).desc()],
    }
    return _definitions(connection, kind, query.order_by(*orders[kind.order]))


def page_of(connection: Connection, kind: Kind, page: Page, home: Definition) -> list[Definition]:
    """A page of the definitions of one namespace. Raises `NotFound` for the marker."""
    return _page(connection, kind, _rows(kind).where(*_of(kind, home)), page, home)


def namespaces(connection: Connection, wanted: Filter, page: Page, context: Context) -> list[Definition]:
    """A page of the namespaces that the caller may see: their project's and the public ones. Raises `NotFound`."""
    query = _rows(NAMESPACE)
    if not context.is_admin:
        own = metadef_namespaces.c.owner == context.project_id
        query = query.where(sa.or_(metadef_namespaces.c.visibility == "public", own))
    if wanted.visibility is not None:
        query = query.where(metadef_namespaces.c.visibility == wanted.visibility)
    if wanted.resource_types is not None:
        table = _table(ASSOCIATION)
        of_type = sa.select(table.c.namespace_id).join(metadef_resource_types)
        of_type = of_type.where(metadef_resource_types.c.name.in_(wanted.resource_types))
        query = query.where(metadef_namespaces.c.id.in_(of_type))
    return _page(connection, NAMESPACE, query, page)


def insert(
    connection: Connection,
    kind: Kind,
    name: str,
    values: Values,
    created_at: datetime,
    home: Definition | None = None,
    updated_at: datetime | None = None,
) -> Definition:
    """Store a new one; the first association with a resource type makes the type. Raises `Duplicate`."""
    row = {**_row(kind, name, values), "created_at": created_at, "updated_at": updated_at}
    if home is not None:
        row["namespace_id"] = home.id
    if kind is ASSOCIATION:
        row["resource_type_id"] = _resource_type(connection, name, created_at, updated_at)
    try:
        result = connection.execute(_table(kind).insert().values(row))
    except IntegrityError as error:
        raise _duplicate(kind, name) from error
    # Of an association the first part of the key is the id of the type.
    assert result.inserted_primary_key is not None
    row_id = result.inserted_primary_key[0]
    return Definition(name, values, created_at, updated_at, row_id, home.id if home else None)


def insert_parts(
    connection: Connection, parts: Sequence[Part], home: Definition, created_at: datetime, updated_at: datetime | None
) -> list[tuple[Kind, Definition]]:
    """Store all that is in a new namespace. Raises `Duplicate`."""
    # Types in one order for everybody: transactions that make the same ones wait, but never for each other.
    for name in sorted(name for kind, name, _ in parts if kind is ASSOCIATION):
        _resource_type(connection, name, created_at, updated_at)
    return [
        (kind, insert(connection, kind, name, values, created_at, home, updated_at)) for kind, name, values in parts
    ]


def _resource_type(connection: Connection, name: str, created_at: datetime, updated_at: datetime | None) -> int:
    """The id of the type of that name, which is made when there is none."""
    found = find(connection, RESOURCE_TYPE, name)
    if found is None:
        try:
            with connection.begin_nested():
                return insert(connection, RESOURCE_TYPE, name, {"protected": False}, created_at, None, updated_at).id
        except Duplicate:
            # Somebody was faster. Only a read with a lock sees what was committed after this transaction began.
            found = get(connection, RESOURCE_TYPE, name, lock=True)
    return found.id


def update(
    connection: Connection, kind: Kind, before: Definition, name: str, values: Values, updated_at: datetime
) -> Definition:
    """Give one another name and other values. Raises `Duplicate`."""
    row = {**_row(kind, name, values), "updated_at": updated_at}
    try:
        connection.execute(_table(kind).update().where(*_is(kind, before)).values(row))
    except IntegrityError as error:
        raise _duplicate(kind, name) from error
    return Definition(name, values, before.created_at, updated_at, before.id, before.namespace_id)


def delete(connection: Connection, kind: Kind, found: Definition) -> None:
    """Remove one; a namespace goes with everything in it."""
    if kind is NAMESPACE:
        for part in PARTS:
            delete_all(connection, part, found)
    connection.execute(_table(kind).delete().where(*_is(kind, found)))


def delete_all(connection: Connection, kind: Kind, home: Definition | None = None) -> None:
    """Remove every one of a kind, of one namespace or of all."""
    connection.execute(_table(kind).delete().where(*_of(kind, home)))


# --- what the queries are made of ------------------------------------------------------------------------------------


def _table(kind: Kind) -> sa.Table:
    return metadata.tables[kind.table]


def _id(kind: Kind) -> sa.Column[Any]:
    return _table(kind).c.resource_type_id if kind is ASSOCIATION else _table(kind).c.id


def _name(kind: Kind) -> sa.Column[Any]:
    return metadef_resource_types.c.name if kind is ASSOCIATION else _table(kind).c[kind.key]


def _rows(kind: Kind) -> sa.Select[Any]:
    table = _table(kind)
    columns = [table.c[name] for name in (*kind.columns, "created_at", "updated_at")]
    if "namespace_id" in table.c:
        columns.append(table.c.namespace_id)
    rows = sa.select(_id(kind).label("id"), _name(kind).label("name"), *columns)
    return rows.select_from(table.join(metadef_resource_types)) if kind is ASSOCIATION else rows


def _row(kind: Kind, name: str, values: Values) -> dict[str, Any]:
    return kind.pack(values) | ({} if kind is ASSOCIATION else {kind.key: name})


def _of(kind: Kind, home: Definition | None) -> list[sa.ColumnElement[bool]]:
    return [] if home is None else [_table(kind).c.namespace_id == home.id]


def _is(kind: Kind, found: Definition) -> list[sa.ColumnElement[bool]]:
    of = [] if found.namespace_id is None else [_table(kind).c.namespace_id == found.namespace_id]
    return [_id(kind) == found.id, *of]


def _definitions(connection: Connection, kind: Kind, query: sa.Select[Any]) -> list[Definition]:
    return [_definition(kind, row) for row in connection.execute(query).mappings()]


def _definition(kind: Kind, row: RowMapping) -> Definition:
    return Definition(
        row["name"], kind.unpack(row), row["created_at"], row["updated_at"], row["id"], row.get("namespace_id")
    )


def _duplicate(kind: Kind, name: str) -> Duplicate:
    return Duplicate(f"A metadata definition {kind.noun} with the name {name} exists already.")


def _page(
    connection: Connection, kind: Kind, query: sa.Select[Any], page: Page, home: Definition | None = None
) -> list[Definition]:
    keys, behind = pages.sort_keys(_table(kind), page.sort_key), None
    if page.marker is not None:
        marker = get(connection, kind, page.marker, home)
        behind = connection.execute(sa.select(*keys).where(*_is(kind, marker))).one()
    return _definitions(connection, kind, pages.page(query, keys, page.ascending, page.limit, behind))
