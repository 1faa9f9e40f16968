"""PATCH in both media types: each operation on each property, pointers, roles, statuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.records import BODIES, FIELDS, values_of
from tests.differential.steps import (
    PATCH_20,
    PATCH_21,
    UNKNOWN,
    Scenario,
    Step,
    create,
    delete,
    fixed,
    get,
    patch,
    post,
    ready,
    show,
    upload,
)  # fmt: skip

POINTERS = (
    "", "/", "//", "/ ", "/x", "x", "/x/", "//x", "/x//y", "/x/y", "/x/y/z", "/a~1b", "/a~0b", "/a~01b", "/a~2b",
    "/a~", "/~", "/~1", "/~0",
    "/ name", "/name ", "/Name", "/name/", "/name/0", "/tags/0", "/tags/-", "/locations", "/locations/",
    "/locations/0", "/locations/-",
    "/locations/0/url", "/locations/x", "/locations/-1", "/\U0001f4bf", "/ä", "/a b", "/a%20b", "/" + "k" * 255,
    "/" + "k" * 256, "/0", "/-",
    "/a.b", "/a\\b", "/os_glance", "/os_glance_y", "/os_glance/x", "/status/x", "/stores", "/image_id", "/members",
    "/__proto__", "/extra_properties", "/updated_at", "/OWNER", None, 1, ["x"], {"x": 1}, True,
)  # fmt: skip
ENTRIES: tuple[Any, ...] = (
    None, {}, [], "x", 1, [None], [1], ["x"], [[]], [{}], [[{}]], {"op": "add", "path": "/x", "value": "y"},
    [{"op": "add", "path": "/x"}], [{"op": "replace", "path": "/name"}], [{"path": "/x", "value": "y"}],
    [{"op": "add", "value": "y"}],
    [{"op": "test", "path": "/name", "value": "x"}], [{"op": "move", "path": "/x", "from": "/y"}], [{"op": "copy",
    "path": "/x", "from": "/y"}],
    [{"op": "ADD", "path": "/x", "value": "y"}], [{"op": "", "path": "/x", "value": "y"}], [{"op": None, "path": "/x",
    "value": "y"}],
    [{"op": 1, "path": "/x", "value": "y"}], [{"op": ["add"], "path": "/x", "value": "y"}], [{"op": "remove",
    "path": "/tags", "value": []}],
    [{"op": "remove", "path": "/p", "value": "x"}], [{"op": "add", "path": "/x", "value": "y", "more": 1}],
    [{"add": "/x", "value": "y"}], [{"replace": "/name", "value": "y"}], [{"remove": "/p"}], [{"add": "/x",
    "remove": "/y", "value": "z"}],
    [{"add": "/x"}], [{"value": "y"}], [{"add": "/p", "value": "z"}], [{"replace": "/x", "value": "z"}],
    [{"remove": "/x"}],
    [{"add": "/name", "value": "z"}], [{"add": "/tags", "value": ["z"]}], [{"add": None, "value": "z"}],
    [{"test": "/x", "value": "z"}],
    [{"op": "add", "path": "/x", "value": "1"}, {"op": "add", "path": "/x", "value": "2"}],
    [{"op": "add", "path": "/x", "value": "1"}, {"op": "remove", "path": "/x"}],
    [{"op": "remove", "path": "/p"}, {"op": "add", "path": "/p", "value": "2"}],
    [{"op": "remove", "path": "/p"}, {"op": "replace", "path": "/p", "value": "2"}],
    [{"op": "remove", "path": "/p"}, {"op": "remove", "path": "/p"}],
    [{"op": "add", "path": "/x", "value": "1"}, {"op": "replace", "path": "/status", "value": "active"}],
    [{"op": "add", "path": "/x", "value": "1"}, {"op": "bad", "path": "/y"}],
    [{"op": "add", "path": "/x", "value": "1"}, {"op": "replace", "path": "/absent", "value": "1"}],
    [{"op": "replace", "path": "/absent", "value": "1"}, {"op": "replace", "path": "/min_ram", "value": "x"}],
    [{"op": "replace", "path": "/min_ram", "value": -1}, {"op": "replace", "path": "/absent", "value": "x"}],
    [{"op": "replace", "path": "/name", "value": str(number)} for number in range(50)],
)  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    yield Scenario("shapes of patches, 2.1", list(_each_on_its_own([(entry, PATCH_21) for entry in ENTRIES])))
    yield Scenario("shapes of patches, 2.0", list(_each_on_its_own([(entry, PATCH_20) for entry in ENTRIES])))
    yield Scenario("pointers", list(_pointers()))
    for name in FIELDS:
        yield Scenario(f"patch of {name[:20]!r}", list(_values(name, values_of(name))))
    yield Scenario("media types", list(_media()))
    for user in ("admin", "member", "reader", "stranger", "service"):
        yield Scenario(f"visibility, by {user}", list(_visibility(user)))
    yield Scenario("owner", list(_owner()))
    yield Scenario("of an active image", list(_active()))
    yield Scenario("unknown image", list(_unknown()))


def _each_on_its_own(patches: list[tuple[Any, str]]) -> Iterator[Step]:
    for entry, media in patches:
        yield create(keep="a", name="n", p="q", tags=["t"])
        yield patch("${a}", entry, media=media)
        yield show("${a}")


def _pointers() -> Iterator[Step]:
    for pointer in POINTERS:
        yield create(keep="a", name="n", **{"a/b": "1", "a~b": "2", "x": "3"})
        for operation in ("replace", "add", "remove"):
            yield patch("${a}", [{"op": operation, "path": pointer, "value": "v"}])
        if isinstance(pointer, str):
            yield patch("${a}", [{"add": pointer, "value": "v"}], media=PATCH_20)


def _values(name: str, values: tuple[Any, ...]) -> Iterator[Step]:
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    for number, value in enumerate(values):
        if number % 8 == 0:
            yield create("admin", keep="a", owner="${demo}", disk_format="vdi", min_ram=5, tags=["t"])
        operation = "add" if number % 2 and name != "owner" else "replace"  # Glance lets anybody `add` an owner
        yield patch("${a}", [{"op": operation, "path": pointer, "value": value}])
    yield create(keep="b")
    yield patch("${b}", [{"op": "remove", "path": pointer}])
    yield patch("${b}", [{"remove": pointer}], media=PATCH_20)
    yield patch("${b}", [{"op": "remove", "path": pointer}], "admin")
    if values:
        yield patch("${b}", [{"op": "add", "path": pointer, "value": values[0]}], "admin")
        yield patch("${b}", [{"op": "replace", "path": pointer, "value": values[0]}], "admin")
        yield patch("${b}", [{"replace": pointer, "value": values[-1]}], "admin", PATCH_20)
    yield show("${b}")


def _media() -> Iterator[Step]:
    yield create(keep="a", name="n")
    for media in ("", "application/json", "application/json-patch+json", "text/plain", "application/octet-stream",
    f"{PATCH_21}; charset=utf-8",
                  f"{PATCH_21};x=y", PATCH_21.upper(), f" {PATCH_21}", "application/openstack-images-v2.2-json-patch",
                  "application/openstack-images-json-patch", f"{PATCH_20};a=b", f"{PATCH_21}, {PATCH_20}"):  # fmt: skip
        yield patch("${a}", [{"op": "add", "path": "/x", "value": "y"}], media=media)
    for body in BODIES:
        yield Step("member", "PATCH", "/v2/images/${a}", body=body, headers={"Content-Type": PATCH_21})
    for body in (b"[] []", b"[{]", b'[{"op": "add", "path": "/x", "value": "\xff"}]',
    b'[{"op": "add", "path": "/x", "value": NaN}]',
                 b'[{"op": "add", "op": "remove", "path": "/x"}]', b"[" * 200 + b"]" * 200):  # fmt: skip
        yield Step("member", "PATCH", "/v2/images/${a}", body=body, headers={"Content-Type": PATCH_21})
        yield Step("member", "PATCH", "/v2/images/${a}", body=body, headers={"Content-Type": PATCH_20})
    yield show("${a}")


def _visibility(user: str) -> Iterator[Step]:
    states = ("public", "private", "shared", "community")
    for before in states:
        for after in states:
            yield create("admin", keep="a", owner="${demo}", visibility=before)
            yield patch("${a}", [{"op": "replace", "path": "/visibility", "value": after}], user)
            yield show("${a}", user)
        yield patch(
            "${a}",
            [
                {"op": "add", "path": "/visibility", "value": "private"},
                {"op": "replace", "path": "/name", "value": "x"},
            ],
            user,
        )


def _owner() -> Iterator[Step]:
    yield create(keep="a", visibility="community")
    yield patch("${a}", [{"op": "add", "path": "/owner", "value": "${alt}"}])
    for visibility in ("public", "private", "shared", "community"):
        for user in ("member", "admin", "stranger"):
            for owner in ("${alt}", None, ""):
                yield create("admin", keep="a", owner="${demo}", visibility=visibility)
                yield patch("${a}", [{"op": "replace", "path": "/owner", "value": owner}], user)
                if user not in ("member", "here"):  # whom Glance lets give it away by `add`
                    yield patch("${a}", [{"op": "add", "path": "/owner", "value": owner}], user)
                yield show("${a}", "admin")


def _active() -> Iterator[Step]:
    yield ready(keep="a", p="q", tags=["t"])
    yield upload("${a}")
    for name, value in (("disk_format", "qcow2"), ("disk_format", "raw"), ("disk_format", None), ("container_format",
    "ovf"), ("container_format", "bare"),
                        ("name", "x"), ("min_ram", 1), ("min_disk", 1), ("protected", True), ("os_hidden", True),
                        ("tags", ["u"]), ("p", "r"), ("visibility", "private"),
                        ("size", 1), ("checksum", "x"), ("virtual_size", 1), ("os_hash_algo", "x"), ("stores", "x"),
                        ("direct_url", "x")):  # fmt: skip
        for operation in ("replace", "add", "remove"):
            yield patch("${a}", [{"op": operation, "path": f"/{name}", "value": value}])
            yield patch("${a}", [{"op": operation, "path": f"/{name}", "value": value}], "admin")
    yield delete("/v2/images/${a}")
    yield patch("${a}", [{"op": "replace", "path": "/protected", "value": False}])
    for action in ("deactivate", "reactivate"):
        yield post(f"/v2/images/${{a}}/actions/{action}", "admin")
        yield patch("${a}", [{"op": "replace", "path": "/name", "value": action}])
        yield patch("${a}", [{"op": "replace", "path": "/disk_format", "value": "iso"}])
        yield show("${a}")
    yield delete("/v2/images/${a}")
    yield patch("${a}", [{"op": "replace", "path": "/name", "value": "x"}])


def _unknown() -> Iterator[Step]:
    for operations in (
        [], [{"op": "replace", "path": "/name", "value": "x"}], [{"op": "replace", "path": "/status", "value": "x"}],
        [{"op": "bad", "path": "/x"}],
        [{"op": "replace", "path": "/min_ram", "value": "x"}], [{"op": "remove", "path": "/name"}], None,
    ):  # fmt: skip
        for user in ("member", "reader", "admin", "nobody"):
            yield patch(UNKNOWN, operations, user)
            yield patch(UNKNOWN, operations, user, "text/plain")
    yield create("stranger", id=fixed(90), visibility="private")
    yield patch(fixed(90), [])
    yield patch(fixed(90), [{"op": "replace", "path": "/name", "value": "x"}])
    yield patch(fixed(90), [{"op": "replace", "path": "/min_ram", "value": "x"}])
    yield get(f"/v2/images/{fixed(90)}")
