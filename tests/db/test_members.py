"""Members in each kind of database."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from glimpse.db import images, members
from glimpse.db.engine import Connection, Database
from glimpse.db.tables import image_members
from glimpse.domain.record import Member
from tests.db.test_images import ADMIN, OTHER, THEN, got, image, put

LATER = THEN + timedelta(hours=1)


def found(database: Database, image_id: str, *member: str) -> list[Member]:
    return database.read(lambda connection: members.find(connection, image_id, *member))


def test_in_and_out_and_back(synced: Database) -> None:
    """One row for ever, whatever happens."""
    one, other = image(), image()
    put(synced, one, other)
    for name in ("q", "r"):
        synced.write(lambda c, name=name: members.add(c, one.id, name, THEN))
    q, r = found(synced, one.id)
    assert (q, r) == (Member(one.id, "q", "pending", THEN, THEN), Member(one.id, "r", "pending", THEN, THEN))
    assert found(synced, one.id, "r") == [r]
    assert found(synced, other.id) == []
    assert synced.read(lambda c: members.count(c, one.id)) == 2
    synced.write(lambda c: members.set_status(c, q, "accepted", LATER))
    assert found(synced, one.id) == [Member(one.id, "q", "accepted", THEN, LATER), r]
    for _ in range(2):
        synced.write(lambda c: members.remove(c, q, LATER))
        assert found(synced, one.id) == [r]
        assert synced.read(lambda c: members.count(c, one.id)) == 1
        synced.write(lambda c: members.add(c, one.id, "q", LATER))
        assert found(synced, one.id) == [Member(one.id, "q", "pending", THEN, LATER), r]

    def rows(connection: Connection) -> int:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(image_members)) or 0)

    assert synced.read(rows) == 2


def test_several_rows_of_one_member(synced: Database) -> None:
    """Older releases of Glance made a new row each time; one of them is enough to come back."""
    one = image()
    put(synced, one)

    def old_rows(connection: Connection) -> None:
        for hours in range(3):
            gone = THEN + timedelta(hours=hours)
            connection.execute(
                image_members.insert().values(
                    image_id=one.id, member="q", can_share=False, created_at=THEN, deleted=True, deleted_at=gone
                )
            )

    synced.write(old_rows)
    assert found(synced, one.id) == []
    synced.write(lambda c: members.add(c, one.id, "q", LATER))
    assert found(synced, one.id) == [Member(one.id, "q", "pending", THEN, LATER)]
    assert got(synced, one.id, OTHER).member == "q"
    synced.write(lambda c: members.remove(c, found(synced, one.id)[0], LATER + timedelta(days=1)))
    assert found(synced, one.id) == []


def test_members_go_with_their_image(synced: Database) -> None:
    one = image()
    put(synced, one)
    synced.write(lambda c: members.add(c, one.id, "q", THEN))
    synced.write(lambda c: images.delete(c, got(synced, one.id, ADMIN), "deleted", LATER))
    assert found(synced, one.id) == []


def test_names_that_no_database_can_keep(synced: Database) -> None:
    shared = image()
    put(synced, shared)
    synced.write(lambda c: members.add(c, shared.id, "q", THEN))
    for name in ("\U0001f4bf", "q\0"):
        assert found(synced, shared.id, name) == []
