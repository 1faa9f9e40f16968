"""The one way out to web servers that somebody else has named: imports, locations, other regions (spec 5.2).

Whoever names a URL sends this service to where it stands and they do not. So the client holds every URL against the
operator's lists before it connects, the first as well as those of redirects, and connects only to an address that it
has looked at itself (OSSA-2026-004). What a caller's URL or headers hold for one server is told to no other. Every
failure has the same text: the reason would tell which ports of which hosts are open (OSSN-0078); it is in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Mapping

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from glimpse.errors import NotFound, Unavailable
from glimpse.stores.addresses import look_up
from glimpse.stores.driver import BLOCK
from glimpse.stores.uri_filter import UriFilter

LOG = logging.getLogger(__name__)

SCHEMES = ("http", "https")
REDIRECTS = 5
REDIRECTED = frozenset({301, 302, 303, 307, 308})
CONNECT_TIMEOUT = 30  # seconds, with the look-up of the name and TLS
READ_TIMEOUT = 60  # seconds without a byte
BUFFER = 256 << 10  # bytes of an answer that wait to be taken, about; hundreds of them may be open at once
GATHERING = 0.1  # seconds that bytes wait for more to make a block with them

FAILED = "The data cannot be fetched from where it is said to be."


class WebClient:
    """Reads from web servers. Safe for any number of calls at once within one event loop."""

    def __init__(
        self, uri_filter: UriFilter, tls: ssl.SSLContext | bool = True, proxies: Mapping[str, str] | None = None
    ) -> None:
        """`tls` False trusts every server. `proxies` are URLs by scheme; a proxy finds the hosts by itself."""
        self._filter = uri_filter
        self._tls = tls
        self._proxies = proxies or {}
        self._session: aiohttp.ClientSession | None = None

    async def open(
        self, url: str, headers: Mapping[str, str] | None = None, *, trusted_first: bool = False
    ) -> WebReader:
        """Ask for what is there. With `trusted_first`, somebody has held that URL against the lists before.

        `headers`, and credentials in the URL, go to its own server only. Raises `NotFound`, `Unavailable`.
        """
        return WebReader(await self._request("GET", url, headers, trusted_first))

    async def stat(
        self, url: str, headers: Mapping[str, str] | None = None, *, trusted_first: bool = False
    ) -> int | None:
        """The number of bytes there, None when the server does not say. Otherwise as `open`."""
        response = await self._request("HEAD", url, headers, trusted_first)
        response.release()
        return response.content_length

    async def document(self, url: str, headers: Mapping[str, str] | None = None, *, limit: int) -> bytes:
        """All that is there, `limit` bytes at most. Raises as `open`, and `Unavailable` for more than that."""
        reader = await self.open(url, headers)
        try:
            body = b"".join([block async for block in reader.stream(0, limit + 1)])
        finally:
            await reader.close()
        if len(body) > limit:
            raise _failure(url, "a document that is too long")
        return body

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        # Made on first use: a session belongs to the event loop of the process that serves.
        if self._session is None:
            trusted = {URL(proxy).host or "" for proxy in self._proxies.values()}
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
                # No limit: a download that waits for others to end would run into the timeout.
                connector=aiohttp.TCPConnector(resolver=_Resolver(self._filter, trusted), limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),  # callers share the session, and must not share cookies
                auto_decompress=False,
                read_bufsize=BUFFER,
            )
        return self._session

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str] | None, trusted_first: bool
    ) -> aiohttp.ClientResponse:
        """The answer at the end of all redirects, its body still to be read."""
        target, private = _parsed(url, headers)
        home, at_home = _origin(target), True
        try:
            for _ in range(REDIRECTS + 1):
                # Who has sent us away does not send us back with what is only for home.
                at_home = at_home and _origin(target) == home
                if target.scheme not in SCHEMES or not (
                    (at_home and trusted_first) or await self._filter.passes(str(target))
                ):
                    raise _failure(url, f"{_shown(target)} may not be asked")
                response = await self._client().request(
                    method, target, ssl=self._tls, proxy=self._proxies.get(target.scheme), allow_redirects=False,
                    headers={"Accept-Encoding": "identity", "User-Agent": "glimpse", **(private if at_home else {})},
                )  # fmt: skip
                if response.status in (200, 203):
                    return response
                response.release()
                if response.status not in REDIRECTED or "Location" not in response.headers:
                    raise _refusal(url, response.status)
                # A server's word is no caller's: credentials in it are dropped.
                target = target.join(URL(response.headers["Location"])).with_user(None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _failure(url, _reason(error)) from None
        raise _failure(url, "too many redirects")


class WebReader:
    """A `driver.Reader` on an answer whose body has not been read yet."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.size: int | None = response.content_length

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """The bytes from the first on, `length` of them or all. Raises `Unavailable` for fewer than were announced."""
        left = length
        try:
            while block := await self._block(BLOCK if left is None else min(left, BLOCK)):
                yield block
                left = None if left is None else left - len(block)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _failure(str(self._response.url), _reason(error)) from None

    async def _block(self, most: int) -> bytes:
        """At least one byte, and what comes soon after it: many small blocks are dear for whoever takes them."""
        content = self._response.content
        parts = [await content.read(most)]
        left = most - len(parts[0])
        if parts[0]:
            # What breaks off here breaks off again at the next read; a cancelled read loses nothing.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHERING):
                    while left and (more := await content.read(left)):
                        parts.append(more)
                        left -= len(more)
        return b"".join(parts)

    async def close(self) -> None:
        self._response.close()


class _Resolver(AbstractResolver):
    """Finds hosts for connections, but not where the filter does not let them lead; `trusted` may lead anywhere."""

    def __init__(self, uri_filter: UriFilter, trusted: Collection[str]) -> None:
        self._filter = uri_filter
        self._trusted = trusted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [
            address
            for address in await look_up(host)
            if host in self._trusted or self._filter.lets_connect(host, address)
        ]
        if not found:
            raise OSError("the host leads nowhere that can be used")
        return [
            ResolveResult(
                hostname=host, host=str(address), port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
            )
            for address in found
        ]  # fmt: skip

    async def close(self) -> None:
        """There is nothing to let go of."""


def _parsed(url: str, headers: Mapping[str, str] | None) -> tuple[URL, dict[str, str]]:
    """A URL without its credentials, and the headers for its server, with them. Raises `NotFound`."""
    private = dict(headers or {})
    try:
        target = URL(url)
        if target.user:
            private["Authorization"] = aiohttp.encode_basic_auth(target.user, target.password or "", "utf-8")
        return target.with_user(None), private
    except ValueError:
        LOG.info("what was to be fetched is no URL")
        raise NotFound(FAILED) from None


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    """Whom a URL speaks to; http and https are not the same (RFC 6454, 4)."""
    return url.scheme, url.host, url.port


def _shown(url: URL) -> str:
    """A URL as a log may have it: credentials are before the host, or in the query."""
    return f"{url.scheme}://{url.host}:{url.port}{url.path}"


def _reason(error: Exception) -> str:
    # Texts of other errors may quote the URL.
    return str(error) if isinstance(error, OSError) and str(error) else type(error).__name__


def _failure(url: str, reason: str) -> Unavailable:
    LOG.info("%s cannot be fetched: %s", _shown(URL(url)), reason)
    return Unavailable(FAILED)


def _refusal(url: str, status: int) -> NotFound | Unavailable:
    failure = _failure(url, f"the answer is {status}")
    return NotFound(FAILED) if status == 404 else failure
