"""Locks that hold on every node of a Galera cluster.

`SELECT … FOR UPDATE` locks a row on its own node only. Between nodes it counts what two transactions write: if they
write the same row, one of them starts again. Two that lock the same image, and then write rows of their own below it or
a value that is there already, would both succeed, each without having seen the other.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from glimpse.db.tables import node_reference

_KNOWN = "glimpse: in a Galera cluster"


def claim(connection: Connection, name: str) -> None:
    """Let this transaction and every other that claims that name go one after the other, on whichever nodes they are.

    Before the first read. It writes a row that is gone before anybody sees it, in a table of Glance that has a unique
    name in each row. Elsewhere than in a cluster it does nothing: there the lock of a row is enough.
    """
    if _in_cluster(connection):
        unique = node_reference.c.node_reference_url
        connection.execute(node_reference.insert().values({unique: f"glimpse:{name}"}))
        connection.execute(node_reference.delete().where(unique == f"glimpse:{name}"))


def _in_cluster(connection: Connection) -> bool:
    """Asked once for each connection to the database."""
    if connection.dialect.name != "mysql":
        return False
    known: bool | None = connection.info.get(_KNOWN)
    if known is None:
        row = connection.execute(sa.text("SHOW VARIABLES LIKE 'wsrep_on'")).first()
        known = connection.info[_KNOWN] = row is not None and row[1] == "ON"
    return known
