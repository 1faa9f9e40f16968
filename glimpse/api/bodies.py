"""JSON Schemas for /openapi.json of bodies that no published schema describes, by the names that `ROUTES` uses."""

from __future__ import annotations

from collections.abc import Mapping

from glimpse.domain.locations import NEW_LOCATION
from glimpse.domain.record import MEMBER_STATUSES
from glimpse.domain.schema import Schema
from glimpse.domain.tasks import NEW_TASK

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_OBJECT_OR_NULL: Schema = {"type": ["object", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _all(**properties: Schema) -> Schema:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


_TASK = _all(
    id=_TEXT, type=_TEXT, status={"enum": ["pending", "processing", "success", "failure"]}, owner=_TEXT,
    image_id=_TEXT_OR_NULL, request_id=_TEXT_OR_NULL, user_id=_TEXT_OR_NULL, input=_OBJECT_OR_NULL,
    result=_OBJECT_OR_NULL, message=_TEXT, created_at=_TEXT, updated_at=_TEXT, expires_at=_TEXT_OR_NULL,
    deleted={"type": "boolean"}, deleted_at=_TEXT_OR_NULL,
)  # fmt: skip
_FLAG: Schema = {"const": "true"}
_STORE: Schema = {
    "type": "object",
    "properties": {"id": _TEXT, "description": _TEXT, "default": _FLAG, "read-only": _FLAG},
    "required": ["id"],
}
_STORE_IN_DETAIL: Schema = {
    "type": "object",
    "properties": {**_STORE["properties"], "type": _TEXT, "weight": {"type": "integer"}, "properties": {}},
    "required": ["id", "type", "weight", "properties"],
}

_COPY: Schema = {
    "type": "object",
    "properties": {
        "image_id": _TEXT, "hits": _COUNT, "size": _COUNT, "last_accessed": {"type": "number"},
        "last_modified": {"type": "number"}, "id": _COUNT, "checksum": _TEXT_OR_NULL,
    },
    "required": ["image_id", "hits", "size", "last_accessed", "last_modified"],
}  # fmt: skip

BODIES: Mapping[str, Schema] = {
    "new_member": _all(member={"type": "string", "minLength": 1, "maxLength": 255}),
    "member_status": _all(status={"type": "string", "enum": list(MEMBER_STATUSES)}),
    "new_location": NEW_LOCATION,
    "new_task": NEW_TASK,
    "image_import": {
        "type": "object",
        "properties": {
            "method": {
                "type": "object",
                "properties": {
                    "name": {"enum": ["glance-direct", "web-download", "copy-image", "glance-download"]},
                    **dict.fromkeys(("uri", "glance_region", "glance_image_id", "glance_service_interface"), _TEXT),
                },
                "required": ["name"],
            },
            "stores": _list(_TEXT),
            "all_stores": {"type": "boolean"},
            "all_stores_must_succeed": {"type": "boolean"},
        },
        "required": ["method"],
    },
    "locations": _list(_all(url=_TEXT, metadata={"type": "object"})),
    "image_tasks": _all(tasks=_list(_TASK)),
    "import_methods": _all(**{"import-methods": _all(description=_TEXT, type=_TEXT, value=_list(_TEXT))}),
    "stores": _all(stores=_list(_STORE)),
    "stores_in_detail": _all(stores=_list(_STORE_IN_DETAIL)),
    "usage": _all(
        usage={"type": "object", "additionalProperties": _all(usage=_COUNT, limit={"type": "integer", "minimum": -1})}
    ),
    "cache": _all(cached_images=_list(_COPY), queued_images=_list(_TEXT)),
    "cached_images": _all(cached_images=_list(_COPY)),
    "queued_images": _all(queued_images=_list(_TEXT)),
    "nodes": _list(_TEXT),
    "pruned": _all(total_files_pruned=_COUNT, total_bytes_pruned=_COUNT),
    "deleted": _all(num_deleted=_COUNT),
    "null": {"type": "null"},
    "resource_types": _all(resource_types=_list(_all(name=_TEXT, created_at=_TEXT))),
    "json_schema": {"type": "object"},
}
