"""kill -9 while a location is looked at or hashed: somebody else goes on with it, and every task comes to an end.

The original never takes such work up again: the image stays in `importing`.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable

import pytest

from .client import Api
from .conftest import ON_LOOPBACK
from .content import MIB, noise
from .service import Service
from .site import Site
from .test_location_api import ended, held, post, sha256, tasks

pytestmark = pytest.mark.better_than_glance

PLACES: dict[str, dict[str, object]] = {
    "DEFAULT": {"enabled_backends": "fs:file,web:http", "show_multiple_locations": True, "workers": 1},
    **ON_LOOPBACK,
}


def marks(service: Service) -> list[str]:
    with sqlite3.connect(service.database) as database:
        return [name for (name,) in database.execute("SELECT name FROM image_properties")]


def test_a_worker_dies(own: Callable[..., Service], site: Site) -> None:
    """In each state in which an image can be: both are hashed to the end, and the promise is kept."""
    service = own(PLACES)
    api, data, go = Api(service.url), noise(2 * MIB), held(site)
    promised, plain, wrong = (api.ready() for _ in range(3))
    url = site.add(data)
    assert post(api, promised["id"], url, **sha256(data)).status_code == 202
    assert post(api, plain["id"], url).status_code == 202
    assert post(api, wrong["id"], url, **sha256(b"other")).status_code == 202
    api.wait_for_status(promised["id"], "importing")
    api.wait_for_status(wrong["id"], "importing")
    api.wait_for_status(plain["id"], "active")
    [worker] = service.listeners()
    os.kill(worker, signal.SIGKILL)
    go.set()
    api.close()
    deadline = time.monotonic() + 20
    while service.listeners() in ([], [worker]) or not service.answers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    api = Api(service.url)
    shown, task = ended(api, promised["id"], 30)
    assert (shown["status"], shown["os_hash_value"]) == ("active", sha256(data)["os_hash_value"])
    assert (task["status"], len(shown["locations"])) == ("success", 1)
    shown, task = ended(api, plain["id"], 30)
    assert (shown["status"], task["status"], bool(shown["os_hash_value"])) == ("active", "success", True)
    shown, task = ended(api, wrong["id"], 30)
    assert (shown["status"], task["status"], shown["size"]) == ("queued", "failure", None)
    assert marks(service) == []
    api.close()


def test_everything_dies_before_the_place_is_recorded(own: Callable[..., Service], site: Site) -> None:
    service = own(PLACES)
    api, data, go = Api(service.url), b"content", held(site)
    site.before_head = lambda path: go.wait(30)
    image, gone = api.ready(), api.ready()
    url = site.add(data)
    for each in (image, gone):
        assert post(api, each["id"], url, **sha256(data)).status_code == 202
    assert api.show(image["id"])["status"] == "queued"
    api.delete(gone["id"])
    api.close()
    service.kill()
    go.set()
    service.start()
    api = Api(service.url)
    shown, task = ended(api, image["id"], 30)
    assert (shown["status"], task["status"], len(tasks(api, image["id"]))) == ("active", "success", 1)
    assert api.download(image["id"]) == data
    deadline = time.monotonic() + 30
    while marks(service):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with sqlite3.connect(service.database) as database:
        ends = database.execute("SELECT status FROM tasks WHERE image_id = ?", (gone["id"],)).fetchall()
    assert ends == [("failure",)]
    api.close()


def test_the_end_of_the_service_is_no_failure(own: Callable[..., Service], site: Site) -> None:
    """SIGTERM does not wait for ever for somebody else's slow server; the work goes on at the next start."""
    service = own({**PLACES, "DEFAULT": {**PLACES["DEFAULT"], "graceful_shutdown_timeout": 2}})
    api, data, go = Api(service.url), b"content", held(site)
    image = api.ready()
    assert post(api, image["id"], site.add(data), **sha256(data)).status_code == 202
    api.wait_for_status(image["id"], "importing")
    api.close()
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 8
    go.set()
    service.start()
    api = Api(service.url)
    shown, task = ended(api, image["id"], 30)
    assert (shown["status"], task["status"]) == ("active", "success")
    api.close()
