"""Processes die in the middle of tasks: in each step of each way in, and at random times.

At the end every task has an end, every image is `active` with the right bytes or back where its owner can go on, and
nothing is left in any store, staging directory or row. `GLIMPSE_CHAOS_KILLS` and `GLIMPSE_CHAOS_SEED` make the random
part longer, or another one.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.black_box.chaos import PATIENCE, Cloud, Stuck
from tests.black_box.image_api import ImageApi
from tests.black_box.test_regions import OTHER, registered
from tests.conftest import ServiceFactory
from tests.journeys.content import noise
from tests.journeys.site import Site
from tests.rig.databases import MariaDB
from tests.rig.install import program
from tests.rig.keystone import Keystone
from tests.rig.rabbitmq import RabbitMQ
from tests.rig.services import Glimpse, GlimpseWorker

MIB = 1 << 20
KILLS = int(os.environ.get("GLIMPSE_CHAOS_KILLS", "50"))
SEED = int(os.environ.get("GLIMPSE_CHAOS_SEED", "4"))
OCTETS = {"Content-Type": "application/octet-stream"}
CHANGES: dict[str, dict[str, dict[str, object]]] = {
    "converted": {"image_import_opts": {"image_import_plugins": "[image_decompression,image_conversion]"}},
    "shared": {"os_glance_staging_store": {"backend": "fast"}},
}


class Clouds:
    """One cloud at a time."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._kind = ""
        self._close = contextlib.ExitStack()
        self._cloud: Cloud

    def of(self, kind: str) -> Cloud:
        """With bytes that go straight into the stores (streamed), that are decompressed and converted first, that are
        staged in a store (shared), or that come from another region.
        """
        if kind != self._kind:
            self.close()
            self._cloud = self._open(kind)
            self._kind = kind
        return self._cloud

    def _open(self, kind: str) -> Cloud:
        rig_folder: Path = self._request.getfixturevalue("rig_folder")
        mariadb: MariaDB = self._request.getfixturevalue("mariadb")
        rabbitmq: RabbitMQ = self._request.getfixturevalue("rabbitmq")
        folder = Path(tempfile.mkdtemp(dir=rig_folder))
        folder.chmod(0o755)
        nodes, workers = ServiceFactory(Glimpse, folder), ServiceFactory(GlimpseWorker, folder)
        changes = CHANGES.get(kind, {})
        if kind == "region":
            keystone: Keystone = self._request.getfixturevalue("keystone")
            changes = {
                "DEFAULT": {"enabled_import_methods": "[glance-download]"},
                "paste_deploy": {"flavor": "keystone"},
                "keystone_authtoken": dict(keystone.authtoken()),
            }
        made = Cloud(folder, nodes, workers, mariadb.fresh_url(), rabbitmq.url, changes)
        for close in (made.close, nodes.stop_all, workers.stop_all):
            self._close.callback(close)
        made.start()
        if kind == "region":
            made.token = keystone.token("demo", "demo")
            made.source = nodes({name: changes[name] for name in ("paste_deploy", "keystone_authtoken")})
            self._close.enter_context(registered(keystone, made.source, made.nodes[0]))
        return made

    def close(self) -> None:
        """Without it."""
        self._kind = ""
        self._close.close()


@pytest.fixture(scope="module")
def clouds(request: pytest.FixtureRequest, rig_folder: Path) -> Iterator[Clouds]:
    made = Clouds(request)
    yield made
    made.close()


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def disk(rig_folder: Path) -> tuple[bytes, bytes]:
    """A compressed qcow2 image, and the raw disk in it."""
    raw, packed = rig_folder / "disk.raw", rig_folder / "disk.qcow2"
    raw.write_bytes(noise(24 * MIB, 7))
    subprocess.run([program("qemu-img"), "convert", "-O", "qcow2", raw, packed], check=True)
    return gzip.compress(packed.read_bytes(), 1), raw.read_bytes()


