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

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from glimpse.db import additions, image_documents
from glimpse.db.images import from_rows
from glimpse.db.prepared import Prepared
from glimpse.db.tables import image_members, image_properties, image_tags, images
from glimpse.domain.context import Context
from glimpse.domain.record import Image

SORT_KEYS = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")

Condition = sa.ColumnElement[bool]
_Sort = tuple[tuple[str, bool], ...]  # (key, ascending)

OPERATORS = {
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "in": lambda column, value: column.in_(value),
}

FEW = 3_000  # images: looking up and sorting so many costs as much as walking past all others (measured with a million)
FORMS = 512  # of queries, whose statements are kept
LARGE_FORMS = 8  # of those with more than `LARGE` values: they take megabytes each
LARGE = 32


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


@dataclass(frozen=True, slots=True)
class _Form:
    """All of a query that its statements depend on; the values go into their parameters.

    `columns` holds (column, operator, number of values), `marker` whether each of its sort values is NULL. `indexed`:
    the added indexes are there. `only_own`: the caller's project is the owner that is asked for. `many_shared`: so many
    images are shared with it that a walk soon meets some. `few` names the filter that images are looked up by. `edge`
    tells whether the first sort key of the page's last row is NULL, once it is known.
    """

    dialect: str
    indexed: bool
    is_admin: bool
    only_own: bool
    sort: _Sort
    marker: tuple[bool, ...]
    columns: tuple[tuple[str, str, int], ...]
    properties: int
    tags: int
    visibility: str | None
    any_member_status: bool
    os_hidden: bool
    many_shared: bool = False
    few: str | None = None
    edge: bool | None = None

    @property
    def first(self) -> str:
        """The first sort key."""
        return self.sort[0][0]

    @property
    def is_large(self) -> bool:
        """Whether its statements are so long that only a few of the kind are kept."""
        return sum(count for _, _, count in self.columns) + self.properties + self.tags > LARGE

    @property
    def sorts_all(self) -> bool:
        """Whether the database would sort all that there is, though an index has the first key in order.

        PostgreSQL and SQLite sort only what is equal in it.
        """
        if self.dialect != "mysql" or not self.indexed or self.few is not None or self.first not in additions.KEYS:
            return False
        names = [name for name, _ in self.sort]
        in_order = names == list(dict.fromkeys([self.first, "created_at", "id"]))
        return not in_order or len({ascending for _, ascending in self.sort}) > 1


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
        many_shared = not form.is_admin and _has_many_shared(connection, context.project_id)
        form = replace(form, few=_few(connection, form, values), many_shared=many_shared)
    rows = _up_to_edge(connection, form, {**values, "skipped": query.limit - 1}) if form.sorts_all else []
    if len(rows) < query.limit:
        rows = _page(form).run(connection, values)
    found = [image_documents.read(row[1], context) or from_rows(connection, row[0], context) for row in rows]
    return [image for image in found if image is not None]


def _up_to_edge(connection: Connection, form: _Form, values: Mapping[str, Any]) -> Sequence[Any]:
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


def _form(connection: Connection, query: ImageQuery, context: Context, marker: Mapping[str, Any]) -> _Form:
    return _Form(
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


def _up_to_id(sort: Sequence[tuple[str, bool]]) -> _Sort:
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


class _Kept:
    """Makes each statement once, as long as callers do not ask for ever new large ones."""

    def __init__(self, make: Callable[..., Prepared]) -> None:
        self.small, self.large = lru_cache(FORMS)(make), lru_cache(LARGE_FORMS)(make)

    def __call__(self, form: _Form, *more: tuple[str, ...]) -> Prepared:
        return (self.large if form.is_large else self.small)(form, *more)


_LIMIT: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)


# --- the page --------------------------------------------------------------------------------------------------------


@_Kept
def _page(form: _Form) -> Prepared:
    """(id, document) of each image of the page, in order."""
    found = _merged(form, ["id", *(name for name, _ in form.sort)], _behind(form))
    image = images.alias("image")
    statement = sa.select(found.c.id, image_documents.document(form.dialect, image))
    return Prepared(
        statement.join_from(found, image, image.c.id == found.c.id).order_by(*_order(form, form.sort, found))
    )


@_Kept
def _edge(form: _Form) -> Prepared:
    """The first sort key of the last row of the page, if there are so many rows."""
    by_first = replace(form, sort=form.sort[:1])
    found = _merged(by_first, [form.first], _behind(form))
    statement = sa.select(found.c[form.first]).order_by(*_order(form, by_first.sort, found))
    return Prepared(statement.limit(1).offset(sa.bindparam("skipped", type_=sa.Integer)))


