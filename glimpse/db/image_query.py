"""Lists of images: filters, order, and pages that go on exactly behind their marker.

API reference, List images. A page must not cost more when there are a million images, so no list is sorted as a whole:

* What the caller may see is cut into scopes that do not overlap (own images, public ones, …). In each, the first rows
  behind the marker are found by walking an index that has the order already (`additions`); then the few are merged.
* A filter that few images pass is not waited for on such a walk: those images are looked up by it, and sorted.
* The marker's own values are compared against the sort columns (never OFFSET). NULL counts as the lowest value.
* Only the rows of the page become whole images (`image_documents`).

MySQL and MariaDB are told which index to use: left alone they prefer to sort everything. The statements depend only on
the form of a query, not on its values, so they are made once for each form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from glimpse.db import additions, image_documents, sealing
from glimpse.db.image_filters import (
    GLANCES,
    Condition,
    Form,
    Kept,
    Sort,
    belongs,
    conditions_of,
    fewest,
    has_many_shared,
    memberships,
    rows_of,
)
from glimpse.db.images import from_rows
from glimpse.db.prepared import Prepared
from glimpse.db.tables import image_members, images
from glimpse.domain.context import Context
from glimpse.domain.record import Image

SORT_KEYS = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """What a list call asks for, parsed.

    `columns` holds (column of images, operator, value), `properties` exact values of extra properties, `visibility` one
    of the four, "all", or None for the default set. `sort` is (key, ascending) with tie breakers already appended.
    """

    limit: int
    sort: Sequence[tuple[str, bool]]
    marker: Image | None = None
    columns: Sequence[tuple[str, str, Any]] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    visibility: str | None = None
    member_status: str = "accepted"
    os_hidden: bool = False


def find(connection: Connection, query: ImageQuery, context: Context) -> list[Image]:
    """One page of the images that the caller may see."""
    if query.limit == 0:
        return []
    try:
        return _find(connection, query, context)
    except DBAPIError as error:
        if not additions.is_about_missing_index(error):
            raise
        additions.look_again(connection)
        return _find(connection, query, context)


def _find(connection: Connection, query: ImageQuery, context: Context) -> list[Image]:
    marker = _sort_values(connection, query)
    form, values = _form(connection, query, context, marker), _values(query, context, marker)
    if form.indexed:
        many_shared = not form.is_admin and has_many_shared(connection, context.project_id)
        form = replace(form, few=fewest(connection, form, values), many_shared=many_shared)
    rows = _up_to_edge(connection, form, {**values, "skipped": query.limit - 1}) if form.sorts_all else []
    if len(rows) < query.limit:
        rows = _page(form).run(connection, values)
    found = [
        sealing.unsealed(connection, image_documents.read(row[1], context)) or from_rows(connection, row[0], context)
        for row in rows
    ]
    return [image for image in found if image is not None]


def _up_to_edge(connection: Connection, form: Form, values: Mapping[str, Any]) -> Sequence[Any]:
    """The page in two steps: where it ends in its first sort key, and then only the rows up to there.

    Fewer than `limit` rows when there are no more, or some were deleted in between.
    """
    edge = _edge(form).run(connection, values)
    if not edge:
        return []
    return _page(replace(form, edge=edge[0][0] is None)).run(connection, {**values, "edge": edge[0][0]})


def _sort_values(connection: Connection, query: ImageQuery) -> dict[str, Any]:
    """The marker's values of the sort keys."""
    if query.marker is None:
        return {}
    values = {name: getattr(query.marker, name) for name, _ in query.sort}
    if "updated_at" in values:
        # A record never lacks it, but a row may.
        rows = connection.execute(sa.select(images.c.updated_at).where(images.c.id == query.marker.id))
        values["updated_at"] = rows.scalar()
    return values


def _form(connection: Connection, query: ImageQuery, context: Context, marker: Mapping[str, Any]) -> Form:
    return Form(
        dialect=connection.dialect.name,
        indexed=additions.has_indexes(connection),
        is_admin=context.is_admin,
        only_own=context.project_id is not None and ("owner", "eq", context.project_id) in query.columns,
        sort=_up_to_id(query.sort),
        marker=tuple(value is None for value in marker.values()),
        columns=tuple((name, how, len(value) if how == "in" else 1) for name, how, value in query.columns),
        properties=len(query.properties),
        tags=len(query.tags),
        visibility=query.visibility,
        any_member_status=query.member_status == "all",
        os_hidden=query.os_hidden,
    )


