"""Members, tags, actions: who may share what with whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.steps import (
    UNKNOWN,
    Scenario,
    Step,
    create,
    delete,
    encoded,
    fixed,
    get,
    patch,
    post,
    put,
    ready,
    show,
    upload,
)

USERS = ("admin", "member", "reader", "stranger", "here", "there", "service", "nobody")
TAGS = ("a", "A", " a ", "ä", "映像", "a b", "a/b", "a%b", "a+b", "a?b", "a#b", "'", '"', "<x>", "\U0001f4bf",
"t" * 255, "t" * 256, "ü" * 255, "\t", "\u0000",
        "a,b", "null", "é", "e")  # fmt: skip
MEMBERS: tuple[Any, ...] = (
    None, {}, [], "x", 1, [{"member": "x"}], {"member": None}, {"member": ""}, {"member": 1}, {"member": ["x"]},
    {"member": {}}, {"member": True}, {"member": " "},
    {"member": "m" * 255}, {"member": "m" * 256}, {"member": "\U0001f4bf"}, {"member": "ü"}, {"member": "a/b"},
    {"member": "\u0000"}, {"member": "${demo}"},
    {"members": "x"}, {"member": "x", "status": "accepted"}, {"member": "y", "more": 1}, {"member_id": "x"},
    {"Member": "x"},
)  # fmt: skip
STATUSES: tuple[Any, ...] = (
    None, {}, [], "accepted", 1, [{"status": "accepted"}], {"status": None}, {"status": ""}, {"status": 1},
    {"status": "x"}, {"status": "Accepted"}, {"status": ["accepted"]},
    {"status": "accepted"}, {"status": "rejected"}, {"status": "pending"}, {"status": "pending"},
    {"status": "accepted", "member_id": "x"}, {"member": "x"}, {"status": "all"},
)  # fmt: skip
ODD_BODIES = (b"", b"{", b"null", b"1", b"\xff", b'{"member": "x"', b"x")


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    yield Scenario("tags", list(_tags()))
    yield Scenario("tags: how many", [create(keep="a"),
    *(put(f"/v2/images/${{a}}/tags/{number}") for number in range(10)), put("/v2/images/${a}/tags/3"), show("${a}"),
                                      delete("/v2/images/${a}/tags/1"), put("/v2/images/${a}/tags/x"),
                                      put("/v2/images/${a}/tags/y")])  # fmt: skip
    yield Scenario("tags: by whom", list(_tags_by_whom()))
    yield Scenario("bodies of members", list(_member_bodies()))
    yield Scenario("statuses of members", list(_member_statuses()))
    yield Scenario("members: how many", list(_many_members()))
    for visibility in ("shared", "private", "public"):
        yield Scenario(f"members of a {visibility} image, by whom", list(_members_by_whom(visibility)))
    yield Scenario("a member's life", list(_membership()))
    yield Scenario("members of a protected image and a deleted one", list(_member_ends()))
    yield Scenario("actions", list(_actions()))


def _tags() -> Iterator[Step]:
    for tag in TAGS:
        path = f"/v2/images/${{a}}/tags/{encoded(tag)}"
        yield create(keep="a", tags=["kept"])
        yield put(path)
        yield put(path)
        yield show("${a}")
        yield get(f"/v2/images?id=${{a}}&tag={encoded(tag)}")
        yield delete(path)
        yield delete(path)
        yield put(path)
    yield create(keep="a", tags=["kept", "a", "A"])
    yield delete("/v2/images/${a}/tags/A")
    yield create(keep="a", tags=["kept"])
    for dots in (".", ".."):
        yield put(f"/v2/images/${{a}}/tags/{dots}")
        yield delete(f"/v2/images/${{a}}/tags/{dots}")
    yield put("/v2/images/${a}/tags/x", body=b"x")
    yield delete("/v2/images/${a}/tags/x", body=b"x")
    yield put("/v2/images/${a}/tags/")
    yield put("/v2/images/${a}/tags/%FF")
    yield put("/v2/images/${a}/tags/x?y=z")
    yield put("/v2/images/${a}/tags/x/y")
    yield put(f"/v2/images/{UNKNOWN}/tags/x")
    yield delete(f"/v2/images/{UNKNOWN}/tags/x")
    yield put("/v2/images/x/tags/x")
    yield delete("/v2/images/${a}/tags/kept")
    yield show("${a}")


def _tags_by_whom() -> Iterator[Step]:
    for visibility in ("public", "private", "shared", "community"):
        yield create("admin", keep="a", owner="${demo}", visibility=visibility, protected=True)
        for user in USERS:
            yield put(f"/v2/images/${{a}}/tags/{user}", user)
            yield delete("/v2/images/${a}/tags/none", user)
            yield delete(f"/v2/images/${{a}}/tags/{user}", user)
    yield delete("/v2/images/${a}", "admin")


def _member_bodies() -> Iterator[Step]:
    for body in MEMBERS:
        yield create(keep="a")
        yield post("/v2/images/${a}/members", json=body)
        if isinstance(body, dict) and isinstance(body.get("member"), str):  # Glance takes more than text
            yield get("/v2/images/${a}/members")
    for raw in ODD_BODIES:
        yield post("/v2/images/${a}/members", body=raw)
    for media in ("", "text/plain", "application/octet-stream"):
        yield create(keep="a")
        yield post("/v2/images/${a}/members", json={"member": "x"}, headers={"Content-Type": media})
    yield get("/v2/images/${a}/members", body=b"x")
    yield get("/v2/images/${a}/members/x", body=b"x")
    yield delete("/v2/images/${a}/members/x", body=b"x")


def _member_statuses() -> Iterator[Step]:
    yield create(keep="a")
    yield post("/v2/images/${a}/members", json={"member": "${alt}"})
    for status in STATUSES:
        yield put("/v2/images/${a}/members/${alt}", "stranger", json=status)
        yield get("/v2/images/${a}/members/${alt}", "stranger")
    for raw in ODD_BODIES:
        yield put("/v2/images/${a}/members/${alt}", "stranger", body=raw)
    for member in (UNKNOWN, "x", "%20", "%F0%9F%92%BF", "m" * 256, "${demo}", "%FF"):
        for user in ("member", "stranger", "admin"):
            yield put(f"/v2/images/${{a}}/members/{member}", user, json={"status": "accepted"})
            yield get(f"/v2/images/${{a}}/members/{member}", user)
            yield delete(f"/v2/images/${{a}}/members/{member}", user)
            yield put(f"/v2/images/${{a}}/members/{member}", user, json={"status": "x"})


def _many_members() -> Iterator[Step]:
    """The rig's limit is 4."""
    yield create(keep="a")
    for number in range(6):
        yield post("/v2/images/${a}/members", json={"member": f"project {number}"})
    yield post("/v2/images/${a}/members", json={"member": "project 1"})
    yield delete("/v2/images/${a}/members/project%201")
    yield post("/v2/images/${a}/members", json={"member": "project 9"})
    yield get("/v2/images/${a}/members")


