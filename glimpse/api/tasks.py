"""Tasks of all images on the wire (API reference, Tasks). Clients of today ask an image for its own instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from glimpse.api import parameters
from glimpse.api.image_data import whole_body
from glimpse.api.wire import REQUEST_ID, Reply, Request, json_reply
from glimpse.db.engine import Database
from glimpse.db.tasks import SORT_KEYS, TIMES, TaskQuery
from glimpse.domain.lifecycle import spelled
from glimpse.domain.record import Task
from glimpse.domain.tasks import IMPORT, NewTask
from glimpse.errors import MethodNotAllowed
from glimpse.images.tasks import Tasks
from glimpse.imports.legacy import LegacyImports
from glimpse.settings import Settings

_PATH = "/v2/tasks"
_DIRECTIONS = ("asc", "desc")
_STATUSES = ("pending", "processing", "success", "failure")

_TEXT = {"type": "string"}
TASK_LIST_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "limit": {"type": "integer", "minimum": 0},
    "marker": _TEXT,
    "sort_key": {"type": "string", "enum": list(SORT_KEYS)},
    "sort_dir": {"type": "string", "enum": list(_DIRECTIONS)},
    **{name: {"type": "string", "description": "time of ISO 8601"} for name in TIMES},
    **{name: _TEXT for name in SORT_KEYS if name not in TIMES},
    "status": {"type": "string", "enum": list(_STATUSES)},
    "type": {"type": "string", "enum": [IMPORT]},
}


@dataclass(frozen=True)
class TaskCalls:
    """The handlers of /v2/tasks."""

    settings: Settings
    database: Database
    all_tasks: Tasks
    orders: LegacyImports

    def list(self, request: Request) -> Reply:
        """GET /v2/tasks"""
        self.all_tasks.require_access(request.context)
        query = _query(request.query, self.settings)
        found = self.all_tasks.page(request.context, query)
        document: dict[str, Any] = {
            "tasks": [_stub(task) for task in found],
            "first": parameters.page_link(_PATH, request.query),
            "schema": "/v2/schemas/tasks",
        }
        if found and len(found) == query.limit:
            document["next"] = parameters.page_link(_PATH, request.query, found[-1].id)
        return json_reply(document)

    async def add(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """POST /v2/tasks"""
        await self.database.run(self.all_tasks.require_access, request.context)
        request = replace(request, body=await whole_body(incoming))
        wanted = NewTask.parse(request.json())
        task = await self.orders.order(request.context, wanted, incoming[REQUEST_ID])
        return json_reply(_document(task), 201, {"Location": f"{request.base}{_PATH}/{task.id}"})

    def show(self, request: Request) -> Reply:
        """GET /v2/tasks/{task_id}"""
        return json_reply(_document(self.all_tasks.show(request.context, request.parts["task_id"])))

    def delete(self, request: Request) -> Reply:
        """DELETE /v2/tasks/{task_id}: always 405, to whom it may concern (spec 1.7)"""
        self.all_tasks.require_access(request.context)
        raise MethodNotAllowed("Tasks cannot be deleted: they go when their time is over.", {"Allow": "GET"})


def _query(query: MultiMapping[str], settings: Settings) -> TaskQuery:
    parameters.check_storable(query)
    parameters.one_of(query, "status", _STATUSES)
    parameters.one_of(query, "type", (IMPORT,))
    columns: dict[str, str | datetime] = {}
    for name in SORT_KEYS:
        if (value := parameters.one(query, name)) is not None:
            columns[name] = parameters.time(value, name) if name in TIMES else value
    return TaskQuery(
        limit=parameters.limit(query, settings),
        sort_key=parameters.one_of(query, "sort_key", SORT_KEYS) or "created_at",
        ascending=parameters.one_of(query, "sort_dir", _DIRECTIONS) == "asc",
        marker=parameters.one(query, "marker"),
        columns=columns,
    )


def _stub(task: Task) -> dict[str, Any]:
    """What a list tells of a task."""
    stub = {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "owner": task.owner,
        "created_at": spelled(task.created_at),
        "updated_at": spelled(task.updated_at),
        "self": f"{_PATH}/{task.id}",
        "schema": "/v2/schemas/task",
    }
    return stub if task.expires_at is None else {**stub, "expires_at": spelled(task.expires_at)}


def _document(task: Task) -> dict[str, Any]:
    """All that there is to tell; what nobody knows is left out."""
    known = {"image_id": task.image_id, "request_id": task.request_id, "user_id": task.user_id}
    return {
        **_stub(task),
        "input": task.input,
        "result": task.result,
        "message": task.message,
        **{name: value for name, value in known.items() if value},
    }
