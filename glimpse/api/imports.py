"""Staging and import on the wire (API reference, Interoperable image import)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aiohttp import web

from glimpse.api.image_data import announced_size, body_blocks, require_bytes, whole_body
from glimpse.api.peers import Peers
from glimpse.api.wire import NO_CONTENT, REQUEST_ID, Reply, Request
from glimpse.domain.import_request import ImportRequest
from glimpse.images.stage import Stage
from glimpse.imports.orders import Elsewhere, Imports
from glimpse.settings import Settings


@dataclass(frozen=True)
class ImportCalls:
    """The handlers of /v2/images/{image_id}/stage and …/import."""

    settings: Settings
    staging: Stage
    imports: Imports
    peers: Peers

    async def stage(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """PUT /v2/images/{image_id}/stage"""
        self.staging.require_enabled()
        require_bytes(request)
        blocks = body_blocks(incoming, self.settings.client_socket_timeout or None)
        size = announced_size(request, incoming)
        await self.staging.stage(request.context, request.parts["image_id"], blocks, size)
        return NO_CONTENT

    async def start(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """POST /v2/images/{image_id}/import"""
        request = replace(request, body=await whole_body(incoming))
        wanted = ImportRequest.parse(request.json(), self.settings.enabled_import_methods)
        header = request.headers.get("x-image-meta-store")
        try:
            await self.imports.order(request.context, request.parts["image_id"], wanted, header, incoming[REQUEST_ID])
        except Elsewhere as there:
            return await self.peers.ask(there.host, incoming, request.body)
        return Reply(202)
