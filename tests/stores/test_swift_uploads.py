"""Uploads into a real Swift: large objects of both kinds, and whatever can go wrong on the way."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from glimpse.errors import Unavailable
from glimpse.stores import swift_objects, swift_uploads
from glimpse.stores.conformance import BrokenOff, Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.swift import SwiftStore
from tests.rig.gate import Gate
from tests.rig.keystone import PASSWORD, Keystone
from tests.rig.rabbitmq import certify
from tests.rig.swift import KeystoneSwift, SwiftStorage
from tests.stores.in_parts import InParts, all_logged, watch_for
from tests.stores.test_swift import UNIT, Account, account

__all__ = ["account", "all_logged"]

CONTENT = secrets.token_bytes(4 * UNIT + 5)


@asynccontextmanager
async def opened(account: Account, **options: object) -> AsyncIterator[SwiftStore]:
    store = SwiftStore(account.options(**options), "[test]")
    try:
        yield store
    finally:
        await store.close()


def harness_of(account: Account, store: SwiftStore) -> Harness:
    async def place(content: bytes) -> str:
        name = str(uuid.uuid4())
        account.call("PUT", f"/glance/{name}", data=content)
        return f"swift+config://ref1/glance/{name}"

    return Harness(store, place, "swift+config://ref1/glance/missing", lambda: len(account.objects()))


def of(account: Account, image: str) -> list[str]:
    """What there is of an image."""
    return [name for name in account.objects() if name.startswith(image)]


LARGE_PARTS = {"swift_store_large_object_size": 5, "swift_store_large_object_chunk_size": 5}


class TestStatic(InParts):
    """The suite of all stores runs on such a Swift in test_swift.py."""

    @pytest.fixture
    async def harness(self, account: Account) -> AsyncIterator[Harness]:
        async with opened(account, **LARGE_PARTS) as store:
            yield harness_of(account, store)


@pytest.fixture(scope="module")
def without_static(
    rig_folder: Path, swift_storage: SwiftStorage, keystone: Keystone, account: Account
) -> Iterator[str]:
    """The storage URL of the same account where large objects are dynamic ones."""
    swift = KeystoneSwift(rig_folder / "swift-dynamic", swift_storage, keystone, large_objects="dlo")
    swift.start()
    yield account.url.replace(account.swift.url, swift.url)
    swift.stop()


class TestDynamic(ReadableStore, WritableStore, InParts):
    @pytest.fixture
    async def harness(self, account: Account, without_static: str) -> AsyncIterator[Harness]:
        async with opened(account, swift_store_endpoint=without_static, **LARGE_PARTS) as store:
            yield harness_of(account, store)


@pytest.mark.parametrize("static", [True, False])
async def test_how_large_images_are_laid_out(account: Account, without_static: str, static: bool) -> None:
    """Either kind is read and deleted by Glance (spec 4.4). Segments of a put that was killed are not mixed in."""
    endpoint = {} if static else {"swift_store_endpoint": without_static}
    image = str(uuid.uuid4())
    for leftover in ("00001", "deadbeef-00006"):
        account.call("PUT", f"/glance/{image}-{leftover}", data=b"left behind")
    async with opened(account, **endpoint) as store:
        stored = await store.put(image, blocks(CONTENT), len(CONTENT))
        assert stored.url == f"swift+config://ref1/glance/{image}"
        assert await read(store, stored.url) == CONTENT
        facts = account.call("HEAD", f"/glance/{image}").headers
        assert facts.get("X-Static-Large-Object") == ("True" if static else None)
        own = [name for name in of(account, image) if "deadbeef" not in name][2:]
        assert [name.rpartition("-")[2] for name in own] == ["00001", "00002", "00003", "00004", "00005"]
        assert facts.get("X-Object-Manifest") == (None if static else f"glance/{own[0][:-5]}")
        assert int(account.call("HEAD", f"/glance/{own[-1]}").headers["Content-Length"]) == 5
        await store.delete(stored.url)
        assert of(account, image) == [f"{image}-00001", f"{image}-deadbeef-00006"]
        await store.discard(image)
        assert of(account, image) == []


async def test_more_segments_than_a_manifest_can_name(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    image = str(uuid.uuid4())
    async with opened(account) as store:
        can = await store._objects.abilities(account.url)
        assert can.segments >= 1000
        assert can.largest > 5e9
        known = {account.swift.url + "/info": (float("inf"), swift_objects.Abilities(700_000, 3))}
        monkeypatch.setattr(store._objects, "_abilities", known)
        stored = await store.put(image, blocks(CONTENT[:-5]), len(CONTENT) - 5)
        assert len(of(account, image)) == 7  # no segment is larger than an object may be
        assert "X-Object-Manifest" in account.call("HEAD", f"/glance/{image}").headers
        assert await read(store, stored.url) == CONTENT[:-5]
        await store.delete(stored.url)


@pytest.mark.parametrize("size", [None, 5])
async def test_what_is_refused_at_its_end_is_never_there(account: Account, size: int | None) -> None:
    """The last word of the stream is heard before its last byte is sent."""
    image = str(uuid.uuid4())

    async def refused() -> AsyncIterator[bytes]:
        yield b"bytes"
        assert of(account, image) == []
        raise BrokenOff

    async with opened(account) as store:
        with pytest.raises(BrokenOff):
            await store.put(image, refused(), size)
    assert of(account, image) == []


# Faults.


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (swift_objects, swift_uploads):
        monkeypatch.setattr(module, "PAUSES", (0.05, 0.3))
    monkeypatch.setattr(swift_uploads, "PATIENCE", 0.5)
    monkeypatch.setattr(swift_objects, "READ_TIMEOUT", 0.5)


@pytest.fixture
async def gate(account: Account) -> AsyncIterator[Gate]:
    async with Gate(account.swift.port) as gate:
        yield gate


@pytest.fixture
async def behind(account: Account, gate: Gate, hasty: None) -> AsyncIterator[SwiftStore]:
    """A store whose Swift is behind the gate."""
    url = account.url.replace(str(account.swift.port), str(gate.port))
    async with opened(account, swift_store_endpoint=url) as store:
        yield store


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("large", [1, 100])
async def test_a_server_that_goes_away_in_an_upload(
    account: Account, gate: Gate, size: int | None, large: int, hasty: None
) -> None:
    """It fails, what is left is found by the image's id, and then all works without a restart."""
    image = str(uuid.uuid4())
    url = account.url.replace(str(account.swift.port), str(gate.port))
    async with opened(account, swift_store_endpoint=url, swift_store_large_object_size=large) as store:
        await store.check()
        gate.shut_at = gate.passed + 3 * UNIT
        with pytest.raises(Unavailable):
            await store.put(image, blocks(CONTENT), size)
        with pytest.raises(Unavailable):
            await store.check()
        await gate.open()
        await store.discard(image)
        assert of(account, image) == []
        stored = await store.put(image, blocks(CONTENT), size)
        assert await read(store, stored.url) == CONTENT
        await store.delete(stored.url)


