"""What a refusal looks like, and the headers that every answer carries."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .client import Api, unused
from .wire import ask

CALLS = [
    ("GET", "/v2/images/nonsense", 404, "Not Found"),
    ("GET", "/v2/images?limit=x", 400, "Bad Request"),
    ("POST", "/v2/images", 400, "Bad Request"),
    ("PUT", "/v2/images/nonsense/file", 415, "Unsupported Media Type"),
    ("PATCH", "/v2/images/nonsense", 415, "Unsupported Media Type"),
    ("DELETE", "/v2/images/nonsense", 404, "Not Found"),
]


@pytest.mark.parametrize(("method", "path", "code", "title"), CALLS, ids=str)
class TestBodies:
    @pytest.mark.parametrize(
        "accept",
        ["*/*", "text/html", "text/html,application/json;q=0.5", "text/*", "application/json, */*", "nonsense"],
    )
    def test_html(self, api: Api, method: str, path: str, code: int, title: str, accept: str) -> None:
        """Clients that send */* (glanceclient, openstacksdk) look for the text between the tags."""
        answer = ask(api.url, method, path, {"Accept": accept})
        assert answer.status == code
        assert answer.headers["content-type"].startswith("text/html")
        text = answer.body.decode()
        assert text.startswith(f"<html>\n <head>\n  <title>{code} {title}</title>\n </head>\n")
        assert f"<h1>{code} {title}</h1>\n" in text
        assert "<br /><br />" in text

    @pytest.mark.parametrize("accept", ["application/json", "application/*", "*/*;q=0.1, application/json;q=0.5"])
    def test_json(self, api: Api, method: str, path: str, code: int, title: str, accept: str) -> None:
        response = api.request(method, path, headers={"Accept": accept})
        assert response.status_code == code
        assert response.headers["content-type"].startswith("application/json")
        document = response.json()
        assert set(document) == {"message", "code", "title"}
        assert document["code"] == f"{code} {title}"
        assert document["title"] == title
        assert document["message"].strip()

    @pytest.mark.parametrize("accept", [None, "text/plain", "image/png", ""])
    def test_text(self, api: Api, method: str, path: str, code: int, title: str, accept: str | None) -> None:
        answer = ask(api.url, method, path, {} if accept is None else {"Accept": accept})
        assert answer.status == code
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.body.decode()
        assert text.startswith(f"{code} {title}\n\n")
        assert text.removeprefix(f"{code} {title}").strip()
        assert "<" not in text


def test_what_the_client_sent_is_escaped(api: Api) -> None:
    bad = "%3Cscript%3Ealert(1)%3C/script%3E"
    for path in (f"/v2/images?sort_key={bad}", f"/v2/images?visibility={bad}", f"/v2/images?marker={bad}"):
        response = api.get(path, headers={"Accept": "text/html"})
        assert response.status_code == 400
        assert "<script>" not in response.text
    response = api.request("POST", "/v2/images", json={"disk_format": "<script>"}, headers={"Accept": "text/html"})
    assert response.status_code == 400
    assert "<script>" not in response.text


def test_nothing_of_the_inside_is_told(api: Api) -> None:
    for response in (
        api.get("/v2/images/x", headers={"Accept": "application/json"}),
        api.raw_create(id=1),
        api.raw_upload(unused(), b"x"),
        api.raw_list(limit="x"),
    ):
        for word in ("Traceback", "sqlite", "SELECT", "glance-api.conf", "/usr", "/root", "/tmp"):
            assert word not in response.text


