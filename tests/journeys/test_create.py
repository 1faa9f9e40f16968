"""POST /v2/images."""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from .client import Api, path_of, unused

KEYS = {
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "os_hidden",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "owner",
    "size",
    "virtual_size",
    "container_format",
    "disk_format",
    "created_at",
    "updated_at",
    "tags",
    "min_ram",
    "min_disk",
    "self",
    "file",
    "schema",
}


def send(api: Api, body: bytes, **headers: str) -> httpx.Response:
    return api.request("POST", "/v2/images", content=body, headers=headers)


def test_minimal(api: Api) -> None:
    response = api.raw_create()
    assert response.status_code == 201
    assert response.headers["content-type"].startswith("application/json")
    image = response.json()
    assert set(image) == KEYS
    assert str(uuid.UUID(image["id"])) == image["id"]
    expected: dict[str, Any] = dict.fromkeys(KEYS)
    expected |= {"status": "queued", "visibility": "shared", "protected": False, "os_hidden": False, "tags": []}
    expected |= {"min_ram": 0, "min_disk": 0, "schema": "/v2/schemas/image"}
    expected |= {"self": f"/v2/images/{image['id']}", "file": f"/v2/images/{image['id']}/file"}
    for name in ("id", "created_at", "updated_at"):
        expected[name] = image[name]
    assert image == expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", image["created_at"])
    assert image["updated_at"] == image["created_at"]


def test_headers(api: Api) -> None:
    response = api.raw_create()
    assert response.headers["location"] == f"{api.url}/v2/images/{response.json()['id']}"
    assert response.headers["openstack-image-import-methods"] == "glance-direct,web-download,copy-image"
    # the reserved stores for staging and tasks are nobody's business
    assert response.headers["openstack-image-store-ids"] == "fs,fast"


def test_headers_of_a_single_store(limited: Api) -> None:
    response = limited.raw_create()
    assert response.status_code == 201
    assert path_of(response.headers["location"]).endswith(f"/v2/images/{response.json()['id']}")
    assert "openstack-image-import-methods" not in response.headers
    assert "openstack-image-store-ids" not in response.headers


def test_everything(api: Api) -> None:
    fields: dict[str, Any] = {
        "id": unused(),
        "name": "Ünïcode ☃ name",
        "visibility": "private",
        "protected": True,
        "os_hidden": True,
        "owner": "b" * 32,
        "container_format": "bare",
        "disk_format": "qcow2",
        "min_disk": 2**31 - 1,
        "min_ram": 2**31 - 1,
        "os_distro": "debian",
        "kernel_id": unused(),
        "empty": "",
        "key with spaces": "☃",
    }
    image = api.create(**fields, tags=["one", "two"])
    assert {name: image[name] for name in fields} == fields
    assert sorted(image["tags"]) == ["one", "two"]
    assert {name: api.show(image["id"])[name] for name in fields} == fields
    api.patch(image["id"], {"op": "replace", "path": "/protected", "value": False})


@pytest.mark.better_than_glance  # without a flavor its own policies still want a role for "public"
def test_public(api: Api) -> None:
    assert api.create(visibility="public")["visibility"] == "public"


@pytest.mark.parametrize("visibility", ["community", "private", "shared"])
def test_visibility(api: Api, visibility: str) -> None:
    assert api.create(visibility=visibility)["visibility"] == visibility


def test_null_where_it_is_allowed(api: Api) -> None:
    image = api.create(name=None, owner=None, disk_format=None, container_format=None)
    assert image["name"] is image["owner"] is image["disk_format"] is image["container_format"] is None


def test_repeated_tags_count_once(api: Api) -> None:
    assert sorted(api.create(tags=["a", "b", "a"])["tags"]) == ["a", "b"]


def test_longest_values(api: Api) -> None:
    key = "k" * 255
    image = api.create(name="n" * 255, owner="o" * 255, tags=["t" * 255], **{key: "v" * 10_000})
    shown = api.show(image["id"])
    assert (len(shown["name"]), len(shown["owner"]), len(shown["tags"][0])) == (255, 255, 255)
    assert shown[key] == "v" * 10_000


def test_content_type_is_not_looked_at(api: Api) -> None:
    assert send(api, b'{"name": "x"}').status_code == 201
    assert send(api, b'{"name": "x"}', **{"Content-Type": "text/plain"}).status_code == 201
    assert send(api, b'{"name": "x"}', **{"Content-Type": "application/octet-stream"}).status_code == 201


@pytest.mark.better_than_glance  # whose server reads chunks only where it expects them
def test_chunked_body(api: Api) -> None:
    response = api.request("POST", "/v2/images", content=iter([b'{"name"', b': "chu', b'nked"}']))
    assert response.status_code == 201
    assert response.json()["name"] == "chunked"


def test_own_id(api: Api) -> None:
    chosen = unused()
    assert api.create(id=chosen)["id"] == chosen
    assert api.raw_create(id=chosen).status_code == 409
    api.delete(chosen)
    # an id names one image for ever: whoever kept a reference must not get another's bytes
    assert api.raw_create(id=chosen).status_code == 409


