"""One database and one image folder, served by the real Glance and by Glimpse: neither sees who made what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.rig.clients import Clients
from tests.rig.databases import MariaDB
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glance, Glimpse, ImageService

CONTENT = bytes(range(256)) * 8192


@dataclass(frozen=True)
class Pair:
    """Two services on the same data; `first` made the tables."""

    first: ImageService
    second: ImageService
    images: Path


@pytest.fixture(scope="module", params=["Glance first", "Glimpse first"])
def pair(
    request: pytest.FixtureRequest, mariadb: MariaDB, keystone: Keystone, memcached: Memcached, rig_folder: Path
) -> Iterator[Pair]:
    """Both services, after `db_sync` by the one and then by the other, which must find nothing to do.

    They are slow to set up, so all tests use them in turn; each removes its images.
    """
    folder = rig_folder / str(request.param).replace(" ", "-")
    folder.mkdir()
    images = folder / "images"
    images.mkdir()
    sections: dict[str, dict[str, object]] = {
        "database": {"connection": mariadb.fresh_url()},
        "fs": {"filesystem_store_datadir": images},
        "paste_deploy": {"flavor": "keystone"},
        "keystone_authtoken": dict(keystone.authtoken(memcached.address)),
    }
    factories = ServiceFactory(Glance, folder), ServiceFactory(Glimpse, folder)
    services: list[ImageService] = [factory(sections, start=False) for factory in factories]
    if request.param == "Glimpse first":
        services.reverse()
    first, second = services
    first.manage("db_sync")
    assert "up to date" in second.manage("db", "check").lower()
    second.manage("db_sync")
    assert "up to date" in first.manage("db", "check").lower()
    try:
        for service in services:
            service.start()
        yield Pair(first, second, images)
    finally:
        for factory in factories:
            factory.stop_all()


def make_images(api: ImageApi) -> dict[str, str]:
    """One image of each kind, by that kind's name; the ids."""
    made = {
        "plain": api.create(name="plain", disk_format="raw", container_format="bare"),
        "rich": api.create(
            name="Füße 映像",
            disk_format="raw",
            container_format="bare",
            visibility="public",
            min_disk=3,
            min_ram=512,
            tags=["b", "a", "日本"],
            os_distro="debian",
            hw_disk_bus="virtio",
            long_value="x" * 3000,
        ),
        "hidden": api.create(name="hidden", disk_format="raw", container_format="bare", os_hidden=True),
        "community": api.create(name="community", disk_format="raw", container_format="bare", visibility="community"),
        "protected": api.create(name="protected", disk_format="raw", container_format="bare", protected=True),
        "empty": api.create(name="empty", disk_format="raw", container_format="bare"),
        "queued": api.create(name="queued"),
    }
    for kind, identity in made.items():
        if kind != "queued":
            api.upload(identity, b"" if kind == "empty" else CONTENT)
    return made


def same_answers(one: ImageApi, other: ImageApi, made: dict[str, str]) -> None:
    """Both services tell the same about each image, in records, lists and bytes."""
    for kind, identity in made.items():
        assert comparable(one.show(identity)) == comparable(other.show(identity)), kind
    for query in ("?sort=name:asc", "?os_hidden=true", "?visibility=community", "?tag=a", "?status=queued", "?limit=2"):
        lists = [[comparable(image) for image in api.images(query)] for api in (one, other)]
        assert lists[0] == lists[1], query
        assert lists[0], query
    for kind, identity in made.items():
        if kind not in ("queued", "empty"):
            assert one.download(identity) == other.download(identity) == CONTENT, kind


def comparable(image: dict[str, Any]) -> dict[str, Any]:
    """A record with its tags in a fixed order: they are a set, and Glance's database returns them as it likes."""
    return {**image, "tags": sorted(image["tags"])}


