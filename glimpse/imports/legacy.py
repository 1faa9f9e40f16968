"""Imports that begin with POST /v2/tasks: an image is made from a description and a place on the web (spec 1.7, 2.5).

The call is older than those on images and does the same in another way; clients that know only it still exist. The
image is there from the order on, and belongs to the task until that ends: a task that fails takes it along.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from glimpse.access.quota import Quotas
from glimpse.db import images, tasks
from glimpse.db.engine import Connection
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.formats import KNOWN
from glimpse.domain.import_request import WEB, ImportRequest
from glimpse.domain.record import Image, Task
from glimpse.domain.schema import require_storable
from glimpse.domain.tasks import IMPORT, NewTask
from glimpse.errors import BadRequest, Conflict, Forbidden, GlimpseError, Unavailable
from glimpse.images import import_lock
from glimpse.images.manage import Records
from glimpse.images.signatures import Certificate, Signatures, Uncertified, claim_of
from glimpse.images.tasks import Tasks
from glimpse.imports.convert import convert, full_disk, look_at
from glimpse.imports.engine import Engine
from glimpse.imports.image_import import CERTIFICATE
from glimpse.imports.ova import extract, look_into
from glimpse.imports.plan import Ending, Step, Work
from glimpse.imports.steps import Admit, Fetch, Ingest, Order, Parts
from glimpse.notifications import Notifications, gone, stores_of_import
from glimpse.settings import Settings
from glimpse.stores.uri_filter import UriFilter

TYPE = IMPORT
NOT_HERE = "Tasks of this type begin with a call on their image."
_NEEDED = ("import_from", "import_from_format", "image_properties")
_WITHOUT_DESCRIPTION = {"disk_format": "qcow2", "container_format": "bare"}
_PACKAGE = "ova"


@dataclass(frozen=True)
class LegacyImports:
    """The orders of POST /v2/tasks, with what they need."""

    tasks: Tasks
    records: Records
    quotas: Quotas
    filter: UriFilter
    notifications: Notifications
    engine: Engine
    signatures: Signatures

    async def order(self, context: Context, wanted: NewTask, request_id: str) -> Task:
        """Take an order; the work goes on after the call.

        A task of another type has no image that waits for it, so it fails at once, and so does one that describes no
        image that this caller may have (with Glance, a moment later). Raises `BadRequest` for a place that is not
        allowed, and for a certificate that cannot be had where the image is signed.
        """
        now = lifecycle.now()
        task = Task(
            id=str(uuid.uuid4()), type=wanted.type, status="pending", owner=context.project_id or "", created_at=now,
            updated_at=now, image_id=wanted.input.get("image_id"), request_id=request_id, user_id=context.user_id,
            input=wanted.input,
        )  # fmt: skip
        if wanted.type == IMPORT and not await self.filter.passes(wanted.input["import_from"]):
            raise BadRequest("The URI does not pass filtering: the service may not fetch from there.")
        try:
            task = await self.quotas.run(self._write, context, task, None)
        except Uncertified as unknown:
            certificate = await self.signatures.certificate(context, unknown.certificate_id)
            task = await self.quotas.run(self._write, context, task, certificate)
        if task.status == "pending":
            personal = self.records.stores.personal
            if personal:
                self.engine.lend_token(task.id, context.token)
            await self.engine.begin(task, anywhere=not personal)
        return task

    def _write(self, context: Context, task: Task, certificate: Certificate | None) -> Task:
        """The task as it is written: with its image, or failed. Raises `Uncertified` where a certificate is needed."""
        try:
            image, written = self._write_with_image(context, task, certificate)
        except Unavailable:
            raise
        except GlimpseError as error:
            failed = self.tasks.ended(task, "failure", error.message)
            self.quotas.write(lambda connection: tasks.insert(connection, failed))
            self.engine.tell_order(task, None)
            for event in ("task.failure", "task.run"):
                self.notifications.tell(event, failed)
            return failed
        self.notifications.tell("image.create", image)
        self.engine.tell_order(written, None)
        return written

    def _write_with_image(self, context: Context, task: Task, certificate: Certificate | None) -> tuple[Image, Task]:
        if task.type != IMPORT:
            raise BadRequest(NOT_HERE)
        image = self.records.described(context, _description(context, task.input or {}))
        lifecycle.check_transition(image, "importing")
        image = image.with_(status="importing")
        # A certificate is the key manager's to give, never the caller's.
        given = {name: value for name, value in (task.input or {}).items() if name != CERTIFICATE}
        if (claim := claim_of(image.properties)) is not None:
            if certificate is None:
                raise Uncertified(claim.certificate_id)
            given[CERTIFICATE] = certificate.as_json()
        written = replace(task, image_id=image.id, input=given)
        account = self.quotas.account(image.owner)

        def work(connection: Connection) -> None:
            account.take_turn(connection)
            account.check_import(connection)
            account.admit_image(connection)
            images.insert(connection, image)
            import_lock.take(connection, image, written, self.tasks)
            tasks.insert(connection, written)

        self.quotas.write(work)
        return image, written


def _description(context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """The body that would make the image. Raises `BadRequest`, `Forbidden`."""
    for name in _NEEDED:
        if name not in given:
            raise BadRequest(f"The input of the task does not have {name}.")
    described = given["image_properties"]
    if not isinstance(described, dict):
        raise BadRequest("The image_properties of the task must be an object.")
    if described.get("container_format") == _PACKAGE and not context.is_admin:
        raise Forbidden("Only admins may have packages taken apart.")
    return described or dict(_WITHOUT_DESCRIPTION)


class LegacyImport:
    """A `plan.Plan`."""

    def __init__(self, parts: Parts, task: Task) -> None:
        """The input of the task was checked when it was ordered."""
        given = task.input or {}
        self._scratch = parts.staging.scratch
        own = replace(parts, staging=self._scratch)
        request = ImportRequest(WEB, {}, uri=given["import_from"])
        signed = given.get(CERTIFICATE)
        certificate = None if signed is None else Certificate.from_json(signed)
        order = Order(own, request, [parts.stores.default], certificate)
        is_package = given["image_properties"].get("container_format") == _PACKAGE
        unpack: list[Step] = [Unpack(own)] if is_package else []
        self._steps: Sequence[Step] = [Admit(order), Fetch(order), *unpack, Shape(own), Ingest(order)]

    @property
    def steps(self) -> Sequence[Step]:
        return self._steps

    async def is_here(self) -> bool:
        return True

    def finish(self, connection: Connection, work: Work, image: Image, now: datetime) -> Ending:
        if image.status != "importing":
            raise Conflict(f"The image is {image.status} by now.")
        done = image.with_(
            status="active", locations=(*image.locations, *work.locations), updated_at=now,
            properties={**image.properties, **work.properties}, **work.facts,
        )  # fmt: skip
        images.update(connection, image, done)
        return Ending(done, [("image.upload", stores_of_import(done)), ("image.activate", {}), ("image.update", {})])

    def give_back(self, connection: Connection, work: Work, image: Image, error: GlimpseError, now: datetime) -> Ending:
        images.delete(connection, image, "deleted", now)
        return Ending(image.with_(status="deleted", updated_at=now), [("image.delete", gone(now))])

    async def clean(self, work: Work, error: GlimpseError | None) -> None:
        await self._scratch.discard(work.image_id)


@dataclass(frozen=True)
class Unpack:
    """The disk out of a package, and what the package says of its machine."""

    parts: Parts
    name = "unpack"

    async def run(self, work: Work) -> None:
        assert work.file is not None
        target = self.parts.staging.file(work.image_id, "unpacked")
        with full_disk():
            package = await asyncio.to_thread(look_into, work.file, self.parts.settings.imports.ovf_properties)
            await extract(work.file, package, target)
        require_storable(*package.properties.values())
        work.file = target
        work.properties |= package.properties
        work.facts |= {"container_format": "bare"}

    async def undo(self, work: Work) -> None:
        await self.parts.staging.discard_made(work.image_id)


@dataclass(frozen=True)
class Shape:
    """The format that the content shows becomes the image's, and then the one that the operator wants."""

    parts: Parts
    name = "shape"

    async def run(self, work: Work) -> None:
        settings, image = self.parts.settings, await self.parts.image(work)
        assert work.file is not None
        with full_disk():
            found = await asyncio.to_thread(look_at, work.file, settings.formats)
        disk_format = _named(found.disk_format, image.disk_format or "", settings)
        if wanted := settings.imports.conversion_format:
            target = self.parts.staging.file(work.image_id, "converted")
            to_wanted = replace(settings, imports=replace(settings.imports, output_format=wanted))
            found = await convert(work.file, target, disk_format, to_wanted)
            if found.path == target:
                disk_format = found.disk_format
                work.facts |= {"container_format": "bare"}
            work.file = found.path
        work.facts |= {"disk_format": disk_format}

    async def undo(self, work: Work) -> None:
        await self.parts.staging.discard_made(work.image_id)


def _named(found: str, declared: str, settings: Settings) -> str:
    """What to call content; a format that shows nothing of itself (ami, ploop) is what its owner says."""
    if found == "gpt" and declared != "gpt":
        return "raw"
    if found == "raw" and declared not in KNOWN:
        return declared
    return found if found in settings.formats.disk_formats else declared
