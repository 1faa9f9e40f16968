"""Pages of small lists: rows are compared with the sort values of the marker, so none is lost or shown twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa


def sort_keys(table: sa.Table, first: str) -> list[sa.ColumnElement[Any]]:
    """The columns to sort by, with created_at and id behind the one that is asked for.

    Those that can be NULL count as empty, and times as created_at: databases differ in where NULL stands.
    """
    names = dict.fromkeys(("created_at", "id") if first == "id" else (first, "created_at", "id"))
    return [_never_null(table, table.c[name]) for name in names]


def page(
    query: sa.Select[Any], keys: Sequence[sa.ColumnElement[Any]], ascending: bool, limit: int | None, behind: Any = None
) -> sa.Select[Any]:
    """The query for one page. `behind` has the marker's values of the keys, None for the first page."""
    if behind is not None:
        row = sa.tuple_(*keys)
        query = query.where(row > tuple(behind) if ascending else row < tuple(behind))
    return query.order_by(*(key.asc() if ascending else key.desc() for key in keys)).limit(limit)


def _never_null(table: sa.Table, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    if not column.nullable:
        return column
    if isinstance(column.type, sa.DateTime):
        return sa.func.coalesce(column, table.c.created_at)
    return sa.func.coalesce(column, sa.false() if isinstance(column.type, sa.Boolean) else "")
