"""The JSON Schemas of metadata definitions: what is published under /v2/schemas/metadefs, and what bodies must match.

API reference, Metadata definition schemas. A property is described in two places: on its own, where other fields are
refused, and inside of namespaces and objects, where the schema lets them pass (`domain/metadef.py` refuses them then).
"""

from __future__ import annotations

from collections.abc import Mapping

from glimpse.domain.schema import Schema, collection_schema

NAME_MAX = 80  # characters of every name, and of prefix and properties_target

_NAME: Schema = {"type": "string", "maxLength": NAME_MAX}
_TEXT: Schema = {"type": "string"}
_TYPES: Schema = {"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", None]}
_LINK: Schema = {"readOnly": True, "type": "string"}
_STRINGS: Schema = {"$ref": "#/definitions/stringArray"}
_PROPERTIES: Schema = {"$ref": "#/definitions/property"}
_COUNT: Schema = {"$ref": "#/definitions/positiveInteger"}
_COUNT_FROM_0: Schema = {"$ref": "#/definitions/positiveIntegerDefault0"}

_PROPERTY: Mapping[str, Schema] = {
    "name": _NAME,
    "title": _TEXT,
    "description": _TEXT,
    "operators": {"type": "array", "items": _TEXT},
    "type": _TYPES,
    "required": _STRINGS,
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "maxLength": _COUNT,
    "minLength": _COUNT_FROM_0,
    "pattern": {"type": "string", "format": "regex"},
    "enum": {"type": "array"},
    "readonly": {"type": "boolean"},
    "default": {},
    "items": {"type": "object", "properties": {"type": _TYPES, "enum": {"type": "array"}}},
    "maxItems": _COUNT,
    "minItems": _COUNT_FROM_0,
    "uniqueItems": {"type": "boolean", "default": False},
    "additionalItems": {"type": "boolean"},
}

_COUNTS: Mapping[str, Schema] = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {"allOf": [_COUNT, {"default": 0}]},
}
_ANY_STRINGS: Schema = {"type": "array", "items": _TEXT, "uniqueItems": True}
_SOME_STRINGS: Schema = {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True}
_NESTED_PROPERTY: Schema = {"type": "object", "required": ["title", "type"], "properties": dict(_PROPERTY)}
_DEFINITIONS: Schema = {
    **_COUNTS,
    "stringArray": _ANY_STRINGS,
    "property": {"type": "object", "additionalProperties": _NESTED_PROPERTY},
}


def _time(description: str) -> Schema:
    return {"type": "string", "readOnly": True, "description": description, "format": "date-time"}


def _times(noun: str) -> dict[str, Schema]:
    return {
        "created_at": _time(f"When the {noun} was made"),
        "updated_at": _time(f"When the {noun} was last changed"),
    }


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _list_of(fields: Mapping[str, Schema]) -> Schema:
    return {"type": "array", "items": {"type": "object", "properties": dict(fields)}}


def _item(name: str, fields: Mapping[str, Schema], required: list[str], definitions: Schema | None = None) -> Schema:
    schema = {"name": name, "properties": dict(fields), "additionalProperties": False, "required": required}
    return schema | ({"definitions": definitions} if definitions else {})


def _collection(name: str, item: Schema, by_name: bool = False) -> Schema:
    """A page of items; their definitions stand at its top. `by_name`: an object with their names for keys."""
    inner = {key: value for key, value in item.items() if key != "definitions"}
    schema = collection_schema(name, inner)
    if by_name:
        schema["properties"][name] = {"type": "object", "additionalProperties": inner}
    return schema | ({"definitions": item["definitions"]} if "definitions" in item else {})


NAMESPACE = _item(
    "namespace",
    {
        "namespace": _described(_NAME, "Name of the namespace; there is only one of that name"),
        "display_name": _described(_NAME, "Name to show to people"),
        "description": {"type": "string", "description": "What the namespace is for", "maxLength": 500},
        "visibility": {"type": "string", "description": "Who may see the namespace", "enum": ["public", "private"]},
        "protected": {"type": "boolean", "description": "If true, the namespace and its content cannot be deleted"},
        "owner": {"type": "string", "description": "Project that owns the namespace", "maxLength": 255},
        **_times("namespace"),
        "schema": _LINK,
        "self": _LINK,
        "resource_type_associations": _list_of({"name": _TEXT, "prefix": _TEXT, "properties_target": _TEXT}),
        "properties": _PROPERTIES,
        "objects": _list_of({"name": _TEXT, "description": _TEXT, "required": _STRINGS, "properties": _PROPERTIES}),
        "tags": _list_of({"name": _TEXT}),
    },
    ["namespace"],
    _DEFINITIONS,
)

OBJECT = _item(
    "object",
    {
        "name": _NAME,
        "description": _TEXT,
        "required": _STRINGS,
        "properties": _PROPERTIES,
        "schema": _LINK,
        "self": _LINK,
        **_times("object"),
    },
    ["name"],
    _DEFINITIONS,
)

_PROPERTY_DEFINITIONS: Schema = {**_COUNTS, "stringArray": _SOME_STRINGS}
PROPERTY = _item("property", _PROPERTY, ["type", "title", "name"], _PROPERTY_DEFINITIONS)

RESOURCE_TYPE = _item(
    "resource_type_association",
    {
        "name": _described(_NAME, "Name of the resource type, as Heat calls it where Heat knows it"),
        "prefix": _described(
            _NAME, "What stands before the names of properties on such a resource, its separator (a colon) included"
        ),
        "properties_target": _described(
            _NAME, "Which of the resource's sets of properties is meant where it has several, such as image on a volume"
        ),
        **_times("association"),
    },
    ["name"],
)

TAG = _item("tag", {"name": _NAME, **_times("tag")}, ["name"])

PUBLISHED: Mapping[str, Schema] = {
    "namespace": NAMESPACE,
    "namespaces": _collection("namespaces", NAMESPACE),
    "resource_type": RESOURCE_TYPE,
    "resource_types": _collection("resource_type_associations", RESOURCE_TYPE),
    "object": OBJECT,
    "objects": _collection("objects", OBJECT),
    "property": PROPERTY,
    "properties": _collection(
        "properties", _item("property", _PROPERTY, ["type", "title"], _PROPERTY_DEFINITIONS), by_name=True
    ),
    "tag": TAG,
    "tags": _collection("tags", TAG),
}

# Many tags at once; their times and links cannot be sent along.
TAG_LIST: Schema = _item(
    "tags",
    {
        "tags": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": _NAME}, "required": ["name"],
                      "additionalProperties": False},
        }
    },
    ["tags"],
)  # fmt: skip

# What a file of definitions must match. It may say more than the API takes.
FILE: Schema = {
    "properties": {**NAMESPACE["properties"], "description": _TEXT},
    "definitions": _DEFINITIONS,
    "required": ["namespace"],
}