def change_and_erase(maker: ImageApi, other: ImageApi, made: dict[str, str], images: Path) -> None:
    """What one service made the other changes, fills and deletes, and the maker sees it."""
    other.change(
        made["rich"],
        {"op": "replace", "path": "/name", "value": "renamed"},
        {"op": "remove", "path": "/hw_disk_bus"},
        {"op": "add", "path": "/os_version", "value": "12"},
        {"op": "replace", "path": "/tags", "value": ["c"]},
    )
    seen = maker.show(made["rich"])
    assert (seen["name"], seen["os_version"], seen["tags"]) == ("renamed", "12", ["c"])
    assert "hw_disk_bus" not in seen
    formats = [{"op": "add", "path": f"/{name}", "value": value} for name, value in
               (("disk_format", "raw"), ("container_format", "bare"))]  # fmt: skip
    other.change(made["queued"], *formats)
    other.upload(made["queued"], CONTENT)
    assert maker.download(made["queued"]) == CONTENT
    assert other.call("DELETE", f"/v2/images/{made['protected']}").status_code == 403
    other.change(made["protected"], {"op": "replace", "path": "/protected", "value": False})
    for kind, identity in made.items():
        other.delete(identity)
        assert maker.call("GET", f"/v2/images/{identity}").status_code == 404, kind
        assert maker.call("GET", f"/v2/images/{identity}/file").status_code == 404, kind
    assert list(images.iterdir()) == []
    assert maker.images("?visibility=all") == other.images("?visibility=all") == []


def test_each_serves_what_the_other_made(pair: Pair, keystone: Keystone) -> None:
    """Records, lists, bytes, changes and deletion, in both directions."""
    token = keystone.token()
    first, second = ImageApi(pair.first.url, token), ImageApi(pair.second.url, token)
    for maker, other in ((first, second), (second, first)):
        made = make_images(maker)
        same_answers(maker, other, made)
        change_and_erase(maker, other, made, pair.images)


def test_members_and_deactivation_by_glance_hold(pair: Pair, keystone: Keystone) -> None:
    """Who may see and download an image is in the database: Glimpse keeps to it as Glance wrote it."""
    services = {type(service): service for service in (pair.first, pair.second)}
    glance, glimpse = services[Glance].url, services[Glimpse].url
    owner = keystone.token("demo", "demo")
    neighbour = ImageApi(glimpse, keystone.token("alt", "alt"))
    neighbour_project = keystone.call("GET", "/projects?name=alt")["projects"][0]["id"]
    image = ImageApi(glance, owner).create(name="shared", disk_format="raw", container_format="bare")
    ImageApi(glance, owner).upload(image, CONTENT)
    assert neighbour.call("GET", f"/v2/images/{image}").status_code == 404

    members = f"/v2/images/{image}/members"
    ImageApi(glance, owner).ok("POST", members, json={"member": neighbour_project})
    assert neighbour.download(image) == CONTENT
    assert neighbour.images() == []
    accepting = ImageApi(glance, keystone.token("alt", "alt"))
    accepting.ok("PUT", f"{members}/{neighbour_project}", json={"status": "accepted"})
    assert [found["id"] for found in neighbour.images()] == [image]

    ImageApi(glance, keystone.token()).ok("POST", f"/v2/images/{image}/actions/deactivate")
    assert ImageApi(glimpse, owner).show(image)["status"] == "deactivated"
    assert ImageApi(glimpse, owner).call("GET", f"/v2/images/{image}/file").status_code == 403
    assert ImageApi(glimpse, keystone.token()).download(image) == CONTENT
    ImageApi(glimpse, owner).delete(image)
    assert list(pair.images.iterdir()) == []


def test_clients_see_no_difference(pair: Pair, keystone: Keystone, clients: Clients, disk_image: Path) -> None:
    """The two commands print the same of an image, whichever service they ask."""
    arguments = ("--disk-format", "qcow2", "--container-format", "bare", "--property", "os_distro=debian")
    for maker in (pair.first, pair.second):
        keystone.register_image_service(maker.url)
        admin = keystone.openrc()
        made = clients.openstack("image", "create", "-f", "json", "--file", disk_image, *arguments, "one", env=admin)
        identity = json.loads(made)["id"]
        printed = []
        for service in (pair.first, pair.second):
            keystone.register_image_service(service.url)
            shown = clients.openstack("image", "show", "-f", "json", identity, env=admin)
            listed = clients.openstack("image", "list", "--long", "-f", "json", env=admin)
            plain = clients.glance("image-show", identity, env=admin)
            printed.append((json.loads(shown), json.loads(listed), plain))
        assert printed[0] == printed[1]
        clients.openstack("image", "delete", identity, env=admin)


