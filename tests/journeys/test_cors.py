"""Calls from web pages of other origins, as browsers make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .client import Api
from .service import Service

PAGE = "https://dashboard.example.org"


@pytest.fixture
def dashboard(own: Callable[..., Service]) -> Iterator[Api]:
    caller = Api(own({"cors": {"allowed_origin": PAGE}}).url)
    yield caller
    caller.close()


def preflight(caller: Api, method: str, headers: str, origin: str = PAGE) -> dict[str, str]:
    answer = caller.request(
        "OPTIONS",
        "/v2/images/x/file",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
    )
    assert (answer.status_code, answer.content) == (200, b"")
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control")}


def test_a_page_may_upload(dashboard: Api) -> None:
    allowed = preflight(dashboard, "PUT", "Content-Type, X-Auth-Token")
    assert allowed["access-control-allow-origin"] == PAGE
    assert allowed["access-control-allow-methods"] == "PUT"
    assert allowed["access-control-allow-headers"] == "Content-Type,X-Auth-Token"
    assert allowed["access-control-allow-credentials"] == "true"
    assert preflight(dashboard, "PUT", "X-Other") == {}
    assert preflight(dashboard, "TRACE", "Content-Type") == {}
    assert preflight(dashboard, "PUT", "Content-Type", "https://elsewhere.example.org") == {}


def test_every_kind_of_answer_says_who_may_read_it(dashboard: Api) -> None:
    image = dashboard.active(b"bytes of a page")
    page = {"Origin": PAGE}
    for path in ("/v2/images", f"/v2/images/{image['id']}/file", "/v2/images/unknown", "/v3"):
        answer = dashboard.get(path, headers=page)
        assert answer.headers["access-control-allow-origin"] == PAGE, path
        assert "X-OpenStack-Request-ID" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in dashboard.get(path).headers
        assert "access-control-allow-origin" not in dashboard.get(path, headers={"Origin": "https://x.org"}).headers


def test_nobody_may_until_an_origin_is_configured(api: Api) -> None:
    assert preflight(api, "PUT", "X-Auth-Token") == {}
    answer = api.get("/v2/images", headers={"Origin": PAGE})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_headers_that_are_no_text_are_ignored(dashboard: Api) -> None:
    answer = dashboard.request("OPTIONS", "/v2/images", headers={"Origin": b"\xff\xfe"})
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)
