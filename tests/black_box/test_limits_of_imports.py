"""Unified limits hold for what is staged and imported (spec 6.2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.black_box.image_api import ImageApi
from tests.black_box.test_outages import identity_sections
from tests.black_box.test_unified_limits import MIB, OCTETS, Limits, limits, ready, unknown, usage
from tests.conftest import ServiceFactory
from tests.journeys.conftest import ON_LOOPBACK
from tests.journeys.site import Site
from tests.rig.databases import MariaDB
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glimpse

__all__ = ["limits"]


@pytest.fixture
def service(
    limits: Limits, glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, memcached: Memcached,
    mariadb: MariaDB, service_folder: Path,
) -> Glimpse:  # fmt: skip
    """Two workers, two stores."""
    sections: dict[str, dict[str, Any]] = {
        **identity_sections(keystone, memcached),
        "DEFAULT": {"enabled_backends": "fs:file,fast:file", "workers": 2, "use_keystone_limits": "true"},
        "database": {"connection": mariadb.fresh_url()},
        "oslo_limit": limits.options(),
        "fs": {"filesystem_store_datadir": service_folder / "images"},
        "fast": {"filesystem_store_datadir": service_folder / "fast"},
        "os_glance_staging_store": {"filesystem_store_datadir": service_folder / "staging"},
        **ON_LOOPBACK,
    }
    return glimpse_service(sections)


@pytest.fixture
def api(service: Glimpse, keystone: Keystone) -> ImageApi:
    return ImageApi(service.url, keystone.token("demo", "demo"))


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.stop()


def stage(api: ImageApi, image: str, body: bytes | Iterator[bytes]) -> int:
    return api.call("PUT", f"/v2/images/{image}/stage", data=body, headers=OCTETS).status_code


def order(api: ImageApi, image: str, method: dict[str, Any], **more: Any) -> int:
    return api.call("POST", f"/v2/images/{image}/import", json={"method": method, **more}).status_code


def outcome(api: ImageApi, image: str, *before: str) -> tuple[str, str, str, str]:
    """Status of the image and of its task, the task's message and id; `before` are tasks that had ended before."""
    deadline = time.monotonic() + 30
    while True:
        tasks = api.ok("GET", f"/v2/images/{image}/tasks").json()["tasks"]
        [task] = [task for task in tasks if task["id"] not in before]
        if task["status"] in ("success", "failure"):
            return api.show(image)["status"], task["status"], task["message"], task["id"]
        assert time.monotonic() < deadline, tasks
        time.sleep(0.1)


def left(folder: Path, image: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and image in path.name]


def web(url: str) -> dict[str, str]:
    return {"name": "web-download", "uri": url}


DIRECT = {"name": "glance-direct"}


def test_staging(api: ImageApi, limits: Limits, service_folder: Path) -> None:
    limits.give("image_stage_total", 2)
    image, other = ready(api), ready(api)
    for body in (bytes(3 * MIB), unknown(4 * MIB)):
        assert stage(api, image, body) == 413
        assert (api.show(image)["status"], left(service_folder, image)) == ("queued", [])
    assert stage(api, image, bytes(2 * MIB)) == 204
    assert usage(api)["image_stage_total"] == (2, 2)
    assert usage(api)["image_size_total"][0] == 0
    assert stage(api, other, bytes(MIB)) == 413
    assert order(api, image, DIRECT) == 202
    assert outcome(api, image)[:2] == ("active", "success")
    assert (usage(api)["image_stage_total"], usage(api)["image_size_total"][0]) == ((0, 2), 2)
    assert stage(api, other, bytes(MIB)) == 204
    api.delete(other)
    assert usage(api)["image_stage_total"] == (0, 2)


def test_how_many_at_once(api: ImageApi, limits: Limits, site: Site, service_folder: Path) -> None:
    limits.give("image_count_uploading", 1)
    first, second = ready(api), ready(api)
    assert stage(api, first, bytes(MIB)) == 204
    assert usage(api)["image_count_uploading"] == (1, 1)
    assert stage(api, second, bytes(MIB)) == 413
    assert (api.show(second)["status"], left(service_folder, second)) == ("queued", [])
    assert order(api, second, web(site.add(b"content"))) == 202
    status, task, message, failed = outcome(api, second)
    assert (status, task, "image_count_uploading" in message) == ("queued", "failure", True)
    assert order(api, first, DIRECT) == 202
    assert outcome(api, first)[:2] == ("active", "success")
    assert order(api, second, web(site.add(b"content"))) == 202
    assert outcome(api, second, failed)[:2] == ("active", "success")


def test_each_copy_counts(
    api: ImageApi, limits: Limits, service_folder: Path, service: Glimpse, keystone: Keystone
) -> None:
    limits.give("image_size_total", 3)
    image = ready(api)
    assert stage(api, image, bytes(2 * MIB)) == 204
    assert order(api, image, DIRECT, all_stores=True) == 202
    status, task, message, failed = outcome(api, image)
    assert (task, "image_size_total" in message) == ("failure", True)
    assert status in ("queued", "uploading")
    assert usage(api)["image_size_total"] == (0, 3)
    if status == "queued":
        assert left(service_folder, image) == []
        assert stage(api, image, bytes(2 * MIB)) == 204
    assert order(api, image, DIRECT, stores=["fs"]) == 202
    assert outcome(api, image, failed)[:2] == ("active", "success")
    admin = ImageApi(service.url, keystone.token("admin", "admin"))
    assert order(admin, image, {"name": "copy-image"}, stores=["fast"]) == 202
    before = [task["id"] for task in api.ok("GET", f"/v2/images/{image}/tasks").json()["tasks"]]
    status, task, message, failed = outcome(admin, image, *before)
    assert (status, task, "image_size_total" in message) == ("active", "failure", True)
    assert len(left(service_folder, image)) == 1
    limits.give("image_size_total", 4)
    assert order(admin, image, {"name": "copy-image"}, stores=["fast"]) == 202
    assert outcome(admin, image, *before, failed)[:2] == ("active", "success")
    assert len(left(service_folder, image)) == 2
    assert usage(api)["image_size_total"] == (4, 4)


@pytest.mark.parametrize("announced", [True, False])
def test_from_the_web(api: ImageApi, limits: Limits, site: Site, service_folder: Path, announced: bool) -> None:
    limits.give("image_size_total", 3)
    image, url = ready(api), site.add(bytes(4 * MIB))
    if not announced:
        site.announced[url.removeprefix(site.url)] = None
    assert order(api, image, web(url)) == 202
    status, task, message, failed = outcome(api, image)
    assert (status, task, "image_size_total" in message) == ("queued", "failure", True)
    assert left(service_folder, image) == []
    assert usage(api)["image_size_total"] == (0, 3)
    assert order(api, image, web(site.add(bytes(3 * MIB)))) == 202
    assert outcome(api, image, failed)[:2] == ("active", "success")


def test_nothing_more_is_taken_when_there_is_too_much(api: ImageApi, limits: Limits, site: Site) -> None:
    api.upload(ready(api), bytes(3 * MIB))
    limits.give("image_size_total", 1)
    image = ready(api)
    assert order(api, image, web(site.add(b"content"))) == 413
    assert api.show(image)["status"] == "queued"
    assert api.ok("GET", f"/v2/images/{image}/tasks").json()["tasks"] == []
