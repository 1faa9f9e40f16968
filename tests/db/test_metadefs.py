"""Metadata definitions in each kind of database: every kind goes in and comes out, names are taken once, pages hold."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from glimpse.db import metadefs, tables
from glimpse.db.engine import Connection, Database
from glimpse.db.metadefs import Filter, Page
from glimpse.domain.context import Context
from glimpse.domain.metadef import (
    ASSOCIATION,
    NAMESPACE,
    OBJECT,
    PARTS,
    PROPERTY,
    RESOURCE_TYPE,
    TAG,
    Definition,
    Kind,
    Part,
    Values,
)
from glimpse.errors import Duplicate, NotFound

THEN = datetime(2026, 1, 1)
LATER = datetime(2026, 2, 1)
ADMIN = Context(is_admin=True)
TEXT = {"type": "string", "title": "T"}
WHOLE: dict[Kind, Values] = {
    ASSOCIATION: {"prefix": "p:", "properties_target": "image"},
    OBJECT: {"required": ["a", "b"], "description": "ünï 漢字", "properties": {"a": {**TEXT, "default": "5"}}},
    PROPERTY: {**TEXT, "enum": ["a", None], "minimum": 1, "items": {"type": "string"}},
    TAG: {},
}
OTHER: dict[Kind, Values] = {OBJECT: {"required": [], "properties": {}}, PROPERTY: {**TEXT, "readonly": True}, TAG: {}}


def make(database: Database, name: str = "home", created_at: datetime = THEN, **values: Any) -> Definition:
    """A namespace."""
    values = {"visibility": "private", "protected": False, "owner": "p", **values}
    return database.write(lambda connection: metadefs.insert(connection, NAMESPACE, name, values, created_at))


def put(database: Database, kind: Kind, name: str, home: Definition, values: Values | None = None) -> Definition:
    """A definition in a namespace."""
    whole = WHOLE[kind] if values is None else values
    return database.write(lambda connection: metadefs.insert(connection, kind, name, whole, THEN, home, THEN))


def got(database: Database, kind: Kind, name: str, home: Definition | None = None) -> Definition:
    return database.read(lambda connection: metadefs.get(connection, kind, name, home))


def names(database: Database, kind: Kind, *homes: Definition) -> list[str]:
    return [each.name for each in database.read(lambda connection: metadefs.all_of(connection, kind, homes))]


def test_a_namespace_goes_in_and_comes_out(synced: Database) -> None:
    whole = {"display_name": "D", "description": "ünï", "visibility": "public", "protected": True, "owner": "p"}
    made = make(synced, **whole)
    assert got(synced, NAMESPACE, "home") == made
    assert made.values == whole
    assert made.updated_at is None
    bare = make(synced, "bare")
    assert got(synced, NAMESPACE, "bare").values == bare.values
    with pytest.raises(NotFound):
        got(synced, NAMESPACE, "nothing")


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.noun)
def test_every_kind_goes_in_and_comes_out(synced: Database, kind: Kind) -> None:
    home, other = make(synced), make(synced, "other")
    made = put(synced, kind, "a", home)
    assert got(synced, kind, "a", home) == made
    assert (made.values, made.namespace_id) == (WHOLE[kind], home.id)
    put(synced, kind, "a", other)
    put(synced, kind, "b", home)
    with pytest.raises(Duplicate):
        put(synced, kind, "a", home)
    assert names(synced, kind, home) == (["b", "a"] if kind is TAG else ["a", "b"])
    assert len(names(synced, kind, home, other)) == 3
    for name in ("nothing", "nul\0", "\U0001f600", "n" * 300):
        with pytest.raises(NotFound):
            got(synced, kind, name, home)
    synced.write(lambda connection: metadefs.delete(connection, kind, made))
    assert names(synced, kind, home) == ["b"]
    assert names(synced, kind, other) == ["a"]
    synced.write(lambda connection: metadefs.delete_all(connection, kind, home))
    assert names(synced, kind, home, other) == ["a"]


@pytest.mark.parametrize("kind", OTHER, ids=lambda kind: kind.noun)
def test_a_change_replaces_everything_but_the_row(synced: Database, kind: Kind) -> None:
    home = make(synced)
    before = put(synced, kind, "a", home)
    put(synced, kind, "taken", home)

    def change(name: str) -> Definition:
        return synced.write(lambda connection: metadefs.update(connection, kind, before, name, OTHER[kind], LATER))

    after = change("b")
    assert got(synced, kind, "b", home) == after
    assert (after.id, after.created_at, after.updated_at, after.values) == (before.id, THEN, LATER, OTHER[kind])
    with pytest.raises(NotFound):
        got(synced, kind, "a", home)
    with pytest.raises(Duplicate):
        change("taken")
    change("B")
    assert got(synced, kind, "B", home).id == before.id


def test_a_namespace_goes_with_everything_in_it(synced: Database) -> None:
    home, other = make(synced), make(synced, "other")
    for kind in PARTS:
        put(synced, kind, "a", home)
        put(synced, kind, "a", other)
    synced.write(lambda connection: metadefs.delete(connection, NAMESPACE, home))
    for kind in PARTS:
        assert names(synced, kind, home, other) == ["a"]
    assert names(synced, NAMESPACE) == ["other"]
    with pytest.raises(Duplicate):
        make(synced, "other")


def test_the_columns_are_those_that_glance_reads(synced: Database) -> None:
    home = make(synced)
    for kind in (OBJECT, PROPERTY):
        put(synced, kind, "a", home)
    put(synced, OBJECT, "bare", home, {})

    def columns(table: sa.Table, name: str) -> dict[str, Any]:
        rows = sa.select(table).where(table.c.name == name)
        return dict(synced.read(lambda connection: connection.execute(rows).mappings().one()))

    whole = columns(tables.metadef_objects, "a")
    assert whole["required"] == "a,b"
    assert json.loads(whole["json_schema"]) == WHOLE[OBJECT]["properties"]
    bare = columns(tables.metadef_objects, "bare")
    assert (bare["required"], bare["description"], bare["json_schema"]) == (None, None, "{}")
    assert json.loads(columns(tables.metadef_properties, "a")["json_schema"]) == WHOLE[PROPERTY]


@pytest.mark.parametrize(
    ("kind", "columns", "values"),
    [
        (OBJECT, {"json_schema": "null"}, {"required": [], "properties": {}}),
        (
            OBJECT,
            {"json_schema": '{"a": {"type": "integer", "title": "A", "default": 80, "minimum": 1.5, "unknown": 1}}'},
            {"required": [], "properties": {"a": {"type": "integer", "title": "A", "default": "80", "minimum": 1}}},
        ),
        (OBJECT, {"json_schema": '{"a": null}', "required": "a,b"}, {"required": ["a", "b"], "properties": {"a": {}}}),
        (PROPERTY, {"json_schema": '{"default": false, "enum": [1]}'}, {"default": "False", "enum": [1]}),
    ],
)
def test_what_glance_wrote_is_read(synced: Database, kind: Kind, columns: dict[str, Any], values: Values) -> None:
    """Its commands put into the columns whatever a file holds."""
    home = make(synced)
    table = tables.metadata.tables[kind.table]
    row = {"namespace_id": home.id, "name": "a", "created_at": THEN, **columns}
    synced.write(lambda connection: connection.execute(table.insert().values(row)))
    assert got(synced, kind, "a", home).values == values


def test_a_namespace_without_visibility_is_private(synced: Database) -> None:
    row = {"namespace": "old", "owner": "p", "created_at": THEN}
    synced.write(lambda connection: connection.execute(tables.metadef_namespaces.insert().values(row)))
    assert got(synced, NAMESPACE, "old").values == {"visibility": "private", "protected": False, "owner": "p"}


# --- pages -----------------------------------------------------------------------------------------------------------


def walk(page: Callable[[str | None], list[Definition]]) -> list[str]:
    """Every name, page after page."""
    found: list[str] = []
    while part := page(found[-1] if found else None):
        found += [each.name for each in part]
    return found


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize(
    "sort_key", ["namespace", "display_name", "description", "visibility", "protected", "owner", "created_at",
                 "updated_at", "id"],
)  # fmt: skip
def test_pages_of_namespaces_miss_nothing(synced: Database, sort_key: str, ascending: bool) -> None:
    for number in range(7):
        values = {"display_name": None, "description": None} if number % 3 else {"display_name": f"D{number % 2}"}
        make(synced, f"n{number}", THEN + timedelta(seconds=number // 3), protected=number % 2 == 0, **values)

    def page(size: int) -> Callable[[str | None], list[Definition]]:
        return lambda marker: synced.read(
            lambda connection: metadefs.namespaces(connection, Filter(), Page(sort_key, ascending, size, marker), ADMIN)
        )

    whole = walk(page(100))
    assert sorted(whole) == [f"n{number}" for number in range(7)]
    assert walk(page(2)) == walk(page(1)) == whole
    if sort_key in ("namespace", "created_at", "id"):
        assert whole == sorted(whole, reverse=not ascending)


def test_pages_of_tags(synced: Database) -> None:
    home = make(synced)
    for name in "badc":
        put(synced, TAG, name, home)

    def page(marker: str | None) -> list[Definition]:
        wanted = Page("name", True, 3, marker)
        return synced.read(lambda connection: metadefs.page_of(connection, TAG, wanted, home))

    assert walk(page) == ["a", "b", "c", "d"]
    with pytest.raises(NotFound):
        page("nothing")


def test_who_sees_which_namespace_in_a_list(synced: Database) -> None:
    for name, owner, visibility in (("a", "p", "private"), ("b", "q", "private"), ("c", "q", "public")):
        put(synced, ASSOCIATION, f"type {owner}", make(synced, name, owner=owner, visibility=visibility))

    def listed(context: Context, visibility: str | None = None, types: list[str] | None = None) -> str:
        page = Page("namespace", True)
        wanted = Filter(visibility, types)
        found = synced.read(lambda connection: metadefs.namespaces(connection, wanted, page, context))
        return "".join(each.name for each in found)

    assert listed(ADMIN) == "abc"
    assert listed(Context(project_id="p")) == "ac"
    assert listed(Context()) == "c"
    assert listed(ADMIN, "private") == "ab"
    assert listed(ADMIN, None, ["type q", "type z"]) == "bc"
    assert listed(ADMIN, None, []) == ""


# --- at once ---------------------------------------------------------------------------------------------------------


def test_the_first_association_makes_the_type_once(synced: Database) -> None:
    """Many namespaces at once are associated with types that nobody has heard of."""
    homes = [make(synced, f"n{number}") for number in range(6)]
    for turn in range(10):

        def associate(home: Definition, turn: int = turn) -> None:
            put(synced, ASSOCIATION, f"type {turn}", home)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(associate, homes))
    assert names(synced, RESOURCE_TYPE) == [f"type {turn}" for turn in range(10)]
    assert len(names(synced, ASSOCIATION, *homes)) == 60


def test_a_name_has_one_winner(synced: Database) -> None:
    home = make(synced)

    def attempt(number: int) -> bool:
        def work(connection: Connection) -> None:
            metadefs.get(connection, NAMESPACE, "home", lock=True)
            metadefs.insert(connection, TAG, f"tag {number % 5}", {}, THEN, home, THEN)

        try:
            synced.write(work)
        except Duplicate:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(30))) == 5


def test_namespaces_that_name_their_types_in_another_order(synced: Database) -> None:
    """Transactions that make the same types wait for each other; if the database gives one up, it runs again."""

    def work(number: int) -> None:
        types = [f"type {number // 6} {each}" for each in range(8)]

        def associate(connection: Connection) -> None:
            values: Values = {"visibility": "private", "protected": False, "owner": "p"}
            home = metadefs.insert(connection, NAMESPACE, f"n{number}", values, THEN)
            parts: list[Part] = [(ASSOCIATION, name, {}) for name in (types if number % 2 else types[::-1])]
            metadefs.insert_parts(connection, parts, home, THEN, THEN)

        synced.write(associate)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(60)))
    assert len(names(synced, RESOURCE_TYPE)) == 80


def test_a_deadlock_behind_a_savepoint_is_run_again(synced: Database) -> None:
    """MariaDB rolls back everything, the savepoint with it: what SQLAlchemy then meets must not reach the caller."""
    homes = {name: make(synced, name) for name in "ab"}
    barrier = threading.Barrier(2)

    def work(first: str, second: str) -> None:
        def associate(connection: Connection) -> None:
            metadefs.insert_parts(connection, [(ASSOCIATION, first, {})], homes[first], THEN, THEN)
            with suppress(threading.BrokenBarrierError):  # SQLite lets one in at a time, and one comes back alone
                barrier.wait(0.5)
            metadefs.insert_parts(connection, [(ASSOCIATION, second, {})], homes[first], THEN, THEN)

        synced.write(associate)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, "ab", "ba"))
    assert names(synced, RESOURCE_TYPE) in (["a", "b"], ["b", "a"])
    assert len(names(synced, ASSOCIATION, *homes.values())) == 4