def _members_by_whom(visibility: str) -> Iterator[Step]:
    for shared in (False, True):
        for user in USERS if visibility == "shared" else ("admin", "member", "there"):
            yield create("admin", keep="a", owner="${demo}", visibility="shared")
            if shared:
                yield post("/v2/images/${a}/members", "admin", json={"member": "${alt}"})
            if visibility != "shared":
                yield patch("${a}", [{"op": "replace", "path": "/visibility", "value": visibility}], "admin")
            yield get("/v2/images/${a}", user)
            yield get("/v2/images/${a}/members", user)
            yield get("/v2/images/${a}/members/${alt}", user)
            yield post("/v2/images/${a}/members", user, json={"member": "${alt}"})
            yield post("/v2/images/${a}/members", user, json={"member": "third"})
            yield put("/v2/images/${a}/members/${alt}", user, json={"status": "accepted"})
            yield put("/v2/images/${a}/members/third", user, json={"status": "rejected"})
            yield put("/v2/images/${a}/members/${alt}", user, json={"status": "bad"})
            yield get("/v2/images/${a}/members", user)
            yield patch("${a}", [{"op": "add", "path": "/by", "value": user}], user)
            yield put("/v2/images/${a}/tags/x", user)
            yield delete("/v2/images/${a}/members/${alt}", user)
            yield delete("/v2/images/${a}/members/third", user)
            yield delete("/v2/images/${a}", user)