async def test_a_server_that_is_away_between_two_segments(account: Account, gate: Gate, behind: SwiftStore) -> None:
    """What has not got a byte yet is sent again."""

    async def stopping() -> AsyncIterator[bytes]:
        yield CONTENT[:UNIT]
        yield CONTENT[UNIT : 2 * UNIT]
        await asyncio.sleep(0.1)  # for the answer to the first one
        gate.shut()
        asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(gate.open()))
        yield CONTENT[2 * UNIT :]

    stored = await behind.put(str(uuid.uuid4()), stopping(), None)
    assert await read(behind, stored.url) == CONTENT
    await behind.delete(stored.url)


async def test_a_server_that_takes_no_more(account: Account, gate: Gate, behind: SwiftStore) -> None:
    image = str(uuid.uuid4())

    async def deafening() -> AsyncIterator[bytes]:
        for start in range(0, 64 * UNIT, UNIT):
            gate.deaf = start > 2 * UNIT
            yield CONTENT[:UNIT]

    async with asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await behind.put(image, deafening(), None)
        gate.deaf = False
        await behind.discard(image)
    assert of(account, image) == []


async def test_a_client_that_is_slow(account: Account, behind: SwiftStore) -> None:
    """Only Swift's own time is limited."""

    async def slow() -> AsyncIterator[bytes]:
        yield CONTENT[:1000]
        await asyncio.sleep(1.2)
        yield CONTENT[1000:]

    stored = await behind.put(str(uuid.uuid4()), slow(), len(CONTENT))
    assert await read(behind, stored.url) == CONTENT
    await behind.delete(stored.url)


