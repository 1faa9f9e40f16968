"""What a list of images can be asked for: filters, order, page (API reference, List images; spec 1.2.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from multidict import MultiMapping

from glimpse.api import parameters
from glimpse.db.image_filters import OPERATORS
from glimpse.db.image_query import SORT_KEYS, ImageQuery
from glimpse.domain.record import Image
from glimpse.errors import BadRequest
from glimpse.settings import Settings

MOST_FILTERS = 128  # more would be longer than some databases read
MOST_VALUES = 1000  # of in:, as many UUIDs as a URL has room for with Glance, and more; each takes its time to be read
_TEXT_FILTERS = ("name", "id", "status", "container_format", "disk_format")
_EXACT_FILTERS = ("checksum", "os_hash_value", "os_hash_algo", "owner")
_NUMBER_COLUMNS = ("min_ram", "min_disk", "size", "virtual_size")
_TIME_FILTERS = ("created_at", "updated_at")
_TIME_OPERATORS = ("gt", "gte", "lt", "lte", "eq", "neq")
_NOT_FILTERS = ("limit", "marker", "sort", "sort_key", "sort_dir", "deleted")
_VISIBILITIES = ("community", "public", "private", "shared", "all")
_MEMBER_STATUSES = ("accepted", "pending", "rejected", "all")


_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}

# For /openapi.json: what `ListParameters` reads. Any other name is that of an extra property, and its value is exact.
LIST_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 0},
    "marker": _TEXT,
    "sort": {"type": "string", "description": "key[:asc|desc], with commas between several"},
    "sort_key": {"type": "string", "enum": list(SORT_KEYS)},
    "sort_dir": {"type": "string", "enum": ["asc", "desc"]},
    "visibility": {"type": "string", "enum": list(_VISIBILITIES)},
    "member_status": {"type": "string", "enum": list(_MEMBER_STATUSES)},
    "tag": _TEXT,
    "os_hidden": {"type": "boolean"},
    "protected": {"type": "boolean"},
    **{name: {"type": "string", "description": 'value, eq:value or in:a,"b,c"'} for name in _TEXT_FILTERS},
    **{
        name: {"type": "string", "description": f"[{'|'.join(_TIME_OPERATORS)}:]time of ISO 8601"}
        for name in _TIME_FILTERS
    },
    **dict.fromkeys(_EXACT_FILTERS, _TEXT),
    **{name + end: _WHOLE for name in _NUMBER_COLUMNS for end in ("", "_min", "_max")},
}


class ListParameters:
    """The query parameters of a list call, checked. Raises `BadRequest` with the parameter's name."""

    def __init__(self, query: MultiMapping[str], settings: Settings) -> None:
        parameters.check_storable(query)
        self.limit = parameters.limit(query, settings)
        self.marker = parameters.one(query, "marker")
        self.sort = _sort(query)
        self.tags = [tag.strip() for tag in query.getall("tag", [])]
        self.visibility = parameters.one_of(query, "visibility", _VISIBILITIES)
        self.member_status = parameters.one_of(query, "member_status", _MEMBER_STATUSES) or "accepted"
        self.os_hidden = _boolean(dict(query.items()).get("os_hidden", "false").lower(), "os_hidden")
        self.columns: list[tuple[str, str, Any]] = []
        self.properties: dict[str, str] = {}
        seen = {"tag", "visibility", "member_status", "os_hidden", *_NOT_FILTERS}
        for name, value in dict(query.items()).items():  # of several, the last
            if name not in seen:
                self._add_filter(name, value)
        if len(self.tags) + len(self.columns) + len(self.properties) > MOST_FILTERS:
            raise BadRequest(f"A list takes at most {MOST_FILTERS} filters.")

    def query(self, marker: Image | None) -> ImageQuery:
        """The whole query."""
        return ImageQuery(
            limit=self.limit, sort=self.sort, marker=marker, columns=self.columns, properties=self.properties,
            tags=self.tags, visibility=self.visibility, member_status=self.member_status, os_hidden=self.os_hidden,
        )  # fmt: skip

    def _add_filter(self, name: str, value: str) -> None:
        if name == "changes-since":
            raise BadRequest("The filter changes-since is not supported.")
        if name in _TEXT_FILTERS:
            self.columns.append((name, *_text_filter(name, value)))
        elif name in _TIME_FILTERS:
            self.columns.append((name, *_time_filter(name, value)))
        elif name in _EXACT_FILTERS:
            self.columns.append((name, "eq", value))
        elif name in _NUMBER_COLUMNS:
            self.columns.append((name, "eq", parameters.integer(value, name)))
        elif name == "protected":
            self.columns.append((name, "eq", _boolean(value, name)))
        elif (bound := re.fullmatch(f"({'|'.join(_NUMBER_COLUMNS)})_(min|max)", name)) is not None:
            self.columns.append((bound[1], "gte" if bound[2] == "min" else "lte", parameters.integer(value, bound[1])))
        else:
            self.properties[name] = value