def _membership() -> Iterator[Step]:
    yield ready(id=fixed(1), keep="a", name="shared")
    yield upload("${a}")
    lists = (
        "",
        "?visibility=shared",
        "?visibility=shared&member_status=all",
        "?member_status=pending",
        "?member_status=rejected",
    )

    def seen() -> Iterator[Step]:
        for user in ("stranger", "there", "member"):
            yield show("${a}", user)
            yield get("/v2/images/${a}/file", user)
            yield get("/v2/images/${a}/members", user)
            yield from (get(f"/v2/images{query}", user) for query in lists)

    yield from seen()
    yield post("/v2/images/${a}/members", json={"member": "${alt}"})
    yield from seen()
    for status in ("accepted", "rejected", "pending"):
        yield put("/v2/images/${a}/members/${alt}", "stranger", json={"status": status})
        yield from seen()
    yield post("/v2/images/${a}/members", json={"member": "${alt}"})
    yield post("/v2/images/${a}/members", json={"member": "${demo}"})
    yield put("/v2/images/${a}/members/${alt}", "stranger", json={"status": "accepted"})
    yield delete("/v2/images/${a}/members/${alt}")
    yield from seen()
    yield post("/v2/images/${a}/members", json={"member": "${alt}"})
    yield from seen()
    yield patch("${a}", [{"op": "replace", "path": "/visibility", "value": "private"}])
    yield from seen()
    yield patch("${a}", [{"op": "replace", "path": "/visibility", "value": "shared"}])
    yield from seen()
    yield post("/v2/images/${a}/actions/deactivate", "admin")
    yield from seen()


def _member_ends() -> Iterator[Step]:
    yield create(keep="a", protected=True)
    yield post("/v2/images/${a}/members", json={"member": "${alt}"})
    yield put("/v2/images/${a}/members/${alt}", "stranger", json={"status": "accepted"})
    yield delete("/v2/images/${a}", "stranger")
    yield delete("/v2/images/${a}/members/${alt}")
    yield patch("${a}", [{"op": "replace", "path": "/protected", "value": False}])
    yield post("/v2/images/${a}/members", json={"member": "${alt}"})
    yield delete("/v2/images/${a}", "stranger")
    yield delete("/v2/images/${a}")
    for image in ("${a}", UNKNOWN, "x"):
        for user in ("member", "stranger", "admin"):
            yield get(f"/v2/images/{image}/members", user)
            yield get(f"/v2/images/{image}/members/${{alt}}", user)
            yield post(f"/v2/images/{image}/members", user, json={"member": "x"})
            yield post(f"/v2/images/{image}/members", user, json={"x": "x"})
            yield put(f"/v2/images/{image}/members/${{alt}}", user, json={"status": "accepted"})
            yield delete(f"/v2/images/{image}/members/${{alt}}", user)


def _actions() -> Iterator[Step]:
    for action in ("deactivate", "reactivate"):
        yield create(keep="queued")
        yield post(f"/v2/images/${{queued}}/actions/{action}")
        for image in (UNKNOWN, "x"):
            yield post(f"/v2/images/{image}/actions/{action}", "admin")
        yield post(f"/v2/images/${{queued}}/actions/{action}", body=b"x")
    yield post("/v2/images/${queued}/actions/other", "admin")
    for visibility in ("public", "private"):
        for user in USERS:
            yield ready("admin", keep="a", owner="${demo}", visibility=visibility, name=f"{visibility}-{user}")
            yield upload("${a}", "admin")
            for action in ("reactivate", "deactivate", "deactivate"):
                yield post(f"/v2/images/${{a}}/actions/{action}", user)
            yield post("/v2/images/${a}/actions/deactivate", "admin")
            yield show("${a}", user)
            yield get("/v2/images/${a}/file", user)
            yield upload("${a}", user)
            yield put("/v2/images/${a}/tags/x", user)
            yield patch("${a}", [{"op": "replace", "path": "/name", "value": "x"}], user)
            yield get(f"/v2/images?status=deactivated&visibility=all&name={visibility}-{user}", user)
            yield post("/v2/images/${a}/actions/reactivate", user)
            yield get("/v2/images/${a}/file", user)
            yield delete("/v2/images/${a}", user)
