"""Purge in each kind of database: what is long deleted goes, what lives or still has bytes stays."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from glimpse.db import images, purge, scrub
from glimpse.db.engine import Connection, Database
from glimpse.db.purge import Kept, Purge
from glimpse.db.tables import image_locations, image_members, image_properties, image_tags, task_info, tasks
from glimpse.db.tables import images as image_table
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location

NEVER = datetime(1970, 1, 1)
LONG_AGO = datetime(2026, 1, 1)
LIMIT = datetime(2026, 2, 1)
RECENTLY = datetime(2026, 3, 1)
MARK = "os_glance_upload_lease"
CHILDREN = (image_locations, image_members, image_properties, image_tags)


class Tables:
    """A database, and short words for what the tests do with it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.told: list[str] = []

    def purge(self, most: int | None = None) -> Purge:
        return Purge(self.database, LIMIT, most, (MARK,), self.told.append)

    def count(self, table: sa.Table, **values: Any) -> int:
        query = sa.select(sa.func.count()).select_from(table).filter_by(**values)
        return self.database.read(lambda connection: int(connection.execute(query).scalar_one()))

    def counts(self) -> dict[str, int]:
        return {table.name: self.count(table) for table in (image_table, *CHILDREN, tasks, task_info)}

    def write(self, work: Callable[[Connection], Any]) -> None:
        self.database.write(work)

    def image(self, deleted: datetime | None = None, erased: bool = True, status: str = "deleted") -> str:
        """An image with one of each that can belong to it; its id."""
        made = Image(
            id=str(uuid.uuid4()), status="active", visibility="shared", owner="p", created_at=LONG_AGO,
            updated_at=LONG_AGO, properties={"a": "1"}, tags=("t",),
        )  # fmt: skip

        def work(connection: Connection) -> None:
            images.insert(connection, made)
            images.add_location(connection, made.id, Location("file:///x", {"store": "s"}), LONG_AGO)
            member = {"image_id": made.id, "member": "q", "can_share": False, "created_at": LONG_AGO, "deleted": False}
            connection.execute(image_members.insert().values(**member))
            if deleted is not None:
                whole = images.get(connection, made.id, Context(is_admin=True))
                images.delete(connection, whole, status, deleted)
                for location in whole.locations if erased else ():
                    images.erased(connection, location)

        self.write(work)
        return made.id

    def task(self, deleted: datetime | None = None) -> str:
        task_id = str(uuid.uuid4())
        values = {"id": task_id, "type": "import", "status": "success", "owner": "p", "created_at": LONG_AGO}
        self.write(
            lambda connection: [
                connection.execute(
                    tasks.insert().values(**values, deleted=deleted is not None, deleted_at=deleted, expires_at=None)
                ),
                connection.execute(task_info.insert().values(task_id=task_id, input="{}")),
            ]
        )
        return task_id


@pytest.fixture
def tables(synced: Database) -> Tables:
    return Tables(synced)


def test_what_is_long_deleted_goes_and_the_rest_stays(tables: Tables) -> None:
    tables.image(LONG_AGO)
    tables.image(RECENTLY)
    alive = tables.image()
    tables.task(LONG_AGO)
    tables.task(RECENTLY)
    tables.task()
    tables.purge().parts()
    left = dict.fromkeys((table.name for table in CHILDREN), 2) | {"tasks": 2, "task_info": 2}
    assert tables.counts() == {"images": 3, **left}
    assert tables.purge().images() == Kept(0, 0)
    assert tables.counts() == {"images": 2, **left}
    assert tables.count(image_table, id=alive) == 1
    assert "image_tags: 1 rows purged." in tables.told
    assert tables.told[-1] == "images: 1 rows purged."


def test_nothing_to_do(tables: Tables) -> None:
    tables.image()
    before = tables.counts()
    tables.purge().parts()
    assert tables.purge().images() == Kept(0, 0)
    assert tables.counts() == before


def test_an_image_goes_after_its_parts(tables: Tables) -> None:
    tables.image(LONG_AGO)
    assert tables.purge().images() == Kept(unerased=0, referred=1)
    assert tables.count(image_table) == 1
    tables.purge().parts()
    assert tables.purge().images() == Kept(0, 0)
    assert tables.count(image_table) == 0


