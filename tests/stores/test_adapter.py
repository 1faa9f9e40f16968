"""glance_store's drivers as stores: the conformance suite over its file driver, and what the adapter itself decides.

Glimpse drives the type `file` by itself. The old name of that driver is a type that it does not know, and stands for
all that other packages bring.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import wait
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from glance_store import exceptions, location
from oslo_config import cfg

from glimpse.domain.context import Context
from glimpse.errors import (
    Conflict,
    Duplicate,
    Forbidden,
    GlimpseError,
    Gone,
    NotFound,
    SettingsError,
    SizeMismatch,
    StoreFull,
    Unavailable,
    Unconfigured,
)
from glimpse.settings import Settings
from glimpse.stores import adapter
from glimpse.stores.adapter import CALL_THREADS, AdaptedStore
from glimpse.stores.conformance import BrokenOff, Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK, PersonalStore
from glimpse.stores.feed import Feed
from glimpse.stores.file import FileStore
from glimpse.stores.registry import open_stores
from glimpse.stores.unusable import UnusableStore
from tests.journeys.client import Api
from tests.journeys.service import Service
from tests.stores.configured import settings_of
from tests.stores.drivers_from_outside import MemoryDriver

FILES = "glance.store.filesystem.Store"
OUTSIDE = "tests.stores.drivers_from_outside"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The drivers that more packages bring, by type. The configuration of the process is put back."""
    really = metadata.entry_points
    ours = {"memory": f"{OUTSIDE}:MemoryDriver"}

    def entry_points(**wanted: str) -> Any:
        if wanted.get("group") == "glance_store.drivers" and wanted.get("name") in ours:
            return [metadata.EntryPoint(wanted["name"], ours[wanted["name"]], wanted["group"])]
        return really(**wanted)

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    MemoryDriver.forget()
    yield ours
    cfg.CONF.clear()


def store_of(settings: Settings, store_id: str = "one") -> AdaptedStore:
    found = open_stores(settings).get(store_id)
    assert found is not None
    assert isinstance(found.store, AdaptedStore)
    return found.store


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[AdaptedStore]:
    store = store_of(settings_of(tmp_path, {"one": "memory"}))
    yield store
    await store.close()


