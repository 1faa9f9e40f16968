"""What the cache does by itself: it fetches what is queued, and forgets what was deleted on another node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glimpse.access.policy import Policy
from glimpse.cache.copies import Cache
from glimpse.cache.ledger import prepare
from glimpse.db import images
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.record import Image, Location
from glimpse.images.caching import Caching
from glimpse.settings import Settings, load
from glimpse.stores.registry import open_stores
from tests.cache.conftest import image_of
from tests.db.opened import opened

CONTENT = b"content"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        f"[DEFAULT]\nimage_cache_dir = {tmp_path}/cache\n[glance_store]\nstores = file,http\n"
        f"filesystem_store_datadir = {tmp_path}/images\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
        "[import_filtering_opts]\nallowed_hosts = [127.0.0.1]\nallowed_ports = []\n"
    )
    return load(["--config-file", str(conf)])


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with opened(settings.database, 2) as made:
        yield made


@pytest.fixture
def caching(settings: Settings, database: Database) -> Caching:
    prepare(settings.cache)
    cache = Cache(settings.cache, database)
    return Caching(settings.cache, database, Policy(settings.conf), open_stores(settings), cache)


def put(database: Database, image: Image, url: str) -> None:
    """The record of an image whose bytes are there."""

    def work(connection: images.Connection) -> None:
        images.insert(connection, image)
        images.add_location(connection, image.id, Location(url), lifecycle.now())

    database.write(work)


async def test_fetching_and_forgetting(caching: Caching, database: Database, tmp_path: Path) -> None:
    cache = caching.cache
    assert cache is not None
    image, away, draft = image_of(CONTENT), image_of(CONTENT), image_of(CONTENT, status="queued")
    path = tmp_path / "images" / image.id
    path.write_bytes(CONTENT)
    put(database, image, path.as_uri())
    put(database, away, "http://127.0.0.1:9/disk")
    put(database, draft, path.as_uri())
    for each in (image.id, away.id, draft.id, "unknown"):
        cache.directory.queue(each)
    assert await caching.fetch_queued() == 1
    assert cache.directory.queued() == [away.id]  # its web server may come back
    assert [copy.image_id for copy in cache.held()] == [image.id]

    for each in (image, away):
        database.write(lambda c, each=each: images.delete(c, each, "deleted", lifecycle.now()))
    caching._tidy(cache)
    assert cache.held() == []
    assert cache.directory.queued() == []
    assert not list((tmp_path / "cache").rglob(image.id))
    await caching.stop()
