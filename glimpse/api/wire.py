"""Bytes to values and values to bytes: requests, replies, and the one place that renders errors."""

from __future__ import annotations

import hashlib
import html
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from aiohttp import web
from multidict import CIMultiDictProxy, MultiMapping

from glimpse.domain.context import Context
from glimpse.errors import BadRequest, GlimpseError, HeadersTooLarge, PreconditionFailed

# What is noted on a request while it is answered.
REQUEST_ID = web.RequestKey("request_id", str)
CORS_HEADERS = web.RequestKey("cors_headers", dict[str, str])  # for the browser of a page from elsewhere
CALLER = web.RequestKey("caller", Context)
SENT = web.RequestKey("sent", int)  # bytes of a download that the connection has taken
CUT_OFF = web.RequestKey("cut_off", bool)  # a download that did not get to its end

BODY_LIMIT = 4 << 20  # bytes of a JSON body; the largest legal image record is far below

JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """A call as handlers of records see it: parsed, with the caller known. `base` is scheme://host of the service."""

    context: Context
    parts: Mapping[str, str]
    query: MultiMapping[str]
    headers: CIMultiDictProxy[str]
    base: str
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON. Raises `BadRequest`."""
        if not self.body:
            raise BadRequest("The request needs a JSON body.")
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"Malformed JSON in request body: {error}") from error
        if not isinstance(value, dict | list):
            raise BadRequest("The JSON body must be an object or an array.")
        return value

    def media_type(self) -> str:
        """Content-Type without its parameters, lower-cased."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: a status and bytes that are ready to be sent."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply with a JSON body."""
    return Reply(status, orjson.dumps(value), JSON_TYPE, headers or {})


NO_CONTENT = Reply(204)


def tag_of(body: bytes) -> str:
    """The ETag of a document (RFC 9110, 8.8.3): the same bytes, the same tag."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def tagged(reply: Reply, if_none_match: str | None) -> Reply:
    """A document with its ETag; 304 without the document for a client that has it already (RFC 9110, 13.1.2)."""
    if reply.status != 200 or not reply.body:
        return reply
    tag = tag_of(reply.body)
    if if_none_match is not None and _names(if_none_match, tag):
        return Reply(304, headers={"ETag": tag})
    return Reply(reply.status, reply.body, reply.content_type, {**reply.headers, "ETag": tag})


def require_match(if_match: str | None, body: Callable[[], bytes]) -> None:
    """Raise `PreconditionFailed` when the client wants to change another version than there is (RFC 9110, 13.1.1)."""
    if if_match is not None and if_match.strip() != "*" and not _names(if_match, tag_of(body())):
        raise PreconditionFailed("The record was changed since you read it; read it again.")


def _names(header: str, tag: str) -> bool:
    return header.strip() == "*" or tag in (part.strip().removeprefix("W/") for part in header.split(","))


def every_reply(incoming: web.BaseRequest) -> dict[str, str]:
    """Headers of whatever goes back. Versions of what we run on are nobody's business."""
    return {"x-openstack-request-id": incoming[REQUEST_ID], "Server": "glimpse", **incoming[CORS_HEADERS]}


def error_reply(error: GlimpseError, accept: str | None) -> Reply:
    """An error as the client asked for it: HTML for browsers and for `*/*`, JSON, or else plain text (spec 1.0.2).

    python-glanceclient and openstacksdk read the text out of the HTML.
    """
    code = f"{error.status} {error.title}"
    safe = html.escape(error.message, quote=False)
    form = _best_form(accept)
    if form == "text/html":
        body = (
            f"<html>\n <head>\n  <title>{code}</title>\n </head>\n"
            f" <body>\n  <h1>{code}</h1>\n  {safe}<br /><br />\n\n\n </body>\n</html>"
        )
        return Reply(error.status, body.encode(), "text/html", error.headers)
    if form == JSON_TYPE:
        document = {"message": f"{safe}<br /><br />\n\n\n", "code": code, "title": error.title}
        return Reply(error.status, orjson.dumps(document), JSON_TYPE, error.headers)
    return Reply(error.status, f"{code}\n\n{error.message}\n\n".encode(), "text/plain", error.headers)


_WEIGHT = re.compile(r"[01](\.[0-9]{0,3})?")


def _best_form(accept: str | None) -> str:
    """The form that the header wants most (RFC 9110, 12.5.1): HTML or JSON, HTML of two alike, "" for neither.

    A header that is not a list of media ranges counts as `*/*`, as with Glance's framework.
    """
    wanted: dict[str, float] = {}
    for part in accept.split(",") if accept else ():
        media, *parameters = (text.strip().lower() for text in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        if media.count("/") != 1 or _WEIGHT.fullmatch(weight) is None:
            return "text/html"
        wanted[media] = float(weight)
    weights = {}
    for form in ("text/html", JSON_TYPE):
        ranges = (form, f"{form.partition('/')[0]}/*", "*/*")
        weights[form] = next((wanted[each] for each in ranges if each in wanted), 0.0)
    best = max(weights, key=weights.__getitem__)
    return best if weights[best] else ""


_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]+")


def request_id(given: str | None, longest: int) -> str:
    """The id of a call: the client's own when it is fit for logs and headers, else a fresh one."""
    if given and not 0 < longest < len(given) and _REQUEST_ID.fullmatch(given):
        return given if given.startswith("req-") else f"req-{given}"
    return f"req-{uuid.uuid4()}"


def check_request_id(given: str | None, longest: int) -> None:
    """Raise `HeadersTooLarge` for an id that is longer than max_request_id_length."""
    if given and 0 < longest < len(given):
        raise HeadersTooLarge(f"A request id may have {longest} characters.")


def check_target(raw: str) -> None:
    """Raise `BadRequest` for a path or query string that does not spell UTF-8."""
    if "%" in raw:
        try:
            unquote_to_bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise BadRequest("The URL is not UTF-8.") from error


def refuse_body(headers: Mapping[str, str], method: str) -> None:
    """Raise `BadRequest` for a body where the call takes none (spec 1.0.1, [no-body])."""
    length = headers.get("Content-Length", "0")
    chunked = "Transfer-Encoding" in headers and method in ("POST", "PUT", "PATCH")
    if chunked or (length.isdigit() and int(length) > 0):
        raise BadRequest("This call takes no body.")
