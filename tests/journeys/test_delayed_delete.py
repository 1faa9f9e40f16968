"""`delayed_delete`: a deleted image is kept for `scrub_time`, can come back, and is erased by the service itself.

The original only marks such images; their bytes stay for ever unless an operator runs its scrubber.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .client import Api, replace, unused
from .conftest import LOCATIONS, MULTI_STORE, ON_LOOPBACK, SERVICE_USERS, run, signed_in, with_users
from .service import Service, commands
from .site import Site
from .test_locations import leave

pytestmark = pytest.mark.better_than_glance

SOON: dict[str, dict[str, object]] = {
    "DEFAULT": {"delayed_delete": True, "scrub_time": 1, "wakeup_time": 1, "scrub_pool_size": 2}
}
LATER: dict[str, dict[str, object]] = {"DEFAULT": {"delayed_delete": True, "scrub_time": 3600, "wakeup_time": 1}}

Caller = Callable[[str], Api]


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service with users that keeps deleted images for an hour, and shows locations."""
    home = tmp_path_factory.mktemp("keeping")
    service = Service(home, MULTI_STORE, with_users(home, SERVICE_USERS))
    service.configure(LOCATIONS)
    service.configure(ON_LOOPBACK)
    service.configure(LATER)
    yield from run(service, tables)


@pytest.fixture(scope="module")
def keeper(keeping: Service) -> Iterator[Caller]:
    yield from signed_in(keeping, SERVICE_USERS)


def scrubber(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(commands() / "glance-scrubber"), "--config-file", str(service.conf), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=service.home, timeout=60, check=False)


def statuses(service: Service) -> dict[str, str]:
    with sqlite3.connect(service.database) as database:
        return dict(database.execute("SELECT id, status FROM images"))


