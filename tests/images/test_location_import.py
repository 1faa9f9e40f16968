"""Places that are looked at after the call: locks, leases and what becomes of the work of others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from glimpse.access.policy import Policy
from glimpse.access.quota import Quotas
from glimpse.db import images, tasks
from glimpse.db.engine import Connection
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import LOCATION_LEASE_PROPERTY
from glimpse.domain.locations import NewLocation
from glimpse.domain.record import Image, Task
from glimpse.errors import Conflict
from glimpse.images.import_lock import LOCK
from glimpse.images.leases import STALE, Leases, this_process
from glimpse.images.location_import import LocationImport
from glimpse.images.locations import Locations
from glimpse.images.scrub import Scrubber
from glimpse.images.tasks import Tasks
from glimpse.notifications import Notifications
from glimpse.settings import Settings, load
from glimpse.stores.registry import open_stores
from glimpse.stores.uri_filter import UriFilter
from tests.db.opened import opened
from tests.journeys.site import Site

ADMIN = Context(project_id="p", is_admin=True, roles=frozenset({"admin", "service"}))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    conf = tmp_path / "glance-api.conf"
    conf.write_text(
        "[DEFAULT]\nenabled_backends = fs:file,web:http\nhttp_retries = 0\n[glance_store]\ndefault_backend = fs\n"
        f"[fs]\nfilesystem_store_datadir = {tmp_path}/images\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
        "[import_filtering_opts]\nallowed_hosts = [127.0.0.1]\nallowed_ports = []\n"
    )
    return load(["--config-file", str(conf)])


@pytest.fixture
async def imports(settings: Settings) -> AsyncIterator[LocationImport]:
    with opened(settings.database, 2) as database:
        stores, policy = open_stores(settings), Policy(settings.conf)
        notifications, quotas = Notifications(settings), Quotas(database, 0, None)
        places = Locations(
            settings, database, policy, stores, Scrubber(settings, database, stores), notifications,
            UriFilter(settings.uri_filter),
        )  # fmt: skip
        image_tasks = Tasks(settings, database, policy)
        made = LocationImport(settings, database, policy, stores, places, image_tasks, quotas, notifications)
        yield made
        await made.stop()
        await stores.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.stop()


def queued(imports: LocationImport) -> str:
    now = lifecycle.now()
    image = Image(
        str(uuid.uuid4()), "queued", "shared", now, now, owner="p", disk_format="raw", container_format="bare"
    )
    imports.database.write(lambda connection: images.insert(connection, image))
    return image.id


def found(imports: LocationImport, image_id: str) -> Image:
    return imports.database.read(lambda connection: images.get(connection, image_id, ADMIN))


def only_task(imports: LocationImport, image_id: str) -> Task:
    [task] = imports.tasks.find(ADMIN, image_id)
    return task


async def finished(imports: LocationImport) -> None:
    while imports.running:
        await asyncio.gather(*imports.running)


def locked(imports: LocationImport, image_id: str, status: str, age: timedelta) -> Task:
    """A task of somebody else, last heard of so long ago, holds the image."""
    then = lifecycle.now() - age
    task = Task(str(uuid.uuid4()), "api_image_import", status, "p", then, then, image_id, input={"backend": ["fs"]})
    properties = {LOCK: task.id, "os_glance_importing_to_stores": "fs,web", "os_glance_failed_import": ""}

    def work(connection: Connection) -> None:
        tasks.insert(connection, task)
        for name, value in properties.items():
            images.set_property(connection, image_id, name, value, then)

    imports.database.write(work)
    return task


@pytest.mark.parametrize(
    ("status", "minutes", "holds"),
    [
        ("processing", 59, True),
        ("processing", 61, False),
        ("pending", 61, True),
        ("pending", 121, False),
        ("success", 59, True),
        ("failure", 61, False),
    ],
)
async def test_the_lock_of_another_task(
    imports: LocationImport, site: Site, status: str, minutes: int, holds: bool
) -> None:
    image_id = queued(imports)
    other = locked(imports, image_id, status, timedelta(minutes=minutes))
    order = imports.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    if holds:
        with pytest.raises(Conflict):
            await order
        assert found(imports, image_id).properties[LOCK] == other.id
        assert only_task(imports, image_id) == other
        return
    await order
    await finished(imports)
    image = found(imports, image_id)
    assert (image.status, image.properties) == (
        "active", {"os_glance_importing_to_stores": "web", "os_glance_failed_import": ""},
    )  # fmt: skip
    old = imports.database.read(lambda connection: tasks.get(connection, other.id))
    assert old is not None
    expected = ("failure", "Expired lock preempted") if status in ("pending", "processing") else (status, "")
    assert (old.status, old.message) == expected


async def test_the_lock_of_a_task_that_is_gone(imports: LocationImport, site: Site) -> None:
    image_id = queued(imports)
    imports.database.write(lambda c: images.set_property(c, image_id, LOCK, "nothing", lifecycle.now()))
    await imports.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    await finished(imports)
    assert found(imports, image_id).status == "active"


async def test_bytes_that_never_come(imports: LocationImport, site: Site) -> None:
    """An image that is active stays so, without a hash; one that waits for it goes back."""

    def refuse(path: str) -> None:
        raise ConnectionResetError

    site.before = refuse
    url, plain, promised = site.add(b"content"), queued(imports), queued(imports)
    await imports.add(ADMIN, plain, NewLocation(url), "req-1")
    await imports.add(ADMIN, promised, NewLocation(url, "md5", hashlib.md5(b"content").hexdigest()), "req-2")
    await finished(imports)
    image = found(imports, plain)
    assert (image.status, image.size, image.os_hash_value) == ("active", 7, None)
    assert only_task(imports, plain).status == "success"
    image = found(imports, promised)
    assert (image.status, image.size, image.properties) == ("queued", None, {})
    assert only_task(imports, promised).status == "failure"


async def test_bytes_that_change_between_two_looks(imports: LocationImport, site: Site) -> None:
    url, image_id = site.add(b"content"), queued(imports)
    path = url.removeprefix(site.url)

    def grow(asked: str) -> None:
        site.pages[path] += b"more"

    site.before_head = grow
    await imports.add(ADMIN, image_id, NewLocation(url, "md5", hashlib.md5(b"contentmoremore").hexdigest()), "req-1")
    await finished(imports)
    assert found(imports, image_id).status == "queued"


async def left_by_another(imports: LocationImport, url: str, machine: str, age: int, text: str | None = None) -> str:
    """An order whose process, there, was last heard of so many seconds ago; with that text as its lease."""
    image_id, now = queued(imports), lifecycle.now()
    task = Task(
        str(uuid.uuid4()), "location_import", "processing", "p", now, now, image_id,
        input={"image_id": image_id, "loc_url": url, "validation_data": {}},
    )  # fmt: skip
    lease = Leases().take("")
    lease = replace(lease, process=replace(this_process(), host=machine, pid=lease.process.pid + 1))
    imports.database.write(lambda c: tasks.insert(c, task))
    imports.database.write(lambda c: images.set_property(c, image_id, LOCK, task.id, now))
    renewed = now - timedelta(seconds=age)
    imports.database.write(
        lambda c: images.set_property(c, image_id, LOCATION_LEASE_PROPERTY, text or lease.text(), renewed)
    )
    return image_id


async def test_work_of_another_machine_is_left_alone_while_it_lives(imports: LocationImport, site: Site) -> None:
    url = site.add(b"content")
    alive = await left_by_another(imports, url, "elsewhere", STALE - 10)
    dead = await left_by_another(imports, url, "elsewhere", STALE + 10)
    await imports.resume()
    await finished(imports)
    assert (found(imports, alive).status, found(imports, dead).status) == ("queued", "active")
    assert only_task(imports, dead).status == "success"
    assert only_task(imports, alive).status == "processing"


async def test_one_of_two_takes_it_up(imports: LocationImport, site: Site) -> None:
    image_id = await left_by_another(imports, site.add(b"content"), "elsewhere", STALE + 10)
    other = replace(imports, leases=Leases(), running=set())
    await asyncio.gather(imports.resume(), other.resume())
    await asyncio.gather(finished(imports), finished(other))
    image = found(imports, image_id)
    assert (image.status, len(image.locations), image.properties) == ("active", 1, {})


async def test_whoever_lost_the_lease_changes_nothing(imports: LocationImport, site: Site) -> None:
    image_id = await left_by_another(imports, site.add(b"content"), "elsewhere", 0)
    task, stranger = only_task(imports, image_id), imports.leases.take("")
    await imports._work(image_id, task.id, stranger)
    assert found(imports, image_id).status == "queued"
    assert only_task(imports, image_id) == task


@pytest.mark.parametrize("text", ["nonsense", json.dumps({"process": {}})])
async def test_leases_that_nobody_understands_are_dead(imports: LocationImport, site: Site, text: str) -> None:
    image_id = await left_by_another(imports, site.add(b"content"), "elsewhere", 0, text)
    await imports.resume()
    await finished(imports)
    image = found(imports, image_id)
    assert (image.status, image.properties) == ("active", {})


async def test_an_older_task_of_the_same_image_is_not_begun_again(imports: LocationImport, site: Site) -> None:
    """Glance never ends what was cut off; only the task that holds the image counts."""
    image_id = await left_by_another(imports, site.add(b"content"), "elsewhere", STALE + 10)
    [task] = imports.tasks.find(ADMIN, image_id)
    older = replace(task, id=str(uuid.uuid4()), input={**(task.input or {}), "loc_url": site.add(b"older")})
    imports.database.write(lambda c: tasks.insert(c, older))
    await imports.resume()
    await finished(imports)
    assert found(imports, image_id).size == len(b"content")
    assert {each.id: each.status for each in imports.tasks.find(ADMIN, image_id)} == {
        task.id: "success", older.id: "processing",
    }  # fmt: skip


async def test_so_many_at_once(imports: LocationImport, site: Site) -> None:
    narrow = replace(imports, slots=asyncio.Semaphore(2), running=set())
    reading: list[int] = []
    most = 0

    def read(path: str) -> None:
        nonlocal most
        reading.append(1)
        most = max(most, len(reading))
        time.sleep(0.05)
        reading.pop()

    site.before = read
    made = [queued(narrow) for _ in range(6)]
    for image_id in made:
        await narrow.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    await finished(narrow)
    assert most == 2
    assert all(found(narrow, image_id).os_hash_value for image_id in made)


async def test_a_quota_of_none(imports: LocationImport, site: Site) -> None:
    strict = replace(imports, settings=replace(imports.settings, image_location_quota=0), running=set())
    image_id = queued(imports)
    await strict.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    await finished(strict)
    assert (found(imports, image_id).status, only_task(imports, image_id).status) == ("queued", "failure")
