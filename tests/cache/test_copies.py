"""Finding copies, keeping house."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from glimpse.cache.copies import Cache
from glimpse.cache.ledger import prepare
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.record import Image
from glimpse.errors import NotFound, SettingsError, TooLarge
from glimpse.stores.driver import FileReader, GrowingReader, Reader

from .conftest import MIB, Place, image_of, settings_in


async def content(reader: Reader | None) -> bytes:
    """All of it."""
    assert reader is not None
    try:
        return b"".join([block async for block in reader.stream(0, None)])
    finally:
        await reader.close()


async def test_a_copy_is_made_and_found(cache: Cache) -> None:
    data = os.urandom(MIB + 3)
    image, place = image_of(data), Place(data)
    assert await cache.read(image, None) is None
    growing = await cache.read(image, place.open)
    assert isinstance(growing, GrowingReader)
    assert await content(growing) == data
    await cache.fetch(image, place.open)
    for _ in range(3):
        copy = await cache.read(image, None)
        assert isinstance(copy, FileReader)
        assert not isinstance(copy, GrowingReader)
        assert await content(copy) == data
    assert place.reads == [0]
    await cache.stop()
    (held,) = cache.held()
    assert (held.image_id, held.size, held.checksum, held.hits) == (image.id, len(data), image.checksum, 3)
    assert abs((held.last_accessed - lifecycle.now()).total_seconds()) < 10


async def test_a_checksum_in_capitals(cache: Cache) -> None:
    """Whoever gives an image a place may write it so."""
    image = image_of(b"bytes")
    loud = image.with_(checksum=str(image.checksum).upper())
    assert await content(await cache.read(loud, Place(b"bytes").open)) == b"bytes"
    await cache.stop()
    assert await content(await cache.read(loud, None)) == b"bytes"


async def test_a_part(cache: Cache) -> None:
    data = os.urandom(MIB)
    image, place = image_of(data), Place(data)
    for source in (place.open, None):
        reader = await cache.read(image, source)
        assert reader is not None
        assert b"".join([block async for block in reader.stream(1000, MIB // 2)]) == data[1000 : 1000 + MIB // 2]
        await reader.close()
        await cache.fetch(image, place.open)


async def test_copies_that_are_not_believed(cache: Cache) -> None:
    """Of other data; without a note; cut off; or of a record without a checksum that has changed since."""
    old, new = b"old data", b"new data"
    image, place = image_of(old), Place(old)
    await cache.fetch(image, place.open)
    assert await cache.read(image_of(new, id=image.id), None) is None
    assert cache.held() == []

    cache.directory.copy(image.id).write_bytes(old)
    assert await cache.read(image, None) is None
    assert not cache.directory.copy(image.id).exists()

    await cache.fetch(image, place.open)
    path = cache.directory.copy(image.id)
    path.chmod(0o640)
    os.truncate(path, 3)
    assert await cache.read(image, None) is None

    await cache.fetch(image, place.open)
    unknown = image.with_(checksum=None)
    copy = await cache.read(unknown, None)
    assert await content(copy) == old
    changed = unknown.with_(updated_at=lifecycle.now() + timedelta(seconds=1))
    assert await cache.read(changed, None) is None


async def test_what_does_not_fit(tmp_path: Path, database: Database) -> None:
    settings = settings_in(tmp_path, max_size=1000)
    prepare(settings)
    cache = Cache(settings, database)
    for image in (image_of(bytes(1001)), image_of(b""), image_of(b"x", size=None)):
        assert await cache.read(image, Place(b"").open) is None
        with pytest.raises(TooLarge):
            await cache.fetch(image, Place(b"").open)
    assert cache.directory.held() == {}


async def test_the_bound_holds_and_the_least_recently_asked_for_goes(tmp_path: Path, database: Database) -> None:
    for driver in ("centralized_db", "xattr"):
        settings = settings_in(tmp_path / driver, driver, max_size=1000)
        prepare(settings)
        cache = Cache(settings, database)
        images: list[Image] = []
        for number in range(3):
            data = os.urandom(300)
            images.append(image_of(data))
            await cache.fetch(images[-1], Place(data).open)
            hits = {images[-1].id: 1}
            # The second was asked for long ago, the first not so long ago.
            cache._ledger.hit(hits, lifecycle.now() - timedelta(hours=[2, 3, 1][number]))
        assert cache.prune() == (0, 0)
        data = os.urandom(500)
        images.append(image_of(data))
        await cache.fetch(images[-1], Place(data).open)
        assert cache.directory.held().keys() == {images[2].id, images[3].id}
        assert {copy.image_id for copy in cache.held()} == {images[2].id, images[3].id}
        leftovers = [cache.directory.root / name for name in ("incomplete/a", "invalid/b")]
        for path in leftovers:
            path.write_bytes(bytes(200))
        assert cache.prune() == (0, 0)
        assert not any(path.exists() for path in leftovers)
        assert cache.prune(room=500) == (1, 300)
        assert cache.clear() == 1
        assert cache.held() == []


async def test_tidying(cache: Cache) -> None:
    data = b"content"
    kept, lost = image_of(data), image_of(data)
    for image in (kept, lost):
        await cache.fetch(image, Place(data).open)
    stranger = cache.directory.copy("stranger")
    stranger.write_bytes(data)
    (cache.directory.root / "cache.db").write_bytes(b"of another driver")
    cache.directory.copy(lost.id).unlink()
    cache.tidy()
    assert not stranger.exists()
    assert (cache.directory.root / "cache.db").exists()
    assert [copy.image_id for copy in cache.held()] == [kept.id]
    for name, age in (("invalid/a", 0), ("incomplete/b", 0), ("incomplete/c", 90000)):
        path = cache.directory.root / name
        path.write_bytes(b"x")
        os.utime(path, (1, time.time() - age))
    cache.clean()
    left = sorted(
        path.name for folder in ("invalid", "incomplete") for path in (cache.directory.root / folder).iterdir()
    )
    assert left == ["b"]


def test_the_queue(tmp_path: Path, database: Database) -> None:
    settings = settings_in(tmp_path)
    prepare(settings)
    directory = Cache(settings, database).directory
    for name in ("b", "a"):
        directory.queue(name)
        time.sleep(0.01)
    assert directory.queued() == ["b", "a"]
    assert directory.unqueue("b")
    assert not directory.unqueue("b")
    for name in ("..", "../a", "queue", "a/b", "", ".x", "x" * 37, "ü"):
        with pytest.raises(NotFound):
            directory.queue(name)
        with pytest.raises(NotFound):
            directory.drop(name)


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SettingsError, match="image_cache_dir"):
        prepare(settings_in(tmp_path))


async def test_a_copy_that_is_dropped_while_it_is_read(cache: Cache) -> None:
    data = os.urandom(MIB)
    image = image_of(data)
    await cache.fetch(image, Place(data).open)
    copy = await cache.read(image, None)
    await asyncio.to_thread(cache.forget, image.id)
    assert await content(copy) == data
    assert cache.held() == []
