"""Copies and nodes in each kind of database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

from glimpse.db import cached, images
from glimpse.db.engine import Database
from glimpse.domain.record import Copy
from tests.db.test_images import THEN, image, put

ONE, TWO = "http://one:9292", "http://two:9292"
LATER = THEN + timedelta(hours=1)


def copy(image_id: str) -> Copy:
    return Copy(image_id, 5 << 40, "d41d8cd98f00b204e9800998ecf8427e", THEN, THEN)


def found(database: Database, node: str) -> list[Copy]:
    """A node's copies, without the numbers of their rows."""
    return [replace(each, id=None) for each in database.read(lambda c: cached.copies(c, node))]


def test_in_and_out(synced: Database) -> None:
    assert found(synced, ONE) == []
    assert synced.read(lambda c: cached.get(c, ONE, "a")) is None
    synced.write(lambda c: cached.hit(c, ONE, {"a": 1}, LATER))
    synced.write(lambda c: cached.remove(c, ONE, ["a"]))
    for node, name in ((ONE, "a"), (ONE, "b"), (TWO, "a")):
        synced.write(lambda c, node=node, name=name: cached.put(c, node, copy(name)))
    assert found(synced, ONE) == [copy("a"), copy("b")]
    assert synced.read(lambda c: cached.nodes(c, "a")) == [ONE, TWO]
    assert synced.read(lambda c: cached.nodes(c, "c")) == []

    synced.write(lambda c: cached.hit(c, ONE, {"a": 2, "c": 1}, LATER))
    hit = synced.read(lambda c: cached.get(c, ONE, "a"))
    assert hit is not None
    assert hit.id is not None
    assert replace(hit, id=None) == replace(copy("a"), hits=2, last_accessed=LATER)
    synced.write(lambda c: cached.put(c, ONE, copy("a")))
    assert copy("a") in found(synced, ONE)

    synced.write(lambda c: cached.remove(c, ONE, ["a", "c"]))
    assert found(synced, ONE) == [copy("b")]
    assert found(synced, TWO) == [copy("a")]


def test_a_new_node_in_many_processes_at_once(synced: Database) -> None:
    names = [f"image-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: synced.write(lambda c: cached.put(c, ONE, copy(name))), names))
    assert sorted(each.image_id for each in found(synced, ONE)) == names


def test_hits_are_not_lost(synced: Database) -> None:
    synced.write(lambda c: cached.put(c, ONE, copy("a")))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(40):
            pool.submit(synced.write, lambda c: cached.hit(c, ONE, {"a": 1}, LATER))
    assert found(synced, ONE)[0].hits == 40


def test_what_is_gone(synced: Database) -> None:
    there, deleted = image(), image()
    put(synced, there, deleted)
    synced.write(lambda c: images.delete(c, deleted, "deleted", LATER))
    many = {f"image-{number}" for number in range(1200)}
    assert synced.read(lambda c: cached.gone(c, {there.id, deleted.id, *many})) == {deleted.id, *many}
    assert synced.read(lambda c: cached.gone(c, [])) == set()
