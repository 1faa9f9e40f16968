"""Store `s3`: images as objects in a bucket of Amazon S3, or of what speaks its language (Ceph, Swift, MinIO …).

    s3://<host>/<bucket>/<image id>           by HTTP
    s3+https://<host>/<bucket>/<image id>     by HTTPS

Older versions of Glance wrote keys before the host, `s3://<access>:<secret>@<host>/…`. Such a URL is read, the keys in
it are not used: as in Glance today, host and keys are those of the configuration, so nobody who can give an image a
location can send the service elsewhere.

The client library (botocore) is loaded at the first request: that costs a fifth of a second and 40 MB.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from oslo_config import cfg

from glimpse.domain.record import without_keys
from glimpse.errors import (
    Conflict,
    Duplicate,
    Forbidden,
    GlimpseError,
    NotFound,
    SettingsError,
    StoreFull,
    Unavailable,
    Unconfigured,
)
from glimpse.stores.driver import BLOCK, Facts
from glimpse.stores.objects import (
    CHANGED,
    FULL,
    HELD,
    MIB,
    NO_ANSWER,
    NO_BUCKET,
    NOT_HERE,
    REFUSED,
    UNDO_SECONDS,
    Found,
    Interrupted,
    ObjectStore,
    Place,
)

LOG = logging.getLogger(__name__)

_CHECKSUMS = ["when_required", "when_supported"]

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("s3_store_host"),
    cfg.StrOpt("s3_store_region_name", default=""),
    cfg.StrOpt("s3_store_access_key", secret=True),
    cfg.StrOpt("s3_store_secret_key", secret=True),
    cfg.StrOpt("s3_store_bucket"),
    cfg.BoolOpt("s3_store_create_bucket_on_put", default=False),
    cfg.StrOpt("s3_store_bucket_url_format", default="auto", help="auto, virtual or path"),
    cfg.IntOpt("s3_store_large_object_size", default=100, min=0, help="MiB from which an image comes in parts"),
    cfg.IntOpt("s3_store_large_object_chunk_size", default=10, min=5, help="MiB of a part"),
    cfg.IntOpt("s3_store_thread_pools", default=10, min=1, help="Parts under way at the same time"),
    cfg.StrOpt("s3_store_cacert", default="", help="File with the certificates to trust instead of the system's"),
    cfg.BoolOpt("s3_store_enable_data_integrity_protection", default=False),
    cfg.StrOpt("s3_store_request_checksum_calculation", default="when_required", choices=_CHECKSUMS),
    cfg.StrOpt("s3_store_response_checksum_validation", default="when_required", choices=_CHECKSUMS),
]

SCHEMES = ("s3", "s3+http", "s3+https")
MAX_PARTS = 10_000  # Amazon S3 User Guide, "Multipart upload limits"
GROWTH = 1_500  # without a size, a part is at least this fraction of what came before: 10,000 of them hold over 4 TiB
CONNECT_SECONDS, READ_SECONDS = 5, 60
TRIES = 3  # by botocore, within a second
PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between those of an upload, whose bytes come only once
PIECE = 1 << 16  # bytes that have `CONNECT_SECONDS` to go out, at least
CALLS = 32  # threads for all but the sending of parts
TOKEN = "glimpse-upload"  # noqa: S105  the name of metadata that tells whose upload made an object

# Codes in the errors of S3 and of those that speak its language; each status stands for several.
_NO_BUCKET = {"NoSuchBucket"}
_FULL = {"EntityTooLarge", "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "BucketAlreadyOwnedByYou"}


class S3Store(ObjectStore):
    """A `driver.Store` on one bucket."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """`where` names the section for `SettingsError` and `Unconfigured`. Connects to nothing."""
        details = ("s3_store_large_object_size", "s3_store_large_object_chunk_size", "s3_store_thread_pools")
        super().__init__(
            Facts("s3", SCHEMES, writable=True, ranges=True),
            S3Bucket(_Client(options, where), options),
            {name: options[name] for name in details},
        )


class _Client:
    """Botocore's client, made at the first call. Its methods run in threads."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        for name in ("s3_store_host", "s3_store_access_key", "s3_store_secret_key", "s3_store_bucket"):
            if not options[name]:
                raise Unconfigured(f"{where} {name} is not set; an s3 store needs it")
        host: str = options["s3_store_host"].strip().rstrip("/")
        self.endpoint = host if host.startswith(("http://", "https://")) else f"http://{host}"
        self.region: str = options["s3_store_region_name"] or _region_in(self.endpoint) or "us-east-1"
        style = options["s3_store_bucket_url_format"]
        if style not in ("auto", "virtual", "path"):
            raise SettingsError(f"{where} s3_store_bucket_url_format: {style!r}; allowed: auto, virtual, path")
        self._cacert: str | None = options["s3_store_cacert"] or None
        if self._cacert is not None and not Path(self._cacert).is_file():
            raise SettingsError(f"{where} s3_store_cacert: {self._cacert} is not a file that can be read")
        checked = options["s3_store_enable_data_integrity_protection"]
        self._config = {
            "signature_version": "s3v4",
            "s3": {"addressing_style": style},
            "request_checksum_calculation": options["s3_store_request_checksum_calculation"]
            if checked else "when_required",
            "response_checksum_validation": options["s3_store_response_checksum_validation"]
            if checked else "when_required",
            "max_pool_connections": CALLS + int(options["s3_store_thread_pools"]),
            "tcp_keepalive": True,
        }  # fmt: skip
        self._keys = (options["s3_store_access_key"], options["s3_store_secret_key"])
        self._lock = Lock()
        self._made: dict[bool, Any] = {}

    def get(self, once: bool = False) -> Any:
        """The client; with `once` it neither waits long nor tries again. Call it in a thread."""
        with self._lock:
            if once not in self._made:
                self._made[once] = self._make(once)
            return self._made[once]

    def _make(self, once: bool) -> Any:
        import botocore.config
        import botocore.session

        # At DEBUG it writes signatures and whole headers (bug 2095304).
        logging.getLogger("botocore").setLevel(max(logging.INFO, logging.getLogger("botocore").level))
        config = botocore.config.Config(
            connect_timeout=3 if once else CONNECT_SECONDS,
            read_timeout=5 if once else READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1 if once else TRIES},
            **self._config,
        )
        access, secret = self._keys
        return botocore.session.Session().create_client(
            "s3", region_name=self.region, endpoint_url=self.endpoint, verify=self._cacert,
            aws_access_key_id=access, aws_secret_access_key=secret, config=config,
        )  # fmt: skip

    def close(self) -> None:
        with self._lock:
            for made in self._made.values():
                made.close()
            self._made.clear()


