"""Images in the database: read one, insert, update, delete, and move from status to status.

Everything here runs on the connection that it is given; whoever calls decides where a transaction begins and ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from glimpse.db import galera, image_documents, sealing
from glimpse.db.prepared import Prepared
from glimpse.db.tables import image_locations, image_members, image_properties, image_tags, images
from glimpse.domain.context import Context
from glimpse.domain.record import LEFTOVER, Image, Location
from glimpse.domain.schema import is_storable
from glimpse.errors import Conflict, Duplicate, NotFound

_Statement = TypeVar("_Statement", sa.Update, sa.Delete)

_null = sa.cast(sa.null(), sa.Text)
_one: sa.BindParameter[str] = sa.bindparam("image_id", type_=sa.String)


def _children(kind: str, table: sa.Table, one: Any, two: Any = _null, three: Any = _null) -> sa.Select[Any]:
    return sa.select(
        sa.literal_column(f"'{kind}'").label("kind"), table.c.id, one.label("a"), two.label("b"), three.label("c")
    ).where(table.c.image_id == _one, table.c.deleted == sa.false())


_ROW = sa.select(*(images.c[name] for name in image_documents.COLUMNS)).where(
    images.c.id == _one, images.c.deleted == sa.false()
)
_ROW_LOCKED = _ROW.with_for_update()
_CHILDREN = sa.union_all(
    _children("p", image_properties, image_properties.c.name, image_properties.c.value),
    _children("t", image_tags, image_tags.c.value),
    _children("l", image_locations, image_locations.c.value, image_locations.c.meta_data, image_locations.c.status),
    _children("m", image_members, image_members.c.member).where(image_members.c.member == image_documents.PROJECT),
)


@lru_cache
def _document(dialect: str) -> Prepared:
    document = image_documents.document(dialect, images)
    return Prepared(sa.select(images.c.id, document).where(images.c.id == _one, images.c.deleted == sa.false()))


def get(connection: Connection, image_id: str, context: Context, lock: bool = False) -> Image:
    """The image, if it exists and the caller may know of it. `lock` holds its row until the transaction ends.

    Raises `NotFound` for absent, deleted and invisible ones alike (spec: visibility at database level).
    """
    if len(image_id) > 36 or not is_storable(image_id):
        raise not_found(image_id)
    if lock:
        galera.claim(connection, image_id)
    image = from_rows(connection, image_id, context, lock) if lock else _from_document(connection, image_id, context)
    # MariaDB finds an id in any spelling, but files and children have the one it was created with.
    if image is None or image.id != image_id or not is_visible(image, context):
        raise not_found(image_id)
    return image


def _from_document(connection: Connection, image_id: str, context: Context) -> Image | None:
    statement = _document(connection.dialect.name)
    rows = statement.run(connection, {"image_id": image_id, "project": context.project_id})
    if not rows:
        return None
    return sealing.unsealed(connection, image_documents.read(rows[0][1], context)) or from_rows(
        connection, image_id, context
    )


def from_rows(connection: Connection, image_id: str, context: Context, lock: bool = False) -> Image | None:
    """An image row by row, in two queries: for a lock, which a document cannot have, and for one that is too large."""
    row = connection.execute(_ROW_LOCKED if lock else _ROW, {"image_id": image_id}).mappings().first()
    if row is None:
        return None
    properties: dict[str, str | None] = {}
    tags, locations, shared = [], [], False
    for kind, child_id, a, b, c in connection.execute(_CHILDREN, {"image_id": image_id, "project": context.project_id}):
        if kind == "p":
            properties[a] = b
        elif kind == "t":
            tags.append(a)
        elif kind == "m":
            shared |= a == context.project_id and row["visibility"] == "shared" and row["owner"] != a
        elif c == "active":
            locations.append(Location(sealing.unseal(connection, a), json.loads(b) if b else {}, c, child_id))
    return Image(
        **{**row, "updated_at": row["updated_at"] or row["created_at"]},
        properties=properties,
        tags=tuple(tags),
        locations=tuple(sorted(locations, key=lambda location: location.id or 0)),
        member=context.project_id if shared else None,
    )


def not_found(image_id: str) -> NotFound:
    """What is said of an image that is not there for the caller."""
    return NotFound(f"No image found with ID {image_id[:64]}")


def is_visible(image: Image, context: Context) -> bool:
    """Whether the caller may know that the image exists."""
    if context.is_admin or image.owner is None or image.visibility in ("public", "community"):
        return True
    return image.owner == context.project_id or image.member is not None


def insert(connection: Connection, image: Image) -> None:
    """Store a new image with its properties and tags. Raises `Duplicate` when the id was ever used."""
    values = {name: getattr(image, name) for name in image_documents.COLUMNS}
    try:
        connection.execute(images.insert().values(**values, deleted=False))
    except IntegrityError as error:
        raise Duplicate(f"Image ID {image.id} already exists!") from error
    _insert_properties(connection, image.id, image.properties, image.created_at)
    _insert_tags(connection, image.id, image.tags, image.created_at)


def update(connection: Connection, before: Image, after: Image) -> None:
    """Write what differs between two versions of a record; a status that differs is changed by compare-and-swap."""
    if after.status != before.status:
        set_status(connection, after.id, before.status, after.status, after.updated_at)
    changed = {
        name: getattr(after, name)
        for name in image_documents.COLUMNS
        if name != "status" and getattr(after, name) != getattr(before, name)
    }
    connection.execute(
        images.update().where(images.c.id == after.id).values({**changed, "updated_at": after.updated_at})
    )
    gone = before.properties.keys() - after.properties.keys()
    new = {name: value for name, value in after.properties.items() if name not in before.properties}
    other = {
        name: value
        for name, value in after.properties.items()
        if name in before.properties and before.properties[name] != value
    }
    _remove_properties(connection, after.id, gone, after.updated_at)
    for name, value in other.items():
        _revive_property(connection, after.id, name, value, after.updated_at)
    _put_properties(connection, after.id, new, after.updated_at)
    _remove_tags(connection, after.id, set(before.tags) - set(after.tags), after.updated_at)
    _insert_tags(connection, after.id, [tag for tag in after.tags if tag not in before.tags], after.updated_at)
    _update_locations(connection, before, after)


def _update_locations(connection: Connection, before: Image, after: Image) -> None:
    known = {location.id: location for location in before.locations}
    for location in after.locations:
        if location.id is None:
            add_location(connection, after.id, location, after.updated_at)
        elif location != known[location.id]:
            values = {"value": sealing.seal(connection, location.url), "meta_data": json.dumps(dict(location.metadata))}
            row = image_locations.update().where(image_locations.c.id == location.id)
            connection.execute(row.values(**values, updated_at=after.updated_at))
    for gone in known.keys() - {location.id for location in after.locations}:
        remove_location(connection, gone, after.updated_at)


def remove_location(
    connection: Connection, location_id: int | None, when: datetime, status: str = "pending_delete"
) -> None:
    """Take a location from its image. `pending_delete`: its bytes go too (see `erased`); `deleted`: they stay."""
    row = image_locations.update().where(image_locations.c.id == location_id)
    connection.execute(row.values(status=status, deleted=True, deleted_at=when))


def set_status(connection: Connection, image_id: str, before: str, after: str, when: datetime, **values: Any) -> None:
    """Compare-and-swap of the status, with other columns on the way. Raises `Conflict` when the status is another."""
    if after == "queued":
        values = {"size": None, "virtual_size": None, **values}
    result = connection.execute(
        images.update()
        .where(images.c.id == image_id, images.c.status == before, images.c.deleted == sa.false())
        .values(status=after, updated_at=when, **values)
    )
    if result.rowcount != 1:
        raise Conflict(f"Image {image_id} is not in status {before} any more.")


def is_in(connection: Connection, image_id: str, status: str) -> bool:
    """Whether the image exists and has that status."""
    query = sa.select(images.c.id).where(images.c.id == image_id, images.c.status == status)
    return connection.execute(query.where(images.c.deleted == sa.false())).first() is not None


def owner(connection: Connection, image_id: str) -> str | None:
    """The project that an image belongs, or belonged, to."""
    return connection.execute(sa.select(images.c.owner).where(images.c.id == image_id)).scalar()


def exists(connection: Connection, image_id: str) -> bool:
    """Whether the image is there, in whichever status."""
    query = sa.select(images.c.id).where(images.c.id == image_id, images.c.deleted == sa.false())
    return connection.execute(query).first() is not None


def on_their_way(connection: Connection, image_ids: Sequence[str], lock: str) -> set[str]:
    """Those of the images whose staged bytes somebody still needs; `lock` is the property of running tasks."""
    held = sa.exists().where(
        image_properties.c.image_id == images.c.id, image_properties.c.name == lock,
        image_properties.c.deleted == sa.false(),
    )  # fmt: skip
    busy = sa.or_(images.c.status.in_(("uploading", "importing")), held)
    query = sa.select(images.c.id).where(images.c.deleted == sa.false(), busy)
    found: set[str] = set()
    for start in range(0, len(image_ids), 500):
        found |= {row[0] for row in connection.execute(query.where(images.c.id.in_(image_ids[start : start + 500])))}
    return found


def add_location(connection: Connection, image_id: str, location: Location, when: datetime) -> None:
    """Record one more place that holds the bytes."""
    connection.execute(
        image_locations.insert().values(
            image_id=image_id, value=sealing.seal(connection, location.url),
            meta_data=json.dumps(dict(location.metadata)), status=location.status, created_at=when, updated_at=when,
            deleted=False,
        )
    )  # fmt: skip


def add_leftover(connection: Connection, image_id: str, store_id: str, when: datetime) -> None:
    """Record that a store may hold something that is to be erased, of an image that may be deleted."""
    connection.execute(
        image_locations.insert().values(
            image_id=image_id, value=sealing.seal(connection, f"{LEFTOVER}{image_id}"),
            meta_data=json.dumps({"store": store_id}), status="pending_delete", created_at=when, updated_at=when,
            deleted=True, deleted_at=when,
        )
    )  # fmt: skip


def has_hash(connection: Connection, image_id: str, value: str) -> bool:
    """Whether the image is active with bytes of that hash (`os_hash_value`)."""
    query = sa.select(images.c.id).where(images.c.id == image_id, images.c.os_hash_value == value)
    query = query.where(images.c.status == "active", images.c.deleted == sa.false())
    return connection.execute(query).first() is not None


def delete(connection: Connection, image: Image, status: str, when: datetime) -> None:
    """Soft-delete the image and its children; `status` is what becomes of it: deleted, or pending_delete.

    Its locations go to `pending_delete` until their bytes are gone too (see `db/scrub.py`). Raises `Conflict` when its
    status changed meanwhile.
    """
    gone = {"deleted": True, "deleted_at": when}
    set_status(connection, image.id, image.status, status, when, **gone)
    connection.execute(_live(image_locations, image.id).values(status="pending_delete", **gone))
    for table in (image_properties, image_tags, image_members):
        connection.execute(_live(table, image.id).values(**gone))


def erased(connection: Connection, location: Location) -> None:
    """Note that the bytes behind a location that was deleted are gone."""
    waiting = (image_locations.c.status == "pending_delete", image_locations.c.deleted == sa.true())
    gone = image_locations.update().where(image_locations.c.id == location.id, *waiting)
    connection.execute(gone.values(status="deleted"))


def _live(table: sa.Table, image_id: str) -> sa.Update:
    return table.update().where(table.c.image_id == image_id, table.c.deleted == sa.false())


# --- properties ------------------------------------------------------------------------------------------------------


def set_property(connection: Connection, image_id: str, name: str, value: str, when: datetime) -> None:
    """Give one property a value, whether or not it has one."""
    _put_properties(connection, image_id, {name: value}, when)


def drop_property(connection: Connection, image_id: str, name: str, value: str) -> None:
    """Remove a mark of the service without a trace, if it is still this one. Raises `Conflict` if it is not."""
    result = connection.execute(_mark(image_properties.delete(), image_id, name, value))
    if result.rowcount != 1:
        raise Conflict(f"Image {image_id} is not in these hands any more.")


def with_property(connection: Connection, name: str) -> list[tuple[str, str, datetime | None]]:
    """(image id, value, time of the last change) of every property of that name, deleted images' among them."""
    mark = image_properties
    query = sa.select(mark.c.image_id, mark.c.value, mark.c.updated_at, mark.c.name).where(mark.c.name == name)
    # In other letters it is a client's, which MariaDB takes for the same.
    return [(row[0], row[1], row[2]) for row in connection.execute(query) if row[3] == name]


