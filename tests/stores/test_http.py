"""The http store against a web server of our own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from glimpse.errors import Forbidden, NotFound, Unavailable
from glimpse.stores.conformance import Harness, ReadableStore, read
from glimpse.stores.http import OPTIONS, HttpStore

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


class Site:
    """A web server with a few pages, on a free port."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/loop"):
            raise web.HTTPFound(f"/loop{uuid.uuid4()}")
        if path == "/away":
            raise web.HTTPFound(request.query["to"])
        if path.startswith("/moved"):
            raise web.HTTPMovedPermanently(path.removeprefix("/moved"))
        if path == "/broken":
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"x")
            assert request.transport is not None
            request.transport.abort()
            return response
        if path == "/refused":
            raise web.HTTPForbidden
        if path not in self.pages:
            raise web.HTTPNotFound
        return web.Response(body=self.pages[path])

    def add(self, content: bytes) -> str:
        path = f"/{uuid.uuid4()}"
        self.pages[path] = content
        return self.url + path


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def store() -> AsyncIterator[HttpStore]:
    made = HttpStore(DEFAULTS, "[test]")
    yield made
    await made.close()


class TestHttpStore(ReadableStore):
    @pytest.fixture
    async def harness(self, site: Site, store: HttpStore) -> Harness:
        async def place(content: bytes) -> str:
            return site.add(content)

        return Harness(store, place, f"{site.url}/missing", lambda: 0)


async def test_redirects_are_followed(site: Site, store: HttpStore) -> None:
    assert await read(store, site.add(b"there").replace(site.url, f"{site.url}/moved")) == b"there"


@pytest.mark.parametrize(
    "to",
    [
        "http://127.0.0.2:{port}/there",
        "http://localhost:{port}/there",
        "http://0.0.0.0:{port}/there",
        "http://[::1]:{port}/there",
        "http://2130706433:{port}/there",
        "http://0x7f000001:{port}/there",
        "//127.0.0.2:{port}/there",
        "file:///etc/passwd",
        "ftp://127.0.0.1/there",
        "http://[::1/there",
    ],
)
async def test_redirects_never_lead_to_other_places_of_this_machine(site: Site, store: HttpStore, to: str) -> None:
    """OSSA-2026-004."""
    site.pages["/there"] = b"there"
    port = site.url.rpartition(":")[2]
    with pytest.raises((Unavailable, NotFound)):
        await store.open(f"{site.url}/away?to={to.format(port=port)}")


async def test_endless_redirects_end(site: Site, store: HttpStore) -> None:
    with pytest.raises(Unavailable):
        await store.open(f"{site.url}/loop")


async def test_other_refusals_and_no_server(site: Site, store: HttpStore) -> None:
    with pytest.raises(Unavailable):
        await store.open(f"{site.url}/refused")
    with pytest.raises(Unavailable):
        await store.open("http://127.0.0.1:1/nobody")
    with pytest.raises(NotFound):
        await store.open("http://")


async def test_a_server_that_breaks_off_does_not_pass_for_the_end(site: Site, store: HttpStore) -> None:
    with pytest.raises(Unavailable):
        await read(store, f"{site.url}/broken")


async def test_nothing_is_ever_deleted(site: Site, store: HttpStore) -> None:
    with pytest.raises(Forbidden):
        await store.delete(site.add(b"x"))
