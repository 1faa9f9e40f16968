"""What Glimpse adds beside Glance's tables, in places where Glance does not notice it.

`quota_turns` has a row for each project that ever reserved something. Whoever reserves counts its `turn` up first: the
row's lock, and on Galera the conflict at certification, let the reservations of one project go one after the other.

`quota_reservations` has a row for each running upload: the bytes that its image (`image_id`) may fill, and the project
they are counted for. It goes in the transaction that ends the upload.

Indexes that lists walk: one for each scope (all images, those of one owner, those of one visibility) and each of the
keys `created_at`, `name` and `size`. Both marks that every list filters by stand in front, the rest of the order behind
the key, and at the end what else lists ask of each row they pass, so that a walk reads the index alone. Three more lead
from a property's value, a tag and a member to images. Lists work without them, but read far more rows.

A database that Glance synced lacks all this; `complete` and `build_indexes` may be called at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from glimpse.db import tables

# As Glance's tables have it (see `tables`), so that ids compare without conversion.
_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8"}

metadata = sa.MetaData()

quota_turns = sa.Table(
    "quota_turns",
    metadata,
    sa.Column("project_id", sa.String(255), primary_key=True),
    sa.Column("turn", sa.BigInteger, nullable=False),
    **_MYSQL,
)

quota_reservations = sa.Table(
    "quota_reservations",
    metadata,
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    **_MYSQL,
)


def complete(connection: Connection) -> list[str]:
    """Add what is missing, in the transaction of `connection`. Returns the names of what was added."""
    there = set(sa.inspect(connection).get_table_names())
    added = []
    for table in metadata.sorted_tables:
        if table.name not in there:
            # Somebody else may be doing the same at this moment.
            connection.execute(CreateTable(table, if_not_exists=True))
            added.append(table.name)
    return added


SCOPES = (None, "owner", "visibility")
KEYS = ("created_at", "name", "size")
VALUE_PREFIX = 64  # characters of a property's value in its index; a whole one is more than an index holds


def list_index(scope: str | None, key: str) -> str:
    """The name of the index for a walk over a scope in the order of a key."""
    return "images_list_" + "_".join(filter(None, [scope, key]))


def indexes(dialect: str) -> list[sa.Index]:
    """Every added index, as that database wants it; on copies of the tables, whose own indexes are Glance's."""
    ours = sa.MetaData()
    images, properties, tags, members = (
        table.to_metadata(ours)
        for table in (tables.images, tables.image_properties, tables.image_tags, tables.image_members)
    )
    value: Any = properties.c.value
    if dialect == "postgresql":
        value = sa.func.left(value, VALUE_PREFIX)
    return [
        *(sa.Index(list_index(scope, key), *_walk(images, scope, key, dialect)) for scope in SCOPES for key in KEYS),
        sa.Index(
            "image_properties_list_value", properties.c.name, value, properties.c.deleted, properties.c.image_id,
            mysql_length={"value": VALUE_PREFIX}, _table=properties,
        ),
        sa.Index("image_tags_list_value", tags.c.value, tags.c.deleted, tags.c.image_id),
        sa.Index(
            "image_members_list_member", members.c.member, members.c.deleted, members.c.status, members.c.image_id
        ),
    ]  # fmt: skip


def _walk(images: sa.Table, scope: str | None, key: str, dialect: str) -> list[sa.ColumnElement[Any]]:
    names = dict.fromkeys(
        name
        for name in ("deleted", "os_hidden", scope, key, "created_at", "id", "status", "visibility", "owner")
        if name
    )
    columns: dict[str, sa.ColumnElement[Any]] = {name: images.c[name] for name in names}
    if dialect == "postgresql" and images.c[key].nullable:
        # The others have NULL in front of everything by themselves.
        columns[key] = columns[key].asc().nulls_first()
    return list(columns.values())


def missing_indexes(connection: Connection) -> list[sa.Index]:
    """The added indexes that the database does not have."""
    inspector = sa.inspect(connection)
    wanted = indexes(connection.dialect.name)
    there: set[str | None] = set()
    for name in {index.table.name for index in wanted if index.table is not None}:
        there |= {found["name"] for found in inspector.get_indexes(name)}
    if connection.dialect.name == "postgresql":
        there -= set(connection.scalars(sa.text(_BROKEN)))
    return [index for index in wanted if index.name not in there]


LOOK_AGAIN = 60.0  # seconds until a database without the indexes is looked at once more
_known: WeakKeyDictionary[Engine, tuple[bool, float]] = WeakKeyDictionary()


def has_indexes(connection: Connection) -> bool:
    """Whether all added indexes are there. The answer is remembered for the process."""
    complete, looked = _known.get(connection.engine, (False, -LOOK_AGAIN))
    if not complete and time.monotonic() - looked >= LOOK_AGAIN:
        complete = not missing_indexes(connection)
        _known[connection.engine] = complete, time.monotonic()
    return complete


def look_again(connection: Connection) -> None:
    """Forget that the indexes were there."""
    _known.pop(connection.engine, None)


def is_about_missing_index(error: DBAPIError) -> bool:
    """Whether a statement named an index that MySQL does not have (any more)."""
    return error.orig is not None and error.orig.args[:1] == (1176,)


# What is left of a CREATE INDEX CONCURRENTLY that was interrupted: it costs, and serves nobody.
_BROKEN = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE NOT i.indisvalid AND c.relname LIKE 'image%_list_%'"
)


def build_indexes(connection: Connection, missing: list[sa.Index], failed: Callable[[str, DBAPIError], None]) -> int:
    """Build indexes while others read and write, on a connection in autocommit. Returns how many there are now.

    MySQL, MariaDB and PostgreSQL let writers go on meanwhile. One that cannot be built is reported to `failed`: the
    service works without it.
    """
    built = 0
    for index in missing:
        try:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text(f"DROP INDEX IF EXISTS {index.name}"))
                index.dialect_options["postgresql"]["concurrently"] = True
            index.create(connection)
            built += 1
        except DBAPIError as error:
            failed(str(index.name), error)
    return built
