"""Sharing images with projects: who is on the list, who may look at it, and who says yes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from .client import Api, Image, replace, unused
from .conftest import PROJECT_A, PROJECT_B, PROJECT_OF_ADMIN
from .service import Service

User = Callable[[str], Api]


def members(api: Api, image_id: str) -> httpx.Response:
    return api.get(f"/v2/images/{image_id}/members")


def share(api: Api, image_id: str, body: Any) -> httpx.Response:
    return api.request("POST", f"/v2/images/{image_id}/members", json=body)


def member(api: Api, image_id: str, project: str, method: str = "GET", **arguments: Any) -> httpx.Response:
    return api.request(method, f"/v2/images/{image_id}/members/{project}", **arguments)


def answer(api: Api, image_id: str, project: str, status: object) -> httpx.Response:
    return member(api, image_id, project, "PUT", json={"status": status})


def names(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [each["member_id"] for each in response.json()["members"]]


class TestList:
    def test_empty(self, api: Api) -> None:
        response = members(api, api.create()["id"])
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("application/json")
        assert response.json() == {"members": [], "schema": "/v2/schemas/members"}

    def test_whom_it_is_shared_with(self, api: Api) -> None:
        image = api.create()
        added = [share(api, image["id"], {"member": name}).json() for name in ("one", "two", "three")]
        assert members(api, image["id"]).json() == {"members": added, "schema": "/v2/schemas/members"}

    def test_other_images_are_not_touched(self, api: Api) -> None:
        one, two = api.create()["id"], api.create()["id"]
        share(api, one, {"member": "x"})
        assert names(members(api, two)) == []


class TestAdd:
    def test_answer(self, api: Api) -> None:
        image, project = api.create(), unused()
        response = share(api, image["id"], {"member": project})
        assert response.status_code == 200
        body = response.json()
        assert body.pop("created_at") == body.pop("updated_at")
        assert body == {
            "member_id": project,
            "image_id": image["id"],
            "status": "pending",
            "schema": "/v2/schemas/member",
        }
        assert member(api, image["id"], project).json() == response.json()

    def test_the_image_does_not_change(self, api: Api) -> None:
        image = api.create()
        share(api, image["id"], {"member": "x"})
        assert api.show(image["id"]) == image

    def test_twice(self, api: Api) -> None:
        image = api.create()
        assert share(api, image["id"], {"member": "x"}).status_code == 200
        assert share(api, image["id"], {"member": "x"}).status_code == 409
        assert names(members(api, image["id"])) == ["x"]

    @pytest.mark.parametrize("name", ["x" * 255, " ", "é", "a/b", "ß漢"], ids=["long", "space", "e", "slash", "other"])
    def test_any_name(self, api: Api, name: str) -> None:
        image = api.create()
        assert share(api, image["id"], {"member": name}).json()["member_id"] == name
        assert names(members(api, image["id"])) == [name]

    @pytest.mark.parametrize(
        "body",
        [{}, {"member": ""}, {"member": None}, {"Member": "x"}, [], ["x"], {"member": "\U0001f600"}],
        ids=str,
    )
    def test_wrong_bodies(self, api: Api, body: object) -> None:
        image = api.create()
        assert share(api, image["id"], body).status_code == 400
        assert share(api, unused(), body).status_code in (400, 404)
        assert names(members(api, image["id"])) == []

    @pytest.mark.better_than_glance  # keeps them as they are, or fails with 500
    @pytest.mark.parametrize(
        "value", [5, True, ["x"], {"a": 1}, "x" * 256, "a\0b"], ids=["number", "true", "list", "map", "long", "NUL"]
    )
    def test_what_is_no_name(self, api: Api, value: object) -> None:
        image = api.create()
        assert share(api, image["id"], {"member": value}).status_code == 400
        assert names(members(api, image["id"])) == []

    @pytest.mark.parametrize("body", [b"", b"{", b'"x"', b"5", b"null", b"\xff"])
    def test_no_json(self, api: Api, body: bytes) -> None:
        image = api.create()
        assert api.request("POST", f"/v2/images/{image['id']}/members", content=body).status_code == 400

    def test_fields_that_nobody_knows_are_ignored(self, api: Api) -> None:
        image = api.create()
        assert share(api, image["id"], {"member": "x", "status": "accepted", "a": 1}).json()["status"] == "pending"


class TestAnswer:
    def test_every_status(self, api: Api) -> None:
        image = api.create()
        added = share(api, image["id"], {"member": "x"}).json()
        for status in ("accepted", "rejected", "pending", "pending", "accepted"):
            response = answer(api, image["id"], "x", status)
            assert response.status_code == 200
            assert response.json() == {**added, "status": status, "updated_at": response.json()["updated_at"]}
            assert member(api, image["id"], "x").json() == response.json()

    @pytest.mark.parametrize(
        "body",
        [{}, {"status": "bogus"}, {"status": None}, {"status": 1}, {"status": "Accepted"}, [], ["status"]],
        ids=str,
    )
    def test_wrong_bodies(self, api: Api, body: object) -> None:
        image = api.create()
        share(api, image["id"], {"member": "x"})
        assert member(api, image["id"], "x", "PUT", json=body).status_code == 400
        assert member(api, image["id"], "x").json()["status"] == "pending"

    @pytest.mark.better_than_glance  # 500
    def test_a_status_that_is_a_list(self, api: Api) -> None:
        image = api.create()
        share(api, image["id"], {"member": "x"})
        for status in (["pending"], {"a": 1}):
            assert answer(api, image["id"], "x", status).status_code == 400

    @pytest.mark.parametrize("body", [b"", b"{", b"5"])
    def test_no_json(self, api: Api, body: bytes) -> None:
        image = api.create()
        share(api, image["id"], {"member": "x"})
        assert member(api, image["id"], "x", "PUT", content=body).status_code == 400

    def test_who_is_not_a_member(self, api: Api) -> None:
        image = api.create()
        assert answer(api, image["id"], "x", "accepted").status_code == 404
        assert answer(api, image["id"], "x", "bogus").status_code == 404


class TestRemove:
    def test_gone(self, api: Api) -> None:
        image = api.create()
        for name in ("stays", "goes"):
            share(api, image["id"], {"member": name})
        response = member(api, image["id"], "goes", "DELETE")
        assert (response.status_code, response.content) == (204, b"")
        assert names(members(api, image["id"])) == ["stays"]
        assert member(api, image["id"], "goes").status_code == 404
        assert member(api, image["id"], "goes", "DELETE").status_code == 404
        assert answer(api, image["id"], "goes", "accepted").status_code == 404
        assert api.show(image["id"]) == image

    def test_and_back(self, api: Api) -> None:
        """Who comes back is asked again, and has been a member since the first time."""
        image = api.create()
        first = share(api, image["id"], {"member": "x"}).json()
        for _ in range(3):
            assert answer(api, image["id"], "x", "accepted").status_code == 200
            assert member(api, image["id"], "x", "DELETE").status_code == 204
            again = share(api, image["id"], {"member": "x"}).json()
            assert again == {**first, "updated_at": again["updated_at"]}
            assert names(members(api, image["id"])) == ["x"]

    def test_with_the_image(self, api: Api) -> None:
        image = api.create()
        share(api, image["id"], {"member": "x"})
        api.delete(image["id"])
        for response in (
            members(api, image["id"]),
            member(api, image["id"], "x"),
            share(api, image["id"], {"member": "y"}),
            answer(api, image["id"], "x", "accepted"),
            member(api, image["id"], "x", "DELETE"),
        ):
            assert response.status_code == 404


@pytest.mark.parametrize("visibility", ["private", "community"])
def test_only_shared_images_have_members(api: Api, visibility: str) -> None:
    """Their list rests while an image is something else; showing one member never says why it cannot."""
    image = api.create()
    share(api, image["id"], {"member": "x"})
    api.patch(image["id"], replace("visibility", visibility))
    assert members(api, image["id"]).status_code == 403
    assert share(api, image["id"], {"member": "y"}).status_code == 403
    assert answer(api, image["id"], "x", "accepted").status_code == 403
    assert member(api, image["id"], "x", "DELETE").status_code == 403
    assert member(api, image["id"], "x").status_code == 404
    api.patch(image["id"], replace("visibility", "shared"))
    assert names(members(api, image["id"])) == ["x"]


def test_unknown_image(api: Api) -> None:
    for image_id in (unused(), "nope", "x" * 300):
        assert members(api, image_id).status_code == 404
        assert share(api, image_id, {"member": "x"}).status_code == 404
        assert member(api, image_id, "x").status_code == 404
        assert answer(api, image_id, "x", "accepted").status_code == 404
        assert member(api, image_id, "x", "DELETE").status_code == 404


def test_methods_and_bodies(api: Api) -> None:
    path = f"/v2/images/{api.create()['id']}/members"
    for method in ("PUT", "DELETE", "PATCH", "HEAD"):
        response = api.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == {"GET", "POST"}
    for method in ("POST", "PATCH", "HEAD"):
        response = api.request(method, f"{path}/x")
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == {"GET", "PUT", "DELETE"}
    assert api.request("GET", path, json={}).status_code == 400
    assert api.request("GET", f"{path}/x", json={}).status_code == 400
    assert api.request("DELETE", f"{path}/x", json={}).status_code == 400
    assert api.get(f"{path}/").status_code == 404


class TestQuota:
    """The limited service lets an image have two members."""

    def test_one_too_many(self, limited: Api) -> None:
        image = limited.create()["id"]
        assert [share(limited, image, {"member": name}).status_code for name in "abc"] == [200, 200, 413]
        assert share(limited, image, {"member": "a"}).status_code == 413
        assert member(limited, image, "a", "DELETE").status_code == 204
        assert share(limited, image, {"member": "c"}).status_code == 200
        assert names(members(limited, image)) == ["b", "c"]

    def test_many_at_once(self, limited: Api) -> None:
        image = limited.create()["id"]
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda n: share(limited, image, {"member": f"m{n}"}).status_code, range(16)))
        assert sorted(codes) == [200] * 2 + [413] * 14
        assert len(names(members(limited, image))) == 2


@pytest.mark.better_than_glance  # may add it twice
def test_the_same_one_at_once(api: Api) -> None:
    image = api.create()["id"]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: share(api, image, {"member": "x"}).status_code, range(8)))
    assert sorted(codes) == [200] + [409] * 7
    assert names(members(api, image)) == ["x"]


@pytest.fixture
def shared(user: User) -> Iterator[Image]:
    """An image of project A, shared with B and with a project that nobody here is in."""
    image = user("alice").active(b"of A", name=unused())
    for project in ("x", PROJECT_B):
        assert share(user("alice"), image["id"], {"member": project}).status_code == 200
    yield image
    user("admin").raw_delete(image["id"])


class TestWhoMay:
    """alice is a member of A, carol only reads there; bob is a member of B."""

    def test_list(self, user: User, shared: Image) -> None:
        for name in ("admin", "alice", "carol"):
            assert names(members(user(name), shared["id"])) == ["x", PROJECT_B]
        assert names(members(user("bob"), shared["id"])) == [PROJECT_B]

    def test_show(self, user: User, shared: Image) -> None:
        for name, project, code in [
            ("admin", "x", 200), ("alice", "x", 200), ("carol", "x", 200), ("bob", "x", 404),
            ("admin", PROJECT_B, 200), ("alice", PROJECT_B, 200), ("carol", PROJECT_B, 200), ("bob", PROJECT_B, 200),
            ("alice", "nobody", 404), ("bob", "nobody", 404),
        ]:  # fmt: skip
            assert member(user(name), shared["id"], project).status_code == code, (name, project)

    def test_add(self, user: User, shared: Image) -> None:
        for name, code in [("carol", 403), ("bob", 403), ("alice", 200), ("admin", 200)]:
            assert share(user(name), shared["id"], {"member": f"by {name}"}).status_code == code

    def test_answer(self, user: User, shared: Image) -> None:
        """Not the owner: an image is not to be forced upon anybody."""
        for name, project, code in [
            ("alice", PROJECT_B, 403), ("carol", PROJECT_B, 403), ("bob", "x", 404), ("alice", "nobody", 404),
            ("bob", PROJECT_B, 200), ("admin", PROJECT_B, 200), ("admin", "x", 200),
        ]:  # fmt: skip
            assert answer(user(name), shared["id"], project, "accepted").status_code == code, (name, project)
        assert answer(user("bob"), shared["id"], PROJECT_B, "bogus").status_code == 400
        assert answer(user("alice"), shared["id"], PROJECT_B, "bogus").status_code == 403
        assert member(user("alice"), shared["id"], PROJECT_B).json()["status"] == "accepted"

    def test_remove(self, user: User, shared: Image) -> None:
        for name, project, code in [
            ("carol", "x", 403), ("bob", "x", 404), ("bob", PROJECT_B, 403), ("carol", "nobody", 404),
            ("alice", "x", 204), ("admin", PROJECT_B, 204),
        ]:  # fmt: skip
            assert member(user(name), shared["id"], project, "DELETE").status_code == code, (name, project)
        for response in (
            members(user("bob"), shared["id"]),
            share(user("bob"), shared["id"], {"member": "y"}),
            answer(user("bob"), shared["id"], PROJECT_B, "accepted"),
            member(user("bob"), shared["id"], PROJECT_B, "DELETE"),
            user("bob").raw_show(shared["id"]),
        ):
            assert response.status_code == 404

    def test_private(self, user: User, shared: Image) -> None:
        user("alice").patch(shared["id"], replace("visibility", "private"))
        for response in (members(user("bob"), shared["id"]), user("bob").raw_show(shared["id"])):
            assert response.status_code == 404

    @pytest.mark.parametrize("visibility", ["community", "public"])
    def test_everybodys(self, user: User, shared: Image, visibility: str) -> None:
        """Everybody sees the image, so there is nothing to hide about its members but them."""
        user("admin").patch(shared["id"], replace("visibility", visibility))
        for name in ("admin", "alice", "bob", "carol"):
            assert members(user(name), shared["id"]).status_code == 403
            assert share(user(name), shared["id"], {"member": "y"}).status_code == 403
            assert answer(user(name), shared["id"], PROJECT_B, "accepted").status_code == 403
            assert member(user(name), shared["id"], PROJECT_B, "DELETE").status_code == 403
            assert member(user(name), shared["id"], PROJECT_B).status_code == 404

    def test_the_owner_as_a_member(self, user: User, shared: Image) -> None:
        assert share(user("alice"), shared["id"], {"member": PROJECT_A}).status_code == 200
        assert answer(user("alice"), shared["id"], PROJECT_A, "accepted").status_code == 403


class TestWhatMembersSee:
    @pytest.mark.parametrize("status", ["pending", "accepted", "rejected"])
    def test_by_id(self, user: User, shared: Image, status: str) -> None:
        """Every member may look and download, whatever it has said; changing is for others."""
        bob = user("bob")
        answer(bob, shared["id"], PROJECT_B, status)
        assert bob.show(shared["id"])["id"] == shared["id"]
        assert bob.download(shared["id"]) == b"of A"
        assert bob.raw_patch(shared["id"], [replace("name", "x")]).status_code == 403
        assert bob.raw_upload(shared["id"], b"x").status_code == 403
        assert bob.raw_delete(shared["id"]).status_code == 403

    def test_in_lists(self, user: User, shared: Image) -> None:
        """Lists hold what was accepted, or what is asked for."""
        bob = user("bob")

        def listed(**query: str) -> bool:
            return [image["id"] for image in bob.list(name=shared["name"], **query)] == [shared["id"]]

        seen = {
            "pending": {"pending", "all"}, "accepted": {"accepted", "all", ""}, "rejected": {"rejected", "all"},
        }  # fmt: skip
        for status, asked in seen.items():
            answer(bob, shared["id"], PROJECT_B, status)
            for question in ("", "pending", "accepted", "rejected", "all"):
                query = {"member_status": question, "visibility": "shared"} if question else {}
                assert listed(**query) is (question in asked), (status, question)

    def test_new_owner(self, user: User, shared: Image) -> None:
        """A member that becomes the owner loses nothing."""
        user("admin").patch(shared["id"], replace("owner", PROJECT_B))
        assert names(members(user("bob"), shared["id"])) == ["x", PROJECT_B]
        assert user("alice").raw_show(shared["id"]).status_code == 404


def test_administrators_are_no_members(user: User, shared: Image) -> None:
    assert PROJECT_OF_ADMIN not in names(members(user("admin"), shared["id"]))
    assert answer(user("admin"), shared["id"], PROJECT_OF_ADMIN, "accepted").status_code == 404


def test_old_policy_defaults(own: Callable[..., Service], guarded: Service) -> None:
    """With `enforce_new_defaults = false` the rules let everybody in, so the owner is looked at besides."""
    service = own(
        {
            "DEFAULT": {"http_basic_auth_user_file": guarded.home / "htpasswd"},
            "paste_deploy": {"flavor": "http_basic"},
            "oslo_policy": {"enforce_new_defaults": False, "enforce_scope": False},
        }
    )
    alice, bob = (Api(service.url, (name, f"{name}-secret")) for name in ("alice", "bob"))
    image = alice.create()["id"]
    assert share(alice, image, {"member": PROJECT_B}).status_code == 200
    assert share(bob, image, {"member": "x"}).status_code == 403
    assert answer(alice, image, PROJECT_B, "accepted").status_code == 403
    assert answer(bob, image, PROJECT_B, "accepted").status_code == 200
    assert member(bob, image, PROJECT_B, "DELETE").status_code == 403
    assert member(alice, image, PROJECT_B, "DELETE").status_code == 204
    alice.close()
    bob.close()
