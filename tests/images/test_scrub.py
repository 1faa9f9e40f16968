"""The scrubber against real directories, and against a store that is away or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from glimpse.db import images, scrub
from glimpse.db.engine import Database
from glimpse.db.scrub import Deadlines
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location
from glimpse.errors import Conflict, Forbidden, GlimpseError, NotFound, Unavailable
from glimpse.images.import_lock import LOCK
from glimpse.images.scrub import GIVE_UP_AFTER, Scrubber
from glimpse.settings import Settings, load
from glimpse.stores.registry import Stores, open_stores
from glimpse.stores.unusable import UnusableStore
from tests.db.opened import opened

ADMIN = Context(is_admin=True)
HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = fs:file,fast:file,web:http\ndelayed_delete = true\nscrub_time = 60\n"
        f"[glance_store]\ndefault_backend = fs\n[fs]\nfilesystem_store_datadir = {tmp_path}/fs\n"
        f"[fast]\nfilesystem_store_datadir = {tmp_path}/fast\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
    )
    return load(["--config-file", str(conf)])


@pytest.fixture
async def scrubber(settings: Settings) -> AsyncIterator[Scrubber]:
    with opened(settings.database, 2) as database:
        stores = open_stores(settings)
        yield Scrubber(settings, database, stores)
        await stores.close()


Make = Callable[..., Image]


@pytest.fixture
def make(scrubber: Scrubber, tmp_path: Path) -> Make:
    """`make("fs", "fast")`: an active image with files in these stores."""
    made: list[Image] = []

    def make(*stores: str, **values: object) -> Image:
        now = lifecycle.now() - 2 * HOUR
        image = Image(f"i{len(made)}", "active", "shared", now, now, **values)  # type: ignore[arg-type]

        def work(connection: images.Connection) -> Image:
            images.insert(connection, image)
            for store in stores:
                url = f"http://127.0.0.1:9/{image.id}" if store == "web" else (tmp_path / store / image.id).as_uri()
                images.add_location(connection, image.id, Location(url, {"store": store}), now)
            return images.get(connection, image.id, ADMIN)

        for store in stores:
            if store != "web":
                (tmp_path / store / image.id).write_bytes(b"bytes")
        made.append(scrubber.database.write(work))
        return made[-1]

    return make


def delete(database: Database, image: Image, ago: timedelta = HOUR, status: str = "pending_delete") -> None:
    database.write(lambda c: images.delete(c, image, status, lifecycle.now() - ago))


def left(folder: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for store in ("fs", "fast") for path in (folder / store).iterdir()}


def status(scrubber: Scrubber, image: Image) -> str:
    try:
        scrubber.database.read(lambda c: scrub.restorable(c, image.id))
    except Conflict as error:
        return error.message.split(" is ")[1].split(":")[0]
    return "pending_delete"


def breaking(scrubber: Scrubber, monkeypatch: pytest.MonkeyPatch, store_id: str, error: GlimpseError) -> list[str]:
    """Let a store refuse to delete; the URLs that it was asked for."""
    asked: list[str] = []

    async def refuse(url: str) -> None:
        asked.append(url)
        raise error

    store = scrubber.stores.get(store_id)
    assert store is not None
    monkeypatch.setattr(store.store, "delete", refuse)
    return asked


async def test_each_in_its_time(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    old, young, gone, alive = make("fs", "fast"), make("fs"), make("fast"), make("fs", "fast")
    delete(scrubber.database, old)
    delete(scrubber.database, young, timedelta(seconds=50))
    delete(scrubber.database, gone, status="deleted")
    place = alive.locations[0]
    scrubber.database.write(lambda c: images.remove_location(c, place.id, lifecycle.now() - HOUR))
    await scrubber.pass_once()
    assert left(tmp_path) == {f"fs/{young.id}", f"fast/{alive.id}"}
    assert [status(scrubber, each) for each in (old, young, gone, alive)] == [
        "deleted", "pending_delete", "deleted", "active",
    ]  # fmt: skip


async def test_many_at_once(scrubber: Scrubber, make: Make, tmp_path: Path, settings: Settings) -> None:
    """As with many workers: nobody disturbs another, and each place is erased once."""
    made = [make("fs", "fast") for _ in range(10)]
    for image in made:
        delete(scrubber.database, image)
    pool = replace(settings, scrub_pool_size=3)
    others = [Scrubber(pool, scrubber.database, scrubber.stores) for _ in range(4)]
    await asyncio.gather(*(each.pass_once() for each in others))
    await scrubber.pass_once()
    assert left(tmp_path) == set()
    assert {status(scrubber, image) for image in made} == {"deleted"}


async def test_what_is_not_there_any_more_is_done(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    """So is a place that nobody could erase, as on a web server."""
    made = make("fs", "web")
    (tmp_path / "fs" / made.id).unlink()
    delete(scrubber.database, made)
    await scrubber.pass_once()
    assert status(scrubber, made) == "deleted"


@pytest.mark.parametrize("error", [Unavailable("away"), Forbidden("no"), Conflict("in use")])
async def test_a_store_that_fails_keeps_its_own(
    scrubber: Scrubber, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: GlimpseError
) -> None:
    both, one, other = make("fs", "fast"), make("fs"), make("fast")
    for image in (both, one, other):
        delete(scrubber.database, image)
    with monkeypatch.context() as broken:
        breaking(scrubber, broken, "fs", error)
        await scrubber.pass_once()
        assert left(tmp_path) == {f"fs/{both.id}", f"fs/{one.id}"}
        assert status(scrubber, other) == "deleted"
        assert status(scrubber, both) == status(scrubber, one) == "pending_delete"
    await scrubber.pass_once()
    assert left(tmp_path) == set()
    assert status(scrubber, both) == "deleted"


async def test_a_store_that_is_away_is_not_asked_for_ever(
    scrubber: Scrubber, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(GIVE_UP_AFTER + 3):
        delete(scrubber.database, make("fs"))
    asked = breaking(scrubber, monkeypatch, "fs", Unavailable("away"))
    await scrubber.pass_once()
    assert len(asked) == GIVE_UP_AFTER


async def test_a_store_that_hangs_delays_nobody_else(
    scrubber: Scrubber, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = scrubber.stores.get("fs")
    assert store is not None
    go, really = asyncio.Event(), store.store.delete

    async def hang(url: str) -> None:
        await go.wait()
        await really(url)

    monkeypatch.setattr(store.store, "delete", hang)
    stuck = make("fs")
    delete(scrubber.database, stuck)
    for _ in range(2):
        other = make("fast")
        delete(scrubber.database, other)
        await scrubber.pass_once(0.5)
        assert status(scrubber, other) == "deleted"
    assert left(tmp_path) == {f"fs/{stuck.id}"}
    go.set()
    await scrubber.pass_once()
    assert left(tmp_path) == set()
    assert status(scrubber, stuck) == "deleted"


async def test_bytes_that_nobody_can_reach_are_not_called_erased(scrubber: Scrubber, make: Make) -> None:
    made = make()
    where = Location("rbd://pool/image")
    scrubber.database.write(lambda c: images.add_location(c, made.id, where, lifecycle.now()))
    delete(scrubber.database, made.with_(locations=(where,)))
    await scrubber.pass_once()
    assert status(scrubber, made) == "pending_delete"


async def test_a_place_waits_while_its_image_gets_new_bytes(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    made = make("fs", "fast")
    place = made.locations[0]
    scrubber.database.write(lambda c: images.remove_location(c, place.id, lifecycle.now() - HOUR))
    scrubber.database.write(lambda c: images.set_property(c, made.id, LOCK, "task", lifecycle.now()))
    await scrubber.pass_once()
    assert left(tmp_path) == {f"fs/{made.id}", f"fast/{made.id}"}
    scrubber.database.write(lambda c: images.drop_property(c, made.id, LOCK, "task"))
    await scrubber.pass_once()
    assert left(tmp_path) == {f"fast/{made.id}"}


async def test_a_single_place_without_delayed_delete(
    scrubber: Scrubber, make: Make, tmp_path: Path, settings: Settings
) -> None:
    made = make("fs", "fast")
    place = made.locations[0]
    scrubber.database.write(lambda c: images.remove_location(c, place.id, lifecycle.now()))
    await scrubber.erase([place])  # it waits
    assert left(tmp_path) == {f"fs/{made.id}", f"fast/{made.id}"}
    at_once = Scrubber(replace(settings, delayed_delete=False), scrubber.database, scrubber.stores)
    await at_once.erase([place])
    assert left(tmp_path) == {f"fast/{made.id}"}
    nothing = Deadlines(lifecycle.now(), lifecycle.now(), lifecycle.now())
    assert scrubber.database.read(lambda c: scrub.due(c, nothing, lifecycle.now())) == []


async def test_bytes_of_two_images_go_with_the_last_of_them(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    """Whoever may name locations may name those of another image."""
    owner = make("fs")
    place = Location(owner.locations[0].url, {"store": "fs"})
    borrower = make()
    scrubber.database.write(lambda c: images.add_location(c, borrower.id, place, owner.created_at))
    borrower = scrubber.database.read(lambda c: images.get(c, borrower.id, ADMIN))
    delete(scrubber.database, borrower)
    await scrubber.pass_once()
    assert left(tmp_path) == {f"fs/{owner.id}"}
    assert status(scrubber, borrower) == "deleted"
    delete(scrubber.database, owner)
    await scrubber.pass_once()
    assert left(tmp_path) == set()


async def test_a_store_out_of_service_is_waited_for(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    """Its library may come back, and the bytes were there all the time."""
    made = make("fs", "fast")
    fast = scrubber.stores.get("fast")
    assert fast is not None
    unusable = replace(fast, store=UnusableStore("file", ("file", "filesystem")))
    without = Stores([scrubber.stores.default, unusable], "fs", True)
    delete(scrubber.database, made)
    await Scrubber(scrubber.settings, scrubber.database, without).pass_once()
    assert (left(tmp_path), status(scrubber, made)) == ({f"fast/{made.id}"}, "pending_delete")
    await scrubber.pass_once()
    assert (left(tmp_path), status(scrubber, made)) == (set(), "deleted")


async def test_what_an_import_left_over(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    """Whatever a store holds of an image goes, but not where the image lives by now."""
    queued, again, gone = make(), make("fast"), make()
    for image in (queued, gone):
        (tmp_path / "fs" / image.id).write_bytes(b"whole")
        (tmp_path / "fs" / f".{image.id}.token.part").write_bytes(b"half")
    for image, store in ((queued, "fs"), (again, "fast"), (gone, "fs")):
        ago = lifecycle.now() - HOUR
        scrubber.database.write(lambda c, i=image, s=store, when=ago: images.add_leftover(c, i.id, s, when))
    delete(scrubber.database, gone)
    with pytest.raises(Conflict, match="gone"):
        await scrubber.restore(gone.id)
    await scrubber.pass_once()
    assert left(tmp_path) == {f"fast/{again.id}"}
    assert status(scrubber, gone) == "deleted"
    now = lifecycle.now()
    assert scrubber.database.read(lambda c: scrub.due(c, Deadlines(now, now, now), now)) == []


async def test_restore(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    made = make("fs", "fast", properties={"a": "1"})
    delete(scrubber.database, made)
    assert await scrubber.restore(made.id) == "active"
    await scrubber.pass_once()
    assert left(tmp_path) == {f"fs/{made.id}", f"fast/{made.id}"}
    back = scrubber.database.read(lambda c: images.get(c, made.id, ADMIN))
    assert (back.status, back.properties, len(back.locations)) == ("active", {"a": "1"}, 2)


async def test_restore_leaves_out_what_is_gone(scrubber: Scrubber, make: Make, tmp_path: Path) -> None:
    made, lost = make("fs", "fast"), make("fs")
    (tmp_path / "fs" / made.id).unlink()
    (tmp_path / "fs" / lost.id).unlink()
    for image in (made, lost):
        delete(scrubber.database, image)
    assert await scrubber.restore(made.id) == "active"
    back = scrubber.database.read(lambda c: images.get(c, made.id, ADMIN))
    assert [each.metadata["store"] for each in back.locations] == ["fast"]
    with pytest.raises(Conflict, match="gone"):
        await scrubber.restore(lost.id)
    with pytest.raises(NotFound):
        await scrubber.restore("unknown")
    with pytest.raises(Conflict, match="active"):
        await scrubber.restore(made.id)
