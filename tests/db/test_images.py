"""Images in each kind of database: what goes in comes out, pages miss nothing, and two hands never lose a change."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from glimpse.db import image_query, images
from glimpse.db.engine import Connection, Database
from glimpse.db.image_query import SORT_KEYS, ImageQuery
from glimpse.db.tables import image_members
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location
from glimpse.errors import Conflict, Duplicate, NotFound

THEN = datetime(2026, 1, 1)
ADMIN = Context(is_admin=True)
OWNER = Context(project_id="p")
OTHER = Context(project_id="q")


def image(**values: Any) -> Image:
    defaults: dict[str, Any] = {"status": "queued", "visibility": "shared", "owner": "p"}
    return Image(**{"id": str(uuid.uuid4()), "created_at": THEN, "updated_at": THEN, **defaults, **values})


def put(database: Database, *made: Image) -> None:
    for each in made:
        database.write(lambda connection, each=each: images.insert(connection, each))  # type: ignore[misc]


def got(database: Database, image_id: str, context: Context = ADMIN) -> Image:
    return database.read(lambda connection: images.get(connection, image_id, context))


def found(database: Database, context: Context = ADMIN, **values: Any) -> list[str]:
    query = ImageQuery(**{"limit": 1000, "sort": [("created_at", False), ("id", False)], **values})
    return [each.id for each in database.read(lambda connection: image_query.find(connection, query, context))]


def test_what_goes_in_comes_out(synced: Database) -> None:
    whole = image(
        name="ünï 漢字", disk_format="raw", container_format="bare", min_disk=1, min_ram=2, protected=True,
        os_hidden=True, properties={"a": "1", "b": "", "c": None}, tags=("x", "y"),
    )  # fmt: skip
    put(synced, whole)
    back = got(synced, whole.id)
    assert set(back.tags) == {"x", "y"}
    assert back.with_(tags=whole.tags) == whole


def test_an_id_is_used_once_for_ever(synced: Database) -> None:
    first = image()
    put(synced, first)
    with pytest.raises(Duplicate):
        put(synced, first)
    synced.write(lambda connection: images.delete(connection, first, "deleted", THEN))
    with pytest.raises(Duplicate):
        put(synced, first)
    with pytest.raises(NotFound):
        got(synced, first.id)


def test_properties_and_tags_change_go_and_come_back(synced: Database) -> None:
    first = image(properties={"keep": "1", "change": "1", "go": "1"}, tags=("keep", "go"))
    put(synced, first)
    second = first.with_(
        properties={"keep": "1", "change": "2", "new": "1"}, tags=("keep", "new"), updated_at=THEN + timedelta(1)
    )
    synced.write(lambda connection: images.update(connection, first, second))
    back = got(synced, first.id)
    assert (back.properties, set(back.tags), back.updated_at) == (second.properties, {"keep", "new"}, second.updated_at)
    synced.write(lambda connection: images.update(connection, second, first))
    back = got(synced, first.id)
    assert (back.properties, set(back.tags)) == (first.properties, set(first.tags))


def test_a_status_moves_once(synced: Database) -> None:
    one = image()
    put(synced, one)
    synced.write(lambda c: images.set_status(c, one.id, "queued", "saving", THEN))
    with pytest.raises(Conflict):
        synced.write(lambda c: images.set_status(c, one.id, "queued", "saving", THEN))
    synced.write(lambda c: images.set_status(c, one.id, "saving", "active", THEN, size=2**40, checksum="c" * 32))
    assert (got(synced, one.id).size, got(synced, one.id).checksum) == (2**40, "c" * 32)


def test_one_of_many_hands_gets_the_status(synced: Database) -> None:
    one = image()
    put(synced, one)
    together = threading.Barrier(6)

    def take(number: int) -> bool:
        def work(connection: Connection) -> None:
            images.get(connection, one.id, ADMIN, lock=True)
            images.set_status(connection, one.id, "queued", "saving", THEN)
            images.set_property(connection, one.id, "os_glance_mark", str(number), THEN)

        together.wait()
        try:
            synced.write(work)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(take, range(6)))
    assert results.count(True) == 1
    assert got(synced, one.id).properties == {"os_glance_mark": str(results.index(True))}


def test_changes_at_once_are_all_kept(synced: Database) -> None:
    one = image()
    put(synced, one)

    def add(number: int) -> None:
        def work(connection: Connection) -> None:
            before = images.get(connection, one.id, ADMIN, lock=True)
            images.update(connection, before, before.with_(properties={**before.properties, f"k{number}": "v"}))

        synced.write(work)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(24)))
    assert len(got(synced, one.id).properties) == 24


def test_marks_are_dropped_only_by_their_holder(synced: Database) -> None:
    one = image()
    put(synced, one)

    def write(work: Callable[[Connection], Any]) -> Any:
        return synced.write(work)

    write(lambda c: images.set_status(c, one.id, "queued", "saving", THEN))
    write(lambda c: images.set_property(c, one.id, "mark", "mine", THEN))
    assert [entry[:2] for entry in synced.read(lambda c: images.with_property(c, "mark"))] == [(one.id, "mine")]
    assert write(lambda c: images.replace_property(c, one.id, "mark", "mine", "mine", THEN))
    assert not write(lambda c: images.replace_property(c, one.id, "mark", "theirs", "x", THEN))
    with pytest.raises(Conflict):
        write(lambda c: images.drop_property(c, one.id, "mark", "theirs"))
    write(lambda c: images.drop_property(c, one.id, "mark", "mine"))
    assert got(synced, one.id).properties == {}


def test_names_that_differ_by_case(synced: Database) -> None:
    try:
        put(synced, both := image(properties={"os": "1", "OS": "2"}))
    except Conflict:
        return  # MariaDB's collation
    assert got(synced, both.id).properties == {"os": "1", "OS": "2"}


def test_deleted_images_leave_their_locations_to_be_erased(synced: Database) -> None:
    one = image(status="active")
    put(synced, one)
    synced.write(lambda c: images.add_location(c, one.id, Location("file:///x", {"store": "s"}), THEN))
    whole = got(synced, one.id)
    assert [(each.url, each.metadata) for each in whole.locations] == [("file:///x", {"store": "s"})]
    synced.write(lambda c: images.delete(c, whole, "deleted", THEN))
    later = THEN + timedelta(hours=1)
    [left] = synced.read(lambda c: images.to_erase(c, later))
    assert left.url == "file:///x"
    assert synced.read(lambda c: images.to_erase(c, THEN)) == []
    synced.write(lambda c: images.erased(c, left))
    assert synced.read(lambda c: images.to_erase(c, later)) == []


def test_who_may_know_of_an_image(synced: Database) -> None:
    made = {name: image(visibility=name) for name in ("private", "shared", "public", "community")}
    orphan = image(visibility="private", owner=None)
    put(synced, *made.values(), orphan)

    def member(status: str) -> Callable[[Connection], Any]:
        return lambda c: c.execute(
            image_members.insert().values(
                image_id=made["shared"].id, member="q", status=status, can_share=False, created_at=THEN, deleted=False
            )
        )

    for name, seen in {"private": False, "shared": False, "public": True, "community": True}.items():
        if seen:
            got(synced, made[name].id, OTHER)
        else:
            with pytest.raises(NotFound):
                got(synced, made[name].id, OTHER)
    assert got(synced, orphan.id, OTHER)
    assert set(found(synced, OTHER)) == {made["public"].id}
    assert set(found(synced, OTHER, visibility="all")) == {made["public"].id, made["community"].id}
    assert len(found(synced, OWNER)) == 4
    assert len(found(synced, ADMIN)) == 4  # community images of nobody's project are left out
    assert len(found(synced, ADMIN, visibility="all")) == 5
    synced.write(member("pending"))
    assert got(synced, made["shared"].id, OTHER).member == "q"
    assert made["shared"].id not in found(synced, OTHER)
    assert made["shared"].id in found(synced, OTHER, member_status="pending")
    assert made["shared"].id in found(synced, OTHER, member_status="all", visibility="shared")


def test_filters(synced: Database) -> None:
    one = image(name="one", size=10, tags=("a", "b"), properties={"os": "linux", "arch": "x"}, disk_format="raw")
    two = image(name="two", size=20, tags=("a",), properties={"os": "linux"}, created_at=THEN + timedelta(1))
    hidden = image(os_hidden=True)
    put(synced, one, two, hidden)
    assert found(synced) == [two.id, one.id]
    assert found(synced, os_hidden=True) == [hidden.id]
    assert found(synced, tags=["a", "b"]) == [one.id]
    assert found(synced, properties={"os": "linux", "arch": "x"}) == [one.id]
    assert found(synced, columns=[("name", "in", ["one", "three"])]) == [one.id]
    assert found(synced, columns=[("size", "gte", 20)]) == [two.id]
    assert found(synced, columns=[("created_at", "gt", THEN)]) == [two.id]
    assert found(synced, columns=[("name", "eq", "one"), ("disk_format", "eq", "raw")]) == [one.id]
    assert found(synced, limit=0) == []


@pytest.mark.parametrize(("key", "ascending"), list(itertools.product(SORT_KEYS, [True, False])))
def test_pages_miss_nothing_and_repeat_nothing(synced: Database, key: str, ascending: bool) -> None:
    made = [
        image(
            name=[None, "", "b", "a"][number % 4],
            size=[None, 0, 5][number % 3],
            status=["queued", "active"][number % 2],
            disk_format=[None, "raw"][number % 2],
            created_at=THEN + timedelta(seconds=number % 5),
        )
        for number in range(23)
    ]
    put(synced, *made)
    order = {key: ascending, "created_at": ascending, "id": ascending}
    sort = list(order.items())
    seen: list[str] = []
    marker = None
    while page := found(synced, limit=5, sort=sort, marker=marker):
        seen += page
        marker = got(synced, page[-1])
    assert seen == found(synced, sort=sort)
    assert len(seen) == len(set(seen)) == len(made)