def _up_to_id(sort: Sequence[tuple[str, bool]]) -> Sort:
    """What comes behind the id changes nothing, but hides from MariaDB that the order is that of an index."""
    end = next((number for number, (name, _) in enumerate(sort, 1) if name == "id"), len(sort))
    return tuple(sort[:end])


def _values(query: ImageQuery, context: Context, marker: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"project": context.project_id, "limit": query.limit}
    if query.member_status != "all":
        values["member_status"] = query.member_status
    for number, (_, how, value) in enumerate(query.columns):
        values |= {f"column_{number}_{index}": each for index, each in enumerate(value if how == "in" else [value])}
    for number, (name, text) in enumerate(query.properties.items()):
        values |= {f"property_{number}_name": name, f"property_{number}_value": text}
    values |= {f"tag_{number}": tag for number, tag in enumerate(query.tags)}
    return values | {f"marker_{name}": value for name, value in marker.items()}


_LIMIT: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)


# --- the page --------------------------------------------------------------------------------------------------------


@Kept
def _page(form: Form) -> Prepared:
    """(id, document) of each image of the page, in order."""
    found = _merged(form, ["id", *(name for name, _ in form.sort)], _behind(form))
    image = images.alias("image")
    statement = sa.select(found.c.id, image_documents.document(form.dialect, image))
    return Prepared(
        statement.join_from(found, image, image.c.id == found.c.id).order_by(*_order(form, form.sort, found))
    )


@Kept
def _edge(form: Form) -> Prepared:
    """The first sort key of the last row of the page, if there are so many rows."""
    by_first = replace(form, sort=form.sort[:1])
    found = _merged(by_first, [form.first], _behind(form))
    statement = sa.select(found.c[form.first]).order_by(*_order(form, by_first.sort, found))
    return Prepared(statement.limit(1).offset(sa.bindparam("skipped", type_=sa.Integer)))


def _merged(form: Form, columns: Sequence[str], behind: Condition) -> sa.Subquery:
    """The first rows of all scopes together, at most `limit` of them."""
    rest = [*conditions_of(form), behind]
    branches = [
        _walk(form, scope, columns, [*conditions, *part, *rest], sort)
        for scope, conditions in _scopes(form)
        for part, sort in _parts(form)
    ]
    if len(branches) == 1:
        return branches[0].subquery("found")
    both = sa.union_all(*(sa.select(branch.subquery()) for branch in branches)).subquery("branches")
    return sa.select(both).order_by(*_order(form, form.sort, both)).limit(_LIMIT).subquery("found")


def _walk(
    form: Form, scope: str | None, columns: Sequence[str], conditions: Sequence[Condition], sort: Sort
) -> sa.Select[Any]:
    """The first rows of one scope: along an index, or of those that a filter or the members table leads to."""
    statement = sa.select(*(images.c[name] for name in dict.fromkeys(columns))).where(*conditions)
    ids = None
    if form.few is not None and not form.few.startswith("column_"):
        table, is_it, _ = rows_of(form, form.few)
        ids = sa.select(table.c.image_id).where(is_it)
    elif form.few is None and scope == "member" and not form.many_shared:
        ids = memberships(form)
    if ids is not None:
        # MariaDB has to be kept from walking all images, and looking each up among the few.
        few = ids.distinct().subquery("few")
        statement = statement.join_from(few, images, few.c.image_id == images.c.id)
        statement = statement.prefix_with("STRAIGHT_JOIN", dialect="mysql")
    elif index := _index(form, scope):
        statement = statement.with_hint(images, f"FORCE INDEX ({index})", "mysql")
    if scope == "member" and form.many_shared:
        statement = statement.where(belongs(memberships(form), image_members.c.image_id))
    return statement.order_by(*_order(form, sort, images)).limit(_LIMIT)


def _index(form: Form, scope: str | None) -> str | None:
    """The index that MySQL has to use: left alone it sorts what it could read in order."""
    if form.few is not None:
        return rows_of(form, form.few)[2]
    if not form.indexed:
        filtered = form.columns or form.properties or form.tags
        dense = scope is None and form.first in ("created_at", "updated_at") and not filtered
        return f"{form.first}_image_idx" if dense else None
    if scope is None and form.first in ("id", "updated_at"):
        return GLANCES[form.first]
    if scope is None and form.first == "created_at" and ("name", "eq", 1) in form.columns:
        return additions.list_index(None, "name")  # among equal names it has that order too
    if scope == "member":
        scope = "visibility"
    return additions.list_index(scope, form.first if form.first in additions.KEYS else "created_at")


