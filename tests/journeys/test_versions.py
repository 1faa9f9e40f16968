"""Which versions the API says it has, and which paths lead into it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .client import Api
from .service import Service
from .wire import ask

OLD = ["v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"]
MULTI = ["v2.15", "v2.13", "v2.12", "v2.11", "v2.10", "v2.9", "v2.8", "v2.17", *OLD]
SINGLE = ["v2.15", "v2.9", "v2.17", *OLD]


def test_list_of_versions(api: Api) -> None:
    response = api.get("/versions")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json")
    versions = response.json()["versions"]
    assert [version["id"] for version in versions] == MULTI
    assert [version["id"] for version in versions if version["status"] == "CURRENT"] == ["v2.17"]
    assert {version["status"] for version in versions} == {"CURRENT", "SUPPORTED"}
    for version in versions:
        assert version["links"] == [{"rel": "self", "href": f"{api.url}/v2/"}]


def test_list_without_several_stores(limited: Api) -> None:
    versions = limited.get("/versions").json()["versions"]
    assert [version["id"] for version in versions] == SINGLE
    assert {version["id"]: version["status"] for version in versions}["v2.17"] == "CURRENT"


def test_links_start_with_the_public_endpoint(limited: Api) -> None:
    for version in limited.get("/versions").json()["versions"]:
        assert version["links"][0]["href"] == "https://images.example.org/base/v2/"


def test_links_use_the_host_of_the_request(api: Api) -> None:
    answer = ask(api.url, "GET", "/versions", {"Host": "images.example.org:8080"})
    assert b'"http://images.example.org:8080/v2/"' in answer.body


@pytest.mark.parametrize("path", ["/versions", "/versions/", "/versions/anything"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_versions_by_any_method(api: Api, method: str, path: str) -> None:
    response = api.request(method, path)
    assert response.status_code == 200
    assert [version["id"] for version in response.json()["versions"]] == MULTI


@pytest.mark.parametrize(
    "path", ["/", "/v1/images", "/v3", "/v3/images", "/v2.99/images", "/v20/images", "/nonsense", "/images"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unknown_version_is_multiple_choices(api: Api, method: str, path: str) -> None:
    response = api.request(method, path)
    assert response.status_code == 300
    assert [version["id"] for version in response.json()["versions"]] == MULTI


@pytest.mark.parametrize("version", MULTI)
def test_every_minor_version_leads_to_the_same_api(api: Api, version: str) -> None:
    response = api.get(f"/{version}/images", params={"name": "in:nobody"})
    assert response.status_code == 200
    assert response.json()["images"] == []
    assert response.json()["first"].startswith("/v2/images")


@pytest.mark.parametrize("version", ["v2.8", "v2.10", "v2.11", "v2.12", "v2.13", "v2.14", "v2.16", "v2.18"])
def test_minor_versions_that_need_more_configuration(limited: Api, version: str) -> None:
    assert limited.get(f"/{version}/images").status_code == 300


@pytest.mark.parametrize("version", ["v2.14", "v2.16", "v2.18"])
def test_minor_versions_of_the_cache(api: Api, version: str) -> None:
    assert api.get(f"/{version}/images").status_code == 300


def test_version_in_the_accept_header(api: Api) -> None:
    asked = {"Accept": "application/vnd.openstack.images-v2.5"}
    assert api.get("/images", headers=asked).status_code == 200
    asked = {"Accept": "application/vnd.openstack.images-v9"}
    assert api.get("/images", headers=asked).status_code == 300
    assert api.get("/v2/images", headers=asked).status_code == 300


@pytest.mark.better_than_glance  # which redirects to a path that does not exist
@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_root_of_the_api_answers_versions(api: Api, path: str) -> None:
    response = api.get(path)
    assert response.status_code in (200, 300)
    assert response.headers["content-type"].startswith("application/json")
    document = response.json()
    assert document.get("versions") or document.get("version")


@pytest.mark.parametrize("path", ["/v2/images/", "/v2/nonsense", "/v2/images/x/file/y", "/v2/schemas"])
def test_unmatched_paths(api: Api, path: str) -> None:
    assert api.get(path).status_code == 404


def test_versions_are_for_everybody(guarded: Service, user: Callable[[str], Api]) -> None:
    assert ask(guarded.url, "GET", "/versions").status == 200
    assert ask(guarded.url, "GET", "/").status == 300
    assert ask(guarded.url, "GET", "/v3/images").status == 300
    assert user("bob").get("/versions").status_code == 200
