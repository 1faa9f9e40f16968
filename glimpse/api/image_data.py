"""Image bytes on the wire: uploads, downloads with ranges, and deletes (API reference, Image data)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import HttpVersion11, web
from aiohttp.web_exceptions import HTTPException

from glimpse.api.images import ImageCalls
from glimpse.api.peers import Peers
from glimpse.api.sending import send
from glimpse.api.wire import BODY_LIMIT, NO_CONTENT, SENT, Reply, Request, every_reply
from glimpse.db.engine import Database
from glimpse.domain.record import Image
from glimpse.errors import (
    BadGateway,
    BadRequest,
    GatewayTimeout,
    RangeNotSatisfiable,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from glimpse.images.acls import Acls
from glimpse.images.data import ImageData
from glimpse.images.manage import Records
from glimpse.images.stage import Stage
from glimpse.settings import Settings
from glimpse.stores.driver import BLOCK, Reader

REDIRECT = "redirect"  # the preference of a client that can read from a store directly
BYTES_TYPE = "application/octet-stream"
BODY_PATIENCE = 60.0  # seconds without a byte of a JSON body


@dataclass(frozen=True)
class ImageDataCalls:
    """The handlers of /v2/images/{image_id}/file, and of the one record call that touches bytes."""

    settings: Settings
    database: Database
    records: Records
    data: ImageData
    images: ImageCalls
    staging: Stage
    peers: Peers
    acls: Acls

    async def upload(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """PUT /v2/images/{image_id}/file"""
        require_bytes(request)
        size = announced_size(request, incoming)
        store = request.headers.get("x-image-meta-store")
        blocks = body_blocks(incoming, self.settings.client_socket_timeout or None)
        await self.data.upload(request.context, request.parts["image_id"], blocks, size, store)
        await self.acls.spread_new(request.context, request.parts["image_id"])
        return NO_CONTENT

    async def download(self, request: Request, incoming: web.BaseRequest) -> Reply | web.StreamResponse:
        """GET /v2/images/{image_id}/file"""
        stores = request.query.get("prefer")
        wanted_from = (request.context, request.parts["image_id"], stores.split(",") if stores else None)
        if REDIRECT in _preferences(request):
            link = await self.data.link(*wanted_from)
            if link is not None:
                # The link works as a credential: nobody else is to keep it.
                headers = {"Location": link, "Preference-Applied": REDIRECT, "Cache-Control": "no-store"}
                return Reply(302, headers=headers)
        image, opened = await self.data.download(*wanted_from)
        if opened is None:
            return NO_CONTENT
        reader = opened.reader
        try:
            size = _size(image, reader)
            wanted = _range(request, size)
            headers = {"Content-Type": BYTES_TYPE, **every_reply(incoming)}
            if image.checksum:
                headers["Content-MD5"] = image.checksum
            status, first, length = 200, 0, size
            if wanted is not None:
                if not opened.ranges:
                    raise BadRequest("The store that holds the image cannot serve ranges.")
                status, first, length = 206, wanted[0], wanted[1] - wanted[0] + 1
                headers["Content-Range"] = f"bytes {first}-{wanted[1]}/{size}"
            try:
                return await send(incoming, reader, status, headers, first, length)
            finally:
                self.data.delivered(request.context, image, incoming.get(SENT, 0), length)
        finally:
            await reader.close()

    async def delete(self, request: Request, incoming: web.BaseRequest) -> Reply:
        """DELETE /v2/images/{image_id}"""
        host = await self.database.run(self.staging.elsewhere, request.context, request.parts["image_id"])
        if host:
            # Where that node is away, what it has is swept when it is back.
            with contextlib.suppress(BadGateway, GatewayTimeout):
                reply = await self.peers.ask(host, incoming)
                if reply.status < 500:
                    return reply
        call = (request.context, request.parts["image_id"], self.images.precondition(request))
        if self.data.stores.lending:
            await self.data.require_unused(await self.database.run(self.records.deletable, *call))
        image = await self.database.run(self.records.delete, *call)
        await asyncio.shield(self.data.erase_image(request.context, image))
        return NO_CONTENT


def _preferences(request: Request) -> set[str]:
    """What the client would like, as tokens (RFC 7240); who does not know one ignores it, Glance too."""
    tokens = request.headers.get("prefer", "").split(",")
    return {token.partition(";")[0].partition("=")[0].strip().lower() for token in tokens}


def require_bytes(request: Request) -> None:
    """Raise `UnsupportedMediaType` for a body that is not said to be image data."""
    if request.media_type() != BYTES_TYPE:
        raise UnsupportedMediaType(f"Content-Type must be {BYTES_TYPE}")


def announced_size(request: Request, incoming: web.BaseRequest) -> int | None:
    """The size that the client promises: x-openstack-image-size, or else Content-Length; None when chunked."""
    header = request.headers.get("x-openstack-image-size")
    if header is None:
        return incoming.content_length
    if not re.fullmatch(r"[0-9]{1,19}", header.strip()):
        raise BadRequest(f"x-openstack-image-size must be a number of bytes, not {header[:32]!r}")
    return int(header)


async def whole_body(incoming: web.BaseRequest) -> bytes:
    """A JSON body, whole. Raises `TooLarge`, `BadRequest`."""
    parts, size = [], 0
    async for block in body_blocks(incoming, BODY_PATIENCE):
        size += len(block)
        if size > BODY_LIMIT:
            raise TooLarge(f"The request body is larger than {BODY_LIMIT} bytes.")
        parts.append(block)
    return b"".join(parts)


async def body_blocks(incoming: web.BaseRequest, patience: float | None) -> AsyncIterator[bytes]:
    """The body in blocks of about 1 MiB. Raises `BadRequest` if it breaks off, or no byte comes for `patience` seconds.

    The client gets its "100 Continue" only here, after everything that could refuse the upload (RFC 9110, 10.1.1).
    """
    if incoming.headers.get("Expect", "").lower() == "100-continue" and incoming.version >= HttpVersion11:
        if incoming.transport is None:
            raise BadRequest("The request body broke off.")
        incoming.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(patience):
                part = await incoming.content.readany()
        except TimeoutError as error:
            incoming.protocol.force_close()
            raise BadRequest(f"No data came for {patience:g} seconds.") from error
        except (HTTPException, web.RequestPayloadError, ConnectionError, OSError) as error:
            raise BadRequest("The request body broke off.") from error
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size >= BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


def _size(image: Image, reader: Reader) -> int:
    size = image.size if reader.size is None else reader.size
    if size is None or (image.size is not None and size != image.size):
        # Content-Length and checksum would be wrong; the record is what was promised.
        raise Unavailable("The store does not hold the whole image.")
    return size


def _range(request: Request, size: int) -> tuple[int, int] | None:
    """(first, last) of the bytes that are wanted, None for all (RFC 9110, 14; spec 1.3.2).

    Raises `BadRequest` for several ranges, `RangeNotSatisfiable` for one that makes no sense or lies outside.
    """
    if (header := request.headers.get("Range")) is not None:
        return _parse_range(header, size)
    if (header := request.headers.get("Content-Range")) is not None:
        return _parse_content_range(header, size)
    return None


def _parse_range(header: str, size: int) -> tuple[int, int]:
    unit, _, spec = header.partition("=")
    if "," in spec:
        raise BadRequest("One range at a time: several in one request are not served.")
    match = re.fullmatch(r"\s*([0-9]{0,20})\s*-\s*([0-9]{0,20})\s*", spec)
    if unit.strip().lower() != "bytes" or match is None or match.groups() == ("", ""):
        raise _unsatisfiable(size)
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            raise _unsatisfiable(size)
    if start >= size or end < start:
        raise _unsatisfiable(size)
    return start, end


def _parse_content_range(header: str, size: int) -> tuple[int, int]:
    """The header that older clients sent by mistake instead of Range."""
    match = re.fullmatch(r"bytes\s+([0-9]{1,20})-([0-9]{1,20})/(\*|[0-9]{1,20})", header.strip())
    if match is None:
        raise _unsatisfiable(size)
    start, end = int(match[1]), int(match[2])
    if start >= size or end >= size or end < start:
        raise _unsatisfiable(size)
    return start, end


def _unsatisfiable(size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable("The range lies outside the image.", {"Content-Range": f"bytes */{size}"})
