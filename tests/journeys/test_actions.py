"""Deactivate and reactivate: the bytes of an image are withheld for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from .client import Api, add, unused

User = Callable[[str], Api]


def act(api: Api, image_id: str, action: str) -> httpx.Response:
    return api.request("POST", f"/v2/images/{image_id}/actions/{action}")


def test_off_and_on(api: Api) -> None:
    image = api.active(b"x")
    response = act(api, image["id"], "deactivate")
    assert (response.status_code, response.content) == (204, b"")
    off = api.show(image["id"])
    assert off["status"] == "deactivated"
    assert {**off, "status": "active", "updated_at": image["updated_at"]} == image
    response = act(api, image["id"], "reactivate")
    assert (response.status_code, response.content) == (204, b"")
    assert api.show(image["id"])["status"] == "active"
    assert api.download(image["id"]) == b"x"


def test_again_is_nothing(api: Api) -> None:
    image = api.active(b"x")
    seen = [image["updated_at"]]
    for action in ("reactivate", "deactivate", "deactivate", "reactivate"):
        time.sleep(1.01)
        assert act(api, image["id"], action).status_code == 204
        seen.append(api.show(image["id"])["updated_at"])
    assert seen[0] == seen[1] < seen[2] == seen[3] < seen[4]


def test_without_bytes(api: Api) -> None:
    image = api.ready()
    for action in ("deactivate", "reactivate"):
        assert act(api, image["id"], action).status_code == 403
    assert api.show(image["id"]) == image


def test_unknown(api: Api) -> None:
    image = api.active(b"x")["id"]
    assert act(api, image, "explode").status_code == 404
    assert api.request("POST", f"/v2/images/{image}/actions").status_code == 404
    api.delete(image)
    for image_id in (image, unused(), "nope"):
        for action in ("deactivate", "reactivate"):
            assert act(api, image_id, action).status_code == 404


def test_methods_and_bodies(api: Api) -> None:
    image = api.active(b"x")["id"]
    for action in ("deactivate", "reactivate"):
        path = f"/v2/images/{image}/actions/{action}"
        for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
            response = api.request(method, path)
            assert response.status_code == 405
            assert response.headers["allow"] == "POST"
        assert api.request("POST", path, json={}).status_code == 400
    assert api.show(image)["status"] == "active"


def test_the_record_lives_on(api: Api) -> None:
    image = api.active(b"x")["id"]
    act(api, image, "deactivate")
    assert api.patch(image, add("k", "v"))["k"] == "v"
    assert api.request("PUT", f"/v2/images/{image}/tags/t").status_code == 204
    assert api.request("POST", f"/v2/images/{image}/members", json={"member": "m"}).status_code == 200
    assert api.show(image)["status"] == "deactivated"
    assert [found["id"] for found in api.list(k="v", status="deactivated")] == [image]
    assert api.raw_upload(image, b"y").status_code == 409
    api.delete(image)


@pytest.mark.better_than_glance  # fails with 500 now and then
def test_everybody_at_once(api: Api) -> None:
    image = api.active(b"x")["id"]
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda n: act(api, image, ("deactivate", "reactivate")[n % 2]).status_code, range(16)))
    assert codes == [204] * 16
    assert api.show(image)["status"] in ("active", "deactivated")


def test_who_may(user: User) -> None:
    image = user("alice").active(b"x", visibility="private")["id"]
    for action in ("deactivate", "reactivate"):
        for name, code in [("bob", 404), ("carol", 403), ("alice", 204), ("admin", 204)]:
            assert act(user(name), image, action).status_code == code, (name, action)
    user("alice").patch(image, {"op": "replace", "path": "/visibility", "value": "community"})
    for action in ("deactivate", "reactivate"):
        assert act(user("bob"), image, action).status_code == 403


def test_who_may_without_bytes(user: User) -> None:
    """Who is asking comes before what state the image is in."""
    image = user("alice").ready(visibility="private")["id"]
    for name, code in [("bob", 404), ("carol", 403), ("alice", 403), ("admin", 403)]:
        assert act(user(name), image, "deactivate").status_code == code


@pytest.mark.parametrize("visibility", ["private", "community"])
def test_bytes_are_for_administrators(user: User, visibility: str) -> None:
    image = user("alice").active(b"x", visibility=visibility)["id"]
    assert act(user("alice"), image, "deactivate").status_code == 204
    assert user("alice").raw_download(image).status_code == 403
    assert user("carol").raw_download(image).status_code == 403
    assert user("bob").raw_download(image).status_code == (404 if visibility == "private" else 403)
    assert user("admin").download(image) == b"x"
    assert act(user("alice"), image, "reactivate").status_code == 204
    assert user("alice").download(image) == b"x"
