"""A copy while it is made: who reads the store, who gets what, and what is left when somebody dies."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from glimpse.cache.copies import Cache
from glimpse.cache.copying import COMPLETE, FILLING, NO_ROOM
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.errors import Unavailable
from glimpse.stores.driver import GrowingReader

from .conftest import MIB, Place, image_of
from .test_copies import content


@pytest.fixture
async def other(cache: Cache, database: Database) -> AsyncIterator[Cache]:
    """The same folder in another process, as far as locks can tell."""
    made = Cache(cache._settings, database)
    yield made
    await made.stop()


async def test_two_hundred_readers_one_read(cache: Cache, other: Cache) -> None:
    data = os.urandom(4 * MIB)
    image, near, far = image_of(data), Place(data), Place(data)
    near.pause = far.pause = lambda offset: asyncio.sleep(0.02)

    async def download(number: int) -> bytes:
        await asyncio.sleep(number / 1000)
        through, source = (cache, near) if number % 2 == 0 else (other, far)
        return await content(await through.read(image, source.open))

    results = await asyncio.gather(*(download(number) for number in range(200)))
    assert all(result == data for result in results)
    assert near.reads + far.reads == [0]
    assert [copy.image_id for copy in cache.held()] == [image.id]


async def test_bytes_come_before_the_store_has_given_all_but_the_last_only_after_the_check(
    cache: Cache, other: Cache
) -> None:
    data = os.urandom(MIB)
    image, place, go_on = image_of(data), Place(data, block=MIB // 2), asyncio.Event()
    place.pause = lambda offset: go_on.wait() if offset else None
    near = await cache.read(image, place.open)
    far = await other.read(image, Place(data).open)
    for reader in (near, far):
        assert isinstance(reader, GrowingReader)
        async with asyncio.timeout(5):
            assert await reader.beyond(0) == MIB // 2
        assert os.pread(reader.file.fileno(), MIB // 2, 0) == data[: MIB // 2]
    place.data = data[:-1] + bytes([data[-1] ^ 1])
    go_on.set()
    for reader in (near, far):
        assert isinstance(reader, GrowingReader)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(5):
                while True:
                    assert await reader.beyond(MIB - 1) < MIB
        with pytest.raises(Unavailable):
            await content(reader)
    assert await cache.read(image, None) is None
    assert [path.name for path in (cache.directory.root / "invalid").iterdir()] == [image.id]
    assert not cache.directory.is_filling(image.id)


@pytest.mark.parametrize("wrong", [b"", b"short", b"a bit longer than it should be"])
async def test_another_size(cache: Cache, wrong: bytes) -> None:
    image = image_of(b"what it should be")
    with pytest.raises(Unavailable):
        await content(await cache.read(image, Place(wrong).open))
    assert cache.held() == []
    assert cache.directory.held() == {}


async def test_a_store_that_does_not_answer(cache: Cache, other: Cache) -> None:
    image, place = image_of(b"content"), Place(b"content")
    place.failure = Unavailable("not now")
    for through in (cache, other):
        with pytest.raises(Unavailable, match="not now"):
            await through.read(image, place.open)
        assert not cache.directory.is_filling(image.id)
    place.failure = None
    assert await content(await other.read(image, place.open)) == b"content"


async def test_a_slow_reader_holds_up_nobody(cache: Cache) -> None:
    data = os.urandom(2 * MIB)
    image, place = image_of(data), Place(data)
    slow = await cache.read(image, place.open)
    await cache.fetch(image, place.open)
    assert await content(await cache.read(image, None)) == data
    assert await content(slow) == data
    assert place.reads == [0]


async def test_an_image_that_is_deleted_while_it_is_copied(cache: Cache) -> None:
    data = os.urandom(MIB)
    image, place, go_on = image_of(data), Place(data), asyncio.Event()
    place.pause = lambda offset: go_on.wait() if offset else None
    reader = await cache.read(image, place.open)
    await asyncio.to_thread(cache.forget, image.id)
    go_on.set()
    assert await content(reader) == data
    await cache.stop()
    assert cache.held() == []
    assert not list(cache.directory.root.rglob(image.id))


@pytest.mark.parametrize(("ranges", "reads"), [(True, [MIB]), (False, [0])])
async def test_what_was_left_is_gone_on_with(cache: Cache, ranges: bool, reads: list[int]) -> None:
    data = os.urandom(2 * MIB)
    image, place = image_of(data), Place(data, ranges)
    cache.directory.incomplete(image.id).write_bytes(data[:MIB])
    assert await content(await cache.read(image, place.open)) == data
    assert place.reads == reads


async def test_what_was_complete_needs_no_store(cache: Cache) -> None:
    """Killed between the check and the name; nobody believes the mode, so it is checked again."""
    data = os.urandom(MIB)
    image, place = image_of(data), Place(data)
    left = cache.directory.incomplete(image.id)
    left.write_bytes(data)
    left.chmod(COMPLETE)
    assert await content(await cache.read(image, place.open)) == data
    assert place.reads == []
    await cache.stop()
    assert cache.directory.held().keys() == {image.id}


async def test_what_was_left_and_is_wrong(cache: Cache) -> None:
    """Power failed, or it is of other data."""
    data = os.urandom(MIB)
    image, place = image_of(data), Place(data, ranges=True)
    left = cache.directory.incomplete(image.id)
    left.write_bytes(bytes(MIB // 2))
    with pytest.raises(Unavailable):
        await content(await cache.read(image, place.open))
    assert await content(await cache.read(image, place.open)) == data
    other = image_of(data)
    left = cache.directory.incomplete(other.id)
    left.write_bytes(bytes(MIB // 2))
    long_ago = other.updated_at.timestamp() - 1000000
    os.utime(left, (long_ago, long_ago))
    assert await content(await cache.read(other, place.open)) == data


async def test_what_was_left_and_nothing_tells_whether_it_is_right(cache: Cache) -> None:
    data = os.urandom(MIB)
    image, place = image_of(data, checksum=None), Place(data, ranges=True)
    cache.directory.incomplete(image.id).write_bytes(bytes(MIB // 2))
    assert await content(await cache.read(image, place.open)) == data
    assert place.reads == [0]


async def test_another_process_while_the_disk_is_waited_for(
    cache: Cache, other: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy was checked and has no name yet: nobody needs the store any more, whoever asks first or later."""
    data = os.urandom(MIB)
    image, place, unused, synced = image_of(data), Place(data), Place(data), threading.Event()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.wait(), fsync(number)))
    try:
        assert await content(await cache.read(image, place.open)) == data
        assert cache.directory.held() == {}
        for _ in range(3):
            assert await content(await other.read(image, unused.open)) == data
        assert unused.reads == []
        await other.stop()  # nor is anybody waited for who has another's disk to wait for
    finally:
        synced.set()
    await cache.stop()
    assert cache.directory.held().keys() == {image.id}


