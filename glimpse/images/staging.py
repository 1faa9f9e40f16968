"""Staging: bytes that have come in and are in no store yet (reserved store `os_glance_staging_store`).

    <directory>/<image id>                   staged by a caller, or by a Glance before; complete and synced
    <directory>/<image id>.<what>            made of it on its way: fetched, converted
    <directory>/.<image id>.….part           being written, or left by a process that was killed

The directory belongs to one node, or to several that mount it. Where `[os_glance_staging_store] backend` names a store,
what callers stage is kept there under the name `staging-<image id>`, for every node; the image's property
`os_glance_staged_at` has the URL. The directory is then only for what has to be a file on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from glimpse.db import images
from glimpse.db.engine import Connection, Database
from glimpse.domain.lifecycle import STAGED_PROPERTY
from glimpse.domain.record import Image
from glimpse.errors import Conflict, GlimpseError, NotFound
from glimpse.images.import_lock import LOCK
from glimpse.import_settings import ImportSettings
from glimpse.stores import file
from glimpse.stores.driver import Reader, Stored
from glimpse.stores.registry import ConfiguredStore, Stores

LOG = logging.getLogger(__name__)

STAGING = "os_glance_staging_store"  # in the lease of bytes on their way into staging
SETTLED = 120.0  # seconds without a change after which a file that nobody needs is removed


class Staging:
    """Where staged bytes are kept by this node."""

    def __init__(self, settings: ImportSettings, stores: Stores) -> None:
        self.directory = Path(settings.staging_dir).absolute()
        options = {option.dest: option.default for option in file.OPTIONS}
        self._files = file.FileStore({**options, "filesystem_store_datadir": str(self.directory)}, f"[{STAGING}]")
        self._shared: ConfiguredStore | None = stores.get(settings.staging_store) if settings.staging_store else None
        self.scratch = self  # for what tasks of type import make
        if Path(settings.work_dir).absolute() != self.directory:
            self.scratch = Staging(replace(settings, staging_dir=settings.work_dir, staging_store=""), stores)

    @property
    def is_shared(self) -> bool:
        """Whether every node has what was staged on one."""
        return self._shared is not None

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        """Keep what a caller sends; an earlier rest of the image gives way. Raises as `Store.put`."""
        await self.discard(image_id)
        if self._shared is None:
            return await self._files.put(image_id, blocks, size)
        return await self._shared.store.put(_shared_name(image_id), blocks, size)

    async def open(self, image: Image) -> Reader:
        """What was staged for the image. Raises `NotFound` where this node does not have it, `Unavailable`."""
        url = image.properties.get(STAGED_PROPERTY)
        try:
            if self._shared is not None and url:
                return await self._shared.store.open(url)
            return await self._files.open(self.file(image.id).as_uri())
        except NotFound as error:
            raise NotFound("The node that works on the image does not have its staged data.") from error

    async def has(self, image: Image) -> bool:
        """Whether this node has what was staged for the image."""
        try:
            await (await self.open(image)).close()
        except NotFound:
            return False
        return True

    def file(self, image_id: str, what: str = "") -> Path:
        """The file with staged bytes, or with what was made of them."""
        return self.directory / (f"{image_id}.{what}" if what else image_id)

    async def keep_file(self, image_id: str, what: str, blocks: AsyncIterator[bytes], size: int | None) -> Path:
        """Write such a file: all of it, or nothing. Raises as `Store.put`."""
        await self._files.put(f"{image_id}.{what}", blocks, size)
        return self.file(image_id, what)

    async def open_file(self, path: Path) -> Reader:
        """Read such a file. Raises `NotFound`, `Unavailable`."""
        return await self._files.open(path.as_uri())

    async def discard(self, image_id: str) -> None:
        """Remove all that is staged for an image, complete or not. Nothing there is fine. Raises `Unavailable`."""
        if self._shared is not None:
            await self._shared.store.discard(_shared_name(image_id))
        await self._files.discard(image_id)
        await self.discard_made(image_id)

    async def discard_made(self, image_id: str) -> None:
        """Remove what was made of staged bytes, but not those. What cannot be removed now, a sweep tries again."""
        try:
            await asyncio.to_thread(self._unlink_made, image_id)
        except OSError as error:
            LOG.warning("what was made of staged bytes of image %s stays for now: %s", image_id, error.strerror)

    def _unlink_made(self, image_id: str) -> None:
        for pattern in (f"{image_id}.*", f".{image_id}.*"):
            for leftover in self.directory.glob(pattern):
                leftover.unlink(missing_ok=True)

    async def close(self) -> None:
        """Let go of the threads."""
        await self._files.close()
        if self.scratch is not self:
            await self.scratch.close()

    # --- sweep -------------------------------------------------------------------------------------------------------

    async def sweep(self, database: Database) -> None:
        """Remove what is staged for images that are not on their way any more. Raises `Unavailable`."""
        if self.scratch is not self:
            await self.scratch.sweep(database)
        found = await asyncio.to_thread(self._settled)
        for image_id in await self._not_needed(database, found):
            if not await self._not_needed(database, [image_id]):
                continue  # staged again while others were removed
            LOG.info("staging has bytes of image %s that nobody needs: removed", image_id)
            with contextlib.suppress(GlimpseError):
                await self._files.discard(image_id)
                await self.discard_made(image_id)
        if self._shared is None:
            return
        marks = await database.run(database.read, lambda c: images.with_property(c, STAGED_PROPERTY))
        staged = {image_id: url for image_id, url, _ in marks}
        for image_id in await self._not_needed(database, list(staged)):
            if not await self._not_needed(database, [image_id]):
                continue
            try:
                await self._shared.store.discard(_shared_name(image_id))
            except GlimpseError as error:
                LOG.warning("staged bytes of image %s stay for now: %s", image_id, error.message)
                continue
            await database.run(database.write, _forget(image_id, staged[image_id]))

    async def _not_needed(self, database: Database, image_ids: list[str]) -> list[str]:
        if not image_ids:
            return []
        needed = await database.run(database.read, lambda c: images.on_their_way(c, image_ids, LOCK))
        return [image_id for image_id in image_ids if image_id not in needed]

    def _settled(self) -> list[str]:
        """Ids of images with files here that have not changed for a while; other names are not ours."""
        found: dict[str, float] = {}
        with contextlib.suppress(OSError):
            for path in self.directory.iterdir():
                name = path.name.removeprefix(".").partition(".")[0]
                with contextlib.suppress(ValueError, OSError):
                    if str(uuid.UUID(name)) == name.lower():
                        found[name] = max(found.get(name, 0.0), path.stat().st_mtime)
        return [name for name, changed in found.items() if time.time() - changed > SETTLED]


def _shared_name(image_id: str) -> str:
    return f"staging-{image_id}"


def _forget(image_id: str, url: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        with contextlib.suppress(Conflict):
            images.drop_property(connection, image_id, STAGED_PROPERTY, url)

    return work
