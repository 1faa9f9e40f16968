"""moto's server: S3 in the memory of one process, for what Swift's S3 interface has not.

That is buckets in host names, writes under the condition that nothing is there, and HTTPS. It is an imitation, and it
believes every signature. So it takes Google's tokens for one, and stands in for Google Cloud Storage, which speaks
nearly the same XML: there is no real one to be had.
"""

from __future__ import annotations

from pathlib import Path

from tests.rig.install import environment
from tests.rig.process import Process, free_port, listens


class Moto:
    """One of them, by HTTPS with a `certificate` (and its key in the same file). It forgets all when it stops."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._scheme = "http" if certificate is None else "https"
        tls = [] if certificate is None else ["--ssl", "--ssl-cert", certificate, "--ssl-key", certificate]
        program = environment("moto") / "bin" / "moto_server"
        self.process = Process("moto", [program, "-H", "127.0.0.1", "-p", str(self.port), *tls], folder / "log")

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty. Raises `ServerFailed`."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it, in the middle of whatever it does."""
        self.process.kill9()