def replace_property(connection: Connection, image_id: str, name: str, before: str, after: str, when: datetime) -> bool:
    """Compare-and-swap of one property; tells whether it had the value `before`."""
    result = connection.execute(
        _mark(image_properties.update(), image_id, name, before).values(value=after, updated_at=when)
    )
    return result.rowcount == 1


def _mark(statement: _Statement, image_id: str, name: str, value: str) -> _Statement:
    marks = image_properties
    return statement.where(marks.c.image_id == image_id, marks.c.name == name, marks.c.value == value)


def _put_properties(connection: Connection, image_id: str, values: Mapping[str, str | None], when: datetime) -> None:
    fresh = {
        name: value for name, value in values.items() if not _revive_property(connection, image_id, name, value, when)
    }
    _insert_properties(connection, image_id, fresh, when)


def _revive_property(connection: Connection, image_id: str, name: str, value: str | None, when: datetime) -> bool:
    """(image_id, name) is unique, so a property that was removed once has a row that must be used again.

    MariaDB takes names that differ by case or accents for the same: one that is there under another name stays, as it
    may be protected. Its database then refuses the new one.
    """
    properties = image_properties.c
    same = properties.name == name
    if connection.dialect.name == "mysql":
        exact = sa.cast(properties.name, sa.LargeBinary) == name.encode()
        same = sa.and_(same, sa.or_(properties.deleted == sa.true(), exact))
    result = connection.execute(
        image_properties.update()
        .where(properties.image_id == image_id, same)
        .values(name=name, value=value, updated_at=when, deleted=False, deleted_at=None)
    )
    return result.rowcount == 1


