"""memcached, where keystonemiddleware keeps tokens."""

from __future__ import annotations

import os
from pathlib import Path

from tests.rig.install import program
from tests.rig.process import Process, free_port, listens


class Memcached:
    """A memcached server of 32 MiB."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process = Process(
            "memcached",
            [program("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "32"],
            folder / "log",
            user="nobody" if os.geteuid() == 0 else None,
        )

    @property
    def address(self) -> str:
        """host:port, as in `memcached_servers`."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty. Raises `ServerFailed`."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it; what it held is gone."""
        self.process.stop()
