"""Store `http`: images that somebody else's web server holds; they can be read, never written."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

from oslo_config import cfg

from glimpse.errors import Forbidden, Gone
from glimpse.stores.certificates import trusting
from glimpse.stores.driver import Facts, Reader, Stored
from glimpse.stores.uri_filter import UriFilter
from glimpse.stores.web import SCHEMES, WebClient

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("https_ca_certificates_file"),
    cfg.BoolOpt("https_insecure", default=True),
    cfg.DictOpt("http_proxy_information", default={}),
]


class HttpStore:
    """A `driver.Store` that only reads."""

    facts = Facts("http", SCHEMES, writable=False, ranges=False)

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """Beside `OPTIONS`, `options` hold the operator's lists, `uri_filter`: they are for the whole service."""
        self.details: Mapping[str, Any] = {}
        proxies: Mapping[str, str] = options["http_proxy_information"]  # as in http:10.0.0.1:3128
        self._web = WebClient(
            UriFilter(options["uri_filter"]),
            _tls(options["https_ca_certificates_file"], options["https_insecure"], where),
            {scheme: proxy if "://" in proxy else f"http://{proxy}" for scheme, proxy in proxies.items()},
        )

    def owns(self, url: str) -> bool:
        return url.startswith(("http://", "https://"))

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        raise Gone("The store cannot be written to.")

    async def open(self, url: str) -> Reader:
        # A location was held against the operator's lists when it was given.
        return await self._web.open(url, trusted_first=True)

    async def stat(self, url: str) -> int | None:
        return await self._web.stat(url, trusted_first=True)

    async def delete(self, url: str) -> None:
        raise Forbidden("The store does not support deleting.")

    async def discard(self, image_id: str) -> None:
        """Nothing is ever left behind where nothing is written."""

    async def check(self) -> None:
        """There is no one server to ask."""

    async def close(self) -> None:
        await self._web.close()


def _tls(ca_file: str | None, insecure: bool, where: str) -> ssl.SSLContext | bool:
    """Whom to trust. As for Glance, a file of certificates wins over the switch. Raises `SettingsError`."""
    return not insecure if ca_file is None else trusting(ca_file, "https_ca_certificates_file", where)
