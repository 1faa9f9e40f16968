"""What Glimpse adds beside Glance's tables, in places where Glance does not notice it.

`quota_turns` has a row for each project that ever reserved something. Whoever reserves counts its `turn` up first: the
row's lock, and on Galera the conflict at certification, let the reservations of one project go one after the other.

`quota_reservations` has a row for each running upload: the bytes that its image (`image_id`) may fill, and the project
they are counted for. It goes in the transaction that ends the upload.

A database that Glance synced lacks all this; `complete` may be called at any time.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateTable

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
