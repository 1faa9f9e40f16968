"""Barbican: the key manager, where the certificates of signed images are kept. Its database is a SQLite file."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import requests

from tests.rig.install import environment
from tests.rig.keystone import Keystone
from tests.rig.process import Process, ServerFailed, free_port, plain_environment


class Barbican:
    """A Barbican server in `folder`, for the users of a Keystone. Start it before use."""

    def __init__(self, folder: Path, keystone: Keystone) -> None:
        home = environment("barbican")
        self.port = free_port()
        self._session = requests.Session()
        self._session.trust_env = False
        settings = folder / ".barbican"  # looked for below the home folder
        settings.mkdir(parents=True)
        (settings / "barbican.conf").write_text(_configuration(folder, self.url, keystone))
        entry = folder / "entry.py"
        paste = home / "etc/barbican/barbican-api-paste.ini"
        entry.write_text(f"from paste import deploy\n\napplication = deploy.loadapp('config:{paste}')\n")
        env = plain_environment(HOME=str(folder))
        command = [str(home / "bin" / "barbican-manage"), "db", "upgrade"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise ServerFailed(f"{' '.join(command)} ended with {done.returncode}\n{done.stderr}")
        server: list[str | Path] = [
            home / "bin" / "pyuwsgi", "--master", "--die-on-term", "--no-orphans", "--lazy-apps", "--enable-threads",
            "--processes", "1", "--threads", "2", "--buffer-size", "65535", "--disable-logging", "--need-app",
            "--http-socket", f"127.0.0.1:{self.port}", "--add-header", "Connection: close", "--wsgi-file", entry,
        ]  # fmt: skip
        self.process = Process("Barbican", server, folder / "log", env=env)

    @property
    def url(self) -> str:
        """Its base, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it. Raises `ServerFailed`."""
        self.process.start(self._answers)

    def stop(self) -> None:
        """Stop it; what it keeps stays."""
        self.process.stop()

    def keep(self, token: str, payload: bytes, kind: str = "certificate") -> str:
        """Have it keep something, a certificate as PEM; the UUID. Raises `requests.HTTPError`."""
        secret = {
            "secret_type": kind,
            "payload": base64.b64encode(payload).decode(),
            "payload_content_type": "application/octet-stream",
            "payload_content_encoding": "base64",
        }
        answer = self._session.post(f"{self.url}/v1/secrets", json=secret, headers={"X-Auth-Token": token}, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["secret_ref"]).rpartition("/")[2]

    def _answers(self) -> bool:
        try:
            return self._session.get(self.url, timeout=5).status_code in (200, 300)
        except requests.RequestException:
            return False


def _configuration(folder: Path, url: str, keystone: Keystone) -> str:
    identity = "\n".join(f"{name} = {value}" for name, value in keystone.authtoken().items())
    return f"""\
[DEFAULT]
host_href = {url}
use_stderr = true
[database]
connection = sqlite:///{folder}/barbican.sqlite
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = {base64.b64encode(os.urandom(32)).decode()}
[keystone_authtoken]
{identity}
"""
