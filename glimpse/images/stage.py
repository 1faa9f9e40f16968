"""Staging while a caller waits: bytes that an import will take further (API reference, Stage binary image data).

Like an upload it is two short transactions with a stream between, under the same lease. The status is `uploading` from
the first on; the second only adds the size. What the bytes are is not looked at before the import.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from glimpse.access.policy import Policy, require_owner
from glimpse.access.quota import Quotas, Reservation
from glimpse.db import images
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import LEASE_PROPERTY, STAGE_HOST_PROPERTY, STAGED_PROPERTY
from glimpse.domain.record import Image
from glimpse.errors import Conflict, Gone, NotFound
from glimpse.images.data import ImageData
from glimpse.images.leases import Lease
from glimpse.images.passage import Counted, over_cap
from glimpse.images.staging import STAGING, Staging
from glimpse.notifications import Notifications
from glimpse.settings import Settings
from glimpse.stores.driver import Stored


@dataclass(frozen=True)
class Stage:
    """The call that stages bytes, with what it needs."""

    settings: Settings
    database: Database
    policy: Policy
    staging: Staging
    data: ImageData
    quotas: Quotas
    notifications: Notifications

    def require_enabled(self) -> None:
        """Raise `NotFound` where nothing that is staged could be imported."""
        if "glance-direct" not in self.settings.enabled_import_methods:
            raise NotFound("The import method glance-direct is not enabled here.")

    def elsewhere(self, context: Context, image_id: str) -> str:
        """The URL of the node that has the bytes of a staged image, "" where that is not another one.

        Raises `NotFound` where the caller may not know of the image.
        """
        here = self.settings.imports.self_url
        if not here or self.staging.is_shared:
            return ""
        image = self.database.read(lambda connection: images.get(connection, image_id, context))
        host = image.properties.get(STAGE_HOST_PROPERTY) or ""
        return host if image.status == "uploading" and host != here else ""

    async def stage(self, context: Context, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> None:
        """Keep the bytes of a queued image for an import; `blocks` are about 1 MiB each, `size` is what was announced.

        Raises `NotFound`, `Forbidden`, `Conflict` (not queued), `Gone` (the
        image was deleted), `TooLarge`, `BadRequest`, `Unavailable`, and whatever `blocks` raises.
        """
        if size is not None and size > self.settings.image_size_cap:
            raise over_cap(self.settings.image_size_cap)
        lease = self.data.unfinished.leases.take(STAGING)
        renewal = None
        try:
            image, reservation = await self.quotas.run(self._begin, context, image_id, lease, size)
            self.notifications.tell("image.update", image)
            renewal = asyncio.create_task(self.data.unfinished.renew(image_id, lease))
            try:
                room = None if reservation is None or size is not None else self.data.room(reservation)
                counted = Counted(self.settings.image_size_cap, size, room, renewal)
                async with contextlib.aclosing(counted.through(blocks)) as stream:
                    stored = await self.staging.put(image_id, stream, size)
            except BaseException:
                await asyncio.shield(self.data.unfinished.put_back(image, lease))
                raise
            await asyncio.shield(self._finish(image, lease, stored))
        finally:
            if renewal is not None:
                renewal.cancel()
            self.data.unfinished.leases.drop(lease)

    def _begin(
        self, context: Context, image_id: str, lease: Lease, size: int | None
    ) -> tuple[Image, Reservation | None]:
        owner = self.database.read(lambda connection: images.get(connection, image_id, context)).owner
        account = self.quotas.account(owner)

        def work(connection: Connection) -> tuple[Image, Reservation | None]:
            account.take_turn(connection)
            image = images.get(connection, image_id, context, lock=True)
            self.policy.require_for_image("modify_image", context, image)
            require_owner(context, image)
            if image.status != "queued":
                raise Conflict(f"Only a queued image can be staged, and this one is {image.status}.")
            if self.quotas.on and image.owner != owner:
                raise Conflict(f"Image {image_id} changed its owner just now.")
            reservation = account.admit_stage(connection, image_id, size)
            now = lifecycle.now()
            images.set_status(connection, image_id, "queued", "uploading", now)
            images.set_property(connection, image_id, LEASE_PROPERTY, lease.text(), now)
            return image.with_(status="uploading", updated_at=now), reservation

        return self.quotas.write(work)

    async def _finish(self, image: Image, lease: Lease, stored: Stored) -> None:
        image_id, host = image.id, self.settings.imports.self_url

        def work(connection: Connection) -> None:
            now = lifecycle.now()
            images.drop_property(connection, image_id, LEASE_PROPERTY, lease.text())
            self.quotas.release(connection, image_id)
            images.set_status(connection, image_id, "uploading", "uploading", now, size=stored.size)
            if self.staging.is_shared:
                images.set_property(connection, image_id, STAGED_PROPERTY, stored.url, now)
            elif host:
                images.set_property(connection, image_id, STAGE_HOST_PROPERTY, host, now)

        try:
            await self.data.insist(self.database.write, work)
        except Conflict as error:
            staged = await self.database.run(self.database.read, lambda c: _is_staged(c, image_id, stored.size))
            if staged:  # the commit had happened, and only its answer was lost
                return
            if await self.database.run(self.database.write, lambda c: self.data.unfinished.forget(c, image_id, lease)):
                await self.staging.discard(image_id)
            raise Gone(f"Image {image_id} was deleted while it was staged.") from error
        self.notifications.tell("image.update", image.with_(size=stored.size, updated_at=lifecycle.now()))


def _is_staged(connection: Connection, image_id: str, size: int) -> bool:
    with contextlib.suppress(NotFound):
        image = images.get(connection, image_id, Context(is_admin=True))
        return image.status == "uploading" and image.size == size and LEASE_PROPERTY not in image.properties
    return False
