"""The real command-line clients, `openstack` and `glance`."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.rig.install import environment
from tests.rig.process import plain_environment


class ClientFailed(Exception):
    """A client ended with an error; the text has the command line and what it printed."""


class Clients:
    """Runs programs of the clients' environment. Nothing of the user's own set-up (HOME, OS_*) reaches them."""

    def __init__(self, home: Path) -> None:
        self.bin = environment("clients") / "bin"
        self._home = home
        home.mkdir()

    def __call__(self, name: str, *arguments: str | Path, env: Mapping[str, str], stdin: str = "") -> str:
        """Run `name` (openstack, glance, python) with the variables `env`; its standard output.

        Raises `ClientFailed`.
        """
        return self.run(name, *arguments, env=env, stdin=stdin).decode()

    def run(self, name: str, *arguments: str | Path, env: Mapping[str, str], stdin: str = "") -> bytes:
        """Like a call, with the output as bytes: for images that go to the standard output."""
        command = [str(self.bin / name), *map(str, arguments)]
        done = subprocess.run(
            command,
            input=stdin.encode(),
            capture_output=True,
            env=plain_environment(HOME=str(self._home), **env),
            cwd=self._home,
            timeout=120,
            check=False,
        )
        if done.returncode:
            shown = " ".join([name, *map(str, arguments)])
            output = (done.stdout[-4000:] + done.stderr[-4000:]).decode(errors="replace")
            raise ClientFailed(f"{shown}: ended with {done.returncode}\n{output}")
        return done.stdout

    def openstack(self, *arguments: str | Path, env: Mapping[str, str], stdin: str = "") -> str:
        """Run `openstack`; its standard output. Raises `ClientFailed`."""
        return self("openstack", *arguments, env=env, stdin=stdin)

    def glance(self, *arguments: str | Path, env: Mapping[str, str], stdin: str = "") -> str:
        """Run `glance`; its standard output. Raises `ClientFailed`."""
        return self("glance", *arguments, env=env, stdin=stdin)
