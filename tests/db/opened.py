"""A database with all tables, open as the service opens it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from glimpse.db.engine import Database
from glimpse.db.schema import Schema
from glimpse.settings import DatabaseSettings


@contextmanager
def opened(settings: DatabaseSettings, threads: int) -> Iterator[Database]:
    """Synchronised, open with so many record threads, and closed at the end."""
    schema = Schema(settings, lambda line: None)
    schema.sync()
    schema.close()
    database = Database(settings, threads)
    yield database
    database.close()
