"""Everything of the service but HTTP, in one process: `glance-api` answers with it, `glance-worker` does tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from glimpse.access.auth import Auth, open_auth
from glimpse.access.limits import KeystoneLimits
from glimpse.access.policy import Policy
from glimpse.access.protection import Protection
from glimpse.access.quota import Quotas
from glimpse.access.waiting import WaitingThreads
from glimpse.cache.copies import Cache
from glimpse.cache.ledger import prepare
from glimpse.db.engine import Database
from glimpse.domain.record import Task
from glimpse.domain.schema import ImageSchema
from glimpse.errors import SettingsError
from glimpse.images.acls import Acls
from glimpse.images.caching import Caching
from glimpse.images.data import ImageData
from glimpse.images.locations import Locations
from glimpse.images.manage import Records
from glimpse.images.scrub import Scrubber
from glimpse.images.signatures import Signatures, check_key_manager
from glimpse.images.stage import Stage
from glimpse.images.staging import Staging
from glimpse.images.tasks import Tasks
from glimpse.images.unfinished import Unfinished
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
from glimpse.notifications import Notifications, check_notifications
from glimpse.settings import Settings
from glimpse.stores.registry import open_stores
from glimpse.stores.uri_filter import UriFilter
from glimpse.stores.web import WebClient

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
    open_broker(settings)
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


class Service:
    """The parts of one process, put together. `start` and `stop` frame its life."""

    def __init__(self, foundation: Foundation) -> None:
        settings, policy = foundation.settings, foundation.policy
        self.auth = foundation.auth
        self.identity = WaitingThreads("identity", IDENTITY_THREADS, "the identity service")
        self.database = database = Database(settings.database, settings.record_threads)
        self.stores = stores = open_stores(settings)
        self.notifications = notifications = Notifications(settings)
        self.quotas = quotas = Quotas(database, settings.user_storage_quota, foundation.limits)
        self.records = Records(
            settings, database, policy, foundation.schema, foundation.protection, stores, notifications, quotas
        )
        self.acls = Acls(database, stores)
        self._staging = staging = Staging(settings.imports, stores)
        cache = Cache(settings.cache, database) if settings.cache.directory else None
        self.caching = Caching(settings.cache, database, policy, stores, cache)
        self._signatures = Signatures(settings)
        self._unfinished = Unfinished(database, stores, notifications, quotas, staging)
        self.data = ImageData(
            settings,
            database,
            policy,
            stores,
            notifications,
            quotas,
            staging,
            self._signatures,
            self._unfinished,
            cache,
        )
        self.stage = Stage(settings, database, policy, staging, self.data, quotas, notifications)
        self._filter = UriFilter(settings.uri_filter)
        self._web = WebClient(self._filter)
        self._scrubber = Scrubber(settings, database, stores)
        self.locations = Locations(settings, database, policy, stores, self._scrubber, notifications, self._filter)
        self.tasks = Tasks(settings, database, policy)
        self._broker = open_broker(settings)
        self.engine = Engine(
            settings.imports.at_once, database, quotas, self.tasks, notifications, self._plans(settings), self.acls,
            self._broker,
        )  # fmt: skip
        self._take_orders(settings, policy)
        self._beside: list[asyncio.Task[None]] = []

    def _plans(self, settings: Settings) -> dict[str, Callable[[Task], Plan]]:
        """What is done for a task, by its type."""
        parts = Parts(
            settings, self.database, self.stores, self._staging, self.data, self.quotas, self.notifications, self._web,
            catalogue=lambda token: self.identity.run(self.auth.catalogue, token),
        )  # fmt: skip
        location_parts = LocationParts(
            settings, self.database, self.stores, self.locations, self.quotas, self.notifications
        )
        return {
            orders.TYPE: lambda task: ImageImport(parts, task),
            location.TYPE: lambda task: LocationImport(location_parts, task),
            legacy.TYPE: lambda task: LegacyImport(parts, task),
        }

    def _take_orders(self, settings: Settings, policy: Policy) -> None:
        """The calls that end in a task."""
        self.imports = Imports(
            settings, self.database, policy, self.stores, self._staging, self._signatures, self.quotas,
            self.notifications, self.tasks, self._filter, self.engine,
        )  # fmt: skip
        self.legacy_imports = LegacyImports(
            self.tasks, self.records, self.quotas, self._filter, self.notifications, self.engine, self._signatures
        )
        self.location_orders = LocationOrders(
            self.database, policy, self.stores, self.locations, self.tasks, self.engine
        )

    def start(self) -> None:
        """Begin the work that goes on beside requests."""
        self.notifications.start()
        self._beside = [
            asyncio.create_task(self.stores.look()),
            asyncio.create_task(self._unfinished.keep_sweeping()),
            asyncio.create_task(self._scrubber.keep_scrubbing()),
            asyncio.create_task(self.engine.keep_looking()),
            asyncio.create_task(self.caching.keep_house()),
        ]
        if self._broker is not None:
            self._beside.append(asyncio.create_task(self._broker.start(self.engine.take, self.engine.room)))

    def rest(self) -> None:
        """Begin no more tasks."""
        self.engine.rest()

    async def stop(self, patience: float) -> None:
        """End it and let go of connections, when no request runs any more; tasks get so many seconds."""
        for work in self._beside:
            work.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        if self._broker is not None:
            await self._broker.stop()
        await self.engine.stop(patience)
        await self.caching.stop()
        await self.acls.close()
        self.identity.close()
        self.quotas.close()
        self._signatures.close()
        await asyncio.to_thread(self.notifications.stop)
        await self._web.close()
        await self._staging.close()
        await self.stores.close()
        self.database.close()
