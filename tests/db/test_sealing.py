"""Encrypted URLs of locations: the text is Glance's, in each kind of database, and a wrong key is never garbage."""

from __future__ import annotations

import json
import logging
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from glimpse.db import image_query, images, scrub
from glimpse.db.engine import Database
from glimpse.db.image_query import ImageQuery
from glimpse.db.scrub import Deadlines, Waiting
from glimpse.db.sealing import decrypted, encrypted
from glimpse.db.tables import image_locations
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location
from glimpse.errors import Unavailable
from tests.db.opened import opened
from tests.db.test_schema import database_settings
from tests.rig.install import environment

KEYS = ["sixteen letters!", "k" * 24, "ü" * 8 + "sixteen letters!"]
URLS = ["file:///a", "x" * 15, "x" * 16, "swift+https://user:päss@host/c/o?x=1&y=%20", "rbd://" + "y" * 300]
THEN = datetime(2026, 1, 1)
ADMIN = Context(is_admin=True)

Open = Callable[[str], AbstractContextManager[Database]]


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("mariadb_url", marks=pytest.mark.server),
        pytest.param("postgresql_url", marks=pytest.mark.server),
    ]
)
def under(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """`under(key)`: the same database, opened with that key."""
    url = f"sqlite:///{tmp_path}/glance.sqlite"
    if request.param != "sqlite":
        url = request.getfixturevalue(request.param)
    settings = database_settings(tmp_path, url)
    return lambda key: opened(replace(settings, location_key=key), 2)


@pytest.fixture
def sealed(under: Open) -> Iterator[Database]:
    with under(KEYS[0]) as database:
        yield database


def put(database: Database, *urls: str) -> Image:
    made = Image(str(uuid.uuid4()), "active", "shared", THEN, THEN, owner="p")

    def work(connection: images.Connection) -> Image:
        images.insert(connection, made)
        for url in urls:
            images.add_location(connection, made.id, Location(url, {"store": "s"}), THEN)
        return images.get(connection, made.id, ADMIN)

    return database.write(work)


def texts(database: Database) -> list[str]:
    query = sa.select(image_locations.c.value).order_by(image_locations.c.id)
    return database.read(lambda connection: list(connection.execute(query).scalars()))


@pytest.mark.parametrize("key", KEYS)
def test_there_and_back(key: str) -> None:
    for url in ("file:///a", "swift+https://user:päss@host/c/o?x=1&y=%20", *("rbd://" + "y" * n for n in range(40))):
        text = encrypted(key.encode(), url)
        assert decrypted(key.encode(), text) == url
        assert encrypted(key.encode(), url) != text
        assert decrypted(KEYS[0].encode()[::-1], text) is None


@pytest.mark.parametrize("text", ["", "x", "AAAA", "A" * 32, "A" * 22 + "==", "A" * 44, "file/", "é", "A" * 86 + "=="])
def test_what_is_none(text: str) -> None:
    assert decrypted(KEYS[0].encode(), text) is None


@pytest.mark.server
def test_glance_reads_it_and_is_read() -> None:
    """Its own module, in its own environment."""
    wanted = {key: [encrypted(key.encode(), url) for url in URLS] for key in KEYS}
    program = (
        "import json, sys; from glance.common import crypt; wanted = json.load(sys.stdin)\n"
        "print(json.dumps([{key: [crypt.urlsafe_decrypt(key, text) for text in all] for key, all in wanted[0].items()},"
        " {key: [crypt.urlsafe_encrypt(key, url) for url in wanted[1]] for key in wanted[0]}]))"
    )
    done = subprocess.run(
        [environment("glance") / "bin/python", "-W", "ignore", "-c", program], input=json.dumps([wanted, URLS]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    read, written = json.loads(done.stdout.splitlines()[-1])
    assert read == dict.fromkeys(KEYS, URLS)
    places = [url for url in URLS if "://" in url]
    for key in KEYS:
        assert [url for text in written[key] if (url := decrypted(key.encode(), text))] == places


def test_nothing_is_kept_in_the_clear(sealed: Database) -> None:
    one, other = put(sealed, "file:///a", "http://host/b"), put(sealed, "file:///c")
    assert not any("://" in text or "host" in text for text in texts(sealed))
    by_id = sealed.read(lambda c: images.get(c, one.id, ADMIN))
    locked = sealed.write(lambda c: images.get(c, one.id, ADMIN, lock=True))
    query = ImageQuery(limit=10, sort=[("created_at", False), ("id", False)])
    listed = {each.id: each for each in sealed.read(lambda c: image_query.find(c, query, ADMIN))}
    for found in (one, by_id, locked, listed[one.id]):
        assert [each.url for each in found.locations] == ["file:///a", "http://host/b"]
    assert [each.url for each in listed[other.id].locations] == ["file:///c"]


def test_changes(sealed: Database) -> None:
    """Of the metadata of a place, and of the places."""
    made = put(sealed, "file:///a", "file:///b")
    first, second = made.locations
    after = made.with_(locations=(replace(first, metadata={"store": "t"}), Location("file:///c")))
    sealed.write(lambda c: images.update(c, made, after))
    found = sealed.read(lambda c: images.get(c, made.id, ADMIN))
    assert [(each.url, each.metadata) for each in found.locations] == [
        ("file:///a", {"store": "t"}), ("file:///c", {}),
    ]  # fmt: skip
    assert not any("://" in text for text in texts(sealed))
    assert second.id not in [each.id for each in found.locations]


def test_erasing_knows_a_place_again(sealed: Database) -> None:
    """Its text is another each time."""
    made = put(sealed, "file:///a", "file:///b")
    sealed.write(lambda c: images.remove_location(c, made.locations[0].id, THEN))
    sealed.write(lambda c: images.remove_location(c, made.locations[1].id, THEN))
    sealed.write(lambda c: images.add_location(c, made.id, Location("file:///a"), THEN))
    found: list[Waiting] = sealed.read(lambda c: scrub.due(c, Deadlines(THEN, THEN, THEN), THEN))
    assert [each.location.url for each in found] == ["file:///a", "file:///b"]
    claims = [sealed.write(lambda c, each=each: scrub.claim(c, each, THEN, ())) for each in found]
    assert [claim is not None for claim in claims] == [False, True]


def test_restoring(sealed: Database) -> None:
    made = put(sealed, "file:///a")
    sealed.write(lambda c: images.delete(c, made, "pending_delete", THEN))
    places = sealed.read(lambda c: scrub.restorable(c, made.id))
    assert [each.url for each in places] == ["file:///a"]
    sealed.write(lambda c: scrub.restore(c, made.id, places, THEN))
    assert sealed.read(lambda c: images.get(c, made.id, ADMIN)).locations[0].url == "file:///a"


def test_what_was_there_before_the_key(under: Open) -> None:
    with under("") as plain:
        made = put(plain, "file:///a")
        assert texts(plain) == ["file:///a"]
    with under(KEYS[1]) as sealed:
        assert sealed.read(lambda c: images.get(c, made.id, ADMIN)).locations[0].url == "file:///a"


def test_a_wrong_key(under: Open, caplog: pytest.LogCaptureFixture) -> None:
    with under(KEYS[0]) as right:
        made = put(right, "file:///a")
        bare = put(right)
    with under(KEYS[1]) as wrong, caplog.at_level(logging.ERROR):
        for lock in (False, True):
            with pytest.raises(Unavailable):
                wrong.write(lambda c, lock=lock: images.get(c, made.id, ADMIN, lock=lock))
        assert "metadata_encryption_key" in caplog.text
        assert KEYS[1] not in caplog.text
        assert wrong.read(lambda c: images.get(c, bare.id, ADMIN)) == bare


def test_erasing_with_a_wrong_key(under: Open) -> None:
    """What can be read does not wait for what cannot."""
    with under(KEYS[0]) as right:
        old = put(right, "file:///a")
        right.write(lambda c: images.delete(c, old, "deleted", THEN))
    with under(KEYS[1]) as wrong:
        new = put(wrong, "file:///b")
        wrong.write(lambda c: images.delete(c, new, "deleted", THEN))
        found: list[Waiting] = wrong.read(lambda c: scrub.due(c, Deadlines(THEN, THEN, THEN), THEN))
        assert [each.image_id for each in found] == [old.id, new.id]
        assert found[1].location.url == "file:///b"
        assert "://" not in found[0].location.url