def test_bytes_that_are_not_erased_keep_their_rows(tables: Tables) -> None:
    unerased = tables.image(LONG_AGO, erased=False)
    waiting = tables.image(LONG_AGO, erased=False, status="pending_delete")
    tables.image(LONG_AGO)
    tables.purge().parts()
    assert tables.count(image_locations) == 2
    assert tables.purge().images() == Kept(unerased=2, referred=0)
    assert tables.count(image_table, id=unerased) == tables.count(image_table, id=waiting) == 1
    assert tables.count(image_table) == 2
    [left] = tables.database.read(lambda c: scrub.due(c, scrub.Deadlines(NEVER, LIMIT, NEVER), LIMIT))
    tables.write(lambda connection: images.erased(connection, left.location))
    tables.purge().parts()
    assert tables.purge().images() == Kept(unerased=1, referred=0)
    assert tables.count(image_table) == tables.count(image_table, id=waiting) == 1


def test_an_image_in_pending_delete_stays_also_without_locations(tables: Tables) -> None:
    tables.image(LONG_AGO, erased=True, status="pending_delete")
    tables.purge().parts()
    assert tables.purge().images() == Kept(unerased=1, referred=0)
    assert tables.count(image_table) == 1


def test_the_mark_of_a_killed_upload_stays(tables: Tables) -> None:
    image_id = tables.image(LONG_AGO)
    gone = {"created_at": LONG_AGO, "deleted": True, "deleted_at": LONG_AGO}
    tables.write(
        lambda connection: connection.execute(
            image_properties.insert().values(image_id=image_id, name=MARK, value="{}", **gone)
        )
    )
    tables.purge().parts()
    assert tables.count(image_properties) == tables.count(image_properties, name=MARK) == 1
    assert tables.purge().images() == Kept(unerased=1, referred=0)


def test_most_counts_for_each_table(tables: Tables) -> None:
    for _ in range(5):
        tables.image(LONG_AGO)
        tables.task(LONG_AGO)
    tables.purge(3).parts()
    assert tables.counts() == {
        "images": 5,
        **dict.fromkeys((table.name for table in CHILDREN), 2),
        "tasks": 2,
        "task_info": 2,
    }
    tables.purge(0).parts()
    assert tables.count(tasks) == 2
    tables.purge(3).parts()
    assert tables.purge(3).images() == Kept(0, 0)
    assert tables.count(image_table) == 2


def test_long_tables_go_in_small_transactions(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "BATCH", 3)
    monkeypatch.setattr(purge, "TELL_EVERY", 2)
    for _ in range(10):
        tables.image(LONG_AGO)
        tables.task(LONG_AGO)
    alive = tables.image()
    transactions = 0
    write = tables.database.write

    def counted(work: Callable[[Connection], Any]) -> Any:
        nonlocal transactions
        transactions += 1
        return write(work)

    monkeypatch.setattr(tables.database, "write", counted)
    tables.purge().parts()
    assert transactions == 5 * 4
    assert [line for line in tables.told if line.startswith("tasks:")] == [
        "tasks: 6 rows purged so far.",
        "tasks: 10 rows purged so far.",
        "tasks: 10 rows purged.",
    ]
    assert tables.purge(7).images() == Kept(0, 0)
    assert tables.purge().images() == Kept(0, 0)
    assert tables.count(image_table) == tables.count(image_table, id=alive) == 1
    assert tables.count(tasks) == tables.count(task_info) == 0


def test_a_row_that_comes_back_meanwhile_stays(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    image_id = tables.image()
    tables.image(LONG_AGO)
    gone = {"deleted": True, "deleted_at": LONG_AGO}
    tables.write(lambda connection: connection.execute(sa.update(image_members).values(**gone)))
    write = tables.database.write

    def late(work: Callable[[Connection], Any]) -> Any:
        back = sa.update(image_members).where(image_members.c.image_id == image_id)
        write(lambda connection: connection.execute(back.values(deleted=False, deleted_at=None)))
        return write(work)

    monkeypatch.setattr(tables.database, "write", late)
    tables.purge().parts()
    assert tables.count(image_members) == tables.count(image_members, image_id=image_id) == 1
    assert "image_members: 1 rows purged." in tables.told


def test_purge_beside_uploads_and_deletes(tables: Tables) -> None:
    """Nobody fails, and nothing that lives is lost."""
    for _ in range(30):
        tables.image(LONG_AGO)
    with ThreadPoolExecutor(4) as pool:
        purges = [pool.submit(lambda: tables.purge().parts()) for _ in range(2)]
        alive = list(pool.map(lambda _: tables.image(), range(20)))
        pool.map(lambda _: tables.image(RECENTLY), range(10))
        for each in purges:
            each.result()
    assert tables.purge().images() == Kept(0, 0)
    assert tables.count(image_table) == 30
    assert tables.count(image_tags, deleted=False) == len(alive)