async def test_a_download_through_a_gate_that_shuts(account: Account, gate: Gate, behind: SwiftStore) -> None:
    stored = await behind.put(str(uuid.uuid4()), blocks(CONTENT), len(CONTENT))
    reader = await behind.open(stored.url)
    gate.shut_at = gate.passed + 2 * UNIT
    asyncio.get_running_loop().call_later(0.3, lambda: asyncio.ensure_future(gate.open()))
    assert b"".join([block async for block in reader.stream(0, None)]) == CONTENT
    gate.deaf = True
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await read(behind, stored.url)
    gate.deaf = False
    await behind.delete(stored.url)


async def test_an_answer_that_is_lost(account: Account, monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    """The object is there, so the second try is refused; it is known by its mark."""
    lost = []

    async with opened(account) as store:
        real = store._objects.request

        @asynccontextmanager
        async def losing(method: str, *args: Any, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
            async with real(method, *args, **more) as answer:
                if method == "PUT" and more.get("query") and not lost:
                    lost.append(answer.status)
                    raise aiohttp.ServerDisconnectedError
                yield answer

        monkeypatch.setattr(store._objects, "request", losing)
        stored = await store.put(str(uuid.uuid4()), blocks(CONTENT), None)
        assert lost == [201]
        assert await read(store, stored.url) == CONTENT
        await store.delete(stored.url)


# Secrets.


async def test_certificates_are_checked(
    account: Account, rig_folder: Path, swift_storage: SwiftStorage, keystone: Keystone, tmp_path: Path, hasty: None
) -> None:
    key = certify(tmp_path / "certificate.pem", None)
    swift = KeystoneSwift(tmp_path / "swift", swift_storage, keystone, tls=(tmp_path / "certificate.pem", key))
    swift.start()
    url = {"swift_store_endpoint": account.url.replace(account.swift.url, swift.url)}
    try:
        async with opened(account, **url) as store:
            with pytest.raises(Unavailable):
                await store.check()
        for trust in ({"swift_store_cacert": str(tmp_path / "certificate.pem")}, {"swift_store_auth_insecure": True}):
            async with opened(account, **url, **trust) as store:
                stored = await store.put(str(uuid.uuid4()), blocks(CONTENT), None)
                assert await read(store, stored.url) == CONTENT
                await store.delete(stored.url)
    finally:
        swift.stop()


async def test_no_secret_is_logged(account: Account, all_logged: pytest.LogCaptureFixture) -> None:
    """OSSN-0052."""
    async with opened(account) as store:
        stored = await store.put(str(uuid.uuid4()), blocks(CONTENT), None)
        await read(store, stored.url)
        account.call("POST", "", headers={"X-Account-Meta-Temp-URL-Key": "signing-key"})
        link = await store.link(stored.url, 60)
        await store.delete(stored.url)
        (login,) = store._logins.values()
        token = (await login.account()).token
        assert token not in repr(await login.account())
    assert link is not None
    watch_for(all_logged, PASSWORD, token, token[:30], "signing-key", link)
