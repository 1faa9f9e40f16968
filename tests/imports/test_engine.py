"""Tasks of the engine, seen with locations: locks, leases and what becomes of the work of others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from glimpse.access.policy import Policy
from glimpse.access.quota import Quotas
from glimpse.db import images, scrub, tasks
from glimpse.db.engine import Connection, Database
from glimpse.db.scrub import Deadlines
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.lifecycle import TASK_LEASE_PROPERTY
from glimpse.domain.locations import NewLocation
from glimpse.domain.record import Image, Task
from glimpse.errors import Conflict, GlimpseError, Unavailable
from glimpse.images.acls import Acls
from glimpse.images.import_lock import LOCK
from glimpse.images.leases import Leases, this_process
from glimpse.images.locations import Locations
from glimpse.images.scrub import Scrubber
from glimpse.images.tasks import Tasks
from glimpse.imports import claims, location, working
from glimpse.imports.engine import Engine
from glimpse.imports.location import LocationImport, LocationOrders, LocationParts
from glimpse.imports.plan import Ending, Work
from glimpse.notifications import Notifications
from glimpse.settings import Settings, load
from glimpse.stores.registry import open_stores
from glimpse.stores.uri_filter import UriFilter
from tests.db.opened import opened
from tests.journeys.site import Site

HERE = socket.gethostname()
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


@dataclass
class Node:
    """What one process has of it, on the database of all."""

    settings: Settings
    database: Database
    tasks: Tasks
    engine: Engine
    orders: LocationOrders

    def again(self, at_once: int = 16, **changes: Any) -> Node:
        """Another process, with other settings perhaps."""
        return node(replace(self.settings, **changes), self.database, at_once)

    async def finished(self) -> None:
        while self.engine.busy:
            await asyncio.sleep(0.01)


def node(settings: Settings, database: Database, at_once: int = 16) -> Node:
    stores, policy = open_stores(settings), Policy(settings.conf)
    notifications, quotas = Notifications(settings), Quotas(database, 0, None)
    scrubber, web_filter = Scrubber(settings, database, stores), UriFilter(settings.uri_filter)
    places = Locations(settings, database, policy, stores, scrubber, notifications, web_filter)
    image_tasks = Tasks(settings, database, policy)
    parts = LocationParts(settings, database, stores, places, quotas, notifications)
    plans = {location.TYPE: lambda task: LocationImport(parts, task)}
    engine = Engine(at_once, database, quotas, image_tasks, notifications, plans, Acls(database, stores))
    orders = LocationOrders(database, policy, stores, places, image_tasks, engine)
    return Node(settings, database, image_tasks, engine, orders)


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Node]:
    with opened(settings.database, 2) as database:
        made = node(settings, database)
        yield made
        await made.engine.stop(0)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.stop()


def queued(here: Node) -> str:
    now = lifecycle.now()
    image = Image(
        str(uuid.uuid4()), "queued", "shared", now, now, owner="p", disk_format="raw", container_format="bare"
    )
    here.database.write(lambda connection: images.insert(connection, image))
    return image.id


def found(here: Node, image_id: str) -> Image:
    return here.database.read(lambda connection: images.get(connection, image_id, ADMIN))


def only_task(here: Node, image_id: str) -> Task:
    [task] = here.tasks.find(ADMIN, image_id)
    return task


def locked(here: Node, image_id: str, status: str, age: timedelta) -> Task:
    """A task of somebody else, last heard of so long ago, holds the image."""
    then = lifecycle.now() - age
    task = Task(str(uuid.uuid4()), "api_image_import", status, "p", then, then, image_id, input={"backend": ["fs"]})
    properties = {LOCK: task.id, "os_glance_importing_to_stores": "fs,web", "os_glance_failed_import": ""}

    def work(connection: Connection) -> None:
        tasks.insert(connection, task)
        for name, value in properties.items():
            images.set_property(connection, image_id, name, value, then)

    here.database.write(work)
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
async def test_the_lock_of_another_task(here: Node, site: Site, status: str, minutes: int, holds: bool) -> None:
    image_id = queued(here)
    other = locked(here, image_id, status, timedelta(minutes=minutes))
    order = here.orders.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    if holds:
        with pytest.raises(Conflict):
            await order
        assert found(here, image_id).properties[LOCK] == other.id
        assert only_task(here, image_id) == other
        return
    await order
    await here.finished()
    image = found(here, image_id)
    assert (image.status, image.properties) == (
        "active", {"os_glance_importing_to_stores": "web", "os_glance_failed_import": ""},
    )  # fmt: skip
    old = here.database.read(lambda connection: tasks.get(connection, other.id))
    assert old is not None
    expected = ("failure", "Expired lock preempted") if status in ("pending", "processing") else (status, "")
    assert (old.status, old.message) == expected


async def test_the_lock_of_a_task_that_is_gone(here: Node, site: Site) -> None:
    image_id = queued(here)
    here.database.write(lambda c: images.set_property(c, image_id, LOCK, "nothing", lifecycle.now()))
    await here.orders.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    await here.finished()
    assert found(here, image_id).status == "active"


async def test_bytes_that_never_come(here: Node, site: Site) -> None:
    """An image that is active stays so, without a hash; one that waits for it goes back."""

    def refuse(path: str) -> None:
        raise ConnectionResetError

    site.before = refuse
    url, plain, promised = site.add(b"content"), queued(here), queued(here)
    await here.orders.add(ADMIN, plain, NewLocation(url), "req-1")
    await here.orders.add(ADMIN, promised, NewLocation(url, "md5", hashlib.md5(b"content").hexdigest()), "req-2")
    await here.finished()
    image = found(here, plain)
    assert (image.status, image.size, image.os_hash_value) == ("active", 7, None)
    assert only_task(here, plain).status == "success"
    image = found(here, promised)
    assert (image.status, image.size, image.properties) == ("queued", None, {})
    assert only_task(here, promised).status == "failure"


async def test_bytes_that_change_between_two_looks(here: Node, site: Site) -> None:
    url, image_id = site.add(b"content"), queued(here)
    path = url.removeprefix(site.url)

    def grow(asked: str) -> None:
        site.pages[path] += b"more"

    site.before_head = grow
    promised = hashlib.md5(b"contentmoremore").hexdigest()
    await here.orders.add(ADMIN, image_id, NewLocation(url, "md5", promised), "req-1")
    await here.finished()
    assert found(here, image_id).status == "queued"


async def left_by_another(here: Node, url: str, machine: str, age: int, text: str | None = None) -> str:
    """An order whose process, there, was last heard of so many seconds ago; with that text as its lease."""
    image_id, now = queued(here), lifecycle.now()
    task = Task(
        str(uuid.uuid4()), "location_import", "processing", "p", now, now, image_id,
        input={"image_id": image_id, "loc_url": url, "validation_data": {}},
    )  # fmt: skip
    lease = Leases().take("")
    lease = replace(lease, process=replace(this_process(), host=machine, started="0"))
    here.database.write(lambda c: tasks.insert(c, task))
    here.database.write(lambda c: images.set_property(c, image_id, LOCK, task.id, now))
    renewed = now - timedelta(seconds=age)
    here.database.write(lambda c: images.set_property(c, image_id, TASK_LEASE_PROPERTY, text or lease.text(), renewed))
    return image_id


async def test_work_of_another_machine_is_left_alone_while_it_lives(
    here: Node, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is that a lease is seen to change, by the own clock: clocks of machines differ."""
    monkeypatch.setattr(claims, "STALE", 0.2)
    url = site.add(b"content")
    alive = await left_by_another(here, url, "elsewhere", 3600)
    dead = await left_by_another(here, url, "elsewhere", -3600)
    for _ in range(3):
        await here.engine.look()
        await asyncio.sleep(0.15)
        now = lifecycle.now() + timedelta(seconds=_)
        text = found(here, alive).properties[TASK_LEASE_PROPERTY]
        here.database.write(lambda c: images.set_property(c, alive, TASK_LEASE_PROPERTY, text, now))  # noqa: B023
    await here.finished()
    assert (found(here, alive).status, found(here, dead).status) == ("queued", "active")
    assert only_task(here, dead).status == "success"
    assert only_task(here, alive).status == "processing"


