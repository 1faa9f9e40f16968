"""The guarded client against real servers of this machine, which its callers must not reach (OSSA-2026-004, OSSN-0078).

The lists are Glance's defaults but for the ports: the servers are on free ones.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from glimpse.errors import GlimpseError, NotFound, Unavailable
from glimpse.settings import FilterSettings
from glimpse.stores import addresses
from glimpse.stores import web as web_module
from glimpse.stores.driver import BLOCK
from glimpse.stores.uri_filter import UriFilter
from glimpse.stores.web import FAILED, WebClient, WebReader

ANY_PORT = FilterSettings(("http", "https"), (), (), (), (), ())
NAMES = ("one.example", "two.example")
LISTED = replace(ANY_PORT, allowed_hosts=NAMES)
TOKEN = {"X-Auth-Token": "gAAAA-secret"}


@dataclass
class Site:
    """A web server that remembers what it was asked. `/to?URL` redirects."""

    port: int = 0
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.headers)))
        match request.path.split("/")[1]:
            case "to":
                code = int(request.path.rpartition("/")[2])
                return web.Response(status=code, headers={"Location": request.query["url"]})
            case "status":
                return web.Response(status=int(request.path.rpartition("/")[2]), text="the body of a refusal")
            case "hops":
                left = int(request.path.rpartition("/")[2])
                return web.Response(
                    status=302 if left else 200, text="there", headers={"Location": f"/hops/{left - 1}"}
                )
            case "cookie":
                return web.Response(text="there", headers={"Set-Cookie": "who=me"})
            case "slow":
                return await self._send(request, [b"x" * 1000] * 20, 0.01)
            case "large":
                return await self._send(request, [b"y" * 65536] * 80, 0)
            case "silent":
                return await self._send(request, [b"x"], 1)
        return web.Response(text="there")

    @staticmethod
    async def _send(request: web.Request, parts: list[bytes], pause: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(sum(map(len, parts)))})
        await response.prepare(request)
        for part in parts if request.method == "GET" else ():
            await asyncio.sleep(pause)
            await response.write(part)
        return response

    def url(self, host: str, path: str = "/x", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    runner = web.ServerRunner(web.Server(site.answer))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as made:
        yield made


@pytest.fixture
async def other() -> AsyncIterator[Site]:
    async with serving() as made:
        yield made


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names lead to this machine; the operator has listed them."""
    monkeypatch.setattr(
        addresses, "_look_up", lambda name: ["127.0.0.1"] if name.rstrip(".") in NAMES else ["192.0.2.1"]
    )


@asynccontextmanager
async def client_with(lists: FilterSettings, **options: Any) -> AsyncIterator[WebClient]:
    made = WebClient(UriFilter(lists), **options)
    yield made
    await made.close()


@pytest.fixture
async def client() -> AsyncIterator[WebClient]:
    async with client_with(ANY_PORT) as made:
        yield made


@pytest.fixture
async def listed(names: None) -> AsyncIterator[WebClient]:
    async with client_with(LISTED) as made:
        yield made


async def content(client: WebClient, url: str, **how: Any) -> bytes:
    reader = await client.open(url, **how)
    try:
        return b"".join([block async for block in reader.stream(0, None)])
    finally:
        await reader.close()


ATTACKS = [
    "http://127.0.0.1:{port}/x",
    "http://127.8.8.8:{port}/x",
    "http://0.0.0.0:{port}/x",
    "http://0.0.0.1:{port}/x",
    "http://localhost:{port}/x",
    "http://localhost.:{port}/x",
    "http://LOCALHOST:{port}/x",
    "http://2130706433:{port}/x",
    "http://0x7f000001:{port}/x",
    "http://0x7f.0.0.1:{port}/x",
    "http://017700000001:{port}/x",
    "http://127.1:{port}/x",
    "http://127.0.0.1.:{port}/x",
    "http://[::1]:{port}/x",
    "http://[::ffff:127.0.0.1]:{port}/x",
    "http://[::ffff:7f00:1]:{port}/x",
    "http://[::127.0.0.1]:{port}/x",
    "http://[64:ff9b::127.0.0.1]:{port}/x",
    "http://[2002:7f00:1::]:{port}/x",
    "http://%31%32%37.0.0.1:{port}/x",
    "http://①②⑦.⓪.⓪.①:{port}/x",
    "http://192.0.2.1@127.0.0.1:{port}/x",
    "http://127.0.0.1:{port}\\@192.0.2.1/x",
    "http://169.254.169.254/latest/meta-data",
    "http://[fe80::a9fe:a9fe%25lo]/",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/x",
    "gopher://127.0.0.1:{port}/x",
    "http+unix://%2Frun%2Fsocket/x",
    "//127.0.0.1:{port}/x",
    "http://[::1/x",
]


