"""Images on their way into Swift (spec 4.4).

An image is one object; a large one, or one whose size is not known before, is segments `<object>-<upload>-00001`, …
beside a manifest: a static large object where the cluster has these, else a dynamic one (Object Storage API). What is
read is the object, and that comes last, so there is all of an image or nothing. `<upload>` is another one each time:
whatever a killed process has left behind is never taken for a part of the next upload.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import aiohttp

from glimpse.errors import Duplicate, Forbidden, GlimpseError, NotFound, Unavailable
from glimpse.stores.swift_objects import PAUSES, Abilities, Objects, Place, away, refusal, transient

LOG = logging.getLogger(__name__)

UNIT = 1000 * 1024  # bytes that the options about sizes count in, as in Glance
PATIENCE = 60.0  # seconds for Swift to take a block, and to answer behind the last one
MARK = "X-Object-Meta-Upload"  # tells an object of this upload from another one of the same name
TAKEN = "The store holds data for this image already."


class Uploads:
    """Any number at once within one event loop. `large` and `segment` are bytes: see the options."""

    def __init__(self, objects: Objects, options: Mapping[str, Any]) -> None:
        self.large = options["swift_store_large_object_size"] * UNIT
        self.segment = options["swift_store_large_object_chunk_size"] * UNIT
        self._objects = objects
        self._writing: set[tuple[str, str, str]] = set()

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
            can = await self._objects.abilities(account.storage_url)
            upload = _Upload(self._objects, place, blocks, can)
            if size is not None and size < min(self.large, can.largest):
                return await upload.whole(size)
            return await upload.in_segments(size, min(self.segment, can.largest))
        except Forbidden as error:
            raise Unavailable(error.message) from error
        finally:
            self._writing.discard(key)

    async def _exists(self, place: Place) -> bool:
        try:
            await self._objects.stat(place)
        except NotFound:
            return False
        return True


class _Upload:
    """One image. What it has made is gone again when it fails, as far as Swift answers."""

    def __init__(self, objects: Objects, place: Place, blocks: AsyncIterator[bytes], can: Abilities) -> None:
        self._objects = objects
        self._place = place
        self._source = _Source(blocks)
        self._can = can
        self._id = secrets.token_hex(4)
        self._tried: list[Place] = []

    async def whole(self, size: int) -> int:
        try:
            if await self._source.more():
                await self._send(self._place, {**self._first, "Content-Length": str(size)}, limit=size)
            else:
                await self._send(self._place, self._first, b"")
        except BaseException:
            await asyncio.shield(self._clean())
            raise
        return self._source.sent

    async def in_segments(self, size: int | None, largest: int) -> int:
        prefix = f"{self._place.name}-{self._id}-"
        made: list[dict[str, Any]] = []
        try:
            while await self._source.more():
                begin = self._source.sent
                segment = self._place.beside(f"{prefix}{len(made) + 1:05d}")
                self._tried.append(segment)
                length = None if size is None or size <= begin else min(largest, size - begin)
                headers = {} if length is None else {"Content-Length": str(length)}
                etag = await self._send(segment, headers, limit=length or largest)
                path = f"/{segment.container}/{segment.name}"
                made.append({"path": path, "etag": etag, "size_bytes": self._source.sent - begin})
            await self._publish(prefix, made)
        except BaseException:
            await asyncio.shield(self._clean())
            raise
        return self._source.sent

    async def _publish(self, prefix: str, made: list[dict[str, Any]]) -> None:
        if not made:
            await self._send(self._place, self._first, b"")
        elif len(made) <= self._can.segments:
            query = {"multipart-manifest": "put"}
            await self._send(self._place, self._first, json.dumps(made).encode(), query=query)
        else:
            manifest = quote(f"{self._place.container}/{prefix}")
            await self._send(self._place, {**self._first, "X-Object-Manifest": manifest}, b"")

    @property
    def _first(self) -> dict[str, str]:
        """Headers of the object that is read: there must be none yet."""
        return {"If-None-Match": "*", MARK: self._id}

    async def _send(
        self,
        place: Place,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        limit: int = 0,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """One object: `body`, or the next `limit` bytes of the blocks. Its ETag.

        Swift is asked before the first byte, so another token and another try cost nothing until then.
        """
        account, renewed, again = await place.login.account(), False, False
        pauses, source = iter(PAUSES), self._source
        source.touched = False
        while True:
            try:
                async with asyncio.timeout(PATIENCE) as clock:
                    data = source.part(limit, clock) if body is None else body
                    try:
                        async with self._objects.request(
                            "PUT", account, place, headers=headers, query=query, data=data, expect100=body is None,
                            timeout=aiohttp.ClientTimeout(total=None, connect=10),
                        ) as answer:  # fmt: skip
                            status, etag = answer.status, answer.headers.get("Etag", "").strip('"')
                    finally:
                        await source.rest()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                source.raise_own()
                failure = away("PUT", error)
            else:
                source.raise_own()
                if status < 300 and (body is not None or source.whole):
                    return etag
                if status == 412 and again and await self._is_there():
                    return etag  # an earlier try has made it, and its answer was lost
                if status == 412:
                    raise Duplicate(TAKEN)
                if status == 401 and not renewed and not source.touched:
                    account, renewed = await place.login.renewed(account), True
                    continue
                if not transient(status):
                    raise refusal(status, "PUT")
                failure = away("PUT", None, status)
            pause = next(pauses, None)
            if source.touched or pause is None:
                raise failure
            await asyncio.sleep(pause)
            again = True

    async def _is_there(self) -> bool:
        """Whether the object is there, and of this upload."""
        try:
            return (await self._objects.facts(self._place)).get(MARK) == self._id
        except NotFound:
            return False

    async def _clean(self) -> None:
        """Remove what is there of an upload that failed; what stays is said in the log."""
        try:
            if await self._is_there():
                await self._objects.remove(self._place)
            await self._objects.remove_places(self._tried)
        except GlimpseError as error:
            LOG.warning("an upload that failed has left parts of %s in Swift: %s", self._place.name, error.message)


class _Source:
    """Blocks on their way into one or several objects.

    It reads one block ahead: what comes last goes only when the stream has ended well. What the blocks raise is kept,
    as the client hides it.
    """

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._here = memoryview(b"")
        self._ahead: bytes | None = b""  # None: there is no more
        self._failure: Exception | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.sent = 0
        self.touched = False  # the object that is made has got a byte
        self.whole = False  # and all of them

    async def more(self) -> bool:
        """Whether there is another byte."""
        while not self._here and self._ahead is not None:
            self._here = memoryview(self._ahead)
            self._ahead = await anext(self._blocks, None)
        return bool(self._here)

    async def part(self, limit: int, clock: asyncio.Timeout) -> AsyncGenerator[memoryview, None]:
        """What one object gets. The clock runs while Swift has to take something, not while a block is waited for."""
        now = asyncio.get_running_loop().time
        self.whole = False
        while limit > 0:
            clock.reschedule(None)
            if not await self._fetch():
                break
            clock.reschedule(now() + PATIENCE)
            block = self._here[:limit]
            self._here = self._here[len(block) :]
            self.touched = True
            self.sent += len(block)
            limit -= len(block)
            yield block
        clock.reschedule(now() + PATIENCE)
        self.whole = True

    async def _fetch(self) -> bool:
        self._idle.clear()
        try:
            return await self.more()
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._idle.set()

    async def rest(self) -> None:
        """Wait until nobody is in the blocks any more: the client ends what sends them a moment later."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), 1)

    def raise_own(self) -> None:
        """Raise what the blocks have raised."""
        if self._failure is not None:
            raise self._failure
