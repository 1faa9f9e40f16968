"""The schema of one database: the revision it is at, and the way from there to the head.

The revisions (`glimpse.migrations`) carry the names of Glance's, so a database that Glance made is recognised by its
`alembic_version` and one that was made here by Glance. Two branches: `expand` only adds, what runs the older release
does not mind; then data moves; `contract` removes.

Only one command at a time changes a database; others wait for it. On PostgreSQL and SQLite the whole way is one
transaction. MySQL commits as it goes, there every step can be taken again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from glimpse.db import additions
from glimpse.db.engine import UNREADABLE_URL, open_engine
from glimpse.db.tables import image_locations
from glimpse.errors import SettingsError
from glimpse.settings import DatabaseSettings

Phase = Literal["expand", "migrate", "contract"]

# What Ocata and Pike wrote before there were two branches.
_OLD_NAMES = {"ocata01": "ocata_contract01", "pike01": "pike_contract01"}
# Past this revision, `backend` in the metadata of a location is not ours to rename.
_LOCATIONS_MOVED = "train_contract01"
_LOCK_NAME = "glance schema"
_LOCK_KEY = 0x676C616E6365  # the same for PostgreSQL, which wants a number
_LOCK_WAIT = 3600  # seconds; nobody migrates for longer


class SchemaError(Exception):
    """A database that cannot be brought to the head, or cannot be used; one line for the operator."""


class Schema:
    """The schema of the database in `settings`. `tell` gets a line whenever a step is done.

    Every method raises `SchemaError` when the database refuses, is away, or is not one that can be worked on.
    """

    def __init__(self, settings: DatabaseSettings, tell: Callable[[str], None]) -> None:
        """Connects on first use. Raises `SettingsError` when the URL cannot be read."""
        try:
            self._url = sa.make_url(settings.url)
            self._reader = open_engine(settings, autocommit=True)
            self._writer = open_engine(settings)
        except (ArgumentError, ValueError) as error:
            # Its text may quote the URL, and with it the password.
            raise SettingsError(UNREADABLE_URL) from error
        if self._url.get_backend_name() != "sqlite":
            if "@" in f"{self._url.host}{self._url.database}":
                raise SettingsError(UNREADABLE_URL)
            if not self._url.database:
                raise SettingsError(f"[database] connection: {self.name} names no database, such as …/glance")
        event.listen(self._writer, "do_connect", _without_time_limit)
        self._tell = tell
        self._config = Config()
        self._config.set_main_option("script_location", "glimpse:migrations")
        self._config.set_main_option("path_separator", "os")
        self._script = ScriptDirectory.from_config(self._config)

    @property
    def name(self) -> str:
        """The database for messages: its URL without password and parameters."""
        return self._url.set(query={}).render_as_string(hide_password=True)

    def close(self) -> None:
        """Close the connections."""
        self._reader.dispose()
        self._writer.dispose()

    def reach(self) -> str | None:
        """Try to connect. Returns why there is no answer yet, None when there is one.

        Raises `SchemaError` when waiting would not help: wrong password, no such database, no permission.
        """
        try:
            with self._reader.connect() as connection:
                connection.execute(sa.select(sa.literal(1)))
        except (OperationalError, InterfaceError) as error:
            reason = self._words(error)
            if _is_final(error, reason):
                raise SchemaError(f"{self.name} cannot be used: {reason}") from error
            return reason
        except Exception as error:  # a driver raises what it likes about parameters of the URL: TypeError, OSError …
            raise SchemaError(f"{self.name} cannot be used: {self._words(error)}") from error
        return None

    def revisions(self) -> tuple[str, ...]:
        """The heads that the database is at; nothing when it is empty or not under version control."""
        with self._one_line(), self._reader.connect() as connection:
            return _heads(connection)

    def head(self, branch: Literal["expand", "contract"]) -> str:
        """The newest revision of a branch."""
        return self._script.get_revision(f"{branch}@head").revision

    def next_phase(self) -> Phase | None:
        """What has to be done next, None at the head."""
        with self._one_line(), self._reader.connect() as connection:
            return self._next_phase(connection)

    def sync(self) -> bool:
        """Bring the database to the head, from wherever it is. Returns False when it was there already."""
        with self._locked() as connection:
            changed = self._next_phase(connection) is not None
            if changed:
                self._upgrade(connection, self.head("expand"))
                self._move_locations(connection)
                self._upgrade(connection, self.head("contract"))
            changed |= self._add_ours(connection)
        return self._add_indexes() or changed

    def expand(self) -> bool:
        """Add what the new release needs. Returns False when there was nothing to add."""
        with self._locked() as connection:
            changed = self._next_phase(connection) == "expand"
            if changed:
                self._upgrade(connection, self.head("expand"))
            changed |= self._add_ours(connection)
        return self._add_indexes() or changed

    def migrate(self) -> int:
        """Move data to where the new release looks for it, after `expand`. Returns the number of changed rows."""
        with self._locked() as connection:
            if self._next_phase(connection) == "expand":
                raise SchemaError("the database is not expanded yet: run glance-manage db expand first")
            return self._move_locations(connection)

    def contract(self) -> bool:
        """Remove what only the old release needed, after `expand` and `migrate`. Returns False at the head."""
        with self._locked() as connection:
            phase = self._next_phase(connection)
            if phase is None:
                return False
            if phase != "contract":
                raise SchemaError(f"the database is not ready to contract: run glance-manage db {phase} first")
            self._upgrade(connection, self.head("contract"))
            return True

    def upgrade(self, target: str) -> tuple[str, ...]:
        """Walk to `target` (a revision, `heads`, `expand@head` …). Returns the heads afterwards."""
        with self._locked() as connection:
            self._upgrade(connection, target)
            return _heads(connection)

    def stamp(self, target: str) -> None:
        """Record that the database is at `target`, and change nothing else."""
        with self._locked() as connection:
            command.stamp(self._on(connection), target)

    def _upgrade(self, connection: Connection, target: str) -> None:
        _refuse_ancient(connection)
        before = _heads(connection)
        self._applied(before)
        command.upgrade(self._on(connection), target)
        after = _heads(connection)
        if after != before:
            self._tell(f"Database upgraded from {_list(before)} to {_list(after)}.")

    def _add_ours(self, connection: Connection) -> bool:
        added = additions.complete(connection)
        if added:
            self._tell(f"Added beside Glance's tables: {_list(tuple(added))}.")
        return bool(added)

    def _add_indexes(self) -> bool:
        """Build the indexes that lists walk, last and outside of any transaction: others read and write meanwhile."""
        with self._one_line(), self._alone() as connection:
            missing = additions.missing_indexes(connection)
            if not missing:
                return False
            self._tell(f"Building {len(missing)} indexes for lists of images: minutes, if there are a million of them.")
            built = additions.build_indexes(connection, missing, self._tell_failure)
            self._tell(f"Indexes built: {built}.")
            return built > 0

    def _tell_failure(self, name: str, error: DBAPIError) -> None:
        self._tell(f"Index {name} cannot be built ({self._words(error)}); lists work without it, but read more.")

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A connection without transactions, on which no other command works at the same time."""
        with self._writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # The lock is the session's, and so is the missing time limit.
            connection.detach()
            match self._url.get_backend_name():
                case "mysql":
                    self._lock_mysql(connection)
                case "postgresql":
                    connection.execute(sa.text("SET statement_timeout = 0"))
                    connection.execute(sa.text("SET lock_timeout = 0"))
                    self._lock_session(connection)
                case _:
                    pass  # BEGIN IMMEDIATE
            yield connection
            connection.commit()

    def _on(self, connection: Connection) -> Config:
        # The place where Alembic's own commands hand a connection to env.py.
        self._config.attributes["connection"] = connection
        return self._config

    def _next_phase(self, connection: Connection) -> Phase | None:
        _refuse_ancient(connection)
        applied = self._applied(_heads(connection))
        if self.head("contract") in applied:
            return None
        if self.head("expand") not in applied:
            return "expand"
        return "migrate" if self._locations_to_move(connection, applied) else "contract"

    def _applied(self, heads: tuple[str, ...]) -> set[str]:
        """Every revision that a database at `heads` has gone through."""
        applied: set[str] = set()
        todo = list(heads)
        while todo:
            name = todo.pop()
            if name in applied:
                continue
            try:
                script = self._script.get_revision(name)
            except CommandError as error:
                raise SchemaError(
                    f"{self.name} is at revision {name!r}, which this release does not know; a newer release of"
                    " Glance or Glimpse made it"
                ) from error
            applied.add(name)
            todo += [*_names(script.down_revision), *_names(script.dependencies)]
        return applied

    def _locations_to_move(self, connection: Connection, applied: set[str]) -> list[dict[str, Any]]:
        """Locations with the store under the key that it had before Train, as parameters of an UPDATE."""
        if _LOCATIONS_MOVED in applied:
            return []
        suspects = sa.select(image_locations.c.id, image_locations.c.meta_data).where(
            image_locations.c.meta_data.contains('"backend"')
        )
        rows = []
        for row_id, text in connection.execute(suspects):
            moved = _with_store(text)
            if moved is not None:
                rows.append({"row_id": row_id, "moved": moved})
        return rows

    def _move_locations(self, connection: Connection) -> int:
        rows = self._locations_to_move(connection, self._applied(_heads(connection)))
        if rows:
            change = sa.update(image_locations).where(image_locations.c.id == sa.bindparam("row_id"))
            connection.execute(change.values(meta_data=sa.bindparam("moved")), rows)
            self._tell(f'Metadata of locations with "backend" renamed to "store": {len(rows)}.')
        return len(rows)

    @contextmanager
    def _locked(self) -> Iterator[Connection]:
        """A connection that alone may change the schema; commits at the end."""
        with self._one_line(), self._writer.connect() as connection:
            match self._url.get_backend_name():
                case "mysql":
                    # The lock is the session's, which ends with this connection instead of going to the pool.
                    connection.detach()
                    self._lock_mysql(connection)
                case "postgresql":
                    self._lock_postgresql(connection)
                case _:
                    pass  # the transaction itself is the lock, see engine: BEGIN IMMEDIATE
            _rename_old(connection)
            yield connection
            connection.commit()

    def _lock_mysql(self, connection: Connection) -> None:
        name = f"{_LOCK_NAME} {self._url.database}"[:64]
        try:
            free = connection.scalar(sa.select(sa.func.get_lock(name, 0)))
        except DBAPIError as error:
            if _code(error) != _NO_LOCKS:
                raise
            self._tell("This cluster has no locks; see to it that no other command changes the database now.")
            return
        if free != 1:
            self._tell("Another command changes this database; waiting for it.")
            if connection.scalar(sa.select(sa.func.get_lock(name, _LOCK_WAIT))) != 1:
                raise SchemaError(f"another command has been changing {self.name} for an hour; nothing was done")
        connection.commit()  # what is read from here on is what the other command left

    def _lock_postgresql(self, connection: Connection) -> None:
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        if not connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK_KEY))):
            self._tell("Another command changes this database; waiting for it.")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))

    def _lock_session(self, connection: Connection) -> None:
        # Asked again and again: building an index on PostgreSQL waits for every statement that runs already, so one
        # that waits for the lock would wait for ever. For the same reason it is not the lock of the transactions.
        deadline = time.monotonic() + _LOCK_WAIT
        told = False
        while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK_KEY + 1))):
            if time.monotonic() > deadline:
                raise SchemaError(f"another command has been building indexes in {self.name} for an hour")
            if not told:
                self._tell("Another command builds indexes in this database; waiting for it.")
            told = True
            time.sleep(0.2)

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Turn failures of the database and of Alembic into `SchemaError`."""
        try:
            yield
        except (SQLAlchemyError, CommandError) as error:
            raise SchemaError(f"{self.name}: {self._words(error)}") from error

    def _words(self, error: Exception) -> str:
        """What the driver says, in one line, without the statement, its values and the password."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        words = cause.args[1:] if len(cause.args) > 1 and isinstance(cause.args[0], int) else cause.args
        text = " ".join(" ".join(map(str, words)).split()) or type(cause).__name__
        password = str(self._url.password or "")
        shown = {"", self._url.username, self._url.host, self._url.database}
        for secret in {password, quote(password), quote_plus(password)} - shown:
            text = text.replace(secret, "***")
        return text


