"""Tasks in each kind of database."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from glimpse.db import images, tasks
from glimpse.db.engine import Database
from glimpse.domain.context import Context
from glimpse.domain.record import Task
from glimpse.errors import BadRequest
from tests.db.test_images import ADMIN, THEN, image, put

LATER = THEN + timedelta(hours=1)
OWNER = Context(project_id="p")


def task(image_id: str | None, **fields: object) -> Task:
    values = {
        "id": str(uuid.uuid4()), "type": "location_import", "status": "pending", "owner": "p", "created_at": THEN,
        "updated_at": THEN, "image_id": image_id, "request_id": "req-1", "user_id": "u", "input": {"url": "http://ü"},
    }  # fmt: skip
    return Task(**{**values, **fields})


def of_image(database: Database, image_id: str, context: Context = ADMIN) -> list[Task]:
    return database.read(lambda connection: tasks.of_image(connection, image_id, context, LATER))


def test_from_its_beginning_to_its_end(synced: Database) -> None:
    one = task(str(uuid.uuid4()))
    synced.write(lambda c: tasks.insert(c, one))
    assert synced.read(lambda c: tasks.get(c, one.id)) == one
    synced.write(lambda c: tasks.waits(c, one.id, LATER))
    assert synced.read(lambda c: tasks.get(c, one.id)) == replace(one, updated_at=LATER)
    assert synced.write(lambda c: tasks.claim(c, one.id, THEN))
    assert synced.read(lambda c: tasks.get(c, one.id)) == replace(one, status="processing")
    ended = replace(one, status="success", result={"image_id": "x"}, updated_at=LATER, expires_at=LATER)
    synced.write(lambda c: tasks.end(c, ended))
    assert synced.read(lambda c: tasks.get(c, one.id)) == ended
    synced.write(lambda c: tasks.waits(c, one.id, THEN))
    assert not synced.write(lambda c: tasks.claim(c, one.id, THEN))
    assert synced.read(lambda c: tasks.get(c, one.id)) == ended, "what has ended is not begun again"
    assert synced.read(lambda c: tasks.get(c, str(uuid.uuid4()))) is None


def test_whose_and_for_how_long(synced: Database) -> None:
    image_id = str(uuid.uuid4())
    mine, other = task(image_id), task(image_id, owner="q", created_at=THEN + timedelta(seconds=1))
    over = task(image_id, expires_at=LATER - timedelta(seconds=1))
    for each in (mine, other, over, task(str(uuid.uuid4()))):
        synced.write(lambda c, each=each: tasks.insert(c, each))
    assert of_image(synced, image_id) == [mine, other]
    assert of_image(synced, image_id, OWNER) == [mine]
    assert of_image(synced, image_id, Context()) == []
    assert not synced.read(lambda c: tasks.expired(c, "q", LATER))
    assert synced.read(lambda c: tasks.expired(c, "p", LATER))
    synced.write(lambda c: tasks.forget(c, "p", LATER))
    assert not synced.read(lambda c: tasks.expired(c, "p", LATER))
    assert synced.read(lambda c: tasks.get(c, over.id)) is None
    assert synced.read(lambda c: tasks.get(c, mine.id)) == mine


def test_pages_of_all(synced: Database) -> None:
    """Whatever the order, each task is on one page, also where what is sorted by is missing or the same."""
    rows = [
        task(None if number % 2 else "x", expires_at=LATER if number % 3 else None,
             created_at=THEN + timedelta(seconds=number // 2), owner="p" if number < 6 else "q")
        for number in range(7)
    ]  # fmt: skip
    for each in rows:
        synced.write(lambda c, each=each: tasks.insert(c, each))
    for key in tasks.SORT_KEYS:
        for ascending in (True, False):
            seen: list[str] = []
            marker = None
            while len(seen) < 10:
                query = tasks.TaskQuery(2, key, ascending, marker)
                found = synced.read(lambda c, query=query: tasks.find(c, query, ADMIN))
                if not found:
                    break
                seen += [each.id for each in found]
                marker = seen[-1]
            assert sorted(seen) == sorted(each.id for each in rows), key


def test_a_list_of_whose(synced: Database) -> None:
    mine, other = task("x", expires_at=LATER), task("y", owner="q", status="success")
    for each in (mine, other):
        synced.write(lambda c, each=each: tasks.insert(c, each))

    def find(context: Context = ADMIN, **columns: object) -> list[Task]:
        query = tasks.TaskQuery(9, columns=columns)
        return synced.read(lambda c: tasks.find(c, query, context))

    assert {each.id for each in find()} == {mine.id, other.id}
    assert find(OWNER) == [mine]
    assert find(status="success") == [other]
    assert find(expires_at=LATER, created_at=THEN) == [mine]
    assert find(expires_at=THEN) == []
    with pytest.raises(BadRequest):
        synced.read(lambda c: tasks.find(c, tasks.TaskQuery(9, marker=other.id), OWNER))


def test_open_ones_with_their_marks(synced: Database) -> None:
    """Only what holds its image, whatever else is open; also when the image was deleted meanwhile."""
    one, other, gone, ended = (image() for _ in range(4))
    put(synced, one, other, gone, ended)
    held = {each.id: task(each.id) for each in (one, gone, ended)}
    for each in (*held.values(), task(one.id), task(other.id), task(other.id, type="import")):
        synced.write(lambda c, each=each: tasks.insert(c, each))
    for image_id, work in held.items():
        for name, value in (("lock", work.id), ("mark", f"mine of {image_id}")):
            synced.write(lambda c, i=image_id, n=name, v=value: images.set_property(c, i, n, v, THEN))
    synced.write(lambda c: images.delete(c, gone, "deleted", LATER))
    synced.write(lambda c: tasks.end(c, replace(held[ended.id], status="failure")))
    found = synced.read(lambda c: tasks.unfinished(c, "lock", "mark"))
    expected = [(held[each.id].id, "pending", each.id, THEN, f"mine of {each.id}", THEN) for each in (one, gone)]
    assert sorted(found) == sorted(expected)
    assert [row[4:] for row in synced.read(lambda c: tasks.unfinished(c, "lock", "other"))] == [(None, None)] * 2
