"""The JSON Schemas of image and images: what the API publishes is what it validates with (API reference, Schemas)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jsonschema_rs

from glimpse.domain.lifecycle import (
    LEASE_PROPERTY,
    STAGE_HOST_PROPERTY,
    STAGED_PROPERTY,
    STATUSES,
    TASK_LEASE_PROPERTY,
)
from glimpse.errors import BadRequest

Schema = dict[str, Any]

UUID_PATTERN = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
INT_MAX = 2**31 - 1
TEXT_MAX = 2**16 - 1  # bytes in a column of type TEXT of MySQL

READ_ONLY = frozenset({
    "created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url", "self", "file", "schema",
    "id", "os_hash_algo", "os_hash_value", "stores",
})  # fmt: skip
RESERVED = frozenset({"location", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance"
# Marks of the service on an image that are nobody else's business.
HIDDEN_PROPERTIES = frozenset({
    STAGE_HOST_PROPERTY, "os_glance_hash_op_host", LEASE_PROPERTY, TASK_LEASE_PROPERTY, STAGED_PROPERTY,
})  # fmt: skip


def is_reserved(name: str) -> bool:
    """Whether a property is the service's own, also where a database tells neither case nor accents apart (MariaDB)."""
    plain = name if name.isascii() else re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name))
    return plain.casefold().startswith(RESERVED_PREFIX)


def base_properties(container_formats: Sequence[str], disk_formats: Sequence[str]) -> dict[str, Schema]:
    """The properties that every image has, in the order in which the schema lists them."""
    text = {"type": ["null", "string"]}
    count = {"type": ["null", "integer"], "readOnly": True}
    shown = {"type": "string", "readOnly": True}
    return {
        "id": {"type": "string", "description": "Identifier of the image", "pattern": UUID_PATTERN},
        "name": text | {"description": "Name for humans; need not be unique", "maxLength": 255},
        "status": shown | {"description": "Where the image is in its life", "enum": list(STATUSES)},
        "visibility": {
            "type": "string",
            "description": "Who may see and use the image",
            "enum": ["community", "public", "private", "shared"],
        },
        "protected": {"type": "boolean", "description": "If true, the image cannot be deleted"},
        "os_hidden": {"type": "boolean", "description": "If true, default image lists leave the image out"},
        "checksum": text | {"readOnly": True, "description": "md5 of the image data, in hex", "maxLength": 32},
        "os_hash_algo": text
        | {"readOnly": True, "description": "Name of the hash behind os_hash_value", "maxLength": 64},
        "os_hash_value": text
        | {
            "readOnly": True,
            "description": "Hash of the image data by os_hash_algo, in hex",
            "maxLength": 128,
        },
        "owner": text | {"description": "Project that owns the image", "maxLength": 255},
        "size": count | {"description": "Length of the image data in bytes"},
        "virtual_size": count | {"description": "Size in bytes of the disk that the image describes"},
        "container_format": text | {"description": "Format of the container", "enum": [None, *container_formats]},
        "disk_format": text | {"description": "Format of the disk", "enum": [None, *disk_formats]},
        "created_at": shown | {"description": "When the image was registered"},
        "updated_at": shown | {"description": "When the image was last changed"},
        "tags": {
            "type": "array",
            "description": "Words to find the image by",
            "items": {"type": "string", "maxLength": 255},
        },
        "direct_url": shown | {"description": "Where the store keeps the data"},
        "min_ram": {"type": "integer", "description": "MiB of RAM that an instance needs at least"},
        "min_disk": {"type": "integer", "description": "GiB of disk that an instance needs at least"},
        "self": shown | {"description": "Link to this image"},
        "file": shown | {"description": "Link to the image data"},
        "stores": shown | {"description": "Stores that hold the image data"},
        "schema": shown | {"description": "Link to this schema"},
        "locations": {
            "type": "array",
            "description": "Places that hold the image data",
            "items": _location(),
        },
    }


def _location() -> Schema:
    validation = {
        "type": "object",
        "description": "What the data must hash to",
        "writeOnly": True,
        "additionalProperties": False,
        "properties": {
            "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
            "os_hash_algo": {"type": "string", "maxLength": 64},
            "os_hash_value": {"type": "string", "maxLength": 128},
        },
        "required": ["os_hash_algo", "os_hash_value"],
    }
    return {
        "type": "object",
        "properties": {
            "url": {"type": "string", "maxLength": 255},
            "metadata": {"type": "object"},
            "validation_data": validation,
        },
        "required": ["url", "metadata"],
    }