def test_quotas_in_a_database_that_only_glance_synced(
    mariadb: MariaDB, glance_service: ServiceFactory[Glance], glimpse_service: ServiceFactory[Glimpse]
) -> None:
    """What they need is added at the first upload, and Glance does not mind."""
    database: dict[str, object] = {"connection": mariadb.fresh_url()}
    glance = glance_service({"database": database}, start=False)
    glance.manage("db_sync")
    default = {"enabled_backends": "fs:file", "user_storage_quota": "2MB"}
    glimpse = glimpse_service({"DEFAULT": default, "database": database}, start=False)
    glimpse.start()
    api = ImageApi(glimpse.url, None)
    first, second = (api.create(name="x", disk_format="raw", container_format="bare") for _ in range(2))
    api.upload(first, CONTENT)
    headers = {"Content-Type": "application/octet-stream"}
    assert api.call("PUT", f"/v2/images/{second}/file", data=CONTENT, headers=headers).status_code == 413
    api.delete(first)
    api.upload(second, CONTENT)
    assert "up to date" in glance.manage("db", "check").lower()
    assert "Traceback" not in glimpse.logs


def test_encrypted_locations(
    mariadb: MariaDB, glance_service: ServiceFactory[Glance], glimpse_service: ServiceFactory[Glimpse], tmp_path: Path
) -> None:
    """`metadata_encryption_key`: each reads what the other wrote, and gives it back; nothing is there in the clear."""
    policy, images = tmp_path / "policy.yaml", tmp_path / "images"
    rules = ("add_image", "modify_image", "upload_image", "delete_image", "get_image", "get_images", "download_image",
             "get_image_location", "set_image_location", "delete_image_location")  # fmt: skip
    policy.write_text("".join(f'"{rule}": ""\n' for rule in rules))  # without identity Glance lets nobody create
    url = mariadb.fresh_url()
    sections: dict[str, dict[str, object]] = {
        "DEFAULT": {"metadata_encryption_key": "sixteen letters!", "show_multiple_locations": True},
        "database": {"connection": url}, "fs": {"filesystem_store_datadir": images},
        "oslo_policy": {"policy_file": policy},
    }  # fmt: skip
    glance = glance_service(sections, start=False)
    glance.manage("db_sync")
    glance.start()
    glimpse = glimpse_service(sections, start=False)
    glimpse.start()
    apis = [ImageApi(glance.url, None), ImageApi(glimpse.url, None)]
    made = []
    for api in apis:
        identity = api.create(name="x", disk_format="raw", container_format="bare")
        api.upload(identity, CONTENT)
        made.append(identity)
    assert "file:" not in "".join(rows(url, "SELECT value FROM image_locations"))
    for identity in made:
        for number, api in enumerate(apis):
            [place] = api.show(identity)["locations"]
            assert place["url"] == (images / identity).as_uri()
            assert api.download(identity) == CONTENT
            api.change(identity, {"op": "add", "path": "/os_version", "value": str(number)})
    wrong = {**sections, "DEFAULT": {**sections["DEFAULT"], "metadata_encryption_key": "another sixteen!"}}
    stranger = glimpse_service(wrong, start=False)
    stranger.start()
    for path in (f"/v2/images/{made[0]}", f"/v2/images/{made[0]}/file", "/v2/images"):
        assert ImageApi(stranger.url, None).call("GET", path).status_code == 503
    assert ImageApi(stranger.url, None).call("DELETE", f"/v2/images/{made[0]}").status_code == 503
    assert "metadata_encryption_key is not the one" in stranger.logs
    for identity, api in zip(made, reversed(apis), strict=True):
        api.delete(identity)
    assert list(images.iterdir()) == []


def rows(url: str, query: str) -> list[str]:
    """The first column of what a database answers."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = [str(row[0]) for row in connection.execute(sa.text(query))]
    engine.dispose()
    return found
