"""Who may read the bytes of an image where they lie: told to the stores that have lists of readers (`SharingStore`).

The record always changes first. A store gets the whole list each time, and the record is looked at again afterwards, so
that of two changes at once the last word is that of the record. A store that is away is told later, by the process that
took the change; whoever asked for the change learns of it, as others may still read what they should not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from glimpse.db import images, members
from glimpse.db.engine import Connection, Database
from glimpse.domain.context import Context
from glimpse.domain.record import Location
from glimpse.errors import GlimpseError, NotFound, Unavailable
from glimpse.stores.driver import SharingStore
from glimpse.stores.registry import Stores

LOG = logging.getLogger(__name__)

SYSTEM = Context(is_admin=True)
PAUSES = (5.0, 15.0, 60.0, 300.0, 900.0, 1800.0)  # seconds before each try to tell a store that was away
DECISIVE = frozenset({"visibility", "owner", "locations"})  # what of an image decides who may read where

LATE = "The image is changed, but its store could not be told who may read the data now. It is told again soon."


@dataclass(frozen=True)
class _Readers:
    owner: str | None
    locations: tuple[Location, ...]
    public: bool
    projects: tuple[str, ...]


class Acls:
    """Tells stores. It does nothing at all where no store wants to know."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._database = database
        self._stores = stores
        self.on = any(isinstance(each.store, SharingStore) for each in stores)
        self._late: dict[str, asyncio.Task[None]] = {}

    async def spread(self, context: Context | None, image_id: str, changed: Collection[str] = DECISIVE) -> None:
        """Tell the stores of an image who may read it, if something that decides it has `changed`.

        Raises `Unavailable` when one could not be told; it is tried again beside.
        """
        if self.on and not DECISIVE.isdisjoint(changed) and not await self._try(context, image_id):
            raise Unavailable(LATE, {"Retry-After": "5"})

    async def spread_new(self, context: Context | None, image_id: str) -> None:
        """The same for bytes that have just come: nobody may read them yet who should not, so nothing has failed."""
        if self.on:
            await self._try(context, image_id)

    async def close(self) -> None:
        """Try no more."""
        for task in self._late.values():
            task.cancel()
        await asyncio.gather(*self._late.values(), return_exceptions=True)

    async def _try(self, context: Context | None, image_id: str) -> bool:
        try:
            await self._tell(context, image_id)
            return True
        except GlimpseError as error:
            LOG.warning("image %s: its store does not know yet who may read it: %s", image_id, error.message)
        except Exception:  # the change itself is done: whoever asked for it is not told that it failed
            LOG.exception("image %s: its store does not know yet who may read it", image_id)
        if image_id not in self._late:
            task = asyncio.create_task(self._tell_later(context, image_id))
            self._late[image_id] = task
            task.add_done_callback(lambda _: self._late.pop(image_id))
        return False

    async def _tell_later(self, context: Context | None, image_id: str) -> None:
        for pause in PAUSES:
            await asyncio.sleep(pause)
            try:
                await self._tell(context, image_id)
                LOG.info("image %s: its store knows now who may read it", image_id)
                return
            except GlimpseError as error:
                LOG.info("image %s: its store cannot be told who may read it: %s", image_id, error.message)
        LOG.error("image %s: its store does not know who may read it; change its visibility to tell it again", image_id)

    async def _tell(self, context: Context | None, image_id: str) -> None:
        told = None
        while (readers := await self._database.run(self._database.read, lambda c: _readers(c, image_id))) != told:
            assert readers is not None
            await self._tell_all(context, readers)
            told = readers

    async def _tell_all(self, context: Context | None, readers: _Readers) -> None:
        stores = self._stores.acting_for(context, readers.owner)
        for location in readers.locations:
            configured = stores.holding(location)
            if configured is not None and isinstance(configured.store, SharingStore):
                try:
                    await configured.store.share(location.url, readers.public, readers.projects)
                except NotFound:
                    LOG.info("store %s has no bytes there that anybody could read", configured.id)


def _readers(connection: Connection, image_id: str) -> _Readers:
    try:
        image = images.get(connection, image_id, SYSTEM)
    except NotFound:
        return _Readers(None, (), False, ())
    owner = (image.owner,) if image.owner else ()
    if image.status == "deactivated":
        return _Readers(image.owner, image.locations, False, owner)
    shared = members.find(connection, image_id) if image.visibility == "shared" else []
    public = image.visibility in ("public", "community")
    return _Readers(image.owner, image.locations, public, (*owner, *(member.member_id for member in shared)))
