"""Bytes that are to be erased: which locations wait for it, who does it, and deleted images that come back.

A location that was deleted is `pending_delete` until its bytes are gone. Who erases them claims it first, so that a
hundred workers erase each place once, and so that an image neither gets new bytes at that place meanwhile nor comes
back. The claim is a row's `updated_at` past its `deleted_at`, which Glance never writes; it is renewed while its holder
works. The other half of that promise is `check_at_rest`, asked by whoever begins to store bytes of an image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from glimpse.db import galera, images, sealing
from glimpse.db.tables import image_locations, image_members, image_properties, image_tags
from glimpse.db.tables import images as image_table
from glimpse.domain.lifecycle import DEACTIVATED_PROPERTY
from glimpse.domain.record import LEFTOVER, Location
from glimpse.domain.schema import RESERVED_PREFIX
from glimpse.errors import Conflict, NotFound

STALE = timedelta(seconds=180)  # without a renewal; then the holder of a claim counts as dead
PAGE = 1000  # rows in one answer

_PENDING = "pending_delete"
_places = image_locations.c
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_STORING = ("saving", "importing")  # bytes of such an image come into a store


@dataclass(frozen=True, slots=True)
class Waiting:
    """A location whose bytes are to be erased, and the project that the image belonged to."""

    image_id: str
    location: Location
    owner: str | None


@dataclass(frozen=True, slots=True)
class Deadlines:
    """What was deleted until then is due: images in the status pending_delete, images in deleted, single locations."""

    delayed: datetime
    images: datetime
    locations: datetime


def due(connection: Connection, until: Deadlines, now: datetime, after: int = 0) -> list[Waiting]:
    """The next locations behind that id whose time has come and that nobody is erasing; at most `PAGE`.

    One that another key has sealed has its text for a URL, which no store understands: nobody else waits for it.
    """
    deleted_with = image_table.c.status
    query = (
        sa.select(_places.image_id, _places.value, _places.meta_data, _places.status, _places.id, image_table.c.owner)
        .join(image_table, image_table.c.id == _places.image_id)
        .where(_places.status == _PENDING, _places.deleted == sa.true(), _places.id > after, sa.not_(_claimed(now)))
        .where(
            sa.or_(
                sa.and_(deleted_with == _PENDING, image_table.c.deleted_at <= until.delayed),
                sa.and_(deleted_with == "deleted", _places.deleted_at <= until.images),
                sa.and_(deleted_with.not_in((_PENDING, "deleted")), _places.deleted_at <= until.locations),
            )
        )
        .order_by(_places.id)
        .limit(PAGE)
    )
    return [
        Waiting(
            image_id, Location(sealing.readable(connection, text), json.loads(metadata or "{}"), status, number), owner
        )
        for image_id, text, metadata, status, number, owner in connection.execute(query)
    ]


def _claimed(now: datetime) -> sa.ColumnElement[bool]:
    return sa.func.coalesce(
        sa.and_(_places.updated_at > _places.deleted_at, _places.updated_at >= now - STALE), sa.false()
    )


def with_image(connection: Connection, location: Location) -> Waiting | None:
    """A location with the image that it belongs, or belonged, to; None when it is forgotten."""
    image_id = connection.execute(sa.select(_places.image_id).where(_places.id == location.id)).scalar()
    return Waiting(image_id, location, images.owner(connection, image_id)) if image_id else None


def leftovers(connection: Connection, image_id: str, store_id: str) -> list[Location]:
    """The marks of what a store may have left of an image, and nobody has erased."""
    query = sa.select(_places.value, _places.meta_data, _places.status, _places.id)
    waiting = query.where(_places.image_id == image_id, _places.status == _PENDING, _places.deleted == sa.true())
    found = [
        Location(sealing.readable(connection, text), json.loads(metadata or "{}"), status, number)
        for text, metadata, status, number in connection.execute(waiting)
    ]
    return [each for each in found if each.url.startswith(LEFTOVER) and each.metadata.get("store") == store_id]


def claim(connection: Connection, waiting: Waiting, now: datetime, marks: Collection[str]) -> datetime | None:
    """Take it on to erase these bytes; the claim, or None when that is not to be done, or not now.

    A place that holds bytes of its image again is settled: it is not erased. Nor is what a store may have left over,
    where the image is in that store by now. One of an image that is being stored, as
    its status says, or a property with one of the names `marks`, has to wait.
    """
    if _lock(connection, waiting.image_id) in _STORING or _is_marked(connection, waiting.image_id, marks):
        return None
    location = waiting.location
    row = connection.execute(
        sa.select(_places.deleted_at)
        .where(_places.id == location.id, _places.status == _PENDING, _places.deleted == sa.true())
        .where(sa.not_(_claimed(now)))
    ).first()
    if row is None:
        return None
    if any(_is_alive(location, place) for place in _live(connection, waiting.image_id)):
        images.erased(connection, location)
        return None
    stamp: datetime = max(now, row[0].replace(microsecond=0) + timedelta(seconds=1))
    connection.execute(image_locations.update().where(_places.id == location.id).values(updated_at=stamp))
    return stamp


def _live(connection: Connection, image_id: str) -> list[Location]:
    rows = sa.select(_places.value, _places.meta_data).where(
        _places.image_id == image_id, _places.deleted == sa.false()
    )
    return [
        Location(sealing.unseal(connection, text), json.loads(metadata or "{}"))
        for text, metadata in connection.execute(rows)
    ]


def _is_alive(waiting: Location, live: Location) -> bool:
    if waiting.url.startswith(LEFTOVER):
        # A place that names no store may be in any.
        return live.metadata.get("store") in (None, waiting.metadata.get("store"))
    return waiting.url == live.url


def _lock(connection: Connection, image_id: str) -> str | None:
    """Let nobody else change the image until the transaction ends; its status."""
    galera.claim(connection, image_id)
    query = sa.select(image_table.c.status).where(image_table.c.id == image_id).with_for_update()
    return connection.execute(query).scalar()


def _is_marked(connection: Connection, image_id: str, names: Collection[str]) -> bool:
    marks = image_properties.c
    query = sa.select(marks.id).where(marks.image_id == image_id, marks.name.in_(names), marks.deleted == sa.false())
    return connection.execute(query).first() is not None


def is_shared(connection: Connection, image_id: str, url: str) -> bool:
    """Whether another image, that is not deleted for good, has its bytes at the same place.

    Most stores understand several URLs of one place. So one that names another image by its id is that image's, however
    the rest is spelled; and so is one whose last part, if it is an id (Cinder's, of a volume), ends another's URL.
    """
    if any(other != image_id for other in images_named(connection, url)):
        return True
    if _is_named_after(image_id, url):
        return False  # nobody looks at all rows for it
    others = sa.select(_places.value).where(_places.deleted == sa.false(), _places.image_id != image_id)
    last = url.rpartition("/")[2]
    end = last if _ids_in(last) == {last} else url
    if sealing.seal(connection, url) == url:
        others = others.where(_places.value.endswith(end, autoescape=True))  # for MariaDB in letters of either case
    texts = (sealing.readable(connection, text) for text in connection.execute(others).scalars())
    return any(text == url or (end != url and text.endswith(f"/{end}")) for text in texts)


def images_named(connection: Connection, url: str) -> list[str]:
    """The ids of images, not deleted for good, that a URL names in any part of it."""
    if not (ids := _ids_in(url)):
        return []
    kept = sa.or_(image_table.c.deleted == sa.false(), image_table.c.status == _PENDING)
    return list(connection.execute(sa.select(image_table.c.id).where(image_table.c.id.in_(ids), kept)).scalars())


def is_own(image_id: str, url: str) -> bool:
    """Whether a place can only be this image's, as far as its URL tells."""
    return _is_named_after(image_id, url) and _ids_in(url) <= {image_id}


def _is_named_after(image_id: str, url: str) -> bool:
    return any(image_id in part for part in url.rsplit("/", 2)[-2:])


def _ids_in(url: str) -> set[str]:
    return set(_ID.findall(unquote(url)))


def renew(connection: Connection, location: Location, claimed: datetime, now: datetime) -> datetime | None:
    """Say that the holder of a claim is alive; the new claim, or None when it is somebody else's by now."""
    held = image_locations.update().where(_places.id == location.id, _places.updated_at == claimed)
    stamp = max(now, claimed)
    return stamp if connection.execute(held.values(updated_at=stamp)).rowcount else None


def release(connection: Connection, location: Location, claimed: datetime) -> None:
    """Give a claim back: the bytes are still there."""
    held = image_locations.update().where(_places.id == location.id, _places.updated_at == claimed)
    connection.execute(held.values(updated_at=_places.deleted_at))


def check_at_rest(connection: Connection, image_id: str, now: datetime) -> None:
    """Before bytes of an image are stored, with its row locked: raise `Conflict` while some of it are being erased."""
    query = sa.select(_places.id).where(_places.image_id == image_id, _places.status == _PENDING, _claimed(now))
    if connection.execute(query.with_for_update()).first() is not None:
        raise Conflict("Old data of the image is being erased; try again in a moment.")


def finish(connection: Connection, until: datetime, now: datetime) -> list[str]:
    """Images in the status pending_delete, deleted until then, that have no bytes any more become deleted; their ids.

    At most `PAGE`. Compare-and-swap on the way, as one of them may come back at the same moment.
    """
    left = sa.exists().where(_places.image_id == image_table.c.id, _places.status == _PENDING)
    empty = sa.and_(image_table.c.status == _PENDING, image_table.c.deleted_at <= until, sa.not_(left))
    done = []
    for image_id in connection.execute(sa.select(image_table.c.id).where(empty).limit(PAGE)).scalars().all():
        swap = image_table.update().where(image_table.c.id == image_id, empty)
        if connection.execute(swap.values(status="deleted", updated_at=now)).rowcount:
            done.append(image_id)
    return done


# --- restore ---------------------------------------------------------------------------------------------------------


def restorable(connection: Connection, image_id: str) -> list[Location]:
    """The places at which an image in the status pending_delete still has its bytes.

    Those that left it together with the record; if there are none (Glance's are a moment older), all that wait.
    Raises `NotFound`, `Conflict` (any other status).
    """
    deleted_at = _deleted_at(connection, image_id)
    columns = (_places.value, _places.meta_data, _places.status, _places.id, _places.deleted_at)
    query = sa.select(*columns).where(_places.image_id == image_id, _places.status == _PENDING).order_by(_places.id)
    rows = connection.execute(query).all()
    together = [row for row in rows if row[4] == deleted_at] or rows
    places = [
        Location(sealing.unseal(connection, row[0]), json.loads(row[1] or "{}"), row[2], row[3]) for row in together
    ]
    return [place for place in places if not place.url.startswith(LEFTOVER)]


def _deleted_at(connection: Connection, image_id: str) -> datetime:
    row = connection.execute(
        sa.select(image_table.c.status, image_table.c.deleted_at).where(image_table.c.id == image_id)
    ).first()
    if row is None:
        raise images.not_found(image_id)
    if row[0] != _PENDING:
        raise Conflict(f"Image {image_id[:64]} is {row[0]}: only one that is {_PENDING} can be restored.")
    when: datetime = row[1]
    return when


def restore(connection: Connection, image_id: str, locations: Collection[Location], now: datetime) -> str:
    """Bring an image back with these places and with the properties, tags and members that went with it; its status.

    That is active, or deactivated if it was so when it was deleted. Raises `NotFound`, `Conflict` (another status, or
    some of these bytes are being erased).
    """
    _lock(connection, image_id)
    deleted_at = _deleted_at(connection, image_id)
    back: dict[str, Any] = {"deleted": False, "deleted_at": None}
    for location in locations:
        place = image_locations.update().where(_places.id == location.id, _places.status == _PENDING)
        revived = place.where(sa.not_(_claimed(now))).values(status="active", updated_at=now, **back)
        if not connection.execute(revived).rowcount:
            raise Conflict(f"The data of image {image_id} is being erased at this moment.")
    status = "deactivated" if _was_deactivated(connection, image_id, deleted_at) else "active"
    for table in (image_properties, image_tags, image_members):
        went = table.update().where(table.c.image_id == image_id, table.c.deleted_at == deleted_at)
        if table is image_properties:  # what the service had noted of work that is long over stays behind
            went = went.where(sa.not_(table.c.name.startswith(RESERVED_PREFIX, autoescape=True)))
        connection.execute(went.values(**back))
    swap = image_table.update().where(image_table.c.id == image_id, image_table.c.status == _PENDING)
    if not connection.execute(swap.values(status=status, updated_at=now, **back)).rowcount:
        raise NotFound(f"Image {image_id} is gone.")
    return status


def _was_deactivated(connection: Connection, image_id: str, deleted_at: datetime) -> bool:
    marks = image_properties.c
    mark = sa.delete(image_properties).where(marks.image_id == image_id, marks.name == DEACTIVATED_PROPERTY)
    return bool(connection.execute(mark.where(marks.deleted_at == deleted_at)).rowcount)