def _merged(form: _Form, columns: Sequence[str], behind: Condition) -> sa.Subquery:
    """The first rows of all scopes together, at most `limit` of them."""
    rest = [*_filters(form), behind]
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
    form: _Form, scope: str | None, columns: Sequence[str], conditions: Sequence[Condition], sort: _Sort
) -> sa.Select[Any]:
    """The first rows of one scope: along an index, or of those that a filter or the members table leads to."""
    statement = sa.select(*(images.c[name] for name in dict.fromkeys(columns))).where(*conditions)
    ids = None
    if form.few is not None and not form.few.startswith("column_"):
        table, is_it, _ = _few_rows(form, form.few)
        ids = sa.select(table.c.image_id).where(is_it)
    elif form.few is None and scope == "member" and not form.many_shared:
        ids = _memberships(form)
    if ids is not None:
        # MariaDB has to be kept from walking all images, and looking each up among the few.
        few = ids.distinct().subquery("few")
        statement = statement.join_from(few, images, few.c.image_id == images.c.id)
        statement = statement.prefix_with("STRAIGHT_JOIN", dialect="mysql")
    elif index := _index(form, scope):
        statement = statement.with_hint(images, f"FORCE INDEX ({index})", "mysql")
    if scope == "member" and form.many_shared:
        statement = statement.where(_has(_memberships(form), image_members.c.image_id))
    return statement.order_by(*_order(form, sort, images)).limit(_LIMIT)


def _has(rows: sa.Select[Any], image_id: sa.ColumnElement[str]) -> Condition:
    """Whether some of these rows belong to the image. Not EXISTS: MariaDB would feel free to begin with their table."""
    counted = rows.with_only_columns(sa.func.count()).where(image_id == images.c.id)
    return counted.correlate(images).scalar_subquery() > 0


def _index(form: _Form, scope: str | None) -> str | None:
    """The index that MySQL has to use: left alone it sorts what it could read in order."""
    if form.few is not None:
        return _few_rows(form, form.few)[2]
    if not form.indexed:
        filtered = form.columns or form.properties or form.tags
        dense = scope is None and form.first in ("created_at", "updated_at") and not filtered
        return f"{form.first}_image_idx" if dense else None
    if scope is None and form.first in ("id", "updated_at"):
        return _GLANCES[form.first]
    if scope is None and form.first == "created_at" and ("name", "eq", 1) in form.columns:
        return additions.list_index(None, "name")  # among equal names it has that order too
    if scope == "member":
        scope = "visibility"
    return additions.list_index(scope, form.first if form.first in additions.KEYS else "created_at")


def _order(form: _Form, sort: _Sort, rows: Any) -> list[sa.ColumnElement[Any]]:
    order = []
    for name, ascending in sort:
        key = rows.c[name].asc() if ascending else rows.c[name].desc()
        if form.dialect == "postgresql" and images.c[name].nullable:
            key = key.nulls_first() if ascending else key.nulls_last()
        order.append(key)
    return order


def _behind(form: _Form) -> Condition:
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


def _parts(form: _Form) -> list[tuple[list[Condition], _Sort]]:
    """What comes before the edge in the first key, at most a page; and what is equal to it, in order of the others."""
    if form.edge is None:
        return [([], form.sort)]
    ascending, key = form.sort[0][1], images.c[form.first]
    value = None if form.edge else sa.bindparam("edge", type_=key.type)
    same, before = _around(key, value, not ascending)
    return [([before], form.sort), ([same], form.sort[1:])]


# --- what the caller may see -----------------------------------------------------------------------------------------


def _scopes(form: _Form) -> list[tuple[str | None, list[Condition]]]:
    """What the caller may see: where to walk (owner, visibility, member, None for everywhere), and conditions."""
    scopes = _admin_scopes(form) if form.is_admin else _member_scopes(form)
    if form.few is None:
        return scopes
    seen = []
    for scope, conditions in scopes:
        # Looked up for each of the few: given a list, MariaDB would first read all that is shared with the project.
        member = [_has(_memberships(form), image_members.c.image_id)] if scope == "member" else []
        seen.append(sa.and_(sa.true(), *conditions, *member))
    return [(None, [sa.or_(*seen)])]


def _admin_scopes(form: _Form) -> list[tuple[str | None, list[Condition]]]:
    everywhere = "owner" if _asks_for_owner(form) else None
    if form.visibility is None:
        own = images.c.owner == image_documents.PROJECT
        return [(everywhere, [sa.or_(images.c.visibility != "community", own)])]
    if form.visibility == "all":
        return [(everywhere, [])]
    return [(everywhere or "visibility", [images.c.visibility == form.visibility])]


def _member_scopes(form: _Form) -> list[tuple[str | None, list[Condition]]]:
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


def _asks_for_owner(form: _Form) -> bool:
    return any(name == "owner" and how == "eq" for name, how, _ in form.columns)


def _memberships(form: _Form) -> sa.Select[Any]:
    members = image_members.c
    rows = sa.select(members.image_id).where(members.member == image_documents.PROJECT, members.deleted == sa.false())
    if form.any_member_status:
        return rows
    return rows.where(members.status == sa.bindparam("member_status", type_=sa.String))


# --- filters ---------------------------------------------------------------------------------------------------------


def _filters(form: _Form) -> list[Condition]:
    hidden = sa.true() if form.os_hidden else sa.false()
    conditions = [images.c.deleted == sa.false(), images.c.os_hidden == hidden, images.c.status != "killed"]
    conditions += [_column_filter(form, number) for number in range(len(form.columns))]
    for name in _children(form):
        if name != form.few:
            table, is_it, _ = _few_rows(form, name)
            conditions.append(_has(sa.select(table.c.image_id).where(is_it), table.c.image_id))
    return conditions


