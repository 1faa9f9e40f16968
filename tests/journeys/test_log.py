"""One line a request that an operator can find by its id, and no secrets."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import pytest

from .client import Api, unused
from .service import Service
from .wire import Wire, ask

pytestmark = pytest.mark.better_than_glance  # which leaves the log of requests to the server


def lines_with(service: Service, word: str) -> list[str]:
    """The log's lines that hold a word, waiting a moment for the first."""
    deadline = time.monotonic() + 5
    while not (found := [line for line in service.log_since(0).splitlines() if word in line]):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return found


def test_line_of_a_request(local: Service, api: Api) -> None:
    request_id = f"req-{unused()}"
    image = api.active(b"12345")
    target = f"/v2/images/{image['id']}/file"
    assert api.get(target, headers={"X-OpenStack-Request-ID": request_id}).status_code == 200
    [line] = lines_with(local, request_id)
    for word in ("127.0.0.1", "GET", target, "200", " 5 "):
        assert word in line


def test_user_and_project(guarded: Service, user: Callable[[str], Api]) -> None:
    request_id = f"req-{unused()}"
    user("alice").get("/v2/images?limit=0", headers={"X-OpenStack-Request-ID": request_id})
    [line] = lines_with(guarded, request_id)
    assert "alice" in line
    assert "a" * 32 in line


def test_secrets(guarded: Service) -> None:
    word = unused()
    right = base64.b64encode(b"alice:alice-secret").decode()
    wrong = base64.b64encode(f"alice:{word}".encode()).decode()
    request_id = f"req-{unused()}"
    headers = {"X-OpenStack-Request-ID": request_id, "X-Auth-Token": f"token-{word}"}
    assert ask(guarded.url, "GET", "/v2/images?limit=0", {**headers, "Authorization": f"Basic {right}"}).status == 200
    assert ask(guarded.url, "GET", "/v2/images?limit=0", {**headers, "Authorization": f"Basic {wrong}"}).status == 401
    assert lines_with(guarded, request_id)
    log = guarded.log_since(0)
    for secret in (right, wrong, word, "alice-secret", "$2b$"):
        assert secret not in log


def test_one_line_stays_one_line(local: Service) -> None:
    word = unused()
    ask(local.url, "GET", f"/v2/images/x%0d%0afaked%0aline-{word}")
    ask(local.url, "GET", f"/v2/images/x%1b[2J-{word}")
    ask(local.url, "GET", f"/v2/images?x=%0afaked-{word}", {"User-Agent": f"\x1b[2J {word}"})
    found = lines_with(local, word)
    assert found
    assert all(not line.startswith("faked") and "\x1b" not in line for line in found)


def test_strangers_do_not_fill_it(local: Service) -> None:
    """Port scanners and broken proxies come by all the time: at most a line each, no stack trace."""
    offset = local.log.stat().st_size
    for data in (
        b"GET /v2/images HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET * HTTP/1.1\r\nX y\r\n\r\n",
    ):
        with Wire(local.url) as wire:
            wire.send(data)
            wire.finish()
            wire.read_to_end()
    # the log of a worker is written in order, and these workers have answered
    assert "Traceback" not in local.log_since(offset)
    assert len(local.log_since(offset).splitlines()) <= 6


def test_health_checks_stay_out(local: Service) -> None:
    word = unused()
    assert ask(local.url, "GET", f"/healthcheck?{word}").status == 200
    assert ask(local.url, "GET", f"/v2/images?limit=0&x={word}").status == 200
    assert lines_with(local, f"x={word}")
    assert not [line for line in lines_with(local, word) if "healthcheck" in line]
