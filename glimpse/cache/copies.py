"""Copies of image bytes on this node: found for downloads, made while somebody downloads, removed when room is needed.

The cache knows neither stores nor policy: who may read was decided before it is asked, and the bytes come from a
`Source` that the caller opens. Every process of the node works on the same directory (see `copying`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from contextlib import suppress
from io import FileIO

from glimpse.cache.copying import SETTLED, Copying, Superseded, checksum_of
from glimpse.cache.directory import Directory
from glimpse.cache.ledger import open_ledger
from glimpse.cache.reading import CompleteCopy, Opener
from glimpse.cache_settings import CacheSettings
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.record import Copy, Image
from glimpse.errors import NotFound, TooLarge, Unavailable

LOG = logging.getLogger(__name__)

ATTEMPTS = 5  # to find a copy, or to begin one, while others publish and remove them
REMEMBERED = 10_000  # checksums of copies, in each process
NOT_SETTLED = 60  # seconds in which a note may be ahead of its file


class Cache:
    """The cache of one process. What is not a coroutine waits for disks and database, and belongs in a thread."""

    def __init__(self, settings: CacheSettings, database: Database) -> None:
        self._settings = settings
        self.directory = Directory(settings.directory)
        self._ledger = open_ledger(settings, self.directory, database)
        self._going: dict[str, Copying] = {}
        self._checksums: dict[str, tuple[tuple[int, int], str | None]] = {}
        self._hits: Counter[str] = Counter()
        self._counting: asyncio.Task[None] | None = None

    # --- downloads ---------------------------------------------------------------------------------------------------

    async def read(self, image: Image, source: Opener | None) -> CompleteCopy | None:
        """The bytes of an image from its copy, or, with a `source`, from one that is made while they are read.

        None when the bytes have to come from where they are kept. Raises `GlimpseError` as the source does.
        """
        if not self._fits(image):
            return None
        for _ in range(ATTEMPTS):
            copy = await self._find(image)
            if copy is not None:
                self._count(image.id)
                return copy
            if source is None:
                return None
            copying = self._begin(image, source)
            if copying is None:
                return None
            with suppress(Superseded):
                return await copying.reader(source)
        return None

    async def fetch(self, image: Image, source: Opener) -> None:
        """Have a copy, and return when it is there. Raises `TooLarge`, and `GlimpseError` as the source does."""
        if not self._fits(image):
            raise TooLarge("The cache is smaller than the image.")
        for _ in range(ATTEMPTS):
            copy = await self._find(image)
            if copy is not None:
                await copy.close()
                return
            copying = self._begin(image, source)
            if copying is None:
                break
            with suppress(Superseded):
                await copying.wait()
                return
        raise Unavailable("The image cannot be cached now.")

    def _fits(self, image: Image) -> bool:
        return image.size is not None and 0 < image.size <= self._settings.max_size

    def _begin(self, image: Image, source: Opener) -> Copying | None:
        """The copy that is on its way, begun if need be; None when one of other content is."""
        copying = self._going.get(image.id)
        if copying is None:
            copying = Copying(self.directory, self._ledger, self.prune, image, source)
            copying.start()
            self._going[image.id] = copying
            assert copying.task is not None
            copying.task.add_done_callback(lambda _: self._going.pop(image.id, None))
        return copying if copying.is_of(image) else None

    async def _find(self, image: Image) -> CompleteCopy | None:
        file = await asyncio.to_thread(self._open, image.id)
        if file is None:
            return None
        facts = os.fstat(file.fileno())
        if facts.st_size == image.size and await self._is_current(image, facts):
            return CompleteCopy(file, facts.st_size)
        file.close()
        LOG.warning("the copy of image %s is not of its present data, or not known; it goes", image.id)
        await asyncio.to_thread(self.drop, image.id)
        return None

    def _open(self, image_id: str) -> FileIO | None:
        try:
            return FileIO(self.directory.copy(image_id), "rb")
        except (OSError, NotFound):
            return None

    async def _is_current(self, image: Image, facts: os.stat_result) -> bool:
        """Whether a copy is of what the record says now: an image may lose its data and get other."""
        identity = (facts.st_ino, facts.st_mtime_ns)
        known = self._checksums.get(image.id)
        if known is None or known[0] != identity:
            noted = await asyncio.to_thread(self._ledger.get, image.id)
            if noted is None:
                return False
            if len(self._checksums) >= REMEMBERED:
                self._checksums.clear()
            known = self._checksums[image.id] = (identity, noted.checksum)
        if (checksum := checksum_of(image)) is not None:
            return known[1] == checksum
        # Without a checksum any change of the record may have been one of its locations (`Copying` dates the file).
        return facts.st_mtime >= lifecycle.epoch(image.updated_at) + SETTLED

    def _count(self, image_id: str) -> None:
        self._hits[image_id] += 1
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._write_hits())

    async def _write_hits(self) -> None:
        """Behind the downloads, all that came meanwhile at once."""
        while self._hits:
            counts, self._hits = self._hits, Counter()
            try:
                await asyncio.to_thread(self._ledger.hit, counts, lifecycle.now())
            except Unavailable:
                LOG.warning("the hits of %d cached images could not be counted", len(counts))

    async def stop(self) -> None:
        """End what is on its way; it is gone on with where it stopped."""
        await asyncio.gather(*(copying.stop() for copying in [*self._going.values()]))
        if self._counting is not None:
            await self._counting

    # --- keeping house -----------------------------------------------------------------------------------------------

    def held(self) -> list[Copy]:
        """The copies of this node."""
        files = self.directory.held()
        return [copy for copy in self._ledger.all() if copy.image_id in files]

    def drop(self, image_id: str) -> bool:
        """Remove the copy of an image; tells whether there was one. Whoever reads it now gets all of it."""
        self._checksums.pop(image_id, None)
        dropped = self.directory.drop(image_id)
        self._ledger.remove([image_id])
        return dropped

    def forget(self, image_id: str) -> None:
        """Neither a copy nor a wish for one is left."""
        self.directory.unqueue(image_id)
        self.drop(image_id)

    def clear(self) -> int:
        """Remove every copy; how many there were."""
        return sum(self.drop(image_id) for image_id in self.directory.held())

    def clear_queue(self) -> int:
        """Fetch nothing any more; how many images were to be fetched."""
        return sum(self.directory.unqueue(image_id) for image_id in self.directory.queued())

    def clean(self) -> None:
        """Remove what is invalid, and what was not filled to its end and stalls."""
        with self.directory.locked(wait=True):
            self.directory.clean(self._settings.stall_time)

    def prune(self, room: int = 0) -> tuple[int, int]:
        """Remove copies, the one that nobody has asked for the longest first, until the rest and `room` fit the bound.

        What was left unfinished counts, and goes first. How many copies it were, and their bytes.
        """
        with self.directory.locked(wait=True):
            files, bound = self.directory.held(), max(0, self._settings.max_size - room)
            total = sum(facts.st_size for facts in files.values())
            if total + self.directory.unusable() > bound:
                self.directory.clean(0)
                total += self.directory.unusable()
            if total <= bound:
                return 0, 0
            asked = {copy.image_id: lifecycle.epoch(copy.last_accessed) for copy in self._ledger.all()}
            pruned, freed = 0, 0
            for image_id in sorted(files, key=lambda each: (asked.get(each, 0.0), files[each].st_mtime_ns)):
                if total - freed <= bound:
                    break
                if self.drop(image_id):
                    pruned, freed = pruned + 1, freed + files[image_id].st_size
            LOG.info("%d copies with %d bytes were pruned", pruned, freed)
            return pruned, freed

    def tidy(self) -> None:
        """What any process of the node does now and then: notes and files agree, nothing stalls, the bound holds."""
        with self.directory.locked(wait=False) as mine:
            if not mine:
                return
            self.directory.clean(self._settings.stall_time)
            files = self.directory.held()  # first: a copy is noted before it gets its name
            noted = {copy.image_id: copy for copy in self._ledger.all()}
            for image_id in files.keys() - noted.keys():
                self.directory.copy(image_id).unlink(missing_ok=True)
            before = time.time() - NOT_SETTLED
            self._ledger.remove(
                image_id
                for image_id in noted.keys() - files.keys()
                if not self.directory.is_filling(image_id) and lifecycle.epoch(noted[image_id].last_modified) < before
            )
        self.prune()
