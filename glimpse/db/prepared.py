"""Statements for the busiest reads: compiled once, then given to the driver as they are.

What SQLAlchemy does around a statement (a cache key, typed columns, an execution context) takes more CPU time than
PyMySQL takes for one image: 370 us in two statements became 160 as one text, and 110 on the driver's own cursor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection


class Prepared:
    """A statement with named parameters, for any dialect. Values come back as the driver gives them."""

    def __init__(self, statement: sa.Select[Any]) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, dict[str, Any], Sequence[str] | None]] = {}

    def run(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Any]:
        """All rows for these parameters. Nothing but a read may be run in this way: it may be run twice."""
        text, fixed, order = self._texts.get(connection.dialect.name) or self._compile(connection)
        given: Any = {**fixed, **values}
        if order is not None:
            given = tuple(_for_sqlite(given[name]) for name in order)
        if connection.in_transaction():
            # There an error ends everything, and has to be SQLAlchemy's at once.
            return connection.exec_driver_sql(text, given).all()
        try:
            cursor = connection.connection.cursor()
            try:
                cursor.execute(text, given)
                return cursor.fetchall()
            finally:
                cursor.close()
        except connection.dialect.loaded_dbapi.Error:
            # Once more in SQLAlchemy's way, which knows what the error means, and what becomes of the connection.
            return connection.exec_driver_sql(text, given).all()

    def _compile(self, connection: Connection) -> tuple[str, dict[str, Any], Sequence[str] | None]:
        compiled: Any = self._statement.compile(dialect=connection.dialect)
        made = (compiled.string, dict(compiled.params), compiled.positiontup)
        self._texts[connection.dialect.name] = made
        return made


def _for_sqlite(value: Any) -> Any:
    # Times are text there; SQLAlchemy writes them so.
    return f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value
