"""Who is named to a store as a reader, and what happens when it cannot be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from glimpse.db import images, members
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location
from glimpse.errors import Unavailable
from glimpse.images import acls
from glimpse.images.acls import Acls
from glimpse.settings import load
from glimpse.stores.file import OPTIONS, FileStore
from glimpse.stores.registry import ConfiguredStore, Stores
from tests.db.opened import opened

OWNER = Context(project_id="p")
URL = "file:///nothing/there"


class ListedStore(FileStore):
    """Files, with a list of readers that is only kept in mind."""

    def __init__(self, folder: Path) -> None:
        defaults = {option.dest: option.default for option in OPTIONS}
        super().__init__({**defaults, "filesystem_store_datadir": str(folder)}, "[test]")
        self.told: list[tuple[bool, Sequence[str]]] = []
        self.away = False

    async def share(self, url: str, public: bool, readers: Sequence[str]) -> None:
        assert url == URL
        await asyncio.sleep(0.01)
        if self.away:
            raise Unavailable("away")
        self.told.append((public, readers))


@pytest.fixture
def store(tmp_path: Path) -> ListedStore:
    return ListedStore(tmp_path)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(f"[database]\nconnection = sqlite:///{tmp_path}/db\n")
    with opened(load(["--config-file", str(conf)]).database, 2) as made:
        yield made


@pytest.fixture
async def listed(database: Database, store: ListedStore) -> AsyncIterator[Acls]:
    made = Acls(database, Stores([ConfiguredStore("one", 0, store)], "one", multi=True))
    yield made
    await made.close()


@pytest.fixture
def shared(database: Database) -> Image:
    """An active image of project p, of which q and r are members."""
    now = lifecycle.now()
    image = Image("i", "active", "shared", now, now, owner="p")

    def work(connection: Connection) -> Image:
        images.insert(connection, image)
        images.add_location(connection, image.id, Location(URL, {"store": "one"}), now)
        for member in ("q", "r"):
            members.add(connection, image.id, member, now)
        return images.get(connection, image.id, OWNER)

    return database.write(work)


def change(database: Database, image: Image, **values: str) -> Image:
    after = image.with_(**values)
    database.write(lambda connection: images.update(connection, image, after))
    return after


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, (False, ("p", "q", "r"))),
        ({"visibility": "private"}, (False, ("p",))),
        ({"visibility": "public"}, (True, ("p",))),
        ({"visibility": "community"}, (True, ("p",))),
        ({"visibility": "public", "status": "deactivated"}, (False, ("p",))),
    ],
)
async def test_who_may_read(
    database: Database, listed: Acls, store: ListedStore, shared: Image, values: dict[str, str], told: object
) -> None:
    change(database, shared, **values)
    await listed.spread(OWNER, shared.id)
    assert store.told == [told]


async def test_what_decides_nothing_tells_nobody(listed: Acls, store: ListedStore, shared: Image) -> None:
    await listed.spread(OWNER, shared.id, {"name", "tags"})
    assert store.told == []


async def test_an_image_that_is_gone(listed: Acls) -> None:
    await listed.spread(OWNER, "nobody")


async def test_of_two_changes_at_once_the_last_one_counts(
    database: Database, listed: Acls, store: ListedStore, shared: Image
) -> None:
    """The list of the first is on its way when the record changes again."""
    first = change(database, shared, visibility="public")
    telling = asyncio.create_task(listed.spread(OWNER, shared.id))
    await asyncio.sleep(0.005)
    change(database, first, visibility="private")
    await telling
    assert store.told[-1] == (False, ("p",))


async def test_a_store_that_is_away_is_told_later(
    database: Database, listed: Acls, store: ListedStore, shared: Image, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(acls, "PAUSES", (0.02,) * 500)
    store.away = True
    with pytest.raises(Unavailable, match="could not be told"):
        await listed.spread(OWNER, shared.id)
    await listed.spread_new(OWNER, shared.id)  # nobody has to know
    assert "does not know yet who may read" in caplog.text
    change(database, shared, visibility="private")
    store.away = False
    async with asyncio.timeout(10):
        while not store.told:
            await asyncio.sleep(0.01)
    assert store.told == [(False, ("p",))]


async def test_nothing_is_asked_where_no_store_wants_to_know(database: Database, tmp_path: Path, shared: Image) -> None:
    defaults = {option.dest: option.default for option in OPTIONS}
    plain = FileStore({**defaults, "filesystem_store_datadir": str(tmp_path)}, "[test]")
    deaf = Acls(database, Stores([ConfiguredStore("one", 0, plain)], "one", multi=True))
    assert not deaf.on
    database.close()
    await deaf.spread(OWNER, shared.id)


async def test_a_failure_that_nobody_foresaw_costs_no_upload(
    listed: Acls, store: ListedStore, shared: Image, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "share", None)
    await listed.spread_new(OWNER, shared.id)
    assert "TypeError" in caplog.text
