"""JSON patch: what parses, what is refused, and what a change does to a record."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from glimpse.domain.patch import MEDIA_V20, MEDIA_V21, Change, apply, parse
from glimpse.domain.record import Image
from glimpse.domain.schema import ImageSchema
from glimpse.errors import BadRequest, Conflict, Forbidden

SCHEMA = ImageSchema(["bare"], ["raw", "qcow2"])
THEN = datetime(2026, 1, 1)
IMAGE = Image("id", "queued", "shared", THEN, THEN, name="old", owner="p", tags=("a",), properties={"os": "linux"})


def patched(*operations: dict[str, Any], image: Image = IMAGE, media: str = MEDIA_V21, admin: bool = False) -> Image:
    return apply(image, parse(media, list(operations), SCHEMA), admin)


def change(op: str, path: str, *value: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **({"value": value[0]} if value else {})}


def test_values_are_replaced_added_and_removed() -> None:
    after = patched(change("replace", "/name", "new"), change("add", "/kernel", "k"), change("remove", "/os"))
    assert (after.name, after.properties) == ("new", {"kernel": "k"})
    assert IMAGE.properties == {"os": "linux"}


def test_escapes_in_pointers() -> None:
    assert patched(change("add", "/a~1b~0c", "x")).properties["a/b~c"] == "x"


def test_tags_are_a_set() -> None:
    assert patched(change("replace", "/tags", ["b", "c", "b"])).tags == ("b", "c")


def test_the_old_media_type_does_not_overwrite_with_add() -> None:
    assert patched({"add": "/new", "value": "x"}, media=MEDIA_V20).properties["new"] == "x"
    with pytest.raises(Conflict):
        patched({"add": "/os", "value": "x"}, media=MEDIA_V20)
    assert patched(change("add", "/os", "x")).properties["os"] == "x"


@pytest.mark.parametrize(
    "body",
    [
        {},
        "text",
        [1],
        [{"path": "/name", "value": "x"}],
        [change("test", "/name", "x")],
        [change("move", "/name", "x")],
        [{"op": "add", "value": 1}],
        [change("add", "/name")],
        [change("add", "name", "x")],
        [change("add", "/", "x")],
        [change("add", "//name", "x")],
        [change("add", "/name/", "x")],
        [change("add", "/ ", "x")],
        [change("add", "/a~2", "x")],
        [change("add", "/a~", "x")],
        [change("add", "/a/b", "x")],
        [change("add", "/locations", "x")],
        [{"op": ["add"], "path": "/a", "value": "x"}],
        [{"op": "add", "path": ["/a"], "value": "x"}],
    ],
)
def test_malformed_bodies(body: Any) -> None:
    with pytest.raises(BadRequest):
        parse(MEDIA_V21, body, SCHEMA)


@pytest.mark.parametrize("body", [[{"add": "/a", "replace": "/b", "value": "x"}], [{"value": "x"}]])
def test_malformed_bodies_of_the_old_kind(body: Any) -> None:
    with pytest.raises(BadRequest):
        parse(MEDIA_V20, body, SCHEMA)


@pytest.mark.parametrize(
    "name", ["id", "status", "size", "checksum", "os_hash_value", "created_at", "self", "deleted", "os_glance_x"]
)
@pytest.mark.parametrize("op", ["add", "replace", "remove"])
def test_what_no_client_may_touch(name: str, op: str) -> None:
    with pytest.raises(Forbidden):
        parse(MEDIA_V21, [change(op, f"/{name}", "x")], SCHEMA)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (change("remove", "/name"), Forbidden),
        (change("remove", "/nothing"), Conflict),
        (change("replace", "/nothing", "x"), Conflict),
        (change("replace", "/owner", "x"), Forbidden),
        (change("add", "/owner", "x"), Forbidden),
        (change("replace", "/visibility", "secret"), BadRequest),
        (change("replace", "/min_disk", -1), BadRequest),
        (change("replace", "/min_disk", 2**31), BadRequest),
        (change("replace", "/min_ram", "1"), BadRequest),
        (change("replace", "/protected", "true"), BadRequest),
        (change("add", "/extra", 1), BadRequest),
        (change("add", "/extra", "\U0001f600"), BadRequest),
        (change("add", "/extra", "\0"), BadRequest),
        (change("add", "/" + "x" * 256, "x"), BadRequest),
        (change("replace", "/tags", ["x" * 256]), BadRequest),
        (change("replace", "/disk_format", "floppy"), BadRequest),
    ],
)
def test_refusals(operation: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        patched(operation)


def test_admins_change_the_owner() -> None:
    assert patched(change("replace", "/owner", "other"), admin=True).owner == "other"


def test_formats_are_fixed_once_there_is_data() -> None:
    assert patched(change("replace", "/disk_format", "raw")).disk_format == "raw"
    with pytest.raises(Forbidden):
        patched(change("replace", "/disk_format", "raw"), image=IMAGE.with_(status="active"))


def test_a_body_full_of_changes_takes_no_time() -> None:
    """While they are applied, the image's row is locked; on SQLite the whole database is."""
    before = time.process_time()
    after = apply(IMAGE, [Change("add", str(number), "") for number in range(100_000)], is_admin=False)
    assert len(after.properties) == 100_001
    assert time.process_time() - before < 3, "a copy of all properties for each change took minutes"
