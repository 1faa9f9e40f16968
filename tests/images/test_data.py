"""Uploads that end badly, one moment after the other: the record and the store always agree afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from glimpse.access.policy import Policy
from glimpse.access.protection import Protection
from glimpse.access.quota import Quotas
from glimpse.db import images, scrub
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import LEASE_PROPERTY
from glimpse.domain.record import Image, Location
from glimpse.domain.schema import ImageSchema
from glimpse.errors import BadRequest, Conflict, Duplicate, Gone, NotFound, SizeMismatch, TooLarge, Unavailable
from glimpse.images.data import ImageData
from glimpse.images.leases import STALE, Lease, Leases, parse, this_process
from glimpse.images.manage import Records
from glimpse.images.signatures import PROPERTIES, Signatures
from glimpse.images.staging import Staging
from glimpse.images.unfinished import Unfinished
from glimpse.notifications import Notifications
from glimpse.settings import Settings, load
from glimpse.stores.conformance import BrokenOff
from glimpse.stores.registry import ConfiguredStore, Stores, open_stores
from glimpse.stores.unusable import UnusableStore
from tests.db.opened import opened

ADMIN = Context(is_admin=True, roles=frozenset({"admin"}))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = fs:file\nimage_size_cap = 5000000\n[glance_store]\ndefault_backend = fs\n"
        f"[fs]\nfilesystem_store_datadir = {tmp_path}/images\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
    )
    return load(["--config-file", str(conf)])


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with opened(settings.database, 2) as database:
        yield database


class Noted(Notifications):
    """Events with their priority, and the status of the image or the text that they tell of."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.events: list[tuple[str, str, str]] = []

    def tell(self, event: str, what: Any, priority: str = "INFO", **more: Any) -> None:
        self.events.append((event, priority, getattr(what, "status", what)))


@pytest.fixture
def noted(settings: Settings) -> Noted:
    return Noted(settings)


@pytest.fixture
def data(settings: Settings, database: Database, noted: Noted) -> ImageData:
    policy, stores = Policy(settings.conf), open_stores(settings)
    quotas, staging = Quotas(database, 0, None), Staging(settings.imports, stores)
    unfinished = Unfinished(database, stores, noted, quotas, staging)
    return ImageData(settings, database, policy, stores, noted, quotas, staging, Signatures(settings), unfinished)


@pytest.fixture
def records(settings: Settings, data: ImageData) -> Records:
    formats = settings.formats
    schema = ImageSchema(formats.container_formats, formats.disk_formats)
    protection = Protection(settings, data.policy)
    return Records(
        settings, data.database, data.policy, schema, protection, data.stores, data.notifications, data.quotas
    )


@pytest.fixture
def image(records: Records) -> Image:
    return records.create(ADMIN, {"disk_format": "raw", "container_format": "bare"})


async def stream(*blocks: bytes | Exception | Callable[[], Any]) -> AsyncIterator[bytes]:
    """Blocks, failures, and things that happen meanwhile."""
    for block in blocks:
        if isinstance(block, Exception):
            raise block
        if isinstance(block, bytes):
            yield block
        elif asyncio.iscoroutine(result := block()):
            await result


def stored(settings: Settings) -> list[str]:
    return sorted(os.listdir(_folder(settings)))


def _folder(settings: Settings) -> Path:
    return Path(settings.database.url.removeprefix("sqlite:///")).parent / "images"


def now_is(data: ImageData, image: Image) -> Image:
    return data.database.read(lambda connection: images.get(connection, image.id, ADMIN))


async def test_an_upload(data: ImageData, image: Image, settings: Settings) -> None:
    await data.upload(ADMIN, image.id, stream(b"abc", b"def"), 6, None)
    after = now_is(data, image)
    assert (after.status, after.size, after.checksum) == ("active", 6, hashlib.md5(b"abcdef").hexdigest())
    assert after.os_hash_value == hashlib.sha512(b"abcdef").hexdigest()
    assert after.properties == {}
    assert stored(settings) == [image.id]


