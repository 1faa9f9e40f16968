"""Statements for the busiest reads: compiled once, then run by their text.

`Connection.execute` of a statement object makes a cache key, looks it up and sets up typed columns each time. For the
read of one image that was two thirds of all CPU time between the request and the driver (measured with PyMySQL).
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
        """All rows for these parameters."""
        text, fixed, order = self._texts.get(connection.dialect.name) or self._compile(connection)
        given = {**fixed, **values}
        if order is None:
            return connection.exec_driver_sql(text, given).all()
        return connection.exec_driver_sql(text, tuple(_for_sqlite(given[name]) for name in order)).all()

    def text(self, connection: Connection) -> str:
        """The statement as the driver gets it, with its placeholders."""
        return (self._texts.get(connection.dialect.name) or self._compile(connection))[0]

    def _compile(self, connection: Connection) -> tuple[str, dict[str, Any], Sequence[str] | None]:
        compiled: Any = self._statement.compile(dialect=connection.dialect)
        made = (compiled.string, dict(compiled.params), compiled.positiontup)
        self._texts[connection.dialect.name] = made
        return made


def _for_sqlite(value: Any) -> Any:
    # Times are text there; SQLAlchemy writes them so.
    return f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value
