"""The question that load balancers ask."""

from __future__ import annotations

import pytest

from .client import Api
from .service import Service
from .wire import ask


def test_get(api: Api) -> None:
    response = api.get("/healthcheck")
    assert response.status_code == 200
    assert response.text == "OK"
    assert response.headers["content-type"].startswith("text/plain")


def test_head(api: Api) -> None:
    response = api.request("HEAD", "/healthcheck")
    assert response.status_code == 204
    assert response.content == b""


def test_has_no_request_id(api: Api) -> None:
    assert "x-openstack-request-id" not in api.get("/healthcheck").headers


def test_needs_no_credentials(guarded: Service) -> None:
    assert ask(guarded.url, "GET", "/healthcheck").status == 200


@pytest.mark.better_than_glance  # its file is named in the pipeline's file, not in the configuration
def test_disabled_by_file(single: Service) -> None:
    flag = single.home / "maintenance"
    flag.touch()
    try:
        answer = ask(single.url, "GET", "/healthcheck")
    finally:
        flag.unlink()
    assert answer.status == 503
    assert answer.body == b"DISABLED BY FILE"
    assert ask(single.url, "GET", "/healthcheck").status == 200
