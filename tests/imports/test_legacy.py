"""Imports that begin with a task, in one process: what is told of them, quotas, and orders that cannot be."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glimpse.access.policy import Policy
from glimpse.access.protection import Protection
from glimpse.access.quota import Quotas
from glimpse.db.engine import Database
from glimpse.domain.context import Context
from glimpse.domain.record import Task
from glimpse.domain.schema import ImageSchema
from glimpse.domain.tasks import NewTask
from glimpse.errors import BadRequest
from glimpse.images.acls import Acls
from glimpse.images.data import ImageData
from glimpse.images.manage import Records
from glimpse.images.signatures import Certificate, Signatures
from glimpse.images.staging import Staging
from glimpse.images.tasks import Tasks
from glimpse.images.unfinished import Unfinished
from glimpse.imports import legacy
from glimpse.imports.engine import Engine
from glimpse.imports.legacy import LegacyImport, LegacyImports
from glimpse.imports.steps import Parts
from glimpse.notifications import Notifications
from glimpse.settings import Settings, load
from glimpse.stores.registry import open_stores
from glimpse.stores.uri_filter import UriFilter
from glimpse.stores.web import WebClient
from tests.db.opened import opened
from tests.journeys.signing import rsa_pss
from tests.journeys.site import Site

ADMIN = Context(user_id="u", project_id="p", is_admin=True, roles=frozenset({"admin"}))
MEMBER = Context(user_id="u", project_id="p", roles=frozenset({"member", "reader"}))
RAW = {"disk_format": "raw", "container_format": "bare"}


class Noted(Notifications):
    """Events, with the status of what they tell of."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.events: list[tuple[str, str]] = []

    def tell(self, event: str, what: Any, priority: str = "INFO", **more: Any) -> None:
        self.events.append((event, what.status))


@dataclass
class Node:
    """One process."""

    database: Database
    orders: LegacyImports
    engine: Engine
    noted: Noted
    records: Records
    quota: Quotas

    async def order(self, url: str, context: Context = ADMIN, **properties: Any) -> Task:
        """The task, when it has come to its end."""
        source = {"import_from": url, "import_from_format": "", "image_properties": {**RAW, **properties}}
        task = await self.orders.order(context, NewTask.parse({"type": "import", "input": source}), "req-1")
        while self.engine.busy:
            await asyncio.sleep(0.01)
        return self.orders.tasks.show(ADMIN, task.id)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = fs:file\nuser_storage_quota = 1000\n[glance_store]\ndefault_backend = fs\n"
        f"[fs]\nfilesystem_store_datadir = {tmp_path}/images\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
        f"[os_glance_staging_store]\nfilesystem_store_datadir = {tmp_path}/staging\n"
        f"[os_glance_tasks_store]\nfilesystem_store_datadir = {tmp_path}/tasks\n"
        "[import_filtering_opts]\nallowed_hosts = [127.0.0.1]\nallowed_ports = []\n"
    )
    return load(["--config-file", str(conf)])


async def _no_catalogue(token: str) -> list[Any]:
    return []


@pytest.fixture
async def node(settings: Settings) -> AsyncIterator[Node]:
    with opened(settings.database, 2) as database:
        stores, policy, noted = open_stores(settings), Policy(settings.conf), Noted(settings)
        quotas, web_filter = Quotas(database, settings.user_storage_quota, None), UriFilter(settings.uri_filter)
        schema = ImageSchema(settings.formats.container_formats, settings.formats.disk_formats)
        protection = Protection(settings, policy)
        records = Records(settings, database, policy, schema, protection, stores, noted, quotas)
        tasks, staging = Tasks(settings, database, policy), Staging(settings.imports, stores)
        web, signatures = WebClient(web_filter), Signatures(settings)
        unfinished = Unfinished(database, stores, noted, quotas, staging)
        data = ImageData(settings, database, policy, stores, noted, quotas, staging, signatures, unfinished)
        parts = Parts(settings, database, stores, staging, data, quotas, noted, web, _no_catalogue)
        plans = {legacy.TYPE: lambda task: LegacyImport(parts, task)}
        engine = Engine(4, database, quotas, tasks, noted, plans, Acls(database, stores))
        orders = LegacyImports(tasks, records, quotas, web_filter, noted, engine, signatures)
        yield Node(database, orders, engine, noted, records, quotas)
        await engine.stop(0)
        signatures.close()
        await web.close()
        await staging.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.stop()


