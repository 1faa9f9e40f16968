"""Locations: as a property of the image, and as a resource with its own policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.steps import UNKNOWN, Scenario, Step, create, delete, get, patch, post, ready, show, upload

USERS = ("admin", "member", "reader", "stranger", "here", "there", "service", "nobody")
WEB = "${web}/file"
MD5 = "11f7a3d0e8cd96aed3a9c5f5a7cbbbd0"
SHA = "0" * 128
PLACES: tuple[Any, ...] = (
    None, "x", 1, [], {}, {"url": WEB}, {"metadata": {}}, {"url": WEB, "metadata": {}}, {"url": WEB,
    "metadata": {"a": "b"}}, {"url": WEB, "metadata": "x"},
    {"url": "", "metadata": {}}, {"url": 1, "metadata": {}}, {"url": "x", "metadata": {}}, {"url": "ftp://x/y",
    "metadata": {}}, {"url": "http:", "metadata": {}},
    {"url": "http://", "metadata": {}}, {"url": "${web}/absent", "metadata": {}}, {"url": "http://127.0.0.1:1/x",
    "metadata": {}}, {"url": "file:///etc/passwd", "metadata": {}},
    {"url": "filesystem:///etc/passwd", "metadata": {}}, {"url": "swift+config://a/b/c", "metadata": {}},
    {"url": "file://${folder}/fs/x", "metadata": {}},
    {"url": WEB, "metadata": {}, "more": 1}, {"url": f"{WEB}{'x' * 300}", "metadata": {}}, {"url": f"{WEB}\U0001f4bf",
    "metadata": {}}, {"url": WEB, "metadata": {"store": "fs"}},
    {"url": WEB, "metadata": {}, "validation_data": {}}, {"url": WEB, "metadata": {},
    "validation_data": {"os_hash_algo": "sha512"}},
    {"url": WEB, "metadata": {}, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": SHA}},
    {"url": WEB, "metadata": {}, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "0" * 10}},
    {"url": WEB, "metadata": {}, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "x" * 128}},
    {"url": WEB, "metadata": {}, "validation_data": {"os_hash_algo": "md5", "os_hash_value": MD5}},
    {"url": WEB, "metadata": {}, "validation_data": {"os_hash_algo": "nothing", "os_hash_value": MD5}},
    {"url": WEB, "metadata": {}, "validation_data": {"checksum": MD5, "os_hash_algo": "sha512", "os_hash_value": SHA}},
    {"url": WEB, "metadata": {}, "validation_data": {"checksum": "x" * 32, "os_hash_algo": "sha512",
    "os_hash_value": SHA}},
    {"url": WEB, "metadata": {}, "validation_data": {"checksum": "x", "os_hash_algo": "sha512", "os_hash_value": SHA}},
    {"url": WEB, "metadata": {}, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": SHA, "more": 1}},
)  # fmt: skip
# What the resource refuses at once; what it takes would go on after the answer.
BODIES: tuple[Any, ...] = (
    None, [], "x", {}, {"url": 1}, {"url": None}, {"urls": WEB}, {"url": WEB, "validation_data": {}}, {"url": WEB,
    "validation_data": {"os_hash_algo": "sha512"}},
    {"url": WEB, "validation_data": {"os_hash_value": SHA}}, {"url": WEB, "validation_data": {"os_hash_algo": "sha3",
    "os_hash_value": SHA}},
    {"url": WEB, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "0" * 129}}, {"url": WEB,
    "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "0"}},
    {"url": WEB, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "x" * 128}}, {"url": WEB,
    "validation_data": {"os_hash_algo": "sha512", "os_hash_value": SHA, "x": 1}},
    {"url": WEB, "validation_data": "x"}, {"url": "file:///etc/passwd"}, {"url": "ftp://x"}, {"url": ""}, {"url": "x"},
)  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    yield Scenario("locations in a patch", list(_by_patch()))
    for position in ("0", "1", "2", "-", "-1", "x", "", "00", "1.0", "99999999999", " 0", "0/url"):
        yield Scenario("positions of locations", list(_position(position)), chained=True)
    yield Scenario("how many locations", list(_many()))
    yield Scenario("locations replaced", list(_replaced()))
    yield Scenario("locations in other states", list(_states()))
    yield Scenario("locations by whom", list(_by_whom()))
    yield Scenario("locations as a resource", list(_resource()))
    yield Scenario("leaving a store", list(_leaving()))


def _add(image: str, place: Any, position: str = "-", user: str = "member") -> Step:
    return patch(image, [{"op": "add", "path": f"/locations/{position}", "value": place}], user)


def _by_patch() -> Iterator[Step]:
    for place in PLACES:
        yield ready(keep="a")
        yield _add("${a}", place)
        yield show("${a}")
        yield ready(keep="b")
        yield patch("${b}", [{"op": "replace", "path": "/locations", "value": [place]}])


def _position(position: str) -> Iterator[Step]:
    yield ready(keep="a")
    yield _add("${a}", {"url": WEB, "metadata": {}})
    yield _add("${a}", {"url": f"{WEB}2", "metadata": {}}, position)
    yield show("${a}")
    yield patch("${a}", [{"op": "remove", "path": f"/locations/{position}"}], "admin")
    yield show("${a}")


def _many() -> Iterator[Step]:
    yield ready(keep="a")
    yield _add("${a}", {"url": WEB, "metadata": {}})
    yield patch("${a}", [{"op": "add", "path": "/locations", "value": []}])
    yield patch("${a}", [{"op": "replace", "path": "/locations/0", "value": {"url": WEB, "metadata": {}}}])
    yield patch("${a}", [{"op": "remove", "path": "/locations"}])
    yield ready(keep="b")
    for number in range(5):  # the limit is 3
        yield _add("${b}", {"url": f"{WEB}{number}", "metadata": {}})
    yield _add("${b}", {"url": f"{WEB}1", "metadata": {}})


def _replaced() -> Iterator[Step]:
    one, two = {"url": f"{WEB}1", "metadata": {}}, {"url": f"{WEB}2", "metadata": {}}
    yield ready(keep="a")
    for places in (
        [], [one], [one, two], [{**one, "metadata": {"k": "v"}}], [two], [], None, [one, one], [{**one,
        "metadata": {"nested": {"a": ["b"]}}}],
    ):  # fmt: skip
        yield patch("${a}", [{"op": "replace", "path": "/locations", "value": places}])
        yield show("${a}")
    yield ready(keep="b")
    yield patch("${b}", [{"op": "replace", "path": "/locations", "value": [one, two]}])
    yield patch("${b}", [{"op": "replace", "path": "/locations", "value": [two, one]}])
    yield ready(keep="c")
    yield patch("${b}", [{"op": "replace", "path": "/locations", "value": [{**one, "metadata": {"k": 1}}, two]}])
    four = [{"url": f"{WEB}{number}", "metadata": {}} for number in range(4)]
    yield patch("${c}", [{"op": "replace", "path": "/locations", "value": four}])


def _states() -> Iterator[Step]:
    place = {"url": WEB, "metadata": {}}
    yield create(keep="bare")
    yield _add("${bare}", place)
    yield ready(keep="a")
    yield upload("${a}")
    yield _add("${a}", place)
    yield show("${a}")
    yield patch("${a}", [{"op": "remove", "path": "/locations/0"}])
    yield patch("${a}", [{"op": "remove", "path": "/locations/1"}], "admin")
    yield patch("${a}", [{"op": "remove", "path": "/locations/0"}], "admin")
    yield post("/v2/images/${a}/actions/deactivate", "admin")
    yield _add("${a}", place)
    yield _add("${a}", place, user="admin")
    yield patch("${a}", [{"op": "remove", "path": "/locations/0"}], "admin")
    yield get("/v2/images/${a}/locations", "service")
    yield get("/v2/images/${a}/locations", "admin")
    yield patch(UNKNOWN, [{"op": "add", "path": "/locations/-", "value": place}])
    yield ready(keep="w")
    yield _add("${w}", place)
    yield get("/v2/images/${w}/file")
    yield get("/v2/images/${w}/file", headers={"Range": "bytes=1-3"})
    yield delete("/v2/images/${w}")


def _by_whom() -> Iterator[Step]:
    place = {"url": WEB, "metadata": {}}
    for visibility in ("public", "private"):
        for user in USERS:
            yield ready("admin", keep="a", owner="${demo}", visibility=visibility)
            yield get("/v2/images/${a}/locations", user)
            yield _add("${a}", place, user=user)
            yield _add("${a}", {"url": f"{WEB}2", "metadata": {}}, user="admin")
            yield patch("${a}", [{"op": "remove", "path": "/locations/0"}], user)
            yield show("${a}", user)
            yield get("/v2/images/${a}/locations", user)
            yield post("/v2/images/${a}/locations", user, json={"url": WEB})


def _resource() -> Iterator[Step]:
    for body in BODIES:
        for user in ("member", "service"):
            if not (
                user == "service"
                and isinstance(body, dict)
                and str(body.get("url")).partition(":")[0] in ("file", "ftp", "", "x")
            ):
                yield ready("admin", keep="a", owner="${demo}", visibility="public")
                yield post("/v2/images/${a}/locations", user, json=body)
    for raw in (b"", b"{", b"null", b"\xff"):
        yield post("/v2/images/${a}/locations", body=raw)
    for image in (UNKNOWN, "x"):
        yield post(f"/v2/images/{image}/locations", json={"url": WEB})
        yield post(f"/v2/images/{image}/locations", json={"url": 1})
        yield get(f"/v2/images/{image}/locations", "admin")
    yield get("/v2/images/${a}/locations", "admin", body=b"x")
    yield ready("admin", keep="b", owner="${demo}")
    yield upload("${b}")
    for user in USERS:
        yield post("/v2/images/${b}/locations", user, json={"url": WEB})
        yield get("/v2/images/${b}/locations", user)
    for user in USERS:
        for image in ("${b}", UNKNOWN):
            yield get(f"/v2/images/{image}/tasks", user)
    yield get("/v2/images/${b}/tasks", body=b"x")
    yield get("/v2/images/${b}/locations", "member", headers={"X-Service-Token": "${service-token}"})


def _leaving() -> Iterator[Step]:
    yield ready(keep="a")
    for store in ("fs", "fast", "nowhere", "os_glance_staging_store"):
        yield delete(f"/v2/stores/{store}/${{a}}", "admin")
    yield upload("${a}")
    for store in ("fast", "fs", "nowhere"):
        for user in USERS:
            yield delete(f"/v2/stores/{store}/${{a}}", user)
    yield _add("${a}", {"url": WEB, "metadata": {}})
    yield delete("/v2/stores/web/${a}", "member")
    yield delete("/v2/stores/web/${a}", "admin")
    yield show("${a}")
    yield delete(f"/v2/stores/fs/{UNKNOWN}", "admin")
    yield delete("/v2/stores/fs/${a}", "admin", body=b"x")