def _order(form: Form, sort: Sort, rows: Any) -> list[sa.ColumnElement[Any]]:
    order = []
    for name, ascending in sort:
        key = rows.c[name].asc() if ascending else rows.c[name].desc()
        if form.dialect == "postgresql" and images.c[name].nullable:
            key = key.nulls_first() if ascending else key.nulls_last()
        order.append(key)
    return order


def _behind(form: Form) -> Condition:
    """Rows after the marker: a > x, or a = x and b > y, or …, written so that the first key stays a plain range."""
    condition: Condition = sa.false() if form.marker else sa.true()
    not_before: Condition = sa.true()
    for (name, ascending), is_null in reversed(list(zip(form.sort, form.marker, strict=False))):
        key, value = images.c[name], sa.bindparam(f"marker_{name}", type_=images.c[name].type)
        same, beyond = _around(key, None if is_null else value, ascending)
        condition = sa.or_(beyond, sa.and_(same, condition))
        not_before = sa.or_(beyond, same)
        if not is_null and not (key.nullable and not ascending):
            not_before = key >= value if ascending else key <= value
    return sa.and_(not_before, condition)


def _around(key: sa.Column[Any], value: Any, ascending: bool) -> tuple[Condition, Condition]:
    """Equal to a value (None: NULL), and behind it in the order; NULL is the lowest."""
    if value is None:
        return key.is_(None), key.is_not(None) if ascending else sa.false()
    if ascending:
        return key == value, key > value
    return key == value, sa.or_(key < value, key.is_(None)) if key.nullable else key < value


def _parts(form: Form) -> list[tuple[list[Condition], Sort]]:
    """What comes before the edge in the first key, at most a page; and what is equal to it, in order of the others."""
    if form.edge is None:
        return [([], form.sort)]
    ascending, key = form.sort[0][1], images.c[form.first]
    value = None if form.edge else sa.bindparam("edge", type_=key.type)
    same, before = _around(key, value, not ascending)
    return [([before], form.sort), ([same], form.sort[1:])]


# --- what the caller may see -----------------------------------------------------------------------------------------


def _scopes(form: Form) -> list[tuple[str | None, list[Condition]]]:
    """What the caller may see: where to walk (owner, visibility, member, None for everywhere), and conditions."""
    scopes = _admin_scopes(form) if form.is_admin else _member_scopes(form)
    if form.few is None:
        return scopes
    seen = []
    for scope, conditions in scopes:
        # Looked up for each of the few: given a list, MariaDB would first read all that is shared with the project.
        member = [belongs(memberships(form), image_members.c.image_id)] if scope == "member" else []
        seen.append(sa.and_(sa.true(), *conditions, *member))
    return [(None, [sa.or_(*seen)])]


def _admin_scopes(form: Form) -> list[tuple[str | None, list[Condition]]]:
    everywhere = "owner" if _asks_for_owner(form) else None
    if form.visibility is None:
        own = images.c.owner == image_documents.PROJECT
        return [(everywhere, [sa.or_(images.c.visibility != "community", own)])]
    if form.visibility == "all":
        return [(everywhere, [])]
    return [(everywhere or "visibility", [images.c.visibility == form.visibility])]


def _member_scopes(form: Form) -> list[tuple[str | None, list[Condition]]]:
    """The visibility matrix (spec, List images) in parts that do not overlap."""
    asked, table, project = form.visibility, images.c, image_documents.PROJECT
    own = table.owner == project
    scopes: list[tuple[str | None, list[Condition]]] = [
        ("owner", [own] if asked in (None, "all") else [own, table.visibility == asked])
    ]
    if form.only_own:
        return scopes
    others = sa.or_(table.owner != project, table.owner.is_(None), project.is_(None))
    for visibility in ("public", "community", "shared"):
        if asked not in (visibility, "all") and (asked is not None or visibility == "community"):
            continue
        conditions = [table.visibility == visibility, others]
        walk = "owner" if _asks_for_owner(form) else "visibility"
        scopes.append(("member" if visibility == "shared" else walk, conditions))
    return scopes


def _asks_for_owner(form: Form) -> bool:
    return any(name == "owner" and how == "eq" for name, how, _ in form.columns)
