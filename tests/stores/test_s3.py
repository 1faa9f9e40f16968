"""The S3 store on Swift's S3 interface, and on moto for what that has not."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from glimpse.errors import Duplicate, NotFound, SettingsError, Unavailable, Unconfigured
from glimpse.stores import objects, s3_client, s3_uploads
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK, LinkingStore
from glimpse.stores.s3 import S3Store
from tests.rig.gate import Gate
from tests.rig.moto import Moto
from tests.rig.swift import KEY, USER, Swift
from tests.stores.in_parts import LARGE, InParts, all_logged
from tests.stores.s3_server import DEFAULTS, Server, imitation, real, refusal

__all__ = ["all_logged", "imitation", "real"]


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


# Secrets, and links.


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
