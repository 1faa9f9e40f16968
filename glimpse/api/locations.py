"""Locations on the wire (API reference, Update image, Image locations, Delete image from store)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aiohttp import web

from glimpse.api.image_data import whole_body
from glimpse.api.images import ImageCalls
from glimpse.api.wire import NO_CONTENT, Reply, Request
from glimpse.images.locations import Locations


@dataclass(frozen=True)
class LocationCalls:
    """The handlers that may have to ask a store about a location, or to tell it that one has gone."""

    images: ImageCalls
    locations: Locations

    async def update(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """PATCH /v2/images/{image_id}"""
        request = replace(request, body=await whole_body(incoming))
        return await self.locations.settle(lambda rules: self.images.update(request, rules))

    async def leave(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """DELETE /v2/stores/{store_id}/{image_id}"""
        parts = request.parts
        await self.locations.settle(
            lambda rules: self.locations.leave(request.context, parts["image_id"], parts["store_id"])
        )
        return NO_CONTENT
