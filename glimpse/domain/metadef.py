"""Metadata definitions: the five kinds as data, and how a body becomes values, values become columns, and back.

A namespace holds objects, properties, tags and associations with resource types (API reference, Metadata definitions).
What the kinds have in common is `Kind`; everything else works with a `Kind` and does not ask which one it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from glimpse.domain import metadef_schema
from glimpse.domain.metadef_schema import NAME_MAX
from glimpse.domain.schema import TEXT_MAX, Checker, Schema, require_storable
from glimpse.errors import BadRequest, Forbidden

Values = dict[str, Any]

_TIMES = frozenset({"created_at", "updated_at"})
_TIMES_AND_LINKS = _TIMES | {"self", "schema"}


@dataclass(frozen=True, slots=True)
class Definition:
    """One namespace, object, property, tag, association or resource type.

    `values` are its fields as clients know them, without name and times; what was never given is absent. Times are UTC
    without zone; `updated_at` is None for what came out of a file. `id` is the key of its row, `namespace_id` that of
    its namespace.
    """

    name: str
    values: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime | None
    id: int
    namespace_id: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The names of the policy rules of a kind.

    `each` is asked for every item of a list, `add_many` and `remove_all` for many at once, where there is such a rule;
    who removes all of a kind also needs the rule that removes the namespace.
    """

    list: str
    show: str = ""
    add: str = ""
    change: str = ""
    remove: str = ""
    each: str = ""
    add_many: str = ""
    remove_all: str = "delete_metadef_namespace"


@dataclass(frozen=True, eq=False)
class Kind:
    """What there is to know about one kind of definitions.

    `plural` is its name in documents, `key` the field and column with its name, `columns` are those beside name and
    times. `order` sorts lists: a column, or created_at for the newest first. `dated` and `linked` tell whether answers
    carry times, and self and schema.
    """

    noun: str
    plural: str
    table: str
    rules: Rules
    schema: Schema
    key: str = "name"
    columns: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    order: str = "name"
    dated: bool = True
    linked: bool = False
    checker: Checker = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "checker", Checker(self.noun, self.schema))

    @property
    def read_only(self) -> frozenset[str]:
        """Fields that a client may not send."""
        return _TIMES_AND_LINKS if self.linked else _TIMES

    def read(self, body: Any) -> tuple[str, Values]:
        """Name and values from a client's body. Raises `BadRequest`, `Forbidden` (a read-only field)."""
        if isinstance(body, dict) and (refused := sorted(self.read_only & body.keys())):
            raise Forbidden(f"Attribute '{refused[0]}' is read-only.")
        self.checker.check_object(body)
        return self.accept(body[self.key], body)

    def read_nested(self, body: Values) -> tuple[str, Values]:
        """The same for one that stands inside of a namespace's body, where read-only fields are ignored."""
        return self.read({name: value for name, value in body.items() if name not in self.read_only})

    def accept(self, name: str, body: Values) -> tuple[str, Values]:
        """What the schema cannot say of a body, checked. Raises `BadRequest`."""
        values = self.values(body)
        # A name that is empty, or a namespace's with a slash, would have no URL.
        if not 0 < len(name) <= NAME_MAX or (self is NAMESPACE and "/" in name):
            raise BadRequest(f"A {self.noun} needs a name of 1 to {NAME_MAX} characters; a namespace's has no slash.")
        texts = (name, *self.pack(values).values())
        require_storable(*texts)
        for text in texts:
            if isinstance(text, str) and len(text.encode()) > TEXT_MAX:
                raise BadRequest(f"The {self.noun} {name} is longer than {TEXT_MAX} bytes")
        return name, values

    def values(self, body: Values) -> Values:
        """The fields of a body that belong to this kind. Raises `BadRequest`."""
        return {**self.defaults, **{name: body[name] for name in self.columns if name in body}}

    def pack(self, values: Mapping[str, Any]) -> Values:
        """Values as columns."""
        return {name: values.get(name) for name in self.columns}

    def unpack(self, columns: Mapping[Any, Any]) -> Values:
        """Columns as values. Reads whatever a Glance may have written, and never fails."""
        return {**self.defaults, **{name: columns[name] for name in self.columns if columns[name] is not None}}


