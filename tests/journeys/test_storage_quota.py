"""`user_storage_quota`: what one project may keep, also when it uploads everything at the same time."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from .client import Api, add, path_of
from .conftest import ON_LOOPBACK, USERS, signed_in, with_users
from .content import MIB, noise
from .service import Service
from .site import Site
from .test_crash import begin_upload, wait_for_empty_stores
from .test_location_api import ended, post, tasks
from .test_locations import place

QUOTA = 10 * MIB
WHO = ("alice", "bob", "admin")
AS_ALICE = {"Authorization": "Basic " + b64encode(b"alice:alice-secret").decode()}


def pieces(size: int) -> Iterator[bytes]:
    """So many bytes, in a way that their number is not known before the end."""
    data = noise(size)
    for start in range(0, size, 1 << 18):
        yield data[start : start + (1 << 18)]


@pytest.fixture
def service(own: Callable[..., Service], tmp_path: Path) -> Service:
    """Two workers, two projects, and a store that reads from web servers."""
    changes = with_users(tmp_path, {name: USERS[name] for name in WHO})
    changes["DEFAULT"] |= {
        "user_storage_quota": "10MB",
        "workers": 2,
        "enabled_backends": "fs:file,fast:file,web:http",
        "show_multiple_locations": True,
    }
    return own(changes | ON_LOOPBACK)


@pytest.fixture
def user(service: Service) -> Iterator[Callable[[str], Api]]:
    yield from signed_in(service, WHO)


User = Callable[[str], Api]


def kept(api: Api) -> int:
    return sum(image["size"] or 0 for image in api.list(limit="1000") if image["status"] == "active")


def refused(api: Api, image_id: str, size: int, known: bool = True) -> None:
    response = api.raw_upload(image_id, noise(size) if known else pieces(size))
    assert response.status_code == 413, response.text
    assert "user_storage_quota" in response.text
    image = api.show(image_id)
    assert (image["status"], image["size"]) == ("queued", None)


@pytest.mark.parametrize("known", [True, False])
def test_one_after_the_other(service: Service, user: User, known: bool) -> None:
    alice = user("alice")

    def body(size: int) -> bytes | Iterator[bytes]:
        return noise(size) if known else pieces(size)

    first = alice.active(body(6 * MIB))
    second = alice.ready()
    refused(alice, second["id"], 5 * MIB, known)
    assert len(service.stored()) == 1
    alice.upload(second["id"], body(4 * MIB))
    full = alice.ready()
    refused(alice, full["id"], 1, known)
    # what is no upload still works, and so do others
    alice.patch(full["id"], {"op": "add", "path": "/name", "value": "full"})
    user("bob").active(body(9 * MIB))
    alice.delete(first["id"])
    alice.upload(full["id"], body(6 * MIB))
    assert kept(alice) == QUOTA


@pytest.mark.better_than_glance  # looks for room in the project of the admin who uploads
def test_an_image_counts_for_its_owner(user: User) -> None:
    """Whoever uploads."""
    admin, alice = user("admin"), user("alice")
    mine = alice.ready()
    admin.active(noise(9 * MIB))
    admin.upload(mine["id"], noise(8 * MIB))
    other = alice.ready()
    refused(admin, other["id"], 3 * MIB)
    alice.upload(other["id"], noise(2 * MIB))


def test_locations_count_too(user: User, site: Site) -> None:
    """Each with the size of the image."""
    alice, page = user("alice"), site.add(noise(4 * MIB))
    image = alice.ready()
    alice.patch(image["id"], add("locations/-", place(page)))
    site.pages["/copy"] = site.pages[path_of(page)]
    alice.patch(image["id"], add("locations/-", place(f"{site.url}/copy")))
    site.pages["/third"] = site.pages["/copy"]
    response = alice.raw_patch(image["id"], [add("locations/-", place(f"{site.url}/third"))])
    assert response.status_code == 413, response.text
    refused(alice, alice.ready()["id"], 3 * MIB)
    late = alice.ready()
    assert post(alice, late["id"], page).status_code == 202
    shown, task = ended(alice, late["id"])
    assert (shown["status"], task["status"]) == ("queued", "failure")
    alice.active(noise(2 * MIB))
    assert alice.request("DELETE", f"/v2/images/{image['id']}").status_code == 204
    assert post(alice, late["id"], page).status_code == 202
    shown, _ = ended(alice, late["id"])
    assert shown["status"] == "active"
    assert sorted(task["status"] for task in tasks(alice, late["id"])) == ["failure", "success"]


@pytest.mark.better_than_glance  # lets all of them through
@pytest.mark.parametrize("known", [True, False])
def test_many_at_once(service: Service, user: User, known: bool) -> None:
    """As many as fit, through both workers; never a byte more, also not in between."""
    alice = user("alice")
    ids = [alice.ready()["id"] for _ in range(20)]
    over = threading.Event()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            # By inode: for a moment a file has its old name and its new one.
            found = {}
            for path in service.stored():
                with suppress(FileNotFoundError):
                    facts = path.stat()
                    found[facts.st_ino] = facts.st_size
            if sum(found.values()) > QUOTA:
                over.set()
            time.sleep(0.01)

    def upload(image_id: str) -> int:
        return alice.raw_upload(image_id, noise(MIB) if known else pieces(MIB)).status_code

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(upload, ids))
    done.set()
    watcher.join()
    assert set(statuses) <= {204, 413}
    assert not over.is_set()
    assert kept(alice) == MIB * statuses.count(204) <= QUOTA
    if known:
        assert statuses.count(204) == 10
    # Those of unknown size may have stood in each other's way; what is left is there for all.
    for image_id, status in zip(ids, statuses, strict=True):
        if status == 413 and kept(alice) < QUOTA:
            alice.upload(image_id, noise(MIB))
    assert kept(alice) == QUOTA
    refused(alice, alice.ready()["id"], 1)


@pytest.mark.better_than_glance  # counts nothing of a running upload
@pytest.mark.parametrize("chunked", [False, True])
def test_a_running_upload_counts(service: Service, user: User, chunked: bool) -> None:
    alice = user("alice")
    image = alice.ready()
    with begin_upload(alice, service, image["id"], chunked, AS_ALICE):
        assert alice.show(image["id"])["size"] is None
        refused(alice, alice.ready()["id"], 9 * MIB)
        user("bob").active(noise(9 * MIB))
    # the client is gone
    alice.wait_for_status(image["id"], "queued")
    alice.active(noise(9 * MIB))


@pytest.mark.better_than_glance  # lets an upload that was deleted go on to its end, uncounted (OSSA-2015-003)
def test_deleted_in_mid_upload(service: Service, user: User) -> None:
    """Until its bytes are gone they count."""
    alice = user("alice")
    image = alice.ready()
    with begin_upload(alice, service, image["id"], more=AS_ALICE):
        alice.delete(image["id"])
        refused(alice, alice.ready()["id"], 9 * MIB)
    wait_for_empty_stores(service)
    alice.active(noise(9 * MIB))


@pytest.mark.better_than_glance  # there, such an image is lost
@pytest.mark.parametrize("chunked", [False, True])
def test_killed_in_mid_upload(service: Service, user: User, chunked: bool) -> None:
    alice = user("alice")
    image = alice.ready()
    wire = begin_upload(alice, service, image["id"], chunked, AS_ALICE)
    service.kill()
    wire.close()
    service.start()
    alice.wait_for_status(image["id"], "queued")
    wait_for_empty_stores(service)
    alice.upload(image["id"], noise(QUOTA))
    refused(alice, alice.ready()["id"], 1)


@pytest.mark.better_than_glance  # answers 500 to every upload
def test_a_wrong_value_stops_the_start(own: Callable[..., Service]) -> None:
    with pytest.raises(RuntimeError, match=r"\[DEFAULT\] user_storage_quota: '10 apples' is no size; allowed: "):
        own({"DEFAULT": {"user_storage_quota": "10 apples"}})
