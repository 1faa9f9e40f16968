"""Imports that begin with POST /v2/tasks: what becomes of them (spec 2.5). Each ends with an image, or with nothing."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .client import Api, Image, unused
from .conftest import ON_LOOPBACK
from .content import MIB, VIRTUAL, noise, qcow2, vmdk
from .service import Service
from .site import Site
from .test_location_api import held

Who = Callable[[str], Api]
CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ProcessorAllocationSettingData"


def order(api: Api, url: str, **properties: Any) -> dict[str, Any]:
    """The task of an import, just after it was ordered."""
    source = {"import_from": url, "import_from_format": "raw", "image_properties": properties}
    response = api.request("POST", "/v2/tasks", json={"type": "import", "input": source})
    assert response.status_code == 201, response.text
    task: dict[str, Any] = response.json()
    return task


def end(api: Api, task: dict[str, Any], seconds: float = 30) -> dict[str, Any]:
    """The task when it has ended."""
    deadline = time.monotonic() + seconds
    while (shown := api.get(task["self"]).json())["status"] in ("pending", "processing"):
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    return dict(shown)


def imported(api: Api, url: str, **properties: Any) -> Image:
    """The image that came of an import."""
    task = end(api, order(api, url, **properties))
    assert (task["status"], set(task["result"] or ())) == ("success", {"image_id"}), task
    return api.show(task["result"]["image_id"])


def failed(api: Api, url: str, **properties: Any) -> str:
    """The message of an import that came to nothing; no image is left of it."""
    name = unused()
    task = end(api, order(api, url, **{"name": name, **properties}))
    assert (task["status"], task["result"]) == ("failure", None)
    assert api.list(name=name) == []
    assert task["message"]
    return str(task["message"])


def leftovers(service: Service) -> list[str]:
    """What there is besides images."""
    folders = [service.home / name for name in ("tasks", "staging")]
    return [path.name for folder in folders if folder.exists() for path in folder.iterdir()]


def stored(service: Service) -> set[str]:
    """Names of files in stores."""
    return {path.name for name in ("images", "fast") for path in (service.home / name).glob("*")}


def test_an_image_from_the_web(placer: Who, open_places: Service, site: Site) -> None:
    admin, data = placer("admin"), noise(3 * MIB)
    url = site.add(data)
    task = order(admin, url, name="n", disk_format="raw", container_format="bare", min_disk=2, tags=["t"], x="y")
    ended = end(admin, task)
    image = admin.show(ended["result"]["image_id"])
    assert (image["status"], image["name"], image["min_disk"], image["tags"]) == ("active", "n", 2, ["t"])
    assert (image["x"], image["owner"], image["size"]) == ("y", task["owner"], len(data))
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert (image["disk_format"], image["container_format"], image["virtual_size"]) == ("raw", "bare", len(data))
    assert not [name for name in image if name.startswith("os_glance")]
    assert [place["metadata"] for place in image["locations"]] == [{"store": "fs"}]
    assert admin.download(image["id"]) == data
    assert leftovers(open_places) == []
    assert ended["expires_at"]
    assert admin.get(f"/v2/images/{image['id']}/tasks").json()["tasks"][0]["id"] == task["id"]


def test_the_format_is_what_the_content_shows(placer: Who, site: Site) -> None:
    admin = placer("admin")
    for data, declared, shown in (
        (qcow2(), {}, "qcow2"),
        (noise(100_000), {}, "raw"),
        (qcow2(), {"disk_format": "raw"}, "qcow2"),
        (vmdk(), {"disk_format": "qcow2"}, "vmdk"),
        (noise(100_000), {"disk_format": "ami"}, "ami"),
    ):
        properties = {"container_format": "bare", **declared} if declared else {}
        image = imported(admin, site.add(data), **properties)
        assert (image["disk_format"], image["container_format"]) == (shown, "bare")
        if shown in ("qcow2", "vmdk"):
            assert image["virtual_size"] == VIRTUAL


@pytest.mark.parametrize("data", [qcow2(backing=512), qcow2(features=4)], ids=["backing file", "data file"])
def test_content_that_is_not_safe(placer: Who, open_places: Service, site: Site, data: bytes) -> None:
    before = stored(open_places)
    assert "safety" in failed(placer("admin"), site.add(data), disk_format="qcow2", container_format="bare")
    assert leftovers(open_places) == []
    assert stored(open_places) == before


def test_nothing_is_there(placer: Who, open_places: Service, site: Site) -> None:
    admin = placer("admin")
    failed(admin, f"{site.url}/nothing", disk_format="raw", container_format="bare")
    assert leftovers(open_places) == []


def test_a_redirect_that_leads_astray(placer: Who, site: Site) -> None:
    """OSSN-0105: the filter holds for each place that the task is sent on to."""
    url = f"{site.url}/moved/x"
    for target in ("file:///etc/passwd", "http://10.0.0.1/x", "http://2130706433/x", "ftp://127.0.0.1/x"):
        site.pages["/moved/x"] = target.encode()
        assert "10.0.0.1" not in failed(placer("admin"), url, disk_format="raw", container_format="bare")


@pytest.mark.parametrize(
    "body",
    [
        {"import_from_format": "raw"}, {"image_properties": {}}, {"import_from_format": "raw", "image_properties": "x"},
        {"import_from_format": "raw", "image_properties": {"disk_format": "nothing"}},
        {"import_from_format": "raw", "image_properties": {"name": "x"}},
        {"import_from_format": "raw", "image_properties": {"os_glance_x": "y"}},
        {"import_from_format": "raw", "image_properties": {"status": "active"}},
        {"import_from_format": "raw", "image_properties": {"locations": []}},
    ],
)  # fmt: skip
def test_descriptions_that_make_no_image(placer: Who, site: Site, body: dict[str, Any]) -> None:
    """The order is taken, as by Glance, and fails; nothing is fetched."""
    admin = placer("admin")
    before = {image["id"] for image in admin.list(limit="1000")}
    url = site.add(b"content")
    response = admin.request("POST", "/v2/tasks", json={"type": "import", "input": {"import_from": url, **body}})
    assert response.status_code == 201
    task = end(admin, response.json())
    assert (task["status"], task["result"], bool(task["message"])) == ("failure", None, True)
    assert {image["id"] for image in admin.list(limit="1000")} == before
    assert site.asked == []


def test_while_it_goes_on(placer: Who, site: Site) -> None:
    """The image is the task's alone; whoever deletes it ends the task."""
    admin, go = placer("admin"), held(site)
    task = order(admin, site.add(b"content"), name="n", disk_format="raw", container_format="bare")
    image = admin.wait_for_status(admin.get(task["self"]).json()["image_id"], "importing")
    assert image["os_glance_import_task"] == task["id"]
    assert admin.raw_upload(image["id"], b"x").status_code == 409
    assert admin.raw_delete(image["id"]).status_code == 204
    go.set()
    ended = end(admin, task)
    assert (ended["status"], ended["result"]) == ("failure", None)
    assert admin.raw_show(image["id"]).status_code == 404


