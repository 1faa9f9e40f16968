"""Images in Ceph on whose bytes others build, as Nova's disks and Cinder's volumes do: clones of the snapshot."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.rig.ceph import POOL, Ceph
from tests.rig.process import wait_for
from tests.rig.services import Glimpse

CONTENT = secrets.token_bytes(100_000)


@pytest.fixture
def api(glimpse_service: ServiceFactory[Glimpse], ceph: Ceph) -> ImageApi:
    service = glimpse_service(
        {
            "DEFAULT": {"enabled_backends": "ceph:rbd,fs:file", "show_multiple_locations": True},
            "glance_store": {"default_backend": "ceph"},
            "ceph": {"rbd_store_ceph_conf": ceph.conf},
        }
    )
    return ImageApi(service.url, None)


def stored(api: ImageApi) -> str:
    """An image with its bytes in Ceph."""
    image = api.create(disk_format="raw", container_format="bare", x_mark="kept", tags=["kept"])
    api.upload(image, CONTENT)
    return image


@contextmanager
def cloned(ceph: Ceph, image: str) -> Iterator[None]:
    """While somebody has a disk on top of the image."""
    # Clones of the first kind need their parent to be protected, those of the second hold it by themselves.
    ceph.rbd("clone", "--rbd-default-clone-format", "1", f"{POOL}/{image}@snap", f"{POOL}/disk-of-{image}")
    yield
    ceph.rbd("rm", "--no-progress", f"{POOL}/disk-of-{image}")


def test_an_image_that_is_built_upon_stays_as_it_is(api: ImageApi, ceph: Ceph) -> None:
    image = stored(api)
    before = api.show(image)
    assert before["locations"][0]["url"] == f"rbd://{ceph.fsid}/{POOL}/{image}/snap"
    with cloned(ceph, image):
        answer = api.call("DELETE", f"/v2/images/{image}")
        assert answer.status_code == 409
        assert "build on its data" in answer.text
        assert api.show(image) == before
        assert api.download(image) == CONTENT
    api.delete(image)
    assert image not in ceph.rbd("ls", POOL).decode()


def test_it_does_not_leave_its_store_either(api: ImageApi, ceph: Ceph) -> None:
    image = stored(api)
    method = {"method": {"name": "copy-image"}, "stores": ["fs"]}
    api.ok("POST", f"/v2/images/{image}/import", json=method)
    wait_for("a copy", lambda: len(api.show(image)["locations"]) == 2, 60)
    with cloned(ceph, image):
        assert api.call("DELETE", f"/v2/stores/ceph/{image}").status_code == 409
        assert len(api.show(image)["locations"]) == 2
    api.ok("DELETE", f"/v2/stores/ceph/{image}")
    assert image not in ceph.rbd("ls", POOL).decode()
    assert api.download(image) == CONTENT
    api.delete(image)