class Way:
    """A way for bytes to come in: `given` ones, so that an image has the `expected` ones in the end."""

    source = "ingest"  # the step that reads the bytes from where they are
    ends = ("success", "active")  # the task and the image, whoever died

    def __init__(
        self, cloud: Cloud, site: Site, given: bytes, expected: bytes, disk_format: str, node: int = 0
    ) -> None:
        self.cloud = cloud
        self.api = cloud.api(node)
        self.site = site
        self.given = given
        self.expected = expected
        self.disk_format = disk_format
        self.image = ""
        self.url = ""
        self.go = threading.Event()

    def prepare(self) -> None:
        """An image, as it is before the order."""
        self.image = self.api.create(name="chaos", disk_format=self.disk_format, container_format="bare")
        self.url = self.site.add(self.given)

    def hold(self) -> None:
        """Whoever reads the bytes waits from now on."""
        self.site.before = lambda path: self.go.wait(60)

    def release(self) -> None:
        """No longer."""
        self.go.set()

    def order(self) -> str:
        """Have it imported; the id of the task that comes of it."""
        raise NotImplementedError

    def post(self, path: str, **body: object) -> str:
        before = self.cloud.records.tasks_of(self.image)
        self.api.ok("POST", f"/v2/images/{self.image}/{path}", json=body)
        (task,) = self.cloud.records.tasks_of(self.image) - before
        return task


class Direct(Way):
    def prepare(self) -> None:
        super().prepare()
        self.api.ok("PUT", f"/v2/images/{self.image}/stage", data=self.given, headers=OCTETS)

    def order(self) -> str:
        return self.post("import", method={"name": "glance-direct"}, stores=["fs", "fast"])


class Web(Way):
    def order(self) -> str:
        return self.post("import", method={"name": "web-download", "uri": self.url}, stores=["fs", "fast"])


class Place(Way):
    source = "hash"

    def order(self) -> str:
        digest = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(self.given).hexdigest()}
        return self.post("locations", url=self.url, validation_data=digest)


class SlowPlace(Place):
    source = "look"

    def hold(self) -> None:
        self.site.before_head = lambda path: self.go.wait(60)


class Refused(Web):
    """It is no qcow2 image."""

    ends = ("failure", "queued")

    def prepare(self) -> None:
        self.disk_format = "qcow2"
        super().prepare()


class Remote(Way):
    """The caller's token dies with the process that has it, and with that the import."""

    source = "describe"
    ends = ("failure", "queued")

    def prepare(self) -> None:
        super().prepare()
        other = ImageApi(self.cloud.source.url, self.cloud.token)
        self.remote = other.create(name="there", disk_format="raw", container_format="bare")
        other.upload(self.remote, self.given)

    def hold(self) -> None:
        os.killpg(self.cloud.source.process.pid, signal.SIGSTOP)

    def release(self) -> None:
        os.killpg(self.cloud.source.process.pid, signal.SIGCONT)

    def order(self) -> str:
        method = {"name": "glance-download", "glance_region": OTHER, "glance_image_id": self.remote}
        return self.post("import", method=method, stores=["fs", "fast"])


class Copy(Place):
    source = "ingest"

    def prepare(self) -> None:
        super().prepare()
        assert self.cloud.wait_for_end(super().order())["status"] == "success"

    def order(self) -> str:
        return self.post("import", method={"name": "copy-image"}, stores=["fs", "fast"])


LAST = ("finish", "undo")  # before the transaction in which the task ends
Steps = tuple[str, ...]
STREAMED: list[tuple[type[Way], Steps]] = [
    (Direct, ("admit", "ingest", "finish")),
    (Web, ("admit", "ingest", "finish")),
    (Copy, ("admit", "ingest", "finish")),
    (SlowPlace, ("look",)),
    (Place, ("hash", "finish")),
    (Refused, ("undo",)),
]
CONVERTED: list[tuple[type[Way], Steps]] = [
    (Direct, ("admit", "fetch", "convert", "ingest", "finish")),
    (Web, ("admit", "fetch", "convert", "ingest", "finish")),
]
SHARED: list[tuple[type[Way], Steps]] = [(Direct, ("admit", "ingest", "finish"))]
REGION: list[tuple[type[Way], Steps]] = [(Remote, ("admit", "describe", "ingest", "finish"))]


def each(plan: list[tuple[type[Way], Steps]]) -> list[object]:
    """The parameters of a test for each step."""
    return [
        pytest.param(way, steps, step, id=f"{way.__name__}-{step}".lower()) for way, steps in plan for step in steps
    ]


@pytest.mark.parametrize(("way", "steps", "step"), each(STREAMED))
def test_a_step_dies(
    clouds: Clouds, site: Site, disk: tuple[bytes, bytes], way: type[Way], steps: Steps, step: str
) -> None:
    """Another process takes the task over, and the image gets there all the same."""
    raw = disk[1]
    step_dies(lambda: way(clouds.of("streamed"), site, raw, raw, "raw"), way.source, steps, step)


