"""`glance-manage`: create the tables, and bring those of an older release up to date.

Two spellings, as in Glance: `glance-manage db sync` and `glance-manage db_sync`. What was done goes to the standard
output, what went wrong to the standard error; the service's log file is left alone, as root and the service's user
would fight for it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from oslo_config import cfg

from glimpse import settings
from glimpse.db.schema import Schema, SchemaError
from glimpse.errors import SettingsError

PROG = "glance-manage"
FIRST_REVISION = "liberty"
CHECK_CODES = {"expand": 3, "migrate": 4, "contract": 5}


@dataclass(frozen=True)
class Action:
    """One thing that the command does. `run` gets the schema and the argument, and returns the exit code."""

    help: str
    run: Callable[[Schema, str | None], int]
    takes_version: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed, 2 wrong usage, 3 to 5 from `check`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        return _show_actions()
    try:
        command = cfg.SubCommandOpt("command", title="Commands", handler=_add_parsers)
        conf = settings.parse(arguments, PROG, [command])
        if conf.command.action is None:
            return _show_actions()
        database = settings.database_settings(conf)
        schema = Schema(database, tell=partial(print, flush=True))
        try:
            _wait(schema, database)
            version = conf.command.version or conf.command.version_option
            return ACTIONS[conf.command.action].run(schema, version)
        finally:
            schema.close()
    except (SettingsError, SchemaError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _add_parsers(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    db = subparsers.add_parser("db", help="the database; without an action, a list of them")
    db.set_defaults(action=None, version=None)
    nested = db.add_subparsers()
    for name, action in ACTIONS.items():
        for parser in (nested.add_parser(name, help=action.help), subparsers.add_parser(f"db_{name}")):
            parser.set_defaults(action=name, version=None, version_option=None)
            if action.takes_version:
                # Two destinations: an argument that is absent would wipe out the option.
                parser.add_argument("version", nargs="?", metavar="VERSION")
                parser.add_argument("--version", dest="version_option", metavar="VERSION")


def _show_actions() -> int:
    print(f"usage: {PROG} [--config-file FILE] [--config-dir DIR] db ACTION\n\nactions:")
    for name, action in ACTIONS.items():
        print(f"  {name:<16} {action.help}")
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


def _sync(schema: Schema, version: str | None) -> int:
    if schema.sync():
        print("Database is synced successfully.")
    else:
        _up_to_date(schema)
    return 0


def _version(schema: Schema, version: str | None) -> int:
    for revision in schema.revisions() or ("No version: the database is empty, or older than 2017.",):
        print(revision)
    return 0


def _check(schema: Schema, version: str | None) -> int:
    phase = schema.next_phase()
    if phase is None:
        _up_to_date(schema)
        return 0
    print(f"Database is not up to date: {PROG} db {phase} is next, or {PROG} db sync for everything at once.")
    return CHECK_CODES[phase]


def _expand(schema: Schema, version: str | None) -> int:
    if not schema.expand():
        print("Database needs no expansion.")
    return 0


def _migrate(schema: Schema, version: str | None) -> int:
    print(f"Migrated {schema.migrate()} rows.")
    return 0


def _contract(schema: Schema, version: str | None) -> int:
    if not schema.contract():
        _up_to_date(schema)
    return 0


def _upgrade(schema: Schema, version: str | None) -> int:
    print(f"Database is at {', '.join(schema.upgrade(version or 'heads'))}.")
    return 0


def _version_control(schema: Schema, version: str | None) -> int:
    schema.stamp(version or FIRST_REVISION)
    print(f"Database is recorded as being at {version or FIRST_REVISION}; no table was changed.")
    return 0


def _up_to_date(schema: Schema) -> None:
    print(f"Database is up to date, at {', '.join(schema.revisions())}.")


ACTIONS = {
    "sync": Action("create the tables, or bring them up to date", _sync, takes_version=True),
    "version": Action("print the revision that the database is at", _version),
    "check": Action("say what is next: exit code 0 nothing, 3 expand, 4 migrate, 5 contract", _check),
    "expand": Action("add what the new release needs; the old one may still run", _expand),
    "migrate": Action("move data to its new place; both releases may run", _migrate),
    "contract": Action("remove what only the old release needed", _contract),
    "upgrade": Action("walk to a revision, to the newest without one", _upgrade, takes_version=True),
    "version_control": Action(
        f"record a revision ({FIRST_REVISION} without one), change no table", _version_control, takes_version=True
    ),
}
