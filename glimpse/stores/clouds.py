"""Buckets of Google Cloud Storage and Azure Blob, by the library obstore, which speaks to both in the same way.

It sends the parts of an image at the same time, retries what may be retried, and renews tokens. It cannot list parts
that were never put together; what a killed process leaves of them goes by a rule of Google's bucket
(AbortIncompleteMultipartUpload), or when Azure is told to forget that image.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glimpse.errors import Conflict, Duplicate, Forbidden, NotFound, StoreFull, TooLarge, Unavailable
from glimpse.stores.driver import BLOCK
from glimpse.stores.objects import (
    CHANGED,
    FULL,
    HELD,
    MIB,
    NO_ANSWER,
    NO_BUCKET,
    NOT_HERE,
    REFUSED,
    Denied,
    Found,
    Interrupted,
    Place,
    Undoing,
)

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import AzureStore, ClientConfig, GCSStore, RetryConfig

LOG = logging.getLogger(__name__)

TOKEN = "glimpseupload"  # noqa: S105  the name of metadata that tells whose upload made an object
RETRIES, PATIENCE = 3, 9  # the latter for uploads, whose bytes come only once; pauses begin at 0.2 s and double
UNKNOWN_PART = 32 * MIB  # of images whose size nobody has said: enough for 10,000 parts to hold 312 GiB


@dataclass(frozen=True, slots=True)
class Client:
    """How obstore's client is made: `make` gets the limits of time that hold for every request of it."""

    make: Callable[[ClientConfig, RetryConfig], GCSStore | AzureStore]
    plain_http: bool
    can_sign: bool

    def open(self, retries: int) -> GCSStore | AzureStore:
        """The client; without retries it does not wait long either."""
        once = not retries
        minute, second = datetime.timedelta(minutes=1), datetime.timedelta(seconds=1)
        # A whole answer may take as long as its reader does; each read of it may not.
        times: ClientConfig = {
            "allow_http": self.plain_http,
            "connect_timeout": 3 * second if once else 5 * second,
            "read_timeout": 6 * second if once else minute,
            "timeout": 8 * second if once else datetime.timedelta(days=30),
        }
        tries: RetryConfig = {
            "max_retries": retries,
            "retry_timeout": 8 * second if once else minute,
            "backoff": {"init_backoff": 0.2 * second, "max_backoff": 10 * second, "base": 2},
        }
        return self.make(times, tries)


