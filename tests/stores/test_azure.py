"""The Azure store on Azurite."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import requests

from glimpse.errors import GlimpseError, NotFound, SettingsError, Unavailable, Unconfigured
from glimpse.stores import clouds, objects
from glimpse.stores.azure import OPTIONS, AzureBlobStore
from glimpse.stores.conformance import BrokenOff, Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK
from tests.rig.azurite import ACCOUNT, KEY, Azurite
from tests.rig.gate import Gate
from tests.stores.in_parts import LARGE, InParts, all_logged, watch_for

__all__ = ["all_logged"]

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


def options_for(azurite: Azurite, container: str) -> dict[str, Any]:
    return {
        **DEFAULTS,
        "azure_store_account": ACCOUNT,
        "azure_store_key": KEY,
        "azure_store_container": container,
        "azure_store_endpoint": azurite.url,
        "azure_store_large_object_chunk_size": 1,
        "azure_store_thread_pools": 3,
    }


@pytest.fixture
def container(azurite: Azurite) -> str:
    name = f"images-{uuid.uuid4().hex[:12]}"
    azurite.make_container(name)
    return name


class TestAzureStore(ReadableStore, WritableStore, InParts):
    @pytest.fixture
    async def harness(self, azurite: Azurite, container: str) -> AsyncIterator[Harness]:
        store = AzureBlobStore(options_for(azurite, container), "[test]")

        async def place(content: bytes) -> str:
            return (await store.put(str(uuid.uuid4()), blocks(content), len(content))).url

        missing = f"azure://{ACCOUNT}/{container}/missing"
        yield Harness(store, place, missing, lambda: azurite.blobs(container))
        await store.close()


@pytest.fixture
async def store(azurite: Azurite, container: str) -> AsyncIterator[AzureBlobStore]:
    made = AzureBlobStore(options_for(azurite, container), "[test]")
    yield made
    await made.close()


def check_quiet(error: GlimpseError, container: str) -> None:
    for hidden in (KEY, ACCOUNT, container, "127.0.0.1"):
        assert hidden not in error.message


@pytest.mark.parametrize(
    "url",
    ["azure://other/{}/key", f"azure://{ACCOUNT}/other/key", f"azure://{ACCOUNT}/{{}}/a/b", "azure://x", "s3://h/b/k"],
)
async def test_locations_elsewhere_are_not_found(store: AzureBlobStore, container: str, url: str) -> None:
    assert not store.owns(url.format(container))
    with pytest.raises(NotFound):
        await store.open(url.format(container))


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("azure_store_account", None, Unconfigured),
        ("azure_store_container", None, Unconfigured),
        ("azure_store_key", "not base64!", SettingsError),
    ],
)
def test_options_that_cannot_work_are_named(name: str, value: Any, kind: type[Exception]) -> None:
    options = {
        **DEFAULTS,
        "azure_store_account": "a",
        "azure_store_container": "c",
        "azure_store_key": KEY,
        name: value,
    }
    with pytest.raises(kind, match=f"\\[test\\] {name}") as caught:
        AzureBlobStore(options, "[test]")
    assert "base64!" not in str(caught.value)


async def test_wrong_keys_and_missing_containers(azurite: Azurite, container: str) -> None:
    other = base64.b64encode(b"x" * 64).decode()
    for changed in ({"azure_store_key": other}, {"azure_store_container": "missing"}):
        store = AzureBlobStore({**options_for(azurite, container), **changed}, "[test]")
        for call in (store.check(), store.put("key", blocks(b"x"), 1), store.put("key", blocks(LARGE), None)):
            with pytest.raises(Unavailable) as caught:
                await call
            check_quiet(caught.value, container)
        await store.close()


async def test_discard_drops_parts_that_were_never_put_together(
    azurite: Azurite, container: str, store: AzureBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        """As if the process had been killed."""

    monkeypatch.setattr(clouds.CloudBucket, "_undo", nothing)
    with pytest.raises(BrokenOff):
        await store.put("key", blocks(LARGE, fail_after=11 * BLOCK), len(LARGE))
    await asyncio.sleep(0.3)
    assert (azurite.blobs(container), azurite.blobs(container, begun=True)) == (0, 1)
    monkeypatch.undo()
    await store.discard("key")
    assert azurite.blobs(container, begun=True) == 0


async def test_an_upload_goes_on_when_the_server_is_back(azurite: Azurite, container: str) -> None:
    async with Gate(azurite.port) as gate:
        store = behind(gate, azurite, container)
        opening: list[asyncio.Task[None]] = []

        async def open_later() -> None:
            await asyncio.sleep(0.7)
            await gate.open()

        async def with_accident() -> AsyncIterator[bytes]:
            async for block in blocks(LARGE):
                if gate.passed > 5 * BLOCK and not opening:
                    gate.shut()
                    opening.append(asyncio.create_task(open_later()))
                yield block

        stored = await store.put("key", with_accident(), len(LARGE))
        assert opening
        assert await read(store, stored.url) == LARGE
        await store.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "PATIENCE", 1)
    monkeypatch.setattr(objects, "PAUSES", (0.1, 0.3, 0.5))
    monkeypatch.setattr(objects, "CHECK_SECONDS", 1.0)


def behind(gate: Gate, azurite: Azurite, container: str) -> AzureBlobStore:
    endpoint = f"http://127.0.0.1:{gate.port}/{ACCOUNT}"
    return AzureBlobStore({**options_for(azurite, container), "azure_store_endpoint": endpoint}, "[test]")


async def test_a_server_that_is_gone(azurite: Azurite, container: str, impatient: None) -> None:
    async with Gate(azurite.port) as gate:
        store = behind(gate, azurite, container)

        async def until_it_is_gone() -> AsyncIterator[bytes]:
            async for block in blocks(LARGE):
                yield block
                if gate.passed > 5 * BLOCK:
                    gate.shut()

        with pytest.raises(Unavailable) as caught:
            await store.put("key", until_it_is_gone(), len(LARGE))
        check_quiet(caught.value, container)
        assert azurite.blobs(container) == 0
        with pytest.raises(Unavailable):
            await store.check()
        await gate.open()
        stored = await store.put("key", blocks(LARGE), len(LARGE))
        reader = await store.open(stored.url)
        gate.shut_at = gate.passed + 5 * BLOCK
        with pytest.raises(Unavailable) as caught:
            async for _ in reader.stream(0, None):
                pass
        check_quiet(caught.value, container)
        await gate.open()
        assert await read(store, stored.url) == LARGE
        await store.close()


async def test_a_read_goes_on_where_it_broke_off(azurite: Azurite, container: str, impatient: None) -> None:
    async with Gate(azurite.port) as gate:
        store = behind(gate, azurite, container)
        stored = await store.put("key", blocks(LARGE), len(LARGE))
        reader = await store.open(stored.url)
        gate.shut_at = gate.passed + 5 * BLOCK
        reopening = asyncio.create_task(gate.open_again())
        assert b"".join([block async for block in reader.stream(17, None)]) == LARGE[17:]
        await reopening
        await store.close()


async def test_a_server_that_says_nothing(azurite: Azurite, container: str, impatient: None) -> None:
    async with Gate(azurite.port) as gate:
        gate.deaf = True
        store = behind(gate, azurite, container)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await store.check()
        assert time.monotonic() - started < 3
        await store.close()


async def test_links_need_no_key_and_logs_hold_none(
    store: AzureBlobStore, container: str, all_logged: pytest.LogCaptureFixture
) -> None:
    stored = await store.put("key", blocks(LARGE), None)
    assert await read(store, stored.url, 2, 3) == LARGE[2:5]
    with pytest.raises(NotFound):
        await store.open(f"azure://{ACCOUNT}/{container}/missing")
    link = await store.link(stored.url, 60)
    assert link is not None
    assert requests.get(link, headers={"Range": "bytes=2-4"}, timeout=10).content == LARGE[2:5]
    assert requests.get(link.partition("?")[0], timeout=10).status_code in (403, 404)
    assert KEY not in repr(store) + repr(store._bucket) + link
    all_logged.records[:] = [record for record in all_logged.records if "urllib3" not in record.name]  # the test's own
    watch_for(all_logged, KEY, "SharedKey", "sig=")


async def test_what_another_process_has_just_stored_is_no_leftover(azurite: Azurite, container: str) -> None:
    """It came between the look and the cleaning up."""
    store = AzureBlobStore(options_for(azurite, container), "[test]")
    stored = await store.put(str(uuid.uuid4()), blocks(b"there"), 5)
    assert isinstance(store._bucket, clouds.CloudBucket)
    await store._bucket._drop_parts(stored.url.rpartition("/")[2], "create")
    assert await read(store, stored.url) == b"there"
    await store.close()