class _PropertyKind(Kind):
    """A property is a JSON Schema in one column."""

    def values(self, body: Values) -> Values:
        return read_property(body)

    def pack(self, values: Mapping[str, Any]) -> Values:
        return {"json_schema": _dump(values)}

    def unpack(self, columns: Mapping[Any, Any]) -> Values:
        return show_property(_load(columns["json_schema"]))


class _ObjectKind(Kind):
    """An object is a set of properties in one column, and the names of those that it cannot be without."""

    def values(self, body: Values) -> Values:
        values: Values = {name: body[name] for name in ("required", "description") if name in body}
        if "properties" in body:
            values["properties"] = {name: read_property(value) for name, value in body["properties"].items()}
        return values

    def pack(self, values: Mapping[str, Any]) -> Values:
        return {
            "required": ",".join(values.get("required") or ()) or None,
            "description": values.get("description"),
            "json_schema": _dump(values.get("properties") or {}),
        }

    def unpack(self, columns: Mapping[Any, Any]) -> Values:
        values: Values = {"required": columns["required"].split(",") if columns["required"] else []}
        if columns["description"] is not None:
            values["description"] = columns["description"]
        values["properties"] = {name: show_property(value) for name, value in _load(columns["json_schema"]).items()}
        return values


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _load(text: str) -> Values:
    value = json.loads(text)
    return value if isinstance(value, dict) else {}  # Glance keeps null for an object without properties


# --- properties ------------------------------------------------------------------------------------------------------

# In the order of answers. Glance knows `confidential` without publishing it, and `required` the other way round.
_FIELDS = (
    "name", "type", "title", "description", "operators", "default", "readonly", "minimum", "maximum", "enum", "pattern",
    "minLength", "maxLength", "confidential", "items", "uniqueItems", "minItems", "maxItems", "additionalItems",
)  # fmt: skip
_NUMBERS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")


def read_property(body: Values) -> Values:
    """A property from a client's body, checked beyond its schema: Glance cannot read anything else from the database.

    Raises `BadRequest`.
    """
    if unknown := sorted(body.keys() - set(_FIELDS)):
        raise BadRequest(f"A property has no attribute '{unknown[0][:NAME_MAX]}'.")
    items = body.get("items", {"type": "string"})
    if "type" not in items or items.keys() - {"type", "enum"}:
        raise BadRequest("The items of a property have a type, and may have an enum.")
    if not all(text is None or isinstance(text, str) for text in (*body.get("enum", ()), *items.get("enum", ()))):
        raise BadRequest("The values of an enum must be strings.")
    if not isinstance(body.get("confidential", False), bool):
        raise BadRequest("The attribute confidential is true or false.")
    if any(abs(body.get(name, 0)) >= 2**63 for name in _NUMBERS):
        raise BadRequest("A bound of a property is too large.")
    if isinstance(body.get("default"), str) and not body["default"].isascii():
        raise BadRequest("The default of a property must be ASCII.")
    return show_property(body)


def show_property(stored: Any) -> Values:
    """A property as clients get it: its default is a text, its bounds are whole numbers (spec 1.8)."""
    shown = {name: stored[name] for name in _FIELDS if name in stored} if isinstance(stored, dict) else {}
    if "default" in shown:
        default = shown["default"]
        shown["default"] = str(default) if isinstance(default, str | int | float) else None
    for name in _NUMBERS:
        if isinstance(shown.get(name), float) and abs(shown[name]) < 2**63:
            shown[name] = int(shown[name])
    return shown


# --- the kinds -------------------------------------------------------------------------------------------------------

NAMESPACE = Kind(
    noun="namespace",
    plural="namespaces",
    table="metadef_namespaces",
    key="namespace",
    columns=("display_name", "description", "visibility", "protected", "owner"),
    defaults={"visibility": "private", "protected": False},
    rules=Rules(
        list="get_metadef_namespaces",
        show="get_metadef_namespace",
        add="add_metadef_namespace",
        change="modify_metadef_namespace",
        remove="delete_metadef_namespace",
        each="get_metadef_namespace",
    ),
    schema=metadef_schema.NAMESPACE,
    order="created_at",
    linked=True,
)

