"""Two nodes, a `glance-worker`, a database and a message broker, whose processes are killed, and what must hold after.

The second node takes itself for another machine (its host has another name), so nobody else sees whether its processes
live. Nodes have stores in common and a staging directory each. A step of a task is found in their logs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pymysql

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.rig.install import program
from tests.rig.process import wait_for
from tests.rig.services import Glimpse, GlimpseWorker, Sections, config_text

T = TypeVar("T")

STEP = re.compile(r"^\S+ \S+ (?P<pid>\d+) \w+ \S+ .*\btask (?P<task>[0-9a-f-]{36}): (?P<what>.*)$")
MARKS = ("os_glance_import_task", "os_glance_task_lease", "os_glance_upload_lease", "os_glance_location_lease")
PATIENCE = 60.0  # seconds for a task of a dead process to be taken over
HOURS = 3 * 3600.0  # seconds; long enough for every sweep

_ELSEWHERE = ["unshare", "--uts", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]


class Stuck(AssertionError):
    """Something did not come to an end."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a process has said of a task."""

    pid: int
    task: str
    what: str
    at: float


class Journal:
    """The lines about tasks in the logs of all services."""

    def __init__(self, logs: list[Path]) -> None:
        self._logs = dict.fromkeys(logs, (0, b""))
        self.lines: list[Line] = []

    def read(self) -> None:
        """Take in what was written since the last time."""
        for log, (offset, rest) in self._logs.items():
            if not log.exists():
                continue
            with log.open("rb") as file:
                file.seek(offset)
                new = file.read()
            *whole, last = (rest + new).split(b"\n")
            self._logs[log] = (offset + len(new), last)
            for text in whole:
                if (found := STEP.match(text.decode(errors="replace"))) is not None:
                    self.lines.append(Line(int(found["pid"]), found["task"], found["what"], time.monotonic()))

    def of(self, task: str) -> list[Line]:
        """All lines about a task so far."""
        self.read()
        return [line for line in self.lines if line.task == task]

    def wait_for(self, task: str, what: str, seconds: float = 30, after: int = 0) -> Line:
        """A line about the task that begins so, behind the first `after` ones. Raises `Stuck`."""
        end = time.monotonic() + seconds
        while True:
            for line in self.of(task)[after:]:
                if line.what.startswith(what):
                    return line
            if time.monotonic() > end:
                raise Stuck(f"task {task} has not come to {what}: {[line.what for line in self.of(task)]}")
            time.sleep(0.002)


class Records:
    """The tables, seen from outside."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = {
            "host": parts.hostname, "port": parts.port, "user": parts.username, "password": parts.password,
            "database": parts.path[1:], "cursorclass": pymysql.cursors.DictCursor,
        }  # fmt: skip

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """What a query finds."""
        with pymysql.connect(**self._to, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    @contextlib.contextmanager
    def locked(self, sql: str, *values: object) -> Iterator[None]:
        """Whoever wants to change the rows that the query finds waits meanwhile."""
        with pymysql.connect(**self._to) as connection, connection.cursor() as cursor:
            cursor.execute(f"{sql} FOR UPDATE", values)
            yield
            connection.rollback()

    def _waiting(self) -> int:
        """Transactions that wait for a lock. The table is not made anew for who asks again within 0.1 s."""
        time.sleep(0.2)
        sql = "SELECT COUNT(*) AS count FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        return int(self.rows(sql)[0]["count"])

    def _tasks(self) -> int:
        return int(self.rows("SELECT COUNT(*) AS count FROM tasks")[0]["count"])

    @contextlib.contextmanager
    def after_order(self, order: Callable[[], T], sql: str) -> Iterator[T]:
        """Make a call that writes a task, and lock rows that both the call and the task have to change.

        Nobody comes in between: the database serves those who wait in their order.
        """
        before = self._tasks()
        with ThreadPoolExecutor(2) as threads, contextlib.ExitStack() as held:
            held.enter_context(self.locked(sql))
            called = threads.submit(order)
            while self._tasks() == before:
                wait_for("the call", lambda: called.done() or self._waiting() > 0, 10)
                if called.done():
                    break
                following = contextlib.ExitStack()
                locking = threads.submit(following.enter_context, self.locked(sql))
                wait_for("our turn", lambda: called.done() or self._waiting() > 1, 10)
                held.close()
                locking.result()
                held.push(following)
            yield called.result()

    def tasks_of(self, image: str) -> set[str]:
        """The ids of the image's tasks."""
        return {row["id"] for row in self.rows("SELECT id FROM tasks WHERE image_id = %s", image)}