async def test_one_of_two_takes_it_up(here: Node, site: Site) -> None:
    image_id = await left_by_another(here, site.add(b"content"), HERE, 10)
    other = here.again()
    await asyncio.gather(here.engine.look(), other.engine.look())
    await asyncio.gather(here.finished(), other.finished())
    image = found(here, image_id)
    assert (image.status, len(image.locations), image.properties) == ("active", 1, {})


async def test_whoever_lost_the_lease_changes_nothing(here: Node, site: Site) -> None:
    image_id = await left_by_another(here, site.add(b"content"), "elsewhere", 0)
    task = only_task(here, image_id)
    await here.engine._work(task, Leases().take(""))
    assert found(here, image_id).status == "queued"
    assert only_task(here, image_id) == task


@pytest.mark.parametrize("text", ["nonsense", json.dumps({"process": {}})])
async def test_leases_that_nobody_understands_are_dead(here: Node, site: Site, text: str) -> None:
    image_id = await left_by_another(here, site.add(b"content"), "elsewhere", 0, text)
    await here.engine.look()
    await here.finished()
    image = found(here, image_id)
    assert (image.status, image.properties) == ("active", {})


@dataclass
class Broken:
    """A plan whose only step fails, and cannot be undone, as a store is away."""

    task: Task
    name: str = "broken"
    tries: int = 0

    @property
    def steps(self) -> list[Broken]:
        return [self]

    async def is_here(self) -> bool:
        return True

    async def run(self, work: Work) -> None:
        raise Unavailable("The store does not answer.")

    async def undo(self, work: Work) -> None:
        self.tries += 1
        work.leftovers = {"fs"}
        raise Unavailable("The store does not answer.")

    def finish(self, connection: Connection, work: Work, image: Image, now: datetime) -> Ending:
        raise AssertionError

    def give_back(self, connection: Connection, work: Work, image: Image, error: GlimpseError, now: datetime) -> Ending:
        return Ending(None)

    async def clean(self, work: Work, error: GlimpseError | None) -> None:
        pass


