"""Store `s3`: images as objects in a bucket of Amazon S3, or of what speaks its language (Ceph, Swift, MinIO …).

    s3://<host>/<bucket>/<image id>           by HTTP
    s3+https://<host>/<bucket>/<image id>     by HTTPS

Older versions of Glance wrote keys before the host, `s3://<access>:<secret>@<host>/…`. Such a URL is read, the keys in
it are not used: as in Glance today, host and keys are those of the configuration, so nobody who can give an image a
location can send the service elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from oslo_config import cfg

from glimpse.domain.record import without_keys
from glimpse.errors import Conflict, Duplicate, Forbidden, NotFound, Unavailable
from glimpse.stores.driver import BLOCK, Facts
from glimpse.stores.objects import CHANGED, NO_BUCKET, Denied, Found, ObjectStore, Place
from glimpse.stores.s3_client import Client, NoBucket, Unsupported, end_of, piece_of
from glimpse.stores.s3_uploads import Uploads

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


class S3Store(ObjectStore):
    """A `driver.Store` on one bucket."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """`where` names the section for `SettingsError` and `Unconfigured`. Connects to nothing."""
        details = ("s3_store_large_object_size", "s3_store_large_object_chunk_size", "s3_store_thread_pools")
        super().__init__(
            Facts("s3", SCHEMES, writable=True, ranges=True),
            S3Bucket(Client(options, where), options),
            {name: options[name] for name in details},
        )


class S3Bucket:
    """An `objects.Bucket`."""

    def __init__(self, client: Client, options: Mapping[str, Any]) -> None:
        self._client = client
        self._bucket: str = options["s3_store_bucket"]
        self._create: bool = options["s3_store_create_bucket_on_put"]
        scheme, _, self._host = client.endpoint.partition("://")
        self._scheme = "s3+https" if scheme == "https" else "s3"
        self._uploads = Uploads(client, options)
        self._bucket_seen = False

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
        answer = await self._client.call("head_object", place)
        return Found(int(answer["ContentLength"]), answer.get("ETag"))

    async def fetch(self, place: Place, found: Found, start: int, end: int) -> AsyncGenerator[bytes, None]:
        part: dict[str, Any] = {}
        if (start, end) != (0, found.size):
            # Without it where it says nothing: only a whole answer is held against its checksum by botocore.
            part["Range"] = f"bytes={start}-{end - 1}"
        asked = self._client.start(self._client.calls, "get_object", Bucket=place.bucket, Key=place.key, **part)
        answer = await piece_of(asked)
        body = _Body(answer["Body"])
        try:
            if answer.get("ETag") != found.etag:
                raise Conflict(CHANGED)
            while block := await piece_of(self._client.calls.submit(body.read)):
                yield block
        finally:
            body.close()

    async def ready(self) -> None:
        if self._bucket_seen:
            return
        try:
            await end_of(self._client.start(self._client.calls, "head_bucket", Bucket=self._bucket))
        except NotFound as error:
            if not self._create:
                raise Unavailable(NO_BUCKET) from error
            # us-east-1 is where a bucket comes to be when nothing is said, and may not be named (CreateBucket).
            region = self._client.region
            where: dict[str, Any] = (
                {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
            )
            with suppress(Duplicate):  # somebody was faster
                await end_of(self._client.start(self._client.calls, "create_bucket", Bucket=self._bucket, **where))
        self._bucket_seen = True

    async def upload(self, key: str, blocks: AsyncIterator[bytes], size: int | None) -> int:
        return await self._uploads.run(Place(self._bucket, key), blocks, size)

    async def remove(self, place: Place) -> None:
        await self.find(place)  # S3 itself is content to delete nothing
        try:
            await self._client.call("delete_object", place)
        except Denied as error:
            raise Forbidden("The store refuses to delete the image data.") from error

    async def forget(self, key: str) -> None:
        place = Place(self._bucket, key)
        with suppress(NotFound, NoBucket):
            for upload_id in await self._unfinished(key):
                with suppress(NotFound):
                    await self._client.call("abort_multipart_upload", place, UploadId=upload_id)
            await self._client.call("delete_object", place)

    async def _unfinished(self, key: str) -> list[str]:
        """The uploads of that key that were begun and not ended; none where nobody may ask."""
        found: list[str] = []
        after: dict[str, Any] = {}
        while True:
            listing = self._client.start(
                self._client.calls, "list_multipart_uploads", Bucket=self._bucket, Prefix=key, **after
            )
            try:
                page = await end_of(listing)
            except (Denied, Unsupported):
                LOG.warning("the S3 server does not list unfinished uploads, what is left of %s stays", key)
                return found
            found += [upload["UploadId"] for upload in page.get("Uploads", ()) if upload["Key"] == key]
            if not page.get("IsTruncated"):
                return found
            after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    async def look(self) -> None:
        try:
            await end_of(
                self._client.calls.submit(lambda: self._client.get(once=True).head_bucket(Bucket=self._bucket))
            )
        except NotFound as error:
            if not self._create:
                raise Unavailable(NO_BUCKET) from error

    async def sign(self, place: Place, seconds: int) -> str | None:
        parameters = {"Bucket": place.bucket, "Key": place.key}
        made = self._client.start(
            self._client.calls,
            "generate_presigned_url",
            ClientMethod="get_object",
            Params=parameters,
            ExpiresIn=seconds,
        )
        return str(await end_of(made))

    async def close(self) -> None:
        await self._uploads.close()
        self._client.close()


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
