"""kill -9, of everything or of one worker, at rest and in the middle of an upload.

All of it is more than the original promises: there, an image whose upload was cut off by a crash is lost.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from .client import OCTETS, Api
from .content import MIB, noise
from .service import Service
from .wire import Wire

pytestmark = pytest.mark.better_than_glance


@contextmanager
def caller(service: Service) -> Iterator[Api]:
    api = Api(service.url)
    try:
        yield api
    finally:
        api.close()


def begin_upload(
    api: Api, service: Service, image_id: str, chunked: bool = False, more: Mapping[str, str] | None = None
) -> Wire:
    """An upload of which 2 MiB have been sent and something has reached the store's directory."""
    wire = Wire(service.url)
    headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(8 * MIB)}
    wire.head("PUT", f"/v2/images/{image_id}/file", {**OCTETS, **headers, **(more or {})})
    if chunked:
        wire.chunk(noise(2 * MIB))
    else:
        wire.send(noise(2 * MIB))
    api.wait_for_status(image_id, "saving")
    deadline = time.monotonic() + 10
    while not any(path.stat().st_size for path in service.stored()):
        assert time.monotonic() < deadline, "nothing reaches the store's directory"
        time.sleep(0.05)
    return wire


def wait_for_empty_stores(service: Service, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while left := service.stored():
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def wait_for_other_workers(service: Service, old: set[int], count: int) -> list[int]:
    deadline = time.monotonic() + 10
    while True:
        workers = service.listeners()
        if len(workers) == count and not old.intersection(workers) and service.answers():
            return workers
        assert time.monotonic() < deadline, f"workers {workers} instead of {count} new ones for {old}"
        time.sleep(0.05)


def test_service_killed_in_mid_upload(own: Callable[..., Service]) -> None:
    service = own()
    with caller(service) as api:
        images = [api.ready(), api.ready()]
        kept = api.active(b"kept")
        wires = [
            begin_upload(api, service, images[0]["id"]),
            begin_upload(api, service, images[1]["id"], chunked=True),
        ]
    service.kill()
    for wire in wires:
        wire.close()
    service.start()
    with caller(service) as api:
        for image in images:
            found = api.wait_for_status(image["id"], "queued")
            assert found["size"] is found["checksum"] is None
            assert api.raw_download(image["id"]).status_code == 204
        assert api.download(kept["id"]) == b"kept"
        api.delete(kept["id"])
        wait_for_empty_stores(service)
        api.upload(images[0]["id"], b"at last")
        assert api.download(images[0]["id"]) == b"at last"
        assert len(service.stored()) == 1
        api.delete(images[1]["id"])


def test_worker_killed_in_mid_upload(own: Callable[..., Service]) -> None:
    """The others go on, and nobody has to start anything again."""
    service = own({"DEFAULT": {"workers": 1}})
    with caller(service) as api:
        image = api.ready()
        with begin_upload(api, service, image["id"]):
            [worker] = service.listeners()
            os.kill(worker, signal.SIGKILL)
            wait_for_other_workers(service, {worker}, 1)
        api.wait_for_status(image["id"], "queued", seconds=15)
        wait_for_empty_stores(service)
        api.upload(image["id"], b"at last")
        assert api.download(image["id"]) == b"at last"


def test_killed_workers_are_replaced(own: Callable[..., Service]) -> None:
    service = own({"DEFAULT": {"workers": 2}})
    with caller(service) as api:
        image = api.active(b"content")
        first = service.listeners()
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        # served meanwhile by the other one
        for _ in range(20):
            with Wire(service.url) as wire:
                wire.head("GET", f"/v2/images/{image['id']}")
                assert wire.answer().status == 200
        deadline = time.monotonic() + 10
        while len(second := service.listeners()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert first[1] in second
        for worker in second:
            os.kill(worker, signal.SIGKILL)
        wait_for_other_workers(service, set(second), 2)
        assert api.download(image["id"]) == b"content"
    assert service.process is not None
    assert service.process.poll() is None


def test_workers_do_not_outlive_the_parent(own: Callable[..., Service]) -> None:
    """Else the port stays taken by processes that nobody minds."""
    service = own()
    workers = service.listeners()
    assert service.process is not None
    service.process.kill()
    service.process.wait(10)
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline, "orphaned workers"
        time.sleep(0.05)
    service.start()


def test_killed_again_and_again_under_load(own: Callable[..., Service]) -> None:
    """Whatever was answered with 204 is there and whole; everything else can be uploaded again."""
    service = own()
    done: dict[str, bytes] = {}
    tried: list[str] = []
    for turn in range(2):
        stop = threading.Event()

        def work(number: int, stop: threading.Event = stop) -> None:
            api = Api(service.url)
            while not stop.is_set():
                try:
                    image = api.ready()
                    tried.append(image["id"])
                    data = noise(300_000, number)
                    api.upload(image["id"], data)
                    done[image["id"]] = data
                except Exception:  # the service is gone
                    break
            api.close()

        threads = [threading.Thread(target=work, args=(4 * turn + number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        service.kill()
        stop.set()
        for thread in threads:
            thread.join()
        service.start()
    assert done
    with caller(service) as api:
        for image_id in tried:
            image = api.show(image_id)
            if image_id in done:
                assert image["status"] == "active"
                assert api.download(image_id) == done[image_id]
            elif image["status"] != "active":
                api.wait_for_status(image_id, "queued")
                api.upload(image_id, b"again")
        active = {image_id for image_id in tried if api.show(image_id)["status"] == "active"}
        deadline = time.monotonic() + 10
        while {path.name for path in service.stored()} != active:
            assert time.monotonic() < deadline, {path.name for path in service.stored()} ^ active
            time.sleep(0.05)
