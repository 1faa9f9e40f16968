"""The servers that are measured, each in a folder of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import base64
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import bcrypt
import requests

from tests.rig.install import program
from tests.rig.process import Process, free_port, listens, plain_environment
from tests.rig.services import Glimpse, Sections, config_text

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "11111111111111111111111111111111"  # of the one user
_USER, _PASSWORD = "bench", "bench"
HEADER = "Authorization: Basic " + base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()


class Part(Protocol):
    """A server, or several."""

    def start(self) -> None: ...

    def stop(self) -> object: ...


@contextmanager
def started(*parts: Part) -> Iterator[None]:
    """Have them run, started one after the other."""
    with ExitStack() as stack:
        for part in parts:
            stack.callback(part.stop)
            part.start()
        yield


class Service:
    """Glimpse with flavor http_basic: its identity comes out of a cache in the process, as that of a token does."""

    def __init__(self, folder: Path, connection: str, workers: int | None, more: Sections | None = None) -> None:
        folder.mkdir()
        users = folder / "users"
        hashed = bcrypt.hashpw(_PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        users.write_text(f"{_USER}:{hashed}:{PROJECT}:member,reader\n")
        self.images = folder / "images"
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": {"http_basic_auth_user_file": users, **({"workers": workers} if workers else {})},
            "paste_deploy": {"flavor": "http_basic"},
            "database": {"connection": connection},
            "glance_store": {"filesystem_store_datadir": self.images},
        }
        for name, options in (more or {}).items():
            sections.setdefault(name, {}).update(options)
        self.glimpse = Glimpse(folder / "service", config_text(sections), {})
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = HEADER.partition(": ")[2]

    @property
    def url(self) -> str:
        """Its base, without /v2."""
        return self.glimpse.url

    def start(self, sync: bool = True) -> None:
        """Make the tables and start it."""
        if sync:
            self.glimpse.manage("db_sync")
        self.glimpse.start()

    def stop(self) -> None:
        """Stop it."""
        self.glimpse.stop()

    def call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """A call that has to succeed."""
        answer = self._session.request(method, f"{self.url}{path}", timeout=60, **arguments)
        answer.raise_for_status()
        return answer

    def answers(self, path: str) -> bool:
        """Whether a GET succeeds, on a new connection and within a second."""
        try:
            return requests.get(f"{self.url}{path}", headers=dict(self._session.headers), timeout=1).ok
        except requests.RequestException:
            return False

    def create(self, **more: Any) -> str:
        """A queued raw image with 5 properties and 2 tags; its id."""
        properties = {f"property_{number}": f"value {number}" for number in range(5)}
        body = {"name": "bench", "disk_format": "raw", "container_format": "bare", "tags": ["one", "two"]}
        identity: str = self.call("POST", "/v2/images", json=body | properties | more).json()["id"]
        return identity

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        listed = Path(f"/proc/{self.glimpse.process.pid}/task/{self.glimpse.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]


class Nginx:
    """nginx that serves one file with sendfile."""

    def __init__(self, folder: Path, file: Path, workers: int) -> None:
        folder.mkdir()
        self.port = free_port()
        # As root it would drop to a user who may not look into this folder.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        configuration = folder / "nginx.conf"
        configuration.write_text(
            f"""daemon off; {user} worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; default_type application/octet-stream;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{self.port}; location = /image {{ alias {file}; }} }}
}}
"""
        )
        self.process = Process("nginx", [program("nginx"), "-p", folder, "-c", configuration], folder / "log")

    @property
    def url(self) -> str:
        """Of the file."""
        return f"http://127.0.0.1:{self.port}/image"

    def start(self) -> None:
        """Start it."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()


class Bare:
    """The bare aiohttp service of `bench.bare`."""

    def __init__(self, folder: Path, connection: str) -> None:
        folder.mkdir()
        self.port = free_port()
        command = [sys.executable, "-m", "bench.bare", connection, str(self.port)]
        env = plain_environment(PYTHONPATH=str(ROOT))
        self.process = Process("bare", command, folder / "log", env=env)

    @property
    def url(self) -> str:
        """Its base, without /v2."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()


class WrongAnswers(Exception):
    """A server under load answered with errors."""


def wrk(url: str, seconds: float, connections: int = 16, headers: Sequence[str] = ()) -> float:
    """Requests a second, with keep-alive. Raises `WrongAnswers` when not all were 2xx."""
    command = [str(program("wrk")), "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
    command += [part for header in headers for part in ("-H", header)]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    errors = [line for line in done.stdout.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if errors or found is None or float(found[1]) == 0:
        raise WrongAnswers(f"{url}: {errors or done.stdout}")
    return float(found[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all below it."""
    spent = 0.0
    waiting = [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for task in (process / "task").iterdir():
            waiting += [int(child) for child in (task / "children").read_text().split()]
    return spent


def memory(pids: Sequence[int]) -> Mapping[str, int]:
    """Bytes of processes together: `Rss`, `Pss`, and `Uss`, what would be free if they ended."""
    total = {"Rss": 0, "Pss": 0, "Uss": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, amount = line.split()[:2]
            key = "Uss" if name in ("Private_Clean:", "Private_Dirty:") else name.rstrip(":")
            if key in total:
                total[key] += int(amount) * 1024
    return total
