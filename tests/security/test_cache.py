"""Advisories about copies of images on a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.journeys.client import Api
from tests.journeys.conftest import SERVICE_USERS, signed_in
from tests.journeys.service import Service
from tests.journeys.site import Site
from tests.journeys.test_cache import cached, elsewhere, reads, wait_for

Who = Callable[[str], Api]
RANGE = {"Range": "bytes=0-3"}


@pytest.fixture
def user(caching: Service) -> Iterator[Who]:
    """`user("alice")` calls the service with a cache."""
    yield from signed_in(caching, SERVICE_USERS)


@pytest.fixture
def image(user: Who, site: Site) -> str:
    """Alice's, and there is a copy of it."""
    user("admin").request("DELETE", "/v2/cache")
    made = elsewhere(user("alice"), site, b"secret of A")
    assert user("alice").download(made) == b"secret of A"
    wait_for(lambda: made in cached(user("admin")))
    return made


def test_ossa_2013_027_cve_2013_4428_policy_holds_for_copies(user: Who, image: str, site: Site) -> None:
    """OSSA-2013-027: what a caller may not download they do not get from the cache either, in whole or in part."""
    for headers in ({}, RANGE):
        assert user("bob").raw_download(image, headers).status_code == 404
        assert user("carol").raw_download(image, headers).status_code == 403
        assert httpx.get(f"{user('bob').url}/v2/images/{image}/file", headers=headers).status_code == 401
    assert user("alice").request("HEAD", f"/v2/images/{image}/file").status_code == 405
    assert reads(site) == 1


def test_ossa_2013_027_cve_2013_4428_deactivated_images(user: Who, image: str) -> None:
    """OSSA-2013-027: an image that was switched off is not read from its copy."""
    assert user("admin").request("POST", f"/v2/images/{image}/actions/deactivate").status_code == 204
    for headers in ({}, RANGE):
        assert user("alice").raw_download(image, headers).status_code == 403


def test_ossa_2013_027_cve_2013_4428_deleted_images(user: Who, image: str, caching: Service) -> None:
    """OSSA-2013-027: a copy does not outlive its image."""
    user("alice").delete(image)
    assert user("alice").raw_download(image).status_code == 404
    wait_for(lambda: not list((caching.home / "cache").rglob(f"*{image}*")))


def test_ossa_2013_007_cve_2013_1840_no_place_in_the_headers(user: Who, image: str, site: Site) -> None:
    """OSSA-2013-007: the answer from a copy tells no location, and no credentials with it."""
    first = user("alice").raw_download(image)
    for headers in ({}, RANGE):
        answer = user("alice").raw_download(image, headers)
        assert site.url not in str(answer.headers)
        assert not [name for name in answer.headers if "location" in name.lower() or "meta" in name.lower()]
    assert first.content == b"secret of A"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/cache"),
        ("DELETE", "/v2/cache"),
        ("PUT", "/v2/cache/{image}"),
        ("DELETE", "/v2/cache/{image}"),
        ("GET", "/v2/cache/nodes/{image}"),
        ("POST", "/v2/cache/clean"),
        ("POST", "/v2/cache/prune"),
    ],
)
def test_list_cached_nodes_2026_the_cache_is_the_operators(user: Who, image: str, method: str, path: str) -> None:
    """2026, without a number: which nodes there are is for administrators only, and so is all else of the cache."""
    for name in ("alice", "bob", "carol"):
        answer = user(name).request(method, path.replace("{image}", image))
        assert answer.status_code == 403 or (name == "bob" and answer.status_code == 404)
        assert "node-1" not in answer.text
    assert cached(user("admin")) == [image]
