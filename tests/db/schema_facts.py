"""What a database looks like from outside, one fact a line, to compare databases that different programs made.

`glance_mysql.txt`, `glance_postgresql.txt` and `glance_sqlite.txt` hold the facts of databases that `glance-manage
db_sync` of Glance 2026.2 made (MariaDB 10.11, PostgreSQL 15, SQLite 3.40). To write them anew, let Glance make a
database and run `python -m tests.db.schema_facts URL > FILE`. `added_mysql.txt` and so on hold what Glimpse adds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Inspector

VERSION_TABLE = "alembic_version"


def glance_facts(dialect: str) -> list[str]:
    """The facts of Glance's database: `mysql`, `postgresql` or `sqlite`."""
    return Path(__file__).with_name(f"glance_{dialect}.txt").read_text().splitlines()


def added_facts(dialect: str) -> list[str]:
    """The facts of what Glimpse adds to it (`glimpse.db.additions`)."""
    return Path(__file__).with_name(f"added_{dialect}.txt").read_text().splitlines()


def facts(connection: Connection) -> list[str]:
    """Every table, column, default, key, index and check, sorted; names of checks and keys vary and are left out."""
    inspector = sa.inspect(connection)
    lines: list[str] = []
    for table in inspector.get_table_names():
        lines += [f"{table} {fact}" for fact in _table_facts(connection, inspector, table)]
    if connection.dialect.name == "postgresql":
        for enum in inspector.get_enums():
            lines.append(f"enum {enum['name']} {','.join(enum['labels'])}")
    return sorted(lines)


def _table_facts(connection: Connection, inspector: Inspector, table: str) -> list[str]:
    lines: list[str] = []
    for column in inspector.get_columns(table):
        kind = column["type"].compile(connection.dialect)
        null = "null" if column["nullable"] else "not null"
        default = "" if column["default"] is None else f" default {column['default']}"
        numbered = " numbered" if column.get("autoincrement") is True else ""
        lines.append(f"column {column['name']} {kind} {null}{default}{numbered}")
    lines.append(f"primary key {_names(inspector.get_pk_constraint(table)['constrained_columns'])}")
    for key in inspector.get_foreign_keys(table):
        target = f"{key['referred_table']} {_names(key['referred_columns'])}"
        lines.append(f"foreign key {_names(key['constrained_columns'])} of {target}")
    for index in inspector.get_indexes(table):
        unique = "unique " if index["unique"] else ""
        lines.append(f"{unique}index {index['name']} {_names(index['column_names'])}")
    lines += [f"unique {key['name']} {_names(key['column_names'])}" for key in inspector.get_unique_constraints(table)]
    lines += [
        f"check {check['sqltext'].replace('`', '').lower().replace(', ', ',')}"
        for check in inspector.get_check_constraints(table)
    ]
    if connection.dialect.name == "mysql" and table != VERSION_TABLE:  # that one has the server's default
        options = inspector.get_table_options(table)
        charset = str(options["mysql_default charset"]).replace("utf8mb3", "utf8")
        lines.append(f"engine {options['mysql_engine']} charset {charset}")
    return lines


def _names(columns: list[str] | list[str | None]) -> str:
    return "(" + ",".join(str(column) for column in columns) + ")"


if __name__ == "__main__":
    with sa.create_engine(sys.argv[1]).connect() as opened:
        print("\n".join(facts(opened)))