# --- packages --------------------------------------------------------------------------------------------------------


def package(disk: bytes, name: str = "disk.vmdk", more: tuple[str, bytes] | None = None) -> bytes:
    """An OVA package with one disk."""
    description = f"""<Envelope xmlns:cim="{CIM}"><References><File id="f" href="disk.vmdk"/></References>
      <DiskSection><Disk fileRef="f"/></DiskSection><cim:InstructionSet>DMTF:x86:i686</cim:InstructionSet>
      <cim:Other>no</cim:Other></Envelope>"""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for each, data in [("machine.ovf", description.encode()), (name, disk), *([more] if more else [])]:
            info = tarfile.TarInfo(each)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def unpacking(own: Callable[..., Service]) -> Iterator[tuple[Service, Api]]:
    """A service that takes something from packages."""
    service = own(ON_LOOPBACK)
    (service.home / "ovf-metadata.json").write_text('{"cim_pasd": ["InstructionSet", "ProcessorArchitecture"]}')
    service.stop()
    service.start()
    api = Api(service.url)
    yield service, api
    api.close()


def test_packages(unpacking: tuple[Service, Api], site: Site) -> None:
    service, api = unpacking
    disk = vmdk()
    image = imported(api, site.add(package(disk)), disk_format="vmdk", container_format="ova", name="n")
    assert (image["container_format"], image["disk_format"], image["size"]) == ("bare", "vmdk", len(disk))
    assert (image["virtual_size"], image["checksum"]) == (VIRTUAL, hashlib.md5(disk).hexdigest())
    assert image["cim_pasd_InstructionSet"] == "DMTF:x86:i686"
    assert not [name for name in image if name.startswith("cim_") and name != "cim_pasd_InstructionSet"]
    assert api.download(image["id"]) == disk
    assert leftovers(service) == []
    before = stored(service)
    for bad in (disk, package(disk, "other"), package(disk, more=("disk.vmdk", b"")), package(qcow2(backing=512))):
        failed(api, site.add(bad), disk_format="vmdk", container_format="ova")
    assert leftovers(service) == []
    assert stored(service) == before


