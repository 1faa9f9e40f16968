"""Requests on image records: create, show, delete, data, and what every call refuses in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.steps import (
    OCTETS,
    UNKNOWN,
    Scenario,
    Step,
    create,
    delete,
    fixed,
    get,
    patch,
    post,
    put,
    ready,
    show,
    upload,
)  # fmt: skip

ODD_TEXTS = ("", " ", " a b ", "ä ö 映像", "a/b", "a\\b", "a'b\"c", "a%20b", "<b>&amp;", "\t", "\n", "\u007f", "\u00a0",
"$x{}",
             "null", "\u0000", "\U0001f4bf", "x\U00010000y", "\uffff", "\u202e")  # fmt: skip
LENGTHS = (254, 255, 256, 1000)
NUMBERS: tuple[Any, ...] = (
    0,
    1,
    -1,
    2**31 - 1,
    2**31,
    2**63,
    2**64,
    1.0,
    1.5,
    -0.0,
    1e3,
    1e400,
    True,
    "1",
    "",
    None,
    [],
    {},
)
WRONG: tuple[Any, ...] = (None, 0, 1, 1.5, True, False, [], ["x"], {}, {"x": "y"}, "", "x")

# What each field of the body is tried with, beside the values of the wrong types.
FIELDS: dict[str, tuple[Any, ...]] = {
    "id": (fixed(1), "ABCDEF00-0000-4000-8000-00000000000A", "x", fixed(2)[:-1], f"{fixed(3)}0", f" {fixed(4)}",
    "0" * 32),
    "name": (*ODD_TEXTS, *("n" * length for length in LENGTHS), *("ü" * length for length in LENGTHS)),
    "visibility": ("public", "private", "shared", "community", "all", "Public", " private"),
    "protected": ("true",),
    "os_hidden": ("false",),
    "owner": (*ODD_TEXTS[:6], *("o" * length for length in LENGTHS), "${alt}", "${demo}"),
    "container_format": ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed", "BARE", "box"),
    "disk_format": ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt",
    "floppy", "RAW"),
    "min_disk": NUMBERS,
    "min_ram": NUMBERS,
    "tags": (["a", "b"], ["a", "a"], ["A", "a"], [" a ", "a"], ["é", "e"], [""], ["t" * 255], ["t" * 256], [1],
    [None], [["a"]],
             ["\U0001f4bf"], ["a/b"], [str(number) for number in range(8)], [str(number) for number in range(9)]),
    "os_distro": (*ODD_TEXTS, "x" * 255, "x" * 3000),
    "os_hash_algo": ("md5",),
    "os_hash_value": ("x",),
    "checksum": ("0" * 32,),
    "status": ("queued", "active"),
    "size": (0, 5),
    "virtual_size": (0, 5),
    "created_at": ("2026-01-01T00:00:00Z",),
    "updated_at": ("2026-01-01T00:00:00Z",),
    "direct_url": (), "self": (), "file": (), "schema": (), "stores": (), "location": (), "deleted": (),
    "deleted_at": (),
    "locations": ([{"url": "http://127.0.0.1:1/x", "metadata": {}}],),
    "os_glance_x": (), "os_glance": (), "os_glance_upload_lease": (), "OS_GLANCE_X": (), "os_glanc": (),
    "image_id": (), "project_id": (), "member": (), "links": (), "properties": (), "is_public": (), "changes-since": (),
    "": (), " ": (), "a b": (), "a/b": (), "ä": (), "\U0001f4bf": (), "k" * 255: (), "k" * 256: (), "a\u0000b": (),
}  # fmt: skip

BODIES = (
    b"", b" ", b"{", b"{}", b"[]", b"[{}]", b"null", b"1", b'"x"', b"true", b"{} {}", b"{}x", b'{"name": }',
    b"{'name': 'x'}",
    b'{"name": "\xff"}', b"\xef\xbb\xbf{}", b'{"name": "a", "name": "b"}', b'{"name": "\\ud800"}',
    b'{"name": "\\ud83d\\udcbf"}',
    b'{"min_ram": NaN}', b'{"min_ram": Infinity}', b'{"min_ram": 1e1}', b'{"min_ram": 01}', b'{"name": "a\nb"}', b"{,}",
    b'{"x": "y",}', b"[" * 50 + b"]" * 50, b'{"x": ' * 50 + b"1" + b"}" * 50,
)  # fmt: skip


def values_of(name: str) -> tuple[Any, ...]:
    """What a field is tried with. Those that are refused whatever they hold, and other names, get a few values only."""
    return (*FIELDS[name], *WRONG) if FIELDS[name] else (None, 1, ["x"], "x")


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    for name in FIELDS:
        yield Scenario(f"create with {name[:20]!r}", [create(**{name: value}) for value in values_of(name)])
        yield Scenario(
            f"create with {name[:20]!r}, admin", [create("admin", **{name: value}) for value in FIELDS[name][:8]]
        )
    yield Scenario("bodies of create", [post("/v2/images", body=body) for body in BODIES])
    yield Scenario("content types of create", [
        post("/v2/images", json={"name": "x"}, headers={"Content-Type": media})
        for media in ("text/plain", OCTETS, "application/json; charset=latin-1", "x", "")
    ])  # fmt: skip
    yield Scenario("combinations", list(_combinations()))
    yield Scenario("who may create", list(_creators()))
    yield Scenario("ids", list(_ids()))
    yield Scenario("show and delete", list(_seen()))
    yield Scenario("data", list(_data()))
    yield Scenario("ranges", list(_ranges()))
    yield Scenario("forms of errors", list(_errors()))
    yield Scenario("quotas of properties", list(_properties()))


def _combinations() -> Iterator[Step]:
    yield create(
        name="full", visibility="private", protected=True, os_hidden=True, container_format="bare", disk_format="qcow2",
        min_disk=1, min_ram=2, tags=["x", "y"], os_distro="debian", architecture="x86_64", kernel_id=fixed(7), a="",
        b="ü",
    )  # fmt: skip
    yield create(name="both wrong", visibility="nobody", status="active")
    yield create(name="both wrong", min_ram=-1, deleted="x")
    yield create(name="both wrong", tags=["x"] * 300, min_ram="x")
    yield create(a="1", A="2")
    yield create(a="1", **{"a ": "2"})
    yield create(e="1", é="2")
    yield create(name=None, owner=None, container_format=None, disk_format=None)
    yield create("admin", name=None, owner=None, container_format=None, disk_format=None)
    for value in ("x", fixed(1), "", None, 1):
        for name in (
            "kernel_id",
            "ramdisk_id",
            "instance_uuid",
            "architecture",
            "cinder_encryption_key_deletion_policy",
        ):
            yield create(**{name: value})
    for value in ("on_image_deletion", "do_not_delete"):
        yield create(cinder_encryption_key_deletion_policy=value)


def _creators() -> Iterator[Step]:
    for user in ("admin", "member", "reader", "stranger", "here", "there", "service", "nobody"):
        for visibility in ("public", "private", "shared", "community"):
            yield create(user, visibility=visibility)
        yield create(user, owner="${alt}")
        yield create(user, owner=None)
        yield create(user, protected=True, os_hidden=True)
        yield create(user, name="x" * 256)
        yield create(user, status="x")


def _ids() -> Iterator[Step]:
    yield create(id=fixed(10), name="first")
    yield create(id=fixed(10), name="again")
    yield create("stranger", id=fixed(10), name="again")
    yield create("admin", id=fixed(10), name="again")
    yield delete(f"/v2/images/{fixed(10)}")
    yield create(id=fixed(10), name="after delete")
    yield show(fixed(10))
    yield create(id="abcdef00-0000-4000-8000-00000000000a")
    yield create(id="ABCDEF00-0000-4000-8000-00000000000A")
    yield show("ABCDEF00-0000-4000-8000-00000000000A")
    for odd in (UNKNOWN, "x", "x" * 36, "x" * 37, "x" * 300, "%20", "%00", "a%2Fb", "%F0%9F%92%BF", "%FF", "%C3%A9",
    "'", "..", ".", "%2e%2e",
                f"{fixed(10)}%20", f"{fixed(10)}?x=y", f"{fixed(10)}/", "null", "detail"):  # fmt: skip
        yield show(odd)
        yield patch(odd, [])
        yield delete(f"/v2/images/{odd}")
        yield get(f"/v2/images/{odd}/file")


def _seen() -> Iterator[Step]:
    users = ("admin", "member", "reader", "stranger", "here", "there", "service", "nobody")
    for number, visibility in enumerate(("public", "private", "shared", "community"), 20):
        for image, more in ((fixed(number), {}), (fixed(number + 10), {"protected": True}))[: 2 if number < 22 else 1]:
            yield ready(
                "admin", id=image, owner="${demo}", visibility=visibility, name=visibility, os_distro="x", **more
            )
            for user in users:
                yield show(image, user)
                yield get(f"/v2/images/{image}/file", user)
                yield patch(image, [{"op": "replace", "path": "/name", "value": f"by {user}"}], user)
                yield upload(image, user)
                yield get(f"/v2/images/{image}/file", user)
            for user in ("nobody", "service", "stranger", "there", "reader", "here", "member", "admin"):
                yield delete(f"/v2/images/{image}", user)
                yield show(image, user)
    yield ready("admin", id=fixed(40), owner=None, visibility="private")
    for user in users:
        yield show(fixed(40), user)
        yield patch(fixed(40), [{"op": "replace", "path": "/name", "value": "x"}], user)
        yield delete(f"/v2/images/{fixed(40)}", user)


def _data() -> Iterator[Step]:
    image = fixed(50)
    path = f"/v2/images/{image}/file"
    yield create(id=image)
    yield get(path)
    yield upload(image)
    yield patch(image, [{"op": "replace", "path": "/disk_format", "value": "raw"}])
    yield upload(image)
    yield patch(image, [{"op": "replace", "path": "/container_format", "value": "bare"}])
    for media in ("", "text/plain", "application/json", "application/octet-stream; x=y", "APPLICATION/OCTET-STREAM"):
        yield put(path, body=b"x", headers={"Content-Type": media})
    for size in ("x", "-1", "1.5", "5", "100", "0"):
        yield put(path, body=b"content", headers={"Content-Type": OCTETS, "x-openstack-image-size": size})
        yield show(image)
    for store in ("nowhere", "", "os_glance_staging_store"):
        yield ready(keep="other")
        yield put("/v2/images/${other}/file", body=b"x", headers={"Content-Type": OCTETS, "x-image-meta-store": store})
    yield ready(keep="fast")
    yield put("/v2/images/${fast}/file", body=b"some", headers={"Content-Type": OCTETS, "x-image-meta-store": "fast"})
    yield show("${fast}")
    yield get("/v2/images/${fast}/file")
    for store in ("fs", "fast", "fast,fs", "nowhere", ""):
        yield get(f"/v2/images/${{fast}}/file?prefer={store}")
    yield upload("${fast}")
    yield ready(keep="empty")
    yield upload("${empty}", data=b"")
    yield show("${empty}")
    yield get("/v2/images/${empty}/file")
    yield upload(UNKNOWN)
    yield ready(keep="wrong", disk_format="qcow2")
    yield upload("${wrong}", data=b"no disk at all" * 100)
    yield ready(keep="gone")
    yield upload("${gone}")
    yield delete("/v2/images/${gone}")
    yield delete("/v2/images/${gone}")
    yield get("/v2/images/${gone}/file")
    yield upload("${gone}")
    yield delete("/v2/images/${fast}", body=b"x")
    yield get("/v2/images/${fast}", body=b"x")
    yield get("/v2/images/${fast}/file", body=b"x")


def _ranges() -> Iterator[Step]:
    yield ready(keep="a")
    yield upload("${a}", data=b"0123456789")
    for value in ("bytes=0-", "bytes=0-0", "bytes=2-5", "bytes=-3", "bytes=-30", "bytes=9-", "bytes=10-",
    "bytes=5-100", "bytes=5-2",
                  "bytes=0-1,3-4", "bytes=x", "items=0-1", "bytes=0-0,", "bytes= 1-2", "bytes=1-2 ", "0-1",
                  "bytes=-0"):  # fmt: skip
        yield get("/v2/images/${a}/file", headers={"Range": value})
    for value in ("bytes 0-3/*", "bytes 0-3/10", "bytes 5-2/*", "bytes 0-10/*", "bytes 10-11/*", "bytes */10", "x"):
        yield get("/v2/images/${a}/file", headers={"Content-Range": value})


def _errors() -> Iterator[Step]:
    for accept in ("text/html", "*/*", "application/json", "text/plain", "image/png", "application/json, text/html",
    "text/*", "",
                   "application/json;q=0.5, */*;q=0.1", "APPLICATION/JSON", "application/*", "junk"):  # fmt: skip
        headers = {"Accept": accept}
        yield get(f"/v2/images/{UNKNOWN}", headers=headers)
        yield get("/v2/images?limit=x", headers=headers)
        yield post("/v2/images", json={"status": "x"}, headers=headers)
        yield post(f"/v2/images/{UNKNOWN}", headers=headers)
        yield get("/v2/images", "nobody", headers=headers)
        yield get("/v2/nothing", headers=headers)
        yield patch(UNKNOWN, [], media="text/plain")


def _properties() -> Iterator[Step]:
    """The rig's limits are 8 tags and 10 properties."""
    for count in (9, 10, 11):
        yield create(**{f"p{number}": "x" for number in range(count)})
    yield create(keep="full", **{f"p{number}": "x" for number in range(10)})
    for operations in (
        [("add", "/q", "x")], [("add", "/p1", "y")], [("replace", "/p1", "z")], [("remove", "/p1"), ("add", "/q", "x")],
        [("add", "/r", "x"), ("remove", "/r")], [("add", "/r", "x"), ("remove", "/p2")], [("remove", "/p3")], [("add",
        "/s", "x")],
        [("add", "/t", "x"), ("replace", "/name", "n")],
    ):  # fmt: skip
        yield patch("${full}", [dict(zip(("op", "path", "value"), each, strict=False)) for each in operations])
    for count in (8, 9):
        yield patch("${full}", [{"op": "replace", "path": "/tags", "value": [str(number) for number in range(count)]}])
    yield patch("${full}", [{"op": "replace", "path": "/tags", "value": ["1", "1", "2", "3", "4", "5", "6", "7", "8"]}])
