"""One tag at a time, put on an image and taken off it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from .client import Api, replace, unused

User = Callable[[str], Api]


def put(api: Api, image_id: str, tag: str) -> httpx.Response:
    return api.request("PUT", f"/v2/images/{image_id}/tags/{quote(tag)}")


def drop(api: Api, image_id: str, tag: str) -> httpx.Response:
    return api.request("DELETE", f"/v2/images/{image_id}/tags/{quote(tag)}")


def tags(api: Api, image_id: str) -> set[str]:
    found = api.show(image_id)["tags"]
    assert len(set(found)) == len(found)
    return set(found)


def test_on_and_off(api: Api) -> None:
    image = api.create(tags=["a", "b"])["id"]
    response = put(api, image, "c")
    assert (response.status_code, response.content) == (204, b"")
    assert tags(api, image) == {"a", "b", "c"}
    response = drop(api, image, "b")
    assert (response.status_code, response.content) == (204, b"")
    assert tags(api, image) == {"a", "c"}
    assert put(api, image, "b").status_code == 204
    assert tags(api, image) == {"a", "b", "c"}


def test_twice(api: Api) -> None:
    image = api.create()["id"]
    assert [put(api, image, "t").status_code for _ in range(2)] == [204, 204]
    assert tags(api, image) == {"t"}
    assert [drop(api, image, "t").status_code for _ in range(2)] == [204, 404]
    assert tags(api, image) == set()


@pytest.mark.parametrize("tag", [" ", "a b", "a?b", "a;b", "a#b", "%", "%41", "+", "&=", "a.", "x" * 255], ids=repr)
def test_any_text(api: Api, tag: str) -> None:
    image = api.create()["id"]
    assert put(api, image, tag).status_code == 204
    assert tags(api, image) == {tag}
    assert drop(api, image, tag).status_code == 204
    assert tags(api, image) == set()


@pytest.mark.better_than_glance  # reads the URL as Latin-1 and keeps "Ã©"
@pytest.mark.parametrize("tag", ["é", "漢字", "ﬀ"])
def test_text_beyond_ascii(api: Api, tag: str) -> None:
    image = api.create(tags=[tag])["id"]
    assert put(api, image, tag).status_code == 204
    assert tags(api, image) == {tag}
    assert drop(api, image, tag).status_code == 204
    assert tags(api, image) == set()


@pytest.mark.better_than_glance  # takes the first two
@pytest.mark.parametrize("tag", ["\U0001f600", "a\0b", "x" * 256], ids=["emoji", "NUL", "long"])
def test_what_the_database_cannot_keep(api: Api, tag: str) -> None:
    image = api.create()["id"]
    assert put(api, image, tag).status_code == 400
    assert put(api, unused(), tag).status_code == 400
    assert drop(api, image, tag).status_code == 404


def test_too_long(api: Api) -> None:
    image = api.create()["id"]
    assert put(api, image, "x" * 256).status_code == 400
    assert drop(api, image, "x" * 256).status_code == 404


def test_no_slash(api: Api) -> None:
    image = api.create()["id"]
    for path in ("tags", "tags/", "tags/a/b", "tags/a%2Fb", "tags/%2F"):
        assert api.request("PUT", f"/v2/images/{image}/{path}").status_code == 404


def test_case(api: Api) -> None:
    """Tags that differ by case are two, whatever the database thinks of it."""
    image = api.create(tags=["Linux"])["id"]
    assert put(api, image, "linux").status_code == 204
    assert tags(api, image) == {"Linux", "linux"}
    assert drop(api, image, "LINUX").status_code == 404


@pytest.mark.better_than_glance  # 500 on MariaDB when both are there
def test_case_of_what_goes(api: Api) -> None:
    image = api.create(tags=["Linux", "linux"])["id"]
    assert drop(api, image, "linux").status_code == 204
    assert tags(api, image) == {"Linux"}


def test_unknown_image(api: Api) -> None:
    gone = api.create(tags=["t"])["id"]
    api.delete(gone)
    for image in (gone, unused(), "nope"):
        assert put(api, image, "t").status_code == 404
        assert drop(api, image, "t").status_code == 404


def test_methods_and_bodies(api: Api) -> None:
    path = f"/v2/images/{api.create(tags=['t'])['id']}/tags/t"
    for method in ("GET", "POST", "PATCH", "HEAD"):
        response = api.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == {"PUT", "DELETE"}
    for method in ("PUT", "DELETE"):
        assert api.request(method, path, json={}).status_code == 400


def test_the_image_has_changed(api: Api) -> None:
    """Each call counts as a change of the image, also the one that finds the tag there."""
    image = api.create()
    seen = [image["updated_at"]]
    for call in (put, put, drop):
        time.sleep(1.01)
        assert call(api, image["id"], "t").status_code == 204
        changed = api.show(image["id"])
        seen.append(changed["updated_at"])
        assert {**changed, "tags": [], "updated_at": ""} == {**image, "updated_at": ""}
    assert sorted(set(seen)) == seen


def test_quota(limited: Api) -> None:
    """The limited service lets an image have three."""
    image = limited.create()["id"]
    assert [put(limited, image, tag).status_code for tag in ("a", "b", "c", "d", "c")] == [204, 204, 204, 413, 204]
    assert drop(limited, image, "a").status_code == 204
    assert put(limited, image, "d").status_code == 204
    assert tags(limited, image) == {"b", "c", "d"}


def test_quota_of_many_at_once(limited: Api) -> None:
    image = limited.create()["id"]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda number: put(limited, image, f"t{number}").status_code, range(12)))
    assert sorted(codes) == [204] * 3 + [413] * 9
    assert len(tags(limited, image)) == 3


@pytest.mark.better_than_glance  # fails with 500 now and then
def test_many_at_once(api: Api) -> None:
    image = api.create(tags=[f"old{number}" for number in range(10)])["id"]
    calls = [(put, f"new{number}") for number in range(10)] + [(drop, f"old{number}") for number in range(10)]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda call: call[0](api, image, call[1]).status_code, calls))
    assert codes == [204] * 20
    assert tags(api, image) == {f"new{number}" for number in range(10)}


def test_who_may(user: User) -> None:
    image = user("alice").create(visibility="private", tags=["t"])["id"]
    for name, code in [("bob", 404), ("carol", 403), ("alice", 204), ("admin", 204)]:
        assert put(user(name), image, name).status_code == code
        assert drop(user(name), image, "none").status_code == (404 if code in (204, 404) else code)
    assert drop(user("bob"), image, "t").status_code == 404
    assert drop(user("carol"), image, "t").status_code == 403
    assert tags(user("alice"), image) == {"t", "alice", "admin"}
    user("alice").patch(image, replace("visibility", "community"))
    assert put(user("bob"), image, "b").status_code == 403
    assert drop(user("bob"), image, "t").status_code == 403
