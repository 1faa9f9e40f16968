"""Limits that an operator registers in Keystone (unified limits) hold, whoever uploads what at the same time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.black_box.image_api import ImageApi
from tests.black_box.test_outages import identity_sections, without
from tests.conftest import ServiceFactory
from tests.rig.databases import MariaDB
from tests.rig.keystone import PASSWORD, REGION, SERVICE_USER, Keystone
from tests.rig.memcached import Memcached
from tests.rig.process import ServerFailed, wait_for
from tests.rig.services import Glimpse

MIB = 2**20
DEFAULTS = {"image_size_total": 100, "image_stage_total": 50, "image_count_total": 40, "image_count_uploading": 30}
OCTETS = {"Content-Type": "application/octet-stream"}


class Limits:
    """The limits of the image service, as an operator sets them."""

    def __init__(self, keystone: Keystone) -> None:
        self._keystone = keystone
        keystone.register_image_service("http://image.invalid")
        self.service: str = keystone.call("GET", "/services?type=image")["services"][0]["id"]
        endpoints = keystone.call("GET", f"/endpoints?service_id={self.service}&interface=public")["endpoints"]
        self.endpoint: str = endpoints[0]["id"]
        self.project: str = keystone.call("GET", "/projects?name=demo")["projects"][0]["id"]
        user = keystone.call("GET", f"/users?name={SERVICE_USER}")["users"][0]["id"]
        reader = keystone.call("GET", "/roles?name=reader")["roles"][0]["id"]
        keystone.call("PUT", f"/system/users/{user}/roles/{reader}")
        for name, limit in DEFAULTS.items():
            self.register(name, limit)

    def _entry(self, name: str, **more: object) -> dict[str, object]:
        return {"service_id": self.service, "region_id": REGION, "resource_name": name, **more}

    def register(self, name: str, limit: int) -> None:
        """Give every project this limit."""
        body = {"registered_limits": [self._entry(name, default_limit=limit)]}
        self._keystone.call("POST", "/registered_limits", body)

    def forget(self, name: str) -> None:
        """Take a limit away from every project, so that it is 0."""
        found = self._keystone.call("GET", f"/registered_limits?service_id={self.service}&resource_name={name}")
        self._keystone.call("DELETE", f"/registered_limits/{found['registered_limits'][0]['id']}")

    def give(self, name: str, limit: int) -> None:
        """Give the project `demo` a limit of its own."""
        query = f"service_id={self.service}&resource_name={name}&project_id={self.project}"
        found = self._keystone.call("GET", f"/limits?{query}")["limits"]
        if found:
            # Keystone 30 takes a change to 0 for no change.
            self._keystone.call("DELETE", f"/limits/{found[0]['id']}")
        entry = self._entry(name, project_id=self.project, resource_limit=limit)
        self._keystone.call("POST", "/limits", {"limits": [entry]})

    def take_back(self) -> None:
        """Take away the project's own limits."""
        for limit in self._keystone.call("GET", f"/limits?service_id={self.service}")["limits"]:
            self._keystone.call("DELETE", f"/limits/{limit['id']}")

    def options(self) -> dict[str, object]:
        """The section [oslo_limit], as the install guide has it."""
        return {
            "auth_url": self._keystone.url,
            "auth_type": "password",
            "user_domain_id": "default",
            "username": SERVICE_USER,
            "system_scope": "all",
            "password": PASSWORD,
            "endpoint_id": self.endpoint,
            "region_name": REGION,
        }


@pytest.fixture
def limits(keystone: Keystone) -> Iterator[Limits]:
    made = Limits(keystone)
    yield made
    made.take_back()
    keystone.forget_image_service()


@pytest.fixture
def service(
    limits: Limits, glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, memcached: Memcached, mariadb: MariaDB
) -> Glimpse:
    """Two workers on MariaDB."""
    sections: dict[str, dict[str, Any]] = {
        **identity_sections(keystone, memcached),
        "DEFAULT": {"enabled_backends": "fs:file", "workers": 2, "use_keystone_limits": "true"},
        "database": {"connection": mariadb.fresh_url()},
        "oslo_limit": limits.options(),
    }
    return glimpse_service(sections)


@pytest.fixture
def api(service: Glimpse, keystone: Keystone) -> ImageApi:
    return ImageApi(service.url, keystone.token("demo", "demo"))


def ready(api: ImageApi) -> str:
    return api.create(name="x", disk_format="raw", container_format="bare")


def put(api: ImageApi, image: str, body: bytes | Iterator[bytes]) -> int:
    """The status of an upload; an iterator has no size that could be known."""
    return api.call("PUT", f"/v2/images/{image}/file", data=body, headers=OCTETS).status_code