class CloudBucket:
    """An `objects.Bucket`. `prefix` is what the URL of each of its objects begins with.

    `overwrites_parts`: whether parts that were never put together go when an object takes their place (Azure).
    """

    def __init__(
        self, client: Client, prefix: str, part: int, parallel: int, max_parts: int, overwrites_parts: bool = False
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._part = part
        self._parallel = parallel
        self._max_parts = max_parts
        self._overwrites_parts = overwrites_parts
        self._opened: dict[int, GCSStore | AzureStore] = {}
        self._undoing = Undoing()

    @property
    def _store(self) -> GCSStore | AzureStore:
        return self._tireless(RETRIES)

    def _tireless(self, retries: int) -> GCSStore | AzureStore:
        """The client that tries so often, made at the first call: workers fork before that."""
        if retries not in self._opened:
            self._opened[retries] = self._client.open(retries)
        return self._opened[retries]

    def place(self, url: str) -> Place | None:
        # Only its own: there are no older locations that could be elsewhere.
        key = url.removeprefix(self._prefix)
        return Place(self._prefix, key) if url.startswith(self._prefix) and key and "/" not in key else None

    def is_own(self, url: str) -> bool:
        return self.place(url) is not None

    def url(self, key: str) -> str:
        return f"{self._prefix}{key}"

    async def find(self, place: Place) -> Found:
        import obstore

        try:
            meta = await obstore.head_async(self._store, place.key)
        except Exception as error:
            raise _translated(error) from error
        return Found(meta["size"], meta["e_tag"])

    async def fetch(self, place: Place, found: Found, start: int, end: int) -> AsyncGenerator[bytes, None]:
        import obstore

        try:
            answer = await obstore.get_async(
                self._store, place.key, options={"range": (start, end), "if_match": found.etag}
            )
            async for block in answer.stream(BLOCK):
                yield block
        except Exception as error:
            translated = _translated(error)
            if type(translated) is Unavailable:
                raise Interrupted(_summary(error)) from error
            raise translated from error

    async def ready(self) -> None:
        """A bucket that is missing is noticed when it is written to."""

    async def upload(self, key: str, blocks: AsyncIterator[bytes], size: int | None) -> int:
        feed = _Feed(blocks, self._part_size(size) * self._max_parts)
        token = secrets.token_hex(16)
        sending = asyncio.ensure_future(self._send(key, feed, self._part_size(size), token))
        try:
            await asyncio.shield(sending)
        except BaseException as error:
            failed = feed.failed
            await self._undoing.run(self._undo(key, feed, token, sending))
            if not isinstance(error, Exception):
                raise
            if failed is not None:
                raise failed from None
            translated = _translated(error)
            raise (Unavailable(NO_BUCKET) if isinstance(translated, NotFound) else translated) from error
        return feed.count

    def _part_size(self, size: int | None) -> int:
        if size is None:
            return max(self._part, UNKNOWN_PART)
        return max(self._part, -(-size // self._max_parts))

    async def _send(self, key: str, feed: _Feed, part: int, token: str) -> None:
        import obstore

        feed.start()
        first = await feed.first(part)
        if len(first) <= part:
            # In one piece, which the server refuses where there is an object already.
            await obstore.put_async(
                self._tireless(PATIENCE),
                key,
                bytes(first),
                mode="create",
                use_multipart=False,
                attributes={TOKEN: token},
            )
            return
        # As many parts at the same time as fit into the memory that is meant for them.
        parallel = max(1, self._parallel * self._part // part)
        await obstore.put_async(
            self._tireless(PATIENCE), key, feed, chunk_size=part, max_concurrency=parallel, use_multipart=True,
            attributes={TOKEN: token},
        )  # fmt: skip

    async def _undo(self, key: str, feed: _Feed, token: str, sending: asyncio.Future[None]) -> None:
        """Leave nothing. obstore gives up its parts when its stream fails, not when it is cancelled."""
        await feed.stop()
        await asyncio.gather(sending, return_exceptions=True)
        import obstore

        try:
            answer = await obstore.get_async(self._store, key, options={"head": True})
            if answer.attributes.get(TOKEN) == token:
                await obstore.delete_async(self._store, key)
        except Exception as error:
            if not isinstance(_translated(error), NotFound):
                LOG.warning("parts of %s may be left in the store: %s", key, _summary(error))
            elif self._overwrites_parts:
                # Not the place of an object that another process may have published by now.
                await self._drop_parts(key, "create")

    async def _drop_parts(self, key: str, mode: PutMode) -> None:
        """Parts that were never put together go when an object takes their place, an empty one will do.

        One that is still on its way comes too late for this; Azure forgets it after a week. With the mode `create` a
        server may take parts for an object, and keep them.
        """
        import obstore

        try:
            await obstore.put_async(self._store, key, b"", mode=mode, use_multipart=False)
            await obstore.delete_async(self._store, key)
        except Exception as error:
            if isinstance(_translated(error), Duplicate):
                return
            LOG.warning("parts of %s may be left in the store: %s", key, _summary(error))

    async def remove(self, place: Place) -> None:
        import obstore

        await self.find(place)
        try:
            await obstore.delete_async(self._store, place.key)
        except Exception as error:
            translated = _translated(error)
            if isinstance(translated, Denied):
                raise Forbidden("The store refuses to delete the image data.") from error
            raise translated from error

    async def forget(self, key: str) -> None:
        try:
            await self.remove(Place(self._prefix, key))
        except NotFound:
            if self._overwrites_parts:
                await self._drop_parts(key, "overwrite")  # who forgets an image is the only one who works on it

    async def look(self) -> None:
        import obstore

        try:
            await obstore.list_with_delimiter_async(self._tireless(0), "glimpse-check")
        except Exception as error:
            translated = _translated(error)
            raise (Unavailable(NO_BUCKET) if isinstance(translated, NotFound) else translated) from error

    async def sign(self, place: Place, seconds: int) -> str | None:
        import obstore

        if not self._client.can_sign:
            return None
        try:
            return await obstore.sign_async(self._store, "GET", place.key, datetime.timedelta(seconds=seconds))
        except Exception as error:
            raise _translated(error) from error

    async def close(self) -> None:
        await self._undoing.close()
        self._opened.clear()


class _Feed:
    """The blocks of an upload for obstore, which leaves a read that is under way alone when it is cancelled.

    So a task of our own reads, and that one can be stopped; behind it are at most two blocks.
    """

    def __init__(self, blocks: AsyncIterator[bytes], longest: int) -> None:
        self._blocks = blocks
        self._longest = longest
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(2)
        self._begin: bytearray | None = None
        self._task: asyncio.Task[None] | None = None
        self.count = 0
        self.failed: Exception | None = None

    def start(self) -> None:
        """Begin to read."""
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for block in self._blocks:
                self.count += len(block)
                if self.count > self._longest:
                    raise TooLarge("The image is larger than the store takes when nobody has said its size.")
                await self._queue.put(block)
        except Exception as error:
            self.failed = error
        await self._queue.put(None)

    async def first(self, length: int) -> bytearray:
        """The beginning: more than `length` bytes, or all there are. Raises what the stream raised."""
        begin = bytearray()
        while len(begin) <= length and (block := await self._next()) is not None:
            begin += block
        self._begin = begin
        return begin

    async def _next(self) -> bytes | None:
        block = await self._queue.get()
        if block is None and self.failed is not None:
            raise self.failed
        return block

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> bytes:
        if self._begin is not None:
            begin, self._begin = bytes(self._begin), None
            return begin
        block = await self._next()
        if block is None:
            raise StopAsyncIteration
        return block

    async def stop(self) -> None:
        """Read no more; who still waits for a block gets a failure."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.failed is None:
            self.failed = _GivenUp()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)


class _GivenUp(Exception):
    """Nobody wants the upload any more."""


def _status(error: Exception) -> int:
    """The HTTP status that obstore's text names, 0 without one."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else 0


def _summary(error: Exception) -> str:
    """For the log: obstore's own texts hold whole URLs."""
    return f"{type(error).__name__} {_status(error) or ''}".strip()


def _translated(error: Exception) -> Exception:
    """What clients get for a failure of obstore; what is none stays what it is."""
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        NotFoundError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    if isinstance(error, (FileNotFoundError, NotFoundError)):
        return NotFound(NOT_HERE)
    if not isinstance(error, (BaseError, OSError)):
        return error
    if isinstance(error, AlreadyExistsError):
        return Duplicate(HELD)
    if isinstance(error, PreconditionError):
        return Conflict(CHANGED)
    status = _status(error)
    if status == 404:
        return NotFound(NOT_HERE)
    LOG.warning("an object store fails: %s", _summary(error))
    if status in (413, 507):
        return StoreFull(FULL)
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
        return Denied(REFUSED)
    return Unavailable(NO_ANSWER)
