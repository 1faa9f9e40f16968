"""Usage and reservations on each database; many threads at once never get more than there is."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from glimpse.access.limits import SIZE_TOTAL
from glimpse.access.quota import MIB, STEP, Account, Quotas, Reservation
from glimpse.db import additions, images, quota
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import COPY_PROPERTY, LEASE_PROPERTY
from glimpse.domain.record import Image, Location
from glimpse.errors import Gone, TooLarge
from tests.db.opened import opened
from tests.db.test_schema import database_settings

ADMIN = Context(is_admin=True)
PROJECT = "5a7c"
THREADS = 20


@pytest.fixture
def quotas(synced: Database) -> Quotas:
    return Quotas(synced, 10 * MIB, None)


def sqlite(folder: Path) -> AbstractContextManager[Database]:
    """A database for what is the same on all of them."""
    return opened(database_settings(folder, f"sqlite:///{folder}/glance.sqlite"), 1)


def queued(database: Database, project: str | None = PROJECT, **fields: Any) -> str:
    now = lifecycle.now()
    fields = {"status": "queued", "visibility": "shared", "created_at": now, "updated_at": now, **fields}
    image = Image(id=str(uuid.uuid4()), owner=project, **fields)
    database.write(lambda connection: images.insert(connection, image))
    return image.id


def begin(quotas: Quotas, database: Database, account: Account, image_id: str, size: int | None) -> Reservation | None:
    def work(connection: Connection) -> Reservation | None:
        account.take_turn(connection)
        images.get(connection, image_id, ADMIN, lock=True)
        reservation = account.admit_upload(connection, image_id, size)
        images.set_status(connection, image_id, "queued", "saving", lifecycle.now())
        images.set_property(connection, image_id, LEASE_PROPERTY, "mine", lifecycle.now())
        return reservation

    return quotas.write(work)


def finish(quotas: Quotas, database: Database, image_id: str, size: int) -> None:
    def work(connection: Connection) -> None:
        images.drop_property(connection, image_id, LEASE_PROPERTY, "mine")
        quotas.release(connection, image_id)
        images.set_status(connection, image_id, "saving", "active", lifecycle.now(), size=size)
        images.add_location(connection, image_id, Location(f"file:///{image_id}"), lifecycle.now())

    database.write(work)


def used(database: Database, project: str | None = PROJECT) -> int:
    return database.read(lambda connection: quota.used_bytes(connection, project))


def at_once(work: Callable[[], bool]) -> int:
    """How many of many threads that start together say yes; their failures are the test's."""
    barrier = threading.Barrier(THREADS)
    answers: list[bool] = []
    failures: list[BaseException] = []

    def run() -> None:
        barrier.wait()
        try:
            answers.append(work())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert len(answers) == THREADS
    return sum(answers)


def test_announced_sizes_at_once(synced: Database, quotas: Quotas) -> None:
    account = quotas.account(PROJECT)
    most = 0

    def upload() -> bool:
        nonlocal most
        image_id = queued(synced)
        try:
            begin(quotas, synced, account, image_id, MIB)
        except TooLarge:
            return False
        most = max(most, used(synced))
        finish(quotas, synced, image_id, MIB)
        most = max(most, used(synced))
        return True

    assert at_once(upload) == 10
    assert most == used(synced) == 10 * MIB


def test_unknown_sizes_at_once(synced: Database, quotas: Quotas) -> None:
    account = quotas.account(PROJECT)
    piece = MIB // 2
    filled: list[int] = []
    most = 0

    def upload() -> bool:
        nonlocal most
        image_id = queued(synced)
        try:
            reservation = begin(quotas, synced, account, image_id, None)
        except TooLarge:  # nothing was left when it began
            filled.append(0)
            return False
        size = 0
        try:
            while True:
                assert reservation is not None
                if size + piece > reservation.size:
                    reservation = quotas.extend(reservation, size + piece)
                    most = max(most, used(synced))
                size += piece
        except TooLarge:
            filled.append(size)
        return False

    at_once(upload)
    assert most <= used(synced) <= 10 * MIB
    assert 8 * MIB < sum(filled) <= 10 * MIB