def unknown(size: int) -> Iterator[bytes]:
    for _ in range(size // 65536):
        yield bytes(65536)


def usage(api: ImageApi) -> dict[str, tuple[int, int]]:
    """(usage, limit) of each resource."""
    document = api.ok("GET", "/v2/info/usage").json()
    assert list(document) == ["usage"]
    return {name: (found["usage"], found["limit"]) for name, found in document["usage"].items()}


def test_usage(api: ImageApi, service: Glimpse, keystone: Keystone, limits: Limits) -> None:
    assert usage(api) == {name: (0, limit) for name, limit in DEFAULTS.items()}
    limits.give("image_size_total", 10)
    limits.give("image_count_uploading", -1)
    image = ready(api)
    api.upload(image, bytes(3 * MIB + 5))
    ready(api)
    assert usage(api) == {
        "image_size_total": (3, 10),
        "image_stage_total": (0, 50),
        "image_count_total": (2, 40),
        "image_count_uploading": (0, -1),
    }
    other = ImageApi(service.url, keystone.token("alt", "alt"))
    assert usage(other) == {name: (0, limit) for name, limit in DEFAULTS.items()}
    api.delete(image)
    assert usage(api)["image_size_total"] == (0, 10)


def test_number_of_images(api: ImageApi, limits: Limits) -> None:
    """A changed limit holds at once."""
    limits.give("image_count_total", 2)
    first = ready(api)
    ready(api)
    refusal = api.call("POST", "/v2/images", json={"name": "x"})
    assert refusal.status_code == 413
    assert "image_count_total: it has 2 of 2" in refusal.text
    limits.give("image_count_total", 3)
    ready(api)
    assert api.call("POST", "/v2/images", json={"name": "x"}).status_code == 413
    api.delete(first)
    ready(api)
    limits.give("image_count_total", -1)
    ready(api)
    limits.take_back()
    limits.forget("image_count_total")
    assert api.call("POST", "/v2/images", json={"name": "x"}).status_code == 413
    assert len(api.images()) == 4


def test_bytes(api: ImageApi, limits: Limits) -> None:
    limits.give("image_size_total", 5)
    images = [ready(api) for _ in range(3)]
    assert put(api, images[0], bytes(5 * MIB + 1)) == 413
    assert put(api, images[0], unknown(6 * MIB)) == 413
    assert api.show(images[0])["status"] == "queued"
    assert put(api, images[0], bytes(3 * MIB)) == 204
    assert put(api, images[1], bytes(2 * MIB + 1)) == 413
    assert put(api, images[1], bytes(2 * MIB)) == 204
    assert put(api, images[2], bytes(1)) == 413
    limits.give("image_size_total", -1)
    assert put(api, images[2], bytes(30 * MIB)) == 204


def test_one_more_of_unknown_size(api: ImageApi, limits: Limits) -> None:
    """Where exactly the whole limit is used, tempest expects that one goes through; it gets one MiB here."""
    limits.give("image_size_total", 1)
    images = [ready(api) for _ in range(4)]
    assert put(api, images[0], unknown(MIB)) == 204
    assert put(api, images[1], unknown(MIB + 65536)) == 413
    assert put(api, images[1], unknown(MIB)) == 204
    assert usage(api)["image_size_total"] == (2, 1)
    assert put(api, images[2], unknown(65536)) == 413
    api.delete(images[0])
    api.delete(images[1])
    limits.give("image_size_total", 0)
    assert put(api, images[2], unknown(65536)) == 413


@pytest.mark.parametrize("known", [True, False])
def test_bytes_at_once(api: ImageApi, limits: Limits, service: Glimpse, keystone: Keystone, known: bool) -> None:
    limits.give("image_size_total", 10)
    images = [ready(api) for _ in range(20)]
    token = keystone.token("demo", "demo")

    def upload(image: str) -> int:
        return put(ImageApi(service.url, token), image, bytes(MIB) if known else unknown(MIB))

    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(upload, images))
    assert set(statuses) <= {204, 413}
    # A last one of unknown size may have begun when exactly everything was used, see above.
    assert statuses.count(204) == 10 if known else 0 < statuses.count(204) <= 11
    assert usage(api)["image_size_total"][0] == statuses.count(204)
    assert usage(api)["image_count_uploading"][0] == 0


def begun(api: ImageApi, service: Glimpse, keystone: Keystone, image: str) -> Callable[[], int]:
    """An upload that goes on until it is asked for its status."""
    go_on = threading.Event()
    statuses: list[int] = []

    def body() -> Iterator[bytes]:
        yield bytes(MIB)
        go_on.wait(60)
        yield bytes(MIB)

    caller = ImageApi(service.url, keystone.token("demo", "demo"))
    thread = threading.Thread(target=lambda: statuses.append(put(caller, image, body())))
    thread.start()
    wait_for("the upload to begin", lambda: api.show(image)["status"] == "saving", 20)

    def end() -> int:
        go_on.set()
        thread.join(60)
        return statuses[0]

    return end


