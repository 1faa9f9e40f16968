"""The cache of this node on the wire: /v2/cache, and the older calls that glance-cache-manage uses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from glimpse.api.wire import JSON_TYPE, NO_CONTENT, Reply, Request, json_reply
from glimpse.domain import lifecycle
from glimpse.domain.record import Copy
from glimpse.errors import BadRequest
from glimpse.images.caching import Caching

TARGETS = {"": ("cache", "queue"), "cache": ("cache",), "queue": ("queue",)}

_NULL = Reply(200, b"null", JSON_TYPE)


@dataclass(frozen=True)
class CacheCalls:
    """The handlers of /v2/cache, /v2/cached_images and /v2/queued_images (API reference, Cache Manage)."""

    caching: Caching

    def state(self, request: Request) -> Reply:
        """GET /v2/cache"""
        copies, queued = self.caching.list(request.context)
        return json_reply({"cached_images": _bodies(copies), "queued_images": queued})

    def nodes(self, request: Request) -> Reply:
        """GET /v2/cache/nodes/{image_id}"""
        return json_reply(self.caching.nodes(request.context, request.parts["image_id"]))

    async def queue(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """PUT /v2/cache/{image_id}"""
        image_id = request.parts["image_id"]
        await asyncio.to_thread(self.caching.queue, request.context, image_id)
        self.caching.fetch_soon(image_id)
        return Reply(202)

    def remove(self, request: Request) -> Reply:
        """DELETE /v2/cache/{image_id}"""
        self.caching.remove(request.context, request.parts["image_id"])
        return NO_CONTENT

    def clear(self, request: Request) -> Reply:
        """DELETE /v2/cache"""
        cache = self.caching.require(request.context, "cache_delete")
        wanted = TARGETS.get(request.headers.get("x-image-cache-clear-target", "").lower())
        if wanted is None:
            raise BadRequest("If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.")
        if "queue" in wanted:
            cache.clear_queue()
        if "cache" in wanted:
            cache.clear()
        return NO_CONTENT

    def clean(self, request: Request) -> Reply:
        """POST /v2/cache/clean"""
        cache = self.caching.require(request.context, "cache_clean")
        cache.clean()
        return Reply(200)

    def prune(self, request: Request) -> Reply:
        """POST /v2/cache/prune"""
        cache = self.caching.require(request.context, "cache_prune")
        files, size = cache.prune()
        return json_reply({"total_files_pruned": files, "total_bytes_pruned": size})

    # --- the older calls ---------------------------------------------------------------------------------------------

    def cached_images(self, request: Request) -> Reply:
        """GET /v2/cached_images"""
        return json_reply({"cached_images": _bodies(self.caching.require_management(request.context).held())})

    def queued_images(self, request: Request) -> Reply:
        """GET /v2/queued_images"""
        return json_reply({"queued_images": self.caching.require_management(request.context).directory.queued()})

    def queue_unseen(self, request: Request) -> Reply:
        """PUT /v2/queued_images/{image_id}: whether there is such an image turns out when it is fetched."""
        cache = self.caching.require_management(request.context)
        cache.directory.queue(request.parts["image_id"])
        return _NULL

    def drop(self, request: Request) -> Reply:
        """DELETE /v2/cached_images/{image_id}"""
        cache = self.caching.require_management(request.context)
        cache.drop(request.parts["image_id"])
        return _NULL

    def unqueue(self, request: Request) -> Reply:
        """DELETE /v2/queued_images/{image_id}"""
        cache = self.caching.require_management(request.context)
        cache.directory.unqueue(request.parts["image_id"])
        return _NULL

    def drop_all(self, request: Request) -> Reply:
        """DELETE /v2/cached_images"""
        cache = self.caching.require_management(request.context)
        return json_reply({"num_deleted": cache.clear()})

    def unqueue_all(self, request: Request) -> Reply:
        """DELETE /v2/queued_images"""
        cache = self.caching.require_management(request.context)
        return json_reply({"num_deleted": cache.clear_queue()})


def _bodies(copies: Sequence[Copy]) -> list[dict[str, Any]]:
    """As Glance spells them: times are seconds since 1970, and only rows of the database have a number and a sum."""
    return [
        {
            "image_id": copy.image_id,
            "hits": copy.hits,
            "last_accessed": lifecycle.epoch(copy.last_accessed),
            "last_modified": lifecycle.epoch(copy.last_modified),
            "size": copy.size,
            **({"id": copy.id, "checksum": copy.checksum} if copy.id is not None else {}),
        }
        for copy in copies
    ]
