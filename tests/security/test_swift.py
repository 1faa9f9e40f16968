"""Advisories about images in Swift, on a real Swift and Keystone; the whole service is asked, as anybody would."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import requests

from tests.black_box.image_api import ImageApi
from tests.black_box.test_swift_tenants import BODY, MIB, Cloud, cloud, options
from tests.conftest import ServiceFactory
from tests.rig.keystone import PASSWORD, Keystone
from tests.rig.services import Glimpse
from tests.rig.swift import KeystoneSwift

__all__ = ["cloud"]


def test_ossn_0025_public_images_are_not_for_the_whole_internet(cloud: Cloud) -> None:
    """OSSN-0025: who has no token reads nothing from Swift, whatever the visibility, and so a deleted public image is
    no free file server.
    """
    image = cloud.image(visibility="community")
    for visibility in ("public", "community"):
        cloud.api("admin").change(image, {"op": "replace", "path": "/visibility", "value": visibility})
        assert ".r" not in cloud.acl(image)
        assert cloud.reads(image, None) == 401
        assert cloud.reads(image, "stranger") == 200
    cloud.api("demo").delete(image)


def test_ossn_0052_no_token_reaches_the_log(
    glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, keystone_swift: KeystoneSwift
) -> None:
    """OSSN-0052: the library for Swift wrote tokens into the log at DEBUG. Here every library may say all it has."""
    sections = options(keystone)
    sections["DEFAULT"]["default_log_levels"] = "keystoneauth=DEBUG,keystonemiddleware=DEBUG,urllib3=DEBUG,asyncio=INFO"
    cloud = Cloud(glimpse_service(sections), keystone, keystone_swift)
    image = cloud.image(visibility="community")
    cloud.api("alt").download(image)
    cloud.api("demo").delete(image)
    assert cloud.service.logs.count(" DEBUG keystoneauth") > 10
    for secret in (cloud.token("demo"), cloud.token("alt"), PASSWORD):
        assert secret not in cloud.service.logs
        assert secret[:40] not in cloud.service.logs


def test_ossa_2015_020_cve_2015_5286_a_token_that_ends_in_an_upload_leaves_nothing(cloud: Cloud) -> None:
    """OSSA-2015-020: the image is deleted while its bytes come, and then the token ends; they went past all quotas,
    as nobody could remove them. Here the image goes, the token ends, and the account holds nothing.
    """
    with cloud.keystone.short_lived_token("demo", "demo", 8) as (token, _):
        short = ImageApi(cloud.service.url, token)
        image = short.create(disk_format="raw", container_format="bare")

        def slowly() -> Iterator[bytes]:
            yield bytes(3 * MIB)
            cloud.api("demo").delete(image)
            deadline = time.monotonic() + 60
            while short.call("GET", "/v2/images").status_code != 401 and time.monotonic() < deadline:
                time.sleep(0.2)
            yield BODY

        headers = {"Content-Type": "application/octet-stream"}
        with contextlib.suppress(requests.ConnectionError):  # it may be refused in the middle
            assert short.call("PUT", f"/v2/images/{image}/file", data=slowly(), headers=headers).status_code >= 400
    deadline = time.monotonic() + 5
    while cloud.containers() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {name: cloud.at_swift("GET", f"/{name}", "demo").text for name in cloud.containers()} == {}