async def test_what_is_told(node: Node, site: Site) -> None:
    task = await node.order(site.add(b"content"))
    assert (task.status, task.result) == ("success", {"image_id": task.image_id})
    assert node.noted.events == [
        ("image.create", "importing"), ("task.create", "pending"), ("task.processing", "processing"),
        ("image.prepare", "importing"), ("image.upload", "active"), ("image.activate", "active"),
        ("image.update", "active"), ("task.success", "success"), ("task.run", "success"),
    ]  # fmt: skip


async def test_what_is_told_of_failures(node: Node, site: Site) -> None:
    """The image that came to nothing goes, also a protected one."""
    task = await node.order(f"{site.url}/nothing", protected=True)
    assert task.status == "failure"
    assert node.noted.events[-3:] == [
        ("image.delete", "deleted"), ("task.failure", "failure"), ("task.run", "failure"),
    ]  # fmt: skip
    node.noted.events.clear()
    assert (await node.order(site.add(b"x"), disk_format="nothing")).image_id is None
    assert node.noted.events == [("task.create", "pending"), ("task.failure", "failure"), ("task.run", "failure")]


async def test_a_quota(node: Node, site: Site, tmp_path: Path) -> None:
    assert (await node.order(site.add(b"x" * 900))).status == "success"
    over = await node.order(site.add(b"x" * 200))
    assert (over.status, over.result) == ("failure", None)
    assert "limit" in over.message
    assert len(list((tmp_path / "images").iterdir())) == 1
    assert list((tmp_path / "tasks").iterdir()) == []
    assert (await node.order(site.add(b"x" * 50))).status == "success", "nothing stays reserved"


async def test_who_may(node: Node, site: Site) -> None:
    """An operator may let others use tasks: then the rules of images hold."""
    assert (await node.order(site.add(b"x"), MEMBER)).status == "success"
    for properties in ({"container_format": "ova"}, {"visibility": "public"}, {"owner": "q"}):
        assert (await node.order(site.add(b"x"), MEMBER, **properties)).status == "failure"
    with pytest.raises(BadRequest, match="filtering"):
        await node.order("http://10.0.0.1/x")


async def test_an_id_that_is_taken(node: Node, site: Site) -> None:
    first = await node.order(site.add(b"x"))
    again = await node.order(site.add(b"y"), id=first.image_id)
    assert (again.status, again.result) == ("failure", None)
    assert again.image_id is None
    assert node.records.show(ADMIN, str(first.image_id)).status == "active"


async def test_a_signed_image(node: Node, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's key manager is asked when the order is taken; here it is not there, and what it would say is."""
    signer, data, certificate_id = rsa_pss(), b"content", str(uuid.uuid4())
    asked: list[str] = []

    async def certificate(self: Signatures, context: Context, wanted: str) -> Certificate:
        asked.append(wanted)
        return Certificate(wanted, signer.der)

    monkeypatch.setattr(Signatures, "certificate", certificate)
    properties = signer.properties(data, certificate_id)
    assert (await node.order(site.add(data), **properties)).status == "success"
    assert asked == [certificate_id]
    refused = await node.order(site.add(b"CONTENT"), **properties)
    assert (refused.status, "Signature verification failed" in refused.message) == ("failure", True)
    forged = {"import_from": site.add(b"x"), "import_from_format": "", "image_properties": RAW}
    forged |= {"img_signature_certificate": Certificate(certificate_id, signer.der).as_json()}
    task = await node.orders.order(ADMIN, NewTask.parse({"type": "import", "input": forged}), "req-1")
    assert "img_signature_certificate" not in (task.input or {}), "nobody brings a certificate along"
    nonsense = await node.order(site.add(data), **{**properties, "img_signature_key_type": "none"})
    assert (nonsense.status, nonsense.image_id) == ("failure", None)
