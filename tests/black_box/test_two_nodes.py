"""Two nodes with one database, each with a staging directory of its own: any of them is asked (spec 1.3.5)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.rig.keystone import Keystone
from tests.rig.services import Glimpse

CONTENT = b"Staged on the other node.\n" * 100_000


@dataclass
class Nodes:
    """Images are staged on the one, and asked for on the other."""

    one: Glimpse
    two: Glimpse
    keystone: Keystone

    def apis(self, user: str = "demo") -> tuple[ImageApi, ImageApi]:
        token = self.keystone.token(user, user)
        return ImageApi(self.one.url, token), ImageApi(self.two.url, token)

    def staged(self) -> tuple[ImageApi, str]:
        """An image whose bytes are on the first node, and the other one to ask."""
        one, two = self.apis()
        image = one.create(name="staged", disk_format="raw", container_format="bare")
        headers = {"Content-Type": "application/octet-stream"}
        one.ok("PUT", f"/v2/images/{image}/stage", data=CONTENT, headers=headers)
        assert self.left_of(image)
        return two, image

    def left_of(self, image: str) -> list[Path]:
        """Files of an image in either staging directory."""
        return [path for node in (self.one, self.two) for path in (node.data_dir / "staging").rglob(f"*{image}*")]


def order(api: ImageApi, image: str, **more: object) -> tuple[int, str]:
    body = {"method": {"name": "glance-direct"}, **more}
    answer = api.call("POST", f"/v2/images/{image}/import", seconds=90, json=body)
    return answer.status_code, answer.text


def ends_as(api: ImageApi, image: str, status: str) -> dict[str, object]:
    deadline = time.monotonic() + 30
    while (record := api.show(image))["status"] != status:
        assert time.monotonic() < deadline, record
        time.sleep(0.1)
    return record


@pytest.fixture
def nodes(glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, mariadb_url: str) -> Iterator[Nodes]:
    made: list[Glimpse] = []
    for _ in range(2):
        sections: dict[str, dict[str, object]] = {
            "paste_deploy": {"flavor": "keystone"},
            "keystone_authtoken": dict(keystone.authtoken()),
            "database": {"connection": mariadb_url},
        }
        if made:
            sections["fs"] = {"filesystem_store_datadir": made[0].data_dir / "images"}
        node = glimpse_service(sections, start=False)
        text = node.config_file.read_text()
        text = text.replace("[DEFAULT]", f"[DEFAULT]\nworker_self_reference_url = {node.url}")
        staging = f"[os_glance_staging_store]\nfilesystem_store_datadir = {node.data_dir}/staging\n"
        node.config_file.write_text(text + staging)
        made.append(node)
    made[0].manage("db_sync")
    for node in made:
        node.start()
    yield Nodes(made[0], made[1], keystone)


def test_an_import_is_done_where_the_bytes_are(nodes: Nodes) -> None:
    two, image = nodes.staged()
    answer = two.call(
        "POST", f"/v2/images/{image}/import", json={"method": {"name": "glance-direct"}},
        headers={"X-Openstack-Request-Id": "req-of-the-client"},
    )  # fmt: skip
    assert (answer.status_code, answer.text) == (202, "")
    request_id = answer.headers["x-openstack-request-id"]
    record = ends_as(two, image, "active")
    assert record["checksum"] == hashlib.md5(CONTENT).hexdigest()
    assert two.download(image) == CONTENT
    assert not nodes.left_of(image)
    (task,) = two.ok("GET", f"/v2/images/{image}/tasks").json()["tasks"]
    assert task["request_id"] == request_id
    for node in (nodes.one, nodes.two):
        assert f"/v2/images/{image}/import" in node.logs
        assert "gAAAA" not in node.logs


def test_refusals_are_those_of_the_node_that_has_the_bytes(nodes: Nodes) -> None:
    two, image = nodes.staged()
    status, text = order(two, image, stores=["nowhere"])
    assert status == 409
    assert "nowhere" in text
    assert order(two, image, all_stores=True, stores=["fs"])[0] == 400
    _, stranger = nodes.apis("alt")
    assert order(stranger, image)[0] == 404
    assert stranger.call("DELETE", f"/v2/images/{image}").status_code == 404
    assert two.show(image)["status"] == "uploading"
    assert nodes.left_of(image)


def test_a_delete_takes_the_staged_bytes_along(nodes: Nodes) -> None:
    two, image = nodes.staged()
    assert two.call("DELETE", f"/v2/images/{image}").status_code == 204
    assert two.call("GET", f"/v2/images/{image}").status_code == 404
    assert not nodes.left_of(image)


def test_the_node_with_the_bytes_is_away(nodes: Nodes) -> None:
    two, image = nodes.staged()
    _, other = nodes.staged()
    nodes.one.kill9()
    status, _ = order(two, image)
    assert status == 504
    assert two.show(image)["status"] == "uploading"
    assert two.call("DELETE", f"/v2/images/{other}").status_code == 204
    nodes.one.start()
    status, text = order(two, image)
    assert status == 202, text
    ends_as(two, image, "active")
    two.delete(image)


def test_two_nodes_that_take_themselves_for_each_other_do_not_go_round(nodes: Nodes) -> None:
    """The first has another name by now, so that the bytes are nobody's: an error, and the image can be deleted."""
    two, image = nodes.staged()
    config = nodes.one.config_file
    config.write_text(config.read_text().replace(f"= {nodes.one.url}", f"= http://localhost:{nodes.one.port}"))
    nodes.one.restart()
    assert order(two, image)[0] == 503
    assert two.call("DELETE", f"/v2/images/{image}").status_code == 204
