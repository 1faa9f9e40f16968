"""GET /v2/images/{id}."""

from __future__ import annotations

import re
import time

import pytest

from .client import Api, add, unused
from .service import Service


def test_answers_what_create_answered(api: Api) -> None:
    image = api.create(name="x", os_distro="debian", tags=["a"])
    response = api.raw_show(image["id"])
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    assert response.json() == image


def test_active_image(api: Api) -> None:
    data = b"some bytes"
    image = api.active(data)
    assert image["status"] == "active"
    assert image["size"] == image["virtual_size"] == len(data)
    assert re.fullmatch(r"[0-9a-f]{32}", image["checksum"])
    assert image["os_hash_algo"] == "sha512"
    assert re.fullmatch(r"[0-9a-f]{128}", image["os_hash_value"])
    assert image["stores"] == "fs"
    # where the bytes are is told only when the operator wants it
    assert "locations" not in image
    assert "direct_url" not in image


def test_direct_url_and_no_stores_with_a_single_store(limited: Api, single: Service) -> None:
    image = limited.active(b"x")
    assert image["direct_url"] == f"file://{single.home}/images/{image['id']}"
    assert "stores" not in image
    assert "direct_url" not in limited.create()


def test_links_do_not_carry_the_public_endpoint(limited: Api) -> None:
    image = limited.create()
    assert image["self"] == f"/v2/images/{image['id']}"
    assert image["file"] == f"/v2/images/{image['id']}/file"
    assert image["schema"] == "/v2/schemas/image"


def test_change_moves_updated_at_only(api: Api) -> None:
    image = api.create()
    time.sleep(1.1)
    changed = api.patch(image["id"], add("name", "new"))
    assert changed["created_at"] == image["created_at"]
    assert changed["updated_at"] > image["updated_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", changed["updated_at"])


@pytest.mark.parametrize("image_id", ["nonsense", "1", "a" * 36, "a" * 300, "%20", "x%00y"])
def test_malformed_ids(api: Api, image_id: str) -> None:
    assert api.get(f"/v2/images/{image_id}").status_code == 404


def test_unknown_id(api: Api) -> None:
    assert api.raw_show(unused()).status_code == 404


def test_deleted(api: Api) -> None:
    image = api.create()
    api.delete(image["id"])
    assert api.raw_show(image["id"]).status_code == 404


def test_query_is_ignored(api: Api) -> None:
    image = api.create()
    assert api.get(f"/v2/images/{image['id']}?x=1&limit=abc").status_code == 200


def test_no_body_expected(api: Api) -> None:
    image = api.create()
    response = api.request("GET", f"/v2/images/{image['id']}", content=b"{}")
    assert response.status_code == 400
    assert api.raw_show(image["id"]).status_code == 200
