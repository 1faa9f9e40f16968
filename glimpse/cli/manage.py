"""`glance-manage`: create the tables, bring those of an older release up to date, forget what was deleted; fill and
empty the metadata definitions.

Two spellings, as in Glance: `glance-manage db sync` and `glance-manage db_sync`. What was done goes to the standard
output, what went wrong to the standard error; the service's log file is left alone, as root and the service's user
would fight for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from oslo_config import cfg
from oslo_utils import strutils

from glimpse import config_files, settings
from glimpse.db.engine import Database
from glimpse.db.purge import Purge
from glimpse.db.schema import Schema, SchemaError
from glimpse.domain import lifecycle
from glimpse.domain.lifecycle import LEASE_PROPERTY, TASK_LEASE_PROPERTY
from glimpse.errors import GlimpseError, SettingsError
from glimpse.metadefs import files

PROG = "glance-manage"
FIRST_REVISION = "liberty"
_tell = partial(print, flush=True)
CHECK_CODES = {"expand": 3, "migrate": 4, "contract": 5}


class ArgumentError(Exception):
    """An argument that cannot be used; one line for the operator."""


# Marks of work on an image's bytes that goes on after the image was deleted; the work itself removes them.
_UNFINISHED = (LEASE_PROPERTY, TASK_LEASE_PROPERTY)


@dataclass(frozen=True)
class Target:
    """The database that the command works on: its schema, and the way to its rows.

    `metadata_source_path` is the folder with files of metadata definitions.
    """

    schema: Schema
    settings: settings.DatabaseSettings
    metadata_source_path: str

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The database for work on rows, open for as long as the block lasts. Raises `SchemaError` without tables."""
        if self.schema.next_phase() == "expand":
            raise SchemaError(f"{self.schema.name} lacks tables or columns: run {PROG} db sync first")
        database = Database(self.settings, 1)
        try:
            yield database
        finally:
            database.close()


