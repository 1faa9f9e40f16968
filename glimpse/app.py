"""Settings in, application out: the only place where the parts meet. And the way of a request, first to last."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from glimpse.access.auth import Auth, Call, open_auth
from glimpse.access.limits import KeystoneLimits
from glimpse.access.policy import Policy, refuse_anonymous
from glimpse.access.protection import Protection
from glimpse.access.quota import Quotas
from glimpse.access.waiting import WaitingThreads
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
from glimpse.cache.copies import Cache
from glimpse.cache.ledger import prepare
from glimpse.db.engine import Database
from glimpse.domain.record import Task
from glimpse.domain.schema import ImageSchema
from glimpse.errors import BadRequest, GlimpseError, NotImplementedMethod, SettingsError
from glimpse.images.caching import Caching
from glimpse.images.data import ImageData
from glimpse.images.locations import Locations
from glimpse.images.manage import Records
from glimpse.images.scrub import Scrubber
from glimpse.images.sharing import Sharing
from glimpse.images.signatures import Signatures, check_key_manager
from glimpse.images.stage import Stage
from glimpse.images.staging import Staging
from glimpse.images.tasks import Tasks
from glimpse.imports import legacy, location, orders
from glimpse.imports.broker import open_broker
from glimpse.imports.convert import check_conversion
from glimpse.imports.engine import Engine
from glimpse.imports.image_import import ImageImport
from glimpse.imports.legacy import LegacyImport, LegacyImports
from glimpse.imports.location import LocationImport, LocationOrders, LocationParts
from glimpse.imports.orders import Imports
from glimpse.imports.plan import Plan
from glimpse.imports.steps import Parts
from glimpse.metadefs.manage import Metadefs
from glimpse.notifications import Notifications, check_notifications
from glimpse.settings import Settings
from glimpse.stores.registry import open_stores
from glimpse.stores.uri_filter import UriFilter
from glimpse.stores.web import WebClient

LOG = logging.getLogger(__name__)
ACCESS_LOG = logging.getLogger("glimpse.access")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
IDENTITY_THREADS = 8  # per worker


@dataclass(frozen=True)
class Foundation:
    """What is checked once, before the first process forks: a mistake in it stops the start. Raises `SettingsError`."""

    settings: Settings
    policy: Policy
    schema: ImageSchema
    protection: Protection
    auth: Auth
    limits: KeystoneLimits | None


def lay_foundation(settings: Settings) -> Foundation:
    """Check everything that configuration can get wrong, without connecting anywhere. Raises `SettingsError`."""
    policy = Policy(settings.conf)
    open_stores(settings)
    Database(settings.database, settings.record_threads).close()
    check_notifications(settings)
    check_conversion(settings)
    check_key_manager(settings.conf)
    if settings.cache.directory:
        prepare(settings.cache)
    formats, extra = settings.formats, settings.image_schema
    try:
        schema = ImageSchema(formats.container_formats, formats.disk_formats, extra.properties, extra.required)
    except ValueError as error:
        raise SettingsError(f"schema-image.json: {error}") from error
    limits = KeystoneLimits(settings.conf) if settings.use_keystone_limits else None
    return Foundation(settings, policy, schema, Protection(settings, policy), open_auth(settings, policy), limits)


class Application:
    """The service in one process. `handle` answers requests; `start` and `stop` frame its life."""

    def __init__(self, foundation: Foundation) -> None:
        self.settings = settings = foundation.settings
        self._auth, policy = foundation.auth, foundation.policy
        self._database = database = Database(settings.database, settings.record_threads)
        self._stores = stores = open_stores(settings)
        self._notifications = notifications = Notifications(settings)
        self._quotas = quotas = Quotas(database, settings.user_storage_quota, foundation.limits)
        records = Records(
            settings, database, policy, foundation.schema, foundation.protection, stores, notifications, quotas
        )
        self._staging = staging = Staging(settings.imports, stores)
        cache = Cache(settings.cache, database) if settings.cache.directory else None
        self._caching = Caching(settings.cache, database, policy, stores, cache)
        self._signatures = signatures = Signatures(settings)
        self._data = data = ImageData(
            settings, database, policy, stores, notifications, quotas, staging, signatures, cache
        )
        web_filter = UriFilter(settings.uri_filter)
        self._scrubber = Scrubber(settings, database, stores)
        locations = Locations(settings, database, policy, stores, self._scrubber, notifications, web_filter)
        tasks = Tasks(settings, database, policy)
        self._web = WebClient(web_filter)
        self._identity = WaitingThreads("identity", IDENTITY_THREADS, "the identity service")
        parts = Parts(
            settings, database, stores, staging, data, quotas, notifications, self._web,
            catalogue=lambda token: self._identity.run(self._auth.catalogue, token),
        )  # fmt: skip
        location_parts = LocationParts(settings, database, stores, locations, quotas, notifications)
        plans: dict[str, Callable[[Task], Plan]] = {
            orders.TYPE: lambda task: ImageImport(parts, task),
            location.TYPE: lambda task: LocationImport(location_parts, task),
            legacy.TYPE: lambda task: LegacyImport(parts, task),
        }
        self._broker = broker = open_broker(settings)
        self._engine = engine = Engine(settings.imports.at_once, database, quotas, tasks, notifications, plans, broker)
        imports = Imports(
            settings, database, policy, stores, staging, signatures, quotas, notifications, tasks, web_filter, engine
        )
        legacy_imports = LegacyImports(tasks, records, quotas, web_filter, notifications, engine, signatures)
        stage = Stage(settings, database, policy, staging, data, quotas, notifications)
        self._peers = peers = Peers()
        self._operator = OperatorCalls(settings, published(foundation.schema))
        image_calls = ImageCalls(settings, records, stores)
        self._calls = Calls(
            cache=CacheCalls(self._caching),
            images=image_calls,
            image_data=ImageDataCalls(settings, database, records, data, image_calls, stage, peers),
            image_parts=ImagePartCalls(records, Sharing(settings, database, policy, notifications)),
            imports=ImportCalls(settings, stage, imports, peers),
            info=InfoCalls(settings, policy, stores, quotas),
            locations=LocationCalls(
                image_calls, locations, LocationOrders(database, policy, stores, locations, tasks, engine), tasks
            ),
            metadefs=MetadefCalls(settings, Metadefs(database, policy, notifications)),
            operator=self._operator,
            tasks=TaskCalls(settings, database, tasks, legacy_imports),
        )
        self._router = Router()
        self._cors = Cors(settings.conf)
        self._accepted = self._operator.accepted()
        self._openapi = wire.json_reply(
            openapi.document(settings.public_endpoint or "/", settings.flavor, self._operator.schemas)
        )
        self.draining = False
        self.busy: set[web.RequestHandler] = set()  # connections with a request in work
        self._sweepers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin the work that goes on beside requests."""
        self._notifications.start()
        self._sweepers = [
            asyncio.create_task(self._data.keep_sweeping()),
            asyncio.create_task(self._scrubber.keep_scrubbing()),
            asyncio.create_task(self._engine.keep_looking()),
            asyncio.create_task(self._caching.keep_house()),
        ]
        if self._broker is not None:
            self._sweepers.append(asyncio.create_task(self._broker.start(self._engine.take, self._engine.room)))

    def rest(self) -> None:
        """Begin no more work beside requests."""
        self._engine.rest()

    async def stop(self, patience: float) -> None:
        """End it and let go of connections, when no request runs any more; tasks get so many seconds."""
        for sweeper in self._sweepers:
            sweeper.cancel()
        await asyncio.gather(*self._sweepers, return_exceptions=True)
        if self._broker is not None:
            await self._broker.stop()
        await self._engine.stop(patience)
        await self._caching.stop()
        self._identity.close()
        self._quotas.close()
        self._signatures.close()
        await asyncio.to_thread(self._notifications.stop)
        await self._web.close()
        await self._peers.close()
        await self._staging.close()
        await self._stores.close()
        self._database.close()

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
            context = await self._identity.run(self._auth.identify, call)
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
        run = self._quotas.run if route.limited else self._database.run
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
