"""Two regions with one Keystone: an image of the one is imported in the other (method glance-download)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.journeys.signing import rsa_pss
from tests.rig.barbican import Barbican
from tests.rig.keystone import REGION, Keystone
from tests.rig.services import Glimpse

OTHER = "RegionTwo"
CONTENT = b"Two regions.\n" * 300_000


@dataclass
class Regions:
    """Where images come from, and where they are imported."""

    keystone: Keystone
    source: Glimpse
    target: Glimpse

    def apis(self, user: str) -> tuple[ImageApi, ImageApi]:
        """Both services, as one user with one token sees them."""
        token = self.keystone.token(user, user)
        return ImageApi(self.source.url, token), ImageApi(self.target.url, token)

    def order(self, api: ImageApi, remote: str, region: str = OTHER, **more: str) -> tuple[str, dict[str, Any]]:
        """Have an image imported; its id, and the task at its end."""
        image = api.create(name="here", disk_format="qcow2", container_format="ovf", hw_disk_bus="ide", mine="stays")
        method = {"name": "glance-download", "glance_region": region, "glance_image_id": remote, **more}
        assert api.ok("POST", f"/v2/images/{image}/import", json={"method": method}).status_code == 202
        deadline = time.monotonic() + 30
        while True:
            (task,) = api.ok("GET", f"/v2/images/{image}/tasks").json()["tasks"]
            if task["status"] in ("success", "failure"):
                return image, task
            assert time.monotonic() < deadline, task
            time.sleep(0.1)


@pytest.fixture
def regions(glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, barbican: Barbican) -> Iterator[Regions]:
    common: dict[str, dict[str, object]] = {
        "barbican": {"barbican_endpoint": barbican.url, "auth_endpoint": f"{keystone.url}/v3"},
        "glance_download_properties": {"extra_properties": "[hw_,os_distro,img_]"},
        "paste_deploy": {"flavor": "keystone"},
        "keystone_authtoken": dict(keystone.authtoken()),
    }
    source = glimpse_service(common)
    target = glimpse_service(
        common
        | {
            "DEFAULT": {"enabled_backends": "fs:file", "enabled_import_methods": "[glance-download]"},
            "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": f"[{source.port}]"},
        }
    )
    with registered(keystone, source, target):
        yield Regions(keystone, source, target)


@contextlib.contextmanager
def registered(keystone: Keystone, source: Glimpse, target: Glimpse) -> Iterator[None]:
    """The catalogue has the one as the Image service of the region `OTHER`, the other as that of the default one."""
    keystone.register_image_service(target.url)
    (service,) = keystone.call("GET", "/services?type=image")["services"]
    if all(region["id"] != OTHER for region in keystone.call("GET", "/regions")["regions"]):
        keystone.call("POST", "/regions", {"region": {"id": OTHER}})
    for interface, url in (("public", source.url), ("internal", f"{source.url}/v2"), ("admin", "http://127.0.0.1:1")):
        entry = {"service_id": service["id"], "interface": interface, "url": url, "region_id": OTHER}
        keystone.call("POST", "/endpoints", {"endpoint": entry})
    yield
    keystone.forget_image_service()


def test_an_image_of_another_region(regions: Regions) -> None:
    source, target = regions.apis("demo")
    theirs = source.create(
        name="there", disk_format="raw", container_format="bare", hw_disk_bus="scsi", os_distro="debian", other="no"
    )
    source.upload(theirs, CONTENT)
    for interface in ({}, {"glance_service_interface": "internal"}):
        image, task = regions.order(target, theirs, OTHER.lower(), **interface)
        assert task["status"] == "success", task
        record = target.show(image)
        assert target.download(image) == CONTENT
        expected = {
            "status": "active", "disk_format": "raw", "container_format": "bare", "hw_disk_bus": "scsi",
            "os_distro": "debian", "mine": "stays", "size": len(CONTENT), "name": "here",
        }  # fmt: skip
        assert expected.items() <= record.items()
        assert record["checksum"] == source.show(theirs)["checksum"]
        assert "other" not in record


def test_an_image_that_is_signed_there(regions: Regions, barbican: Barbican) -> None:
    """Its signature comes along only if it fits the bytes."""
    source, target = regions.apis("demo")
    signer = rsa_pss()
    properties = signer.properties(CONTENT, barbican.keep(regions.keystone.token("demo", "demo"), signer.pem))
    theirs = source.create(name="there", disk_format="raw", container_format="bare", **properties)
    source.upload(theirs, CONTENT)
    image, task = regions.order(target, theirs)
    assert task["status"] == "success", task
    assert {"status": "active", **properties}.items() <= target.show(image).items()
    forged = signer.properties(b"others", properties["img_signature_certificate_uuid"])["img_signature"]
    source.change(theirs, {"op": "replace", "path": "/img_signature", "value": forged})
    image, task = regions.order(target, theirs)
    assert task["status"] == "failure"
    assert "Signature verification failed" in task["message"]
    record = target.show(image)
    assert (record["status"], "img_signature" in record) == ("queued", False)


def test_what_cannot_be_imported(regions: Regions) -> None:
    """Each ends with a reason, and the image as it was."""
    source, target = regions.apis("demo")
    secret, _ = regions.apis("alt")
    queued = source.create(name="queued", disk_format="raw", container_format="bare")
    invisible = secret.create(name="not yours", disk_format="raw", container_format="bare")
    secret.upload(invisible, CONTENT)
    for remote, region, interface, reason in (
        (queued, OTHER, "public", "only an active one"),
        (invisible, OTHER, "public", "no such image"),
        (queued, "RegionThree", "public", "RegionThree"),
        (queued, OTHER, "admin", "cannot be fetched"),
        (queued, REGION, "public", "cannot be fetched"),  # its own port is not on the list
    ):
        image, task = regions.order(target, remote, region, glance_service_interface=interface)
        assert task["status"] == "failure"
        assert reason in task["message"]
        expected = {"status": "queued", "disk_format": "qcow2", "container_format": "ovf", "hw_disk_bus": "ide"}
        assert expected.items() <= target.show(image).items()
        target.delete(image)
    for service in (regions.source, regions.target):
        assert "gAAAA" not in service.logs


def test_a_token_does_not_outlive_its_process(regions: Regions) -> None:
    """It is kept in memory only: whoever takes the task over gives the image back, with the reason."""
    source, target = regions.apis("demo")
    theirs = source.create(name="there", disk_format="raw", container_format="bare")
    source.upload(theirs, CONTENT)
    os.killpg(regions.source.process.pid, signal.SIGSTOP)
    image = target.create(name="here", disk_format="raw", container_format="bare")
    method = {"name": "glance-download", "glance_region": OTHER, "glance_image_id": theirs}
    target.ok("POST", f"/v2/images/{image}/import", json={"method": method})
    time.sleep(1)
    regions.target.kill9()
    os.killpg(regions.source.process.pid, signal.SIGCONT)
    regions.target.start()
    deadline = time.monotonic() + 60
    while target.show(image)["status"] != "queued":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    (task,) = target.ok("GET", f"/v2/images/{image}/tasks").json()["tasks"]
    assert task["status"] == "failure"
    assert "token" in task["message"]