def test_images_at_once(synced: Database, quotas: Quotas) -> None:
    account = Account(PROJECT, images=7, limit=SIZE_TOTAL)

    def create() -> bool:
        now = lifecycle.now()
        image = Image(str(uuid.uuid4()), "queued", "shared", now, now, owner=PROJECT)

        def work(connection: Connection) -> None:
            account.take_turn(connection)
            account.admit_image(connection)
            images.insert(connection, image)

        try:
            quotas.write(work)
        except TooLarge:
            return False
        return True

    assert at_once(create) == 7
    assert synced.read(lambda connection: quota.image_count(connection, PROJECT)) == 7


def test_uploads_at_once_are_counted(synced: Database, quotas: Quotas) -> None:
    account = Account(PROJECT, uploading=3, limit=SIZE_TOTAL)

    def upload() -> bool:
        try:
            begin(quotas, synced, account, queued(synced), None)
        except TooLarge:
            return False
        return True

    assert at_once(upload) == 3
    assert synced.read(lambda connection: quota.uploading_count(connection, PROJECT)) == 3


def test_tables_are_added_when_they_are_missing(synced: Database, quotas: Quotas) -> None:
    """A database that Glance made; and many find it out at the same moment."""
    synced.write(additions.metadata.drop_all)
    account = quotas.account(PROJECT)

    def upload() -> bool:
        each = Quotas(synced, 10 * MIB, None)  # as another process has it
        try:
            begin(each, synced, account, queued(synced), MIB)
        except TooLarge:
            return False
        return True

    assert at_once(upload) == 10
    assert used(synced) == 10 * MIB


def test_steps_are_large_where_there_is_plenty(synced: Database) -> None:
    quotas = Quotas(synced, 10_000 * MIB, None)
    reservation = begin(quotas, synced, quotas.account(PROJECT), queued(synced), None)
    assert reservation is not None
    assert reservation.size == 0
    reservation = quotas.extend(reservation, 1)
    assert reservation.size == STEP
    reservation = quotas.extend(reservation, 1000 * MIB)
    assert reservation.size == STEP + max(1000 * MIB - STEP, 250 * MIB)
    reservation = quotas.extend(reservation, reservation.size + 1)
    assert reservation.size == 1250 * MIB
    with pytest.raises(TooLarge, match=r"user_storage_quota: 0 MiB of 10000 MiB are used, and 10001 MiB are asked for"):
        quotas.extend(reservation, 10_001 * MIB)
    assert quotas.extend(reservation, 10_000 * MIB).size == 10_000 * MIB


def test_what_counts_as_bytes(synced: Database, quotas: Quotas) -> None:
    """Each copy that is not erased counts (Glance counts so too), of images that are not deleted."""
    copies = {"active": 1000, "deactivated": 200, "killed": 9, "queued": None, "deleted": 9, "pending_delete": 9}
    for status, size in copies.items():
        image_id = queued(synced, status=status, size=size)
        for name in ("a", "b"):
            location = Location(f"file:///{image_id}/{name}", {}, "deleted" if name == "b" else "active")
            synced.write(lambda c, i=image_id, at=location: images.add_location(c, i, at, lifecycle.now()))
    twice = queued(synced, status="active", size=30)
    for name in ("a", "b"):
        location = Location(f"file:///{twice}/{name}", {}, "pending_delete" if name == "b" else "active")
        synced.write(lambda c, at=location: images.add_location(c, twice, at, lifecycle.now()))
    other = queued(synced, "another", status="active", size=7)
    synced.write(lambda c: images.add_location(c, other, Location("file:///o"), lifecycle.now()))
    nobody = queued(synced, None, status="active", size=5)
    synced.write(lambda c: images.add_location(c, nobody, Location("file:///n"), lifecycle.now()))
    assert used(synced) == 1260
    assert used(synced, "another") == 7
    assert used(synced, None) == 5
    assert synced.read(lambda c: quota.used_bytes(c, PROJECT, besides=twice)) == 1200
    assert synced.read(lambda c: quota.image_count(c, PROJECT)) == 4


def test_what_counts_as_uploading_and_staged(synced: Database, quotas: Quotas) -> None:
    for status, size in (("uploading", 100), ("importing", 20), ("saving", 5), ("queued", None)):
        queued(synced, status=status, size=size)
    queued(synced, status="active", size=3, properties={COPY_PROPERTY: "fast"})
    queued(synced, status="active", size=7, properties={COPY_PROPERTY: ""})
    queued(synced, status="importing", size=1, properties={COPY_PROPERTY: "fast"})
    assert synced.read(lambda c: quota.uploading_count(c, PROJECT)) == 5
    assert synced.read(lambda c: quota.staged_bytes(c, PROJECT)) == 124


