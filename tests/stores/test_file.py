"""The file store: the conformance suite on its variants, and what only directories have."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from glimpse.errors import SettingsError, StoreFull
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.file import OPTIONS, FileStore

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


def make(directory: Path, **options: Any) -> FileStore:
    return FileStore({**DEFAULTS, "filesystem_store_datadir": str(directory), **options}, "[test]")


async def harness_of(store: FileStore, root: Path) -> Harness:
    async def place(content: bytes) -> str:
        path = root / "elsewhere" / str(uuid.uuid4())
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path.as_uri()

    def leftovers() -> int:
        return sum(1 for path in root.rglob("*") if path.is_file() and path.parent.name != "elsewhere")

    return Harness(store, place, (root / "missing").as_uri(), leftovers)


class TestFileStore(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        store = make(tmp_path / "images")
        yield await harness_of(store, tmp_path)
        await store.close()


class TestThinFileStore(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        store = make(tmp_path / "images", filesystem_thin_provisioning=True, filesystem_store_timeout=30)
        yield await harness_of(store, tmp_path)
        await store.close()


class TestSeveralDirectories(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        store = make(tmp_path, filesystem_store_datadirs=[f"{tmp_path}/a:10", f"{tmp_path}/b:20"])
        yield await harness_of(store, tmp_path)
        await store.close()


async def test_holes_take_no_room(tmp_path: Path) -> None:
    store = make(tmp_path, filesystem_thin_provisioning=True)
    content = b"start" + bytes(8 << 20)
    stored = await store.put("image", blocks(content), None)
    assert await read(store, stored.url) == content
    assert (tmp_path / "image").stat().st_blocks * 512 < 1 << 20


async def test_what_is_sparse_stays_sparse(tmp_path: Path) -> None:
    sparse, size = tmp_path / "sparse", 64 << 20
    with sparse.open("wb") as file:
        file.write(b"first")
        file.seek(size - 4)
        file.write(b"last")
    store = make(tmp_path / "images")
    reader = await store.open(sparse.as_uri())
    stored = await store.put("an-image", reader.stream(0, None), size)
    await reader.close()
    kept = tmp_path / "images" / "an-image"
    assert stored.size == size
    assert kept.read_bytes() == sparse.read_bytes()
    assert kept.stat().st_blocks * 512 <= 4 << 20


async def test_the_highest_priority_takes_the_image(tmp_path: Path) -> None:
    store = make(tmp_path, filesystem_store_datadirs=[f"{tmp_path}/low:1", f"{tmp_path}/high:2"])
    await store.put("image", blocks(b"x"), 1)
    assert (tmp_path / "high" / "image").read_bytes() == b"x"


async def test_an_image_larger_than_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreFull):
        await make(tmp_path).put("image", blocks(b"x"), 1 << 60)


async def test_file_permissions(tmp_path: Path) -> None:
    await make(tmp_path / "images", filesystem_store_file_perm=644).put("image", blocks(b"x"), 1)
    assert (tmp_path / "images" / "image").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "images").stat().st_mode & 0o011 == 0o011


async def test_discard_finds_the_parts_of_a_killed_upload(tmp_path: Path) -> None:
    (tmp_path / ".abc.0011.part").write_bytes(b"half")
    (tmp_path / ".other.0011.part").write_bytes(b"half")
    await make(tmp_path).discard("abc")
    assert os.listdir(tmp_path) == [".other.0011.part"]


async def test_metadata_of_the_mount(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(f'[{{"id": "m1", "mountpoint": "/nowhere"}}, {{"id": "m2", "mountpoint": "{tmp_path}"}}]')
    store = make(tmp_path / "images", filesystem_store_metadata_file=str(facts))
    assert (await store.put("image", blocks(b"x"), 1)).metadata == {"id": "m2", "mountpoint": str(tmp_path)}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("filesystem_store_file_perm", 40),
        ("filesystem_store_file_perm", 999),
        ("filesystem_store_datadirs", ["/tmp/a:x"]),
        ("filesystem_store_datadirs", ["/tmp/a", "/tmp/a:5"]),
        ("filesystem_store_metadata_file", "/does/not/exist"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"\\[test\\] {option}"):
        make(tmp_path, **{option: value})
