"""Imports of callers who want more of them than they are for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from .client import Api, add, replace, web_download
from .content import noise, qcow2
from .site import Site
from .test_import import DIRECT, held
from .test_location_api import refused

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