def test_a_machine_dies(clouds: Clouds, site: Site, disk: tuple[bytes, bytes]) -> None:
    """All of it, for good: nobody else can see that, but nobody hears of its tasks either."""
    cloud, raw, begun = clouds.of("streamed"), disk[1], dict[str, Way]()
    node, go = cloud.nodes[1], threading.Event()
    site.before = lambda path: go.wait(120)
    pid = 0
    while pid not in node.process.children:
        one = Web(cloud, site, raw, raw, "raw", node=1)
        one.prepare()
        task = one.order()
        begun[task] = one
        pid = cloud.journal.wait_for(task, "ingest").pid
    node.kill9()
    died = time.monotonic()
    go.set()
    for task, way in begun.items():
        assert cloud.wait_for_end(task)["status"] == "success"
        assert cloud.content(way.image) == raw
    print(f"another machine took it over and ended it within {time.monotonic() - died:.0f} s")
    node.start()


def test_random_deaths(clouds: Clouds, rabbitmq: RabbitMQ, disk: tuple[bytes, bytes]) -> None:
    random_deaths(clouds.of("streamed"), rabbitmq, disk, "streamed")


@pytest.mark.parametrize(("way", "steps", "step"), each(CONVERTED))
def test_a_step_of_conversion_dies(
    clouds: Clouds, site: Site, disk: tuple[bytes, bytes], way: type[Way], steps: Steps, step: str
) -> None:
    step_dies(lambda: way(clouds.of("converted"), site, *disk, "qcow2"), "fetch", steps, step)


def test_random_deaths_while_images_are_converted(
    clouds: Clouds, rabbitmq: RabbitMQ, disk: tuple[bytes, bytes]
) -> None:
    random_deaths(clouds.of("converted"), rabbitmq, disk, "converted")


@pytest.mark.parametrize(("way", "steps", "step"), each(SHARED))
def test_a_step_dies_with_staging_in_a_store(
    clouds: Clouds, site: Site, disk: tuple[bytes, bytes], way: type[Way], steps: Steps, step: str
) -> None:
    """Any process takes it over, on any node."""
    raw = disk[1]
    step_dies(lambda: way(clouds.of("shared"), site, raw, raw, "raw"), way.source, steps, step)


def test_nothing_is_left_in_the_store_for_staging(clouds: Clouds) -> None:
    cloud = clouds.of("shared")
    cloud.let_time_pass()
    cloud.wait_until_clean()


@pytest.mark.parametrize(("way", "steps", "step"), each(REGION))
def test_a_step_between_regions_dies(
    clouds: Clouds, site: Site, disk: tuple[bytes, bytes], way: type[Way], steps: Steps, step: str
) -> None:
    """The caller's token is gone with the process that had it: the image goes back."""
    raw = disk[1]
    step_dies(lambda: way(clouds.of("region"), site, raw, raw, "raw"), way.source, steps, step)


def test_nothing_is_left_between_regions(clouds: Clouds) -> None:
    cloud = clouds.of("region")
    cloud.let_time_pass()
    cloud.wait_until_clean()


# --- each step -------------------------------------------------------------------------------------------------------


def step_dies(make: Callable[[], Way], source: str, steps: Steps, step: str) -> None:
    """Have an image imported, and kill the process that does it in that step; `source` is the one that can be held."""
    for _ in range(12):  # a busy machine kills late
        one = make()
        cloud = one.cloud
        one.prepare()
        one.hold()
        if step not in LAST and steps.index(step) > steps.index(source):
            one.release()
        task, pid = _die_in(cloud, one, step, source)
        died = time.monotonic()
        ended = cloud.wait_for_end(task)
        assert time.monotonic() - died < PATIENCE
        image = cloud.api().show(one.image)
        assert (ended["status"], image["status"]) == one.ends, ended
        if image["status"] == "active":
            assert cloud.content(one.image) == one.expected
        lines = cloud.journal.of(task)
        last = [line.what for line in lines if line.pid == pid][-1]
        if last.startswith(step) and any(line.pid != pid for line in lines):
            return
    raise AssertionError(f"{step} was always over before the kill")


def _die_in(cloud: Cloud, way: Way, step: str, source: str) -> tuple[str, int]:
    """Kill the process that has the way's task in that step; the task, and the process."""
    with contextlib.ExitStack() as holding:
        holding.callback(way.release)
        if step == "admit":
            task = holding.enter_context(cloud.records.after_order(way.order, "SELECT turn FROM quota_turns"))
        else:
            if step == "convert":
                holding.enter_context(cloud.held_tools())
            task = way.order()
        if step in LAST:
            cloud.journal.wait_for(task, source)
            holding.enter_context(cloud.records.locked("SELECT id FROM images WHERE id = %s", way.image))
            way.release()
        pid = cloud.journal.wait_for(task, step).pid
        cloud.kill(pid)
    return task, pid