@pytest.mark.parametrize(
    ("blocks", "size", "error"),
    [
        ((b"abc", BrokenOff()), 6, BrokenOff),
        ((b"abc",), 6, SizeMismatch),
        ((b"abcdefg",), 6, SizeMismatch),
        ((bytes(3_000_000), bytes(3_000_000)), None, TooLarge),
        ((b"abc",), 6_000_000, TooLarge),
    ],
)
async def test_bad_streams_leave_nothing(
    data: ImageData, image: Image, settings: Settings, blocks: tuple[Any, ...], size: int | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await data.upload(ADMIN, image.id, stream(*blocks), size, None)
    assert (now_is(data, image).status, now_is(data, image).properties) == ("queued", {})
    assert stored(settings) == []
    await data.upload(ADMIN, image.id, stream(b"x"), 1, None)


async def test_a_cancelled_upload_leaves_nothing(data: ImageData, image: Image, settings: Settings) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)
            started.set()
            await asyncio.sleep(0.001)

    task = asyncio.create_task(data.upload(ADMIN, image.id, endless(), None, None))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now_is(data, image).status == "queued"
    assert stored(settings) == []


async def test_deleted_meanwhile(data: ImageData, records: Records, image: Image, settings: Settings) -> None:
    with pytest.raises(Gone):
        await data.upload(ADMIN, image.id, stream(b"abc", lambda: records.delete(ADMIN, image.id), b"def"), 6, None)
    assert stored(settings) == []
    assert data.database.read(lambda c: images.with_property(c, LEASE_PROPERTY)) == []


async def test_only_queued_images_take_bytes(data: ImageData, image: Image) -> None:
    await data.upload(ADMIN, image.id, stream(b"x"), 1, None)
    with pytest.raises(Conflict):
        await data.upload(ADMIN, image.id, stream(b"y"), 1, None)
    assert now_is(data, image).checksum == hashlib.md5(b"x").hexdigest()


async def test_a_signature_that_cannot_be_meant(data: ImageData, records: Records, settings: Settings) -> None:
    """It is refused before the status changes, and before a byte is read."""
    signed = records.create(ADMIN, {"disk_format": "raw", "container_format": "bare", **dict.fromkeys(PROPERTIES, "x")})
    with pytest.raises(BadRequest, match="img_signature"):
        await data.upload(ADMIN, signed.id, stream(b"x"), 1, None)
    assert now_is(data, signed).updated_at == signed.updated_at


async def test_an_unknown_store(data: ImageData, image: Image) -> None:
    with pytest.raises(BadRequest, match="fs"):
        await data.upload(ADMIN, image.id, stream(b"x"), 1, "tape")


