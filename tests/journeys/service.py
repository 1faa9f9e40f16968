"""A whole image service for a test: its own directory, database, stores and processes, on a free port of loopback.

The commands come from the environment that runs the tests. `GLIMPSE_TEST_COMMANDS` may name another directory that
holds a `glance-api` and a `glance-manage` with the same interface, to hold the expectations against another build.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .wire import ask

START_SECONDS = 20.0
DISK_FORMATS = "ami,ari,aki,vhd,vhdx,vmdk,raw,qcow2,vdi,iso,ploop,gpt"

MULTI_STORE: dict[str, dict[str, object]] = {
    "DEFAULT": {"enabled_backends": "fs:file,fast:file", "workers": 2},
    "image_format": {"disk_formats": DISK_FORMATS},
    "glance_store": {"default_backend": "fs"},
    "fs": {"filesystem_store_datadir": "{home}/images", "weight": 100},
    "fast": {"filesystem_store_datadir": "{home}/fast", "weight": 200},
    "os_glance_staging_store": {"filesystem_store_datadir": "{home}/staging"},
    "os_glance_tasks_store": {"filesystem_store_datadir": "{home}/tasks"},
}

SINGLE_STORE: dict[str, dict[str, object]] = {
    "DEFAULT": {"workers": 1},
    "image_format": {"disk_formats": DISK_FORMATS},
    "glance_store": {
        "stores": "file",
        "default_store": "file",
        "filesystem_store_datadir": "{home}/images",
    },
}


def commands() -> Path:
    """The directory of the service's commands."""
    return Path(os.environ.get("GLIMPSE_TEST_COMMANDS") or Path(sys.executable).parent)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """One service; `home` is its directory. Not started until `start`."""

    def __init__(
        self,
        home: Path,
        base: Mapping[str, Mapping[str, object]] = MULTI_STORE,
        changes: Mapping[str, Mapping[str, object]] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / "service.log"
        self.conf = home / "glance-api.conf"
        self.database = home / "glance.sqlite"
        self.process: subprocess.Popen[bytes] | None = None
        self._sections = {name: dict(options) for name, options in base.items()}
        self._launcher = list(launcher)
        home.mkdir(parents=True, exist_ok=True)
        self.configure(changes or {})

    def configure(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Write the configuration file again, with these options set; a running service is not told."""
        for section, options in changes.items():
            self._sections.setdefault(section, {}).update(options)
        fixed: dict[str, dict[str, object]] = {
            "DEFAULT": {"bind_host": "127.0.0.1", "bind_port": self.port},
            "database": {"connection": f"sqlite:///{self.database}"},
        }
        lines = []
        for section in {**self._sections, **fixed}:
            lines.append(f"[{section}]")
            options = {**self._sections.get(section, {}), **fixed.get(section, {})}
            lines += [f"{key} = {value}".replace("{home}", str(self.home)) for key, value in options.items()]
        self.conf.write_text("\n".join(lines) + "\n")

    def db_sync(self, template: Path | None = None) -> None:
        """Make the tables, or take a copy of a database that has them."""
        if template is not None:
            shutil.copy(template, self.database)
            return
        with self.log.open("ab") as log:
            command = [str(commands() / "glance-manage"), "--config-file", str(self.conf), "db_sync"]
            subprocess.run(command, stdout=log, stderr=log, cwd=self.home, check=True, timeout=120)

    def start(self) -> None:
        """Start the processes and wait until the service answers. Raises RuntimeError with the log's end."""
        command = [*self._launcher, str(commands() / "glance-api"), "--config-file", str(self.conf)]
        with self.log.open("ab") as log:
            # A session of its own, so that `kill` reaches every process and a Ctrl-C at the tests none.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self.answers():
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"the service did not start:\n{self.log_since(0)}")

    def answers(self) -> bool:
        """Whether the health check says yes."""
        try:
            return ask(self.url, "GET", "/healthcheck").status == 200
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the parent process."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """The exit code of the parent process; raises subprocess.TimeoutExpired."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End the service as an operator does, or the hard way after 10 seconds."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """`kill -9` for every process of the service at once; returns when they are gone."""
        if self.process is None:
            return
        family = _descendants(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        deadline = time.monotonic() + 10
        while any(_runs(pid) for pid in family) and time.monotonic() < deadline:
            time.sleep(0.01)

    def discard(self) -> None:
        """Remove what the stores hold; the log and the database stay for who looks into a failure."""
        for name in ("images", "fast", "staging"):
            shutil.rmtree(self.home / name, ignore_errors=True)

    def listeners(self) -> list[int]:
        """The processes, other than the parent, that accept connections: the workers."""
        assert self.process is not None
        return [pid for pid in _descendants(self.process.pid) if _listens(pid, self.port)]

    def stored(self, needle: str = "") -> list[Path]:
        """The files below the stores' and staging directories whose path holds `needle` (an image's id)."""
        found: list[Path] = []
        for name in ("images", "fast", "staging", "small"):
            found += [path for path in (self.home / name).rglob("*") if path.is_file() and needle in str(path)]
        return found

    def log_since(self, offset: int) -> str:
        """The log after `offset` bytes; at most its last 20,000 characters."""
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")[-20_000:]


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in children for found in (int(child), *_descendants(int(child)))]


def _runs(pid: int) -> bool:
    """Whether a process is there and not merely waiting for its parent to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _listens(pid: int, port: int) -> bool:
    sockets = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            sockets.add(f"socket:[{fields[9]}]")
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
        return any(os.readlink(entry) in sockets for entry in entries)
    except OSError:
        return False
