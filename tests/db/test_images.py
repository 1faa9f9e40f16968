"""Images in each kind of database: what goes in comes out, pages miss nothing, and two hands never lose a change."""

from __future__ import annotations

import contextlib
import itertools
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from glimpse.db import additions, image_filters, image_query, images, members, tables
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
        database.write(lambda connection, each=each: images.insert(connection, each))


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


def rank(value: Any) -> tuple[bool, Any]:
    """NULL is lower than anything."""
    return value is not None, value


def in_order(made: list[Image], sort: list[tuple[str, bool]]) -> list[str]:
    """What Python makes of that order."""
    for name, ascending in reversed(sort):
        made = sorted(made, key=lambda each: rank(getattr(each, name)), reverse=not ascending)
    return [each.id for each in made]


def pages(database: Database, context: Context, sort: list[tuple[str, bool]], **values: Any) -> list[str]:
    """All pages, one behind the other."""
    seen: list[str] = []
    marker = None
    while page := found(database, context, limit=5, sort=sort, marker=marker, **values):
        seen += page
        marker = got(database, page[-1], context)
    return seen


def a_few() -> list[Image]:
    """Images with ties and NULLs in every column that can be sorted by, seen by OWNER and ADMIN and not by all."""
    return [
        image(
            name=[None, "", "b", "a"][number % 4],
            size=[None, 0, 5][number % 3],
            status=["queued", "active"][number % 2],
            disk_format=[None, "raw"][number % 2],
            container_format=[None, "bare", "ova"][number % 3],
            created_at=THEN + timedelta(seconds=number % 5),
            updated_at=THEN + timedelta(seconds=number % 3),
            owner=["p", "other"][number // 2 % 2],
            visibility=["shared", "public", "public"][number % 3],
            properties={"os": ["linux", "bsd"][number % 2]},
            tags=("a", "b") if number % 2 else ("a",),
        )
        for number in range(29)
    ]


@pytest.mark.parametrize("without_indexes", [False, True])
def test_pages_are_in_the_order_of_every_key(synced: Database, without_indexes: bool) -> None:
    put(synced, *(made := a_few()))
    if without_indexes:
        drop_indexes(synced)
    seen = [each for each in made if each.owner == "p" or each.visibility == "public"]
    for key, ascending, rest in itertools.product(SORT_KEYS, [True, False], [True, False]):
        sort = list({key: ascending, "created_at": rest, "id": rest}.items())
        assert pages(synced, OWNER, sort) == in_order(seen, sort), sort
        assert pages(synced, ADMIN, sort) == in_order(made, sort), sort
    for key, second in itertools.permutations(["name", "size", "status", "created_at"], 2):
        sort = list({key: True, second: False, "created_at": False, "id": False}.items())
        assert pages(synced, OWNER, sort) == in_order(seen, sort), sort


@pytest.mark.parametrize("few", [0, image_filters.FEW])
def test_pages_of_what_filters_let_through(synced: Database, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up by a filter that few images pass, or met on a walk: the same images."""
    monkeypatch.setattr(image_filters, "FEW", few)
    monkeypatch.setattr(image_query, "has_many_shared", lambda connection, project: few == 0)
    for kept in (image_query._page, image_query._edge, image_filters._count):
        kept.small.cache_clear()
    put(synced, *(made := a_few()))
    share(synced, shared := next(each for each in made if each.owner == "other" and each.visibility == "shared"))
    filters: list[tuple[dict[str, Any], Callable[[Image], bool]]] = [
        ({"properties": {"os": "linux"}}, lambda each: each.properties["os"] == "linux"),
        ({"tags": ["a", "b"]}, lambda each: len(each.tags) == 2),
        ({"columns": [("name", "eq", "b")]}, lambda each: each.name == "b"),
        ({"columns": [("name", "in", ["a", "b"])], "tags": ["b"]},
         lambda each: each.name in ("a", "b") and len(each.tags) == 2),
        ({"columns": [("name", "in", [])]}, lambda each: False),
        ({"columns": [("size", "gte", 1)]}, lambda each: bool(each.size)),
        ({"columns": [("created_at", "gt", THEN)], "properties": {"os": "bsd"}},
         lambda each: each.created_at > THEN and each.properties["os"] == "bsd"),
        ({"columns": [("updated_at", "lte", THEN)]}, lambda each: each.updated_at <= THEN),
        ({"columns": [("id", "in", [each.id for each in made[:9]])]}, lambda each: each in made[:9]),
        ({"columns": [("owner", "eq", "p")]}, lambda each: each.owner == "p"),
        ({"columns": [("owner", "eq", "other")]}, lambda each: each.owner == "other"),
        ({"visibility": "public"}, lambda each: each.visibility == "public"),
        ({"visibility": "shared"}, lambda each: each.visibility == "shared"),
        ({}, lambda each: True),
        ({"properties": {"os": "plan9"}}, lambda each: False),
    ]  # fmt: skip
    for values, passes in filters:
        passing = [each for each in made if passes(each)]
        seen = [each for each in passing if each.owner == "p" or each.visibility == "public" or each == shared]
        for sort in ([("name", True), ("created_at", False), ("id", False)], [("size", False), ("id", False)]):
            assert pages(synced, OWNER, sort, **values) == in_order(seen, sort), values
            assert pages(synced, ADMIN, sort, **values) == in_order(passing, sort), values


def share(database: Database, one: Image) -> None:
    """With OWNER's project, twice: the member was removed once."""
    for deleted in (True, False):
        values = {"image_id": one.id, "member": "p", "status": "accepted", "can_share": False, "created_at": THEN}
        row = image_members.insert().values(**values, deleted=deleted, deleted_at=THEN if deleted else None)
        database.write(lambda connection, row=row: connection.execute(row))


def test_a_row_without_updated_at_has_its_place(synced: Database) -> None:
    put(synced, *(made := a_few()))
    without = {each.id for each in made[::4]}
    synced.write(
        lambda c: c.execute(tables.images.update().where(tables.images.c.id.in_(without)), {"updated_at": None})
    )
    rows = [each.with_(updated_at=None if each.id in without else each.updated_at) for each in made]
    for ascending in (True, False):
        sort = [("updated_at", ascending), ("id", ascending)]
        assert pages(synced, ADMIN, sort) == in_order(rows, sort)


def test_what_a_document_could_stumble_over(synced: Database) -> None:
    odd = "".join(map(chr, range(1, 0x21))) + "\"\\/%s%(x)s {}[],:' \u2028\x7f\x80 ünï 漢字 \ufffd"
    place = Location("file:///" + odd, {"store": "s", "odd": odd})
    one = image(name=odd, properties={"a": odd, odd[-20:]: "1", "n": None, "e": ""}, tags=(odd[-30:], "null"))
    put(synced, one)
    synced.write(lambda c: images.add_location(c, one.id, place, THEN))
    for back in (got(synced, one.id), synced.write(lambda c: images.get(c, one.id, ADMIN, lock=True))):
        assert (back.name, back.properties, set(back.tags)) == (one.name, one.properties, set(one.tags))
        assert [(each.url, each.metadata) for each in back.locations] == [(place.url, place.metadata)]
    assert found(synced, columns=[("name", "eq", odd)]) == [one.id]
    assert found(synced, properties={"a": odd}, tags=["null"]) == [one.id]


def test_an_image_of_the_largest_kind(synced: Database) -> None:
    """128 properties as long as they can be: more than MariaDB puts into one value by itself, or at all."""
    one = image(properties={f"p{number}": f"{number}" + "\x01" * 65_000 for number in range(128)})
    put(synced, one)
    assert got(synced, one.id) == one
    query = ImageQuery(limit=5, sort=[("created_at", False), ("id", False)])
    assert synced.read(lambda connection: image_query.find(connection, query, ADMIN)) == [one]


def drop_indexes(database: Database) -> None:
    """As Glance leaves a database."""

    def work(connection: Connection) -> None:
        for index in additions.indexes(connection.dialect.name):
            index.drop(connection)

    database.write(work)


def test_indexes_that_went_away_are_not_asked_for(synced: Database) -> None:
    put(synced, *(made := a_few()))
    sort = [("name", True), ("id", True)]
    assert pages(synced, ADMIN, sort) == in_order(made, sort)
    drop_indexes(synced)
    assert pages(synced, ADMIN, sort) == in_order(made, sort)


@pytest.mark.parametrize("other", ["X_SECRET", "x_s\u00e9cret", "\u1e8b_secret"])
def test_a_property_in_other_letters_leaves_the_first_alone(synced: Database, other: str) -> None:
    """MariaDB takes them for the same, but only one of them may be protected."""
    first = image(properties={"x_secret": "hush"})
    put(synced, first)
    second = first.with_(properties={"x_secret": "hush", other: "mine"})
    with contextlib.suppress(Conflict):
        synced.write(lambda connection: images.update(connection, first, second))
    assert got(synced, first.id).properties["x_secret"] == "hush"
    assert first.id in found(synced, properties={"x_secret": "hush"})
    assert first.id not in found(synced, properties={other: "hush"})


def test_marks_in_other_letters_are_not_ours(synced: Database) -> None:
    first = image(properties={"OS_GLANCE_MARK": "1"})
    put(synced, first)
    assert synced.read(lambda connection: images.with_property(connection, "os_glance_mark")) == []
    gone = first.with_(properties={})
    synced.write(lambda connection: images.update(connection, first, gone))
    synced.write(lambda connection: images.set_property(connection, first.id, "os_glance_mark", "2", THEN))
    assert got(synced, first.id).properties == {"os_glance_mark": "2"}


def test_long_queries_do_not_fill_the_memory(synced: Database) -> None:
    for count in range(image_filters.LARGE, image_filters.LARGE + 20):
        assert found(synced, columns=[("status", "in", ["none"] * count)]) == []
    assert 0 < image_query._page.large.cache_info().currsize <= image_filters.LARGE_FORMS


def test_a_member_of_another_spelling_is_somebody_else(synced: Database) -> None:
    first = image(visibility="shared")
    put(synced, first)
    synced.write(lambda connection: members.add(connection, first.id, "Team", THEN))
    assert got(synced, first.id, Context(project_id="Team")).member == "Team"
    for lock in (False, True):
        with pytest.raises(NotFound):
            synced.write(
                lambda connection, lock=lock: images.get(connection, first.id, Context(project_id="team"), lock)
            )
