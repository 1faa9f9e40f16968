"""Images on their way into S3: small ones whole, others in parts, several of which are sent at the same time."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from glimpse.errors import Duplicate, GlimpseError, NotFound
from glimpse.stores.objects import MIB, Place, Undoing
from glimpse.stores.s3_client import Client, Sent, Unsupported, end_of, translated

LOG = logging.getLogger(__name__)

MAX_PARTS = 10_000  # Amazon S3 User Guide, "Multipart upload limits"
GROWTH = 1_500  # without a size, a part is at least this fraction of what came before: 10,000 of them hold over 4 TiB
PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between tries of a request, as bytes come only once
TOKEN = "glimpse-upload"  # noqa: S105  the name of metadata that tells whose upload made an object


class Uploads:
    """Any number at once. `part` and `whole` are bytes: of a part, and from which an image comes in parts."""

    def __init__(self, client: Client, options: Mapping[str, Any]) -> None:
        parallel: int = options["s3_store_thread_pools"]
        self.client = client
        self.part: int = options["s3_store_large_object_chunk_size"] * MIB
        self.whole = min(options["s3_store_large_object_size"] * MIB, parallel * self.part)
        self.room = _Room(parallel * self.part)
        self.buffered = 0  # bytes for which uploads of whole objects have kept memory, as long as their clients take
        self.conditional = True  # whether the server knows If-None-Match on writes; it tells at the first one
        self._undoing = Undoing()

    async def run(self, place: Place, blocks: AsyncIterator[bytes], size: int | None) -> int:
        """Keep all of it, or nothing; how many bytes. Raises as `Store.put`."""
        upload = _Upload(self, place)
        try:
            return await upload.run(blocks, size)
        except BaseException:
            await self._undoing.run(upload.undo())
            raise

    def buffers_whole(self, size: int) -> bool:
        """Whether an upload of so many bytes may come in one piece: then they are added to `buffered`.

        Without room for it the upload comes in parts, of which each needs less.
        """
        if size >= self.whole or (size > self.part and self.buffered + size > self.room.size):
            return False
        self.buffered += size
        return True

    async def close(self) -> None:
        """Wait for what is being undone."""
        await self._undoing.close()


class _Upload:
    """The bytes of one image on their way. Whatever it began, `undo` ends."""

    def __init__(self, uploads: Uploads, place: Place) -> None:
        self._uploads = uploads
        self._place = place
        self._token = secrets.token_hex(16)
        self._begun: Future[Any] | None = None  # the request for an upload in parts
        self._parts: list[Future[Any]] = []
        self._last: Future[Any] | None = None  # the request that lets the object appear
        self._failed: BaseException | None = None

    async def run(self, blocks: AsyncIterator[bytes], size: int | None) -> int:
        """Send all of it; how many bytes."""
        if size is not None and self._uploads.buffers_whole(size):
            try:
                return await self._run(blocks, size, self._uploads.whole)
            finally:
                self._uploads.buffered -= size
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
        return max(self._uploads.part, -(-needed // MIB) * MIB)

    async def _send(self, data: bytearray) -> None:
        """Begin to send a part, when there is room."""
        if self._begun is None:
            self._begun = self._start("create_multipart_upload", Metadata={TOKEN: self._token})
            await end_of(self._begun)
        await self._uploads.room.take(len(data))
        if self._failed is not None:
            self._uploads.room.give(len(data))
            raise translated(self._failed) from self._failed
        part = self._start(
            "upload_part", sender=True, UploadId=self._upload_id, PartNumber=len(self._parts) + 1, Body=Sent(data)
        )
        self._parts.append(part)
        loop, length = asyncio.get_running_loop(), len(data)

        def ended(future: Future[Any]) -> None:
            if not future.cancelled() and self._failed is None:
                self._failed = future.exception()
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._uploads.room.give, length)

        part.add_done_callback(ended)

    @property
    def _upload_id(self) -> str:
        return "" if self._begun is None else str(self._begun.result()["UploadId"])

    def _start(self, operation: str, sender: bool = False, **parameters: Any) -> Future[Any]:
        threads = self._uploads.client.senders if sender else self._uploads.client.calls
        names = {"Bucket": self._place.bucket, "Key": self._place.key}
        return self._uploads.client.start(threads, operation, PATIENCE, **names, **parameters)

    async def _finish(self, rest: bytearray) -> None:
        if rest:
            await self._send(rest)
        tags = [(await end_of(part))["ETag"] for part in self._parts]
        parts = [{"ETag": tag, "PartNumber": number} for number, tag in enumerate(tags, 1)]
        await self._publish("complete_multipart_upload", UploadId=self._upload_id, MultipartUpload={"Parts": parts})

    async def _send_whole(self, data: bytearray) -> None:
        await self._uploads.room.take(len(data))
        try:
            await self._publish("put_object", Body=Sent(data), Metadata={TOKEN: self._token})
        finally:
            self._uploads.room.give(len(data))

    async def _publish(self, operation: str, **parameters: Any) -> None:
        """Let the object appear, unless there is one, as far as the server can tell (If-None-Match)."""
        condition = {"IfNoneMatch": "*"} if self._uploads.conditional else {}
        self._last = self._start(operation, sender=True, **parameters, **condition)
        try:
            await end_of(self._last)
        except Unsupported:
            if not condition:
                raise
            self._uploads.conditional = False
            await self._publish(operation, **parameters)
        except (Duplicate, NotFound):
            # Perhaps it was this very request, whose answer got lost before it was repeated.
            if not await self._is_there():
                raise

    async def _is_there(self) -> bool:
        """Whether the object is there, and from this upload."""
        try:
            answer = await self._uploads.client.call("head_object", self._place)
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
                    await self._uploads.client.call("abort_multipart_upload", self._place, UploadId=self._upload_id)
            if self._last is not None and await self._is_there():
                await self._uploads.client.call("delete_object", self._place)
        except GlimpseError as error:
            # The image's id is what `discard` needs.
            LOG.warning("parts of %s may be left in the store: %s", self._place.key, error)


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