# --- conversion ------------------------------------------------------------------------------------------------------


def test_conversion(own: Callable[..., Service], site: Site, tmp_path: Path) -> None:
    assert shutil.which("qemu-img"), "install qemu-utils"
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    data = noise(2 * MIB)
    plain.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", plain, packed], check=True)
    service = own({**ON_LOOPBACK, "taskflow_executor": {"conversion_format": "raw"}})
    api = Api(service.url)
    for source in (packed, plain):
        image = imported(api, site.add(source.read_bytes()), disk_format="qcow2", container_format="bare")
        assert (image["disk_format"], image["size"], image["virtual_size"]) == ("raw", len(data), len(data))
        assert api.download(image["id"]) == data
    for bad in (vmdk(), qcow2(backing=512)):  # a disk that is no more than its headers, and one that is not safe
        failed(api, site.add(bad), disk_format="qcow2", container_format="bare")
    assert leftovers(service) == []
    api.close()


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.better_than_glance  # which leaves image and task as they are
def test_a_worker_dies(own: Callable[..., Service], site: Site) -> None:
    """Another one goes on: the image is there in the end, or nothing is."""
    service = own({**ON_LOOPBACK, "DEFAULT": {"enabled_backends": "fs:file,fast:file", "workers": 1}})
    api, data, go = Api(service.url), noise(2 * MIB), threading.Event()
    site.before = lambda path: go.wait(30)
    good = order(api, site.add(data), disk_format="raw", container_format="bare")
    bad = order(api, site.add(qcow2(backing=512)), disk_format="qcow2", container_format="bare")
    api.wait_for_status(good["image_id"], "importing")
    deadline = time.monotonic() + 20
    while len(site.asked) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    [worker] = service.listeners()
    os.kill(worker, signal.SIGKILL)
    go.set()
    api.close()
    while service.listeners() in ([], [worker]) or not service.answers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    api = Api(service.url)
    assert end(api, good, 60)["result"] == {"image_id": good["image_id"]}
    assert api.download(good["image_id"]) == data
    assert end(api, bad, 60)["status"] == "failure"
    assert api.raw_show(bad["image_id"]).status_code == 404
    with sqlite3.connect(service.database) as database:
        assert database.execute("SELECT name FROM image_properties WHERE deleted = 0").fetchall() == []
    assert leftovers(service) == []
    assert stored(service) == {good["image_id"]}
    api.close()


@pytest.mark.server  # for its length: it needs none
@pytest.mark.better_than_glance
@pytest.mark.parametrize("step", ["admit", "fetch", "unpack", "shape", "ingest", "finish"])
def test_a_worker_dies_in_each_step(own: Callable[..., Service], site: Site, tmp_path: Path, step: str) -> None:
    """Of a package that is taken apart and converted; whether it died in the step or just behind it."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    data = noise(32 * MIB)
    plain.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", plain, packed], check=True)
    conversion = {"taskflow_executor": {"conversion_format": "raw"}}
    service = own({**ON_LOOPBACK, **conversion, "DEFAULT": {"enabled_backends": "fs:file,fast:file", "workers": 1}})
    api = Api(service.url)
    task = order(api, site.add(package(packed.read_bytes())), disk_format="qcow2", container_format="ova")
    [worker] = service.listeners()
    deadline = time.monotonic() + 20
    while f"task {task['id']}: {step}\n" not in service.log_since(0):
        assert time.monotonic() < deadline
    os.kill(worker, signal.SIGKILL)
    api.close()
    while service.listeners() in ([], [worker]) or not service.answers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    api = Api(service.url)
    assert end(api, task, 60)["result"] == {"image_id": task["image_id"]}
    image = api.show(task["image_id"])
    assert (image["status"], image["disk_format"], image["container_format"]) == ("active", "raw", "bare")
    assert api.download(image["id"]) == data
    assert stored(service) == {image["id"]}
    # What is left when it dies behind its last transaction is for the sweep.
    assert {name.partition(".")[0] for name in leftovers(service)} <= ({image["id"]} if step == "finish" else set())
    api.close()
