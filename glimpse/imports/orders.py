"""The call that asks for an import: what is refused at once, and the task that comes of it (spec 1.3.4)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from glimpse.access.policy import Policy, require_owner
from glimpse.access.quota import Quotas
from glimpse.db import images, tasks
from glimpse.db.engine import Connection, Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.import_request import COPY, DIRECT, REMOTE, WEB, ImportRequest
from glimpse.domain.lifecycle import COPY_PROPERTY, FAILED_PROPERTY, LEASE_PROPERTY, STAGE_HOST_PROPERTY
from glimpse.domain.locations import Unmeasured
from glimpse.domain.record import Image, Task
from glimpse.errors import BadRequest, Conflict
from glimpse.images import import_lock
from glimpse.images.signatures import Certificate, Signatures, Uncertified, claim_of
from glimpse.images.staging import Staging
from glimpse.images.tasks import Tasks
from glimpse.imports.engine import Engine
from glimpse.imports.image_import import CERTIFICATE
from glimpse.notifications import Notifications
from glimpse.settings import Settings
from glimpse.stores.registry import Stores
from glimpse.stores.uri_filter import UriFilter

TYPE = "api_image_import"
# The status that an image must have for a method.
_FROM = {DIRECT: "uploading", WEB: "queued", REMOTE: "queued", COPY: "active"}


class Elsewhere(Exception):
    """Another node has the staged bytes: it has to be asked."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


class _NothingToDo(Exception):
    """The image is in all stores already."""


