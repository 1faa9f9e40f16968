"""The JSON Schemas of members and tasks, as documents to publish (API reference, Schemas).

They tell which fields there are and say nothing of others (spec 1.10, the minimal form).
"""

from __future__ import annotations

from collections.abc import Mapping

from glimpse.domain.record import MEMBER_STATUSES
from glimpse.domain.schema import UUID_PATTERN, Schema


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


_LINK: Schema = {"type": "string", "readOnly": True}

_MEMBER: Mapping[str, Schema] = {
    "member_id": _text("Id of the project with which the image is shared"),
    "image_id": _text("Identifier of the image") | {"pattern": UUID_PATTERN},
    "created_at": _text("When the project became a member"),
    "updated_at": _text("When the membership was last changed"),
    "status": _text("What the member makes of the image") | {"enum": list(MEMBER_STATUSES)},
    "schema": _LINK,
}

_TASK: Mapping[str, Schema] = {
    "id": _text("Identifier of the task") | {"pattern": UUID_PATTERN},
    "type": _text("What the task does") | {"enum": ["import", "api_image_import", "location_import"]},
    "status": _text("How far the task is") | {"enum": ["pending", "processing", "success", "failure"]},
    "input": {"type": ["null", "object"], "description": "What the task was given to work with"},
    "result": {"type": ["null", "object"], "description": "What came out of the task"},
    "owner": _text("Project that the task works for"),
    "message": _text("What there is to say for people, mostly after a failure"),
    "image_id": _text("Identifier of the image that the task works on"),
    "request_id": _text("Id of the request that began the task"),
    "user_id": _text("User who began the task"),
    "expires_at": {"type": ["null", "string"], "description": "From when on the task may be removed"},
    "created_at": _text("When the task was made"),
    "updated_at": _text("When the task was last changed"),
    "self": _LINK,
    "schema": _LINK,
}

_NOT_IN_LISTS = frozenset({"input", "result", "message"})


def _item(name: str, properties: Mapping[str, Schema]) -> Schema:
    return {"name": name, "properties": dict(properties)}


def _collection(name: str, item: Schema) -> Schema:
    return {
        "name": name,
        "properties": {name: {"type": "array", "items": item}, "schema": {"type": "string"}},
        "links": [{"rel": "describedby", "href": "{schema}"}],
    }


MEMBER = _item("member", _MEMBER)
MEMBERS = _collection("members", MEMBER)
TASK = _item("task", _TASK)
TASKS = _collection("tasks", _item("task", {name: value for name, value in _TASK.items() if name not in _NOT_IN_LISTS}))
