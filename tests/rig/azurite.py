"""Azurite, Microsoft's own emulator of Azure Storage; only its blobs."""

from __future__ import annotations

import base64
import hashlib
import hmac
from email.utils import formatdate
from pathlib import Path

import requests

from tests.rig.install import environment
from tests.rig.process import Process, free_port, listens

# Every Azurite has this account, and the key that its documentation names.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class Azurite:
    """One of them, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        home = environment("azurite")
        self.process = Process(
            "Azurite",
            [
                home / "bin" / "node", home / "node_modules" / ".bin" / "azurite-blob",
                "--blobPort", str(self.port), "--location", folder / "data",
                "--silent", "--skipApiVersionCheck", "--disableTelemetry",
            ],
            folder / "log",
        )  # fmt: skip

    @property
    def url(self) -> str:
        """The endpoint of its account."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def start(self) -> None:
        """Start it; what it held is still there. Raises `ServerFailed`."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it; a crash would make it forget its last seconds."""
        self.process.stop()

    def make_container(self, name: str) -> None:
        """Raises `requests.HTTPError`."""
        self._call("PUT", name, "restype:container")

    def blobs(self, name: str, begun: bool = False) -> int:
        """How many blobs a container holds, on demand with those of which there are only parts."""
        include = ["include:uncommittedblobs"] if begun else []
        return self._call("GET", name, "comp:list", *include, "restype:container").count("<Blob>")

    def _call(self, method: str, container: str, *query: str) -> str:
        """A request with Azure's "Shared Key" signature; `query` is in the order of the alphabet, name:value."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        signed = [method, *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
        signed += [f"/{ACCOUNT}/{ACCOUNT}/{container}", *query]
        signature = hmac.digest(base64.b64decode(KEY), "\n".join(signed).encode(), hashlib.sha256)
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        parameters = "&".join(each.replace(":", "=") for each in query)
        answer = requests.request(method, f"{self.url}/{container}?{parameters}", headers=headers, timeout=10)
        answer.raise_for_status()
        return answer.text
