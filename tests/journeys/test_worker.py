"""`glance-worker`: what goes on beside requests, without requests."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .client import Api
from .content import noise
from .service import Service, commands
from .site import Site
from .test_location_api import ended, held, post, sha256
from .test_location_crash import PLACES

pytestmark = pytest.mark.better_than_glance


class Worker:
    """A `glance-worker` with the configuration of a service."""

    def __init__(self, service: Service, *arguments: str) -> None:
        self.log = service.home / "worker.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [commands() / "glance-worker", "--config-file", service.conf, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def children(self) -> list[int]:
        """Its worker processes."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def wait_for_children(self, count: int) -> list[int]:
        deadline = time.monotonic() + 20
        while len(found := self.children()) != count:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return found

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def start(service: Service, *arguments: str) -> Worker:
        made.append(Worker(service, *arguments))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.kill()


def test_it_goes_on_where_a_service_died(
    own: Callable[..., Service], worker: Callable[..., Worker], site: Site
) -> None:
    service = own(PLACES)
    api, data, go = Api(service.url), noise(1000), held(site)
    image = api.ready()
    assert post(api, image["id"], site.add(data), **sha256(data)).status_code == 202
    api.wait_for_status(image["id"], "importing")
    api.close()
    service.kill()
    go.set()
    there = worker(service, "--workers", "1")
    deadline = time.monotonic() + 30
    while "taken over" not in there.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    service.start()
    api = Api(service.url)
    shown, task = ended(api, image["id"], 30)
    assert (shown["status"], task["status"]) == ("active", "success")
    assert api.download(image["id"]) == data
    api.close()


@pytest.mark.parametrize("patience", [60, 1])
def test_sigterm_gives_running_tasks_time(
    own: Callable[..., Service], worker: Callable[..., Worker], site: Site, patience: int
) -> None:
    """graceful_shutdown_timeout seconds; what is not done then is left to others."""
    service = own({**PLACES, "DEFAULT": {**PLACES["DEFAULT"], "graceful_shutdown_timeout": patience}})
    api, data, go = Api(service.url), noise(1000), held(site)
    image = api.ready()
    assert post(api, image["id"], site.add(data), **sha256(data)).status_code == 202
    api.wait_for_status(image["id"], "importing")
    api.close()
    service.kill()
    there = worker(service, "--workers", "1")
    deadline = time.monotonic() + 30
    while "taken over" not in there.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    began = time.monotonic()
    there.process.send_signal(signal.SIGTERM)
    if patience == 60:
        with pytest.raises(subprocess.TimeoutExpired):
            there.process.wait(2)
        go.set()
    assert there.process.wait(10) == 0
    assert time.monotonic() - began < 8
    ends_here = ": finish" in there.log.read_text()
    assert ends_here == (patience == 60)
    go.set()
    service.start()
    api = Api(service.url)
    shown, task = ended(api, image["id"], 30)
    assert (shown["status"], task["status"]) == ("active", "success")
    api.close()


def test_workers_are_minded(own: Callable[..., Service], worker: Callable[..., Worker]) -> None:
    service = own()
    there = worker(service, "--workers", "2")
    first = there.wait_for_children(2)
    time.sleep(1.5)  # one that dies before it is ready stops the command
    os.kill(first[0], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while first[0] in there.children() or len(there.children()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    there.process.send_signal(signal.SIGHUP)
    while set(first) & set(there.children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(there.wait_for_children(2)) == 2
    there.process.send_signal(signal.SIGTERM)
    assert there.process.wait(10) == 0
    assert "working on tasks with 2 workers" in there.log.read_text()
    assert service.answers()


def test_a_mistake_in_the_configuration_stops_it(own: Callable[..., Service], worker: Callable[..., Worker]) -> None:
    service = own()
    service.configure({"DEFAULT": {"image_size_cap": "much"}})
    there = worker(service)
    assert there.process.wait(20) == 1
    [line] = there.log.read_text().splitlines()
    assert line.startswith("glance-worker: ") and "image_size_cap" in line