def test_number_of_uploads(api: ImageApi, limits: Limits, service: Glimpse, keystone: Keystone) -> None:
    limits.give("image_count_uploading", 1)
    first, second = ready(api), ready(api)
    end = begun(api, service, keystone, first)
    assert usage(api)["image_count_uploading"] == (1, 1)
    refusal = api.call("PUT", f"/v2/images/{second}/file", data=b"x", headers=OCTETS)
    assert refusal.status_code == 413
    assert "image_count_uploading: it has 1 of 1" in refusal.text
    assert api.show(second)["status"] == "queued"
    assert end() == 204
    assert put(api, second, b"x") == 204


def test_keystone_gone_and_back(api: ImageApi, service: Glimpse, keystone: Keystone) -> None:
    """What needs a limit is 503, also when nobody ever asked before; a running upload and everything else go on."""
    kept, waiting, running = ready(api), ready(api), ready(api)
    api.upload(kept, b"kept")
    end = begun(api, service, keystone, running)
    with without(keystone):
        assert api.call("POST", "/v2/images", json={"name": "x"}).status_code == 503
        assert put(api, waiting, b"x") == 503
        assert api.call("GET", "/v2/info/usage").status_code == 503
        assert api.download(kept) == b"kept"
        api.change(kept, {"op": "add", "path": "/name", "value": "kept"})
        assert len(api.images()) == 3
        api.delete(kept)
        assert end() == 204
        service.restart()
        assert api.call("POST", "/v2/images", json={"name": "x"}).status_code == 503
        assert api.show(waiting)["status"] == "queued"
    assert put(api, waiting, b"x") == 204
    assert usage(api)["image_size_total"] == (2, 100)
    assert "Traceback" not in service.logs
    assert PASSWORD not in service.logs


def test_keystone_that_never_answers(
    limits: Limits, glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, memcached: Memcached
) -> None:
    """Many calls that wait for a limit hold up no call that needs none, and end with 503."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        default = {"enabled_backends": "fs:file", "use_keystone_limits": "true", "workers": 1}
        service = glimpse_service(
            {
                **identity_sections(keystone, memcached),
                "DEFAULT": default,
                "oslo_limit": {**limits.options(), "auth_url": silent_url, "timeout": 2},
            }
        )
        token = keystone.token("demo", "demo")
        api = ImageApi(service.url, token)
        assert api.images() == []

        def create(_: int) -> int:
            return ImageApi(service.url, token).call("POST", "/v2/images", json={"name": "x"}).status_code

        with ThreadPoolExecutor(12) as threads:
            waiting = threads.map(create, range(12))
            for _ in range(20):
                began = time.monotonic()
                assert api.images() == []
                assert time.monotonic() - began < 1
                time.sleep(0.1)
            assert set(waiting) == {503}
        assert "Traceback" not in service.logs


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("auth_type", None, "auth_type is not set"),
        ("auth_type", "nonsense", "nonsense"),
        ("endpoint_id", None, "endpoint_id is not set"),
    ],
)
def test_a_section_that_cannot_be_used_stops_the_start(
    limits: Limits, glimpse_service: ServiceFactory[Glimpse], option: str, value: str | None, why: str
) -> None:
    options = limits.options()
    if value is None:
        del options[option]
    else:
        options[option] = value
    sections = {"DEFAULT": {"enabled_backends": "fs:file", "use_keystone_limits": "true"}, "oslo_limit": options}
    service = glimpse_service(sections, start=False)
    with pytest.raises(ServerFailed):
        service.start()
    [line] = [line for line in service.logs.splitlines() if "[oslo_limit]" in line]
    assert why in line
    assert "Traceback" not in service.logs
    assert PASSWORD not in service.logs


def test_wrong_password(
    limits: Limits, glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, memcached: Memcached
) -> None:
    """503 and a line in the log, for what needs a limit."""
    options = {**limits.options(), "password": "wrong-secret"}
    default = {"enabled_backends": "fs:file", "use_keystone_limits": "true"}
    sections = {**identity_sections(keystone, memcached), "DEFAULT": default, "oslo_limit": options}
    service = glimpse_service(sections)
    api = ImageApi(service.url, keystone.token("demo", "demo"))
    assert api.images() == []
    assert api.call("POST", "/v2/images", json={"name": "x"}).status_code == 503
    assert "limits cannot be had from Keystone" in service.logs
    assert "Traceback" not in service.logs
    assert "wrong-secret" not in service.logs