def _heads(connection: Connection) -> tuple[str, ...]:
    found = MigrationContext.configure(connection).get_current_heads()
    return tuple(sorted(_OLD_NAMES.get(name, name) for name in found))


def _rename_old(connection: Connection) -> None:
    found = set(MigrationContext.configure(connection).get_current_heads())
    version = sa.table("alembic_version", sa.column("version_num"))
    for old in found & set(_OLD_NAMES):
        connection.execute(sa.update(version).where(version.c.version_num == old).values(version_num=_OLD_NAMES[old]))


def _refuse_ancient(connection: Connection) -> None:
    inspector = sa.inspect(connection)
    if not inspector.has_table("images"):
        return
    columns = {column["name"] for column in inspector.get_columns("images")}
    if "is_public" in columns or "visibility" not in columns:
        raise SchemaError(
            "the tables in this database are from before 2017 (Glance Ocata); bring them to Pike with Glance's own"
            " glance-manage first. Nothing was changed"
        )


def _with_store(text: str) -> str | None:
    """The metadata of a location with `backend` renamed to `store`, None when there is nothing to rename."""
    try:
        metadata = json.loads(text)
    except ValueError:
        return None
    if not isinstance(metadata, dict) or "backend" not in metadata or "store" in metadata:
        return None
    return json.dumps({"store" if key == "backend" else key: value for key, value in metadata.items()})


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, (tuple, list)) else ()


def _list(revisions: tuple[str, ...]) -> str:
    return ", ".join(revisions) or "nothing"


_NO_LOCKS = 1105  # Percona XtraDB Cluster in its strict mode
# Access denied for this database (1044) or at all (1045, 1698), unknown database (1049), TLS required (3159).
_MYSQL_FINAL = {1044, 1045, 1049, 1698, 3159}
# PostgreSQL and SQLite give no codes when a connection fails.
_FINAL_WORDS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "unable to open database file",
    "file is not a database",
    "readonly database",
)


def _is_final(error: DBAPIError, reason: str) -> bool:
    """Whether the server answered, and its answer will be the same next time."""
    return _code(error) in _MYSQL_FINAL or any(words in reason for words in _FINAL_WORDS)


def _code(error: DBAPIError) -> object:
    return error.orig.args[0] if error.orig is not None and error.orig.args else None


def _without_time_limit(dialect: Any, record: Any, args: Any, parameters: dict[str, Any]) -> None:
    # A column is added to a table of any size, and another command is waited for: minutes are normal here.
    parameters.pop("read_timeout", None)
    parameters.pop("write_timeout", None)