def _insert_properties(connection: Connection, image_id: str, values: Mapping[str, str | None], when: datetime) -> None:
    if values:
        rows = [
            {"image_id": image_id, "name": name, "value": value, "created_at": when, "updated_at": when,
             "deleted": False}
            for name, value in values.items()
        ]  # fmt: skip
        connection.execute(image_properties.insert(), rows)


def _remove_properties(connection: Connection, image_id: str, names: Iterable[str], when: datetime) -> None:
    if names := list(names):
        gone = _live(image_properties, image_id).where(image_properties.c.name.in_(names))
        connection.execute(gone.values(deleted=True, deleted_at=when))


# --- tags ------------------------------------------------------------------------------------------------------------


def _insert_tags(connection: Connection, image_id: str, tags: Sequence[str], when: datetime) -> None:
    if tags:
        rows = [
            {"image_id": image_id, "value": tag, "created_at": when, "updated_at": when, "deleted": False}
            for tag in tags
        ]
        connection.execute(image_tags.insert(), rows)


def _remove_tags(connection: Connection, image_id: str, tags: Iterable[str], when: datetime) -> None:
    gone = set(tags)
    if not gone:
        return
    # By id: MariaDB's collation takes "a" and "A" for the same, and one of them may stay.
    live = sa.select(image_tags.c.id, image_tags.c.value).where(
        image_tags.c.image_id == image_id, image_tags.c.deleted == sa.false()
    )
    ids = [row[0] for row in connection.execute(live) if row[1] in gone]
    connection.execute(image_tags.update().where(image_tags.c.id.in_(ids)).values(deleted=True, deleted_at=when))
