"""A cache in a folder of the test, with each ledger, and places that its images come from."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from glimpse.cache.copies import Cache
from glimpse.cache.ledger import prepare
from glimpse.cache.reading import Source
from glimpse.cache_settings import CacheSettings
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.record import Image
from glimpse.stores.driver import Reader
from tests.db.opened import opened
from tests.db.test_schema import database_settings

MIB = 1 << 20


def image_of(data: bytes, **fields: object) -> Image:
    """A record with that content."""
    then = lifecycle.now() - timedelta(minutes=5)
    checksum = hashlib.md5(data).hexdigest()
    return Image(str(uuid.uuid4()), "active", "shared", then, then, size=len(data), checksum=checksum).with_(**fields)


class Place:
    """Somewhere that bytes are read from; `reads` has the offset of each read, `pause` runs before each block."""

    def __init__(self, data: bytes, ranges: bool = False, block: int = MIB // 4) -> None:
        self.data, self.ranges, self.block = data, ranges, block
        self.reads: list[int] = []
        self.failure: Exception | None = None
        self.pause: Callable[[int], object] = lambda offset: None

    async def open(self) -> Source:
        """An `Opener`."""
        if self.failure is not None:
            raise self.failure
        return Source(_Reading(self), self.ranges)


class _Reading(Reader):
    def __init__(self, place: Place) -> None:
        self._place = place
        self.size: int | None = len(place.data)

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        place = self._place
        place.reads.append(offset)
        end = len(place.data) if length is None else offset + length
        while offset < end:
            pausing = place.pause(offset)
            if asyncio.iscoroutine(pausing):
                await pausing
            block = place.data[offset : min(end, offset + place.block)]
            offset += len(block)
            yield block

    async def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(database_settings(tmp_path, f"sqlite:///{tmp_path}/glance.sqlite"), 4) as made:
        yield made


def settings_in(folder: Path, driver: str = "centralized_db", max_size: int = 100 * MIB) -> CacheSettings:
    """The options of a cache in `folder`/cache."""
    return CacheSettings(str(folder / "cache"), True, False, driver, max_size, 86400, "http://here:9292")


@pytest.fixture(params=["centralized_db", "xattr"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path, database: Database) -> AsyncIterator[Cache]:
    """A cache with each ledger."""
    settings = settings_in(tmp_path, request.param)
    prepare(settings)
    made = Cache(settings, database)
    yield made
    await made.stop()
