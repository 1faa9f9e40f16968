"""The schemas that clients read to know what an image may hold."""

from __future__ import annotations

from typing import Any

import pytest

from .client import Api
from .service import DISK_FORMATS

UUID_PATTERN = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
READ_ONLY = {
    "status",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "size",
    "virtual_size",
    "created_at",
    "updated_at",
    "direct_url",
    "self",
    "file",
    "stores",
    "schema",
}
WRITABLE = {
    "id",
    "name",
    "visibility",
    "protected",
    "os_hidden",
    "owner",
    "container_format",
    "disk_format",
    "tags",
    "min_ram",
    "min_disk",
    "locations",
}


@pytest.fixture(scope="module")
def schema(api: Api) -> dict[str, Any]:
    response = api.get("/v2/schemas/image")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    document: dict[str, Any] = response.json()
    return document


def test_image(schema: dict[str, Any]) -> None:
    assert schema["name"] == "image"
    assert schema["additionalProperties"] == {"type": "string"}
    assert schema["links"] == [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ]


def test_image_fields(schema: dict[str, Any]) -> None:
    fields = schema["properties"]
    assert set(fields) >= READ_ONLY | WRITABLE
    assert {name for name in READ_ONLY | WRITABLE if fields[name].get("readOnly")} == READ_ONLY
    assert all(fields[name]["description"] for name in READ_ONLY | WRITABLE)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("id", {"type": "string", "pattern": UUID_PATTERN}),
        ("name", {"type": ["null", "string"], "maxLength": 255}),
        ("visibility", {"type": "string"}),
        ("protected", {"type": "boolean"}),
        ("os_hidden", {"type": "boolean"}),
        ("checksum", {"type": ["null", "string"], "maxLength": 32}),
        ("os_hash_algo", {"type": ["null", "string"], "maxLength": 64}),
        ("os_hash_value", {"type": ["null", "string"], "maxLength": 128}),
        ("owner", {"type": ["null", "string"], "maxLength": 255}),
        ("size", {"type": ["null", "integer"]}),
        ("virtual_size", {"type": ["null", "integer"]}),
        ("created_at", {"type": "string"}),
        ("tags", {"type": "array", "items": {"type": "string", "maxLength": 255}}),
        ("min_ram", {"type": "integer"}),
        ("min_disk", {"type": "integer"}),
    ],
)
def test_image_field(schema: dict[str, Any], field: str, expected: dict[str, object]) -> None:
    found = schema["properties"][field]
    assert {key: found.get(key) for key in expected} == expected


def test_image_enumerations(schema: dict[str, Any]) -> None:
    fields = schema["properties"]
    # nova reads the disk formats from here
    assert set(fields["disk_format"]["enum"]) == {None, *DISK_FORMATS.split(",")}
    known = {None, "ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"}
    assert set(fields["container_format"]["enum"]) == known
    assert set(fields["visibility"]["enum"]) == {"community", "public", "private", "shared"}
    assert set(fields["status"]["enum"]) == {
        "queued",
        "saving",
        "active",
        "killed",
        "deleted",
        "uploading",
        "importing",
        "pending_delete",
        "deactivated",
    }


def test_image_locations(schema: dict[str, Any]) -> None:
    item = schema["properties"]["locations"]["items"]
    assert set(item["required"]) == {"url", "metadata"}
    assert item["properties"]["url"]["maxLength"] == 255
    validation = item["properties"]["validation_data"]
    assert validation["additionalProperties"] is False
    assert set(validation["required"]) == {"os_hash_algo", "os_hash_value"}


def test_enumeration_follows_the_configuration(limited: Api) -> None:
    fields = limited.get("/v2/schemas/image").json()["properties"]
    assert set(fields["container_format"]["enum"]) == {None, "bare", "ovf"}
    assert limited.raw_create(container_format="ova").status_code == 400


def test_images(api: Api, schema: dict[str, Any]) -> None:
    document = api.get("/v2/schemas/images").json()
    assert document["name"] == "images"
    assert set(document["properties"]) == {"images", "first", "next", "schema"}
    assert document["properties"]["images"]["type"] == "array"
    assert document["properties"]["images"]["items"] == schema
    assert document["links"] == [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ]


@pytest.mark.parametrize("name", ["image", "images", "member", "members", "task", "tasks"])
def test_methods(api: Api, name: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "HEAD"):
        response = api.request(method, f"/v2/schemas/{name}")
        assert response.status_code == 405
        assert response.headers["allow"] == "GET"


def test_unknown_schema(api: Api) -> None:
    assert api.get("/v2/schemas/nonsense").status_code == 404


def test_every_image_obeys_the_schema(api: Api, schema: dict[str, Any]) -> None:
    image = api.active(name="é", os_distro="debian", tags=["a"])
    for name, value in image.items():
        allowed = schema["properties"].get(name, {"type": "string"})["type"]
        kinds = {type(None): "null", str: "string", int: "integer", bool: "boolean", list: "array"}
        assert kinds[type(value)] in ([allowed] if isinstance(allowed, str) else allowed), name


MEMBER = ["member_id", "image_id", "created_at", "updated_at", "status", "schema"]
TASK = ["id", "type", "status", "owner", "image_id", "request_id", "user_id", "expires_at", "created_at", "updated_at",
        "self", "schema"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fields", "listed"),
    [("member", MEMBER, MEMBER), ("task", [*TASK, "input", "result", "message"], TASK)],
)
def test_parts(api: Api, name: str, fields: list[str], listed: list[str]) -> None:
    """Their schemas are in the short form: no word about fields that are not named."""
    one = api.get(f"/v2/schemas/{name}").json()
    assert set(one) == {"name", "properties"}
    assert one["name"] == name
    assert set(one["properties"]) == set(fields)
    many = api.get(f"/v2/schemas/{name}s").json()
    items = {"name": name, "properties": {field: one["properties"][field] for field in listed}}
    assert many == {
        "name": f"{name}s",
        "properties": {f"{name}s": {"type": "array", "items": items}, "schema": {"type": "string"}},
        "links": [{"rel": "describedby", "href": "{schema}"}],
    }


def test_part_fields(api: Api) -> None:
    member = api.get("/v2/schemas/member").json()["properties"]
    assert member["status"]["enum"] == ["pending", "accepted", "rejected"]
    assert member["image_id"]["pattern"] == UUID_PATTERN
    task = api.get("/v2/schemas/task").json()["properties"]
    assert task["type"]["enum"] == ["import", "api_image_import", "location_import"]
    assert task["status"]["enum"] == ["pending", "processing", "success", "failure"]
    for field in ("input", "result"):
        assert task[field]["type"] == ["null", "object"]
