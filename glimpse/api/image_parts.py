"""What belongs to an image, on the wire: members, tags, and the actions that switch an image off and on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from glimpse.api.image_data import whole_body
from glimpse.api.wire import NO_CONTENT, Reply, Request, json_reply
from glimpse.domain.lifecycle import spelled
from glimpse.domain.record import Member
from glimpse.domain.schema import require_storable
from glimpse.errors import BadRequest
from glimpse.images.acls import Acls
from glimpse.images.manage import Records
from glimpse.images.sharing import Sharing


@dataclass(frozen=True)
class ImagePartCalls:
    """The handlers of /v2/images/{image_id}/members, …/tags and …/actions."""

    records: Records
    sharing: Sharing
    acls: Acls

    def members(self, request: Request) -> Reply:
        """GET /v2/images/{image_id}/members"""
        found = self.sharing.find(request.context, request.parts["image_id"])
        return json_reply({"members": [_body(member) for member in found], "schema": "/v2/schemas/members"})

    async def add_member(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """POST /v2/images/{image_id}/members"""
        return await self._with_acls(self._add_member, replace(request, body=await whole_body(incoming)))

    async def remove_member(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """DELETE /v2/images/{image_id}/members/{member_id}"""
        return await self._with_acls(self._remove_member, request)

    async def deactivate(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """POST /v2/images/{image_id}/actions/deactivate"""
        return await self._with_acls(self._deactivate, request)

    async def reactivate(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """POST /v2/images/{image_id}/actions/reactivate"""
        return await self._with_acls(self._reactivate, request)

    async def _with_acls(self, call: Callable[[Request], Reply], request: Request) -> Reply:
        """A change of records that decides who may read the image's bytes."""
        reply = await self.sharing.database.run(call, request)
        await self.acls.spread(request.context, request.parts["image_id"])
        return reply

    def _add_member(self, request: Request) -> Reply:
        member_id = _field(request, "member")
        if not isinstance(member_id, str) or not 0 < len(member_id) <= 255:
            raise BadRequest("The member must be the id of a project: a string of 1 to 255 characters.")
        require_storable(member_id)
        return json_reply(_body(self.sharing.add(request.context, request.parts["image_id"], member_id)))

    def member(self, request: Request) -> Reply:
        """GET /v2/images/{image_id}/members/{member_id}"""
        return json_reply(_body(self.sharing.show(request.context, **request.parts)))

    def change_member(self, request: Request) -> Reply:
        """PUT /v2/images/{image_id}/members/{member_id}"""
        status = _field(request, "status")
        return json_reply(_body(self.sharing.change(request.context, **request.parts, status=status)))

    def _remove_member(self, request: Request) -> Reply:
        self.sharing.remove(request.context, **request.parts)
        return NO_CONTENT

    def add_tag(self, request: Request) -> Reply:
        """PUT /v2/images/{image_id}/tags/{tag}"""
        self.records.add_tag(request.context, **request.parts)
        return NO_CONTENT

    def remove_tag(self, request: Request) -> Reply:
        """DELETE /v2/images/{image_id}/tags/{tag}"""
        self.records.remove_tag(request.context, **request.parts)
        return NO_CONTENT

    def _deactivate(self, request: Request) -> Reply:
        self.records.deactivate(request.context, request.parts["image_id"])
        return NO_CONTENT

    def _reactivate(self, request: Request) -> Reply:
        self.records.reactivate(request.context, request.parts["image_id"])
        return NO_CONTENT


def _field(request: Request, name: str) -> Any:
    """A field that the JSON body must have; others are ignored, as by Glance. Raises `BadRequest`."""
    body = request.json()
    if not isinstance(body, dict) or name not in body:
        raise BadRequest(f'The body must have the form {{"{name}": "…"}}.')
    return body[name]


def _body(member: Member) -> dict[str, str]:
    return {
        "member_id": member.member_id,
        "image_id": member.image_id,
        "status": member.status,
        "created_at": spelled(member.created_at),
        "updated_at": spelled(member.updated_at),
        "schema": "/v2/schemas/member",
    }
