"""As much of Cinder's and Keystone's APIs as a Cinder store uses, with files as volumes.

A Cinder of its own, with a message broker, three daemons and a driver that makes files, would take minutes of each run;
by hand the suite was held against Cinder 29 like that. glance_store's driver, python-cinderclient and os-brick are the
real ones here; os-brick's connector for local devices takes the files.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from oslo_config import cfg
from oslo_service.backend import BackendType, init_backend


@pytest.fixture
def block_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What os-brick says of a host; it asks as root. The configuration of the process is put back."""
    init_backend(BackendType.THREADING)  # as the adapter does, before os-brick is imported
    monkeypatch.setattr(
        "os_brick.initiator.connector.get_connector_properties", lambda *_args, **_more: {"host": "here"}
    )
    yield
    cfg.CONF.clear()


def credentials(url: str, project: str = "service") -> dict[str, object]:
    """The options of a store with an account of its own."""
    return {
        "cinder_store_auth_address": f"{url}/v3", "cinder_store_user_name": f"user-of-{project}",
        "cinder_store_password": "secret", "cinder_store_project_name": project, "cinder_http_retries": 0,
    }  # fmt: skip


@dataclass
class CinderApi:
    """One cloud. Projects and tokens have the same name; `refuse` is what calls answer instead."""

    folder: Path
    url: str = ""
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    attachments: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: dict[tuple[str, str], int] = field(default_factory=dict)  # by method and the kind of thing
    users: list[str] = field(default_factory=list)  # who asked Keystone for tokens
    projects: list[str] = field(default_factory=list)  # whose volumes were asked for
    quota: int = 100
    attached: int = 0  # how often a volume was
    on_detach: Callable[[], object] = bool

    def app(self) -> web.Application:
        app = web.Application()
        route = app.router.add_route
        route("GET", "/v3", self._keystone)
        route("POST", "/v3/auth/tokens", self._login)
        route("GET", "/v3/auth/catalog", self._catalogue)
        route("*", "/volume/v3/{project}/{kind}", self._cinder)
        route("*", "/volume/v3/{project}/{kind}/{id}", self._cinder)
        route("*", "/volume/v3/{project}/{kind}/{id}/{part}", self._cinder)
        return app

    def path(self, volume: str) -> Path:
        return self.folder / volume

    def add_volume(self, content: bytes, **about: Any) -> str:
        """A volume that is there already; its id."""
        volume = str(uuid.uuid4())
        self.path(volume).write_bytes(content)
        self.volumes[volume] = self._volume(volume, {"size": 1, "metadata": {"image_size": str(len(content))}, **about})
        return volume

    def _volume(self, volume: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": volume, "status": "available", "multiattach": False, "attachments": [], "encrypted": False,
            "name": None, "volume_type": "plain", **wanted,
        }  # fmt: skip

    async def _keystone(self, request: web.Request) -> web.Response:
        links = [{"rel": "self", "href": f"{self.url}/v3"}]
        return web.json_response({"version": {"id": "v3.14", "status": "stable", "links": links}})

    def _services(self, project: str) -> list[Mapping[str, Any]]:
        endpoint = {"interface": "public", "region": "One", "url": f"{self.url}/volume/v3/{project}"}
        return [{"type": "volumev3", "name": "cinderv3", "endpoints": [endpoint]}]

    async def _login(self, request: web.Request) -> web.Response:
        asked = (await request.json())["auth"]
        user, project = asked["identity"]["password"]["user"]["name"], asked["scope"]["project"]["name"]
        self.users.append(user)
        token = {
            "methods": ["password"], "expires_at": "2100-01-01T00:00:00.000000Z", "catalog": self._services(project),
            "user": {"id": user, "name": user, "domain": {"id": "d"}}, "issued_at": "2020-01-01T00:00:00.000000Z",
            "project": {"id": project, "name": project, "domain": {"id": "d"}}, "roles": [],
        }  # fmt: skip
        return web.json_response({"token": token}, status=201, headers={"X-Subject-Token": project})

    async def _catalogue(self, request: web.Request) -> web.Response:
        return web.json_response({"catalog": self._services(request.headers["X-Auth-Token"])})

    async def _cinder(self, request: web.Request) -> web.Response:
        at = request.match_info
        project, kind = at["project"], at["kind"]
        if request.headers["X-Auth-Token"] != project:
            return web.json_response({"unauthorized": {"message": "no"}}, status=401)
        self.projects.append(project)
        called = f"{kind}/{at['part']}" if "part" in at else kind
        if status := self.refuse.get((request.method, called)):
            return web.json_response({"refused": {"message": "no", "code": status}}, status=status)
        body = json.loads(await request.read() or "{}")
        handler = getattr(self, f"_{kind}_{request.method.lower()}")
        answer: web.Response = handler(request, project, at.get("id", ""), at.get("part", ""), body)
        return answer

    def _mine(self, project: str, volume: str) -> dict[str, Any]:
        found = self.volumes.get(volume)
        if found is None or found.get("project", project) != project:
            text = json.dumps({"itemNotFound": {"message": f"Volume {volume} could not be found.", "code": 404}})
            raise web.HTTPNotFound(text=text, content_type="application/json")
        return found

    def _volumes_post(self, request: web.Request, project: str, volume: str, part: str, body: Any) -> web.Response:
        if not volume:
            if len(self.volumes) >= self.quota:
                refusal = {"overLimit": {"message": "VolumeLimitExceeded: no more", "code": 413}}
                return web.json_response(refusal, status=413, headers={"Retry-After": "0"})
            volume = str(uuid.uuid4())
            self.path(volume).write_bytes(b"")
            self.volumes[volume] = {**self._volume(volume, body["volume"]), "project": project}
            return web.json_response({"volume": self.volumes[volume]}, status=202)
        found = self._mine(project, volume)
        found["readonly"] = body.get("os-update_readonly_flag", {}).get("readonly", False)
        return web.json_response({}, status=202)

    def _volumes_put(self, request: web.Request, project: str, volume: str, part: str, body: Any) -> web.Response:
        self._mine(project, volume)["metadata"] = body["metadata"]
        return web.json_response(body)

    def _volumes_get(self, request: web.Request, project: str, volume: str, part: str, body: Any) -> web.Response:
        if volume not in ("", "detail"):
            return web.json_response({"volume": self._mine(project, volume)})
        if request.headers.get("OpenStack-API-Version", "volume 3.0") != "volume 3.0":
            text = "Invalid filters metadata,name are found in query options."  # where resource_filters.json is absent
            return web.json_response({"badRequest": {"message": text, "code": 400}}, status=400)
        name = request.query.get("name")
        found = [each for each in self.volumes.values() if each.get("project", project) == project]
        return web.json_response({"volumes": [each for each in found if name in (None, each["name"])]})

    def _volumes_delete(self, request: web.Request, project: str, volume: str, part: str, body: Any) -> web.Response:
        found = self._mine(project, volume)
        if found["status"] != "available":
            refusal = {"badRequest": {"message": "Invalid volume: status must be available", "code": 400}}
            return web.json_response(refusal, status=400)
        del self.volumes[volume]
        self.path(volume).unlink()
        return web.Response(status=202)

    def _attachments_post(self, request: web.Request, project: str, name: str, part: str, body: Any) -> web.Response:
        if name:
            return web.Response(status=204)
        volume, attachment = body["attachment"]["volume_uuid"], str(uuid.uuid4())
        found = self._mine(project, volume)
        if found["status"] != "available":
            text = f"Volume {volume} status must be available or downloading to reserve"
            return web.json_response({"badRequest": {"message": text, "code": 400}}, status=400)
        found["status"] = "in-use"
        self.attached += 1
        self.attachments[attachment] = {"id": attachment, "volume_id": volume, "connection_info": {}}
        return web.json_response({"attachment": self.attachments[attachment]})

    def _attachments_put(self, request: web.Request, project: str, name: str, part: str, body: Any) -> web.Response:
        attachment = self.attachments[name]
        device = {"driver_volume_type": "local", "device_path": str(self.path(attachment["volume_id"]))}
        attachment["connection_info"] = device
        return web.json_response({"attachment": attachment})

    def _attachments_get(self, request: web.Request, project: str, name: str, part: str, body: Any) -> web.Response:
        volume = request.query.get("volume_id")
        found = [each for each in self.attachments.values() if each["volume_id"] == volume]
        return web.json_response({"attachments": found})

    def _attachments_delete(self, request: web.Request, project: str, name: str, part: str, body: Any) -> web.Response:
        self.on_detach()
        volume = self.attachments.pop(name)["volume_id"]
        if volume in self.volumes and all(each["volume_id"] != volume for each in self.attachments.values()):
            self.volumes[volume]["status"] = "available"
        return web.json_response({"attachments": []})