@pytest.mark.parametrize("url", [*ATTACKS, "http://", "http:///x", "http:/x", "x", ""])
async def test_callers_do_not_get_to_this_machine(site: Site, client: WebClient, url: str) -> None:
    """OSSA-2026-004."""
    url = url.format(port=site.port)
    for attempt in (client.open(url), client.stat(url), client.document(url, limit=10)):
        with pytest.raises((Unavailable, NotFound), match=FAILED):
            await attempt
    assert not site.asked


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("url", ATTACKS)
async def test_nor_by_redirects(site: Site, other: Site, listed: WebClient, url: str, code: int) -> None:
    """OSSA-2026-004. The first server is a listed one; the attack is on another, whose host is not."""
    url = site.url("one.example", f"/to/{code}") + "?url=" + quote(url.format(port=other.port))
    with pytest.raises((Unavailable, NotFound), match=FAILED):
        await listed.open(url)
    assert [path for path, _ in site.asked] == [f"/to/{code}"]
    assert not other.asked


@pytest.mark.parametrize("url", ATTACKS)
async def test_nor_by_redirects_where_no_host_is_listed(site: Site, other: Site, client: WebClient, url: str) -> None:
    start = site.url("127.0.0.1", "/to/302") + "?url=" + quote(url.format(port=other.port))
    with pytest.raises((Unavailable, NotFound), match=FAILED):
        await client.open(start, trusted_first=True)
    assert not other.asked


async def test_long_ways_round_end_the_same(site: Site, other: Site, listed: WebClient) -> None:
    """Allowed, allowed, file; and back home by way of somebody else."""
    last = site.url("two.example", "/to/302") + "?url=file:///etc/passwd"
    with pytest.raises(Unavailable):
        await listed.open(site.url("one.example", "/to/302") + f"?url={last}")
    assert len(site.asked) == 2
    back = other.url("two.example", "/to/302") + "?url=" + site.url("127.0.0.1", "/secret")
    start = site.url("127.0.0.1", "/to/302") + "?url=" + back
    with pytest.raises(Unavailable):
        await listed.open(start, trusted_first=True)
    assert "/secret" not in [path for path, _ in site.asked]


async def test_redirects_have_an_end(site: Site, listed: WebClient) -> None:
    assert await content(listed, site.url("one.example", "/hops/5")) == b"there"
    with pytest.raises(Unavailable, match=FAILED):
        await listed.open(site.url("one.example", "/hops/6"))


async def test_ports(site: Site, other: Site, names: None) -> None:
    only = replace(LISTED, allowed_ports=(site.port,))
    async with client_with(only) as client:
        assert await content(client, site.url("one.example")) == b"there"
        for url in (other.url("one.example"), site.url("one.example", "/to/302") + "?url=" + other.url("two.example")):
            with pytest.raises(Unavailable, match=FAILED):
                await client.open(url)
    async with client_with(replace(LISTED, disallowed_ports=(other.port,))) as client:
        with pytest.raises(Unavailable, match=FAILED):
            await client.open(other.url("one.example"))
    assert not other.asked


