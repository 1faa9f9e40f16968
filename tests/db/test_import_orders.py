"""Orders of imports that come at the same time, on each database."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from glimpse.access.limits import SIZE_TOTAL
from glimpse.access.policy import Policy
from glimpse.access.quota import MIB, Account, Quotas
from glimpse.db import images, quota, tasks
from glimpse.db.engine import Connection, Database
from glimpse.domain.context import Context
from glimpse.domain.import_request import ImportRequest
from glimpse.domain.lifecycle import now
from glimpse.domain.record import Location, Task
from glimpse.errors import Conflict
from glimpse.images.acls import Acls
from glimpse.images.import_lock import LOCK
from glimpse.images.signatures import Signatures
from glimpse.images.staging import Staging
from glimpse.images.tasks import Tasks
from glimpse.imports.engine import Engine
from glimpse.imports.orders import Imports
from glimpse.notifications import Notifications
from glimpse.settings import load
from glimpse.stores.registry import open_stores
from glimpse.stores.uri_filter import UriFilter
from tests.db.test_images import image, put


class Limited(Quotas):
    """Every project has a limit of Keystone's."""

    def account(self, project: str | None) -> Account:
        return Account(project, 100 * MIB, 100, 100, SIZE_TOTAL, 100 * MIB)


def imports(folder: Path, database: Database) -> Imports:
    conf = folder / "glance-api.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = one:file,two:file,three:file\n[glance_store]\ndefault_backend = one\n"
        f"[database]\nconnection = sqlite:///{folder}/unused\n"
        + "".join(f"[{name}]\nfilesystem_store_datadir = {folder}/{name}\n" for name in ("one", "two", "three"))
    )
    settings = load(["--config-file", str(conf)])
    stores, policy, noted = open_stores(settings), Policy(settings.conf), Notifications(settings)
    quotas, known = Limited(database, 1, None), Tasks(settings, database, policy)
    engine = Engine(1, database, quotas, known, noted, {}, Acls(database, stores))
    return Imports(
        settings, database, policy, stores, Staging(settings.imports, stores), Signatures(settings), quotas, noted,
        known, UriFilter(settings.uri_filter), engine,
    )  # fmt: skip


def test_two_copies_of_one_image_ordered_by_two_projects(
    synced: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of them gets the lock, whenever each of them has looked at its quota."""
    orders, both = imports(tmp_path, synced), threading.Barrier(2)
    made = image(status="active", size=1, disk_format="raw", container_format="bare")
    put(synced, made)
    place = Location((tmp_path / "one" / made.id).as_uri(), {"store": "one"})
    synced.write(lambda c: images.add_location(c, made.id, place, now()))
    count = quota.used_bytes

    def counted(connection: Connection, *args: Any) -> int:
        used = count(connection, *args)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)
        return used

    monkeypatch.setattr(quota, "used_bytes", counted)

    def order(number: int) -> bool:
        project, store = (("p", "two"), ("q", "three"))[number]
        admin = Context(project_id=project, is_admin=True, roles=frozenset({"admin"}))
        body = {"method": {"name": "copy-image"}, "stores": [store]}
        task = Task(f"task-{number}", "api_image_import", "pending", project, now(), now(), made.id)
        try:
            orders._order(admin, ImportRequest.from_task(body), None, task, None, None)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        taken = list(threads.map(order, range(2)))
    assert sorted(taken) == [False, True]
    found = synced.read(lambda c: images.get(c, made.id, Context(is_admin=True)))
    assert found.properties[LOCK] == f"task-{taken.index(True)}"
    assert [synced.read(lambda c, n=n: tasks.get(c, f"task-{n}")) is not None for n in range(2)] == taken