IMAGE_LINKS = [
    {"rel": "self", "href": "{self}"},
    {"rel": "enclosure", "href": "{file}"},
    {"rel": "describedby", "href": "{schema}"},
]


def image_schema(base: Mapping[str, Schema]) -> Schema:
    """The schema of one image: the base properties, and any number of others that hold strings."""
    return {
        "name": "image",
        "properties": dict(base),
        "additionalProperties": {"type": "string"},
        "links": IMAGE_LINKS,
    }


def collection_schema(name: str, item: Schema) -> Schema:
    """The schema of a page of items with its links to other pages."""
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


class Checker:
    """A schema, compiled to check values with. `format` is a hint for people and refuses nothing, as with Glance."""

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        """`name` is what the schema is called in errors."""
        self._name = name
        self._validator = jsonschema_rs.Draft7Validator(dict(schema), validate_formats=False)

    def check(self, value: Any) -> None:
        """Raise `BadRequest` for a value that does not match."""
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            where = f" (at {'/'.join(str(part) for part in error.instance_path)})" if error.instance_path else ""
            raise self._mismatch(f"{error.message[:512]}{where}") from error
        except ValueError as error:  # nested too deeply to be looked at
            raise self._mismatch("it is nested too deeply") from error

    def check_object(self, value: Any) -> dict[str, Any]:
        """The value, which is an object and matches. Raises `BadRequest`."""
        if not isinstance(value, dict):
            raise self._mismatch("an object is wanted")
        self.check(value)
        return value

    def _mismatch(self, why: str) -> BadRequest:
        return BadRequest(f"That does not match the schema {self._name!r}: {why}")


class ImageSchema:
    """The image schema of one configuration: as documents to publish, and compiled to validate with."""

    def __init__(
        self,
        container_formats: Sequence[str],
        disk_formats: Sequence[str],
        custom: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        required: Sequence[str] = (),
    ) -> None:
        """`custom` are the operator's own properties, `required` those that a new image must have.

        Raises `ValueError` for a custom property with the name of a base one.
        """
        base = base_properties(container_formats, disk_formats)
        if taken := sorted(base.keys() & custom.keys()):
            raise ValueError(f"{taken[0]} is an attribute of every image and cannot be described anew")
        base |= {name: {**schema, "is_base": False} for name, schema in custom.items()}
        self.image = image_schema(base) | ({"required": list(required)} if required else {})
        self.images = collection_schema("images", self.image)
        self._custom = frozenset(custom)
        self._whole = Checker("image", self.image)
        self._single = {name: Checker("image", schema) for name, schema in base.items()}
        self._extra = Checker("image", {"type": "string"})

    def validate(self, body: Any) -> dict[str, Any]:
        """A whole image as a client sent it, checked. Raises `BadRequest`."""
        return {key: self._as_kept(key, value) for key, value in self._whole.check_object(body).items()}

    def validate_value(self, name: str, value: Any) -> Any:
        """One property on its own, as PATCH changes it, checked. Raises `BadRequest`."""
        self._single.get(name, self._extra).check(value)
        return self._as_kept(name, value)

    def _as_kept(self, name: str, value: Any) -> Any:
        if name in self._custom and value is not None and not isinstance(value, str):
            value = str(value)  # properties are text, whatever type the operator's schema gives them
        return _storable(name, value)


def _storable(name: str, value: Any) -> Any:
    """The value as the columns take it; what JSON Schema cannot say about them is checked here."""
    if len(name) > 255:
        raise BadRequest(f"Property names may have at most 255 characters, not {len(name)}")
    require_storable(name, *(value if isinstance(value, list) else [value]))
    if isinstance(value, str) and len(value.encode()) > TEXT_MAX:
        raise BadRequest(f"The value of {name} is longer than {TEXT_MAX} bytes")
    if name not in ("min_ram", "min_disk"):
        return value
    if not 0 <= value <= INT_MAX:
        raise BadRequest(f"{name} must be between 0 and {INT_MAX}")
    return int(value)  # 1.0 is an integer for JSON Schema


def is_storable(text: str) -> bool:
    """Whether every supported database can keep the text (MySQL's utf8 has three bytes, PostgreSQL no NUL)."""
    return not any(character == "\0" or character > "\uffff" or "\ud800" <= character <= "\udfff" for character in text)


def require_storable(*values: object) -> None:
    """Raise `BadRequest` when there is text among the values that is not storable."""
    if not all(is_storable(value) for value in values if isinstance(value, str)):
        raise BadRequest("Characters U+10000 and above, NUL and lone surrogates are not supported")
