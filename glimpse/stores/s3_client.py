"""How an S3 server is asked: by botocore in threads, and what its failures mean.

The library is loaded at the first request: that costs a fifth of a second and 40 MB.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

from glimpse.errors import Duplicate, NotFound, SettingsError, StoreFull, Unavailable, Unconfigured
from glimpse.stores.certificates import trusting
from glimpse.stores.objects import (
    FULL,
    HELD,
    NO_ANSWER,
    NO_BUCKET,
    NOT_HERE,
    REFUSED,
    Denied,
    Interrupted,
    Place,
)

LOG = logging.getLogger(__name__)

CONNECT_SECONDS, READ_SECONDS = 5, 60
TRIES = 3  # by botocore, within a second
PIECE = 1 << 16  # bytes that have `CONNECT_SECONDS` to go out, at least
CALLS = 32  # threads for all but the sending of parts

# Codes in the errors of S3 and of those that speak its language; each status stands for several.
_NO_BUCKET = {"NoSuchBucket"}
_FULL = {"EntityTooLarge", "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "BucketAlreadyOwnedByYou"}


class Client:
    """One bucket's server, asked by botocore in threads: their number bounds what can be done at once."""

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
        if self._cacert is not None:
            trusting(self._cacert, "s3_store_cacert", where)
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
        self.calls = ThreadPoolExecutor(CALLS, "s3-store")
        self.senders = ThreadPoolExecutor(options["s3_store_thread_pools"], "s3-store-part")

    def get(self, once: bool = False) -> Any:
        """Botocore's client, made at the first call; with `once` it neither waits long nor tries again. For threads."""
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
                if not may_pass(error) or time.monotonic() > end:
                    raise
                LOG.info("an S3 server fails, %s is repeated in %g s: %s", operation, pause, summary(error))
            time.sleep(pause)
        return self._ask(operation, parameters)

    def _ask(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        if isinstance(body := parameters.get("Body"), Sent):
            body.seek(0)  # it may have been sent before
        return getattr(self.get(), operation)(**parameters)

    async def call(self, operation: str, place: Place, **parameters: Any) -> Any:
        """An operation on one object. Raises what `translated` makes of its failure."""
        return await end_of(self.start(self.calls, operation, Bucket=place.bucket, Key=place.key, **parameters))

    def close(self) -> None:
        """Let go of connections and threads."""
        self.calls.shutdown(wait=False)
        self.senders.shutdown(wait=False)
        with self._lock:
            for made in self._made.values():
                made.close()
            self._made.clear()


class Sent:
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


class NoBucket(Unavailable):
    """There is no such bucket."""


class Unsupported(Unavailable):
    """The server does not know the operation, or a header of it."""


async def end_of(future: Future[Any]) -> Any:
    """What a thread found. Raises what `translated` makes of its failure."""
    try:
        return await asyncio.wrap_future(future)
    except Exception as error:
        raise translated(error) from error


async def piece_of(future: Future[Any]) -> Any:
    """As `end_of`, for reads: what may pass is `Interrupted`."""
    try:
        return await asyncio.wrap_future(future)
    except Exception as error:
        if may_pass(error):
            raise Interrupted(summary(error)) from error
        raise translated(error) from error


def _answer(error: Exception) -> tuple[str, int]:
    """The code and the HTTP status that the server gave, ("", 0) where it gave none."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def summary(error: Exception) -> str:
    """For the log: neither URLs nor headers."""
    code, status = _answer(error)
    return f"{type(error).__name__} {code} {status or ''}".strip()


def may_pass(error: Exception) -> bool:
    """Whether it may be well later: the server failed, has too much to do, or was not reached at all."""
    status = _answer(error)[1]
    return status in (429, 500, 502, 503, 504) or (not status and _is_outage(error))


def _is_outage(error: BaseException) -> bool:
    from botocore.exceptions import BotoCoreError, FlexibleChecksumError, SSLError
    from urllib3.exceptions import HTTPError

    return isinstance(error, (BotoCoreError, HTTPError, OSError)) and not isinstance(
        error, (FlexibleChecksumError, SSLError)
    )


def translated(error: BaseException) -> BaseException:
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
    LOG.warning("an S3 server refuses %s: %s", error.operation_name, summary(error))
    if code in _FULL or status in (413, 507):
        return StoreFull(FULL)
    if status == 501:
        return Unsupported(NO_ANSWER)
    return Denied(REFUSED) if status in (401, 403) else Unavailable(NO_ANSWER)


def _region_in(endpoint: str) -> str | None:
    """The region that a host of Amazon names, as in s3.eu-west-1.amazonaws.com and s3-eu-west-1.amazonaws.com."""
    found = re.search(r"//s3[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com", endpoint)
    return found[1] if found else None
