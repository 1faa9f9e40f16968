"""Connections: one engine to read with (autocommit, one statement at a time), one for transactions.

A plain read costs no BEGIN and no ROLLBACK. A transaction is a function of a connection, so that it can be run again
when the database gave up on it (deadlock, Galera certification, a connection that died before the commit).
Translates the driver's failures into `errors.Unavailable` and `errors.Conflict`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.engine import Connection as Connection  # what floors above call the thing that they hand around
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from glimpse.db import sealing
from glimpse.errors import Conflict, SettingsError, Unavailable
from glimpse.settings import DatabaseSettings

LOG = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

CONNECT_TIMEOUT = 10
QUERY_TIMEOUT = 60  # seconds; without it a hung database would hold every record thread for ever
LOCK_TIMEOUT = 30  # seconds that SQLite waits for another process's transaction
LOCK_WAIT = 5  # seconds that a statement waits for a row that another transaction holds
RETRY_FOR = 15.0  # seconds to run a transaction again when the database chose it as the victim

UNREADABLE_URL = (
    "[database] connection: cannot be read as a URL; characters such as @ : / # in a password are"
    " written as %40 %3A %2F %23"
)

# What the servers say when a transaction lost and may simply be run again.
# 1205 lock wait timeout, 1213 deadlock or Galera certification, 1020 row changed (snapshot), 1305 a savepoint that is
# gone with its transaction: what SQLAlchemy meets in place of the deadlock when it wants to go back to the savepoint.
_MYSQL_RETRY = {1205, 1213, 1020, 1305}
_POSTGRESQL_RETRY = {"40001", "40P01", "55P03"}  # serialization failure, deadlock, lock not available


class Database:
    """The database of one process, and the few threads that work on records. Not to be carried across a fork."""

    def __init__(self, settings: DatabaseSettings, threads: int) -> None:
        self._reader = open_engine(settings, autocommit=True)
        self._writer = open_engine(settings)
        self._threads = ThreadPoolExecutor(threads, "records")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Work on records away from the event loop. A call that has begun is finished, also for a cancelled task."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for single statements. Prefer `read`, which survives a connection that went stale."""
        with translated(), self._reader.connect() as connection:
            yield connection

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run `query` outside a transaction; once more when the pooled connection turns out to be dead.

        Raises `Unavailable` when the database does not answer.
        """
        try:
            with self._reader.connect() as connection:
                return query(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise _translate(error) from error
        except SQLAlchemyError as error:
            raise _translate(error) from error
        with self.reading() as connection:
            return query(connection)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and commit; again from the start when the database aborted it.

        `work` must have no effect but on its connection. Raises `Unavailable` when the database does not answer, and
        also when it vanished during the commit itself, which may or may not have happened then.
        """
        deadline = time.monotonic() + RETRY_FOR
        for attempt in itertools.count():
            committing = False
            try:
                with self._writer.connect() as connection, connection.begin() as transaction:
                    result = work(connection)
                    committing = True
                    transaction.commit()
                    return result
            except DBAPIError as error:
                if not _may_retry(error, committing) or time.monotonic() > deadline:
                    raise _translate(error) from error
                LOG.debug("transaction runs again, attempt %d: %s", attempt + 2, type(error.orig).__name__)
                # Spread out, so that contenders do not meet again; no secret.
                time.sleep(random.uniform(0, min(0.5, 0.01 * 2**attempt)))  # noqa: S311
            except SQLAlchemyError as error:
                raise _translate(error) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Finish what runs and close every connection (at the end of a process)."""
        self._threads.shutdown()
        self._reader.dispose()
        self._writer.dispose()


def open_engine(settings: DatabaseSettings, autocommit: bool = False) -> Engine:
    """An engine with the session settings that every connection of the service has; it connects on first use.

    Raises `SettingsError` for a URL that cannot be read.
    """
    try:
        return _create(sa.make_url(settings.url), settings, autocommit)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise SettingsError(UNREADABLE_URL) from error


def _create(url: URL, settings: DatabaseSettings, autocommit: bool) -> Engine:
    options: dict[str, Any] = {"pool_recycle": settings.recycle, "connect_args": _connect_args(url, settings)}
    if settings.location_key:
        options["execution_options"] = {sealing.KEY: settings.location_key.encode()}
    if autocommit:
        options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        if not autocommit:
            event.listen(engine, "begin", _begin_immediate)
        return engine
    options |= {
        "pool_size": settings.max_pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
    }
    return sa.create_engine(url, **options)


def _connect_args(url: URL, settings: DatabaseSettings) -> dict[str, Any]:
    match url.get_backend_name():
        case "mysql":
            session = [f"innodb_lock_wait_timeout={LOCK_WAIT}"]
            if settings.mysql_sql_mode:
                session.append(f"sql_mode='{settings.mysql_sql_mode}'")
            if settings.mysql_wsrep_sync_wait is not None:
                session.append(f"wsrep_sync_wait={settings.mysql_wsrep_sync_wait}")
            timeouts = {
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": QUERY_TIMEOUT,
                "write_timeout": QUERY_TIMEOUT,
            }
            charset = {} if "charset" in url.query else {"charset": "utf8mb4"}
            return timeouts | charset | {"init_command": f"SET {', '.join(session)}"}
        case "postgresql":
            own = str(url.query.get("options", ""))
            # A plan for any values does not know that a page is short, and would sort all images.
            limits = (
                f"-c statement_timeout={QUERY_TIMEOUT * 1000} -c lock_timeout={LOCK_WAIT * 1000}"
                " -c plan_cache_mode=force_custom_plan"
            )
            return {"connect_timeout": CONNECT_TIMEOUT, "options": f"{limits} {own}".strip()}
        case _:
            return {"timeout": LOCK_TIMEOUT}


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    # Readers and one writer side by side; the driver must not open transactions on its own.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    # Taking the write lock at once: a read lock that is upgraded later fails at once under contention.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's failures into `Unavailable` (the database is away) or let programming errors pass."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _translate(error) from error


def _translate(error: SQLAlchemyError) -> Exception:
    if isinstance(error, sa.exc.IntegrityError):
        # MariaDB takes names that differ only by case for the same; nothing else of ours reaches this point.
        return Conflict("The change collides with what is stored: do two names differ only by case?")
    if not _server_is_away(error):
        return error
    LOG.error("database: %s", _reason(error))
    if _lacks_tables(error):
        LOG.error("the database has no tables, or not all of them: run glance-manage db_sync")
    return Unavailable("The database does not answer; try again in a moment.", {"Retry-After": "5"})


def _lacks_tables(error: SQLAlchemyError) -> bool:
    original: Any = getattr(error, "orig", None)
    code = original.args[0] if original is not None and original.args else None
    return code == 1146 or getattr(original, "sqlstate", None) == "42P01" or "no such table" in str(original)


def _reason(error: SQLAlchemyError) -> str:
    """The driver's own words, without the statement and its values."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _server_is_away(error: SQLAlchemyError) -> bool:
    # Integrity errors and the like are for the caller; operational ones say that no answer can be had now.
    if isinstance(error, DBAPIError) and (error.connection_invalidated or _lacks_tables(error)):
        return True
    return isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError))


def _may_retry(error: DBAPIError, committing: bool) -> bool:
    if error.connection_invalidated:
        return not committing
    original: Any = error.orig
    code = original.args[0] if original is not None and original.args else None
    state = getattr(original, "sqlstate", None)
    return code in _MYSQL_RETRY or state in _POSTGRESQL_RETRY or "database is locked" in str(original)