def test_own_id_in_capitals(api: Api) -> None:
    chosen = unused().upper()
    image = api.create(id=chosen)
    assert image["id"].upper() == chosen
    assert api.show(image["id"])["id"] == image["id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "not-a-uuid"},
        {"id": 12},
        {"id": None},
        {"id": "g" * 8 + "-0000-0000-0000-000000000000"},
        {"name": 1},
        {"name": "n" * 256},
        {"name": ["x"]},
        {"visibility": "everybody"},
        {"visibility": None},
        {"visibility": 1},
        {"protected": "true"},
        {"protected": None},
        {"protected": 1},
        {"os_hidden": "false"},
        {"os_hidden": 0},
        {"owner": 1},
        {"owner": "o" * 256},
        {"disk_format": "floppy"},
        {"disk_format": ""},
        {"disk_format": 1},
        {"container_format": "box"},
        {"container_format": True},
        {"min_disk": -1},
        {"min_disk": 2**31},
        {"min_disk": "10"},
        {"min_disk": 1.5},
        {"min_disk": None},
        {"min_ram": -1},
        {"min_ram": 2**31},
        {"min_ram": 10**400},
        {"min_ram": "10"},
        {"tags": "tag"},
        {"tags": None},
        {"tags": [1]},
        {"tags": [None]},
        {"tags": {"a": "b"}},
        {"tags": ["t" * 256]},
        {"extra": 1},
        {"extra": None},
        {"extra": True},
        {"extra": ["a"]},
        {"extra": {"a": "b"}},
        {"k" * 256: "too long a key"},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_wrong_values(api: Api, fields: dict[str, Any]) -> None:
    assert api.raw_create(**fields).status_code == 400


def test_wrong_value_is_explained(api: Api) -> None:
    response = api.raw_create(min_disk="ten")
    assert response.status_code == 400
    assert "match" in response.text and "schema" in response.text
    assert "image" in response.text


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "disk 💿"},
        {"extra": "💿"},
        {"💿": "extra"},
        {"tags": ["💿"]},
        {"owner": "💿"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_characters_beyond_the_basic_plane(api: Api, fields: dict[str, Any]) -> None:
    assert api.raw_create(**fields).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"true",
        b"1",
        b'"name"',
        b"{'name': 'x'}",
        b'{"name": "x"} x',
        b"\xff\xfe",
        b'{"name": "\xff"}',
    ],
)
def test_malformed_bodies(api: Api, body: bytes) -> None:
    assert send(api, body).status_code == 400


@pytest.mark.better_than_glance  # 500
@pytest.mark.parametrize("body", [b"[]", b'[{"name": "x"}]', b'["name"]'])
def test_list_instead_of_object(api: Api, body: bytes) -> None:
    assert send(api, body).status_code == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("direct_url", "file:///x"),
        ("self", "/x"),
        ("file", "/x"),
        ("schema", "/x"),
        ("stores", "fs"),
        ("checksum", "0" * 32),
        ("created_at", "2020-01-01T00:00:00Z"),
        ("updated_at", "2020-01-01T00:00:00Z"),
        ("status", "active"),
        ("size", 1),
        ("virtual_size", 1),
        ("location", "file:///etc/passwd"),
        ("deleted", "true"),
        ("deleted_at", "2020-01-01T00:00:00Z"),
        ("locations", [{"url": "file:///etc/passwd", "metadata": {}}]),
        ("os_glance_anything", "x"),
        ("os_glance_import_task", "x"),
    ],
)
def test_what_only_the_service_sets(api: Api, name: str, value: object) -> None:
    assert api.raw_create(**{name: value}).status_code == 403


@pytest.mark.parametrize(("name", "value"), [("os_hash_algo", "sha512"), ("os_hash_value", "0" * 128)])
def test_hash_cannot_be_claimed(api: Api, name: str, value: str) -> None:
    response = api.raw_create(**{name: value})
    if response.status_code == 201:
        assert response.json()[name] is None
    else:
        assert response.status_code == 403


def test_too_many_properties(api: Api, limited: Api) -> None:
    assert limited.raw_create(**{f"p{number}": "x" for number in range(4)}).status_code == 201
    assert limited.raw_create(**{f"p{number}": "x" for number in range(5)}).status_code == 413
    assert api.raw_create(**{f"p{number}": "x" for number in range(128)}).status_code == 201
    assert api.raw_create(**{f"p{number}": "x" for number in range(129)}).status_code == 413


def test_too_many_tags(api: Api, limited: Api) -> None:
    assert limited.raw_create(tags=["a", "b", "c"]).status_code == 201
    assert limited.raw_create(tags=["a", "b", "c", "d"]).status_code == 413
    assert api.raw_create(tags=[f"t{number}" for number in range(128)]).status_code == 201
    assert api.raw_create(tags=[f"t{number}" for number in range(129)]).status_code == 413


def test_refused_image_leaves_nothing(api: Api) -> None:
    chosen = unused()
    assert api.raw_create(id=chosen, tags=[f"t{number}" for number in range(129)]).status_code == 413
    assert api.raw_create(id=chosen, min_disk=-1).status_code == 400
    assert api.raw_show(chosen).status_code == 404
    assert api.create(id=chosen)["id"] == chosen


def test_headers_do_not_set_fields(api: Api) -> None:
    headers = {"X-Image-Meta-Status": "active", "X-Image-Meta-Size": "5", "X-Image-Meta-Owner": "x"}
    image = api.request("POST", "/v2/images", json={}, headers=headers).json()
    assert (image["status"], image["size"], image["owner"]) == ("queued", None, None)


@pytest.mark.better_than_glance  # which answers 500 where SQLite is busy
def test_same_id_at_once(api: Api) -> None:
    for _ in range(5):
        chosen = unused()
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda name, chosen=chosen: api.raw_create(id=chosen, name=name), "abcdef"))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
        winner = next(answer for answer in answers if answer.status_code == 201)
        assert api.show(chosen) == winner.json()


def test_links_come_before_the_schema_and_reserved_names_after_it(api: Api) -> None:
    assert api.raw_create(self="x", min_ram="x").status_code == 403
    assert api.raw_create(status=1).status_code == 400
    assert api.raw_create(status="active").status_code == 403
    assert api.raw_create(deleted=1).status_code == 400
