"""The http store against a web server of our own."""

from __future__ import annotations

import asyncio
import ssl
import threading
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from glimpse.errors import Forbidden, NotFound, SettingsError, Unavailable
from glimpse.settings import FilterSettings
from glimpse.stores import addresses
from glimpse.stores.conformance import Harness, ReadableStore, read
from glimpse.stores.http import OPTIONS, HttpStore
from glimpse.stores.uri_filter import UriFilter

NO_LISTS = FilterSettings(("http", "https"), (), (), (), (80, 443), ())
DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS} | {"uri_filter": NO_LISTS}


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


async def test_redirects_keep_to_the_operators_lists(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the first URL may be a caller's own, and send the service to ports and hosts that are not open."""
    site.pages["/there"] = b"there"
    port = site.url.rpartition(":")[2]
    away = f"{site.url}/away?to=http://images.example:{port}/there"
    monkeypatch.setattr(addresses, "_look_up", lambda name: ["127.0.0.1"])
    for lists, works in (
        (replace(NO_LISTS, allowed_hosts=("images.example",)), False),
        (replace(NO_LISTS, allowed_hosts=("images.example",), allowed_ports=(int(port),)), True),
        (replace(NO_LISTS, disallowed_hosts=("images.example",), allowed_ports=()), False),
    ):
        store = HttpStore({**DEFAULTS, "uri_filter": lists}, "[test]")
        try:
            assert await read(store, away) == b"there"
            assert works
        except Unavailable:
            assert not works
        finally:
            await store.close()


async def test_a_name_that_leads_elsewhere_by_now_is_not_followed(
    site: Site, store: HttpStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name passed the filter, and its owner let it lead to this machine afterwards."""
    leads_to = "192.0.2.1"
    monkeypatch.setattr(addresses, "_look_up", lambda name: [leads_to])
    assert await UriFilter(NO_LISTS).passes("http://images.example/x")
    leads_to = "127.0.0.1"
    url = site.add(b"secret").replace("127.0.0.1", "images.example")
    with pytest.raises(Unavailable):
        await store.open(url)
    with pytest.raises(Unavailable):
        await store.stat(url)
    listed = HttpStore({**DEFAULTS, "uri_filter": replace(NO_LISTS, allowed_hosts=("images.example",))}, "[test]")
    assert await read(listed, url) == b"secret"
    await listed.close()
    for proxy in (site.url, site.url.removeprefix("http://")):
        proxied = HttpStore({**DEFAULTS, "http_proxy_information": {"http": proxy}}, "[test]")
        with pytest.raises(NotFound):
            await proxied.open("http://images.example/missing")
        await proxied.close()


async def test_name_servers_that_hang_stop_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers choose the names, and hashing of uploads runs in the loop's own threads."""
    hang = threading.Event()
    monkeypatch.setattr(addresses, "_look_up", lambda name: [str(hang.wait(10))])
    asked = [asyncio.create_task(addresses.addresses_of(f"{number}.example")) for number in range(40)]
    try:
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            assert await asyncio.to_thread(lambda: "done") == "done"
    finally:
        hang.set()
        await asyncio.gather(*asked)


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


async def test_whom_the_store_trusts(certificate: Path) -> None:
    """By default everybody, as Glance's; a file of certificates wins over the switch (spec 4.2)."""
    app = web.Application()
    app.router.add_get("/x", _there)
    runner = web.AppRunner(app)
    await runner.setup()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/x"
    for options, trusts in (
        ({}, True),
        ({"https_insecure": False}, False),
        ({"https_ca_certificates_file": str(certificate)}, True),
        ({"https_ca_certificates_file": str(certificate), "https_insecure": False}, True),
    ):
        store = HttpStore({**DEFAULTS, **options}, "[test]")
        try:
            assert await read(store, url) == b"there"
            assert trusts
        except Unavailable:
            assert not trusts
        finally:
            await store.close()
    await runner.cleanup()


async def _there(request: web.Request) -> web.Response:
    return web.Response(body=b"there")


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_a_file_of_certificates_that_is_none_stops_the_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=r"\[test\] https_ca_certificates_file: .*ca\.pem cannot be used"):
        HttpStore({**DEFAULTS, "https_ca_certificates_file": str(path)}, "[test]")