@dataclass(frozen=True)
class Action:
    """One thing that the command does.

    `takes` are its arguments, each by its position or as an option; `switches` are those among them that are an option
    without a value, and true or false at their position. `run` gets the target and the arguments as they were typed,
    None for an absent one, and returns the exit code.
    """

    help: str
    run: Callable[..., int]
    takes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed, 2 wrong usage, 3 to 5 from `check`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        return _show_actions()
    try:
        command = cfg.SubCommandOpt("command", title="Commands", handler=_add_parsers)
        conf = config_files.parse(arguments, PROG, [command])
        if conf.command.action is None:
            return _show_actions()
        database = settings.database_settings(conf)
        schema = Schema(database, _tell)
        try:
            _wait(schema, database)
            action = ACTIONS[conf.command.action]
            target = Target(schema, database, settings.metadata_source_path(conf))
            return action.run(target, *(_given(conf.command, name) for name in action.takes))
        finally:
            schema.close()
    except (SettingsError, SchemaError, ArgumentError, GlimpseError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    db = subparsers.add_parser("db", help="the database; without an action, a list of them")
    db.set_defaults(action=None)
    nested = db.add_subparsers()
    for name, action in ACTIONS.items():
        for parser in (nested.add_parser(name, help=action.help), subparsers.add_parser(f"db_{name}")):
            parser.set_defaults(action=name)
            for argument in action.takes:
                # Two destinations: an argument that is absent would wipe out the option.
                parser.add_argument(f"{argument}_position", nargs="?", metavar=argument.upper())
                if argument in action.switches:
                    parser.add_argument(f"--{argument}", action="store_const", const="true")
                else:
                    parser.add_argument(f"--{argument}", metavar=argument.upper())


def _given(command: argparse.Namespace, argument: str) -> str | None:
    """An argument as it was typed, by option or by position."""
    option: str | None = getattr(command, argument)
    position: str | None = getattr(command, f"{argument}_position")
    return position if option is None else option


def _show_actions() -> int:
    print(f"usage: {PROG} [--config-file FILE] [--config-dir DIR] db ACTION\n\nactions:")
    for name, action in ACTIONS.items():
        print(f"  {name:<18} {action.help}")
    return 2


def _wait(schema: Schema, database: settings.DatabaseSettings) -> None:
    """Wait for a database that is still starting, as `[database] max_retries` and `retry_interval` say."""
    tries = max(database.max_retries, 1) if database.max_retries >= 0 else None
    done = 0
    while (reason := schema.reach()) is not None:
        done += 1
        if done == tries:
            raise SchemaError(f"{schema.name} does not answer, tried {done} times: {reason}")
        print(
            f"{schema.name} does not answer (try {done}{f' of {tries}' if tries else ''}): {reason};"
            f" next try in {database.retry_interval} s",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(database.retry_interval)


def _sync(target: Target, version: str | None) -> int:
    if target.schema.sync():
        print("Database is synced successfully.")
    else:
        _up_to_date(target.schema)
    return 0


def _version(target: Target) -> int:
    for revision in target.schema.revisions() or ("No version: the database is empty, or older than 2017.",):
        print(revision)
    return 0


def _check(target: Target) -> int:
    phase = target.schema.next_phase()
    if phase is None:
        _up_to_date(target.schema)
        return 0
    print(f"The database is behind: {PROG} db {phase} is next, or {PROG} db sync for everything at once.")
    return CHECK_CODES[phase]


def _expand(target: Target) -> int:
    if not target.schema.expand():
        print("Database needs no expansion.")
    return 0


def _migrate(target: Target) -> int:
    print(f"Migrated {target.schema.migrate()} rows.")
    return 0


def _contract(target: Target) -> int:
    if not target.schema.contract():
        _up_to_date(target.schema)
    return 0


def _upgrade(target: Target, version: str | None) -> int:
    print(f"Database is at {', '.join(target.schema.upgrade(version or 'heads'))}.")
    return 0


def _version_control(target: Target, version: str | None) -> int:
    target.schema.stamp(version or FIRST_REVISION)
    print(f"Database is recorded as being at {version or FIRST_REVISION}; no table was changed.")
    return 0


def _purge(target: Target, age_in_days: str | None, max_rows: str | None) -> int:
    before, most = _age(age_in_days, 30), _rows(max_rows)
    with target.database() as database:
        Purge(database, before, most, _UNFINISHED, _tell).parts()
    return 0


def _purge_images(target: Target, age_in_days: str | None, max_rows: str | None) -> int:
    before, most = _age(age_in_days, 180), _rows(max_rows)
    with target.database() as database:
        kept = Purge(database, before, most, _UNFINISHED, _tell).images()
    if kept.unerased:
        print(f"{kept.unerased} images stay until their data is erased from the stores.")
    if kept.referred:
        print(
            f"ERROR: {kept.referred} images stay, as properties, tags, members or locations of theirs are still there:"
            f" run {PROG} db purge first",
            file=sys.stderr,
        )
        return 1
    return 0


def _age(text: str | None, default: int) -> datetime:
    """The moment that was so many days ago."""
    days = _number("age_in_days", text, default)
    if days < 0:
        raise ArgumentError("age_in_days must not be negative")
    if days >= int(time.time() / 86400):
        raise ArgumentError("age_in_days must be less than the days since 1970")
    return lifecycle.now() - timedelta(days=days)


def _rows(text: str | None) -> int | None:
    """The most rows of a table, None for all of them."""
    rows = _number("max_rows", text, 100)
    if rows < -1:
        raise ArgumentError("max_rows must be -1 (no limit) or more")
    return None if rows == -1 else rows


def _number(name: str, text: str | None, default: int) -> int:
    try:
        return default if text is None else int(text)
    except ValueError as error:
        raise ArgumentError(f"{name} must be a whole number, not {text!r}") from error


def _load_metadefs(
    target: Target, path: str | None, merge: str | None, prefer_new: str | None, overwrite: str | None
) -> int:
    mode = _mode(_switch("merge", merge), _switch("prefer_new", prefer_new), _switch("overwrite", overwrite))
    place = path or target.metadata_source_path
    try:
        found = files.sources(place) if path or os.path.exists(place) else files.shipped()
    except OSError as error:
        raise ArgumentError(f"{place}: {error.strerror}") from error
    if not found:
        raise ArgumentError(f"{place}: there are no files with names in .json")
    with target.database() as database:
        files.load(database, found, mode, _tell, partial(print, "ERROR:", file=sys.stderr))
    return 0


def _mode(merge: bool, prefer_new: bool, overwrite: bool) -> files.Mode:
    if (prefer_new or overwrite) and not merge:
        raise ArgumentError("prefer_new and overwrite say how to merge: they need merge beside them")
    if prefer_new and overwrite:
        raise ArgumentError("prefer_new and overwrite exclude each other")
    if overwrite:
        return files.Mode.REPLACE
    if prefer_new:
        return files.Mode.UPDATE
    return files.Mode.ADD if merge else files.Mode.SKIP


def _switch(name: str, text: str | None) -> bool:
    try:
        return text is not None and strutils.bool_from_string(text, strict=True)
    except ValueError as error:
        raise ArgumentError(f"{name} must be true or false, not {text!r}") from error


def _unload_metadefs(target: Target) -> int:
    with target.database() as database:
        files.unload(database)
    print("There are no metadata definitions any more.")
    return 0


def _export_metadefs(target: Target, path: str | None) -> int:
    try:
        with target.database() as database:
            files.export(database, path or target.metadata_source_path, _tell)
    except OSError as error:
        raise ArgumentError(f"{error.filename}: {error.strerror}") from error
    return 0


def _up_to_date(schema: Schema) -> None:
    print(f"Database is up to date, at {', '.join(schema.revisions())}.")


ACTIONS = {
    "sync": Action("create the tables, or bring them up to date", _sync, takes=("version",)),
    "version": Action("print the revision that the database is at", _version),
    "check": Action("say what is next: exit code 0 nothing, 3 expand, 4 migrate, 5 contract", _check),
    "expand": Action("add what the new release needs; the old one may still run", _expand),
    "migrate": Action("move data to its new place; both releases may run", _migrate),
    "contract": Action("remove what only the old release needed", _contract),
    "upgrade": Action("walk to a revision, to the newest without one", _upgrade, takes=("version",)),
    "version_control": Action(
        f"record a revision ({FIRST_REVISION} without one), change no table", _version_control, takes=("version",)
    ),
    "purge": Action(
        "delete for good what is deleted for 30 days, 100 rows a table, except images",
        _purge,
        takes=("age_in_days", "max_rows"),
    ),
    "purge_images_table": Action(
        "delete for good images that are deleted for 180 days, at most 100; their IDs can be used again",
        _purge_images,
        takes=("age_in_days", "max_rows"),
    ),
    "load_metadefs": Action(
        "bring metadata definitions from files into the database; those that exist are left alone, or merged",
        _load_metadefs,
        takes=("path", "merge", "prefer_new", "overwrite"),
        switches=("merge", "prefer_new", "overwrite"),
    ),
    "unload_metadefs": Action("delete all metadata definitions", _unload_metadefs),
    "export_metadefs": Action("write metadata definitions to files", _export_metadefs, takes=("path",)),
}
