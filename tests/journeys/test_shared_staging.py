"""`[os_glance_staging_store] backend`: what is staged lies in a store that every node reads (new in Glimpse)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from .client import Api
from .content import MIB, noise
from .service import Service

pytestmark = pytest.mark.better_than_glance  # Glance stages in directories only

SHARED: Mapping[str, Mapping[str, Any]] = {
    "DEFAULT": {"enabled_backends": "fs:file,fast:file", "worker_self_reference_url": "http://127.0.0.1:1"},
    "os_glance_staging_store": {"filesystem_store_datadir": "{home}/staging", "backend": "fast"},
}


@pytest.fixture
def shared(own: Callable[..., Service]) -> Service:
    return own(SHARED)


@pytest.fixture
def api(shared: Service) -> Iterator[Api]:
    made = Api(shared.url)
    yield made
    made.close()


def names(service: Service, image_id: str) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name}" for path in service.stored(image_id))


def test_from_the_store_into_others_and_into_itself(shared: Service, api: Api) -> None:
    data = noise(2 * MIB + 3)
    image = api.staged(data)["id"]
    assert names(shared, image) == [f"fast/staging-{image}"]
    assert "os_glance_staged_at" not in api.show(image)
    shown, task = api.imported(image, "glance-direct", stores=["fs", "fast"])
    assert (shown["status"], task["status"]) == ("active", "success")
    assert api.download(image) == data
    assert names(shared, image) == [f"fast/{image}", f"images/{image}"]


def test_a_delete_takes_it_along(shared: Service, api: Api) -> None:
    image = api.staged(noise(MIB))["id"]
    api.delete(image)
    assert names(shared, image) == []


def test_another_node_does_the_import(shared: Service, api: Api) -> None:
    """The address of the node that took the bytes leads nowhere: it is not asked."""
    image = api.staged(b"content")["id"]
    shared.stop()
    shared.configure({**SHARED, "DEFAULT": {**SHARED["DEFAULT"], "worker_self_reference_url": "http://127.0.0.1:2"}})
    shared.start()
    shown, _ = api.imported(image, "glance-direct")
    assert shown["status"] == "active"


def test_killed_while_bytes_come(shared: Service, api: Api) -> None:
    image = api.ready()["id"]
    going = threading.Event()

    def slowly() -> Iterator[bytes]:
        while True:
            yield noise(MIB)
            going.set()
            time.sleep(0.05)

    def stage() -> None:
        with pytest.raises(Exception):  # noqa: B017 - whatever a client sees of a server that is gone
            api.raw_stage(image, slowly())

    sender = threading.Thread(target=stage)
    sender.start()
    assert going.wait(10)
    shared.kill()
    sender.join(20)
    shared.start()
    again = Api(shared.url)
    assert again.wait_for_status(image, "queued", 20)["size"] is None
    deadline = time.monotonic() + 10
    while names(shared, image):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again.close()