class S3Bucket:
    """An `objects.Bucket`. Requests run in threads of this store: their number bounds what it can do at once."""

    def __init__(self, client: _Client, options: Mapping[str, Any]) -> None:
        self._client = client
        self._bucket: str = options["s3_store_bucket"]
        self._create: bool = options["s3_store_create_bucket_on_put"]
        scheme, _, self._host = client.endpoint.partition("://")
        self._scheme = "s3+https" if scheme == "https" else "s3"
        parallel: int = options["s3_store_thread_pools"]
        self.part: int = options["s3_store_large_object_chunk_size"] * MIB
        self.whole = min(options["s3_store_large_object_size"] * MIB, parallel * self.part)
        self.room = _Room(parallel * self.part)
        self.calls = ThreadPoolExecutor(CALLS, "s3-store")
        self.senders = ThreadPoolExecutor(parallel, "s3-store-part")
        self.buffered = 0  # bytes for which uploads of whole objects have kept memory, as long as their clients take
        self.conditional = True  # whether the server knows If-None-Match on writes; it tells at the first one
        self._bucket_seen = False
        self._undoing: set[asyncio.Task[None]] = set()

    def start(
        self, threads: ThreadPoolExecutor, operation: str, patience: Sequence[float] = (), **parameters: Any
    ) -> Future[Any]:
        """Begin an operation of S3 in a thread; while the server is away it is repeated after each pause."""
        return threads.submit(self._repeated, operation, patience, parameters)

    def _repeated(self, operation: str, patience: Sequence[float], parameters: Mapping[str, Any]) -> Any:
        end = time.monotonic() + READ_SECONDS  # a server that hangs has had its time after one of them
        for pause in patience:
            try:
                return self._ask(operation, parameters)
            except Exception as error:
                if not _may_pass(error) or time.monotonic() > end:
                    raise
                LOG.info("an S3 server fails, %s is repeated in %g s: %s", operation, pause, _summary(error))
            time.sleep(pause)
        return self._ask(operation, parameters)

    def _ask(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        if isinstance(body := parameters.get("Body"), _Sent):
            body.seek(0)  # it may have been sent before
        return getattr(self._client.get(), operation)(**parameters)

    async def call(self, operation: str, place: Place, **parameters: Any) -> Any:
        """An operation on one object. Raises what `_translated` makes of its failure."""
        return await _end_of(self.start(self.calls, operation, Bucket=place.bucket, Key=place.key, **parameters))

    def place(self, url: str) -> Place | None:
        scheme, _, rest = url.partition("://")
        # From the end: keys that Glance once wrote before the host may hold slashes.
        host, *names = rest.rsplit("/", 2)
        if scheme.lower() not in SCHEMES or "://" in rest or len(names) != 2 or not (host and all(names)):
            return None
        return Place(*names)

    def is_own(self, url: str) -> bool:
        place = self.place(url)
        host = without_keys(url).partition("://")[2].rsplit("/", 2)[0]
        return place is not None and place.bucket == self._bucket and host.lower() == self._host.lower()

    def url(self, key: str) -> str:
        return f"{self._scheme}://{self._host}/{self._bucket}/{key}"

    async def find(self, place: Place) -> Found:
        answer = await self.call("head_object", place)
        return Found(int(answer["ContentLength"]), answer.get("ETag"))

    async def fetch(self, place: Place, found: Found, start: int, end: int) -> AsyncGenerator[bytes, None]:
        part: dict[str, Any] = {}
        if (start, end) != (0, found.size):
            # Without it where it says nothing: only a whole answer is held against its checksum by botocore.
            part["Range"] = f"bytes={start}-{end - 1}"
        asked = self.start(self.calls, "get_object", Bucket=place.bucket, Key=place.key, **part)
        answer = await _piece_of(asked)
        body = _Body(answer["Body"])
        try:
            if answer.get("ETag") != found.etag:
                raise Conflict(CHANGED)
            while block := await _piece_of(self.calls.submit(body.read)):
                yield block
        finally:
            body.close()

    async def ready(self) -> None:
        if self._bucket_seen:
            return
        try:
            await _end_of(self.start(self.calls, "head_bucket", Bucket=self._bucket))
        except NotFound as error:
            if not self._create:
                raise Unavailable(NO_BUCKET) from error
            # us-east-1 is where a bucket comes to be when nothing is said, and may not be named (CreateBucket).
            region = self._client.region
            where: dict[str, Any] = (
                {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            )
            with suppress(Duplicate):  # somebody was faster
                await _end_of(self.start(self.calls, "create_bucket", Bucket=self._bucket, **where))
        self._bucket_seen = True

    async def upload(self, key: str, blocks: AsyncIterator[bytes], size: int | None) -> int:
        upload = _Upload(self, Place(self._bucket, key))
        try:
            return await upload.run(blocks, size)
        except BaseException:
            # Also when the task is cancelled: this goes on, whatever becomes of the coroutine that waits for it.
            undoing = asyncio.ensure_future(upload.undo())
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            await asyncio.wait([undoing], timeout=UNDO_SECONDS)
            raise

    def buffers_whole(self, size: int) -> bool:
        """Whether an upload of so many bytes may come in one piece: then they are added to `buffered`.

        Without room for it the upload comes in parts, of which each needs less.
        """
        if size >= self.whole or (size > self.part and self.buffered + size > self.room.size):
            return False
        self.buffered += size
        return True

    async def remove(self, place: Place) -> None:
        await self.find(place)  # S3 itself is content to delete nothing
        try:
            await self.call("delete_object", place)
        except Denied as error:
            raise Forbidden("The store refuses to delete the image data.") from error

    async def forget(self, key: str) -> None:
        place = Place(self._bucket, key)
        with suppress(NotFound, NoBucket):
            for upload_id in await self._unfinished(key):
                with suppress(NotFound):
                    await self.call("abort_multipart_upload", place, UploadId=upload_id)
            await self.call("delete_object", place)

    async def _unfinished(self, key: str) -> list[str]:
        """The uploads of that key that were begun and not ended; none where nobody may ask."""
        found: list[str] = []
        after: dict[str, Any] = {}
        while True:
            listing = self.start(self.calls, "list_multipart_uploads", Bucket=self._bucket, Prefix=key, **after)
            try:
                page = await _end_of(listing)
            except (Denied, Unsupported):
                LOG.warning("the S3 server does not list unfinished uploads, what is left of %s stays", key)
                return found
            found += [upload["UploadId"] for upload in page.get("Uploads", ()) if upload["Key"] == key]
            if not page.get("IsTruncated"):
                return found
            after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    async def look(self) -> None:
        try:
            await _end_of(self.calls.submit(lambda: self._client.get(once=True).head_bucket(Bucket=self._bucket)))
        except NotFound as error:
            if not self._create:
                raise Unavailable(NO_BUCKET) from error

    async def sign(self, place: Place, seconds: int) -> str | None:
        parameters = {"Bucket": place.bucket, "Key": place.key}
        made = self.start(
            self.calls, "generate_presigned_url", ClientMethod="get_object", Params=parameters, ExpiresIn=seconds
        )
        return str(await _end_of(made))

    async def close(self) -> None:
        if self._undoing:
            await asyncio.wait(self._undoing, timeout=UNDO_SECONDS)
        self.calls.shutdown(wait=False)
        self.senders.shutdown(wait=False)
        self._client.close()


class _Upload:
    """The bytes of one image on their way. Whatever it began, `undo` ends."""

    def __init__(self, bucket: S3Bucket, place: Place) -> None:
        self._bucket = bucket
        self._place = place
        self._token = secrets.token_hex(16)
        self._begun: Future[Any] | None = None  # the request for an upload in parts
        self._parts: list[Future[Any]] = []
        self._last: Future[Any] | None = None  # the request that lets the object appear
        self._failed: BaseException | None = None

    async def run(self, blocks: AsyncIterator[bytes], size: int | None) -> int:
        """Send all of it; how many bytes."""
        if size is not None and self._bucket.buffers_whole(size):
            try:
                return await self._run(blocks, size, self._bucket.whole)
            finally:
                self._bucket.buffered -= size
        return await self._run(blocks, size, self._part_size(size, 0))

    async def _run(self, blocks: AsyncIterator[bytes], size: int | None, limit: int) -> int:
        """`limit` is the length of the first part; what is not longer is an object by itself."""
        buffer, sent = bytearray(), 0
        async for block in blocks:
            view = memoryview(block)
            while len(view) > (missing := limit - len(buffer)):
                buffer += view[:missing]
                view = view[missing:]
                await self._send(buffer)
                sent += len(buffer)
                buffer, limit = bytearray(), self._part_size(size, sent)
            buffer += view
        await (self._finish(buffer) if self._parts else self._send_whole(buffer))
        return sent + len(buffer)

    def _part_size(self, size: int | None, sent: int) -> int:
        """How long the next part is, so that `MAX_PARTS` are enough for whatever comes."""
        needed = -(-size // MAX_PARTS) if size is not None else -(-sent // GROWTH)
        return max(self._bucket.part, -(-needed // MIB) * MIB)

    async def _send(self, data: bytearray) -> None:
        """Begin to send a part, when there is room."""
        if self._begun is None:
            self._begun = self._start("create_multipart_upload", Metadata={TOKEN: self._token})
            await _end_of(self._begun)
        await self._bucket.room.take(len(data))
        if self._failed is not None:
            self._bucket.room.give(len(data))
            raise _translated(self._failed) from self._failed
        part = self._start(
            "upload_part", sender=True, UploadId=self._upload_id, PartNumber=len(self._parts) + 1, Body=_Sent(data)
        )
        self._parts.append(part)
        loop, length = asyncio.get_running_loop(), len(data)

        def ended(future: Future[Any]) -> None:
            if not future.cancelled() and self._failed is None:
                self._failed = future.exception()
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._bucket.room.give, length)

        part.add_done_callback(ended)

    @property
    def _upload_id(self) -> str:
        return "" if self._begun is None else str(self._begun.result()["UploadId"])

    def _start(self, operation: str, sender: bool = False, **parameters: Any) -> Future[Any]:
        threads = self._bucket.senders if sender else self._bucket.calls
        names = {"Bucket": self._place.bucket, "Key": self._place.key}
        return self._bucket.start(threads, operation, PATIENCE, **names, **parameters)

    async def _finish(self, rest: bytearray) -> None:
        if rest:
            await self._send(rest)
        tags = [(await _end_of(part))["ETag"] for part in self._parts]
        parts = [{"ETag": tag, "PartNumber": number} for number, tag in enumerate(tags, 1)]
        await self._publish("complete_multipart_upload", UploadId=self._upload_id, MultipartUpload={"Parts": parts})

    async def _send_whole(self, data: bytearray) -> None:
        await self._bucket.room.take(len(data))
        try:
            await self._publish("put_object", Body=_Sent(data), Metadata={TOKEN: self._token})
        finally:
            self._bucket.room.give(len(data))

    async def _publish(self, operation: str, **parameters: Any) -> None:
        """Let the object appear, unless there is one, as far as the server can tell (If-None-Match)."""
        condition = {"IfNoneMatch": "*"} if self._bucket.conditional else {}
        self._last = self._start(operation, sender=True, **parameters, **condition)
        try:
            await _end_of(self._last)
        except Unsupported:
            if not condition:
                raise
            self._bucket.conditional = False
            await self._publish(operation, **parameters)
        except (Duplicate, NotFound):
            # Perhaps it was this very request, whose answer got lost before it was repeated.
            if not await self._is_there():
                raise

    async def _is_there(self) -> bool:
        """Whether the object is there, and from this upload."""
        try:
            answer = await self._bucket.call("head_object", self._place)
        except NotFound:
            return False
        return bool(answer.get("Metadata", {}).get(TOKEN) == self._token)

    async def undo(self) -> None:
        """Leave nothing. What a thread has begun cannot be stopped: it is waited for first."""
        requests = [request for request in (self._begun, *self._parts, self._last) if request is not None]
        running = [asyncio.wrap_future(request) for request in requests if not request.cancel()]
        await asyncio.gather(*running, return_exceptions=True)
        try:
            if self._begun is not None and not self._begun.cancelled() and self._begun.exception() is None:
                with suppress(NotFound):
                    await self._bucket.call("abort_multipart_upload", self._place, UploadId=self._upload_id)
            if self._last is not None and await self._is_there():
                await self._bucket.call("delete_object", self._place)
        except GlimpseError as error:
            # The image's id is what `discard` needs.
            LOG.warning("parts of %s may be left in the store: %s", self._place.key, error)


class _Sent:
    """A buffer as a file, which goes to the server in small pieces.

    Whole it had to be sent within the time limit of a single operation of its socket, so over a slow line never.
    """

    def __init__(self, data: bytearray) -> None:
        self._data = memoryview(data)
        self._at = 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int | None = None) -> bytes:
        """Of a file. `PIECE` bytes where fewer are asked for: what sends them takes whatever comes."""
        end = len(self._data) if size is None or size < 0 else self._at + max(size, PIECE)
        piece = bytes(self._data[self._at : end])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        """Of a file."""
        self._at = max(0, offset + (0, self._at, len(self._data))[whence])
        return self._at

    def tell(self) -> int:
        """Of a file."""
        return self._at


class _Body:
    """The bytes of an answer. A thread may still read when nobody waits for it any more: then that one closes it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lock = Lock()
        self._closed = False

    def read(self) -> bytes:
        with self._lock:
            try:
                return bytes(self._stream.read(BLOCK))
            finally:
                if self._closed:
                    self._stream.close()

    def close(self) -> None:
        self._closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._stream.close()
            finally:
                self._lock.release()


class _Room:
    """Bytes that may be under way at the same time; a single part may be longer."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._used = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, count: int) -> None:
        """Wait for room. Whoever got it gives it back."""
        while self._used and self._used + count > self.size:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._used += count

    def give(self, count: int) -> None:
        self._used -= count
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)


class Denied(Unavailable):
    """The server knows who asks, and does not allow it; or does not believe it."""


class NoBucket(Unavailable):
    """There is no such bucket."""


class Unsupported(Unavailable):
    """The server does not know the operation, or a header of it."""


async def _end_of(future: Future[Any]) -> Any:
    """What a thread found. Raises what `_translated` makes of its failure."""
    try:
        return await asyncio.wrap_future(future)
    except Exception as error:
        raise _translated(error) from error


async def _piece_of(future: Future[Any]) -> Any:
    """As `_end_of`, for reads: what may pass is `Interrupted`."""
    try:
        return await asyncio.wrap_future(future)
    except Exception as error:
        if _may_pass(error):
            raise Interrupted(_summary(error)) from error
        raise _translated(error) from error


def _answer(error: Exception) -> tuple[str, int]:
    """The code and the HTTP status that the server gave, ("", 0) where it gave none."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _summary(error: Exception) -> str:
    """For the log: neither URLs nor headers."""
    code, status = _answer(error)
    return f"{type(error).__name__} {code} {status or ''}".strip()


def _may_pass(error: Exception) -> bool:
    """Whether it may be well later: the server failed, has too much to do, or was not reached at all."""
    status = _answer(error)[1]
    return status in (429, 500, 502, 503, 504) or (not status and _is_outage(error))


def _is_outage(error: BaseException) -> bool:
    from botocore.exceptions import BotoCoreError, FlexibleChecksumError, SSLError
    from urllib3.exceptions import HTTPError

    return isinstance(error, (BotoCoreError, HTTPError, OSError)) and not isinstance(
        error, (FlexibleChecksumError, SSLError)
    )


def _translated(error: BaseException) -> BaseException:
    """What clients get for a failure; what is no failure of the server or on the way to it stays what it is."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    if not isinstance(error, ClientError):
        if not isinstance(error, (BotoCoreError, HTTPError, OSError)):
            return error
        LOG.warning("an S3 server does not answer: %s", type(error).__name__)
        return Unavailable(NO_ANSWER)
    code, status = _answer(error)
    if code in _NO_BUCKET:
        return NoBucket(NO_BUCKET)
    if status == 404:
        return NotFound(NOT_HERE)
    if status in (409, 412) and code in _TAKEN:
        return Duplicate(HELD)
    LOG.warning("an S3 server refuses %s: %s", error.operation_name, _summary(error))
    if code in _FULL or status in (413, 507):
        return StoreFull(FULL)
    if status == 501:
        return Unsupported(NO_ANSWER)
    return Denied(REFUSED) if status in (401, 403) else Unavailable(NO_ANSWER)


def _region_in(endpoint: str) -> str | None:
    """The region that a host of Amazon names, as in s3.eu-west-1.amazonaws.com and s3-eu-west-1.amazonaws.com."""
    found = re.search(r"//s3[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com", endpoint)
    return found[1] if found else None
