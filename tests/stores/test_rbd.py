"""The RBD store on a real Ceph: the conformance suite, and what only Ceph has."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from glimpse.errors import Conflict, Forbidden, NotFound, SettingsError, StoreFull, Unavailable, Unconfigured
from glimpse.stores.conformance import BrokenOff, Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK, HOLE, LendingStore, LinkingStore, PersonalStore, SharingStore
from glimpse.stores.rbd import OPTIONS, RbdStore
from tests.rig.ceph import POOL, Ceph
from tests.rig.process import free_port

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


def make(ceph: Ceph, **options: Any) -> RbdStore:
    return RbdStore({**DEFAULTS, "rbd_store_ceph_conf": str(ceph.conf), **options}, "[test]")


async def harness_of(store: RbdStore, ceph: Ceph, folder: Path) -> Harness:
    async def place(content: bytes) -> str:
        name = f"placed-{uuid.uuid4()}"
        (folder / name).write_bytes(content)
        if content:
            ceph.rbd("import", str(folder / name), f"{POOL}/{name}")
        else:
            ceph.rbd("create", "--size", "0", f"{POOL}/{name}")
        ceph.rbd("snap", "create", f"{POOL}/{name}@snap")
        return f"rbd://{ceph.fsid}/{POOL}/{name}/snap"

    def leftovers() -> int:
        images = json.loads(ceph.rbd("ls", POOL, "--format", "json"))
        return len([name for name in images if not name.startswith("placed-")])

    return Harness(store, place, f"rbd://{ceph.fsid}/{POOL}/{uuid.uuid4()}/snap", leftovers)


class TestRbdStore(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, ceph: Ceph, tmp_path: Path) -> AsyncIterator[Harness]:
        store = make(ceph)
        yield await harness_of(store, ceph, tmp_path)
        await store.close()


class TestThinRbdStoreOfSmallChunks(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, ceph: Ceph, tmp_path: Path) -> AsyncIterator[Harness]:
        store = make(ceph, rbd_store_chunk_size=1, rbd_thin_provisioning=True, rados_connect_timeout=20)
        yield await harness_of(store, ceph, tmp_path)
        await store.close()


@pytest.fixture
async def store(ceph: Ceph) -> AsyncIterator[RbdStore]:
    """With small chunks, and little patience."""
    store = make(ceph, rbd_store_chunk_size=1, rados_connect_timeout=1)
    yield store
    await store.close()


@pytest.fixture
def image_id(ceph: Ceph) -> Iterator[str]:
    """The id of an image of which the test leaves nothing."""
    name = str(uuid.uuid4())
    yield name
    assert name not in images(ceph)


def images(ceph: Ceph) -> list[str]:
    return list(json.loads(ceph.rbd("ls", POOL, "--format", "json")))


def info(ceph: Ceph, image_id: str) -> dict[str, Any]:
    return dict(json.loads(ceph.rbd("info", f"{POOL}/{image_id}", "--format", "json")))


def objects(ceph: Ceph, image_id: str) -> list[int]:
    """Which chunks of an image are there."""
    prefix = info(ceph, image_id)["block_name_prefix"] + "."
    names = ceph.run("rados", "-p", POOL, "ls").decode().split()
    return sorted(int(name.removeprefix(prefix), 16) for name in names if name.startswith(prefix))


async def in_blocks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# --- what is in the pool ---------------------------------------------------------------------------------------------


async def test_an_image_is_what_glance_and_the_tools_of_ceph_expect(
    store: RbdStore, ceph: Ceph, image_id: str, tmp_path: Path
) -> None:
    content = secrets.token_bytes(3 * BLOCK + 5)
    stored = await store.put(image_id, blocks(content), len(content))
    assert stored.url == f"rbd://{ceph.fsid}/{POOL}/{image_id}/snap"
    facts = info(ceph, image_id)
    assert (facts["size"], facts["order"], facts["format"]) == (len(content), 20, 2)
    assert "layering" in facts["features"]
    (snapshot,) = json.loads(ceph.rbd("snap", "ls", f"{POOL}/{image_id}", "--format", "json"))
    assert (snapshot["name"], snapshot["size"], snapshot["protected"]) == ("snap", len(content), "true")
    ceph.rbd("export", f"{POOL}/{image_id}@snap", str(tmp_path / "exported"))
    assert (tmp_path / "exported").read_bytes() == content
    await store.delete(stored.url)


async def test_locations_of_old_times_name_the_image_only(store: RbdStore, ceph: Ceph, tmp_path: Path) -> None:
    content, name = secrets.token_bytes(BLOCK + 1), f"placed-{uuid.uuid4()}"
    (tmp_path / "x").write_bytes(content)
    ceph.rbd("import", str(tmp_path / "x"), f"{POOL}/{name}")
    assert await read(store, f"rbd://{name}") == content
    await store.delete(f"rbd://{name}")
    with pytest.raises(NotFound):
        await store.delete(f"rbd://{name}")


@pytest.mark.parametrize(
    "url",
    [
        "rbd://",
        "rbd://a/b",
        "rbd://a/b/c",
        "rbd://a/b//d",
        "rbd://a/b/c/d/e",
        "rbd://ä",
        "rbd://a/%62/c/d",
        "RBD:/x",
        "file:///x",
    ],
)
async def test_locations_that_are_none(store: RbdStore, url: str) -> None:
    assert not store.owns(url)
    with pytest.raises(NotFound):
        await store.open(url)
    with pytest.raises(NotFound):
        await store.delete(url)


async def test_an_image_is_not_deleted_by_another_name(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    stored = await store.put(image_id, blocks(b"x"), None)
    with pytest.raises(Forbidden):
        await store.delete(f"rbd://{uuid.uuid4()}/{POOL}/{image_id}/snap")
    with pytest.raises(Conflict):
        await store.delete(f"rbd://{image_id}")
    assert await read(store, stored.url) == b"x"
    await store.delete(stored.url)


async def test_what_a_store_of_this_kind_can_do(store: RbdStore) -> None:
    assert isinstance(store, LendingStore)
    assert not isinstance(store, SharingStore | PersonalStore | LinkingStore)


async def test_owns_what_is_in_its_pool_of_its_cluster(store: RbdStore, ceph: Ceph) -> None:
    assert store.details == {"chunk_size": BLOCK, "pool": POOL, "thin_provisioning": False, "fsid": ceph.fsid}
    assert store.owns(f"rbd://{ceph.fsid}/{POOL}/x/snap")
    assert not store.owns(f"rbd://{uuid.uuid4()}/{POOL}/x/snap")
    assert not store.owns(f"rbd://{ceph.fsid}/volumes/x/snap")


async def test_an_image_of_unknown_size_grows_and_is_trimmed(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    content = secrets.token_bytes(21 * BLOCK + 3)
    stored = await store.put(image_id, blocks(content), None)
    assert info(ceph, image_id)["size"] == len(content)
    assert objects(ceph, image_id) == list(range(22))
    assert await read(store, stored.url) == content
    await store.delete(stored.url)


@pytest.mark.parametrize("announced", [1, 5 * BLOCK])
async def test_the_size_is_that_of_the_bytes_whatever_was_announced(
    store: RbdStore, ceph: Ceph, image_id: str, announced: int
) -> None:
    content = secrets.token_bytes(2 * BLOCK + 3)
    stored = await store.put(image_id, blocks(content), announced)
    assert info(ceph, image_id)["size"] == stored.size == len(content)
    assert await read(store, stored.url) == content
    await store.delete(stored.url)


@pytest.mark.parametrize("thin", [True, False])
async def test_holes_are_not_written(ceph: Ceph, image_id: str, thin: bool) -> None:
    store = make(ceph, rbd_store_chunk_size=2, rbd_thin_provisioning=thin)
    data, zeros = secrets.token_bytes(BLOCK), bytes(bytearray(BLOCK))
    parts = [data, HOLE, HOLE, HOLE, zeros, zeros, data[:-7], data, zeros, zeros, HOLE, HOLE]
    stored = await store.put(image_id, in_blocks(*parts), None)
    assert info(ceph, image_id)["size"] == stored.size == 12 * BLOCK - 7
    assert objects(ceph, image_id) == ([0, 3] if thin else [0, 2, 3, 4])
    reader = await store.open(stored.url)
    got = [block async for block in reader.stream(0, None)]
    await reader.close()
    assert b"".join(got) == b"".join(parts)
    assert sum(1 for block in got if block is HOLE) >= 5
    await store.delete(stored.url)
    await store.close()


async def test_blocks_of_any_length(store: RbdStore, image_id: str) -> None:
    content = secrets.token_bytes(3 * BLOCK)
    cuts = [0, 1, 2, BLOCK - 1, BLOCK + 5, 3 * BLOCK]
    stored = await store.put(image_id, in_blocks(*(content[a:b] for a, b in pairwise(cuts))), None)
    assert await read(store, stored.url) == content
    assert await read(store, stored.url, BLOCK - 1, 2) == content[BLOCK - 1 : BLOCK + 1]
    assert await read(store, stored.url, 3 * BLOCK - 1, 100) == content[-1:]
    await store.delete(stored.url)


async def test_many_transfers_share_the_memory(store: RbdStore, image_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glimpse.stores.rbd_pool.MEMORY", 6 * BLOCK)
    content = secrets.token_bytes(9 * BLOCK + 1)
    stored = await store.put(image_id, blocks(content), None)
    readers = [await store.open(stored.url) for _ in range(20)]
    assert store.pool.portion < BLOCK
    others = [f"{image_id}-{number}" for number in range(3)]
    puts = await asyncio.gather(*(store.put(name, blocks(content), len(content)) for name in others))
    for reader in readers:
        assert b"".join([block async for block in reader.stream(0, None)]) == content
        await reader.close()
    assert store.pool.portion == 4 * BLOCK
    for each in (stored, *puts):
        assert await read(store, each.url) == content
        await store.delete(each.url)


# --- clones and snapshots of others ----------------------------------------------------------------------------------


async def test_an_image_with_clones_stays(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    content = secrets.token_bytes(BLOCK + 9)
    stored = await store.put(image_id, blocks(content), None)
    assert not await store.in_use(stored.url)
    clone = f"volume-{uuid.uuid4()}"
    ceph.rbd("clone", f"{POOL}/{image_id}@snap", f"{POOL}/{clone}")
    assert await store.in_use(stored.url)
    with pytest.raises(Conflict):
        await store.delete(stored.url)
    assert await read(store, stored.url) == content
    ceph.rbd("rm", f"{POOL}/{clone}")
    assert not await store.in_use(stored.url)
    await store.delete(stored.url)


async def test_a_snapshot_of_a_server_is_a_clone_and_an_image(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    content = secrets.token_bytes(BLOCK + 9)
    parent = await store.put(image_id, blocks(content), None)
    child = str(uuid.uuid4())
    ceph.rbd("clone", f"{POOL}/{image_id}@snap", f"{POOL}/{child}")
    ceph.rbd("snap", "create", f"{POOL}/{child}@snap")
    ceph.rbd("snap", "protect", f"{POOL}/{child}@snap")
    url = f"rbd://{ceph.fsid}/{POOL}/{child}/snap"
    assert await store.stat(url) == len(content)
    assert await read(store, url) == content
    await store.delete(url)
    await store.delete(parent.url)
    assert child not in images(ceph)


async def test_an_image_with_clones_that_hold_it_by_themselves_goes_to_the_trash(
    store: RbdStore, ceph: Ceph, image_id: str
) -> None:
    stored = await store.put(image_id, blocks(b"x"), None)
    clone = f"volume-{uuid.uuid4()}"
    ceph.rbd("clone", "--rbd-default-clone-format", "2", f"{POOL}/{image_id}@snap", f"{POOL}/{clone}")
    assert not await store.in_use(stored.url)
    await store.delete(stored.url)
    assert image_id not in images(ceph)
    assert ceph.rbd("export", f"{POOL}/{clone}", "-") == b"x"
    ceph.rbd("rm", f"{POOL}/{clone}")
    ceph.rbd("trash", "purge", POOL)


async def test_an_image_with_snapshots_of_others_goes_to_the_trash(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    stored = await store.put(image_id, blocks(b"x"), None)
    ceph.rbd("snap", "create", f"{POOL}/{image_id}@mine")
    await store.delete(stored.url)
    (entry,) = json.loads(ceph.rbd("trash", "ls", POOL, "--format", "json"))
    assert entry["name"] == image_id
    ceph.rbd("trash", "restore", f"{POOL}/{entry['id']}")
    ceph.rbd("snap", "purge", f"{POOL}/{image_id}")
    ceph.rbd("rm", f"{POOL}/{image_id}")


async def test_an_image_that_somebody_has_open_to_write_keeps_its_snapshot(
    store: RbdStore, ceph: Ceph, image_id: str
) -> None:
    stored = await store.put(image_id, blocks(b"x"), None)
    somebody = make(ceph)
    connection = await somebody.cluster.connected()
    with somebody.pool.opened(connection) as ioctx, somebody.pool.rbd.Image(ioctx, image_id), pytest.raises(Conflict):
        await store.delete(stored.url)
    assert await read(store, stored.url) == b"x"
    await store.delete(stored.url)
    await somebody.close()


# --- faults ----------------------------------------------------------------------------------------------------------


async def ticks(worst: list[float]) -> None:
    """Notes for how long the event loop was held up at most."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        worst[0] = max(worst[0], time.monotonic() - before)


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_a_cluster_that_goes_away_and_comes_back(
    store: RbdStore, ceph: Ceph, image_id: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glimpse.stores.rbd_transfers.MARGIN", 3)
    content, worst = secrets.token_bytes(30 * BLOCK), [0.0]
    ticking = asyncio.create_task(ticks(worst))
    kept = await store.put(str(uuid.uuid4()), blocks(content), None)
    reader = await store.open(kept.url)
    stream = reader.stream(0, None)
    assert await anext(stream) == content[:BLOCK]

    async def broken() -> AsyncIterator[bytes]:
        async for number, block in enumerated(blocks(content)):
            if number == 3:
                await asyncio.to_thread(ceph.stop_osd if fault == "stopped" else ceph.freeze)
            yield block

    try:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await store.put(image_id, broken(), len(content))
        with pytest.raises(Unavailable):
            async for _ in stream:
                pass
        many = await asyncio.gather(*(store.open(kept.url) for _ in range(40)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in many)
        with pytest.raises(Unavailable):
            await store.check()
        assert time.monotonic() - began < 60
        await reader.close()
        ticking.cancel()
        assert worst[0] < 1
    finally:
        # Not in a thread: a server ends with the thread that started it.
        if fault == "stopped":
            ceph.start_osd()
        else:
            ceph.thaw()
    assert await read(store, kept.url) == content
    await store.check()
    await store.discard(image_id)
    assert image_id not in images(ceph)
    stored = await store.put(image_id, blocks(content), None)
    await store.delete(stored.url)
    await store.delete(kept.url)


async def enumerated(stream: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for block in stream:
        yield number, block
        number += 1


async def test_a_pool_that_gets_full(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    content = secrets.token_bytes(8 * BLOCK)
    kept = await store.put(str(uuid.uuid4()), blocks(content), None)

    async def more() -> AsyncIterator[bytes]:
        async for number, block in enumerated(blocks(content)):
            if number == 2:
                await asyncio.to_thread(ceph.fill)
            yield block

    try:
        with pytest.raises(StoreFull):
            await store.put(image_id, more(), len(content))
        assert image_id not in images(ceph)
        with pytest.raises(StoreFull):
            await store.put(image_id, blocks(content), None)
        assert await read(store, kept.url) == content
        await store.delete(kept.url)
    finally:
        await asyncio.to_thread(ceph.empty)
    stored = await store.put(image_id, blocks(content), None)
    await store.delete(stored.url)


async def test_a_cluster_that_is_not_there_yet(ceph: Ceph, image_id: str) -> None:
    ceph.stop()
    store = make(ceph, rados_connect_timeout=2)
    try:
        assert store.details["fsid"] == ceph.fsid
        with pytest.raises(Unavailable):
            await store.put(image_id, blocks(b"x"), 1)
        with pytest.raises(Unavailable):
            await store.check()
    finally:
        ceph.start()
    stored = await store.put(image_id, blocks(b"x"), 1)
    await store.delete(stored.url)
    await store.close()


_ENDLESS = """
import asyncio, sys
from glimpse.stores.rbd import OPTIONS, RbdStore

async def endless():
    while True:
        yield bytes(range(256)) * 4096
        print("one", flush=True)
        await asyncio.sleep(0.05)

async def main():
    options = {option.dest: option.default for option in OPTIONS}
    store = RbdStore({**options, "rbd_store_ceph_conf": sys.argv[1], "rbd_store_chunk_size": 1}, "[test]")
    await store.put(sys.argv[2], endless(), None)

asyncio.run(main())
"""


async def test_what_a_killed_process_left(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    other = await store.put(f"{image_id}-other", blocks(b"other"), None)
    with subprocess.Popen([sys.executable, "-c", _ENDLESS, str(ceph.conf), image_id], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(5):
            assert await asyncio.to_thread(child.stdout.readline) == b"one\n"
        child.kill()
    assert image_id in images(ceph)
    assert json.loads(ceph.rbd("snap", "ls", f"{POOL}/{image_id}", "--format", "json")) == []
    await store.discard(image_id)
    assert image_id not in images(ceph)
    assert await read(store, other.url) == b"other"
    await store.delete(other.url)


async def test_discard_does_not_wait_for_ever_for_somebody_who_writes(
    store: RbdStore, ceph: Ceph, image_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glimpse.stores.rbd.WATCH", 0.5)
    somebody = make(ceph)
    stored = await store.put(image_id, blocks(b"x"), None)
    connection = await somebody.cluster.connected()
    with (
        somebody.pool.opened(connection) as ioctx,
        somebody.pool.rbd.Image(ioctx, image_id),
        pytest.raises(Unavailable),
    ):
        await store.discard(image_id)
    await store.delete(stored.url)
    await somebody.close()


async def test_a_client_that_the_cluster_takes_for_dead_comes_back(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    shut_out = await store.cluster.connected()
    ceph.ceph("osd", "blocklist", "add", shut_out.get_addrs())
    with pytest.raises(Unavailable):
        await store.put(image_id, blocks(b"x"), None)
    stored = await store.put(image_id, blocks(b"x"), None)
    assert await store.cluster.connected() is not shut_out
    await store.delete(stored.url)


async def test_a_download_may_end_after_the_store(ceph: Ceph, store: RbdStore, image_id: str) -> None:
    stored = await store.put(image_id, blocks(b"x"), None)
    other = make(ceph)
    reader = await other.open(stored.url)
    await other.close()
    await reader.close()
    await store.delete(stored.url)


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.fixture
def conf(ceph: Ceph, tmp_path: Path) -> Path:
    """A copy of `ceph.conf` to change."""
    copy = tmp_path / "ceph.conf"
    copy.write_text(ceph.conf.read_text() + f"keyring = {tmp_path}/keyring\n")
    return copy


async def test_wrong_credentials(ceph: Ceph, conf: Path, tmp_path: Path) -> None:
    conf.write_text(conf.read_text().replace("auth client required = none", "auth client required = cephx"))
    for keyring in (None, "[client.glance]\nkey = AQBSdFhcAAAAABAAtVyzCZIKVX8P4gkVbVcWhQ==\n"):
        if keyring:
            (tmp_path / "keyring").write_text(keyring)
        store = make(ceph, rbd_store_ceph_conf=str(conf), rbd_store_user="glance", rados_connect_timeout=2)
        with pytest.raises(Unavailable) as caught:
            await store.put("x", blocks(b"x"), 1)
        assert str(tmp_path) not in caught.value.message
        await store.close()


async def test_a_pool_that_is_missing(ceph: Ceph) -> None:
    store = make(ceph, rbd_store_pool="nothing")
    for call in (
        store.put("x", blocks(b"x"), 1),
        store.open(f"rbd://{ceph.fsid}/nothing/x/snap"),
        store.delete("rbd://x"),
        store.discard("x"),
        store.check(),
    ):
        with pytest.raises(Unavailable):
            await call
    await store.close()


async def test_an_address_where_nobody_is(ceph: Ceph, conf: Path) -> None:
    text = [line for line in conf.read_text().splitlines() if not line.startswith("mon host")]
    conf.write_text("\n".join([*text, "[global]", f"mon host = 127.0.0.1:{free_port()}", ""]))
    store = make(ceph, rbd_store_ceph_conf=str(conf), rados_connect_timeout=1)
    for call in (store.put("x", blocks(b"x"), 1), store.open("rbd://x"), store.delete("rbd://x"), store.check()):
        with pytest.raises(Unavailable):
            await call
    await store.close()


@pytest.mark.parametrize(("options", "kind"), [
    ({"rbd_store_chunk_size": 64}, SettingsError),
    ({"rbd_store_ceph_conf": "/does/not/exist"}, Unconfigured),
])  # fmt: skip
def test_settings_that_cannot_work_are_named(ceph: Ceph, options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"\\[test\\] {next(iter(options))}"):
        make(ceph, **options)


@pytest.mark.parametrize("module", ["rados", "rbd"])
def test_without_the_libraries_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in ("rados", "rbd"):
        monkeypatch.setitem(sys.modules, name, None if name == module else ModuleType(name))
    with pytest.raises(Unconfigured, match=f"python3-{module}"):
        RbdStore(DEFAULTS, "[test]")


async def test_an_upload_that_is_late_spares_the_next_one(store: RbdStore, ceph: Ceph, image_id: str) -> None:
    """Somebody else has put away what there was, and the image has come again, before the first upload gives up."""
    other = make(ceph)

    async def slow() -> AsyncIterator[bytes]:
        yield secrets.token_bytes(2 * BLOCK)
        ceph.rbd("rename", f"{POOL}/{image_id}", f"{POOL}/{image_id}-away")
        await other.put(image_id, blocks(b"again"), 5)
        raise BrokenOff

    with pytest.raises(BrokenOff):
        await store.put(image_id, slow(), 9 * BLOCK)
    url = f"rbd://{ceph.fsid}/{POOL}/{image_id}/snap"
    assert await read(other, url) == b"again"
    await other.delete(url)
    await other.close()
    ceph.rbd("rm", f"{POOL}/{image_id}-away")
