"""What is left of bytes on their way, by processes that were killed: a sweep removes it, and nothing else."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

import pytest

from glimpse.db import images
from glimpse.images.import_lock import LOCK
from glimpse.images.staging import SETTLED, Staging
from glimpse.settings import load
from glimpse.stores.registry import open_stores
from tests.db.opened import opened
from tests.db.test_images import THEN, image, put


@pytest.mark.parametrize("work_dir", ["staging", "tasks"])
async def test_what_a_sweep_removes(tmp_path: Path, work_dir: str) -> None:
    """Also where tasks of type import have a directory of their own."""
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        f"[DEFAULT]\nnode_staging_uri = file://{tmp_path}/staging\n[task]\nwork_dir = {tmp_path}/{work_dir}\n"
        f"[glance_store]\nfilesystem_store_datadir = {tmp_path}/images\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
    )
    settings = load(["--config-file", str(conf)])
    folders = {tmp_path / "staging", tmp_path / work_dir}
    with opened(settings.database, 2) as database:
        queued, held, importing = image(), image(), image(status="importing")
        put(database, queued, held, importing)
        database.write(lambda connection: images.set_property(connection, held.id, LOCK, "a task", THEN))
        unknown, new, foreign = str(uuid.uuid4()), str(uuid.uuid4()), "lost+found"
        kept = {importing.id, f"{importing.id}.fetched", f"{held.id}.unpacked", new, foreign}
        loud = str(uuid.uuid4()).upper()
        gone = {unknown, loud, f"{queued.id}.converted", f".{queued.id}.fetched.x.part"}
        for path in (folder / name for folder in folders for name in kept | gone):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
            changed = time.time() - (0 if path.name == new else SETTLED + 10)
            os.utime(path, (changed, changed))
        staging = Staging(settings.imports, open_stores(settings))
        assert (staging.scratch is staging) == (work_dir == "staging")
        await staging.sweep(database)
        await staging.close()
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == kept


async def test_what_is_staged_again_during_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        f"[DEFAULT]\nnode_staging_uri = file://{tmp_path}/staging\n[glance_store]\n"
        f"filesystem_store_datadir = {tmp_path}/images\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
    )
    settings = load(["--config-file", str(conf)])
    with opened(settings.database, 2) as database:
        made = [image(), image()]
        put(database, *made)
        staging = Staging(settings.imports, open_stores(settings))
        for each in made:
            staging.file(each.id).write_bytes(b"x")
            os.utime(staging.file(each.id), (0, 0))
        discard, removed = staging.discard_made, []

        async def slow(image_id: str) -> None:
            await discard(image_id)
            removed.append(image_id)
            [other] = [each.id for each in made if each.id != image_id]
            database.write(lambda c: images.set_status(c, other, "queued", "uploading", THEN))

        monkeypatch.setattr(staging, "discard_made", slow)
        await staging.sweep(database)
        await staging.close()
    assert len(removed) == 1
    assert [path.name for path in staging.directory.iterdir()] == [each.id for each in made if each.id not in removed]
