"""Changes to tables that can be made twice.

MySQL commits after every statement of DDL, so a command that was killed leaves a revision half done: each step looks
first, and does only what is missing.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op


def create_table(table: sa.Table) -> None:
    """Create the table with its indexes, or those of its indexes that are missing."""
    bind = op.get_bind()
    if not sa.inspect(bind).has_table(table.name):
        table.create(bind)
        return
    existing = _indexes(table.name)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        if index.name not in existing:
            index.create(bind)


def drop_table(name: str) -> None:
    """Drop the table, if it is there."""
    op.drop_table(name, if_exists=True)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Append a column that existing rows can have: nullable, or with a server default."""
    if column.name not in {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def create_index(name: str, table: str, columns: list[str]) -> None:
    """Create a plain index."""
    if name not in _indexes(table):
        op.create_index(name, table, columns)


def _indexes(table: str) -> set[str | None]:
    return {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