class TestFileDriver(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        images = tmp_path / "images"
        store = store_of(settings_of(tmp_path, {"one": FILES}, one={"filesystem_store_datadir": images}))

        async def place(content: bytes) -> str:
            path = images / str(uuid.uuid4())
            images.mkdir(exist_ok=True)
            path.write_bytes(content)
            return path.as_uri()

        def leftovers() -> int:
            return len(list(images.glob("*"))) if images.exists() else 0

        yield Harness(store, place, (images / "missing").as_uri(), leftovers)
        await store.close()


class TestConfiguration:
    async def test_stores_of_one_type_stand_side_by_side(self, tmp_path: Path) -> None:
        sections = {name: {"filesystem_store_datadir": tmp_path / name} for name in ("one", "two")}
        stores = open_stores(settings_of(tmp_path, dict.fromkeys(sections, FILES), **sections))
        image_id = str(uuid.uuid4())
        for configured in stores:
            stored = await configured.store.put(image_id, blocks(configured.id.encode()), None)
            assert stored.url == f"file://{tmp_path}/{configured.id}/{image_id}"
            assert stores.owning(stored.url) == configured
        for configured in stores:
            assert (tmp_path / configured.id / image_id).read_text() == configured.id
        assert location.SCHEME_TO_CLS_MAP == location.SCHEME_TO_CLS_BACKEND_MAP == {}
        await stores.close()

    async def test_what_the_section_lacks_is_in_backend_defaults(self, tmp_path: Path) -> None:
        defaults = {"filesystem_store_datadir": tmp_path / "shared"}
        store = store_of(settings_of(tmp_path, {"one": FILES}, backend_defaults=defaults))
        assert (await store.put("x", blocks(b"x"), 1)).url == f"file://{tmp_path}/shared/x"
        await store.close()

    async def test_a_single_store_has_its_options_in_glance_store(self, tmp_path: Path) -> None:
        section = {"stores": "file,memory", "default_store": "file", "filesystem_store_datadir": tmp_path}
        store = store_of(settings_of(tmp_path, {}, glance_store={**section, "memory_name": "mine"}), "memory")
        assert store._product.driver().conf.glance_store.memory_name == "mine"
        stored = await store.put("x", blocks(b"bytes"), 5)
        assert await read(store, stored.url) == b"bytes"
        await store.close()

    @pytest.mark.parametrize("named", ["file", "glance.store.filesystem.Store"])
    async def test_what_glimpse_drives_itself_always_wins(self, tmp_path: Path, named: str) -> None:
        section = {"stores": named, "default_store": "file", "filesystem_store_datadir": tmp_path}
        assert isinstance(open_stores(settings_of(tmp_path, {}, glance_store=section)).default.store, FileStore)

    def test_a_type_that_nobody_drives_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="enabled_backends: one:nonsense has an unknown type; allowed: file, "):
            settings_of(tmp_path, {"one": "nonsense"})

    def test_a_wrong_value_is_refused_with_its_place(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, {"one": "memory"}, one={"memory_size": "many"})
        with pytest.raises(SettingsError, match=r"glance-api.conf: \[one\] memory_size: .*allowed: a whole number"):
            open_stores(settings)

    def test_a_driver_that_lacks_a_package_is_left_out(
        self, tmp_path: Path, installed: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        installed["broken"] = "tests.stores.no_such_module:Driver"
        with pytest.raises(
            Unconfigured, match=r"\[one\]: a store of type broken needs the Python module tests.stores.no"
        ):
            open_stores(settings_of(tmp_path, {"one": "broken"}))
        stores = open_stores(settings_of(tmp_path, {"one": "memory", "two": "broken"}))
        two = stores.get("two")
        assert two is not None
        assert isinstance(two.store, UnusableStore)
        assert "store two is out of service" in caplog.text

    @pytest.mark.parametrize("kind", ["cinder", "vmware"])
    def test_without_glance_store_it_is_said_what_to_install(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(metadata, "entry_points", lambda **_: [])
        with pytest.raises(Unconfigured, match=rf"\[one\]: .* {kind} needs .*pip install 'glance_store\[{kind}\]'"):
            open_stores(settings_of(tmp_path, {"one": kind}))
        second = open_stores(settings_of(tmp_path, {"one": "file", "two": kind})).get("two")
        assert second is not None
        assert second.store.facts.schemes == ({"cinder": "cinder", "vmware": "vsphere"}[kind],)

    def test_glance_store_is_not_loaded_for_other_stores(self, tmp_path: Path) -> None:
        settings_of(tmp_path, {"one": "file"}, one={"filesystem_store_datadir": tmp_path})
        program = (
            "import sys; from glimpse import service; from glimpse.settings import load;"
            "from glimpse.stores import registry;"
            "registry.open_stores(load(sys.argv[1:]));"
            "sys.exit(any(name.startswith(('glance_store', 'eventlet', 'os_brick')) for name in sys.modules))"
        )
        command = [sys.executable, "-c", program, "--config-file", str(tmp_path / "glance-api.conf")]
        assert subprocess.run(command, check=False).returncode == 0

    async def test_a_driver_that_only_reads_is_not_writable(self, tmp_path: Path) -> None:
        MemoryDriver._CAPABILITIES = 0b1000111
        store = store_of(settings_of(tmp_path, {"one": "memory"}))
        assert not store.facts.writable
        assert store.facts.ranges
        with pytest.raises(Gone):
            await store.put("x", blocks(b"x"), 1)
        await store.close()

    async def test_a_driver_that_is_not_reusable_is_made_for_each_call(self, tmp_path: Path) -> None:
        MemoryDriver._CAPABILITIES = 0b1001
        store = store_of(settings_of(tmp_path, {"one": "memory"}))
        assert store._product.driver() is not store._product.driver()
        await store.close()


class TestSetUp:
    """Drivers ask their servers when they are set up, so that happens at the first call, and again after a failure."""

    async def test_a_server_that_was_away_is_asked_again(self, memory: AdaptedStore) -> None:
        MemoryDriver.fails["configure"] = ConnectionRefusedError("no route")
        with pytest.raises(Unavailable):
            await memory.check()
        with pytest.raises(Unavailable):
            await memory.put("x", blocks(b"x"), 1)
        MemoryDriver.fails.clear()
        await memory.check()
        await memory.put("x", blocks(b"x"), 1)

    async def test_a_driver_that_refuses_its_configuration_does_not_write(self, memory: AdaptedStore) -> None:
        MemoryDriver.fails["configure"] = exceptions.BadStoreConfiguration(store_name="memory", reason="no")
        with pytest.raises(Gone):
            await memory.put("x", blocks(b"x"), 1)


SAID = {
    exceptions.NotFound: NotFound,
    exceptions.BadStoreUri: NotFound,
    exceptions.Duplicate: Duplicate,
    exceptions.StorageFull: StoreFull,
    exceptions.StorageWriteDenied: Unavailable,
    exceptions.StoreAddDisabled: Gone,
    exceptions.StoreDeleteNotSupported: Forbidden,
    exceptions.Forbidden: Forbidden,
    exceptions.InUseByStore: Conflict,
    exceptions.HasSnapshot: Conflict,
    exceptions.Invalid: SizeMismatch,
    exceptions.RemoteServiceUnavailable: Unavailable,
    exceptions.BackendException: Unavailable,
    exceptions.AuthorizationFailure: Unavailable,
    exceptions.StoreRandomGetNotSupported: Unavailable,
    exceptions.BadStoreConfiguration: Unavailable,
    RuntimeError: Unavailable,
}


class TestFailures:
    @pytest.mark.parametrize("kind", SAID, ids=lambda kind: kind.__name__)
    async def test_each_failure_of_a_driver_has_its_meaning_and_tells_nothing(
        self, memory: AdaptedStore, kind: type[Exception], caplog: pytest.LogCaptureFixture
    ) -> None:
        MemoryDriver.fails["delete"] = kind("https://10.0.0.1/x?password=hunter2 token: 'abc'")
        with pytest.raises(GlimpseError) as raised:
            await memory.delete("memory://x")
        assert type(raised.value) is SAID[kind]
        assert "10.0.0.1" not in raised.value.message
        assert "hunter2" not in caplog.text

    async def test_a_full_device_is_a_full_store(self, memory: AdaptedStore) -> None:
        MemoryDriver.fails["add"] = OSError(28, "No space left on device")
        with pytest.raises(StoreFull):
            await memory.put("x", blocks(bytes(20 * BLOCK)), None)

    async def test_a_failure_in_the_middle_ends_the_upload_at_once(self, memory: AdaptedStore) -> None:
        MemoryDriver.fails["add"] = exceptions.StorageFull()
        with pytest.raises(StoreFull):
            await memory.put("x", blocks(bytes(20 * BLOCK)), 20 * BLOCK)
        MemoryDriver.fails.clear()
        await memory.put("x", blocks(b"x"), 1)

    async def test_a_driver_that_leaves_bytes_out_has_stored_nothing(self, memory: AdaptedStore) -> None:
        MemoryDriver.reads = BLOCK + 1
        with pytest.raises(Unavailable):
            await memory.put("x", blocks(bytes(20 * BLOCK)), None)
        assert not MemoryDriver.kept

    async def test_a_stream_that_is_refused_at_its_very_end_leaves_nothing(self, memory: AdaptedStore) -> None:
        """The driver has all bytes that were announced, and does not wait for an end."""
        MemoryDriver.reads = 2 * BLOCK

        async def refused() -> AsyncIterator[bytes]:
            yield bytes(2 * BLOCK)
            while not MemoryDriver.kept:
                await asyncio.sleep(0.001)
            raise BrokenOff

        with pytest.raises(BrokenOff):
            await memory.put("x", refused(), 2 * BLOCK)
        assert not MemoryDriver.kept

    async def test_bytes_that_the_driver_lost_are_missed(self, memory: AdaptedStore) -> None:
        MemoryDriver.kept["x"] = b"0123456789"
        MemoryDriver.loses = 1
        with pytest.raises(Unavailable):
            await read(memory, "memory://x")

    async def test_a_read_that_fails_midway_is_unavailable(self, memory: AdaptedStore) -> None:
        MemoryDriver.kept["x"] = b"0123456789"
        reader = await memory.open("memory://x")
        MemoryDriver.fails["read"] = ConnectionResetError("gone")
        with pytest.raises(Unavailable):
            _ = [block async for block in reader.stream(0, None)]
        await reader.close()

    async def test_a_url_that_is_none_is_not_found(self, memory: AdaptedStore) -> None:
        for url in ("memory:/x", "file:///etc/passwd", ""):
            with pytest.raises(NotFound):
                await memory.open(url)


class TestReading:
    async def test_what_was_opened_is_closed(self, memory: AdaptedStore) -> None:
        MemoryDriver.kept["x"] = b"0123456789"
        reader = await memory.open("memory://x")
        await reader.close()
        assert MemoryDriver.closed == ["memory://x"]

    async def test_what_was_opened_for_nobody_is_closed(self, memory: AdaptedStore) -> None:
        MemoryDriver.kept["x"] = b"0123456789"
        task = asyncio.create_task(memory.open("memory://x"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            while not MemoryDriver.closed:
                await asyncio.sleep(0.001)

    async def test_a_reader_can_be_read_twice(self, memory: AdaptedStore) -> None:
        MemoryDriver.kept["x"] = b"0123456789"
        reader = await memory.open("memory://x")
        for _ in range(2):
            assert b"".join([block async for block in reader.stream(0, None)]) == b"0123456789"
        await reader.close()

    async def test_slow_uploads_keep_nobody_from_reading(self, memory: AdaptedStore) -> None:
        MemoryDriver.kept["x"] = b"0123456789"
        going = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"begin"
            await going.wait()

        uploads = [asyncio.create_task(memory.put(str(number), slow(), None)) for number in range(CALL_THREADS + 1)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            assert await read(memory, "memory://x") == b"0123456789"
        going.set()
        await asyncio.gather(*uploads)


class TestCaller:
    async def test_the_driver_knows_for_whom(self, memory: AdaptedStore) -> None:
        assert isinstance(memory, PersonalStore)
        context = Context(user_id="user", project_id="project", token="token")
        await memory.on_behalf_of(context, "owner").put("x", blocks(b"x"), 1)
        await memory.on_behalf_of(None, "owner").put("y", blocks(b"y"), 1)
        one, two = MemoryDriver.callers
        assert (one.user_id, one.project_id, one.auth_token) == ("user", "project", "token")
        assert (two.user_id, two.project_id, two.auth_token) == ("", "owner", None)
        assert two.service_catalog is None

    async def test_two_puts_for_different_callers_are_still_two_puts(self, memory: AdaptedStore) -> None:
        puts = [memory.on_behalf_of(None, name).put("x", blocks(b"x"), 1) for name in ("one", "two")]
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Duplicate", "Stored"]


class TestFeed:
    @pytest.mark.parametrize("size", [1, 7, BLOCK - 1, BLOCK, 3 * BLOCK, 10 * BLOCK, -1, None])
    async def test_reads_as_a_file(self, size: int | None) -> None:
        feed, content = Feed(asyncio.get_running_loop()), b"0123456789" * (300_000 if size not in (1, 7) else 10)
        got: list[bytes] = []

        def consume() -> None:
            while part := feed.read(size):
                got.append(part)

        work = asyncio.get_running_loop().run_in_executor(None, consume)
        assert await feed.fill(blocks(content)) == len(content)
        await work
        assert b"".join(got) == content
        assert {len(part) for part in got[:-1]} <= {size}
        assert feed.read(size) == b""


def test_the_whole_service_uses_such_a_store(tmp_path: Path) -> None:
    stores = {"DEFAULT": {"enabled_backends": f"one:{FILES}", "workers": 1}, "glance_store": {"default_backend": "one"}}
    changes: dict[str, dict[str, object]] = {**stores, "one": {"filesystem_store_datadir": "{home}/images"}}
    service = Service(tmp_path, {}, changes)
    service.db_sync()
    service.start()
    try:
        api = Api(service.url)
        image = api.active(bytes(3 * BLOCK) + b"end")
        assert image["stores"] == "one"
        assert api.download(image["id"]) == bytes(3 * BLOCK) + b"end"
        part = api.raw_download(image["id"], {"Range": f"bytes={3 * BLOCK}-"})
        assert (part.status_code, part.content) == (206, b"end")
        assert (tmp_path / "images" / image["id"]).is_file()
        api.delete(image["id"])
        assert not list((tmp_path / "images").iterdir())
        api.close()
    finally:
        service.stop()


@pytest.mark.parametrize("length", [5, 9 * BLOCK])
async def test_a_driver_that_hangs_does_not_hold_an_upload_for_ever(
    memory: AdaptedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    monkeypatch.setattr(adapter, "STEP_SECONDS", 0.2)
    go_on = threading.Event()

    def add(*_: Any, **__: Any) -> None:
        go_on.wait(30)

    monkeypatch.setattr(MemoryDriver, "add", add)
    try:
        with pytest.raises(Unavailable):
            await memory.put(str(uuid.uuid4()), blocks(bytes(length)), None)
        assert "hangs in the store's driver" in caplog.text
    finally:
        go_on.set()


async def test_an_upload_that_waits_for_a_thread_can_be_given_up(
    memory: AdaptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    busy = [memory._uploads.submit(go_on.wait, 30) for _ in range(adapter.UPLOAD_THREADS)]
    try:
        with pytest.raises(BrokenOff):
            await asyncio.wait_for(memory.put("x", blocks(bytes(2 * BLOCK), fail_after=5), None), 5)
    finally:
        go_on.set()
        wait(busy)
    assert not MemoryDriver.kept