class Cloud:
    """All of it, on one machine."""

    def __init__(
        self, folder: Path, nodes: ServiceFactory[Glimpse], workers: ServiceFactory[GlimpseWorker],
        database: str, broker: str, changes: Sections,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.records = Records(database)
        self.stores = {name: folder / name for name in ("fs", "fast")}
        self._hold = folder / "hold"
        self._changes = changes
        self.token: str | None = None
        self.source: Glimpse  # the Image service of another region, if there is one
        self._common: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "enabled_backends": "fs:file,fast:file,web:http", "workers": 2, "show_multiple_locations": True,
                "transport_url": broker, "control_exchange": f"glance-{uuid.uuid4()}",
                "enabled_import_methods": "[glance-direct,web-download,copy-image]", "graceful_shutdown_timeout": 5,
                "user_storage_quota": "1TB",
            },
            "database": {"connection": database},
            "glance_store": {"default_backend": "fs"},
            "fs": {"filesystem_store_datadir": self.stores["fs"]},
            "fast": {"filesystem_store_datadir": self.stores["fast"]},
            "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
            "wsgi": {"task_pool_threads": 2},
        }  # fmt: skip
        self.nodes = [nodes("", start=False) for _ in range(2)]
        self.worker = workers("", start=False)
        process = self.nodes[1].process
        process.command = [*_ELSEWHERE, 'hostname elsewhere; exec "$@"', "sh", *process.command]
        tools = self._tools(folder / "bin")
        for service in (*self.nodes, self.worker):
            service.config_file.write_text(self._config(service))
            service.process.env["PATH"] = f"{tools}{os.pathsep}{service.process.env['PATH']}"
        self.nodes[0].manage("db_sync")
        self.journal = Journal([service.process.log for service in (*self.nodes, self.worker)])

    def _tools(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        real = program("qemu-img")
        tool = folder / "qemu-img"
        tool.write_text(f'#!/bin/sh\nwhile [ -e {self._hold} ]; do sleep 0.05; done\nexec {real} "$@"\n')
        tool.chmod(0o755)
        return folder

    def _config(self, service: Glimpse) -> str:
        own: dict[str, dict[str, object]] = {
            "DEFAULT": {"worker_self_reference_url": service.url},
            "os_glance_staging_store": {"filesystem_store_datadir": self.staging(service)},
        }
        sections: dict[str, dict[str, object]] = {}
        for part in (self._common, self._changes, own):
            for name, options in part.items():
                sections.setdefault(name, {}).update(options)
        return config_text(sections)

    def staging(self, service: Glimpse) -> Path:
        """Its own directory."""
        return service.data_dir / "staging"

    @property
    def services(self) -> list[Glimpse]:
        """Whatever runs."""
        return [*self.nodes, self.worker]

    def start(self) -> None:
        """All of it."""
        for service in self.services:
            service.start()

    def api(self, node: int = 0) -> ImageApi:
        """The API at one of the nodes."""
        return ImageApi(self.nodes[node].url, self.token)

    @contextlib.contextmanager
    def held_tools(self) -> Iterator[None]:
        """Every qemu-img waits meanwhile."""
        self._hold.touch()
        try:
            yield
        finally:
            self._hold.unlink()

    # --- kills -------------------------------------------------------------------------------------------------------

    def kill(self, pid: int) -> None:
        """kill -9 of one process, whoever it is; one that is gone is fine."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def victims(self) -> list[int]:
        """All worker processes of all services."""
        return [pid for service in self.services if service.process.running for pid in service.process.children]

    # --- ends --------------------------------------------------------------------------------------------------------

    def wait_for_end(self, task: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The task's row as soon as it has ended. Raises `Stuck`."""
        end = time.monotonic() + seconds
        while True:
            [row] = self.records.rows("SELECT status FROM tasks WHERE id = %s", task)
            if row["status"] in ("success", "failure"):
                [info] = self.records.rows("SELECT message FROM task_info WHERE task_id = %s", task)
                return {**row, **info}
            if time.monotonic() > end:
                said = [(line.pid, line.what) for line in self.journal.of(task)]
                raise Stuck(f"task {task} is {row['status']} after {seconds:.0f} s: {said}")
            time.sleep(0.05)

    def wait_until_idle(self, seconds: float = 120) -> None:
        """Every task has ended. Raises `Stuck`."""
        sql = "SELECT id, image_id, type, status FROM tasks WHERE status IN ('pending', 'processing')"
        with _stuck():
            wait_for("the end of all tasks", lambda: not self.records.rows(sql), seconds)

    def let_time_pass(self) -> None:
        """Bring every sweep about: files are hours old, and all processes start anew."""
        for service in self.services:
            service.process.kill9()
        then = time.time() - HOURS
        for folder in (*self.stores.values(), *map(self.staging, self.services)):
            for file in folder.rglob("*") if folder.exists() else ():
                os.utime(file, (then, then))
        self.start()

    def leftovers(self) -> dict[str, object]:
        """What must not be there when no task runs; empty when all is well."""
        sql = (
            "SELECT p.image_id, p.name, p.value, i.status FROM image_properties p JOIN images i ON i.id = p.image_id"
            " WHERE p.deleted = 0 AND (p.name IN %s OR p.name = 'os_glance_importing_to_stores' AND p.value != '')"
        )
        sql_images = "SELECT id, status FROM images WHERE status NOT IN ('active', 'queued', 'uploading', 'deleted')"
        sql_tasks = "SELECT id, status FROM tasks WHERE status NOT IN ('success', 'failure')"
        statuses = {row["id"]: row["status"] for row in self.records.rows("SELECT id, status FROM images")}
        staged = [
            str(file)
            for folder in map(self.staging, self.services)
            if folder.exists()
            for file in folder.iterdir()
            if statuses.get(file.name) != "uploading"
        ]
        found: dict[str, object] = {
            "marks": self.records.rows(sql, MARKS),
            "images on their way": self.records.rows(sql_images),
            "tasks": self.records.rows(sql_tasks),
            "files in stores": sorted(self._files() - self._places()),
            "places without a file": sorted(self._places() - self._files()),
            "staged": staged,
            "reservations": self.records.rows("SELECT * FROM quota_reservations"),
        }
        return {name: what for name, what in found.items() if what}

    def _files(self) -> set[str]:
        return {str(file) for folder in self.stores.values() for file in folder.rglob("*") if file.is_file()}

    def _places(self) -> set[str]:
        rows = self.records.rows("SELECT value FROM image_locations WHERE deleted = 0 AND value LIKE 'file:%%'")
        return {unquote(urlsplit(row["value"]).path) for row in rows}

    def wait_until_clean(self, seconds: float = 60) -> None:
        """Nothing is left that should not be there. Raises `Stuck`, which says what is."""
        with _stuck(lambda: str(self.leftovers())):
            wait_for("order", lambda: not self.leftovers(), seconds)

    def takeovers(self, deaths: dict[int, float]) -> list[float]:
        """Seconds from each death (process: time) to the next word about a task that it had; raises `Stuck`."""
        self.journal.read()
        took = []
        for pid, died in deaths.items():
            for task in {line.task for line in self.journal.lines if line.pid == pid}:
                lines = [line for line in self.journal.lines if line.task == task]
                last = max(number for number, line in enumerate(lines) if line.pid == pid)
                if len(lines) > last + 1:
                    took.append(lines[last + 1].at - died)
        return took

    def content(self, image: str) -> bytes:
        """What the service delivers."""
        return self.api().download(image)

    def close(self) -> None:
        """Nothing is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _stuck(what: Callable[[], str] = str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Stuck(f"{error}: {what()}") from error
