"""The step that fills the stores: what it does about stores that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from glimpse.db import images
from glimpse.db.tables import image_locations
from glimpse.domain.context import Context
from glimpse.domain.import_request import ImportRequest
from glimpse.domain.lifecycle import now
from glimpse.domain.record import Image, Location, Task
from glimpse.errors import Unavailable
from glimpse.images.leases import Leases
from glimpse.images.staging import Staging
from glimpse.imports.image_import import ImageImport
from glimpse.imports.plan import Work
from glimpse.imports.steps import Ingest, Order
from glimpse.settings import load
from glimpse.stores.registry import Stores, open_stores
from tests.db.opened import opened
from tests.db.test_images import image, put

ADMIN = Context(is_admin=True)
ROWS = sa.select(image_locations.c.value, image_locations.c.status)
WEB: Mapping[str, Any] = {"method": {"name": "web-download", "uri": "http://x"}}


class _Parts:
    """Of `steps.Parts`, what is needed to undo."""

    def __init__(self, image: Image, folder: Path) -> None:
        conf = folder / "glance-api.conf"
        conf.write_text(
            "[DEFAULT]\nenabled_backends = one:file,two:file,web:http\n[glance_store]\ndefault_backend = one\n"
            f"[one]\nfilesystem_store_datadir = {folder}/one\n[two]\nfilesystem_store_datadir = {folder}/two\n"
            f"[database]\nconnection = sqlite:///{folder}/db\n"
        )
        self.settings = load(["--config-file", str(conf)])
        self.stores = open_stores(self.settings)
        self._image = image

    async def stores_for(self, work: Work) -> Stores:
        return self.stores

    async def image(self, work: Work) -> Image:
        return self._image


def _work(image: Image) -> Work:
    task = Task("t", "api_image_import", "processing", "p", now(), now(), image.id)
    return Work(replace(task, input={"import_req": WEB, "backend": ["two"]}), image.id, Leases().take(""))


async def test_a_store_that_is_away_keeps_no_other_from_being_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_its_way = image(status="importing")
    parts: Any = _Parts(on_its_way, tmp_path)
    one, two, _ = parts.stores
    (tmp_path / "two" / on_its_way.id).write_bytes(b"left")

    async def away(image_id: str) -> None:
        await asyncio.sleep(0)
        raise Unavailable("The store does not answer in time.")

    monkeypatch.setattr(one.store, "discard", away)
    step = Ingest(Order(parts, ImportRequest.from_task(WEB), [one, two]))
    work = _work(on_its_way)
    with pytest.raises(Unavailable):
        await step.undo(work)
    assert list((tmp_path / "two").iterdir()) == []
    assert work.leftovers == {"one"}


@pytest.mark.parametrize("status", ["active", "importing"])
async def test_what_is_cleaned(tmp_path: Path, status: str) -> None:
    """Nothing where an active image is; what an import of a Glance has left in the middle goes."""
    place = tmp_path / "two" / "x"
    there = image(status=status, locations=(Location(place.as_uri(), {"store": "two"}, id=1),))
    parts: Any = _Parts(there, tmp_path)
    place = tmp_path / "two" / there.id
    place.write_bytes(b"bytes")
    await Ingest(Order(parts, ImportRequest.from_task(WEB), list(parts.stores))).undo(_work(there))
    assert place.exists() is (status == "active")


def test_places_that_an_image_had_before(tmp_path: Path) -> None:
    """Other people's are forgotten, ours are erased, but never where the new bytes are."""
    before = image(status="importing")
    parts: Any = _Parts(before, tmp_path)
    urls = ["http://127.0.0.1/x", (tmp_path / "one" / before.id).as_uri(), (tmp_path / "two" / before.id).as_uri()]
    with opened(parts.settings.database, 2) as database:
        put(database, before)
        for url in urls:
            database.write(lambda c, url=url: images.add_location(c, before.id, Location(url), now()))
        work = _work(before)
        work.locations = [Location(urls[2], {"store": "two"})]
        found = database.read(lambda c: images.from_rows(c, before.id, ADMIN))
        assert found is not None
        plan = ImageImport(parts, work.task)
        database.write(lambda c: plan.finish(c, work, found, now()))
        left = database.read(lambda c: images.from_rows(c, before.id, ADMIN))
        assert left is not None
        assert [each.url for each in left.locations] == [urls[2]]
        rows = database.read(lambda c: c.execute(ROWS).all())
    assert sorted(rows) == sorted([
        (urls[0], "deleted"), (urls[1], "pending_delete"), (urls[2], "deleted"), (urls[2], "active")
    ])  # fmt: skip


@pytest.mark.parametrize("status", ["queued", "uploading"])
async def test_what_was_staged_since_the_end_of_an_import(tmp_path: Path, status: str) -> None:
    after = image(status=status)
    parts: Any = _Parts(after, tmp_path)
    parts.staging = Staging(replace(parts.settings.imports, staging_dir=str(tmp_path / "staging")), parts.stores)
    with opened(parts.settings.database, 2) as parts.database:
        put(parts.database, after)
        work = _work(after)
        parts.staging.file(after.id).write_bytes(b"staged")
        await ImageImport(parts, work.task).clean(work, Unavailable("The other one has failed."))
        assert parts.staging.file(after.id).exists() is (status == "uploading")
    await parts.staging.close()
