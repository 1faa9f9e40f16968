"""Tasks of type `api_image_import`: an image on its way into stores (spec 2.3).

Whatever fails, the image ends where its owner can go on: `queued`; or `uploading` with the staged bytes kept, when they
are fine and only a store was not; an image that was copied stays `active`. The stores hold nothing that the record does
not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from glimpse.db import images
from glimpse.db.engine import Connection
from glimpse.domain import lifecycle
from glimpse.domain.import_request import COPY, DIRECT, REMOTE, ImportRequest
from glimpse.domain.lifecycle import COPY_PROPERTY, FAILED_PROPERTY, STAGE_HOST_PROPERTY
from glimpse.domain.record import Image, Task
from glimpse.errors import Conflict, GlimpseError, Gone, NotFound, StoreFull
from glimpse.images.signatures import Certificate
from glimpse.imports.plan import Ending, Step, Work
from glimpse.imports.steps import Admit, Convert, Describe, Fetch, Ingest, Order, Parts
from glimpse.notifications import stores_of_import

CERTIFICATE = "img_signature_certificate"  # in the input of a task, where the image is signed
NODE_PATIENCE = timedelta(
    seconds=45
)  # for the node that has the staged bytes, or the process that has the token, to be heard of


class ImageImport:
    """A `plan.Plan`."""

    def __init__(self, parts: Parts, task: Task) -> None:
        """The input of the task was checked when it was ordered."""
        assert task.input is not None
        self._parts = parts
        self._task = task
        self._request = ImportRequest.from_task(task.input["import_req"])
        self._ids: list[str] = [store_id or parts.stores.default.id for store_id in task.input["backend"]]
        targets = [store for store_id in self._ids if (store := parts.stores.get(store_id)) is not None]
        signed = task.input.get(CERTIFICATE)
        certificate = None if signed is None else Certificate.from_json(signed)
        order = Order(parts, self._request, targets, certificate)
        self._steps: list[Step] = [Admit(order)]
        if self._request.method == REMOTE:
            self._steps.append(Describe(order))
        if order.converts:
            self._steps += [Fetch(order), Convert(order)]
        self._steps.append(Ingest(order))

    @property
    def steps(self) -> Sequence[Step]:
        return self._steps

    async def is_here(self) -> bool:
        waited = lifecycle.now() - self._task.updated_at > NODE_PATIENCE
        if self._request.method == REMOTE:
            # While it is pending, another process has the caller's token.
            return waited or self._task.status != "pending"
        if waited or self._request.method != DIRECT or self._parts.staging.is_shared:
            return True
        return self._parts.staging.file(str(self._task.image_id)).exists()

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self, connection: Connection, work: Work, image: Image, now: datetime) -> Ending:
        copying = self._request.method == COPY
        if image.status != ("active" if copying else "importing"):
            raise Conflict(f"The image is {image.status} by now.")
        marks = self._marks(image, work.failed)
        if copying:
            done = image.with_(properties=marks, locations=(*image.locations, *work.locations), updated_at=now)
        else:
            properties = {**marks, **work.properties}
            properties.pop(STAGE_HOST_PROPERTY, None)
            image = self._without_refused(connection, image, now)
            done = image.with_(
                status="active", properties=properties, locations=tuple(work.locations), updated_at=now, **work.facts
            )
        images.update(connection, image, done)
        lists = stores_of_import(done)
        events: list[tuple[str, dict[str, Any]]] = [("image.upload", dict(lists))]
        if not copying:
            events.append(("image.activate", {}))
        return Ending(done, [*events, ("image.update", {})])

    def _without_refused(self, connection: Connection, image: Image, now: datetime) -> Image:
        """What an image has that is not active was refused (spec 2.4), or left by a Glance: it stays dead."""
        for location in image.locations:
            store = self._parts.stores.holding(location)
            # In a store that the image goes to, what was there is gone: the same place may have the new bytes.
            ours = store is not None and store.store.facts.writable and store.id not in self._ids
            images.remove_location(connection, location.id, now, "pending_delete" if ours else "deleted")
        return image.with_(locations=())

    def give_back(self, connection: Connection, work: Work, image: Image, error: GlimpseError, now: datetime) -> Ending:
        marks = self._marks(image, self._ids)
        if image.status != "importing":
            back = image.with_(properties=marks, updated_at=now)
        elif self._keeps(error):
            back = image.with_(status="uploading", properties=marks, updated_at=now)
            work.keeps_staged = True
        else:
            marks.pop(STAGE_HOST_PROPERTY, None)
            back = image.with_(status="queued", size=None, virtual_size=None, properties=marks, updated_at=now)
        images.update(connection, image, back)
        return Ending(back, [("image.update", {})])

    def _keeps(self, error: GlimpseError) -> bool:
        """Whether the staged bytes are worth another try: they are fine, and a store, or this node, was not."""
        if self._request.method != DIRECT or not self._request.must_succeed:
            return False
        return error.status >= 500 or isinstance(error, StoreFull | Gone | NotFound)

    def _marks(self, image: Image, failed: Sequence[str]) -> dict[str, str | None]:
        """The properties when this import is over: its stores are not waited for, and where it failed is told."""
        properties = dict(image.properties)
        if self._parts.stores.multi:
            going = _names(properties.get(COPY_PROPERTY))
            properties[COPY_PROPERTY] = ",".join(each for each in going if each not in self._ids)
            before = [each for each in _names(properties.get(FAILED_PROPERTY)) if each not in self._ids]
            properties[FAILED_PROPERTY] = ",".join([*before, *failed])
        return properties

    async def clean(self, work: Work, error: GlimpseError | None) -> None:
        database, staging = self._parts.database, self._parts.staging
        if work.keeps_staged:
            await staging.discard_made(work.image_id)
        # Its owner may have staged something else since the image was queued again.
        elif not await database.run(database.read, lambda c: images.is_in(c, work.image_id, "uploading")):
            await staging.discard(work.image_id)


def _names(text: str | None) -> list[str]:
    return list(filter(None, (text or "").split(",")))