def _column_filter(form: _Form, number: int) -> Condition:
    name, how, count = form.columns[number]
    column = images.c[name]
    # Any number may be asked for; PostgreSQL would not cast it down.
    kind = sa.BigInteger() if isinstance(column.type, sa.Integer) else column.type
    values = [sa.bindparam(f"column_{number}_{index}", type_=kind) for index in range(count)]
    if not values:
        return sa.false()
    condition: Condition = OPERATORS[how](column, values if how == "in" else values[0])
    return condition


def _children(form: _Form) -> list[str]:
    return [f"property_{n}" for n in range(form.properties)] + [f"tag_{n}" for n in range(form.tags)]


# Indexes of Glance that lead to images by one column.
_GLANCES = {
    "id": "PRIMARY",
    "checksum": "checksum_image_idx",
    "os_hash_value": "os_hash_value_image_idx",
    "updated_at": "updated_at_image_idx",
}


def _few_rows(form: _Form, name: str) -> tuple[sa.FromClause, Condition, str]:
    """Where a filter finds its images: the table, the condition, and the index for MySQL."""
    kind, _, number = name.partition("_")
    if kind == "column":
        column = form.columns[int(number)][0]
        return images, _column_filter(form, int(number)), _GLANCES.get(column) or additions.list_index(None, column)
    if kind == "tag":
        tags = image_tags.alias(name)
        is_it = sa.and_(tags.c.value == sa.bindparam(name, type_=sa.String), tags.c.deleted == sa.false())
        return tags, is_it, "image_tags_list_value"
    rows = image_properties.alias(name)
    value: Any = sa.bindparam(f"{name}_value", type_=sa.Text)
    label = sa.bindparam(f"{name}_name", type_=sa.String)
    is_it = sa.and_(rows.c.name == label, rows.c.value == value)
    if form.dialect == "mysql":
        # Else another spelling of the name would find a property that the caller may not read.
        is_it = sa.and_(is_it, sa.cast(rows.c.name, sa.LargeBinary) == sa.cast(label, sa.LargeBinary))
    if form.dialect == "postgresql":
        start = sa.func.left(rows.c.value, additions.VALUE_PREFIX)
        is_it = sa.and_(is_it, start == sa.func.left(value, additions.VALUE_PREFIX))
    return rows, sa.and_(is_it, rows.c.deleted == sa.false()), "image_properties_list_value"


MOST_COUNTED = 8  # filters


def _few(connection: Connection, form: _Form, values: Mapping[str, Any]) -> str | None:
    """The filter that fewest images pass, if they are few enough to begin with them."""
    doubtful = _children(form)
    for number, (name, how, _) in enumerate(form.columns):
        if name in ("id", "checksum", "os_hash_value"):
            return f"column_{number}"
        # A walk along the column itself begins at the right place anyway.
        if name in ("name", "size", "created_at", "updated_at") and how != "neq" and name != form.first:
            doubtful.append(f"column_{number}")
    if not doubtful:
        return None
    doubtful = doubtful[:MOST_COUNTED]
    [counts] = _count(form, tuple(doubtful)).run(connection, values)
    count, name = min(zip(counts, doubtful, strict=True))
    return name if count <= FEW else None


@_Kept
def _count(form: _Form, names: tuple[str, ...]) -> Prepared:
    """How many rows each of the filters finds, but counted to no more than one too many."""
    counts = []
    for name in names:
        table, is_it, index = _few_rows(form, name)
        rows: sa.Select[Any] = (
            sa.select(sa.literal_column("1").label("one")).select_from(table).where(is_it).limit(FEW + 1)
        )
        if table is images:
            hidden = sa.true() if form.os_hidden else sa.false()
            rows = rows.where(images.c.deleted == sa.false(), images.c.os_hidden == hidden)
        rows = rows.with_hint(table, f"FORCE INDEX ({index})", "mysql")
        counts.append(sa.select(sa.func.count()).select_from(rows.subquery()).scalar_subquery())
    return Prepared(sa.select(*counts))


REMEMBERED = 60.0  # seconds
_sharing: dict[str, tuple[bool, float]] = {}  # by project; what is long past only makes a list slower
_COUNT_SHARED = Prepared(
    sa.select(sa.func.count()).select_from(
        sa.select(image_members.c.id)
        .where(image_members.c.member == image_documents.PROJECT, image_members.c.deleted == sa.false())
        .limit(FEW + 1)
        .subquery()
    )
)


def _has_many_shared(connection: Connection, project: str | None) -> bool:
    """Whether more images are shared with the project than are quickly looked up and sorted."""
    if project is None:
        return False
    many, looked = _sharing.get(project, (False, -REMEMBERED))
    if time.monotonic() - looked >= REMEMBERED:
        many = _COUNT_SHARED.run(connection, {"project": project})[0][0] > FEW
        if len(_sharing) >= 10_000:
            _sharing.clear()
        _sharing[project] = many, time.monotonic()
    return many
