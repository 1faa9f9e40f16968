"""A call that is sent on to another node: two real servers, the front one as the service uses it (spec 1.3.5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from aiohttp import web

from glimpse.api import peers as peers_module
from glimpse.api.peers import Peers
from glimpse.api.wire import CORS_HEADERS, REQUEST_ID, error_reply, every_reply
from glimpse.errors import GlimpseError

PATH = "/v2/images/8c1b2c9e-5d3e-4b0a-9a38-3a2b8a1d5f00/import"
TOKEN = "gAAAA-secret"


@dataclass
class Node:
    """The node that has the bytes; it answers as it is told."""

    url: str = ""
    status: int = 202
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path, dict(request.headers), await request.read()))
        await asyncio.sleep(self.delay)
        return web.Response(status=self.status, text=self.body, headers=self.headers)


class Front:
    """The node that was asked, and has to ask the other."""

    def __init__(self) -> None:
        self.peers = Peers()
        self.host = ""
        self.url = ""

    async def answer(self, incoming: web.BaseRequest) -> web.StreamResponse:
        incoming[REQUEST_ID] = "req-of-the-front"
        incoming[CORS_HEADERS] = {}
        try:
            reply = await self.peers.ask(self.host, incoming, await incoming.read())
        except GlimpseError as error:
            reply = error_reply(error, "text/plain")
        headers = {**reply.headers, **every_reply(incoming)}
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers)


async def _serve(handler: web.Server[web.BaseRequest]) -> tuple[web.ServerRunner, str]:
    runner = web.ServerRunner(handler)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node()
    runner, made.url = await _serve(web.Server(made.answer))
    yield made
    await runner.cleanup()


@pytest.fixture
async def front(node: Node) -> AsyncIterator[Front]:
    made = Front()
    made.host = node.url
    runner, made.url = await _serve(web.Server(made.answer))
    yield made
    await made.peers.close()
    await runner.cleanup()


async def call(front: Front, method: str = "POST", path: str = PATH, **how: object) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        headers = {"X-Auth-Token": TOKEN, "X-Roles": "admin", "Cookie": "a=b"}
        return await client.request(method, front.url + path, headers=headers, **how)  # type: ignore[arg-type]


async def test_the_call_arrives_as_it_was_made(front: Front, node: Node) -> None:
    node.headers = {"X-Openstack-Request-Id": "req-of-the-node"}
    answer = await call(front, json={"method": {"name": "glance-direct"}})
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["x-openstack-request-id"] == "req-of-the-node"
    method, path, headers, body = node.asked[0]
    assert (method, path, body) == ("POST", PATH, b'{"method":{"name":"glance-direct"}}')
    assert headers["X-Auth-Token"] == TOKEN
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Openstack-Request-Id"] == "req-of-the-front"
    assert not {"X-Roles", "Cookie"} & headers.keys()


async def test_a_delete_has_no_body(front: Front, node: Node) -> None:
    node.status = 204
    front.host += "/"
    answer = await call(front, "DELETE", "/v2/images/x%2Fy")
    assert answer.status_code == 204
    assert answer.headers["x-openstack-request-id"] == "req-of-the-front"
    assert node.asked[0][1] == "/v2/images/x%2Fy"
    assert "Content-Type" not in node.asked[0][2]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 500, 503])
async def test_refusals_come_back_as_they_are(front: Front, node: Node, status: int) -> None:
    node.status, node.body = status, "the reason"
    answer = await call(front)
    assert (answer.status_code, answer.text) == (status, "the reason")


async def test_redirects_are_not_followed(front: Front, node: Node) -> None:
    node.status, node.headers = 307, {"Location": node.url}
    assert (await call(front)).status_code == 502
    assert len(node.asked) == 1


async def test_a_node_that_is_away(front: Front, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    front.host = "http://127.0.0.1:1"
    assert (await call(front)).status_code == 504
    front.host = "http://nothing.invalid"
    assert (await call(front)).status_code == 504


async def test_a_node_that_hangs(front: Front, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "TIMEOUT", 0.2)
    node.delay = 1
    assert (await call(front)).status_code == 504


@pytest.mark.parametrize("host", ["", "nonsense", "ftp://127.0.0.1", "http://[::1"])
async def test_a_host_that_is_none(front: Front, host: str) -> None:
    front.host = host
    assert (await call(front)).status_code == 502


async def test_calls_do_not_go_round_in_circles(front: Front, node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Two nodes that each take the other for the one with the bytes."""
    front.host = front.url
    caplog.set_level(logging.DEBUG)
    answer = await call(front)
    assert answer.status_code == 503
    assert "do not agree" in answer.text
    assert "worker_self_reference_url" in caplog.text
    assert TOKEN not in caplog.text
