"""The two sides: Glance and Glimpse with the same configuration, each with a database and stores of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServiceFactory
from tests.differential.play import Side
from tests.differential.steps import USERS
from tests.rig.databases import MariaDB
from tests.rig.keystone import PASSWORD, Keystone
from tests.rig.memcached import Memcached
from tests.rig.process import wait_for
from tests.rig.services import Glance, Glimpse, ImageService, config_text

CONTENT = b"somebody else's bytes"


def sections(folder: Path, database: str, authtoken: dict[str, str], web: str) -> dict[str, dict[str, object]]:
    """What both sides get. Small limits, so that a few requests reach them."""
    return {
        "DEFAULT": {
            "enabled_backends": "fs:file,fast:file,web:http",
            "show_multiple_locations": True,
            "show_image_direct_url": True,
            "image_property_quota": 10,
            "image_tag_quota": 8,
            "image_member_quota": 4,
            "image_location_quota": 3,
        },
        "database": {"connection": database},
        "glance_store": {"default_backend": "fs"},
        "fs": {"filesystem_store_datadir": folder / "fs", "weight": 100, "store_description": "the first"},
        "fast": {"filesystem_store_datadir": folder / "fast", "weight": 200},
        # as a list in brackets: Glance wants them so
        "import_filtering_opts": {
            "allowed_ports": f"[80,443,{web.rpartition(':')[2]}]",
            "allowed_hosts": "[127.0.0.1]",
        },
        "paste_deploy": {"flavor": "keystone"},
        "keystone_authtoken": dict(authtoken),
    }


class _Places(BaseHTTPRequestHandler):
    """A web server with one file, /file, and one that is not there, anything else."""

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        if self._head():
            self.wfile.write(CONTENT)

    def _head(self) -> bool:
        found = self.path.startswith("/file")
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        return found

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the requests are those of the services."""


@pytest.fixture(scope="session")
def web() -> Iterator[str]:
    """The base of a web server of somebody else, which both sides may point at."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Places)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def add_user_of_two_projects(keystone: Keystone) -> None:
    """The user that only this test has."""
    roles = {role["name"]: role["id"] for role in keystone.call("GET", "/roles")["roles"]}
    projects = project_ids(keystone)
    fields = {"name": "two", "password": PASSWORD, "domain_id": "default"}
    user = keystone.call("POST", "/users", {"user": fields})["user"]["id"]
    for project in ("demo", "alt"):
        keystone.call("PUT", f"/projects/{projects[project]}/users/{user}/roles/{roles['member']}")


def project_ids(keystone: Keystone) -> dict[str, str]:
    """Name to id."""
    return {project["name"]: project["id"] for project in keystone.call("GET", "/projects")["projects"]}


def make_side(service: ImageService, database: str, keystone: Keystone, web: str) -> Side:
    """The side of a service that runs."""
    tokens = {name: keystone.token(*account) for name, account in USERS.items() if account is not None}
    known = {**project_ids(keystone), "web": web, "service-token": tokens["service"], "folder": str(service.data_dir)}
    side = Side(service.name, service.url, database, str(service.data_dir), tokens, known)
    for name in tokens:  # the first questions to Keystone may meet connections that it gave up
        wait_for(f"an answer to {name}", lambda user=name: side.asks(user), 30)
    return side


@pytest.fixture
def sides(
    mariadb: MariaDB,
    keystone: Keystone,
    memcached: Memcached,
    web: str,
    glance_service: ServiceFactory[Glance],
    glimpse_service: ServiceFactory[Glimpse],
) -> tuple[Side, Side]:
    """Glance and Glimpse, running."""
    add_user_of_two_projects(keystone)
    authtoken = keystone.authtoken(memcached.address)
    made = []
    for factory in (glance_service, glimpse_service):
        database = mariadb.fresh_url()
        service = factory(start=False)
        service.config_file.write_text(config_text(sections(service.data_dir, database, authtoken, web)))
        service.manage("db_sync")
        service.start()
        made.append(make_side(service, database, keystone, web))
    return made[0], made[1]
