"""The real clients, many commands after each other, without a second of imports before each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.black_box.tables import fields, rows
from tests.rig.clients import Clients
from tests.rig.process import plain_environment

HOST = Path(__file__).with_name("client_host.py")


@dataclass(frozen=True)
class Outcome:
    """What a command did. `shown` is the command line."""

    shown: str
    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        """The standard output of a command that was given `-f json`."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the table that was printed."""
        return rows(self.out)

    @property
    def fields(self) -> dict[str, str]:
        """The table of names and values that was printed."""
        return fields(self.out)


class ClientShell:
    """Commands of one user's terminal. Close it at the end."""

    def __init__(self, clients: Clients, folder: Path) -> None:
        self.folder = folder
        self.outcomes: list[Outcome] = []
        self._host = subprocess.Popen(
            [clients.bin / "python", HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=plain_environment(HOME=str(folder)),
            text=True,
        )

    def close(self) -> None:
        """End the process that the commands are forked from."""
        self._host.communicate(timeout=60)

    def run(self, *command: str | Path, env: Mapping[str, str], stdin: str | None = None, code: int = 0) -> Outcome:
        """Run `openstack …` or `glance …` with the variables `env`; it must end with `code`.

        With `stdin` that is the standard input, else it is a terminal.
        """
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        words = list(map(str, command))
        request = {
            "arguments": words,
            "env": plain_environment(HOME=str(self.folder), COLUMNS="500", **env),
            "stdin": stdin,
            "folder": str(self.folder),
        }
        self._host.stdin.write(json.dumps(request) + "\n")
        self._host.stdin.flush()
        outcome = Outcome(" ".join(words), **json.loads(self._host.stdout.readline()))
        self.outcomes.append(outcome)
        assert outcome.code == code, f"{outcome.shown}: ended with {outcome.code}\n{outcome.out}{outcome.err}"
        return outcome
