"""Store `http`: images that somebody else's web server holds; they can be read, never written."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from oslo_config import cfg
from yarl import URL

from glimpse.errors import Forbidden, GlimpseError, Gone, NotFound, Unavailable
from glimpse.stores.addresses import look_up
from glimpse.stores.driver import BLOCK, Facts, Stored
from glimpse.stores.uri_filter import UriFilter

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("https_ca_certificates_file"),
    cfg.BoolOpt("https_insecure", default=True),
    cfg.DictOpt("http_proxy_information", default={}),
]

REDIRECTS = 5
REDIRECTED = frozenset({301, 302, 303, 307, 308})
CONNECT_TIMEOUT = 30  # seconds
READ_TIMEOUT = 60  # seconds without a byte


class HttpStore:
    """A `driver.Store` that only reads."""

    facts = Facts("http", ("http", "https"), writable=False, ranges=False)

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """Beside `OPTIONS`, `options` hold the operator's lists, `uri_filter`: they are for the whole service."""
        self.details: Mapping[str, Any] = {}
        self._filter = UriFilter(options["uri_filter"])
        proxies: Mapping[str, str] = options["http_proxy_information"]  # as in http:10.0.0.1:3128
        self._proxies = {scheme: proxy if "://" in proxy else f"http://{proxy}" for scheme, proxy in proxies.items()}
        self._ca_file: str | None = options["https_ca_certificates_file"]
        # As for Glance, a file of certificates wins over the switch.
        self._verify = bool(self._ca_file) or not options["https_insecure"]
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        # Made on first use: a session belongs to the event loop of the process that serves.
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
            proxies = {URL(proxy).host or "" for proxy in self._proxies.values()}
            connector = aiohttp.TCPConnector(resolver=_Resolver(self._filter, proxies))
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, connector=connector)
        return self._session

    async def _request(self, method: str, url: str) -> aiohttp.ClientResponse:
        tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=self._ca_file) if self._verify else False
        proxy = self._proxies.get(url.partition("://")[0])
        try:
            target = URL(url)
            for _ in range(REDIRECTS + 1):
                response = await self._client().request(
                    method, target, ssl=tls, allow_redirects=False, proxy=proxy, headers={"Accept-Encoding": "identity"}
                )
                if response.status < 300:
                    return response
                response.release()
                if response.status not in REDIRECTED or "Location" not in response.headers:
                    raise _refused(response.status)
                target = await self._elsewhere(target, response.headers["Location"])
        except (aiohttp.InvalidURL, ValueError) as error:
            raise NotFound("The location is not a valid URL.") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable("The server that holds the image data does not answer.") from error
        raise Unavailable("The image data is behind too many redirects.")

    async def _elsewhere(self, url: URL, location: str) -> URL:
        """Where a redirect leads: to another page of the same server, or where callers may send us (OSSA-2026-004)."""
        target = url.join(URL(location))
        if target.scheme not in self.facts.schemes or not target.host:
            raise Unavailable("The image data is not on a web server.")
        if (target.host, target.port) != (url.host, url.port) and not await self._filter.passes(str(target)):
            raise Unavailable("The server that holds the image data sends its readers to a place that cannot be used.")
        return target

    def owns(self, url: str) -> bool:
        return url.startswith(("http://", "https://"))

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        raise Gone("The store cannot be written to.")

    async def open(self, url: str) -> OpenResponse:
        return OpenResponse(await self._request("GET", url))

    async def stat(self, url: str) -> int | None:
        response = await self._request("HEAD", url)
        response.release()
        return response.content_length

    async def delete(self, url: str) -> None:
        raise Forbidden("The store does not support deleting.")

    async def discard(self, image_id: str) -> None:
        """Nothing is ever left behind where nothing is written."""

    async def check(self) -> None:
        """There is no one server to ask."""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class OpenResponse:
    """A `driver.Reader` on a response whose body has not been read yet."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.size: int | None = response.content_length

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        left = length
        try:
            async for block in self._response.content.iter_chunked(BLOCK):
                yield block if left is None else block[:left]
                left = None if left is None else left - len(block)
                if left is not None and left <= 0:
                    return
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable("The server that holds the image data broke off.") from error

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


def _refused(status: int) -> GlimpseError:
    if status == 404:
        return NotFound("The store does not hold the image data.")
    return Unavailable(f"The server that holds the image data answered {status}.")
