"""The S3 store on servers that fail, are slow, or refuse it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import requests
from botocore.exceptions import EndpointConnectionError, SSLError

from glimpse.errors import Duplicate, Forbidden, GlimpseError, NotFound, StoreFull, Unavailable
from glimpse.stores import objects, s3_client, s3_uploads
from glimpse.stores.conformance import blocks, read
from glimpse.stores.driver import BLOCK
from glimpse.stores.s3 import S3Store
from tests.rig.gate import Gate
from tests.rig.swift import KEY, USER, Swift
from tests.stores.in_parts import LARGE
from tests.stores.s3_server import Server, check_quiet, imitation, real, refusal

__all__ = ["imitation", "real"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_uploads, "PATIENCE", (0.1, 0.2))
    monkeypatch.setattr(s3_client, "READ_SECONDS", 1)
    monkeypatch.setattr(objects, "PAUSES", (0.1, 0.3, 0.5))
    monkeypatch.setattr(objects, "CHECK_SECONDS", 1.0)


def behind(server: Server, gate: Gate, **options: Any) -> S3Store:
    return server.store(s3_store_host=f"http://127.0.0.1:{gate.port}", **options)


async def test_an_upload_goes_on_when_the_server_is_back(real: Server, swift: Swift) -> None:
    """The server itself is killed in the middle, and started again."""
    store = real.store()

    async def with_accident() -> AsyncIterator[bytes]:
        number = 0
        async for block in blocks(LARGE):
            number += 1
            if number == 7:
                swift.stop()
                swift.start()  # the parts under way are in threads, and find nobody meanwhile
            yield block

    stored = await store.put("key", with_accident(), len(LARGE))
    assert await read(store, stored.url) == LARGE
    assert real.uploads() == []
    await store.close()


@pytest.mark.parametrize("length", [len(LARGE), 3 * BLOCK], ids=["in parts", "whole"])
async def test_an_upload_to_a_server_that_is_gone(real: Server, impatient: None, length: int) -> None:
    content = LARGE[:length]
    async with Gate(int(real.url.rpartition(":")[2])) as gate:
        store = behind(real, gate)

        async def until_it_is_gone() -> AsyncIterator[bytes]:
            async for block in blocks(content):
                yield block
                if gate.passed > length // 2:
                    gate.shut()
            gate.shut()

        with pytest.raises(Unavailable) as caught:
            await store.put("key", until_it_is_gone(), length)
        check_quiet(caught.value, real)
        assert real.keys() == []
        await gate.open()
        await store.discard("key")
        assert real.uploads() == []
        stored = await store.put("key", blocks(content), length)
        assert await read(store, stored.url) == content
        await store.close()


async def test_a_read_goes_on_where_it_broke_off(real: Server, impatient: None) -> None:
    real.client.put_object(Bucket=real.bucket, Key="key", Body=LARGE)
    async with Gate(int(real.url.rpartition(":")[2])) as gate:
        store = behind(real, gate)
        reader = await store.open(real.location("key"))
        gate.shut_at = 6 * BLOCK
        reopening = asyncio.create_task(gate.open_again())
        assert b"".join([block async for block in reader.stream(17, None)]) == LARGE[17:]
        await reopening
        await store.close()


async def test_a_read_from_a_server_that_is_gone(real: Server, impatient: None) -> None:
    real.client.put_object(Bucket=real.bucket, Key="key", Body=LARGE)
    async with Gate(int(real.url.rpartition(":")[2])) as gate:
        store = behind(real, gate)
        reader = await store.open(real.location("key"))
        gate.shut_at = 6 * BLOCK
        with pytest.raises(Unavailable) as caught:
            async for _ in reader.stream(0, None):
                pass
        check_quiet(caught.value, real)
        with pytest.raises(Unavailable):
            await store.open(real.location("key"))
        await gate.open()
        assert await read(store, real.location("key")) == LARGE
        await store.close()


async def test_what_was_replaced_meanwhile_is_not_mixed(real: Server, impatient: None) -> None:
    real.client.put_object(Bucket=real.bucket, Key="key", Body=LARGE)
    store = real.store()
    reader = await store.open(real.location("key"))
    real.client.put_object(Bucket=real.bucket, Key="key", Body=LARGE[::-1])
    with pytest.raises(GlimpseError, match="not what it was"):
        async for _ in reader.stream(0, None):
            pass
    await store.close()


async def test_a_server_that_says_nothing(real: Server, impatient: None) -> None:
    async with Gate(int(real.url.rpartition(":")[2])) as gate:
        gate.deaf = True
        store = behind(real, gate)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await store.check()
        assert time.monotonic() - started < 3
        with pytest.raises(Unavailable):
            await store.stat(real.location("key"))
        gate.shut()
        await gate.open()
        gate.deaf = False
        await store.check()
        await store.close()


async def test_what_waits_for_the_server_is_bounded(real: Server, impatient: None) -> None:
    """Two parts of 5 MiB are on their way, a third one is filled, and no more is taken from the client."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            if taken == 6:
                gate.deaf = True
            yield LARGE[:BLOCK]

    async with Gate(int(real.url.rpartition(":")[2])) as gate:
        store = behind(real, gate)
        task = asyncio.ensure_future(store.put("key", endless(), 1000 * BLOCK))
        await asyncio.sleep(0.7)
        assert 6 <= taken <= 3 * 5 + 2
        gate.shut()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gate.open()
        gate.deaf = False
        await store.discard("key")
        assert real.uploads() == []
        await store.close()


