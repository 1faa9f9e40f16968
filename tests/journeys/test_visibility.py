"""Who may see and do what: users of a password file, no Keystone.

alice is a member of project A, bob of project B, carol may only read in project A; admin has a project of its own.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable

import httpx
import pytest

from .client import Api, Image, add, remove, replace, unused
from .conftest import PROJECT_A, PROJECT_B, PROJECT_OF_ADMIN
from .service import Service
from .wire import ask

User = Callable[[str], Api]
EVERYBODY = ("admin", "alice", "bob", "carol")
VISIBILITIES = ("private", "shared", "community", "public")


@pytest.fixture(scope="module")
def mark() -> str:
    return unused()


@pytest.fixture(scope="module")
def owned(user: User, mark: str) -> dict[str, Image]:
    """Active images of project A, one of each visibility; the key is the visibility."""
    admin = user("admin")
    return {
        visibility: admin.active(b"of A", name=visibility, visibility=visibility, owner=PROJECT_A, tags=[mark])
        for visibility in VISIBILITIES
    }


class TestIdentity:
    def test_nobody(self, guarded: Service) -> None:
        for method, path in [
            ("GET", "/v2/images"),
            ("POST", "/v2/images"),
            ("GET", "/v2/images/x"),
            ("PATCH", "/v2/images/x"),
            ("DELETE", "/v2/images/x"),
            ("GET", "/v2/images/x/file"),
            ("PUT", "/v2/images/x/file"),
            ("GET", "/v2/schemas/image"),
            ("GET", "/v2/schemas/images"),
        ]:
            answer = ask(guarded.url, method, path)
            assert answer.status == 401, path
            assert answer.headers["www-authenticate"].lower().startswith("basic")

    @pytest.mark.parametrize(
        "authorization",
        [
            "Basic",
            "Basic ",
            "Basic !!!",
            "Basic " + base64.b64encode(b"alice").decode(),
            "Basic " + base64.b64encode(b"alice:wrong").decode(),
            "Basic " + base64.b64encode(b"alice:").decode(),
            "Basic " + base64.b64encode(b"alice:alice-secret ").decode(),
            "Basic " + base64.b64encode(b"Alice:alice-secret").decode(),
            "Basic " + base64.b64encode(b"eve:eve-secret").decode(),
            "Basic " + base64.b64encode(b":").decode(),
            "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
            "Basic " + base64.b64encode(b"alice:" + b"x" * 5000).decode(),
            "Bearer " + base64.b64encode(b"alice:alice-secret").decode(),
            "Negotiate abc",
        ],
    )
    def test_wrong_credentials(self, guarded: Service, authorization: str) -> None:
        assert ask(guarded.url, "GET", "/v2/images", {"Authorization": authorization}).status == 401

    def test_scheme_in_any_case(self, guarded: Service) -> None:
        text = base64.b64encode(b"alice:alice-secret").decode()
        for scheme in ("Basic", "basic", "BASIC"):
            assert ask(guarded.url, "GET", "/v2/images", {"Authorization": f"{scheme} {text}"}).status == 200

    def test_token_is_nothing_here(self, guarded: Service) -> None:
        assert ask(guarded.url, "GET", "/v2/images", {"X-Auth-Token": "admin"}).status == 401

    FORGED = {  # noqa: RUF012
        "X-Identity-Status": "Confirmed",
        "X-Roles": "admin",
        "X-Role": "admin",
        "X-User-Id": "admin",
        "X-User": "admin",
        "X-Project-Id": PROJECT_B,
        "X-Tenant-Id": PROJECT_B,
        "X-Tenant": PROJECT_B,
        "X-Is-Admin-Project": "True",
        "X-Service-Roles": "service,admin",
        "X-Service-Identity-Status": "Confirmed",
        "X-Forwarded-User": "admin",
        "Remote-User": "admin",
        "Openstack-System-Scope": "all",
    }

    def test_identity_headers_of_nobody(self, guarded: Service) -> None:
        assert ask(guarded.url, "GET", "/v2/images", self.FORGED).status == 401

    def test_identity_headers_of_a_user(self, user: User, guarded: Service) -> None:
        """OSSA-2026-001: who may name himself in a header is anybody."""
        alice, bob = user("alice"), user("bob")
        secret = bob.create(visibility="private")
        assert alice.get(f"/v2/images/{secret['id']}", headers=self.FORGED).status_code == 404
        assert alice.request("DELETE", f"/v2/images/{secret['id']}", headers=self.FORGED).status_code == 404
        response = alice.request("POST", "/v2/images", json={"visibility": "public"}, headers=self.FORGED)
        assert response.status_code == 403
        response = alice.request("POST", "/v2/images", json={}, headers=self.FORGED)
        assert response.json()["owner"] == PROJECT_A
        underscores = {name.replace("-", "_"): value for name, value in self.FORGED.items()}
        assert ask(guarded.url, "GET", "/v2/images", underscores).status in (400, 401)


class TestCreate:
    def test_owner_is_the_project(self, user: User) -> None:
        for name, project in (("alice", PROJECT_A), ("bob", PROJECT_B), ("admin", PROJECT_OF_ADMIN)):
            assert user(name).create()["owner"] == project

    def test_for_somebody_else(self, user: User) -> None:
        assert user("alice").raw_create(owner=PROJECT_B).status_code == 403
        assert user("alice").create(owner=PROJECT_A)["owner"] == PROJECT_A
        image = user("admin").create(owner=PROJECT_B, visibility="private")
        assert image["owner"] == PROJECT_B
        assert user("bob").show(image["id"]) == image
        assert user("alice").raw_show(image["id"]).status_code == 404

    def test_reader(self, user: User) -> None:
        assert user("carol").raw_create().status_code == 403

    @pytest.mark.parametrize(
        ("name", "visibility", "code"),
        [
            ("admin", "public", 201),
            ("admin", "community", 201),
            ("alice", "public", 403),
            ("alice", "community", 201),
            ("alice", "private", 201),
            ("alice", "shared", 201),
        ],
    )
    def test_visibility(self, user: User, name: str, visibility: str, code: int) -> None:
        assert user(name).raw_create(visibility=visibility).status_code == code


SHOWN = {
    "private": ("admin", "alice", "carol"),
    "shared": ("admin", "alice", "carol"),
    "community": EVERYBODY,
    "public": EVERYBODY,
}
MATRIX = list(itertools.product(VISIBILITIES, EVERYBODY))


@pytest.mark.parametrize(("visibility", "name"), MATRIX)
class TestMatrix:
    """What is not to be seen is not there: 404, not 403."""

    def test_show(self, user: User, owned: dict[str, Image], visibility: str, name: str) -> None:
        response = user(name).raw_show(owned[visibility]["id"])
        assert response.status_code == (200 if name in SHOWN[visibility] else 404)
        if response.status_code == 200:
            assert response.json() == owned[visibility]

    def test_download(self, user: User, owned: dict[str, Image], visibility: str, name: str) -> None:
        """Reading bytes wants the role of a member."""
        response = user(name).raw_download(owned[visibility]["id"])
        expected = 404 if name not in SHOWN[visibility] else 403 if name == "carol" else 200
        assert response.status_code == expected
        assert (response.content == b"of A") is (expected == 200)
        ranged = user(name).raw_download(owned[visibility]["id"], {"Range": "bytes=0-1"})
        assert ranged.status_code == (206 if expected == 200 else expected)

    def test_change(self, user: User, visibility: str, name: str) -> None:
        image = user("admin").create(owner=PROJECT_A, visibility=visibility, x="1")
        expected = 404 if name not in SHOWN[visibility] else 200 if name in ("admin", "alice") else 403
        for operation in (add("name", "new"), add("y", "2"), replace("x", "3"), remove("x"), replace("tags", ["t"])):
            assert user(name).raw_patch(image["id"], [operation]).status_code == expected
        changed = user("admin").show(image["id"])
        assert (changed == image) is (expected != 200)

    def test_upload(self, user: User, visibility: str, name: str) -> None:
        image = user("admin").ready(owner=PROJECT_A, visibility=visibility)
        expected = 404 if name not in SHOWN[visibility] else 204 if name in ("admin", "alice") else 403
        assert user(name).raw_upload(image["id"], b"new").status_code == expected
        found = user("admin").show(image["id"])
        assert found["status"] == ("active" if expected == 204 else "queued")
        assert found["owner"] == PROJECT_A

    def test_delete(self, user: User, guarded: Service, visibility: str, name: str) -> None:
        """OSSA-2012-017: a refused delete has no side effect."""
        image = user("admin").active(b"x", owner=PROJECT_A, visibility=visibility)
        expected = 404 if name not in SHOWN[visibility] else 204 if name in ("admin", "alice") else 403
        assert user(name).raw_delete(image["id"]).status_code == expected
        if expected == 204:
            assert user("admin").raw_show(image["id"]).status_code == 404
            assert guarded.stored(image["id"]) == []
        else:
            assert user("admin").show(image["id"]) == image
            assert user("admin").download(image["id"]) == b"x"


def test_unknown_and_invisible_look_the_same(user: User, owned: dict[str, Image]) -> None:
    """A stranger must not learn from the answer that the id exists."""

    def answers(image_id: str) -> list[tuple[int, str]]:
        bob = user("bob")
        calls: list[httpx.Response] = [
            bob.raw_show(image_id),
            bob.raw_download(image_id),
            bob.raw_upload(image_id, b"x"),
            bob.raw_delete(image_id),
            bob.raw_patch(image_id, [add("x", "y")]),
        ]
        return [(response.status_code, response.text.replace(image_id, "ID")) for response in calls]

    absent, hidden = answers(unused()), answers(owned["private"]["id"])
    assert [code for code, _ in hidden] == [404] * 5
    assert hidden == absent


@pytest.mark.parametrize(
    ("name", "visibility", "code"),
    [
        ("alice", "public", 403),
        ("alice", "community", 200),
        ("alice", "private", 200),
        ("admin", "public", 200),
        ("admin", "community", 200),
        ("carol", "community", 403),
    ],
)
def test_change_of_visibility(user: User, name: str, visibility: str, code: int) -> None:
    image = user("alice").create()
    assert user(name).raw_patch(image["id"], [replace("visibility", visibility)]).status_code == code
    assert user("admin").show(image["id"])["visibility"] == (visibility if code == 200 else "shared")


def test_publicized_image_stays_its_owners(user: User) -> None:
    image = user("alice").create()
    user("admin").patch(image["id"], replace("visibility", "public"))
    assert user("bob").raw_show(image["id"]).status_code == 200
    assert user("alice").patch(image["id"], replace("visibility", "private"))["visibility"] == "private"
    assert user("bob").raw_show(image["id"]).status_code == 404


def test_giving_away(user: User) -> None:
    image = user("alice").create(visibility="community")
    assert user("alice").raw_patch(image["id"], [replace("owner", PROJECT_B)]).status_code == 403
    assert user("admin").show(image["id"])["owner"] == PROJECT_A
    assert user("admin").patch(image["id"], replace("owner", PROJECT_B))["owner"] == PROJECT_B
    assert user("alice").raw_patch(image["id"], [add("name", "x")]).status_code == 403


@pytest.mark.better_than_glance  # a member can plant an image in a project that did not ask for it
@pytest.mark.parametrize("visibility", ["private", "shared", "community"])
def test_giving_away_by_adding(user: User, visibility: str) -> None:
    image = user("alice").create(visibility=visibility)
    assert user("alice").raw_patch(image["id"], [add("owner", PROJECT_B)]).status_code == 403
    response = user("alice").raw_patch(
        image["id"],
        [{"add": "/owner", "value": PROJECT_B}],
        "application/openstack-images-v2.0-json-patch",
    )
    assert response.status_code in (403, 409)
    assert user("admin").show(image["id"])["owner"] == PROJECT_A


def test_image_of_nobody(user: User) -> None:
    """An image without an owner is everybody's to see and only an administrator's to change."""
    image = user("admin").active(b"x", visibility="community")
    image = user("admin").patch(image["id"], replace("owner", None))
    assert user("bob").show(image["id"])["owner"] is None
    assert user("bob").raw_patch(image["id"], [add("x", "y")]).status_code == 403
    assert user("bob").raw_delete(image["id"]).status_code == 403
    assert user("admin").patch(image["id"], add("x", "y"))["x"] == "y"


def test_protected_image(user: User) -> None:
    image = user("alice").create(protected=True)
    for name, code in [("alice", 403), ("admin", 403), ("carol", 403), ("bob", 404)]:
        assert user(name).raw_delete(image["id"]).status_code == code
    assert user("carol").raw_patch(image["id"], [replace("protected", False)]).status_code == 403
    user("alice").patch(image["id"], replace("protected", False))
    user("alice").delete(image["id"])


def test_reader_of_the_project_reads(user: User) -> None:
    image = user("alice").ready(visibility="private")
    assert user("carol").show(image["id"]) == image
    assert user("carol").raw_upload(image["id"], b"x").status_code == 403
    assert user("carol").get("/v2/schemas/image").status_code == 200
    assert user("carol").raw_download(image["id"]).status_code == 403


@pytest.fixture(scope="module")
def population(user: User, mark: str, owned: dict[str, Image]) -> dict[str, str]:
    """Images of A, B and nobody in particular under one tag: id → short name."""
    known = {image["id"]: f"A {visibility}" for visibility, image in owned.items()}
    for visibility in VISIBILITIES:
        image = user("admin").create(visibility=visibility, owner=PROJECT_B, tags=[mark])
        known[image["id"]] = f"B {visibility}"
    known[user("alice").create(visibility="private", os_hidden=True, tags=[mark])["id"]] = "A hidden"
    known[user("bob").create(visibility="private", os_hidden=True, tags=[mark])["id"]] = "B hidden"
    return known


class TestList:
    A = ("A private", "A shared", "A community", "A public")
    B = ("B private", "B shared", "B community", "B public")

    @pytest.mark.parametrize(
        ("name", "query", "expected"),
        [
            ("alice", {}, [*A, "B public"]),
            ("carol", {}, [*A, "B public"]),
            ("bob", {}, [*B, "A public"]),
            # the community images of others are there for who asks, administrators too
            ("admin", {}, [found for found in (*A, *B) if "community" not in found]),
            ("alice", {"visibility": "all"}, [*A, "B public", "B community"]),
            ("admin", {"visibility": "all"}, [*A, *B]),
            ("alice", {"visibility": "community"}, ["A community", "B community"]),
            ("admin", {"visibility": "community"}, ["A community", "B community"]),
            ("alice", {"visibility": "public"}, ["A public", "B public"]),
            ("alice", {"visibility": "private"}, ["A private"]),
            ("admin", {"visibility": "private"}, ["A private", "B private"]),
            ("bob", {"visibility": "shared"}, ["B shared"]),
            ("admin", {"visibility": "shared"}, ["A shared", "B shared"]),
            ("alice", {"owner": PROJECT_A}, list(A)),
            ("alice", {"owner": PROJECT_B}, ["B public"]),
            ("alice", {"owner": PROJECT_B, "visibility": "all"}, ["B public", "B community"]),
            ("alice", {"owner": PROJECT_B, "visibility": "private"}, []),
            ("admin", {"owner": PROJECT_B}, ["B private", "B shared", "B public"]),
            ("alice", {"os_hidden": "true"}, ["A hidden"]),
            ("carol", {"os_hidden": "true"}, ["A hidden"]),
            ("admin", {"os_hidden": "true"}, ["A hidden", "B hidden"]),
            ("alice", {"member_status": "all"}, [*A, "B public"]),
            ("alice", {"member_status": "pending"}, [*A, "B public"]),
            ("alice", {"status": "active"}, list(A)),
            ("alice", {"name": "private"}, ["A private"]),
            ("bob", {"name": "private"}, []),
        ],
        ids=str,
    )
    def test_seen(
        self,
        user: User,
        mark: str,
        population: dict[str, str],
        name: str,
        query: dict[str, str],
        expected: list[str],
    ) -> None:
        for limit in ("100", "2"):
            pages = user(name).pages(tag=mark, limit=limit, **query)
            found = [population[image["id"]] for page in pages for image in page]
            assert sorted(found) == sorted(expected)

    def test_private_property_does_not_tell(self, user: User) -> None:
        value = unused()
        image = user("alice").create(visibility="private", secret=value)
        assert [found["id"] for found in user("alice").list(secret=value)] == [image["id"]]
        assert user("bob").list(secret=value) == []
        assert user("bob").list(id=image["id"]) == []
        assert user("bob").list(id=f"in:{image['id']}") == []

    def test_markers(self, user: User, owned: dict[str, Image]) -> None:
        assert user("alice").raw_list(marker=owned["private"]["id"]).status_code == 200
        assert user("bob").raw_list(marker=owned["public"]["id"]).status_code == 200
        # 403 is what the original says; 400, as for an unknown id, does not tell that it exists
        assert user("bob").raw_list(marker=owned["private"]["id"]).status_code in (400, 403)
        assert user("bob").raw_list(marker=unused()).status_code == 400
        gone = user("alice").create()
        user("alice").delete(gone["id"])
        assert user("alice").raw_list(marker=gone["id"]).status_code == 400
