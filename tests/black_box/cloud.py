"""A cloud with Keystone and one Image service, and users who type commands there."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.black_box.client_shell import ClientShell, Outcome
from tests.black_box.image_api import ImageApi
from tests.rig.keystone import Keystone
from tests.rig.services import ImageService

ADMIN, DEMO, ALT = "admin", "demo", "alt"  # users, and the projects of these names
PEER = "GLIMPSE_TEST_SERVICE"  # `glance` runs the same commands against the real Glance


@dataclass
class Cloud:
    """Its users run `openstack` and `glance`; each command is checked for its exit status at once."""

    keystone: Keystone
    service: ImageService
    shell: ClientShell
    web: WebServer
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the users sit."""
        return self.shell.folder

    def file(self, name: str, content: bytes) -> Path:
        """A file of theirs."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def openstack(
        self, command: str, *arguments: str | Path, user: str = DEMO, code: int = 0, stdin: str | None = None
    ) -> Outcome:
        """Run `openstack`; `command` are the words of the subcommand. Signs in with a token, which is quick."""
        env = {**self.rc(user), "OS_AUTH_TYPE": "v3token", "OS_TOKEN": self._token(user)}
        del env["OS_PASSWORD"], env["OS_USERNAME"], env["OS_USER_DOMAIN_NAME"]
        return self.shell.run("openstack", *command.split(), *arguments, env=env, code=code, stdin=stdin)

    def glance(
        self, command: str, *arguments: str | Path, user: str = DEMO, code: int = 0, stdin: str | None = None
    ) -> Outcome:
        """Run `glance` with a token and the service's address."""
        env = {**self.rc(user), "OS_AUTH_TOKEN": self._token(user), "OS_IMAGE_URL": self.service.url}
        return self.shell.run("glance", *command.split(), *arguments, env=env, code=code, stdin=stdin)

    def clear(self) -> None:
        """Remove every image and every namespace."""
        api = ImageApi(self.service.url, self._token(ADMIN))
        for query in ("?visibility=all", "?visibility=all&os_hidden=true"):
            for image in api.images(query):
                if image["protected"]:
                    api.change(image["id"], {"op": "replace", "path": "/protected", "value": False})
                api.delete(image["id"])
        for namespace in api.ok("GET", "/v2/metadefs/namespaces?limit=1000").json()["namespaces"]:
            path = f"/v2/metadefs/namespaces/{namespace['namespace']}"
            if namespace["protected"]:
                api.ok("PUT", path, json={"namespace": namespace["namespace"], "protected": False})
            api.ok("DELETE", path)

    def tasks(self, identity: str) -> list[dict[str, Any]]:
        """What became of the imports of an image."""
        answer = ImageApi(self.service.url, self._token(ADMIN)).ok("GET", f"/v2/images/{identity}/tasks")
        found: list[dict[str, Any]] = answer.json()["tasks"]
        return found

    def rc(self, user: str) -> Mapping[str, str]:
        """The variables of a user's `openrc` file."""
        return {**self.keystone.openrc(user, user), "OS_REGION_NAME": "RegionOne"}

    def project_id(self, user: str) -> str:
        """The id of a user's project."""
        found = self.keystone.call("GET", f"/projects?name={user}")["projects"]
        identity: str = found[0]["id"]
        return identity

    def _token(self, user: str) -> str:
        if user not in self._tokens:
            self._tokens[user] = self.keystone.token(user, user)
        return self._tokens[user]


class WebServer:
    """Somebody's web server with files in a folder, for locations of images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        handler = partial(_Quiet, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def file(self, name: str, content: bytes) -> str:
        """Offer a file; its URL."""
        (self.folder / name).write_bytes(content)
        return f"http://127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def typed_in(file: str, program: str) -> set[str]:
    """The subcommands that a test file runs: the first argument of each `cloud.<program>(…)`, as written there."""
    found = set()
    for call in ast.walk(ast.parse(Path(file).read_text())):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name("cloud"), attr=name), args=[first, *_]) if name == program:
                assert isinstance(first, ast.Constant), f"line {call.lineno}: the subcommand must stand there as it is"
                found.add(str(first.value))
    return found


def is_glance() -> bool:
    """Whether the real Glance is under test."""
    return os.environ.get(PEER) == "glance"