# --- random times ----------------------------------------------------------------------------------------------------


class Load:
    """Images that are on their way all the time, by every way, some of them with bytes that are refused.

    `wanted` is what each is to be in the end, if it is anything.
    """

    def __init__(self, cloud: Cloud, disk: tuple[bytes, bytes], kind: str) -> None:
        self.cloud = cloud
        self.wanted: dict[str, bytes] = {}
        self.went_wrong: list[str] = []
        self._stop = threading.Event()
        self._sites = contextlib.ExitStack()
        self._disk = disk
        self._kind = kind
        self._threads = [threading.Thread(target=self._go_on, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new ones."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """The web servers go, too."""
        self._sites.close()

    def _go_on(self, number: int) -> None:
        chance, site, count = random.Random(SEED * 100 + number), Site(), 0
        self._sites.callback(site.stop)
        site.before = lambda path: time.sleep(chance.uniform(0, 0.5))
        while not self._stop.is_set():
            count += 1
            raw = noise(2 * MIB + count, number << 16 | count)
            given, expected, disk_format = raw, raw, "raw"
            way = chance.choice([Direct, Web, Copy, Place, Upload])
            if self._kind == "converted" and way in (Direct, Web):
                given, expected, disk_format = chance.choice(
                    [(raw, raw, "raw"), (gzip.compress(raw, 1), raw, "raw"), (*self._disk, "qcow2")]
                )
            if chance.random() < 0.1 and way in (Direct, Web, Upload):
                expected, disk_format = b"", "vhdx"
            one = way(self.cloud, site, given, expected, disk_format, node=chance.randrange(2))
            try:
                one.prepare()
                task = one.order()
                self.cloud.wait_for_end(task, chance.uniform(0, 10))
            except (requests.RequestException, Stuck, AssertionError):
                pass  # somebody has died; what has become of the image is looked at later
            except Exception as error:
                self.went_wrong.append(f"{way.__name__}: {error!r}")
            finally:
                if one.image:
                    self.wanted[one.image] = expected


class Upload(Way):
    """Not a task, but it is there too."""

    def order(self) -> str:
        self.api.ok("PUT", f"/v2/images/{self.image}/file", data=self.given, headers=OCTETS)
        raise Stuck("an upload has no task")


def random_deaths(cloud: Cloud, rabbitmq: RabbitMQ, disk: tuple[bytes, bytes], kind: str) -> None:
    """Kill somebody all the time while images come in, and the message broker once; look at what is left.

    Some processes are replaced politely, too.
    """
    chance, deaths = random.Random(SEED), dict[int, float]()
    print(f"seed {SEED}, {KILLS // 2} kills")
    load = Load(cloud, disk, kind)
    try:
        for number in range(KILLS // 2):
            time.sleep(chance.uniform(0.3, 1.5))
            if number == KILLS // 4:
                rabbitmq.kill9()
            if chance.random() < 0.1:
                chance.choice(cloud.services).process.signal(signal.SIGHUP)  # all of its processes are replaced
            if chance.random() < 0.1:
                service = chance.choice(cloud.services)
                deaths |= dict.fromkeys(service.process.children, time.monotonic())
                service.kill9()
                service.start()
                continue
            cloud.journal.read()
            victims = cloud.victims()
            recent = [line.pid for line in cloud.journal.lines[-10:] if line.pid in victims]
            victim = chance.choice(recent if recent and chance.random() < 0.7 else victims)
            deaths[victim] = time.monotonic()
            cloud.kill(victim)
    finally:
        load.stop()
        if not rabbitmq.process.running:
            rabbitmq.start()
    assert not load.went_wrong
    cloud.wait_until_idle()
    assert max(cloud.takeovers(deaths), default=0) < PATIENCE
    cloud.let_time_pass()
    cloud.wait_until_clean()
    statuses = {image: cloud.api().show(image)["status"] for image in load.wanted}
    assert set(statuses.values()) <= {"active", "queued", "uploading"}
    different = [
        image
        for image, expected in load.wanted.items()
        if statuses[image] == "active" and cloud.content(image) != expected
    ]
    assert not different
    load.close()
    print(f"{len(deaths)} deaths, {len(cloud.takeovers(deaths))} takeovers; {Counter(statuses.values())}")
    assert list(statuses.values()).count("active") > len(statuses) / 2
