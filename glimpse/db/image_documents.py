"""Whole images, each as one JSON text that the database puts together: one query and two columns for any page.

A driver written in Python spends its time on rows and columns; an image with five properties and two tags is eight rows
of them. As a document it costs a third of that. Where a document does not come through (MySQL and MariaDB give NULL
for one longer than max_allowed_packet), the image is read from its rows instead.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from glimpse.db.tables import image_locations, image_members, image_properties, image_tags, images
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location

# The columns of `images` that a record has, in the order of its fields, which come first there.
COLUMNS = tuple(field.name for field in dataclasses.fields(Image) if field.name in images.c)

PROJECT: sa.BindParameter[str | None] = sa.bindparam("project", type_=sa.String)

# Objects for all children, also where a list would do: for JSON_ARRAYAGG, MariaDB makes a temporary table on disk each
# time, cuts off at group_concat_max_len, and (10.11) crashes when the table cannot be made, as in a full tmpdir.
_FUNCTIONS = {
    "mysql": ("json_array", "json_objectagg"),
    "postgresql": ("json_build_array", "json_object_agg"),
    "sqlite": ("json_array", "json_group_object"),
}


def document(dialect: str, image: sa.FromClause) -> sa.ColumnElement[Any]:
    """The document of the image in a row of `images`: its columns, properties, tags, locations, and whether the project
    in the parameter `project` is a member; separated by commas, without the brackets around them all.
    """
    array, object_of = (getattr(sa.func, name) for name in _FUNCTIONS[dialect])

    def text(value: Any) -> Any:
        return sa.cast(value, sa.Text) if dialect == "postgresql" else sa.type_coerce(value, sa.Text)

    def children(table: sa.Table, key: Any, value: Any, *conditions: sa.ColumnElement[bool]) -> Any:
        live = (table.c.image_id == image.c.id, table.c.deleted == sa.false())
        rows = sa.select(object_of(key, value)).where(*live, *conditions).correlate(image).scalar_subquery()
        return sa.func.coalesce(text(rows), sa.literal_column("'null'"))

    properties, tags, members, places = image_properties, image_tags, image_members, image_locations
    place = array(places.c.value, places.c.meta_data, places.c.status)
    parts = [
        text(array(*(image.c[name] for name in COLUMNS))),
        children(properties, properties.c.name, properties.c.value),
        children(tags, tags.c.id, tags.c.value),
        children(places, places.c.id, place, places.c.status == "active"),
        children(members, members.c.id, members.c.member, members.c.member == PROJECT),
    ]
    comma: Any = sa.literal_column("','", sa.Text)
    return functools.reduce(lambda left, right: left + comma + right, parts)


def read(text: str | None, context: Context) -> Image | None:
    """The image in a document; None when it did not come through whole."""
    if text is None:
        return None
    try:
        record, properties, tags, places, members = orjson.loads(f"[{text}]")
    except ValueError:
        return None
    image_id, status, visibility, created_at, updated_at, name, owner, protected, os_hidden, *others = record
    created = datetime.fromisoformat(created_at)
    project = context.project_id
    # MariaDB finds members in any spelling.
    shared = members and visibility == "shared" and owner != project and project in members.values()
    # By position, as `COLUMNS` are in the order of the fields: names take twice the time.
    values: list[Any] = [
        image_id, status, visibility, created, datetime.fromisoformat(updated_at) if updated_at else created, name,
        owner, bool(protected), bool(os_hidden), *others, properties or {}, tuple(tags.values()) if tags else (),
        _locations(places) if places else (), project if shared else None,
    ]  # fmt: skip
    return Image(*values)


def _locations(places: dict[str, list[Any]]) -> tuple[Location, ...]:
    return tuple(
        Location(url, json.loads(metadata) if metadata else {}, status, number)
        for number, (url, metadata, status) in sorted((int(key), place) for key, place in places.items())
    )
