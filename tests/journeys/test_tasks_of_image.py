"""The tasks of an image (spec 1.2.8)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable

from .client import Api, unused
from .service import Service
from .site import Site
from .test_location_api import ended, post, tasks

Who = Callable[[str], Api]


def test_what_a_task_shows(placer: Who, site: Site) -> None:
    alice = placer("alice")
    image = alice.ready()
    assert tasks(alice, image["id"]) == []
    post(alice, image["id"], site.add(b"content"))
    _, task = ended(alice, image["id"])
    assert set(task) == {
        "id", "type", "status", "owner", "expires_at", "created_at", "updated_at", "deleted_at", "deleted", "image_id",
        "request_id", "user_id", "input", "result", "message",
    }  # fmt: skip
    assert (task["type"], task["image_id"], task["user_id"]) == ("location_import", image["id"], "alice")
    assert (task["deleted"], task["deleted_at"]) == (False, None)
    for name in ("created_at", "updated_at", "expires_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", task[name])
    assert task["owner"] == image["owner"]


def test_whose_tasks(placer: Who, site: Site) -> None:
    """Whoever sees the image sees their own project's tasks; an administrator all."""
    alice, bob, admin = placer("alice"), placer("bob"), placer("admin")
    shared, private = alice.ready(visibility="community"), alice.ready(visibility="private")
    post(alice, shared["id"], site.add(b"x"))
    post(admin, private["id"], site.add(b"x"))
    ended(alice, shared["id"])
    ended(admin, private["id"])
    assert len(tasks(admin, shared["id"])) == len(tasks(placer("carol"), shared["id"])) == 1
    assert tasks(bob, shared["id"]) == []
    assert bob.get(f"/v2/images/{private['id']}/tasks").status_code == 404
    assert alice.get(f"/v2/images/{unused()}/tasks").status_code == 404
    assert tasks(alice, private["id"]) == []
    assert len(tasks(admin, private["id"])) == 1
    assert alice.request("POST", f"/v2/images/{private['id']}/tasks").status_code == 405


def test_tasks_whose_time_is_over(placer: Who, open_places: Service, site: Site) -> None:
    alice, admin = placer("alice"), placer("admin")
    image = alice.ready()
    post(alice, image["id"], site.add(b"x"))
    _, task = ended(alice, image["id"])
    with sqlite3.connect(open_places.database) as database:
        database.execute("UPDATE tasks SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = ?", (task["id"],))
        database.commit()
        assert tasks(admin, image["id"]) == []
        deleted = "SELECT deleted FROM tasks WHERE id = ?"
        assert database.execute(deleted, (task["id"],)).fetchone() == (0,), "not the administrator's"
        assert tasks(alice, image["id"]) == []
        assert database.execute(deleted, (task["id"],)).fetchone() == (1,)