@dataclass(frozen=True)
class Imports:
    """The call, with what it needs."""

    settings: Settings
    database: Database
    policy: Policy
    stores: Stores
    staging: Staging
    signatures: Signatures
    quotas: Quotas
    notifications: Notifications
    tasks: Tasks
    filter: UriFilter
    engine: Engine

    async def order(
        self, context: Context, image_id: str, request: ImportRequest, header: str | None, request_id: str
    ) -> None:
        """Have an image imported; the work goes on after the call. `header` names a store beside the request.

        Raises `NotFound`, `Conflict` (its state, or something else is going on), `Forbidden`, `BadRequest`, `TooLarge`,
        `Elsewhere`, `Unavailable` (the key manager).
        """
        task = _task(context, image_id, request, request_id)
        passes: bool | None = None
        certificate: Certificate | None = None
        while True:
            try:
                ordered = await self.quotas.run(self._order, context, request, header, task, passes, certificate)
                break
            except Unmeasured:
                passes = await self.filter.passes(request.uri)
            except Uncertified as unknown:
                # Now, as the caller: whoever does the work later has no token.
                certificate = await self.signatures.certificate(context, unknown.certificate_id)
        if ordered is not None:
            # A caller's token stays in this process, and so does work that needs it, or needs this node's files.
            needs_token = request.method == REMOTE or self.stores.personal
            here = needs_token or (request.method == DIRECT and not self.staging.is_shared)
            if needs_token:
                self.engine.lend_token(task.id, context.token)
            await self.engine.begin(ordered, anywhere=not here)

    def _order(
        self,
        context: Context,
        request: ImportRequest,
        header: str | None,
        task: Task,
        passes: bool | None,
        certificate: Certificate | None,
    ) -> Task | None:
        """The task as it was written, None where there is nothing to do.

        `passes` is what the filter says of the URI; raises `Unmeasured` where that is asked for and not known yet, and
        `Uncertified` where a `certificate` is.
        """
        image_id = str(task.image_id)
        account = self.quotas.account(context.project_id)

        def work(connection: Connection) -> tuple[Image, Task, Task | None]:
            account.take_turn(connection)
            image = images.get(connection, image_id, context, lock=True)
            account.check_import(connection)
            _check_state(image, request)
            if request.method == COPY:
                self.policy.require_for_image("copy_image", context, image)
            else:
                self.policy.require_for_image("modify_image", context, image)
                require_owner(context, image)
            given_up = import_lock.take(connection, image, task, self.tasks)
            image = images.get(connection, image_id, context, lock=True)
            targets = self._targets(image, request, header)
            self._check_source(request, image, passes)
            claim = None if request.method == COPY else claim_of(image.properties)
            if claim is not None and (certificate is None or certificate.id != claim.certificate_id):
                raise Uncertified(claim.certificate_id)
            marked = self._marked(image, request, targets, task, context)
            images.update(connection, image, marked)
            backend = targets if self.stores.multi else [None]
            written = _with_input(task, request, backend, None if claim is None else certificate)
            tasks.insert(connection, written)
            return marked, written, given_up

        try:
            image, written, given_up = self.quotas.write(work)
        except _NothingToDo:
            return None
        self.notifications.tell("image.update", image)
        self.engine.tell_order(written, given_up)
        return written

    def _targets(self, image: Image, request: ImportRequest, header: str | None) -> list[str]:
        """The ids of the stores that the image goes to, without those that hold it already."""
        if not self.stores.multi:
            if request.stores is not None or request.all_stores or not request.must_succeed:
                raise BadRequest("This service has a single store without a name: no stores can be chosen.")
            return [self.stores.default.id]
        wanted = self._wanted(request, header)
        if request.method != COPY:
            return wanted
        holding = {store.id for location in image.locations if (store := self.stores.holding(location)) is not None}
        if request.all_stores:
            wanted = [each for each in wanted if each not in holding]
            if not wanted:
                raise _NothingToDo
            return wanted
        for each in wanted:
            if each in holding:
                raise BadRequest(f"The image is in store {each} already.")
        return wanted

    def _wanted(self, request: ImportRequest, header: str | None) -> list[str]:
        if request.all_stores:
            if request.stores is not None or header:
                raise BadRequest("Either all stores are chosen, or some of them are named: not both.")
            return [each.id for each in self.stores if each.store.facts.writable]
        if request.stores is not None and header:
            raise BadRequest("The stores are named in the body, or one in the header x-image-meta-store: not both.")
        wanted = list(request.stores or ([header] if header else [self.stores.default.id]))
        for each in wanted:
            if self.stores.get(each) is None:
                raise Conflict(f"Store {each[:64]!r} is not configured; known are {', '.join(self.stores.ids)}")
        return wanted

    def _check_source(self, request: ImportRequest, image: Image, passes: bool | None) -> None:
        if request.method == WEB:
            if request.uri and passes is None:
                raise Unmeasured([request.uri])
            if not passes:
                # Clients look for the words about filtering.
                raise BadRequest("The URI does not pass filtering: the service may not fetch from there.")
        host = image.properties.get(STAGE_HOST_PROPERTY)
        if request.method == DIRECT and host and host != self.settings.imports.self_url and not self.staging.is_shared:
            raise Elsewhere(host)

    def _marked(self, image: Image, request: ImportRequest, targets: list[str], task: Task, context: Context) -> Image:
        """The image as it is while it is imported, with what the operator injects (spec 5.5)."""
        options = self.settings.imports
        properties = dict(image.properties)
        injects = "inject_image_metadata" in options.plugins and request.method != COPY
        if injects and options.inject_not_for.isdisjoint(context.roles):
            properties |= options.inject
        if self.stores.multi:
            going = _names(properties.get(COPY_PROPERTY))
            properties[COPY_PROPERTY] = ",".join([*going, *(each for each in targets if each not in going)])
            failed = [each for each in _names(properties.get(FAILED_PROPERTY)) if each not in targets]
            properties[FAILED_PROPERTY] = ",".join(failed)
        status = image.status if request.method == COPY else "importing"
        return image.with_(properties=properties, status=status, updated_at=task.created_at)


def _check_state(image: Image, request: ImportRequest) -> None:
    """Raise `Conflict` where the image is not ready for the method, `BadRequest` for a bad name of a remote image."""
    wanted = _FROM[request.method]
    if image.status != wanted:
        raise Conflict(f"{request.method} needs an image that is {wanted}, and this one is {image.status}.")
    if LEASE_PROPERTY in image.properties:
        raise Conflict("The image's bytes are still being staged.")
    for name in ("container_format", "disk_format"):
        if getattr(image, name) is None:
            raise Conflict(f"'{name}' needs to be set before an import.")
    if request.method == REMOTE:
        request.check_remote()


def _task(context: Context, image_id: str, request: ImportRequest, request_id: str) -> Task:
    now = lifecycle.now()
    return Task(
        id=str(uuid.uuid4()), type=TYPE, status="pending", owner=context.project_id or "", created_at=now,
        updated_at=now, image_id=image_id, request_id=request_id, user_id=context.user_id,
    )  # fmt: skip


def _with_input(task: Task, request: ImportRequest, backend: list[Any], certificate: Certificate | None) -> Task:
    values: dict[str, Any] = {"image_id": task.image_id, "import_req": request.body, "backend": backend}
    if certificate is not None:
        values[CERTIFICATE] = certificate.as_json()
    return replace(task, input=values)


def _names(text: str | None) -> list[str]:
    return list(filter(None, (text or "").split(",")))
