"""Every URL, asked by every kind of caller: the answers are those of `policy_table.txt`, from Glimpse and from Glance.

The callers, with tokens of a real Keystone: nobody; a stranger (member of a project that has nothing to do with the
thing); a reader and a member of the project that owns it; a member of a project with which the image is shared; an
admin; a user whose only role is `service`, in the services' project.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from string import Template

import pytest

from tests.black_box.image_api import PATCH_TYPE, ImageApi
from tests.black_box.policy_table import CALLERS, Row, rows
from tests.conftest import ServiceFactory
from tests.rig.databases import MariaDB
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glance, Glimpse, ImageService

ACCOUNTS = {
    "stranger": ("stranger", "elsewhere"),
    "reader": ("demo_reader", "demo"),
    "member": ("demo", "demo"),
    "shared": ("alt", "alt"),
    "admin": ("admin", "admin"),
    "service": ("compute", "service"),
}
Kind = type[ImageService]


class Stage:
    """A running service, its callers, and the things that they are let loose on."""

    def __init__(self, url: str, keystone: Keystone) -> None:
        tokens = {name: keystone.token(*account) for name, account in ACCOUNTS.items()}
        self.callers = {name: ImageApi(url, tokens.get(name)) for name in CALLERS}
        projects = {project["name"]: project["id"] for project in keystone.call("GET", "/projects")["projects"]}
        self._owner, self._friend = projects["demo"], projects["alt"]
        self._kept: dict[str, dict[str, str]] = {}

    def ask(self, row: Row) -> tuple[int, ...]:
        """The status for each caller. A call that may change the thing gets a new one each time."""
        return tuple(self._status(row, self.callers[name]) for name in CALLERS)

    def ask_anonymously(self, row: Row) -> int:
        """The status without a token."""
        return self._status(row, self.callers["nobody"])

    def _status(self, row: Row, caller: ImageApi) -> int:
        if row.method == "GET":
            if row.on not in self._kept:
                self._kept[row.on] = self._make(row.on)
            names = self._kept[row.on]
        else:
            names = self._make(row.on)
        names = {**names, "fresh": uuid.uuid4().hex}
        headers = {}
        if row.body:
            headers["Content-Type"] = (
                "application/octet-stream" if row.path.endswith(("/file", "/stage")) else "application/json"
            )
        if row.method == "PATCH":
            headers["Content-Type"] = PATCH_TYPE
        body = Template(row.body).substitute(names)
        return caller.call(row.method, row.path.format_map(names), data=body or None, headers=headers).status_code

    def _make(self, kind: str) -> dict[str, str]:
        """What stands for the {parts} of a path."""
        if kind == "-":
            return {}
        if kind == "task":
            task = self.callers["admin"].ok("POST", "/v2/tasks", json={"type": "location_import", "input": {}}).json()
            return {"task_id": task["id"]}
        return self._namespace(kind) if kind in ("secret", "open") else self._image(kind)

    def _image(self, kind: str) -> dict[str, str]:
        owner = self.callers["member"]
        visibility = "community" if kind in ("community", "draft") else "shared"
        image = owner.create(disk_format="raw", container_format="bare", visibility=visibility, tags=["tagged"])
        if visibility == "shared":
            owner.ok("POST", f"/v2/images/{image}/members", json={"member": self._friend})
        if kind not in ("queued", "draft"):
            owner.upload(image, b"content")
        if kind == "off":
            owner.ok("POST", f"/v2/images/{image}/actions/deactivate")
        return {"image_id": image, "member_id": self._friend, "tag": "tagged", "store_id": "fs"}

    def _namespace(self, kind: str) -> dict[str, str]:
        name = uuid.uuid4().hex
        document = {
            "namespace": name,
            "owner": self._owner,
            "visibility": "public" if kind == "open" else "private",
            "objects": [{"name": "object"}],
            "properties": {"property": {"title": "A property", "type": "string"}},
            "tags": [{"name": "tag"}],
            "resource_type_associations": [{"name": f"OS::{name}"}],
        }
        self.callers["admin"].ok("POST", "/v2/metadefs/namespaces", json=document)
        return {"namespace": name, "object": "object", "property": "property", "tag": "tag", "type": f"OS::{name}"}


@pytest.fixture(scope="module")
def stage(
    mariadb: MariaDB, keystone: Keystone, memcached: Memcached, rig_folder: Path
) -> Iterator[Callable[..., Stage]]:
    """`stage(kind)` is that service with Keystone, a file store and one for locations on web servers.

    With `anonymous` it lets callers without a token in.
    """
    factories: list[ServiceFactory[ImageService]] = []
    sections: dict[str, dict[str, object]] = {
        "DEFAULT": {"enabled_backends": "fs:file,web:http"},
        # a location is not asked for before the call is answered; nobody listens there
        "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[9]"},
        "paste_deploy": {"flavor": "keystone+cachemanagement"},
        "oslo_concurrency": {"lock_path": rig_folder / "policy-locks"},
        "keystone_authtoken": dict(keystone.authtoken(memcached.address)),
    }

    @cache
    def started(kind: Kind, anonymous: bool = False) -> Stage:
        folder = rig_folder / f"policy-{kind.name}-{anonymous}"
        folder.mkdir()
        factories.append(ServiceFactory(kind, folder))
        # not SQLite: what Glance does in the background would lock its own callers out
        database = {"database": {"connection": mariadb.fresh_url()}}
        cache = {"image_cache_dir": folder / "cache", "worker_self_reference_url": "http://127.0.0.1:9292"}
        default = {"DEFAULT": {**sections["DEFAULT"], **cache, "allow_anonymous_access": anonymous}}
        return Stage(factories[-1]({**sections, **database, **default}).url, keystone)

    try:
        yield started
    finally:
        for factory in factories:
            factory.stop_all()


CASES = [(kind, row) for kind in (Glimpse, Glance) for row in rows()]


@pytest.mark.parametrize(
    ("kind", "row"), CASES, ids=[f"{kind.__name__} {row.method} {row.path} {row.on}" for kind, row in CASES]
)
def test_answers(stage: Callable[..., Stage], kind: Kind, row: Row) -> None:
    found = dict(zip(CALLERS, stage(kind).ask(row), strict=True))
    assert found == dict(zip(CALLERS, row.codes, strict=True))


WRITES = [row for row in rows() if row.method != "GET"]


@pytest.mark.parametrize("row", WRITES, ids=[f"{row.method} {row.path} {row.on}" for row in WRITES])
def test_anonymous_callers_write_nothing(stage: Callable[..., Stage], row: Row) -> None:
    """With allow_anonymous_access. Glance says 404 where its policy hides the thing first: metadefs, locations."""
    assert stage(Glimpse, anonymous=True).ask_anonymously(row) == 403
