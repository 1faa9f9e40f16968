"""The way of a request, first to last, and what its handlers are made of."""

from __future__ import annotations

import logging
import time

from aiohttp import web

from glimpse.access.auth import Call
from glimpse.access.policy import Policy, refuse_anonymous
from glimpse.api import openapi, wire
from glimpse.api.cache import CacheCalls
from glimpse.api.cors import Cors
from glimpse.api.image_data import ImageDataCalls, whole_body
from glimpse.api.image_parts import ImagePartCalls
from glimpse.api.images import ImageCalls
from glimpse.api.imports import ImportCalls
from glimpse.api.info import InfoCalls
from glimpse.api.locations import LocationCalls
from glimpse.api.metadefs import MetadefCalls
from glimpse.api.operator import OperatorCalls, published, unexpected
from glimpse.api.peers import Peers
from glimpse.api.routes import Calls, Route, Router
from glimpse.api.tasks import TaskCalls
from glimpse.api.wire import Reply, Request
from glimpse.errors import BadRequest, GlimpseError, NotImplementedMethod
from glimpse.images.sharing import Sharing
from glimpse.metadefs.manage import Metadefs
from glimpse.service import Foundation, Service

LOG = logging.getLogger(__name__)
ACCESS_LOG = logging.getLogger("glimpse.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Application:
    """The API in one process: `handle` answers requests with what the service has."""

    def __init__(self, foundation: Foundation, service: Service) -> None:
        self.settings = settings = foundation.settings
        self._auth, policy = foundation.auth, foundation.policy
        self._service = service
        self._peers = Peers()
        self._operator = OperatorCalls(settings, published(foundation.schema))
        self._calls = self._all_calls(policy)
        self._router = Router()
        self._cors = Cors(settings.conf)
        self._accepted = self._operator.accepted()
        self._openapi = wire.json_reply(
            openapi.document(settings.public_endpoint or "/", settings.flavor, self._operator.schemas)
        )
        self.draining = False
        self.busy: set[web.RequestHandler] = set()  # connections with a request in work

    def _all_calls(self, policy: Policy) -> Calls:
        settings, service = self.settings, self._service
        database, records = service.database, service.records
        images = ImageCalls(settings, records, service.stores)
        sharing = Sharing(settings, database, policy, service.notifications)
        return Calls(
            cache=CacheCalls(service.caching),
            images=images,
            image_data=ImageDataCalls(
                settings, database, records, service.data, images, service.stage, self._peers, service.acls
            ),
            image_parts=ImagePartCalls(records, sharing, service.acls),
            imports=ImportCalls(settings, service.stage, service.imports, self._peers),
            info=InfoCalls(settings, policy, service.stores, service.quotas),
            locations=LocationCalls(images, service.locations, service.location_orders, service.tasks, service.acls),
            metadefs=MetadefCalls(settings, Metadefs(database, policy, service.notifications)),
            operator=self._operator,
            tasks=TaskCalls(settings, database, service.tasks, service.legacy_imports),
        )

    async def close(self) -> None:
        """Let go of what only requests need."""
        await self._peers.close()

    async def handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Whatever happens, the client gets a status, and the log one line."""
        if incoming.path == "/healthcheck" and incoming.method in ("GET", "HEAD"):
            # Balancers ask every second: no identity, no request id, no line in the log.
            health = self._operator.health(incoming.method)
            return web.Response(status=health.status, body=health.body, content_type=health.content_type)
        self.busy.add(incoming.protocol)
        try:
            return await self._respond_to(incoming)
        finally:
            self.busy.discard(incoming.protocol)

    async def _respond_to(self, incoming: web.BaseRequest) -> web.StreamResponse:
        began = time.perf_counter()
        incoming[wire.REQUEST_ID] = wire.request_id(
            incoming.headers.get("X-Openstack-Request-Id"), self.settings.max_request_id_length
        )
        incoming[wire.CORS_HEADERS] = self._cors.headers(incoming.method, incoming.headers)
        reply = await self._answer(incoming)
        response = reply if isinstance(reply, web.StreamResponse) else _respond(incoming, reply)
        if self.draining:
            response.force_close()
        _log_access(incoming, response, time.perf_counter() - began)
        return response

    async def _answer(self, incoming: web.BaseRequest) -> Reply | web.StreamResponse:
        try:
            wire.check_request_id(incoming.headers.get("X-Openstack-Request-Id"), self.settings.max_request_id_length)
            return await self._route(incoming)
        except GlimpseError as error:
            return wire.error_reply(error, incoming.headers.get("Accept"))
        except Exception:
            LOG.exception("%s: unexpected failure", incoming[wire.REQUEST_ID])
            return wire.error_reply(unexpected(), incoming.headers.get("Accept"))

    async def _route(self, incoming: web.BaseRequest) -> Reply | web.StreamResponse:
        """Version negotiation (spec 1.0.1), then identity, then the table of URLs."""
        path = incoming.path
        if incoming.method == "OPTIONS":
            return Reply(200)  # the headers say the rest
        if incoming.method not in METHODS:
            raise NotImplementedMethod(f"The method {incoming.method} is not known.")
        first, _, rest = path[1:].partition("/")
        base = _base(incoming, self.settings.trust_proxy_headers)
        if path == openapi.PATH and incoming.method == "GET":
            return self._openapi
        if first == "versions":
            return self._operator.versions(base, 200)
        accept = incoming.headers.get("Accept", "")
        if accept.startswith("application/vnd.openstack.images-"):
            first, rest = accept.removeprefix("application/vnd.openstack.images-"), path[1:]
        if first not in self._accepted:
            return self._operator.versions(base, 300)
        if not rest:
            # python-openstackclient with http_basic looks for the API right here.
            return self._operator.versions(base, 200)
        call = Call(incoming.headers, incoming.method, path)
        context = self._auth.known(call)
        if context is None:
            context = await self._service.identity.run(self._auth.identify, call)
        incoming[wire.CALLER] = context
        route, parts = self._router.find(incoming.method, f"/v2/{rest}")
        if route.method != "GET":
            refuse_anonymous(context)
        if not route.takes_body:
            wire.refuse_body(incoming.headers, incoming.method)
        wire.check_target(incoming.raw_path)
        request = Request(context, parts, incoming.query, incoming.headers, base)
        return await self._call(route, request, incoming)

    async def _call(self, route: Route, request: Request, incoming: web.BaseRequest) -> Reply | web.StreamResponse:
        if route.data is not None:
            return await route.data(self._calls)(request, incoming)
        assert route.record is not None
        if route.takes_body and incoming.can_read_body:
            request = Request(
                request.context, request.parts, request.query, request.headers, request.base, await whole_body(incoming)
            )
        run = self._service.quotas.run if route.limited else self._service.database.run
        reply = await run(route.record(self._calls), request)
        return wire.tagged(reply, request.headers.get("If-None-Match")) if route.method == "GET" else reply


def _base(incoming: web.BaseRequest, behind_proxy: bool) -> str:
    """scheme://host as the client sees it; only a proxy that we were told of may say otherwise. Raises `BadRequest`."""
    scheme, host, prefix = incoming.scheme, incoming.host, ""
    if behind_proxy:
        named = incoming.forwarded[0] if incoming.forwarded else {}  # RFC 7239
        scheme = named.get("proto") or incoming.headers.get("X-Forwarded-Proto") or scheme
        host = named.get("host") or incoming.headers.get("X-Forwarded-Host") or host
        prefix = incoming.headers.get("X-Forwarded-Prefix", "").rstrip("/")
    base = f"{scheme}://{host}{prefix}"
    if not base.isascii():  # RFC 9112, 3.2: what is no host is a bad request
        raise BadRequest("The header Host does not name a host.")
    return base


def _respond(incoming: web.BaseRequest, reply: Reply) -> web.Response:
    headers = {**reply.headers, **wire.every_reply(incoming)}
    if reply.content_type is not None:
        headers["Content-Type"] = f"{reply.content_type}; charset=UTF-8"
    if incoming.method == "HEAD":
        return web.Response(status=reply.status, headers=headers)
    return web.Response(status=reply.status, body=reply.body, headers=headers)


def _log_access(incoming: web.BaseRequest, response: web.StreamResponse, seconds: float) -> None:
    """One line a request; the path is as it came, percent-encoded, so that nothing in it can break the line.

    The status 499 says that a download did not get to its end.
    """
    if not ACCESS_LOG.isEnabledFor(logging.INFO):
        return
    context = incoming.get(wire.CALLER)
    who = f"{context.user_id or '-'} {context.project_id or '-'}" if context is not None else "- -"
    status = 499 if wire.CUT_OFF in incoming else response.status
    ACCESS_LOG.info(
        '%s %s %s "%s %s" %d %d %.3fs',
        incoming[wire.REQUEST_ID], incoming.remote or "-", who, incoming.method, incoming.rel_url.raw_path_qs, status,
        response.content_length or 0, seconds,
    )  # fmt: skip