async def test_a_name_whose_owner_lets_it_lead_elsewhere_in_between(
    site: Site, client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: good when the filter looks, bad when the connection does."""
    answers: Iterator[list[str]] = iter([["192.0.2.1"], ["127.0.0.1"]])
    monkeypatch.setattr(addresses, "_look_up", lambda name: next(answers))
    with pytest.raises(Unavailable, match=FAILED):
        await client.open(site.url("rebinding.example"))
    assert not list(answers)
    monkeypatch.setattr(addresses, "_look_up", lambda name: ["192.0.2.1", "::ffff:127.0.0.1"])
    with pytest.raises(Unavailable, match=FAILED):
        await client.open(site.url("mixed.example"))
    assert not site.asked


async def test_the_connection_goes_to_the_address_that_was_looked_at(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second name server's answer is good, so that it is connected to; a third look would be for nothing."""
    looked: list[str] = []

    def look_up(name: str) -> list[str]:
        looked.append(name)
        return ["127.0.0.1"]

    monkeypatch.setattr(addresses, "_look_up", look_up)
    async with client_with(LISTED) as client:
        assert await content(client, site.url("one.example")) == b"there"
    assert looked == ["one.example.", "one.example"]


# --- what is for one server only --------------------------------------------------------------------------------------


async def test_credentials_and_headers_go_to_their_own_server_only(
    site: Site, other: Site, listed: WebClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    home = site.url("me:p%40ss@one.example", "/to/302")
    assert await content(listed, f"{home}?url=/here", headers=TOKEN) == b"there"
    expected = "Basic " + base64.b64encode(b"me:p@ss").decode()
    for _, headers in site.asked:
        assert headers["Authorization"] == expected
        assert headers["X-Auth-Token"] == TOKEN["X-Auth-Token"]
        assert headers["Host"] == f"one.example:{site.port}"
    site.asked.clear()
    # Another port, another host, and credentials that the redirect brings along.
    for away in (other.url("one.example"), site.url("two.example"), other.url("you:theirs@two.example")):
        site.asked.clear()
        other.asked.clear()
        assert await content(listed, f"{home}?url={away}", headers=TOKEN) == b"there"
        _, headers = (other.asked or site.asked)[-1]
        assert "Authorization" not in headers
        assert "X-Auth-Token" not in headers
    # And home again, by somebody else's word.
    site.asked.clear()
    back = other.url("two.example", "/to/302") + "?url=" + site.url("one.example", "/here")
    assert await content(listed, f"{home}?url={back}", headers=TOKEN) == b"there"
    assert "Authorization" not in site.asked[-1][1]
    assert "X-Auth-Token" not in site.asked[-1][1]
    with pytest.raises(NotFound) as caught:
        await listed.open(site.url("me:p%40ss@one.example", "/status/404?signature=secret"), headers=TOKEN)
    messages = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    for text in (*messages, str(caught.value), repr(caught.value), repr(caught.value.__context__)):
        for secret in ("p@ss", "p%40ss", "secret", "theirs"):
            assert secret not in text
    assert any("404" in message for message in messages)


async def test_callers_do_not_share_cookies(site: Site, listed: WebClient) -> None:
    for path in ("/cookie", "/x"):
        assert await content(listed, site.url("one.example", path)) == b"there"
    assert "Cookie" not in site.asked[-1][1]


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Site]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with serving(context) as made:
        yield made


async def test_a_server_has_to_prove_its_name(secure: Site, listed: WebClient, certificate: Path) -> None:
    """OSSA-2013-018: nobody's signature, or the certificate of another host."""
    with pytest.raises(Unavailable, match=FAILED):
        await listed.open(secure.url("one.example", scheme="https"))
    async with client_with(LISTED, tls=ssl.create_default_context(cafile=str(certificate))) as knowing:
        assert await content(knowing, secure.url("one.example", scheme="https")) == b"there"
        with pytest.raises(Unavailable, match=FAILED):
            await knowing.open(secure.url("two.example", scheme="https"))
    assert len(secure.asked) == 1
    async with client_with(LISTED, tls=False) as trusting:
        assert await content(trusting, secure.url("two.example", scheme="https")) == b"there"


async def test_what_was_for_https_is_not_told_over_http(
    secure: Site, site: Site, names: None, certificate: Path
) -> None:
    async with client_with(LISTED, tls=ssl.create_default_context(cafile=str(certificate))) as client:
        url = secure.url("me:secret@one.example", "/to/302", "https") + "?url=" + site.url("one.example")
        assert await content(client, url, headers=TOKEN) == b"there"
    assert "Authorization" in secure.asked[-1][1]
    assert "Authorization" not in site.asked[-1][1]
    assert "X-Auth-Token" not in site.asked[-1][1]


# --- what the caller learns -------------------------------------------------------------------------------------------


@asynccontextmanager
async def speaking(greeting: bytes | None) -> AsyncIterator[int]:
    """A server that is no web server: it says something else, or nothing at all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greeting is not None:
            writer.write(greeting)
        await asyncio.sleep(0.5)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_failures_do_not_tell_which_ports_are_open(
    site: Site, secure: Site, listed: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OSSN-0078: refused, silent, another protocol, TLS or not, an HTTP error, not on the list."""
    monkeypatch.setattr(web_module, "READ_TIMEOUT", 0.2)
    greetings = [b"SSH-2.0-OpenSSH_9.9\r\n", b"", None, b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 wrong\r\n\r\n"]
    urls = [
        "http://one.example:1/x", secure.url("one.example"), site.url("one.example", scheme="https"),
        site.url("one.example", "/status/404"), site.url("one.example", "/status/403"),
        site.url("one.example", "/status/500"), site.url("one.example", "/status/204"),
        site.url("one.example", "/status/206"), "http://three.example/x", "ftp://one.example/x", "x", "http://[",
        site.url("one.example", "/hops/9"),
    ]  # fmt: skip
    answers: set[str] = set()
    for url in urls:
        with pytest.raises(GlimpseError) as caught:
            await listed.open(url)
        answers.add(caught.value.message)
    for greeting in greetings:
        async with speaking(greeting) as port:
            for scheme in ("http", "https"):
                with pytest.raises(Unavailable) as failed:
                    await listed.open(f"{scheme}://one.example:{port}/x")
                answers.add(failed.value.message)
    assert answers == {FAILED}


# --- bytes ------------------------------------------------------------------------------------------------------------


async def test_size_and_parts(site: Site, listed: WebClient) -> None:
    url = site.url("one.example", "/large")
    size = 80 * 65536
    assert await listed.stat(url) == size
    reader = await listed.open(url)
    assert reader.size == size
    blocks = [block async for block in reader.stream(0, None)]
    assert [len(block) for block in blocks] == [BLOCK] * (size // BLOCK)
    await reader.close()
    reader = await listed.open(url)
    assert sum([len(block) async for block in reader.stream(0, BLOCK + 5)]) == BLOCK + 5
    await reader.close()
    await reader.close()


async def test_what_comes_slowly_is_neither_kept_back_nor_cut_to_crumbs(site: Site, listed: WebClient) -> None:
    reader = await listed.open(site.url("one.example", "/slow"))
    blocks = [block async for block in reader.stream(0, None)]
    assert b"".join(blocks) == b"x" * 20_000
    assert 2 <= len(blocks) <= 8
    await reader.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    ],
)
async def test_a_body_that_is_cut_short_does_not_pass_for_a_whole_one(listed: WebClient, sent: bytes) -> None:
    async with speaking(sent) as port:
        with pytest.raises(Unavailable, match=FAILED):
            await content(listed, f"http://one.example:{port}/x")


async def test_a_server_that_falls_silent_is_given_up(
    site: Site, listed: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_module, "READ_TIMEOUT", 0.2)
    with pytest.raises(Unavailable, match=FAILED):
        await content(listed, site.url("one.example", "/silent"))


async def test_documents_have_a_limit(site: Site, listed: WebClient) -> None:
    assert await listed.document(site.url("one.example"), limit=5) == b"there"
    with pytest.raises(Unavailable, match=FAILED):
        await listed.document(site.url("one.example"), limit=4)


async def test_many_at_once(site: Site, listed: WebClient) -> None:
    """More than aiohttp's own limit for a session: whoever waited for a connection would run into the timeout."""
    readers: list[WebReader] = await asyncio.gather(
        *(listed.open(site.url("one.example", "/large")) for _ in range(150))
    )
    for reader in readers:
        await reader.close()
