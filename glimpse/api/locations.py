"""Locations on the wire (API reference, Update image, Image locations, Delete image from store)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from aiohttp import web

from glimpse.api.image_data import whole_body
from glimpse.api.images import ImageCalls
from glimpse.api.wire import NO_CONTENT, REQUEST_ID, Reply, Request, json_reply
from glimpse.domain.locations import NewLocation
from glimpse.domain.record import Task
from glimpse.images.acls import Acls
from glimpse.images.locations import Locations
from glimpse.images.tasks import Tasks
from glimpse.imports.location import LocationOrders


@dataclass(frozen=True)
class LocationCalls:
    """The handlers that may have to ask a store about a location, or to tell it that one has gone."""

    images: ImageCalls
    locations: Locations
    orders: LocationOrders
    image_tasks: Tasks
    acls: Acls

    async def update(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """PATCH /v2/images/{image_id}"""
        request = replace(request, body=await whole_body(incoming))
        reply = await self.locations.settle(request.context, lambda rules: self.images.update(request, rules))
        if self.acls.on:
            await self.acls.spread(request.context, request.parts["image_id"], self.images.changed(request))
        return reply

    async def leave(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """DELETE /v2/stores/{store_id}/{image_id}"""
        parts = request.parts
        context = request.context
        await self.locations.require_unused(context, parts["image_id"], parts["store_id"])
        await self.locations.settle(
            context, lambda rules: self.locations.leave(context, parts["image_id"], parts["store_id"])
        )
        return NO_CONTENT

    async def add(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """POST /v2/images/{image_id}/locations"""
        request = replace(request, body=await whole_body(incoming))
        wanted = NewLocation.parse(request.json())
        await self.orders.add(request.context, request.parts["image_id"], wanted, incoming[REQUEST_ID])
        return Reply(202)

    def list(self, request: Request) -> Reply:
        """GET /v2/images/{image_id}/locations"""
        found = self.locations.find(request.context, request.parts["image_id"])
        return json_reply([self.images.location(each) for each in found])

    def tasks(self, request: Request) -> Reply:
        """GET /v2/images/{image_id}/tasks"""
        found = self.image_tasks.find(request.context, request.parts["image_id"])
        return json_reply({"tasks": [_task(each) for each in found]})


def _task(task: Task) -> dict[str, Any]:
    """A task as its row is: what this call alone shows (spec 1.2.8)."""
    return {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "owner": task.owner,
        "expires_at": _time(task.expires_at),
        "created_at": _time(task.created_at),
        "updated_at": _time(task.updated_at),
        "deleted_at": None,
        "deleted": False,
        "image_id": task.image_id,
        "request_id": task.request_id,
        "user_id": task.user_id,
        "input": task.input,
        "result": task.result,
        "message": task.message,
    }


def _time(when: datetime | None) -> str | None:
    return None if when is None else f"{when:%Y-%m-%dT%H:%M:%S.%f}"