async def test_a_store_that_stays_away_keeps_nobody_waiting(here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task ends, the image is free, and what the store may hold is for the scrubber."""
    monkeypatch.setattr(working, "UNDO_PAUSES", (0.01, 0.01))
    image_id, now = queued(here), lifecycle.now()
    task = Task(str(uuid.uuid4()), location.TYPE, "pending", "p", now, now, image_id)
    plan = Broken(task)
    here.engine._plans = {location.TYPE: lambda task: plan}
    here.database.write(lambda c: tasks.insert(c, task))
    here.database.write(lambda c: images.set_property(c, image_id, LOCK, task.id, now))
    await here.engine.begin(task)
    await here.finished()
    ended = only_task(here, image_id)
    assert (ended.status, ended.message, plan.tries) == ("failure", "The store does not answer.", 3)
    assert found(here, image_id).properties == {}
    later = lifecycle.now() + timedelta(hours=1)
    [waiting] = here.database.read(lambda c: scrub.due(c, Deadlines(later, later, later), later))
    assert (waiting.image_id, waiting.location.metadata) == (image_id, {"store": "fs"})


async def test_an_older_task_of_the_same_image_is_not_begun_again(here: Node, site: Site) -> None:
    """Glance never ends what was cut off; only the task that holds the image counts."""
    image_id = await left_by_another(here, site.add(b"content"), HERE, 10)
    [task] = here.tasks.find(ADMIN, image_id)
    older = replace(task, id=str(uuid.uuid4()), input={**(task.input or {}), "loc_url": site.add(b"older")})
    here.database.write(lambda c: tasks.insert(c, older))
    await here.engine.look()
    await here.finished()
    assert found(here, image_id).size == len(b"content")
    assert {each.id: each.status for each in here.tasks.find(ADMIN, image_id)} == {
        task.id: "success", older.id: "processing",
    }  # fmt: skip


async def test_so_many_at_once(here: Node, site: Site) -> None:
    narrow = here.again(at_once=2)
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
        await narrow.orders.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    await narrow.finished()
    assert most == 2
    assert all(found(narrow, image_id).os_hash_value for image_id in made)


async def test_a_quota_of_none(here: Node, site: Site) -> None:
    strict = here.again(image_location_quota=0)
    image_id = queued(here)
    await strict.orders.add(ADMIN, image_id, NewLocation(site.add(b"content")), "req-1")
    await strict.finished()
    assert (found(here, image_id).status, only_task(here, image_id).status) == ("queued", "failure")


async def test_a_task_without_a_lease_is_a_running_glance_s(here: Node, site: Site) -> None:
    """Until its lock may be broken by anybody."""
    made = {}
    for minutes in (59, 61):
        image_id = await left_by_another(here, site.add(b"content"), HERE, 10)
        text, then = found(here, image_id).properties[TASK_LEASE_PROPERTY], lifecycle.now() - timedelta(minutes=minutes)
        here.database.write(lambda c: images.drop_property(c, image_id, TASK_LEASE_PROPERTY, text))  # noqa: B023
        task = only_task(here, image_id)
        here.database.write(lambda c: tasks.report(c, task.id, "", then))  # noqa: B023
        made[minutes] = image_id
    await here.engine.look()
    await here.finished()
    assert {minutes: found(here, image_id).status for minutes, image_id in made.items()} == {59: "queued", 61: "active"}


async def test_one_task_that_makes_no_sense_keeps_no_other_waiting(here: Node, site: Site) -> None:
    first, last = queued(here), queued(here)
    for image_id in (first, last):
        task = replace(locked(here, image_id, "failure", timedelta()), id=str(uuid.uuid4()), status="processing")
        task = replace(task, type="location_import", input={"loc_url": site.add(b"x"), "validation_data": "what?"})
        text = replace(Leases().take(""), process=replace(this_process(), started="0")).text()
        here.database.write(lambda c: tasks.insert(c, task))  # noqa: B023
        for name, value in ((LOCK, task.id), (TASK_LEASE_PROPERTY, text)):
            here.database.write(lambda c: images.set_property(c, image_id, name, value, task.created_at))  # noqa: B023
    fine = await left_by_another(here, site.add(b"content"), HERE, 10)
    await here.engine.look()
    await here.finished()
    assert found(here, fine).status == "active"
    assert (found(here, first).status, found(here, last).status) == ("queued", "queued")


async def test_whoever_lost_the_lease_removes_nothing(here: Node, site: Site) -> None:
    """What is there belongs to the process that has the task now, even if that has not been noticed yet."""
    image_id = await left_by_another(here, site.add(b"content"), HERE, 10)
    removed: list[str] = []

    class Failing:
        name = "fail"

        async def run(self, work: Work) -> None:
            text, now = work.lease.text(), lifecycle.now()
            here.database.write(
                lambda c: images.replace_property(c, image_id, TASK_LEASE_PROPERTY, text, "another", now)
            )
            raise Conflict("The store holds data for this image already.")

        async def undo(self, work: Work) -> None:
            removed.append(work.image_id)

    class Failed(LocationImport):
        def __post_init__(self) -> None:
            object.__setattr__(self, "steps", (Failing(),))

    plans = {location.TYPE: lambda task: Failed(None, task)}  # type: ignore[arg-type]
    unlucky = Engine(
        1, here.database, Quotas(here.database, 0, None), here.tasks, Notifications(here.settings), plans,
        Acls(here.database, open_stores(here.settings)),
    )  # fmt: skip
    await unlucky.look()
    while unlucky.busy:
        await asyncio.sleep(0.01)
    assert removed == []
    assert found(here, image_id).properties[TASK_LEASE_PROPERTY] == "another"
    assert only_task(here, image_id).status == "processing"


@pytest.mark.parametrize("anywhere", [True, False])
async def test_what_waits_for_room_where_it_has_to_be_done(here: Node, site: Site, anywhere: bool) -> None:
    narrow, go = here.again(at_once=1), threading.Event()
    site.before = lambda path: go.wait(20)
    first, second = queued(here), queued(here)
    await narrow.orders.add(ADMIN, first, NewLocation(site.add(b"content")), "req-1")
    task = replace(locked(here, second, "pending", timedelta(seconds=30)), input={"loc_url": site.add(b"content")})
    await narrow.engine.begin(task, anywhere)
    await asyncio.sleep(0.1)
    await narrow.engine.look()
    waited = lifecycle.now() - only_task(here, second).updated_at
    assert (waited < timedelta(seconds=5)) is not anywhere
    go.set()
    await narrow.engine.stop(20)