async def test_a_slow_server_is_waited_for(real: Server, impatient: None) -> None:
    content = LARGE[: 2 * BLOCK]
    async with Gate(int(real.url.rpartition(":")[2])) as gate:
        gate.pause = 0.03
        store = behind(real, gate)
        stored = await store.put("key", blocks(content), len(content))
        assert await read(store, stored.url.replace(str(gate.port), "1")) == content
        await store.close()


@pytest.mark.parametrize("wrong", ["s3_store_secret_key", "s3_store_access_key"])
async def test_wrong_keys(real: Server, wrong: str) -> None:
    real.client.put_object(Bucket=real.bucket, Key="key", Body=b"x")
    store = real.store(**{wrong: "not-the-right-one"})
    for call in (
        store.check(),
        store.open(real.location("key")),
        store.put("new", blocks(b"x"), 1),
        store.discard("key"),
    ):
        with pytest.raises(Unavailable) as caught:
            await call
        check_quiet(caught.value, real)
    with pytest.raises((Unavailable, Forbidden)):
        await store.delete(real.location("key"))
    assert real.keys() == ["key"]
    await store.close()


async def test_a_full_bucket(real: Server, swift: Swift) -> None:
    token = requests.get(
        f"{swift.url}/auth/v1.0", headers={"X-Storage-User": USER, "X-Storage-Pass": KEY}, timeout=10
    ).headers
    requests.post(
        f"{token['X-Storage-Url']}/{real.bucket}", timeout=10,
        headers={"X-Auth-Token": token["X-Auth-Token"], "X-Container-Meta-Quota-Bytes": str(BLOCK)},
    ).raise_for_status()  # fmt: skip
    store = real.store()
    with pytest.raises(StoreFull):
        await store.put("key", blocks(LARGE[: 2 * BLOCK]), 2 * BLOCK)
    assert real.keys() == []
    await store.close()


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (refusal("NoSuchBucket", 404), Unavailable),
        (refusal("NoSuchKey", 404), NotFound),
        (refusal("QuotaExceeded", 403), StoreFull),
        (refusal("XMinioStorageFull", 507), StoreFull),
        (refusal("EntityTooLarge", 400), StoreFull),
        (refusal("PreconditionFailed", 412), Duplicate),
        (refusal("ConditionalRequestConflict", 409), Duplicate),
        (refusal("AccessDenied", 403), Unavailable),
        (refusal("InvalidAccessKeyId", 403), Unavailable),
        (refusal("SlowDown", 503), Unavailable),
        (refusal("", 429), Unavailable),
        (EndpointConnectionError(endpoint_url="http://host/bucket/key"), Unavailable),
        (ConnectionResetError("reset"), Unavailable),
        (KeyError("a mistake of ours"), KeyError),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_failures_have_a_status(failure: Exception, expected: type[Exception]) -> None:
    translated = s3_client.translated(failure)
    assert type(translated) is expected or isinstance(translated, expected)
    assert "host" not in str(translated)


@pytest.mark.parametrize(
    ("failure", "passes"),
    [
        (refusal("InternalError", 500), True),
        (refusal("SlowDown", 503), True),
        (refusal("TooManyRequests", 429), True),
        (refusal("NotImplemented", 501), False),
        (refusal("XMinioStorageFull", 507), False),
        (refusal("AccessDenied", 403), False),
        (EndpointConnectionError(endpoint_url="http://host"), True),
        (SSLError(endpoint_url="https://host", error="unknown authority"), False),
    ],
    ids=str,
)
def test_only_what_may_pass_is_tried_again(failure: Exception, passes: bool) -> None:
    assert s3_client.may_pass(failure) is passes


async def test_over_a_slow_line(real: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of any length may take its time, as long as it goes on."""
    monkeypatch.setattr(s3_client, "CONNECT_SECONDS", 0.5)
    image_id = str(uuid.uuid4())
    async with Gate(int(real.url.rpartition(":")[2])) as gate:
        gate.pause = 0.02
        gate.keep_little()
        store = real.store(s3_store_host=f"http://127.0.0.1:{gate.port}", s3_store_large_object_size=100)
        content = bytes(8 * BLOCK)
        assert (await store.put(image_id, blocks(content), len(content))).size == len(content)
        await store.close()
    assert real.client.head_object(Bucket=real.bucket, Key=image_id)["ContentLength"] == len(content)


async def test_slow_clients_do_not_fill_the_memory(real: Server) -> None:
    """Where uploads that wait for their clients keep much already, the next comes in parts."""
    store = real.store(s3_store_large_object_size=100)  # two times 5 MiB are meant for it
    begun, enough = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        yield bytes(BLOCK)
        await enough.wait()
        yield bytes(7 * BLOCK)

    first = asyncio.create_task(store.put(str(uuid.uuid4()), slow(), 8 * BLOCK))
    await begun.wait()
    ids = [str(uuid.uuid4()) for _ in range(2)]
    await store.put(ids[0], blocks(bytes(8 * BLOCK)), 8 * BLOCK)
    enough.set()
    await first
    await store.put(ids[1], blocks(bytes(8 * BLOCK)), 8 * BLOCK)
    tags = [real.client.head_object(Bucket=real.bucket, Key=each)["ETag"] for each in ids]
    assert ["-" in tag for tag in tags] == [True, False]
    await store.close()