def test_whoever_has_the_cache_opens_its_files_at_any_moment() -> None:
    """Root may always, a service has to be let."""
    assert all(mode & 0o600 == 0o600 for mode in (FILLING, COMPLETE, NO_ROOM))


async def test_no_room(cache: Cache, other: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up in the middle: whoever reads gets the rest from the store."""
    data = os.urandom(2 * MIB)
    image, near, far = image_of(data), Place(data), Place(data)
    near.pause = lambda offset: asyncio.sleep(0.1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        readers = [await cache.read(image, near.open), await other.read(image, far.open)]
        assert [await content(reader) for reader in readers] == [data, data]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (near.reads, far.reads) == ([0, 0], [0])
    assert not list(cache.directory.root.rglob(image.id))

    monkeypatch.setattr(cache.directory, "free", lambda: 0)
    assert await cache.read(image, near.open) is None
    assert not list(cache.directory.root.rglob(image.id))


_FILLER = """
import asyncio, os, sys, time
from pathlib import Path
from glimpse.cache.copies import Cache
from glimpse.db.engine import Database
from tests.cache.conftest import Place, image_of, settings_in
from tests.db.test_schema import database_settings

folder, image_id, driver = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
data = (folder / "data").read_bytes()
database = Database(database_settings(folder, f"sqlite:///{folder}/glance.sqlite"), 2)

async def main():
    cache, place = Cache(settings_in(folder, driver), database), Place(data)
    def pause(offset):
        if offset >= len(data) // 2:
            print("half", flush=True)
            time.sleep(60)
    place.pause = pause
    await cache.fetch(image_of(data, id=image_id), place.open)

asyncio.run(main())
"""


async def test_the_process_that_fills_is_killed(cache: Cache, tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    (tmp_path / "data").write_bytes(data)
    image, place = image_of(data), Place(data, ranges=True)
    filler = subprocess.Popen(
        [sys.executable, "-c", _FILLER, str(tmp_path), image.id, cache._settings.driver], stdout=subprocess.PIPE
    )
    try:
        assert filler.stdout is not None
        assert await asyncio.to_thread(filler.stdout.readline) == b"half\n"
        readers = [await cache.read(image, place.open) for _ in range(5)]
        downloads = [asyncio.create_task(content(reader)) for reader in readers]
        await asyncio.sleep(0.2)
        assert place.reads == []
        assert not any(download.done() for download in downloads)
        assert await cache.read(image, None) is None  # nothing that could be taken for a copy
        filler.send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert [await download for download in downloads] == [data] * 5
        assert time.monotonic() - began < 5
    finally:
        filler.kill()
        filler.wait()
        filler.stdout.close()  # type: ignore[union-attr]
    assert len(place.reads) == 1
    assert place.reads[0] > 0  # it went on where the other stopped
    await cache.stop()
    assert [copy.image_id for copy in cache.held()] == [image.id]


async def test_an_image_that_got_other_data_while_another_process_copies(cache: Cache, other: Cache) -> None:
    old, new = bytes(MIB), os.urandom(MIB)
    image, place, go_on = image_of(old), Place(old), asyncio.Event()
    place.pause = lambda offset: go_on.wait() if offset else None
    first = await cache.read(image, place.open)
    changed = image_of(new, id=image.id, updated_at=lifecycle.now())
    assert await cache.read(changed, Place(new).open) is None  # the same process knows
    second = await other.read(changed, Place(new).open)
    go_on.set()
    assert await content(first) == old
    with pytest.raises(Unavailable):
        await content(second)


async def test_other_data_and_no_checksum_to_tell(cache: Cache, other: Cache, database: Database) -> None:
    """A place was changed while its bytes came: the copy is not the image's, though it is younger than the change."""
    old, new = bytes(MIB), os.urandom(MIB)
    image, place, go_on = image_of(old, checksum=None), Place(old), asyncio.Event()
    place.pause = lambda offset: go_on.wait() if offset else None
    first = await cache.read(image, place.open)
    same = await other.read(image, Place(new).open)
    changed = image.with_(updated_at=image.updated_at + timedelta(seconds=1))
    assert await cache.read(changed, Place(new).open) is None
    third = Cache(cache._settings, database)
    second = await third.read(changed, Place(new).open)
    go_on.set()
    assert [await content(first), await content(same)] == [old, old]
    with pytest.raises(Unavailable):
        await content(second)
    for each in (cache, other, third):
        await each.stop()
    assert await content(await cache.read(image, None)) == old
    assert await content(await cache.read(changed, Place(new).open)) == new
