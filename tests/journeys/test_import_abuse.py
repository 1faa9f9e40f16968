"""Imports of callers who want more of them than they are for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .client import Api, add, replace, web_download
from .conftest import IMPORTS
from .content import noise, qcow2
from .service import Service
from .site import Site
from .test_import import DIRECT, held
from .test_import_plugins import with_plugins
from .test_location_api import ended, post, refused

Who = Callable[[str], Api]


@pytest.mark.better_than_glance  # which makes it a part of whatever the image becomes
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_a_refused_location_never_comes_to_life(placer: Who, site: Site, method: str) -> None:
    """Nobody has looked at the bytes there, and they may be others every time."""
    alice, data = placer("alice"), b"content"
    image = refused(alice, site, data)
    if method == DIRECT:
        assert alice.raw_stage(image["id"], data).status_code == 204
    shown, task = alice.imported(image["id"], method if method == DIRECT else web_download(site.add(data)))
    assert (task["status"], shown["status"]) == ("success", "active")
    assert [location["metadata"]["store"] for location in shown["locations"]] == ["fs"]
    assert alice.download(image["id"]) == data


@pytest.mark.better_than_glance
@pytest.mark.parametrize("declared", [("ovf", "qcow2"), ("bare", "raw")])
def test_the_formats_are_those_that_were_inspected(importer: Api, site: Site, declared: tuple[str, str]) -> None:
    """OSSA-2024-001: what is in a container is not inspected, and must not come out of it while it is imported."""
    container_format, disk_format = declared
    harmless, harmful = noise(70_000), qcow2(backing=512)
    go = held(site)
    image = importer.create(container_format=container_format, disk_format=disk_format)
    importer.order(image["id"], web_download(site.add(harmless if disk_format == "raw" else harmful)))
    importer.wait_for_status(image["id"], "importing")
    while not site.asked:
        time.sleep(0.01)
    importer.patch(image["id"], replace("container_format", "bare"), replace("disk_format", "qcow2"))
    go.set()
    shown, _ = importer.settled(image["id"])
    assert (shown["status"], shown["container_format"], shown["disk_format"]) == ("active", *declared)


@pytest.mark.parametrize("depth", [500, 990, 1100, 20_000])
@pytest.mark.parametrize("where", ["method", "stores", "extra"])
def test_deep_bodies(importer: Api, depth: int, where: str) -> None:
    image = importer.staged()
    body: dict[str, Any] = {"method": {"name": DIRECT}, where: "HERE"}
    text = json.dumps(body).replace('"HERE"', "[" * depth + "]" * depth)
    answer = importer.http.post(
        f"/v2/images/{image['id']}/import", content=text, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (202, 400), answer.text


@pytest.mark.parametrize(
    "name", ["OS_GLANCE_TASK_LEASE", "Os_Glance_stage_host", "os_glance_x", "os_glancé", "Ös_glance_a"]
)
def test_names_that_a_database_takes_for_marks(importer: Api, name: str) -> None:
    """MariaDB tells neither case nor accents apart, and the service's own marks would find these."""
    assert importer.raw_create(**{name: "x"}).status_code == 403
    image = importer.ready()
    assert importer.raw_patch(image["id"], [add(name, "x")]).status_code == 403


@pytest.mark.better_than_glance
def test_a_copy_of_other_bytes_than_promised(own: Callable[..., Service], site: Site) -> None:
    """OSSN-0065: who has the web server has changed what is there."""
    service = own({**IMPORTS, "DEFAULT": {**IMPORTS["DEFAULT"], "do_secure_hash": False}})
    api, data = Api(service.url), b"content"
    for algorithm in ("sha256", "sha512"):
        image, url = api.ready(), site.add(data)
        value = hashlib.new(algorithm, data).hexdigest().upper()
        assert post(api, image["id"], url, os_hash_algo=algorithm, os_hash_value=value).status_code == 202
        assert ended(api, image["id"])[0]["status"] == "active"
        site.pages[url.removeprefix(site.url)] = b"CONTENT"
        shown, task = api.imported(image["id"], "copy-image", stores=["fs"])
        assert (shown["status"], shown["stores"], task["status"]) == ("active", "web", "failure")
        assert service.stored(image["id"]) == []
        site.pages[url.removeprefix(site.url)] = data
        shown, task = api.imported(image["id"], "copy-image", stores=["fast"])
        assert (set(shown["stores"].split(",")), task["status"]) == ({"web", "fast"}, "success")
    api.close()


@pytest.fixture
def converting(own: Callable[..., Service]) -> Service:
    changes = with_plugins("image_conversion")
    return own({**changes, "DEFAULT": {**changes["DEFAULT"], "user_storage_quota": "1MB"}})


def packed(folder: Path, data: bytes) -> bytes:
    (folder / "raw").write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", folder / "raw", folder / "qcow2"], check=True)
    return (folder / "qcow2").read_bytes()


@pytest.mark.better_than_glance
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
def test_what_is_converted_is_what_counts(converting: Service, site: Site, tmp_path: Path, method: str) -> None:
    """A quota of 1 MiB, a file of 200 KiB, a disk of 3 MiB."""
    api, data = Api(converting.url), packed(tmp_path, bytes(3 << 20))
    image = api.ready(disk_format="qcow2") if method == "web-download" else api.staged(data, disk_format="qcow2")
    shown, task = api.imported(image["id"], method if method == DIRECT else web_download(site.add(data)))
    assert (shown["status"], task["status"]) == ("queued", "failure")
    assert "user_storage_quota" in task["message"]
    assert converting.stored(image["id"]) == []
    api.close()


@pytest.mark.better_than_glance
def test_what_another_import_has_left_is_not_imported(converting: Service, site: Site, tmp_path: Path) -> None:
    """A process that was killed on this node, while its task ended on another."""
    api, data = Api(converting.url), packed(tmp_path, noise(70_000))
    image = api.ready(disk_format="qcow2")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("fetched", "converted"):
        left = packed(other, noise(70_000, 2)) if name == "fetched" else noise(70_000, 2)
        (converting.home / "staging" / f"{image['id']}.{name}").write_bytes(left)
    shown, task = api.imported(image["id"], web_download(site.add(data)))
    assert (shown["status"], task["message"].startswith("Copied")) == ("active", True)
    assert api.download(image["id"])[:70_000] == noise(70_000)
    assert converting.stored(image["id"]) == [converting.home / "images" / image["id"]]
    api.close()
