"""One program that the tests start: on free ports, with a log, and gone when the tests are."""

from __future__ import annotations

import os
import pwd
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.rig.install import program

# Below the range from which the kernel takes ports for outgoing connections, so that a server that was stopped
# finds its port free when it comes back.
_PORTS = range(20000, 32000)
_given: set[int] = set()


class ServerFailed(Exception):
    """A server did not start, or ended by itself; the text has the end of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, never the same one twice."""
    while True:
        port = random.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections on that port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def wait_for(what: str, ready: Callable[[], bool], seconds: float) -> None:
    """Ask `ready` until it says yes. Raises `TimeoutError` that names `what`."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


def plain_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would steer OpenStack's programs, pip's or Python's, plus `more`."""
    foreign = ("OS_", "PYTHON", "PIP_", "MYSQL", "PG", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more}


def own(path: Path, user: str | None) -> Path:
    """Make the folder `path` for `user` (None: the caller) and return it."""
    path.mkdir(parents=True, exist_ok=True)
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(path, account.pw_uid, account.pw_gid)
    return path


def as_user(user: str | None, command: Sequence[str | Path], die_with_parent: str = "keep") -> list[str]:
    """The command line that runs `command` as `user`, and gets the signal `die_with_parent` when its parent is gone."""
    switch = []
    if user is not None:
        switch = [f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups"]
    return [str(program("setpriv")), *switch, "--pdeathsig", die_with_parent, "--", *map(str, command)]


class Process:
    """A server as a child process in a group of its own; `start` and `stop` may alternate."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = list(map(str, command))
        self.log = log
        self.env = dict(env) if env is not None else plain_environment()
        self.user = user
        self.stop_signal = stop_signal
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        if self._child is None:
            return False
        # Looked at, not reaped: as long as its process id is kept, its group can be signalled safely.
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def pid(self) -> int:
        """Its process id. Raises `ServerFailed` when it does not run."""
        if self._child is None or not self.running:
            raise ServerFailed(f"{self.name} does not run\n{self.tail()}")
        return self._child.pid

    @property
    def children(self) -> list[int]:
        """The process ids of its workers. Raises `ServerFailed` when it does not run."""
        return [int(child) for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def start(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Start it and wait until `ready` says yes. Raises `ServerFailed`."""
        assert not self.running, f"{self.name} runs already"
        # The signal at the parent's death also ends the server after a test run that was killed.
        signal_name = self.stop_signal.name.removeprefix("SIG")
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                as_user(self.user, self.command, signal_name),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
            )
        try:
            wait_for(self.name, lambda: not self.running or ready(), seconds)
        except TimeoutError as error:
            self.kill9()
            raise ServerFailed(f"{error}\n{self.tail()}") from error
        if not self.running:
            raise ServerFailed(f"{self.name} ended with {self.kill9()} at its start\n{self.tail()}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process. Raises `ServerFailed` when it does not run."""
        os.kill(self.pid, number)

    def stop(self, seconds: float = 30) -> int:
        """Ask it to end, wait, and return its exit status. Raises `ServerFailed` when it had to be killed."""
        if self.running:
            self.signal(self.stop_signal)
        try:
            wait_for(f"{self.name}, told to stop", lambda: not self.running, seconds)
        except TimeoutError as error:
            self.kill9()
            raise ServerFailed(f"{error}\n{self.tail()}") from error
        return self.kill9()

    def kill9(self) -> int:
        """End what is left of it and its children, as a crash of the machine would; its exit status."""
        if self._child is None:
            return 0
        os.killpg(self._child.pid, signal.SIGKILL)  # a process that ended is still there to be reaped
        status, self._child = self._child.wait(), None
        return status

    def tail(self, lines: int = 40) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join([f"--- {self.log}", *self.log.read_text(errors="replace").splitlines()[-lines:]])
