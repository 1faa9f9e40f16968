"""The S3 store on Swift's S3 interface, and on moto for what that has not."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import botocore.config
import botocore.session
import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError, SSLError

from glimpse.errors import (
    Duplicate,
    Forbidden,
    GlimpseError,
    NotFound,
    SettingsError,
    StoreFull,
    Unavailable,
    Unconfigured,
)
from glimpse.stores import objects, s3_client, s3_uploads
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK, LinkingStore
from glimpse.stores.s3 import OPTIONS, S3Store
from tests.rig.gate import Gate
from tests.rig.moto import Moto
from tests.rig.swift import KEY, USER, Swift
from tests.stores.in_parts import LARGE, InParts, all_logged

__all__ = ["all_logged"]

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


class Server:
    """An S3 server as a second client sees it, with a bucket of its own for each test."""

    def __init__(self, url: str, access: str, secret: str) -> None:
        self.url = url
        self.options = {
            "s3_store_host": url,
            "s3_store_access_key": access,
            "s3_store_secret_key": secret,
            # No dash: obstore writes it as %2D, which moto does not read.
            "s3_store_bucket": f"images{uuid.uuid4().hex[:12]}",
            "s3_store_bucket_url_format": "path",
            "s3_store_large_object_chunk_size": 5,
            "s3_store_large_object_size": 5,
            "s3_store_thread_pools": 2,
        }
        config = botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        self.client = botocore.session.Session().create_client(
            "s3", endpoint_url=url, aws_access_key_id=access, aws_secret_access_key=secret, region_name="us-east-1",
            config=config,
        )  # fmt: skip

    @property
    def bucket(self) -> str:
        return str(self.options["s3_store_bucket"])

    def make_bucket(self) -> None:
        self.client.create_bucket(Bucket=self.bucket)

    def store(self, **options: Any) -> S3Store:
        return S3Store({**DEFAULTS, **self.options, **options}, "[test]")

    def uploads(self) -> list[dict[str, Any]]:
        return list(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def keys(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def harness(self, store: S3Store) -> Harness:
        async def place(content: bytes) -> str:
            key = str(uuid.uuid4())
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content)
            return self.location(key)

        return Harness(store, place, self.location("missing"), lambda: len(self.uploads()) + len(self.keys()))

    def location(self, key: str) -> str:
        return f"s3://{self.url.partition('://')[2]}/{self.bucket}/{key}"


@pytest.fixture
def imitation(moto: Moto) -> Server:
    server = Server(moto.url, "moto-access", "moto/secret")
    server.make_bucket()
    return server


@pytest.fixture
def real(swift: Swift) -> Server:
    server = Server(swift.url, USER, KEY)
    server.make_bucket()
    return server


def one_store(server: Server, **options: Any) -> Iterator[Harness]:
    """For all tests of the suite: making a client takes longer than most of them."""
    server.make_bucket()
    store = server.store(**options)
    yield server.harness(store)
    asyncio.run(store.close())


@pytest.fixture(scope="module")
def on_swift(swift: Swift) -> Iterator[Harness]:
    yield from one_store(Server(swift.url, USER, KEY))


@pytest.fixture(scope="module")
def on_moto(moto: Moto) -> Iterator[Harness]:
    checked = {"s3_store_enable_data_integrity_protection": True, **CHECKED}
    yield from one_store(Server(moto.url, "moto-access", "moto/secret"), **checked)


class TestOnSwift(ReadableStore, WritableStore, InParts):
    @pytest.fixture
    def harness(self, on_swift: Harness) -> Harness:
        return on_swift


class TestOnMoto(ReadableStore, WritableStore, InParts):
    @pytest.fixture
    def harness(self, on_moto: Harness) -> Harness:
        return on_moto


CHECKED = {
    "s3_store_request_checksum_calculation": "when_supported",
    "s3_store_response_checksum_validation": "when_supported",
}


# Locations.


def test_locations_are_those_of_glance() -> None:
    for host, begin in (
        ("https://s3.example.org", "s3+https://s3.example.org/images/"),
        ("http://s3.example.org:8080/", "s3://s3.example.org:8080/images/"),
        ("s3.example.org", "s3://s3.example.org/images/"),
    ):
        assert made(s3_store_host=host)._bucket.url("id") == begin + "id"


async def test_old_locations_with_keys_are_read_without_them(imitation: Server) -> None:
    imitation.client.put_object(Bucket=imitation.bucket, Key="key", Body=b"old")
    store = imitation.store()
    for scheme in ("s3", "s3+http", "s3+https", "S3"):
        for keys in ("", "access:secret@", "access:se/cr/et+=@", "access%3A:se%2Fcret@"):
            url = imitation.location("key").replace("s3://", f"{scheme}://{keys}")
            assert store.owns(url)
            assert await read(store, url) == b"old"
    await store.close()


@pytest.mark.parametrize(
    "url",
    ["s3://host/bucket", "s3://bucket", "s3:///b/k", "s3://h//k", "s3://h/b/", "s3://https://h/b/k", "gs://b/k", "s3"],
)
async def test_what_is_no_location_is_not_found(url: str) -> None:
    store = made()
    assert not store.owns(url)
    with pytest.raises(NotFound):
        await store.open(url)


async def test_another_bucket_is_read_and_not_owned(imitation: Server) -> None:
    url = imitation.location("key")
    imitation.client.put_object(Bucket=imitation.bucket, Key="key", Body=b"there")
    store = imitation.store(s3_store_bucket="elsewhere")
    assert not store.owns(url)
    assert await read(store, url) == b"there"
    await store.close()


async def test_no_location_leads_to_another_server(imitation: Server) -> None:
    async with Gate(int(imitation.url.rpartition(":")[2])) as gate:
        store = imitation.store()
        with pytest.raises(NotFound):
            await store.open(f"s3://access:secret@127.0.0.1:{gate.port}/{imitation.bucket}/missing")
        assert gate.passed == 0
        await store.close()


# Options.


def made(**options: Any) -> S3Store:
    return S3Store(
        {
            **DEFAULTS,
            "s3_store_host": "https://s3.example.org",
            "s3_store_access_key": "access",
            "s3_store_secret_key": "secret",
            "s3_store_bucket": "images",
            **options,
        },
        "[test]",
    )


@pytest.mark.parametrize("name", ["host", "access_key", "secret_key", "bucket"])
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(Unconfigured, match=f"s3_store_{name}"):
        made(**{f"s3_store_{name}": None})


@pytest.mark.parametrize(
    ("name", "value"), [("s3_store_bucket_url_format", "other"), ("s3_store_cacert", "/does/not/exist")]
)
def test_options_that_cannot_work_are_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"\\[test\\] {name}") as caught:
        made(**{name: value})
    assert not isinstance(caught.value, Unconfigured)


def test_details_are_those_of_glance() -> None:
    assert made().details == {
        "s3_store_large_object_size": 100,
        "s3_store_large_object_chunk_size": 10,
        "s3_store_thread_pools": 10,
    }


@pytest.mark.parametrize(
    ("host", "region", "expected"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "", "eu-west-1"),
        ("https://s3-cn-north-1.amazonaws.com.cn", "", "cn-north-1"),
        ("https://s3.eu-west-1.amazonaws.com", "mars-1", "mars-1"),
        ("https://s3.example.org", "", "us-east-1"),
    ],
)
def test_regions(host: str, region: str, expected: str) -> None:
    assert made(s3_store_host=host, s3_store_region_name=region)._bucket._client.region == expected


def test_ten_thousand_parts_are_always_enough() -> None:
    upload = s3_uploads._Upload(made()._bucket._uploads, objects.Place("images", "key"))
    for size in (1 << 40, 5 << 40):
        assert size / upload._part_size(size, 0) <= s3_uploads.MAX_PARTS
    sent = 0
    for number in range(s3_uploads.MAX_PARTS):
        part = upload._part_size(None, sent)
        assert number > 1000 or part == 10 * objects.MIB
        sent += part
    assert sent > 4 << 40
    assert part < 5 << 30  # Amazon's limit for one part


async def test_buckets_in_host_names(imitation: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    look_up = socket.getaddrinfo

    def everywhere_here(host: str, *rest: Any, **named: Any) -> Any:
        assert host == f"{imitation.bucket}.s3.example.org"
        return look_up("127.0.0.1", *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", everywhere_here)
    port = imitation.url.rpartition(":")[2]
    store = imitation.store(s3_store_host=f"http://s3.example.org:{port}", s3_store_bucket_url_format="virtual")
    stored = await store.put("key", blocks(b"virtual"), 7)
    assert await read(store, stored.url) == b"virtual"
    await store.close()
    monkeypatch.undo()
    assert imitation.keys() == ["key"]


async def test_only_known_authorities_are_trusted(rig_folder: Path, certificate: Path) -> None:
    moto = Moto(rig_folder / "moto-tls", certificate)
    moto.start()
    try:
        server = Server(moto.url, "access", "secret")
        stranger = server.store(s3_store_create_bucket_on_put=True)
        with pytest.raises(Unavailable, match="does not answer"):
            await stranger.put("key", blocks(b"x"), 1)
        with pytest.raises(Unavailable):
            await stranger.check()
        store = server.store(s3_store_create_bucket_on_put=True, s3_store_cacert=str(certificate))
        stored = await store.put("key", blocks(b"by https"), 8)
        assert stored.url.startswith("s3+https://127.0.0.1:")
        assert await read(store, stored.url) == b"by https"
        await store.close()
        await stranger.close()
    finally:
        moto.stop()


async def test_a_bucket_is_made_on_demand(swift: Swift) -> None:
    server = Server(swift.url, USER, KEY)
    store = server.store()
    with pytest.raises(Unavailable, match="bucket does not exist"):
        await store.check()
    with pytest.raises(Unavailable, match="bucket does not exist"):
        await store.put("key", blocks(b"x"), 1)
    await store.discard("key")
    willing = server.store(s3_store_create_bucket_on_put=True)
    await willing.check()
    await willing.put("key", blocks(b"x"), 1)
    await store.check()
    await willing.close()
    await store.close()


# Two who write, and what a killed one left.


async def test_of_two_processes_one_wins_where_the_server_helps(imitation: Server) -> None:
    stores = [imitation.store() for _ in range(2)]
    for images in ([b"one", b"two"], [LARGE, LARGE[1:]]):
        key = str(uuid.uuid4())
        results = await asyncio.gather(
            *(stores[number].put(key, slowly(images[number], 0.3 + number), None) for number in range(2)),
            return_exceptions=True,
        )
        assert [type(result).__name__ for result in results] == ["Stored", "Duplicate"]
        assert await read(stores[0], imitation.location(key)) == images[0]
        assert imitation.uploads() == []
    for store in stores:
        await store.close()


async def slowly(content: bytes, seconds: float) -> AsyncIterator[bytes]:
    """So that both have looked whether there is something already, before the first one is through."""
    async for block in blocks(content):
        yield block
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("token", ["mine", "other"])
async def test_an_upload_whose_answer_got_lost_counts(
    imitation: Server, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server refuses because it is there may be what this very upload has put there."""
    monkeypatch.setattr(s3_uploads.secrets, "token_hex", lambda count: "mine")
    put = {"Bucket": imitation.bucket, "Key": "key", "Body": b"first", "Metadata": {s3_uploads.TOKEN: token}}

    async def meanwhile() -> AsyncIterator[bytes]:
        imitation.client.put_object(**put)
        yield b"first"

    store = imitation.store()
    if token == "mine":
        assert (await store.put("key", meanwhile(), 5)).size == 5
    else:
        with pytest.raises(Duplicate):
            await store.put("key", meanwhile(), 5)
    assert await read(store, imitation.location("key")) == b"first"
    await store.close()


