"""Objects in Swift, as a `swift_auth.Login` reaches them: what every Swift store has in common but uploads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
from yarl import URL

from glimpse.errors import Conflict, Forbidden, GlimpseError, NotFound, StoreFull, Unavailable
from glimpse.stores.certificates import trusting
from glimpse.stores.driver import BLOCK
from glimpse.stores.swift_auth import Account, Login

LOG = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10  # seconds
READ_TIMEOUT = 60  # seconds without a byte
PAUSES = (0.2, 1.0, 3.0)  # seconds before a request is sent again that may be
AT_ONCE = 8  # segments that are deleted at the same time
BUFFER = 1 << 20  # bytes of an answer that wait to be taken
ABILITIES_FOR = 300.0  # seconds that a cluster's abilities are remembered

AWAY = "The store does not answer now; try again in a moment."
MISSING = "The store has no data there."
DENIED = "The store does not let the service do this."
FULL = "The store has no room left."


@dataclass(frozen=True)
class Place:
    """An object. Whoever names it has the right to it by `login`."""

    login: Login
    container: str
    name: str

    def beside(self, name: str) -> Place:
        """Another object of the same container."""
        return Place(self.login, self.container, name)


@dataclass(frozen=True)
class Abilities:
    """What a cluster says it can do: the bytes of an object at most, the segments of a static large object at most (0:
    it has none), and the digests that temporary URLs may be signed with."""

    largest: int = 5 << 30
    segments: int = 0
    digests: tuple[str, ...] = ("sha256",)


class Objects:
    """Requests to Swift. Any number at once within one event loop; connections are kept and used again."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """Raises `SettingsError`."""
        self._tls = _tls(options, where)
        self._resumes = max(options["swift_store_retry_get_count"], len(PAUSES))
        self._session: aiohttp.ClientSession | None = None
        self._abilities: dict[str, tuple[float, Abilities]] = {}

    # --- reading -----------------------------------------------------------------------------------------------------

    async def open(self, place: Place) -> ObjectReader:
        """Raises `NotFound`, `Forbidden`, `Unavailable`."""
        facts = await self.facts(place)
        return ObjectReader(self, place, int(facts.get("Content-Length", "0")), facts.get("Etag"))

    async def stat(self, place: Place) -> int:
        """The number of bytes. Raises as `open`."""
        return int((await self.facts(place)).get("Content-Length", "0"))

    async def facts(self, place: Place) -> Mapping[str, str]:
        """What Swift says of an object, as headers. Raises as `open`."""
        return await self._ask("HEAD", place)

    async def stream(self, place: Place, first: int, end: int, etag: str | None) -> AsyncIterator[bytes]:
        """The bytes from `first` to before `end`. A connection that breaks is made again.

        Raises as `open`, and `Conflict` where the object is not the one of that ETag any more.
        """
        tries = 0
        while first < end:
            try:
                async for block in self._part(place, first, end, etag):
                    first, tries = first + len(block), 0
                    yield block
                if first < end:
                    raise Unavailable(AWAY)
            except Unavailable:
                if tries >= self._resumes:
                    raise
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    async def _part(self, place: Place, first: int, end: int, etag: str | None) -> AsyncIterator[bytes]:
        account = await place.login.account()
        for last in (False, True):
            headers = {"Range": f"bytes={first}-{end - 1}"}
            try:
                async with self.request("GET", account, place, headers=headers) as answer:
                    if answer.status == 401 and not last:
                        account = await place.login.renewed(account)
                        continue
                    if answer.status >= 300:
                        raise refusal(answer.status, "GET")
                    if answer.status != 206:
                        raise Unavailable("The store does not answer a range with one.")
                    if answer.headers.get("Etag") != etag:
                        raise Conflict("The image data in the store is not what it was.")
                    async for block in _blocks(answer.content):
                        yield block
                    return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise away("GET", error) from None

    # --- removing ----------------------------------------------------------------------------------------------------

    async def delete(self, place: Place) -> None:
        """Remove an object with its segments. Raises `NotFound`, `Forbidden`, `Unavailable`."""
        headers = await self.facts(place)
        if headers.get("X-Static-Large-Object", "").lower() == "true":
            await self.remove_places(await self._segments(place))
        manifest = unquote(headers.get("X-Object-Manifest", ""))
        if manifest:
            container, _, prefix = manifest.partition("/")
            await self.remove_all(place.login, container, prefix)
        await self.remove(place)

    async def _segments(self, place: Place) -> list[Place]:
        """Those of a static large object; of one that is made of others, theirs as well, and these."""
        found = []
        for entry in await self._json(place, {"multipart-manifest": "get"}):
            container, _, name = str(entry["name"]).lstrip("/").partition("/")
            segment = Place(place.login, container, name)
            if entry.get("sub_slo"):
                found += await self._segments(segment)
            found.append(segment)
        return found

    async def remove(self, place: Place) -> None:
        """Remove one object; nothing there is fine. Raises `Forbidden`, `Unavailable`."""
        with contextlib.suppress(NotFound):
            await self._ask("DELETE", place)

    async def remove_places(self, places: Iterable[Place]) -> None:
        """Remove these objects, several at once. Raises as `remove`; some may be left then."""
        left = iter(places)

        async def work() -> None:
            for place in left:
                await self.remove(place)

        for result in await asyncio.gather(*(work() for _ in range(AT_ONCE)), return_exceptions=True):
            if result is not None:
                raise result

    async def remove_all(self, login: Login, container: str, prefix: str) -> None:
        """Remove all objects whose names begin so. Raises `Forbidden`, `Unavailable`."""
        after = ""
        while names := await self.names(login, container, prefix, after):
            await self.remove_places(Place(login, container, name) for name in names)
            after = names[-1]

    async def names(self, login: Login, container: str, prefix: str, after: str = "") -> list[str]:
        """The first names in a container that begin so and come behind `after`. Raises `Forbidden`, `Unavailable`."""
        query = {"format": "json", "prefix": prefix, "marker": after}
        try:
            return [entry["name"] for entry in await self._json(Place(login, container, ""), query)]
        except NotFound:
            return []

    # --- containers --------------------------------------------------------------------------------------------------

    async def make_container(self, login: Login, container: str, headers: Mapping[str, str]) -> None:
        """One that is there already gets the headers. Raises `Unavailable`, `Forbidden`."""
        await self._ask("PUT", Place(login, container, ""), headers=headers)

    async def change_container(self, login: Login, container: str, headers: Mapping[str, str]) -> None:
        """Raises `NotFound`, `Unavailable`, `Forbidden`."""
        await self._ask("POST", Place(login, container, ""), headers=headers)

    async def remove_container(self, login: Login, container: str) -> None:
        """One that is not empty stays, and none is fine. Raises `Unavailable`, `Forbidden`."""
        with contextlib.suppress(NotFound, Conflict):
            await self._ask("DELETE", Place(login, container, ""))

    async def require_container(self, login: Login, container: str) -> None:
        """Raises `NotFound`, `Unavailable`, `Forbidden`."""
        await self._ask("HEAD", Place(login, container, ""))

    async def of_account(self, login: Login) -> Mapping[str, str]:
        """What Swift says of an account, as headers. Raises `NotFound`, `Unavailable`, `Forbidden`."""
        return await self._ask("HEAD", Place(login, "", ""))

    # --- requests ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()

    async def abilities(self, storage_url: str) -> Abilities:
        """What the cluster there can do; as little as any can where it does not say."""
        url = re.sub(r"/v1(/.*)?$", "/info", storage_url)
        until, known = self._abilities.get(url, (0.0, Abilities()))
        if until < time.monotonic():
            known = await self._info(url)
            self._abilities[url] = time.monotonic() + ABILITIES_FOR, known
        return known

    async def _info(self, url: str) -> Abilities:
        limit = aiohttp.ClientTimeout(CONNECT_TIMEOUT)
        try:
            async with self._connected().get(url, ssl=self._tls, allow_redirects=False, timeout=limit) as answer:
                said = await answer.json(content_type=None) if answer.status == 200 else {}
            static, links = said.get("slo"), said.get("tempurl", {})
            return Abilities(
                int(said.get("swift", {}).get("max_file_size", Abilities.largest)),
                0 if static is None else int(static.get("max_manifest_segments", 1000)),
                tuple(map(str, links.get("allowed_digests", Abilities.digests))),
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, TypeError, AttributeError) as error:
            LOG.info("Swift does not say what it can do: %s", type(error).__name__)
            return Abilities()

    def request(
        self,
        method: str,
        account: Account,
        place: Place,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        **more: Any,
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """One request, as it is; `more` as in aiohttp. Raises `aiohttp.ClientError`, `TimeoutError`, `OSError`."""
        return self._connected().request(
            method, url_of(account.storage_url, place).with_query(query), ssl=self._tls, allow_redirects=False,
            headers={**(headers or {}), "X-Auth-Token": account.token}, **more,
        )  # fmt: skip

    async def _json(self, place: Place, query: Mapping[str, str]) -> Any:
        """The body of the answer to a GET; an empty list where there is none."""
        return (await self._answer("GET", place, query, {"Accept": "application/json"}))[1] or []

    async def _ask(self, method: str, place: Place, headers: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """The headers of the answer."""
        return (await self._answer(method, place, {}, headers or {}))[0]

    async def _answer(
        self, method: str, place: Place, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[Mapping[str, str], Any]:
        """That to a request without a body, which is sent again until there is one: headers, and JSON if asked for."""
        account, renewed = await place.login.account(), False
        pauses = iter(PAUSES)
        while True:
            try:
                async with self.request(method, account, place, headers=headers, query=query) as answer:
                    status = answer.status
                    wanted = "Accept" in headers and status == 200
                    body = await answer.json(content_type=None) if wanted else None
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                failure = away(method, error)
            else:
                if status == 401 and not renewed:
                    account, renewed = await place.login.renewed(account), True
                    continue
                if status < 300:
                    return answer.headers, body
                if not transient(status):
                    raise refusal(status, method)
                failure = away(method, None, status)
            pause = next(pauses, None)
            if pause is None:
                raise failure
            await asyncio.sleep(pause)

    def _connected(self) -> aiohttp.ClientSession:
        # Made on first use: a session belongs to the event loop of the process that serves.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=BUFFER,
                headers={"User-Agent": "glimpse", "Accept-Encoding": "identity"},
            )
        return self._session


class ObjectReader:
    """A `driver.Reader` on an object that is there."""

    def __init__(self, objects: Objects, place: Place, size: int, etag: str | None) -> None:
        self._objects = objects
        self._place = place
        self._etag = etag
        self.size: int | None = size
        self._whole = size

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = self._whole if length is None else min(self._whole, offset + length)
        async with contextlib.aclosing(self._objects.stream(self._place, offset, end, self._etag)) as blocks:  # type: ignore[type-var]
            async for block in blocks:
                yield block

    async def close(self) -> None:
        """Connections end with their streams."""


async def _blocks(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """About 1 MiB each: many small ones are dear for whoever takes them."""
    parts: list[bytes] = []
    size = 0
    async for part in content.iter_any():
        parts.append(part)
        size += len(part)
        if size >= BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def url_of(storage_url: str, place: Place) -> URL:
    """Where an object is; a container, for a place without a name, or the account."""
    path = "/".join(quote(part, safe="") for part in (place.container, place.name) if part)
    return URL(f"{storage_url}/{path}" if path else storage_url, encoded=True)


def transient(status: int) -> bool:
    """Whether the same request may be answered in another way a moment later."""
    return status in (408, 429) or (status >= 500 and status != 507)


def refusal(status: int, method: str) -> GlimpseError:
    """What a status says that is no success."""
    if status == 404:
        return NotFound(MISSING)
    if status == 409:
        return Conflict("The store is busy with these data.")
    if status in (413, 507):
        LOG.error("Swift has no room: it answers %s with %d", method, status)
        return StoreFull(FULL)
    if status in (401, 403):
        LOG.error("Swift refuses %s with %d", method, status)
        return Forbidden(DENIED)
    return away(method, None, status)


def away(method: str, error: Exception | None, status: int = 0) -> Unavailable:
    """What it means that there is no answer, or none that helps."""
    # Texts of errors may quote URLs, which name accounts; those of OSError are about addresses.
    reason = f"status {status}" if error is None else str(error) if isinstance(error, OSError) else type(error).__name__
    LOG.warning("Swift does not answer %s as it should: %s", method, reason)
    return Unavailable(AWAY, {"Retry-After": "5"})


def _tls(options: Mapping[str, Any], where: str) -> ssl.SSLContext | bool:
    """Whom to trust. Raises `SettingsError`."""
    if options["swift_store_auth_insecure"]:
        return False
    path = options["swift_store_cacert"]
    return trusting(path, "swift_store_cacert", where) if path else True
