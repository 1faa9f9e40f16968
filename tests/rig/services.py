"""The Image service under test as its own processes, and the real Glance beside it, run in the same way."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import requests

import glimpse
from tests.rig.install import environment
from tests.rig.process import Process, ServerFailed, free_port, plain_environment

Sections = Mapping[str, Mapping[str, object]]


def config_text(sections: Sections) -> str:
    """`{"DEFAULT": {"name": value}}` as the text of a configuration file."""
    lines: list[str] = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in options.items()), ""]
    return "\n".join(lines)


def one_store(images: Path, connection: str) -> dict[str, dict[str, object]]:
    """Sections for one file store `fs` in `images`, with that database, and no identity."""
    return {
        "DEFAULT": {"enabled_backends": "fs:file"},
        "database": {"connection": connection},
        "glance_store": {"default_backend": "fs"},
        "fs": {"filesystem_store_datadir": images},
    }


class ImageService(ABC):
    """An Image service with a folder of configuration files and one for data; it listens on a free port of 127.0.0.1.

    The programs find their files through `OS_GLANCE_CONFIG_DIR`, and what a test must not take from the machine
    (address, port) through oslo.config's variables, so a configuration text is used as an operator wrote it.
    """

    name: str

    def __init__(self, folder: Path, config: str, env: Mapping[str, str]) -> None:
        self.config_dir = folder / "etc"
        self.data_dir = folder / "data"
        for part in (folder, self.config_dir, self.data_dir):
            part.mkdir()
            part.chmod(0o755)
        # Glance's commands look below the home folder, only its WSGI application at OS_GLANCE_CONFIG_DIR
        (folder / ".glance").symlink_to(self.config_dir.name)
        self.config_file = self.config_dir / "glance-api.conf"
        self.config_file.write_text(config)
        self.port = free_port()
        self.env = plain_environment(
            PATH=f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            HOME=str(folder),
            OS_GLANCE_CONFIG_DIR=str(self.config_dir),
            **self._overrides(),
            **env,
        )
        self.process = Process(self.name, self._command(), folder / "log", env=self.env)

    @property
    @abstractmethod
    def bin(self) -> Path:
        """The folder of its programs."""

    @abstractmethod
    def _command(self) -> list[str | Path]: ...

    @abstractmethod
    def _overrides(self) -> dict[str, str]: ...

    @property
    def url(self) -> str:
        """Its base, without /v2."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> str:
        """All that it has printed so far."""
        return self.process.log.read_text(errors="replace") if self.process.log.exists() else ""

    def run(self, *command: str | Path) -> str:
        """Run one of its programs with its configuration; the output of both kinds. Raises `ServerFailed`."""
        done = subprocess.run(
            list(map(str, command)),
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}")
        return done.stdout

    def manage(self, *arguments: str) -> str:
        """Run its `glance-manage`; what it printed. Raises `ServerFailed`."""
        return self.run(self.bin / "glance-manage", *arguments)

    def start(self) -> None:
        """Start it and wait until it answers. Raises `ServerFailed`."""
        self.process.start(self.answers)

    def stop(self) -> int:
        """Stop it as an operator does and return its exit status. Raises `ServerFailed` when it had to be killed."""
        return self.process.stop()

    def restart(self) -> None:
        """Stop it and start it. Raises `ServerFailed`."""
        self.stop()
        self.start()

    def kill9(self) -> None:
        """End all of its processes at once."""
        self.process.kill9()

    def answers(self) -> bool:
        """Whether it answers HTTP at all."""
        with requests.Session() as session:
            session.trust_env = False
            try:
                session.get(f"{self.url}/healthcheck", timeout=10)
            except requests.RequestException:
                return False
        return True


class Glimpse(ImageService):
    """This project's service, from the environment that runs the tests."""

    name = "glance-api"

    @property
    def bin(self) -> Path:
        return Path(sys.executable).parent

    def _command(self) -> list[str | Path]:
        return [self.bin / "glance-api"]

    def _overrides(self) -> dict[str, str]:
        # the package that the tests import, which in a second working tree is not the installed one
        tree = str(Path(glimpse.__file__).parents[1])
        return {
            "OS_DEFAULT__BIND_HOST": "127.0.0.1", "OS_DEFAULT__BIND_PORT": str(self.port), "PYTHONPATH": tree,
        }  # fmt: skip


class GlimpseWorker(Glimpse):
    """This project's `glance-worker`: no API, only its processes."""

    name = "glance-worker"

    def _command(self) -> list[str | Path]:
        return [self.bin / "glance-worker"]

    def answers(self) -> bool:
        """Whether it has come up."""
        return bool(self.process.children)


class Glance(ImageService):
    """The real Glance from PyPI under uWSGI, set up as its admin guide says."""

    name = "Glance"

    @property
    def bin(self) -> Path:
        return environment("glance") / "bin"

    def _command(self) -> list[str | Path]:
        return [
            self.bin / "pyuwsgi", "--master", "--die-on-term", "--no-orphans", "--lazy-apps", "--enable-threads",
            "--processes", "2", "--buffer-size", "65535", "--thunder-lock", "--disable-logging", "--need-app",
            "--http-auto-chunked", "--http-chunked-input", "--http-raw-body", "--socket-timeout", "10",
            # the glance client sends chunks of 1 MiB, which is more than uWSGI takes without this
            "--chunked-input-limit", "8388608",
            "--add-header", "Connection: close", "--http-socket", f"127.0.0.1:{self.port}",
            "--module", "glance.wsgi.api:application",
        ]  # fmt: skip

    def _overrides(self) -> dict[str, str]:
        return {
            "OS_PASTE_DEPLOY__CONFIG_FILE": str(environment("glance") / "etc/glance/glance-api-paste.ini"),
            "OS_DEFAULT__NODE_STAGING_URI": (self.data_dir / "staging").as_uri(),
            "OS_OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR": str(self.data_dir / "staging"),
            "OS_OS_GLANCE_TASKS_STORE__FILESYSTEM_STORE_DATADIR": str(self.data_dir / "tasks"),
            "OS_OSLO_CONCURRENCY__LOCK_PATH": str(self.data_dir / "locks"),
        }
