"""JSON patch of images: the two media types, the pointers, and what a change does to a record.

API reference, Update image. `openstack-images-v2.1-json-patch` is the RFC 6902 shape with add, replace and remove;
`v2.0` is the older one, where the operation is the member's name and `add` refuses to overwrite.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from glimpse.domain import locations
from glimpse.domain.locations import LocationRules
from glimpse.domain.record import Image
from glimpse.domain.schema import READ_ONLY, RESERVED, ImageSchema, is_reserved
from glimpse.errors import BadRequest, Conflict, Forbidden

MEDIA_V20 = "application/openstack-images-v2.0-json-patch"
MEDIA_V21 = "application/openstack-images-v2.1-json-patch"

OPERATIONS = ("add", "replace", "remove")
LOCATIONS = "locations"

# Base properties that a client may change; everything else with a base name is read-only.
WRITABLE = frozenset({
    "name", "visibility", "protected", "os_hidden", "owner", "container_format", "disk_format", "min_disk", "min_ram",
    "tags",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One operation on one property; `position` is where in the list, for a single location."""

    operation: str
    name: str
    value: Any = None
    may_overwrite: bool = True
    position: str = ""


def parse(media_type: str, body: Any, schema: ImageSchema) -> list[Change]:
    """The changes that a PATCH body asks for, in order, their values held against the schema.

    Raises `BadRequest` for a malformed body or value and `Forbidden` for properties that no client may touch.
    """
    if not isinstance(body, list):
        raise BadRequest("A patch is a JSON array of objects, one for each operation.")
    return [_parse_one(entry, media_type == MEDIA_V20, schema) for entry in body]


def _parse_one(entry: Any, old_form: bool, schema: ImageSchema) -> Change:
    if not isinstance(entry, dict):
        raise BadRequest("Operations must be JSON objects.")
    if old_form:
        found = [name for name in OPERATIONS if name in entry]
        if len(found) != 1:
            raise BadRequest("Each operation is an object with just one of add, remove and replace.")
        operation, pointer = found[0], entry[found[0]]
    else:
        operation, pointer = str(entry.get("op")), entry.get("path")
        if operation not in OPERATIONS:
            raise BadRequest(f"Operations must be one of {', '.join(OPERATIONS)}.")
        if pointer is None:
            raise BadRequest("Operation objects must contain a member named path.")
    tokens = _tokens(pointer)
    _check_depth(operation, tokens)
    if operation != "remove" and "value" not in entry:
        raise BadRequest(f'Operation "{operation}" requires a member named "value".')
    _check_allowed(tokens[0])
    position = tokens[1] if len(tokens) > 1 else ""
    value = None if operation == "remove" else _checked(tokens[0], position, entry["value"], schema)
    return Change(operation, tokens[0], value, may_overwrite=not old_form, position=position)


def _checked(name: str, position: str, value: Any, schema: ImageSchema) -> Any:
    """The value as the schema wants it; a single location is one of a list."""
    return schema.validate_value(name, [value])[0] if position else schema.validate_value(name, value)


_BAD_ESCAPE = re.compile(r"~(?![01])")


def _tokens(pointer: Any) -> list[str]:
    """Split a JSON pointer (RFC 6901)."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise BadRequest(f"Pointer {str(pointer)[:100]!r} does not start with '/'.")
    if "//" in pointer or pointer.endswith("/"):
        raise BadRequest(f"Pointer {pointer[:100]!r} has an empty token.")
    if _BAD_ESCAPE.search(pointer):
        raise BadRequest(f"Pointer {pointer[:100]!r} has a '~' that is not part of an escape.")
    tokens = [part.replace("~1", "/").replace("~0", "~").strip() for part in pointer[1:].split("/")]
    if not all(tokens):
        raise BadRequest(f"Pointer {pointer[:100]!r} has a blank token.")
    return tokens


def _check_depth(operation: str, tokens: list[str]) -> None:
    wanted = 1
    if tokens[0] == LOCATIONS and operation != "replace":
        wanted = 2
    if len(tokens) != wanted:
        raise BadRequest(f"Images have nothing at this pointer: '/{'/'.join(tokens)[:100]}'")


def _check_allowed(name: str) -> None:
    if name in READ_ONLY:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if name in RESERVED or is_reserved(name):
        raise Forbidden(f"Attribute '{name[:255]}' is reserved.")


def apply(image: Image, changes: list[Change], is_admin: bool, rules: LocationRules | None = None) -> Image:
    """The record after all changes; the one before stays as it is. Without `rules` nobody changes locations.

    Raises `Conflict` (the property is missing, or there already), `Forbidden` (not removable, not
    now, or the owner's change by anyone but an admin), and what `domain.locations` raises.
    """
    properties = dict(image.properties)  # not one for each change: a body has room for 100,000
    for change in changes:
        if change.name == LOCATIONS:
            image = _apply_to_locations(image, change, rules)
        elif change.name in WRITABLE:
            image = _apply_to_attribute(image, change, is_admin)
        else:
            _apply_to_property(properties, change)
    return image.with_(properties=properties)


def _apply_to_locations(image: Image, change: Change, rules: LocationRules | None) -> Image:
    if rules is None:
        raise Forbidden("Locations are not shown here, and cannot be changed.")
    if change.operation == "remove":
        return locations.remove(image, change.position)
    if change.operation == "replace":
        return locations.replace(image, change.value, rules)
    return locations.add(image, change.position, change.value, rules)


def _apply_to_attribute(image: Image, change: Change, is_admin: bool) -> Image:
    name, value = change.name, change.value
    if change.operation == "remove":
        raise Forbidden(f"Property {name} may not be removed.")
    _check_overwriting(change)
    if name == "owner" and not is_admin:
        raise Forbidden("Only an admin gives an image to another owner.")
    if name in ("disk_format", "container_format") and image.status not in ("queued", "importing"):
        raise Forbidden(f"{name} is fixed once an image has data.")
    return image.with_(**{name: tuple(dict.fromkeys(value)) if name == "tags" else value})


def _apply_to_property(properties: dict[str, str | None], change: Change) -> None:
    name = change.name
    if name in properties:
        _check_overwriting(change)
    elif change.operation != "add":
        raise Conflict(f"Property {name} does not exist.")
    if change.operation == "remove":
        del properties[name]
    else:
        properties[name] = change.value


def _check_overwriting(change: Change) -> None:
    if change.operation == "add" and not change.may_overwrite:
        raise Conflict(f"Property {change.name} already present.")