async def test_discard_ends_uploads_of_that_image_only(real: Server) -> None:
    image_id = str(uuid.uuid4())
    for key in (image_id, image_id, f"{image_id}x", "other"):
        upload = real.client.create_multipart_upload(Bucket=real.bucket, Key=key)
        real.client.upload_part(
            Bucket=real.bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=bytes(5 * BLOCK)
        )
    real.client.put_object(Bucket=real.bucket, Key=image_id, Body=b"x")
    store = real.store()
    await store.discard(image_id)
    assert sorted(each["Key"] for each in real.uploads()) == [f"{image_id}x", "other"]
    assert real.keys() == []
    await store.close()


async def test_who_may_not_list_uploads_discards_what_can_be(
    real: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = s3_client.Client.start

    def start_what_is_allowed(client: s3_client.Client, threads: Any, operation: str, *rest: Any, **named: Any) -> Any:
        if operation == "list_multipart_uploads":
            return threads.submit(refuse)
        return start(client, threads, operation, *rest, **named)

    def refuse() -> None:
        raise refusal("AccessDenied", 403)

    monkeypatch.setattr(s3_client.Client, "start", start_what_is_allowed)
    real.client.put_object(Bucket=real.bucket, Key="key", Body=b"x")
    store = real.store()
    await store.discard("key")
    assert real.keys() == []
    assert "does not list unfinished uploads" in caplog.text
    await store.close()


# Servers that fail.


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


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


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


# Secrets, and links.


def check_quiet(error: GlimpseError, server: Server) -> None:
    """Nothing in an error for clients says where the store is, or who we are there."""
    for hidden in (KEY, USER, "moto", "127.0.0.1", server.bucket, server.url.rpartition(":")[2]):
        assert hidden not in error.message


async def test_links_need_no_keys(real: Server) -> None:
    store = real.store()
    assert isinstance(store, LinkingStore)
    stored = await store.put("key", blocks(b"0123456789"), 10)
    link = await store.link(stored.url, 60)
    assert link is not None
    assert KEY not in link
    assert requests.get(link, headers={"Range": "bytes=2-4"}, timeout=10).content == b"234"
    assert requests.get(link.partition("?")[0], timeout=10).status_code in (400, 401, 403)
    old = await store.link(stored.url, 1)
    await asyncio.sleep(2.1)
    assert old is not None
    assert requests.get(old, timeout=10).status_code == 403
    await store.close()


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