def wait(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_service_scrubs_by_itself(own: Callable[..., Service]) -> None:
    service = own(SOON)
    api = Api(service.url)
    image, kept = api.active(b"bytes"), api.active(b"kept")
    api.delete(image["id"])
    assert statuses(service)[image["id"]] == "pending_delete"
    assert service.stored(image["id"]) != []
    assert api.raw_show(image["id"]).status_code == api.raw_delete(image["id"]).status_code == 404
    wait(lambda: statuses(service)[image["id"]] == "deleted")
    assert service.stored(image["id"]) == []
    assert api.download(kept["id"]) == b"kept"
    without = api.create()
    api.delete(without["id"])
    assert statuses(service)[without["id"]] == "deleted"
    api.close()


def test_killed_in_the_middle(own: Callable[..., Service]) -> None:
    """Whatever was being erased at that moment is erased by the next process."""
    service = own({"DEFAULT": {**LATER["DEFAULT"], "workers": 2}})
    api = Api(service.url)
    made = [api.active(b"bytes")["id"] for _ in range(150)]
    for image_id in made:
        api.delete(image_id)
    api.close()
    service.stop()
    service.configure(SOON)
    service.start()
    wait(lambda: len(service.stored()) < 140)
    service.kill()
    assert service.stored() != []
    with sqlite3.connect(service.database) as database:  # time goes by: a dead process's claims run out
        database.execute("UPDATE image_locations SET updated_at = deleted_at WHERE status = 'pending_delete'")
    service.start()
    wait(lambda: {statuses(service)[image_id] for image_id in made} == {"deleted"}, 60)
    assert service.stored() == []


def test_restore(keeping: Service, keeper: Caller) -> None:
    alice, bob = keeper("alice"), keeper("bob")
    image = alice.active(b"bytes", name="mine", tags=["one"], os="linux")
    shared = alice.request("POST", f"/v2/images/{image['id']}/members", json={"member": bob_s(keeper)})
    assert shared.status_code == 200
    alice.delete(image["id"])
    done = scrubber(keeping, "--restore", image["id"])
    assert done.returncode == 0, done.stderr
    back = alice.show(image["id"])
    changing = ("updated_at",)
    assert {name: back[name] for name in image if name not in changing} == {
        name: image[name] for name in image if name not in changing
    }
    assert alice.download(image["id"]) == b"bytes"
    assert bob.download(image["id"]) == b"bytes"
    again = scrubber(keeping, "--restore", image["id"])
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("ERROR: ")
    assert scrubber(keeping).returncode == 0
    assert alice.download(image["id"]) == b"bytes"


def bob_s(keeper: Caller) -> str:
    project: str = keeper("bob").ready()["owner"]
    return project


@pytest.mark.parametrize("who", ["alice", "admin"])
def test_a_deactivated_image(keeping: Service, keeper: Caller, who: str) -> None:
    """In the original an admin gets 400, and an owner leaves the bytes behind for ever."""
    image = keeper("alice").active(b"secret")
    assert keeper("admin").request("POST", f"/v2/images/{image['id']}/actions/deactivate").status_code == 204
    keeper(who).delete(image["id"])
    assert statuses(keeping)[image["id"]] == "pending_delete"
    assert keeping.stored(image["id"]) != []
    assert scrubber(keeping, "--restore", image["id"]).returncode == 0
    assert keeper("alice").show(image["id"])["status"] == "deactivated"
    assert keeper("alice").raw_download(image["id"]).status_code == 403
    assert keeper("admin").download(image["id"]) == b"secret"


def test_a_deactivated_image_is_erased(user: Caller, guarded: Service) -> None:
    """Also by its owner, who cannot see where its bytes are, and without delayed_delete."""
    image = user("alice").active(b"secret")
    assert user("admin").request("POST", f"/v2/images/{image['id']}/actions/deactivate").status_code == 204
    user("alice").delete(image["id"])
    assert guarded.stored(image["id"]) == []


def test_a_place_that_an_image_leaves_waits_too(keeping: Service, keeper: Caller, site: Site) -> None:
    admin = keeper("admin")
    image = admin.active(b"bytes")
    where = {"url": site.add(b"bytes"), "metadata": {}}
    admin.patch(image["id"], {"op": "add", "path": "/locations/-", "value": where})
    assert leave(admin, "fs", image["id"]) == 204
    assert keeping.stored(image["id"]) != []
    assert len(admin.show(image["id"])["locations"]) == 1
    with sqlite3.connect(keeping.database) as database:
        database.execute(
            "UPDATE image_locations SET deleted_at = '2026-01-01 00:00:00.000000', updated_at = NULL"
            " WHERE status = 'pending_delete' AND image_id = ?", (image["id"],),
        )  # fmt: skip
    wait(lambda: keeping.stored(image["id"]) == [])
    assert admin.download(image["id"]) == b"bytes"


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("visibility", ["public", "shared", "community", "private"])
def test_ossa_2012_017_nobody_deletes_for_another(
    keeping: Service, keeper: Caller, guarded: Service, user: Caller, visibility: str, delayed: bool
) -> None:
    """CVE-2012-4573, CVE-2012-5482: a refused DELETE has no side effect, whichever way things are deleted."""
    service, caller = (keeping, keeper) if delayed else (guarded, user)
    image = caller("alice").active(b"bytes")
    caller("admin").patch(image["id"], replace("visibility", visibility))
    if visibility == "shared":
        member = {"member": bob_s(caller)}
        assert caller("alice").request("POST", f"/v2/images/{image['id']}/members", json=member).status_code == 200
    before = caller("alice").show(image["id"])
    answer = caller("bob").raw_delete(image["id"])
    assert answer.status_code == (404 if visibility == "private" else 403)
    assert caller("carol").raw_delete(image["id"]).status_code == 403
    assert caller("bob").raw_delete(unused()).status_code == 404
    assert statuses(service)[image["id"]] == "active"
    with sqlite3.connect(service.database) as database:
        rows = database.execute("SELECT status, deleted FROM image_locations WHERE image_id = ?", (image["id"],))
        assert rows.fetchall() == [("active", 0)]
    assert caller("alice").show(image["id"]) == before
    assert caller("alice").download(image["id"]) == b"bytes"
    assert os.path.exists(service.stored(image["id"])[0])
