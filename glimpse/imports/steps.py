"""The steps of an image's import, each safe to run again (see `plan`)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glimpse.access.auth import Catalogue
from glimpse.access.quota import MIB, Quotas, Reservation
from glimpse.db import images
from glimpse.db.engine import Connection, Database
from glimpse.domain.context import Context
from glimpse.domain.import_request import COPY, DIRECT, WEB, ImportRequest
from glimpse.domain.record import Image, Location
from glimpse.errors import GlimpseError, NotFound, Unauthorized, Unavailable
from glimpse.images.data import ImageData
from glimpse.images.passage import Counted, Passage
from glimpse.images.signatures import Certificate, Verifier, claim_of, verifier_of
from glimpse.images.staging import Staging
from glimpse.imports.convert import convert
from glimpse.imports.decompress import MAGIC, decompressed, is_compressed
from glimpse.imports.glance_download import RemoteGlance, endpoint_of
from glimpse.imports.plan import Work
from glimpse.imports.tee import put_in_all
from glimpse.notifications import Notifications, stores_of_import
from glimpse.settings import Settings
from glimpse.stores.driver import Reader
from glimpse.stores.registry import ConfiguredStore, Stores
from glimpse.stores.web import WebClient

SYSTEM = Context(is_admin=True)


@dataclass(frozen=True)
class Parts:
    """What the steps work with."""

    settings: Settings
    database: Database
    stores: Stores
    staging: Staging
    data: ImageData
    quotas: Quotas
    notifications: Notifications
    web: WebClient
    catalogue: Callable[[str], Awaitable[Catalogue]]

    async def image(self, work: Work) -> Image:
        """The image as it is now, with what the steps have found out. Raises `NotFound`."""
        image = await self.data.insist(self.database.read, lambda c: images.get(c, work.image_id, SYSTEM))
        return image.with_(**work.facts)

    async def stores_for(self, work: Work) -> Stores:
        """The stores, for calls about this image; also when it was deleted meanwhile."""
        owner = await self.data.insist(self.database.read, lambda c: images.owner(c, work.image_id))
        return self.stores.acting_for(work.caller, owner)


@dataclass(frozen=True)
class Order:
    """One import: what was asked for, the stores it goes to, and the certificate of an image that is signed."""

    parts: Parts
    request: ImportRequest
    targets: Sequence[ConfiguredStore]
    certificate: Certificate | None = None

    @property
    def decompresses(self) -> bool:
        """Whether compressed bytes are stored as what is in them."""
        return "image_decompression" in self.parts.settings.imports.plugins and self.request.method != COPY

    @property
    def converts(self) -> bool:
        """Whether another format may be stored than the one that comes in."""
        return "image_conversion" in self.parts.settings.imports.plugins and self.request.method != COPY

    async def verifier(self, work: Work, image: Image) -> Verifier | None:
        """What the bytes must be shown to, if the image is signed; a copy is of verified ones.

        Raises `BadRequest`, `Unavailable`.
        """
        claim = None if self.request.method == COPY else claim_of({**image.properties, **work.properties})
        if claim is None:
            return None
        certificate = self.certificate
        if certificate is None and work.caller is not None:  # the signature came with a remote image
            certificate = await self.parts.data.signatures.certificate(work.caller, claim.certificate_id)
        return verifier_of(claim, certificate)

    async def source(self, work: Work, image: Image) -> Reader:
        """The bytes to import. Raises `NotFound`, `Unavailable`, and whatever else a place answers."""
        match self.request.method:
            case "glance-direct":
                return await self.parts.staging.open(image)
            case "web-download":
                return await self.parts.web.open(self.request.uri)
            case "glance-download":
                return await (await self.remote(work)).open()
            case "copy-image":
                return await self._stored(work, image)
        raise NotFound(f"The import method {self.request.method} is not known here.")

    async def remote(self, work: Work) -> RemoteGlance:
        """The image of another region. Raises `Unauthorized`, `NotFound`, `Unavailable`."""
        if work.token is None:
            raise Unauthorized("The process that had the caller's token has ended; ask for the import again.")
        request, catalogue = self.request, await self.parts.catalogue(work.token)
        endpoint = endpoint_of(catalogue, request.region, request.interface)
        return RemoteGlance(self.parts.web, endpoint, request.remote_id, work.token)

    async def _stored(self, work: Work, image: Image) -> Reader:
        failure: GlimpseError = NotFound("No store has the bytes of the image.")
        stores = await self.parts.stores_for(work)
        for location in stores.by_weight(image.locations):
            store = stores.holding(location)
            if store is None:
                continue
            try:
                return await store.store.open(location.url)
            except GlimpseError as error:
                failure = error
        raise failure

    async def acting_targets(self, work: Work) -> list[ConfiguredStore]:
        """The stores that it goes to, for calls about this image."""
        stores = await self.parts.stores_for(work)
        return [store for target in self.targets if (store := stores.get(target.id)) is not None]

    async def blocks(self, image: Image, reader: Reader) -> AsyncGenerator[bytes, None]:
        """The bytes of a source as they are to be stored, about 1 MiB at a time."""
        stream = reader.stream(0, None)
        if self.decompresses and image.container_format != "compressed":
            stream = decompressed(stream)
        async for block in stream:
            yield block


@dataclass(frozen=True)
class Admit:
    """Whether the project may have so much more; a reservation, where it has limits (spec 6.2)."""

    order: Order
    name = "admit"

    async def run(self, work: Work) -> None:
        parts, method = self.order.parts, self.order.request.method
        image = await parts.image(work)
        account = await parts.quotas.run(parts.quotas.account, image.owner)
        # What is decompressed or converted may become larger than it is.
        as_it_is = not self.order.decompresses and not self.order.converts
        size = image.size if method in (DIRECT, COPY) and as_it_is else None
        in_all = None if size is None else size * len(self.order.targets)
        staged = None if method == DIRECT else (image.size or 0 if method == COPY else 0)

        def admit(connection: Connection) -> Reservation | None:
            account.take_turn(connection)
            return account.admit_import(connection, work.image_id, in_all, staged)

        reservation = await parts.quotas.run(parts.quotas.write, admit)
        work.room = None if reservation is None or in_all is not None else parts.data.room(reservation)

    async def undo(self, work: Work) -> None:
        """The end of the task releases what was reserved."""


@dataclass(frozen=True)
class Describe:
    """What the record of another region's image says, for this one's."""

    order: Order
    name = "describe"

    async def run(self, work: Work) -> None:
        settings = self.order.parts.settings
        remote = await self.order.remote(work)
        found = await remote.describe(settings.formats, settings.imports.remote_properties)
        work.facts |= {
            "disk_format": found.disk_format, "container_format": found.container_format, "size": found.size,
        }  # fmt: skip
        work.properties |= found.properties

    async def undo(self, work: Work) -> None:
        """It is written at the end of the task only."""


@dataclass(frozen=True)
class Fetch:
    """Bytes into a file of this machine, for a step that cannot work on a stream."""

    order: Order
    name = "fetch"

    async def run(self, work: Work) -> None:
        parts = self.order.parts
        image = await parts.image(work)
        staged = parts.staging.file(work.image_id)
        if self.order.request.method == DIRECT and not parts.staging.is_shared and not await self._is_packed(image):
            work.file = staged
            return
        # Under the name of the task: what another one of the image has left here is not what this one wants.
        what = f"{work.task.id}.fetched"
        fetched = parts.staging.file(work.image_id, what)
        if not fetched.exists():  # else a process that died had it whole
            reader = await self.order.source(work, image)
            try:
                counted = Counted(parts.settings.image_size_cap, None, None, work.alive)
                blocks = counted.through(progress(work, "Fetched", self.order.blocks(image, reader)))
                async with contextlib.aclosing(blocks) as stream:
                    await parts.staging.keep_file(work.image_id, what, stream, None)
            finally:
                await reader.close()
        work.file = fetched

    async def _is_packed(self, image: Image) -> bool:
        if not self.order.decompresses or image.container_format == "compressed":
            return False
        reader = await self.order.parts.staging.open(image)
        try:
            return is_compressed(b"".join([block async for block in reader.stream(0, MAGIC)]))
        finally:
            await reader.close()

    async def undo(self, work: Work) -> None:
        await self.order.parts.staging.discard_made(work.image_id)


@dataclass(frozen=True)
class Convert:
    """From one disk format to another, by qemu-img."""

    order: Order
    name = "convert"

    async def run(self, work: Work) -> None:
        parts = self.order.parts
        image = await parts.image(work)
        assert work.file is not None
        target = parts.staging.file(work.image_id, f"{work.task.id}.converted")
        converted = await convert(work.file, target, image.disk_format or "", parts.settings)
        if converted.path == target:
            work.facts |= {"disk_format": converted.disk_format, "container_format": "bare"}
        work.file = converted.path

    async def undo(self, work: Work) -> None:
        await self.order.parts.staging.discard_made(work.image_id)


@dataclass(frozen=True)
class Ingest:
    """Bytes into the stores, all of them at once: counted, hashed and inspected on the way."""

    order: Order
    name = "ingest"

    async def run(self, work: Work) -> None:
        parts = self.order.parts
        image = await parts.image(work)
        try:
            await self.undo(work)  # what a process that died has left
        except Unavailable:
            if self.order.request.must_succeed:
                raise
        reader = await self._source(work, image)
        try:
            size = self._size(image, reader, work)
            for store in self.order.targets:
                self._tell_prepare(image, store)
            verifier = await self.order.verifier(work, image)
            passage = Passage(self._settings(image), image, size, self._room(work), work.alive, verifier)
            blocks = self.order.blocks(image, reader) if work.file is None else reader.stream(0, None)
            checked = self._promised(image, passage, progress(work, "Copied", blocks))
            async with contextlib.aclosing(checked) as stream:
                targets = await self.order.acting_targets(work)
                stored, failures = await put_in_all(
                    targets, work.image_id, stream, size, self.order.request.must_succeed
                )
        finally:
            await reader.close()
        if not stored:
            raise next(iter(failures.values()))
        work.failed = list(failures)
        work.leftovers -= stored.keys()
        for name, one in stored.items():
            metadata = {**one.metadata, **({"store": name} if parts.stores.multi else {})}
            work.locations.append(Location(one.url, metadata))
            work.facts |= {"size": one.size}
        if self.order.request.method != COPY:
            # The formats too: changed meanwhile, they would be those of content that nobody has looked at.
            looked_at = {"disk_format": image.disk_format, "container_format": image.container_format}
            work.facts |= passage.facts() | looked_at

    async def _source(self, work: Work, image: Image) -> Reader:
        if work.file is not None:
            return await self.order.parts.staging.open_file(work.file)
        return await self.order.source(work, image)

    def _size(self, image: Image, reader: Reader, work: Work) -> int | None:
        """How many bytes are to come; None where nobody knows."""
        if work.file is not None:
            return reader.size
        if self.order.decompresses:
            return None
        if self.order.request.method == WEB:
            return reader.size
        if image.size is not None and reader.size not in (None, image.size):
            raise Unavailable("Where the bytes are, there are not as many as the image has.")
        return image.size

    def _room(self, work: Work) -> Callable[[int], Awaitable[None]] | None:
        room, copies = work.room, len(self.order.targets)
        if room is None:
            return None

        async def for_all(size: int) -> None:
            await room(size * copies)

        return for_all

    def _settings(self, image: Image) -> Settings:
        """A copy is hashed as the image was."""
        settings, algorithm = self.order.parts.settings, image.os_hash_algo
        if self.order.request.method == COPY and algorithm and algorithm in hashlib.algorithms_guaranteed:
            return replace(settings, hashing_algorithm=algorithm)
        return settings

    async def _promised(
        self, image: Image, passage: Passage, blocks: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        """A copy has to be what the record says, before a store publishes it."""
        async for block in passage.through(blocks):
            yield block
        if self.order.request.method != COPY:
            return
        copied = passage.facts()
        hashed = ["checksum", *(["os_hash_value"] if copied["os_hash_algo"] == image.os_hash_algo else [])]
        if any((getattr(image, name) or copied[name]).lower() != copied[name] for name in hashed):
            raise Unavailable("The bytes that were read are not those of the image.")

    def _tell_prepare(self, image: Image, store: ConfiguredStore) -> None:
        backend = {"backend": store.id} if self.order.parts.stores.multi else {}
        self.order.parts.notifications.tell("image.prepare", image, **stores_of_import(image), **backend)

    async def undo(self, work: Work) -> None:
        work.leftovers = {store.id for store in self.order.targets if store.store.facts.writable}
        holding: set[str] = set()
        with contextlib.suppress(NotFound):  # deleted
            image = await self.order.parts.image(work)
            if image.status != "importing":  # what that has was refused before, or is left of the import of a Glance
                places = (self.order.parts.stores.holding(location) for location in image.locations)
                holding = {place.id for place in places if place is not None}
                # Two stores may have been given one place by mistake: the bytes in there are the image's only ones.
                urls = [location.url for location in image.locations]
                holding |= {each.id for each in self.order.targets if any(map(each.store.owns, urls))}
        work.locations.clear()
        failure: GlimpseError | None = None
        work.leftovers -= holding
        for store in await self.order.acting_targets(work):
            if store.id in work.leftovers:
                try:
                    await store.store.discard(work.image_id)
                    work.leftovers.discard(store.id)
                except GlimpseError as error:
                    failure = error
        if failure is not None:
            raise failure


async def progress(work: Work, verb: str, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, Any]:
    """The same blocks; the task's message says how many have passed."""
    size = 0
    async for block in blocks:
        size += len(block)
        work.said = f"{verb} {size // MIB} MiB"
        yield block
