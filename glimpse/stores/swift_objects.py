"""Objects in Swift, as a `swift_auth.Login` reaches them: what every Swift store has in common (spec 4.4).

An image is one object; a large one, or one whose size is not known before, is segments `<object>-00001`, … beside a
manifest without bytes (a dynamic large object of the Object Storage API). What is read is the object, and that comes
last, so there is all of an image or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
from oslo_config import cfg
from yarl import URL

from glimpse.errors import Conflict, Duplicate, Forbidden, GlimpseError, NotFound, SettingsError, StoreFull, Unavailable
from glimpse.stores.driver import BLOCK
from glimpse.stores.swift_auth import Login

LOG = logging.getLogger(__name__)

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("default_swift_reference", default="ref1"),
    cfg.BoolOpt("swift_buffer_on_upload", default=False, help="Without effect: nothing is sent twice"),
    cfg.ListOpt("swift_store_admin_tenants", default=[], help="Projects that may write in the containers of others"),
    cfg.StrOpt("swift_store_application_credential_id", secret=True),
    cfg.StrOpt("swift_store_application_credential_secret", secret=True),
    cfg.StrOpt("swift_store_auth_address"),
    cfg.BoolOpt("swift_store_auth_insecure", default=False),
    cfg.StrOpt("swift_store_auth_version", default="3", help="Without effect: Keystone's API is v3"),
    cfg.StrOpt("swift_store_cacert", help="File with the certificates to trust instead of the system's"),
    cfg.StrOpt("swift_store_config_file", help="File with service users, a section for each"),
    cfg.StrOpt("swift_store_container", default="glance"),
    cfg.BoolOpt("swift_store_create_container_on_put", default=False),
    cfg.StrOpt("swift_store_endpoint", help="Storage URL instead of the one from Keystone's catalog"),
    cfg.StrOpt("swift_store_endpoint_type", default="publicURL", choices=["publicURL", "adminURL", "internalURL"]),
    cfg.IntOpt("swift_store_expire_soon_interval", default=60, min=0, help="Seconds before its end to renew a token"),
    cfg.StrOpt("swift_store_key", secret=True),
    cfg.IntOpt("swift_store_large_object_chunk_size", default=200, min=1, help="MB of a segment"),
    cfg.IntOpt("swift_store_large_object_size", default=5120, min=1, help="MB from which an image is in segments"),
    cfg.BoolOpt("swift_store_multi_tenant", default=False),
    cfg.IntOpt("swift_store_multiple_containers_seed", default=0, min=0, max=32),
    cfg.StrOpt("swift_store_project_id"),
    cfg.StrOpt("swift_store_project_name"),
    cfg.StrOpt("swift_store_region"),
    cfg.IntOpt("swift_store_retry_get_count", default=0, min=0),
    cfg.StrOpt("swift_store_service_type", default="object-store"),
    cfg.BoolOpt("swift_store_ssl_compression", default=True, help="Without effect"),
    cfg.BoolOpt("swift_store_use_trusts", default=True),
    cfg.StrOpt("swift_store_user", secret=True, help="project:user"),
    cfg.StrOpt("swift_upload_buffer_dir", help="Without effect: nothing is sent twice"),
]

CONNECT_TIMEOUT = 10  # seconds
READ_TIMEOUT = 60  # seconds without a byte
PAUSES = (0.2, 1.0, 3.0)  # seconds before a request is sent again that may be
AT_ONCE = 8  # segments that are deleted at the same time
BUFFER = 1 << 20  # bytes of an answer that wait to be taken
UNIT = 1000 * 1024  # bytes that the options about sizes count in, as in Glance

AWAY = "The store does not answer now; try again in a moment."
TAKEN = "The store holds data for this image already."
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


class Objects:
    """Requests to Swift. Any number at once within one event loop; connections are kept and used again."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """Raises `SettingsError`."""
        self._tls = _tls(options, where)
        self.large = options["swift_store_large_object_size"] * UNIT
        self.segment = options["swift_store_large_object_chunk_size"] * UNIT
        self._resumes = max(options["swift_store_retry_get_count"], len(PAUSES))
        self._session: aiohttp.ClientSession | None = None
        self._writing: set[tuple[str, str, str]] = set()

    # --- writing -----------------------------------------------------------------------------------------------------

    async def put(self, place: Place, blocks: AsyncIterator[bytes], size: int | None) -> int:
        """Make the object of `blocks`; the number of bytes. A failure of `blocks` passes through unchanged.

        Raises `Duplicate`, `NotFound` (no such container), `StoreFull`, `Unavailable`.
        """
        account = await place.login.account()
        key = (account.storage_url, place.container, place.name)
        if key in self._writing:
            raise Duplicate(TAKEN)
        self._writing.add(key)
        try:
            if await self._exists(place):
                raise Duplicate(TAKEN)
            source = _Source(blocks)
            if size is not None and size < self.large:
                return await self._put_whole(place, source, size)
            return await self._put_in_segments(place, source, size)
        except Forbidden as error:
            raise Unavailable(error.message) from error
        finally:
            self._writing.discard(key)

    async def _put_whole(self, place: Place, source: _Source, size: int) -> int:
        try:
            await self._send(place, source, size, {"If-None-Match": "*"})
        except Duplicate:
            raise
        except BaseException:
            # The server may have all of it, although its answer is lost.
            await asyncio.shield(self._clean(place, []))
            raise
        return source.sent

    async def _put_in_segments(self, place: Place, source: _Source, size: int | None) -> int:
        made: list[str] = []
        try:
            while await source.more():
                name = f"{place.name}-{len(made) + 1:05d}"
                made.append(name)
                length = None if size is None else min(self.segment, size - source.sent)
                await self._send(place.beside(name), source.first(self.segment), length, {})
            manifest = quote(f"{place.container}/{place.name}-")
            await self._send(place, _Source(_nothing()), 0, {"X-Object-Manifest": manifest, "If-None-Match": "*"})
        except Duplicate:
            await asyncio.shield(self._clean(None, [place.beside(name) for name in made]))
            raise
        except BaseException:
            await asyncio.shield(self._clean(place, [place.beside(name) for name in made]))
            raise
        return source.sent

    async def _send(self, place: Place, source: _Source, size: int | None, headers: Mapping[str, str]) -> None:
        """One object. The server is asked before the first byte, so that another token costs nothing."""
        length = {} if size is None else {"Content-Length": str(size)}
        account = await place.login.account()
        for last in (False, True):
            try:
                async with self._connected().put(
                    url_of(account.storage_url, place), data=source.bytes() if size != 0 else b"", ssl=self._tls,
                    headers={**headers, **length, "X-Auth-Token": account.token}, expect100=size != 0,
                    allow_redirects=False,
                ) as answer:  # fmt: skip
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                source.raise_own()
                raise _away("PUT", error) from None
            if status != 401 or last or source.touched:
                break
            account = await place.login.renewed(account)
        source.raise_own()
        if status == 412:
            raise Duplicate(TAKEN)
        _require(status, "PUT")

    async def _clean(self, place: Place | None, segments: Sequence[Place]) -> None:
        """Remove what a failed put has made; what stays is said in the log."""
        for each in (*([place] if place else []), *segments):
            try:
                await self.remove(each)
            except GlimpseError as error:
                LOG.warning("an unfinished upload left %s in Swift: %s", each.name, error.message)

    async def _exists(self, place: Place) -> bool:
        try:
            await self._ask("HEAD", place)
        except NotFound:
            return False
        return True

    # --- reading -----------------------------------------------------------------------------------------------------

    async def open(self, place: Place) -> ObjectReader:
        """Raises `NotFound`, `Forbidden`, `Unavailable`."""
        return ObjectReader(self, place, await self.stat(place))

    async def stat(self, place: Place) -> int:
        """The number of bytes. Raises as `open`."""
        return int((await self._ask("HEAD", place)).get("Content-Length", "0"))

    async def stream(self, place: Place, first: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `first` to before `end`. A connection that breaks is made again. Raises as `open`."""
        tries = 0
        while first < end:
            try:
                async for block in self._part(place, first, end):
                    first, tries = first + len(block), 0
                    yield block
                if first < end:
                    raise Unavailable(AWAY)
            except Unavailable:
                if tries >= self._resumes:
                    raise
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1

    async def _part(self, place: Place, first: int, end: int) -> AsyncIterator[bytes]:
        account = await place.login.account()
        for last in (False, True):
            headers = {"X-Auth-Token": account.token, "Range": f"bytes={first}-{end - 1}"}
            try:
                async with self._connected().get(
                    url_of(account.storage_url, place), ssl=self._tls, headers=headers, allow_redirects=False
                ) as answer:
                    if answer.status == 401 and not last:
                        account = await place.login.renewed(account)
                        continue
                    _require(answer.status, "GET")
                    if answer.status != 206:
                        raise Unavailable("The store does not answer a range with one.")
                    async for block in _blocks(answer.content):
                        yield block
                    return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _away("GET", error) from None

    # --- removing ----------------------------------------------------------------------------------------------------

    async def delete(self, place: Place) -> None:
        """Remove an object with its segments. Raises `NotFound`, `Forbidden`, `Unavailable`."""
        headers = await self._ask("HEAD", place)
        if headers.get("X-Static-Large-Object", "").lower() == "true":
            await self._ask("DELETE", place, {"multipart-manifest": "delete"})
            return
        manifest = unquote(headers.get("X-Object-Manifest", ""))
        if manifest:
            container, _, prefix = manifest.partition("/")
            await self.remove_all(place.login, container, prefix)
        await self._ask("DELETE", place)

    async def remove(self, place: Place) -> None:
        """Remove one object; nothing there is fine. Raises `Forbidden`, `Unavailable`."""
        with contextlib.suppress(NotFound):
            await self._ask("DELETE", place)

    async def remove_all(self, login: Login, container: str, prefix: str) -> None:
        """Remove all objects whose names begin so. Raises `Forbidden`, `Unavailable`."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> None:
            async with turn:
                await self.remove(Place(login, container, name))

        after = ""
        while names := await self.names(login, container, prefix, after):
            await asyncio.gather(*map(one, names))
            after = names[-1]

    async def names(self, login: Login, container: str, prefix: str, after: str = "") -> list[str]:
        """The first names in a container that begin so and come behind `after`. Raises `Forbidden`, `Unavailable`."""
        query = {"format": "json", "prefix": prefix, "marker": after}
        try:
            return [entry["name"] for entry in await self._listed(login, container, query)]
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

    async def _listed(self, login: Login, container: str, query: Mapping[str, str]) -> Any:
        return (await self._request("GET", Place(login, container, ""), query, {}))[1]

    async def _ask(
        self,
        method: str,
        place: Place,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Mapping[str, str]:
        """The headers of the answer."""
        return (await self._request(method, place, query or {}, headers or {}))[0]

    async def _request(
        self, method: str, place: Place, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[Mapping[str, str], Any]:
        """One without a body that may be sent again, until it is answered. Headers, and JSON where there is any."""
        account, renewed = await place.login.account(), False
        pauses = iter(PAUSES)
        while True:
            try:
                async with self._connected().request(
                    method, url_of(account.storage_url, place).with_query(query), ssl=self._tls,
                    headers={**headers, "X-Auth-Token": account.token}, allow_redirects=False,
                ) as answer:  # fmt: skip
                    status = answer.status
                    body = await answer.json(content_type=None) if query.get("format") and status == 200 else None
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                failure = _away(method, error)
            else:
                if status == 401 and not renewed:
                    account, renewed = await place.login.renewed(account), True
                    continue
                if status not in (408, 429) and status < 500:
                    _require(status, method)
                    return answer.headers, body
                failure = _away(method, None, status)
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

    def __init__(self, objects: Objects, place: Place, size: int) -> None:
        self._objects = objects
        self._place = place
        self.size: int | None = size
        self._whole = size

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = self._whole if length is None else min(self._whole, offset + length)
        async with contextlib.aclosing(self._objects.stream(self._place, offset, end)) as blocks:  # type: ignore[type-var]
            async for block in blocks:
                yield block

    async def close(self) -> None:
        """Connections end with their streams."""


class _Source:
    """Blocks on their way into one or several objects. What the blocks raise is kept, as the client hides it."""

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._left: memoryview | None = None  # of a block that did not go into the last object as a whole
        self._limit: int | None = None
        self._failure: BaseException | None = None
        self.sent = 0
        self.touched = False

    def first(self, limit: int) -> _Source:
        """The same, of which the next object gets so many bytes at most."""
        self._limit, self.touched = limit, False
        return self

    async def more(self) -> bool:
        """Whether there is another byte."""
        while not self._left:
            block = await anext(self._blocks, None)
            if block is None:
                return False
            self._left = memoryview(block)
        return True

    async def bytes(self) -> AsyncIterator[bytes | memoryview]:
        """What one object gets."""
        left = self._limit
        try:
            while (left is None or left > 0) and await self.more():
                assert self._left is not None
                block = self._left if left is None else self._left[:left]
                self.touched = True
                self._left = self._left[len(block) :]
                left = None if left is None else left - len(block)
                self.sent += len(block)
                yield block
        except Exception as error:
            self._failure = error
            raise

    def raise_own(self) -> None:
        """Raise what the blocks have raised."""
        if self._failure is not None:
            raise self._failure


async def _nothing() -> AsyncIterator[bytes]:
    for block in iter(lambda: b"", b""):
        yield block


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


def _require(status: int, method: str) -> None:
    """Raise what a status means."""
    if status < 300:
        return
    if status == 404:
        raise NotFound(MISSING)
    if status == 409:
        raise Conflict("The store is busy with these data.")
    if status in (413, 507):
        LOG.error("Swift has no room: it answers %s with %d", method, status)
        raise StoreFull(FULL)
    if status in (401, 403):
        LOG.error("Swift refuses %s with %d", method, status)
        raise Forbidden(DENIED)
    raise _away(method, None, status)


def _away(method: str, error: Exception | None, status: int = 0) -> Unavailable:
    # Texts of errors may quote URLs, which name accounts; those of OSError are about addresses.
    reason = f"status {status}" if error is None else str(error) if isinstance(error, OSError) else type(error).__name__
    LOG.warning("Swift does not answer %s as it should: %s", method, reason)
    return Unavailable(AWAY, {"Retry-After": "5"})


def _tls(options: Mapping[str, Any], where: str) -> ssl.SSLContext | bool:
    """Whom to trust. Raises `SettingsError`."""
    if options["swift_store_auth_insecure"]:
        return False
    path = options["swift_store_cacert"]
    if not path:
        return True
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        reason = error.strerror or "it holds no certificates"
        raise SettingsError(f"{where} swift_store_cacert: {path} cannot be used: {reason}") from error