class TestRequestId:
    def test_made_up(self, api: Api) -> None:
        ids = {api.get("/v2/images?limit=0").headers["x-openstack-request-id"] for _ in range(3)}
        assert len(ids) == 3
        assert all(re.fullmatch(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found) for found in ids)

    @pytest.mark.parametrize("path", ["/v2/images", "/v2/images/nonsense", "/v2/schemas/image", "/v2/nonsense"])
    def test_on_every_answer(self, api: Api, path: str) -> None:
        assert api.get(path).headers["x-openstack-request-id"].startswith("req-")

    def test_of_the_caller(self, user: Callable[[str], Api]) -> None:
        given = f"req-{unused()}"
        response = user("alice").get("/v2/images?limit=0", headers={"X-OpenStack-Request-ID": given})
        assert response.headers["x-openstack-request-id"] == given
        plain = unused()
        response = user("alice").get("/v2/images?limit=0", headers={"X-OpenStack-Request-ID": plain})
        assert response.headers["x-openstack-request-id"] == f"req-{plain}"

    @pytest.mark.better_than_glance  # which forgets it when there are no users
    def test_of_the_caller_without_users(self, api: Api) -> None:
        given = f"req-{unused()}"
        response = api.get("/v2/images?limit=0", headers={"X-OpenStack-Request-ID": given})
        assert response.headers["x-openstack-request-id"] == given

    def test_longest(self, user: Callable[[str], Api]) -> None:
        given = "req-" + "x" * 60
        response = user("alice").get("/v2/images?limit=0", headers={"X-OpenStack-Request-ID": given})
        assert response.status_code == 200
        assert response.headers["x-openstack-request-id"] == given

    @pytest.mark.better_than_glance  # 500
    def test_too_long(self, user: Callable[[str], Api]) -> None:
        response = user("alice").get("/v2/images?limit=0", headers={"X-OpenStack-Request-ID": "x" * 65})
        assert response.status_code == 431
        assert "x" * 65 not in response.headers.get("x-openstack-request-id", "")

    @pytest.mark.better_than_glance  # which repeats what it was given
    @pytest.mark.parametrize("given", [b"req-a\tb", b"req-<b>", b"req-\xff", b'req-"x" 200 9', b"req-a b", b"%0d%0a"])
    def test_does_not_spoil_the_log(self, api: Api, given: bytes) -> None:
        """What stands in a log line as the id must be one word, or one could write other people's lines."""
        response = api.get("/v2/images?limit=0", headers=[(b"X-OpenStack-Request-ID", given)])
        assert re.fullmatch(r"req-[\w.:%-]+", response.headers["x-openstack-request-id"], re.ASCII)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v2/images", {"GET", "POST"}),
        ("/v2/images/x", {"GET", "PATCH", "DELETE"}),
        ("/v2/images/x/file", {"GET", "PUT"}),
        ("/v2/schemas/image", {"GET"}),
        ("/v2/schemas/images", {"GET"}),
    ],
)
def test_methods(api: Api, path: str, methods: set[str]) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - methods:
        response = api.request(method, path)
        assert response.status_code == 405, method
        assert set(response.headers["allow"].split(", ")) == methods


@pytest.mark.parametrize(
    "path", ["/v2/images/x/nonsense", "/v2/image", "/v2/imagesx", "/v2/images/x/y/z", "/v2/schemas/x"]
)
def test_unknown_paths(api: Api, path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        assert api.request(method, path).status_code == 404, method


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "LOCK"])
def test_verbs_of_others(api: Api, method: str) -> None:
    assert ask(api.url, method, "/v2/images").status in (405, 501)


def test_verb_of_nobody(api: Api) -> None:
    # a strict parser of HTTP does not let it through to the API
    assert ask(api.url, "FOO", "/v2/images").status in (400, 405, 501)


def test_options(api: Api) -> None:
    """Browsers ask before they send; how it is answered is up to the configuration of CORS."""
    assert ask(api.url, "OPTIONS", "/v2/images").status in (200, 204, 405, 501)


def test_head_answers_have_no_body(api: Api) -> None:
    response = api.request("HEAD", "/v2/images")
    assert response.status_code == 405
    assert response.content == b""


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_chunked_body_where_none_belongs(api: Api, method: str) -> None:
    """Only for verbs that usually have a body does the transfer encoding alone count as one."""
    image = api.create()
    path = f"/v2/images/{image['id']}"
    assert api.request(method, path, content=b"x").status_code == 400
    assert api.show(image["id"])["status"] == "queued"