def _boolean(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise BadRequest(f"{name} must be true or false, not {text[:64]!r}")
    return text == "true"


def _text_filter(name: str, value: str) -> tuple[str, Any]:
    """`value`, `eq:value` or `in:a,"b,c"`; as for Glance, a value with a colon of its own has to be behind eq:."""
    operator, colon, rest = value.partition(":")
    if not colon:
        return "eq", value
    if operator == "in":
        values = list(dict.fromkeys(_split_quoted(rest)))
        if len(values) > MOST_VALUES:
            raise BadRequest(f"The filter {name} takes at most {MOST_VALUES} values.")
        return "in", values
    if operator == "eq":
        return "eq", rest
    if operator in OPERATORS:
        raise BadRequest(f"Operator {operator} is not supported for {name}.")
    raise BadRequest(f"Unknown operator {operator[:64]!r} in filter {name}; use eq: for values with a colon.")


_ITEM = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|([^",]*))(?:,|$)')


def _split_quoted(text: str) -> list[str]:
    """The values of `in:`, some of them in double quotes; nothing follows the last comma. Raises `BadRequest`."""
    values, position = [], 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:
            raise BadRequest(f"Invalid filter value {text[:64]!r}: a quoted value must be closed and stand alone.")
        quoted, plain = match.groups()
        values.append(quoted.replace('\\"', '"') if quoted is not None else plain)
        position = match.end()
    return values


def _time_filter(name: str, value: str) -> tuple[str, datetime]:
    operator, colon, rest = value.partition(":")
    if not colon or operator not in (*_TIME_OPERATORS, "in"):
        # A time without an operator has colons of its own.
        operator, rest = ("eq", value) if not operator.isalpha() else (operator, rest)
    if operator not in _TIME_OPERATORS:
        raise BadRequest(f"Operator {operator[:64]!r} is not supported for {name}; use {', '.join(_TIME_OPERATORS)}.")
    return operator, parameters.time(rest, name)


def _sort(query: MultiMapping[str]) -> list[tuple[str, bool]]:
    """(key, ascending) for each key, with created_at and id behind as tie breakers (spec 1.2.3)."""
    combined = parameters.one(query, "sort")
    keys, directions = query.getall("sort_key", []), query.getall("sort_dir", [])
    if combined is not None and (keys or directions):
        raise BadRequest("Use either sort, or sort_key with sort_dir.")
    default = "desc"
    if combined is not None:
        pairs = [(key.strip(), direction.strip() or "desc") for key, _, direction in
                 (part.partition(":") for part in combined.split(","))]  # fmt: skip
        default = pairs[0][1] if len(pairs) == 1 else "desc"
    else:
        keys = keys or ["created_at"]
        directions = directions or ["desc"]
        if len(directions) == 1:
            default = directions[0]
            directions = directions * len(keys)
        if len(directions) != len(keys):
            raise BadRequest("There must be one sort_dir for all sort_keys, or one for each.")
        pairs = list(zip(keys, directions, strict=True))
    for key, direction in pairs:
        if key not in SORT_KEYS:
            raise BadRequest(f"Invalid sort key {key[:64]!r}; allowed: {', '.join(SORT_KEYS)}")
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Invalid sort direction {direction[:64]!r}; allowed: asc, desc")
    order: dict[str, bool] = {}
    for key, direction in pairs:
        order.setdefault(key, direction == "asc")
    for key in ("created_at", "id"):
        order.setdefault(key, default == "asc")
    return list(order.items())