def test_a_reservation_lives_with_the_lease(synced: Database, quotas: Quotas) -> None:
    image_id = queued(synced)
    account = quotas.account(PROJECT)
    reservation = begin(quotas, synced, account, image_id, 6 * MIB)
    assert reservation is not None
    with pytest.raises(TooLarge):
        begin(quotas, synced, account, queued(synced), 5 * MIB)
    # Deleted meanwhile: the bytes are still there.
    image = synced.read(lambda c: images.get(c, image_id, ADMIN))
    synced.write(lambda c: images.delete(c, image, "deleted", lifecycle.now()))
    assert used(synced) == 6 * MIB
    assert synced.read(lambda c: quota.uploading_count(c, PROJECT)) == 1
    # An older Glimpse, or Glance, took the lease away and knew of no reservation.
    synced.write(lambda c: images.drop_property(c, image_id, LEASE_PROPERTY, "mine"))
    assert used(synced) == 0
    assert synced.read(lambda c: quota.uploading_count(c, PROJECT)) == 0
    quotas.forget_dead()
    with synced.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(additions.quota_reservations)) == 0
    with pytest.raises(Gone):
        quotas.extend(reservation, 7 * MIB)


def test_a_deleted_upload_counts_also_without_a_limit_of_bytes(synced: Database, quotas: Quotas) -> None:
    account = Account(PROJECT, uploading=1, limit=SIZE_TOTAL)
    image_id = queued(synced)
    assert begin(quotas, synced, account, image_id, None) is None
    image = synced.read(lambda c: images.get(c, image_id, ADMIN))
    synced.write(lambda c: images.delete(c, image, "deleted", lifecycle.now()))
    with pytest.raises(TooLarge, match="image_count_uploading: it has 1 of 1"):
        begin(quotas, synced, account, queued(synced), 1)


@pytest.mark.parametrize(
    ("used", "limit", "others", "size", "fits"),
    [
        (0, 2, 0, 2 * MIB, True),
        (0, 2, 0, 2 * MIB + 1, False),
        (2, 2, 0, 0, True),
        (2, 2, 0, 1, False),
        (1, 2, 0, None, True),
        (2, 2, 0, None, True),  # exactly all of it, and nobody else
        (2, 2, 1, None, False),
        (3, 2, 0, None, False),
        (0, 0, 0, None, False),
        (0, 0, 0, 1, False),
    ],
)
def test_when_an_upload_may_begin(
    tmp_path: Path, used: int, limit: int, others: int, size: int | None, fits: bool
) -> None:
    with sqlite(tmp_path) as database:
        quotas = Quotas(database, 1, None)
        account = Account(PROJECT, limit * MIB, limit=SIZE_TOTAL)
        held = queued(database, status="active", size=used * MIB)
        database.write(lambda c: images.add_location(c, held, Location("file:///x"), lifecycle.now()))
        for _ in range(others):
            queued(database, status="saving")
        if not fits:
            with pytest.raises(TooLarge, match="image_size_total"):
                begin(quotas, database, account, queued(database), size)
            return
        reservation = begin(quotas, database, account, queued(database), size)
        assert reservation is not None
        assert reservation.ceiling == limit * MIB + (MIB if size is None and used == limit else 0)


def test_bytes_of_locations(synced: Database, quotas: Quotas) -> None:
    account = quotas.storage_account(PROJECT)
    held = queued(synced, status="active", size=4 * MIB)
    synced.write(lambda c: images.add_location(c, held, Location("http://a/"), lifecycle.now()))
    quotas.write(lambda c: account.admit_bytes(c, held, 8 * MIB))
    with pytest.raises(TooLarge):
        quotas.write(lambda c: account.admit_bytes(c, held, 12 * MIB))
    other = queued(synced)
    with pytest.raises(TooLarge):
        quotas.write(lambda c: account.admit_bytes(c, other, 7 * MIB))


def test_without_quotas_nothing_of_this_is_touched(synced: Database) -> None:
    synced.write(additions.metadata.drop_all)
    off = Quotas(synced, 0, None)
    image_id = queued(synced)
    assert begin(off, synced, off.account(PROJECT), image_id, None) is None
    finish(off, synced, image_id, 1)
    off.forget_dead()
    assert off.usage(PROJECT) == {}
    with synced.reading() as connection:
        assert not sa.inspect(connection).has_table(additions.quota_turns.name)