ASSOCIATION = Kind(
    noun="resource type association",
    plural="resource_type_associations",
    table="metadef_namespace_resource_types",
    columns=("prefix", "properties_target"),
    rules=Rules(
        list="list_metadef_resource_types",
        show="get_metadef_resource_type",
        add="add_metadef_resource_type_association",
        remove="remove_metadef_resource_type_association",
        each="get_metadef_resource_type",
    ),
    schema=metadef_schema.RESOURCE_TYPE,
)

OBJECT = _ObjectKind(
    noun="object",
    plural="objects",
    table="metadef_objects",
    columns=("required", "description", "json_schema"),
    rules=Rules(
        list="get_metadef_objects",
        show="get_metadef_object",
        add="add_metadef_object",
        change="modify_metadef_object",
        remove="delete_metadef_object",
        each="get_metadef_object",
    ),
    schema=metadef_schema.OBJECT,
    linked=True,
)

PROPERTY = _PropertyKind(
    noun="property",
    plural="properties",
    table="metadef_properties",
    columns=("json_schema",),
    rules=Rules(
        list="get_metadef_properties",
        show="get_metadef_property",
        add="add_metadef_property",
        change="modify_metadef_property",
        remove="remove_metadef_property",
    ),
    schema=metadef_schema.PROPERTY,
    dated=False,
)

TAG = Kind(
    noun="tag",
    plural="tags",
    table="metadef_tags",
    rules=Rules(
        list="get_metadef_tags",
        show="get_metadef_tag",
        add="add_metadef_tag",
        change="modify_metadef_tag",
        remove="delete_metadef_tag",
        add_many="add_metadef_tags",
        remove_all="delete_metadef_tags",
    ),
    schema=metadef_schema.TAG,
    order="created_at",
)

# The types themselves are not changed by clients: the first association with one makes it.
RESOURCE_TYPE = Kind(
    noun="resource type",
    plural="resource_types",
    table="metadef_resource_types",
    columns=("protected",),
    defaults={"protected": False},
    rules=Rules(list="list_metadef_resource_types"),
    schema=metadef_schema.RESOURCE_TYPE,
    order="id",
)

# What a namespace holds, in the order in which it is stored.
PARTS = (ASSOCIATION, OBJECT, TAG, PROPERTY)

Part = tuple[Kind, str, Values]


def read_parts(body: Mapping[str, Any]) -> list[Part]:
    """What stands inside of a namespace's body that matches its schema. Raises `BadRequest`."""
    parts: list[Part] = []
    for kind in PARTS:
        inside = body.get(kind.plural, ())
        if isinstance(inside, dict):
            parts += [(kind, *kind.accept(name, value)) for name, value in inside.items()]
        else:
            parts += [(kind, *kind.read_nested(item)) for item in inside]
    return parts


_TAG_LIST = Checker("tags", metadef_schema.TAG_LIST)


def read_tags(body: Any) -> list[str]:
    """The names in a body with many tags. Raises `BadRequest`, `Forbidden` (a read-only field)."""
    if isinstance(body, dict) and (refused := sorted(TAG.read_only & body.keys())):
        raise Forbidden(f"Attribute '{refused[0]}' is read-only.")
    return [TAG.read(tag)[0] for tag in _TAG_LIST.check_object(body)["tags"]]


def with_prefix(prefix: str, kind: Kind, found: Definition) -> Definition:
    """A property or an object as it is called on a resource type whose association has that prefix."""
    if kind is PROPERTY:
        return replace(found, name=prefix + found.name)
    if kind is OBJECT:
        required = [prefix + name for name in found.values["required"]]
        properties = {prefix + name: value for name, value in found.values["properties"].items()}
        return replace(found, values={**found.values, "required": required, "properties": properties})
    return found