async def test_the_answer_to_the_last_commit_is_lost(
    data: ImageData, image: Image, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = data.database.write
    lost = []

    def unlucky(work: Callable[[Connection], Any]) -> Any:
        result = write(work)
        if now_is(data, image).status == "active" and not lost:
            lost.append(1)
            raise Unavailable("the answer is lost")
        return result

    monkeypatch.setattr(data.database, "write", unlucky)
    await data.upload(ADMIN, image.id, stream(b"x"), 1, None)
    assert lost
    assert now_is(data, image).status == "active"
    assert stored(settings) == [image.id]


# --- what a killed process leaves ---


def abandoned(data: ImageData, image: Image, **process: Any) -> Lease:
    """An upload as kill -9 leaves it: the record in saving, a lease, bytes under two names."""
    lease = Lease(replace(this_process(), **{"started": "0", **process}), "fs", "token")
    now = lifecycle.now()

    def work(connection: Connection) -> None:
        images.set_status(connection, image.id, "queued", "saving", now)
        images.set_property(connection, image.id, LEASE_PROPERTY, lease.text(), now)

    data.database.write(work)
    folder = _folder(data.settings)
    (folder / f".{image.id}.00.part").write_bytes(b"half")
    (folder / image.id).write_bytes(b"whole")
    return lease


async def test_a_killed_upload_is_cleaned_up(data: ImageData, image: Image, settings: Settings) -> None:
    abandoned(data, image)
    await data.unfinished.sweep()
    assert (now_is(data, image).status, now_is(data, image).properties) == ("queued", {})
    assert stored(settings) == []
    await data.upload(ADMIN, image.id, stream(b"x"), 1, None)


async def test_also_when_the_image_was_deleted_since(
    data: ImageData, records: Records, image: Image, settings: Settings
) -> None:
    abandoned(data, image)
    records.delete(ADMIN, image.id)
    await data.unfinished.sweep()
    assert stored(settings) == []
    assert data.database.read(lambda c: images.with_property(c, LEASE_PROPERTY)) == []
    with pytest.raises(NotFound):
        now_is(data, image)


async def test_living_uploads_are_left_alone(data: ImageData, image: Image, settings: Settings) -> None:
    abandoned(data, image, started=this_process().started, pid=os.getpid(), host="elsewhere")
    await data.unfinished.sweep()
    assert now_is(data, image).status == "saving"
    await data.upload(ADMIN, (other := _another(data)).id, stream(b"x", data.unfinished.sweep, b"y"), 2, None)
    assert now_is(data, other).status == "active"


def _another(data: ImageData) -> Image:
    then = lifecycle.now()
    made = Image("other", "queued", "shared", then, then, disk_format="raw", container_format="bare")
    data.database.write(lambda connection: images.insert(connection, made))
    return made


class Away:
    """What a store does while its server is away: `lost` is what it does not come to remove."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_back = False

    async def discard(self, image_id: str) -> None:
        self.asked.append(image_id)
        if not self.is_back:
            raise Unavailable("The store does not answer in time.")


@pytest.fixture
def away(data: ImageData, monkeypatch: pytest.MonkeyPatch) -> Away:
    made = Away()
    monkeypatch.setattr(data.stores.default.store, "discard", made.discard)
    return made


def left_over(data: ImageData, image: Image) -> list[Location]:
    return data.database.read(lambda c: scrub.leftovers(c, image.id, "fs"))


async def test_a_killed_upload_waits_for_no_store(data: ImageData, image: Image, away: Away) -> None:
    """The record is free at once; what the store may hold goes before the next upload, or with the scrubber."""
    abandoned(data, image)
    await data.unfinished.sweep()
    assert (now_is(data, image).status, now_is(data, image).properties) == ("queued", {})
    assert len(left_over(data, image)) == 1
    with pytest.raises(Unavailable):
        await data.upload(ADMIN, image.id, stream(b"x"), 1, None)
    assert now_is(data, image).status == "queued"
    assert away.asked == [image.id] * 2  # what never reached the store is not asked for, nor noted again
    assert len(left_over(data, image)) == 1


async def test_what_an_upload_left_goes_before_the_next_one(
    data: ImageData, image: Image, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(data.stores.default.store, "put", _unanswered)
        with pytest.raises(Unavailable):
            await data.upload(ADMIN, image.id, stream(b"x"), 1, None)
    assert now_is(data, image).status == "queued"
    assert away.asked == [image.id]
    assert len(left_over(data, image)) == 1
    away.is_back = True
    await data.upload(ADMIN, image.id, stream(b"x"), 1, None)
    assert (now_is(data, image).status, left_over(data, image)) == ("active", [])
    assert away.asked == [image.id] * 2


async def _unanswered(*_: Any) -> Any:
    raise Unavailable("The store does not answer in time.")


async def test_a_store_out_of_service_has_nothing_of_an_upload(data: ImageData, image: Image) -> None:
    """So nobody waits for it to put anything away, and the answer is the same each time."""
    lacking = ConfiguredStore("lacking", 0, UnusableStore("file", ("file",)))
    data = replace(data, stores=Stores([data.stores.default, lacking], "fs", True))
    for _ in range(2):
        with pytest.raises(Gone, match="not set up"):
            await data.upload(ADMIN, image.id, stream(b"x"), 1, "lacking")
        assert (now_is(data, image).status, left_over(data, image)) == ("queued", [])


async def test_bytes_of_somebody_else_are_left_alone(
    data: ImageData, image: Image, settings: Settings, away: Away
) -> None:
    (_folder(settings) / image.id).write_bytes(b"another's")
    with pytest.raises(Duplicate):
        await data.upload(ADMIN, image.id, stream(b"x"), 1, None)
    assert (away.asked, left_over(data, image)) == ([], [])


async def test_a_store_that_is_not_configured_any_more_keeps_its_images(data: ImageData, image: Image) -> None:
    lease = abandoned(data, image)
    text = replace(lease, store="gone").text()
    data.database.write(lambda c: images.set_property(c, image.id, LEASE_PROPERTY, text, lifecycle.now()))
    await data.unfinished.sweep()
    assert now_is(data, image).properties == {LEASE_PROPERTY: text}


def test_who_is_alive() -> None:
    leases, then = Leases(), datetime(2026, 1, 1)
    mine = leases.take("fs")
    assert leases.is_alive(mine, None, then)
    leases.drop(mine)
    assert not leases.is_alive(mine, then, then)
    me = this_process()
    init = replace(mine, process=replace(me, pid=1, started="0"))
    assert not leases.is_alive(init, then, then)
    elsewhere = replace(mine, process=replace(me, host="elsewhere"))
    assert leases.is_alive(elsewhere, then, then + timedelta(seconds=STALE - 1))
    assert not leases.is_alive(elsewhere, then, then + timedelta(seconds=STALE + 1))
    assert not leases.is_alive(elsewhere, None, then)
    assert parse(mine.text()) == mine
    assert parse("no json") is None
    assert parse("{}") is None


# --- what is told ---


CREATED = ("image.create", "INFO", "queued")
BEGUN = [CREATED, ("image.update", "INFO", "saving"), ("image.prepare", "INFO", "saving")]


async def test_an_upload_tells_what_has_happened(data: ImageData, image: Image, noted: Noted) -> None:
    await data.upload(ADMIN, image.id, stream(b"x"), 1, None)
    done = ["image.upload", "image.activate", "image.update"]
    assert noted.events == BEGUN + [(event, "INFO", "active") for event in done]


async def test_a_failed_upload_tells_that_and_why(data: ImageData, image: Image, noted: Noted) -> None:
    with pytest.raises(ZeroDivisionError):
        await data.upload(ADMIN, image.id, stream(b"x", ZeroDivisionError("a secret path")), 2, None)
    text = f"Failed to upload image data for image {image.id} due to ZeroDivisionError"
    assert noted.events == [*BEGUN, ("image.upload", "ERROR", text), ("image.update", "INFO", "queued")]


async def test_a_refused_upload_tells_nothing(data: ImageData, image: Image, noted: Noted) -> None:
    with pytest.raises(NotFound):
        await data.upload(ADMIN, "absent", stream(b"x"), 1, None)
    with pytest.raises(TooLarge):
        await data.upload(ADMIN, image.id, stream(b"x"), 5_000_001, None)
    assert noted.events == [CREATED]


async def test_an_image_deleted_during_its_upload_is_not_told_to_be_queued(
    data: ImageData, records: Records, image: Image, noted: Noted
) -> None:
    with pytest.raises(Gone):
        await data.upload(ADMIN, image.id, stream(b"x", lambda: records.delete(ADMIN, image.id), b"y"), 2, None)
    assert [(event, priority) for event, priority, _ in noted.events] == [
        ("image.create", "INFO"), ("image.update", "INFO"), ("image.prepare", "INFO"), ("image.delete", "INFO"),
        ("image.upload", "ERROR"),
    ]  # fmt: skip


async def test_an_image_that_a_sweep_puts_back_is_told(data: ImageData, image: Image, noted: Noted) -> None:
    abandoned(data, image)
    await data.unfinished.sweep()
    assert noted.events == [CREATED, ("image.update", "INFO", "queued")]
