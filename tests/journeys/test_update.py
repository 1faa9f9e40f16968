"""PATCH /v2/images/{id}: JSON-patch in both media types."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from .client import PATCH_20, PATCH_21, Api, add, remove, replace, unused

ACCEPTED = "application/openstack-images-v2.0-json-patch, application/openstack-images-v2.1-json-patch"


def send(api: Api, image_id: str, body: bytes, media: str = PATCH_21) -> httpx.Response:
    return api.request("PATCH", f"/v2/images/{image_id}", content=body, headers={"Content-Type": media})


def test_answer_is_the_image(api: Api) -> None:
    image = api.create(name="old", drop="x")
    response = api.raw_patch(
        image["id"], [replace("name", "new"), add("os_distro", "debian"), remove("drop"), replace("tags", ["t"])]
    )
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    changed = response.json()
    assert (changed["name"], changed["os_distro"], changed["tags"]) == ("new", "debian", ["t"])
    assert "drop" not in changed
    assert api.show(image["id"]) == changed
    assert set(changed) == set(image) - {"drop"} | {"os_distro"}


def test_nothing_to_do(api: Api) -> None:
    image = api.create()
    assert api.patch(image["id"]) == image


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "n" * 255),
        ("name", None),
        ("name", ""),
        ("visibility", "private"),
        ("visibility", "community"),
        ("protected", False),
        ("os_hidden", True),
        ("min_disk", 2**31 - 1),
        ("min_ram", 0),
        ("tags", []),
        ("tags", ["t" * 255]),
        ("disk_format", "qcow2"),
        ("disk_format", None),
        ("container_format", "ovf"),
        ("owner", "f" * 32),
    ],
)
def test_values(api: Api, name: str, value: object) -> None:
    image = api.create()
    assert api.patch(image["id"], replace(name, value))[name] == value
    assert api.patch(image["id"], add(name, value))[name] == value
    assert api.show(image["id"])[name] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "n" * 256),
        ("name", 1),
        ("visibility", "nobody"),
        ("visibility", None),
        ("protected", "yes"),
        ("os_hidden", None),
        ("min_disk", -1),
        ("min_disk", 2**31),
        ("min_ram", "1"),
        ("min_ram", 1.5),
        ("tags", ["t" * 256]),
        ("tags", "t"),
        ("disk_format", "floppy"),
        ("container_format", "box"),
        ("owner", 1),
        ("extra", 1),
        ("extra", None),
        ("extra", ["x"]),
        ("extra", "💿"),
        ("name", "💿"),
        ("💿", "x"),
    ],
    ids=str,
)
def test_wrong_values(api: Api, name: str, value: object) -> None:
    image = api.create(name="same")
    assert api.raw_patch(image["id"], [add("early", "x"), add(name, value)]).status_code == 400
    assert api.show(image["id"]) == image


@pytest.mark.parametrize(
    "name",
    [
        "created_at",
        "updated_at",
        "status",
        "checksum",
        "size",
        "virtual_size",
        "direct_url",
        "self",
        "file",
        "schema",
        "id",
        "os_hash_algo",
        "os_hash_value",
        "location",
        "deleted",
        "deleted_at",
        "os_glance_import_task",
        "os_glance_x",
    ],
)
def test_what_only_the_service_sets(api: Api, name: str) -> None:
    image = api.create()
    assert api.raw_patch(image["id"], [add(name, "x")]).status_code == 403
    assert api.raw_patch(image["id"], [replace(name, "x")]).status_code == 403
    assert api.raw_patch(image["id"], [remove(name)]).status_code == 403
    assert api.show(image["id"]) == image
    # refused before anything is looked up
    assert api.raw_patch(unused(), [replace(name, "x")]).status_code == 403


@pytest.mark.parametrize(
    "name",
    ["name", "visibility", "protected", "os_hidden", "tags", "min_disk", "disk_format", "container_format", "owner"],
)
def test_fields_of_every_image_stay(api: Api, name: str) -> None:
    image = api.create()
    response = api.raw_patch(image["id"], [remove(name)])
    assert response.status_code == 403
    assert api.show(image["id"]) == image


def test_extra_properties(api: Api) -> None:
    image = api.create(a="1")
    assert api.raw_patch(image["id"], [replace("absent", "x")]).status_code == 409
    assert api.raw_patch(image["id"], [remove("absent")]).status_code == 409
    assert api.patch(image["id"], replace("a", "2"))["a"] == "2"
    assert api.patch(image["id"], add("a", "3"))["a"] == "3"
    assert "a" not in api.patch(image["id"], remove("a"))
    # a name may come back
    assert api.patch(image["id"], add("a", "4"))["a"] == "4"
    assert api.show(image["id"])["a"] == "4"
    assert api.patch(image["id"], add("a", ""))["a"] == ""


def test_operations_see_the_ones_before(api: Api) -> None:
    image = api.create()
    changed = api.patch(image["id"], add("x", "1"), replace("x", "2"), remove("x"), add("x", "3"))
    assert changed["x"] == "3"


def test_all_or_nothing(api: Api) -> None:
    image = api.create(name="old", a="1")
    operations = [replace("name", "new"), remove("a"), add("b", "2"), replace("absent", "x")]
    assert api.raw_patch(image["id"], operations).status_code == 409
    assert api.show(image["id"]) == image


def test_escaped_names(api: Api) -> None:
    image = api.create()
    changed = api.patch(image["id"], {"op": "add", "path": "/a~1b", "value": "1"}, add("c~0d", "2"))
    assert (changed["a/b"], changed["c~d"]) == ("1", "2")
    changed = api.patch(image["id"], {"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/c~0d"})
    assert "a/b" not in changed
    assert "c~d" not in changed
    assert api.patch(image["id"], {"op": "add", "path": "/~01", "value": "3"})["~1"] == "3"


@pytest.mark.parametrize(
    "operations",
    [
        None,
        {},
        {"op": "add", "path": "/x", "value": "y"},
        "add",
        1,
        [None],
        ["add"],
        [[]],
        [{}],
        [{"path": "/x", "value": "y"}],
        [{"op": "add", "value": "y"}],
        [{"op": "add", "path": "/x"}],
        [{"op": "replace", "path": "/name"}],
        [{"op": "test", "path": "/name", "value": "y"}],
        [{"op": "move", "path": "/name", "from": "/x"}],
        [{"op": "copy", "path": "/name", "from": "/x"}],
        [{"op": "ADD", "path": "/x", "value": "y"}],
        [{"op": "add", "path": "x", "value": "y"}],
        [{"op": "add", "path": "", "value": "y"}],
        [{"op": "add", "path": "/x/", "value": "y"}],
        [{"op": "add", "path": "/x~", "value": "y"}],
        [{"op": "add", "path": "/x~2", "value": "y"}],
        [{"op": "add", "path": "/x/y", "value": "y"}],
        [{"op": "replace", "path": "/tags/0", "value": "y"}],
        [{"op": "remove", "path": "/tags/0"}],
        [{"op": "add", "path": "/x", "value": "y"}, {"op": "oops", "path": "/x"}],
    ],
    ids=lambda operations: json.dumps(operations)[:60],
)
def test_malformed_patches(api: Api, operations: Any) -> None:
    image = api.create()
    assert api.raw_patch(image["id"], operations).status_code == 400
    assert api.show(image["id"]) == image


@pytest.mark.better_than_glance  # which makes properties without a name of these
@pytest.mark.parametrize("path", ["/", "//x", "/ ", "//"])
def test_blank_names(api: Api, path: str) -> None:
    image = api.create()
    assert api.raw_patch(image["id"], [{"op": "add", "path": path, "value": "y"}]).status_code == 400
    assert api.show(image["id"]) == image


@pytest.mark.better_than_glance  # which leaves it to the database to object, and SQLite does not
def test_long_property_names(api: Api) -> None:
    image = api.create()
    assert api.patch(image["id"], add("k" * 255, "x"))["k" * 255] == "x"
    assert api.raw_patch(image["id"], [add("k" * 256, "x")]).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[", b"[{]", b"\xff", b"[] []"])
def test_malformed_bodies(api: Api, body: bytes) -> None:
    image = api.create()
    assert send(api, image["id"], body).status_code == 400
    assert send(api, image["id"], body, PATCH_20).status_code == 400


@pytest.mark.parametrize(
    "media",
    [
        "",
        "application/json",
        "application/json-patch+json",
        "application/octet-stream",
        "text/plain",
        "application/openstack-images-v2.2-json-patch",
        "application/openstack-images-v2.1-json-patch-x",
    ],
)
def test_other_media_types(api: Api, media: str) -> None:
    image = api.create()
    response = send(api, image["id"], b'[{"op": "add", "path": "/x", "value": "y"}]', media)
    assert response.status_code == 415
    assert response.headers["accept-patch"] == ACCEPTED
    assert "x" not in api.show(image["id"])


def test_without_media_type(api: Api) -> None:
    image = api.create()
    response = api.request("PATCH", f"/v2/images/{image['id']}", content=b"[]")
    assert response.status_code == 415
    assert response.headers["accept-patch"] == ACCEPTED


def test_parameters_of_the_media_type(api: Api) -> None:
    image = api.create()
    body = b'[{"op": "add", "path": "/x", "value": "y"}]'
    assert send(api, image["id"], body, f"{PATCH_21}; charset=utf-8").status_code == 200


def test_old_media_type(api: Api) -> None:
    image = api.create(name="old", a="1")
    response = api.raw_patch(
        image["id"],
        [{"replace": "/name", "value": "new"}, {"add": "/b", "value": "2"}, {"remove": "/a"}],
        PATCH_20,
    )
    assert response.status_code == 200
    changed = response.json()
    assert (changed["name"], changed["b"]) == ("new", "2")
    assert "a" not in changed
    # in this dialect, adding is for what is not there
    assert api.raw_patch(image["id"], [{"add": "/b", "value": "3"}], PATCH_20).status_code == 409
    assert api.raw_patch(image["id"], [{"replace": "/c", "value": "3"}], PATCH_20).status_code == 409
    assert api.raw_patch(image["id"], [{"remove": "/c"}], PATCH_20).status_code == 409


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "add", "path": "/x", "value": "y"}],
        [{"add": "/x", "remove": "/y", "value": "z"}],
        [{"add": "/x"}],
        [{"value": "y"}],
        [{}],
        {"add": "/x", "value": "y"},
        [{"add": "x", "value": "y"}],
        [{"add": "/x/y", "value": "y"}],
        [{"test": "/x", "value": "y"}],
    ],
    ids=json.dumps,
)
def test_malformed_patches_in_the_old_media_type(api: Api, operations: Any) -> None:
    image = api.create()
    assert api.raw_patch(image["id"], operations, PATCH_20).status_code == 400


def test_dialects_do_not_mix(api: Api) -> None:
    image = api.create()
    assert api.raw_patch(image["id"], [{"add": "/x", "value": "y"}], PATCH_21).status_code == 400


def test_old_media_type_keeps_read_only_fields(api: Api) -> None:
    image = api.create()
    assert api.raw_patch(image["id"], [{"replace": "/status", "value": "active"}], PATCH_20).status_code == 403


def test_formats_are_settled_once_there_is_data(api: Api) -> None:
    image = api.active(b"x")
    assert api.raw_patch(image["id"], [replace("disk_format", "qcow2")]).status_code == 403
    assert api.raw_patch(image["id"], [replace("container_format", "ovf")]).status_code == 403
    assert api.show(image["id"]) == image
    changed = api.patch(image["id"], replace("name", "new"), replace("min_ram", 5), add("x", "y"))
    assert (changed["status"], changed["name"], changed["size"]) == ("active", "new", 1)


def test_formats_may_be_set_late(api: Api) -> None:
    image = api.create()
    assert api.raw_upload(image["id"], b"x").status_code == 400
    api.patch(image["id"], replace("disk_format", "raw"), replace("container_format", "bare"))
    api.upload(image["id"], b"x")


def test_locations_are_closed(api: Api) -> None:
    image = api.create(disk_format="raw", container_format="bare")
    location = {"url": "http://127.0.0.1:1/x", "metadata": {}}
    assert api.raw_patch(image["id"], [add("locations/-", location)]).status_code == 403
    assert api.raw_patch(image["id"], [replace("locations", [location])]).status_code == 403
    assert api.raw_patch(image["id"], [replace("locations", [])]).status_code == 403
    assert api.raw_patch(image["id"], [remove("locations/0")]).status_code in (400, 403)
    assert api.show(image["id"]) == image


def test_too_many(api: Api, limited: Api) -> None:
    image = limited.create(a="1", b="2", c="3")
    assert limited.patch(image["id"], add("d", "4"))["d"] == "4"
    assert limited.raw_patch(image["id"], [add("e", "5")]).status_code == 413
    assert limited.patch(image["id"], remove("a"), add("e", "5"))["e"] == "5"
    assert limited.raw_patch(image["id"], [replace("tags", ["a", "b", "c", "d"])]).status_code == 413
    assert sorted(limited.patch(image["id"], replace("tags", ["a", "b", "c"]))["tags"]) == ["a", "b", "c"]
    full = api.create(**{f"p{number}": "x" for number in range(128)})
    assert api.raw_patch(full["id"], [add("one_more", "x")]).status_code == 413
    assert api.patch(full["id"], replace("p5", "y"))["p5"] == "y"


def test_tags_are_replaced_as_a_whole(api: Api) -> None:
    image = api.create(tags=["a", "b"])
    assert sorted(api.patch(image["id"], replace("tags", ["b", "c", "c"]))["tags"]) == ["b", "c"]
    assert api.patch(image["id"], replace("tags", []))["tags"] == []
    assert api.patch(image["id"], add("tags", ["a"]))["tags"] == ["a"]
    assert api.show(image["id"])["tags"] == ["a"]


def test_owner(api: Api) -> None:
    image = api.create(owner="a" * 32)
    assert api.patch(image["id"], replace("owner", "b" * 32))["owner"] == "b" * 32
    assert api.patch(image["id"], replace("owner", None))["owner"] is None


def test_values_are_looked_at_before_the_image(api: Api) -> None:
    image = api.create()
    assert api.raw_patch(image["id"], [replace("absent", "x"), replace("min_ram", "x")]).status_code == 400
    assert api.raw_patch(unused(), [replace("min_ram", "x")]).status_code == 400


def test_unknown_image(api: Api) -> None:
    assert api.raw_patch(unused(), [replace("name", "x")]).status_code == 404
    assert api.raw_patch("nonsense", [replace("name", "x")]).status_code == 404
    image = api.create()
    api.delete(image["id"])
    assert api.raw_patch(image["id"], [replace("name", "x")]).status_code == 404


@pytest.mark.better_than_glance  # which answers 500 where SQLite is busy
def test_changes_at_once_all_count(api: Api) -> None:
    image = api.create(tags=["t"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: api.patch(image["id"], add(f"p{number}", str(number))), range(24)))
    shown = api.show(image["id"])
    assert {name: shown.get(name) for name in (f"p{number}" for number in range(24))} == {
        f"p{number}": str(number) for number in range(24)
    }
    assert shown["tags"] == ["t"]
