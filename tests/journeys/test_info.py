"""What an installation tells about itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .client import Api


def test_import_methods(api: Api) -> None:
    found = api.get("/v2/info/import").json()["import-methods"]
    assert found["type"] == "array"
    assert set(found["value"]) == {"glance-direct", "web-download", "copy-image"}


def test_stores(api: Api) -> None:
    assert api.get("/v2/info/stores").json() == {"stores": [{"id": "fs", "default": "true"}, {"id": "fast"}]}


def test_stores_in_detail(api: Api) -> None:
    found = api.get("/v2/info/stores/detail").json()["stores"]
    assert [(store["id"], store["type"], store["weight"]) for store in found] == [
        ("fs", "file", 100),
        ("fast", "file", 200),
    ]
    assert found[0]["properties"].keys() == {"data_dir", "chunk_size", "thin_provisioning"}
    assert found[0]["default"] == "true"


def test_stores_to_read_from(placer: Callable[[str], Api]) -> None:
    """A store that cannot be written to says so; the service's own stores are nobody's business."""
    alice = placer("alice")
    listed = [{"id": "fs", "default": "true"}, {"id": "fast"}, {"id": "web", "read-only": "true"}]
    assert alice.get("/v2/info/stores").json() == {"stores": listed}
    found = placer("admin").get("/v2/info/stores/detail").json()["stores"]
    assert [(store["id"], store["weight"], store.get("read-only")) for store in found] == [
        ("fs", 100, None),
        ("fast", 200, None),
        ("web", 50, "true"),
    ]
    assert (found[2]["type"], found[2]["properties"]) == ("http", {})
    image = alice.ready()
    assert alice.raw_upload(image["id"], b"x", {"x-image-meta-store": "web"}).status_code == 410
    assert alice.raw_upload(image["id"], b"x", {"x-image-meta-store": "nothing"}).status_code == 400
    assert alice.show(image["id"])["status"] == "queued"
    alice.upload(image["id"], b"x")


@pytest.mark.parametrize("path", ["/v2/info/stores", "/v2/info/stores/detail"])
def test_one_store_is_no_list(limited: Api, path: str) -> None:
    assert limited.get(path).status_code == 404


def test_details_are_for_admins(user: Callable[[str], Api]) -> None:
    assert user("alice").get("/v2/info/stores/detail").status_code == 403
    assert user("admin").get("/v2/info/stores/detail").status_code == 200
    assert user("carol").get("/v2/info/stores").status_code == 200


@pytest.mark.parametrize("path", ["/v2/info/import", "/v2/info/stores", "/v2/info/stores/detail"])
def test_only_get(api: Api, path: str) -> None:
    refused = api.request("POST", path)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
