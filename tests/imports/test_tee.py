"""One stream into several stores, each a real directory; what is slow or fails is made of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from glimpse.errors import BadRequest, StoreFull, Unavailable
from glimpse.imports.tee import AHEAD, put_in_all
from glimpse.stores import file
from glimpse.stores.driver import BLOCK, Stored
from glimpse.stores.registry import ConfiguredStore

IMAGE = "an-image"


class Directory(file.FileStore):
    """A file store that waits for a while with each block, or fails after some of them."""

    def __init__(self, folder: Path, pause: float = 0.0, fails_after: int | None = None) -> None:
        options = {option.dest: option.default for option in file.OPTIONS}
        super().__init__({**options, "filesystem_store_datadir": str(folder)}, "[test]")
        self.folder = folder
        self._pause = pause
        self._fails_after = fails_after

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        return await super().put(image_id, self._troubled(blocks), size)

    async def _troubled(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        taken = 0
        async for block in blocks:
            await asyncio.sleep(self._pause)
            if taken == self._fails_after:
                raise StoreFull("The store is full.")
            taken += 1
            yield block

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def stores(*directories: Directory) -> list[ConfiguredStore]:
    return [ConfiguredStore(directory.folder.name, 0, directory) for directory in directories]


class Source:
    """So many blocks; `given` of them were asked for."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.given = 0

    async def blocks(self) -> AsyncIterator[bytes]:
        for number in range(self.count):
            self.given += 1
            yield bytes([number % 251]) * BLOCK
        if self.error is not None:
            raise self.error

    @property
    def content(self) -> bytes:
        return b"".join(bytes([number % 251]) * BLOCK for number in range(self.count))


async def test_every_store_gets_all_of_it(tmp_path: Path) -> None:
    source = Source(12)
    places = [Directory(tmp_path / "a"), Directory(tmp_path / "b", pause=0.005), Directory(tmp_path / "c")]
    stored, failures = await put_in_all(stores(*places), IMAGE, source.blocks(), None, True)
    assert (sorted(stored), failures, source.given) == (["a", "b", "c"], {}, 12)
    assert {place.folder.joinpath(IMAGE).read_bytes() == source.content for place in places} == {True}


async def test_the_slowest_store_sets_the_pace(tmp_path: Path) -> None:
    source = Source(40)
    slow = Directory(tmp_path / "slow", pause=0.02)
    work = asyncio.create_task(
        put_in_all(stores(Directory(tmp_path / "quick"), slow), IMAGE, source.blocks(), None, True)
    )
    await asyncio.sleep(0.2)
    assert source.given <= 0.2 / 0.02 + AHEAD + 3
    await work


@pytest.mark.parametrize("after", [0, 3, 11])
async def test_one_that_fails_is_left_behind(tmp_path: Path, after: int) -> None:
    source = Source(12)
    good, full = Directory(tmp_path / "good"), Directory(tmp_path / "full", fails_after=after)
    stored, failures = await put_in_all(stores(full, good), IMAGE, source.blocks(), None, False)
    assert (list(stored), list(failures)) == (["good"], ["full"])
    assert good.folder.joinpath(IMAGE).read_bytes() == source.content
    assert full.files() == []


@pytest.mark.parametrize("after", [0, 3, 11])
async def test_one_that_fails_ends_it_where_all_have_to_succeed(tmp_path: Path, after: int) -> None:
    source = Source(12)
    good, full = Directory(tmp_path / "good", pause=0.01), Directory(tmp_path / "full", fails_after=after)
    with pytest.raises(StoreFull):
        await put_in_all(stores(good, full), IMAGE, source.blocks(), None, True)
    assert full.files() == []
    assert good.files() in ([], [IMAGE])  # never a part of it


@pytest.mark.parametrize("must_succeed", [True, False])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_source_that_fails_leaves_nothing(tmp_path: Path, must_succeed: bool, count: int) -> None:
    places = [Directory(tmp_path / name) for name in "ab"[:count]]
    with pytest.raises(BadRequest):
        await put_in_all(stores(*places), IMAGE, Source(5, BadRequest("cut")).blocks(), None, must_succeed)
    assert [place.files() for place in places] == [[]] * count


async def test_all_of_them_fail(tmp_path: Path) -> None:
    source = Source(100)
    places = [Directory(tmp_path / name, fails_after=2) for name in "ab"]
    with pytest.raises((StoreFull, Unavailable)):
        await put_in_all(stores(*places), IMAGE, source.blocks(), None, False)
    assert source.given < 20  # nobody reads on for nothing
    stored, failures = await put_in_all(stores(places[0]), IMAGE, Source(5).blocks(), None, False)
    assert (stored, list(failures)) == ({}, ["a"])


async def test_work_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    places = [Directory(tmp_path / name, pause=0.02) for name in "ab"]
    work = asyncio.create_task(put_in_all(stores(*places), IMAGE, Source(100).blocks(), None, True))
    await asyncio.sleep(0.15)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [place.files() for place in places] == [[], []]
