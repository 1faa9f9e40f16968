"""The tasks of all images: who sees them, lists in pages, and orders that are refused at once (spec 1.7)."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from .client import Api, unused
from .service import Service
from .site import Site
from .test_location_api import ended, post

Who = Callable[[str], Api]
STUB = {"id", "type", "status", "owner", "created_at", "updated_at", "expires_at", "self", "schema"}


def add(caller: Api, body: object) -> httpx.Response:
    return caller.request("POST", "/v2/tasks", json=body)


def importing(url: object, **more: object) -> dict[str, object]:
    described = {"disk_format": "raw", "container_format": "bare"}
    source = {"import_from": url, "import_from_format": "raw", "image_properties": described}
    return {"type": "import", "input": {**source, **more}}


def page(caller: Api, **query: str) -> dict[str, Any]:
    response = caller.get("/v2/tasks", params=query)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


@pytest.fixture
def done(placer: Who, site: Site) -> dict[str, Any]:
    """A task of alice's that has ended, as its image shows it."""
    alice = placer("alice")
    image = alice.ready()
    post(alice, image["id"], site.add(b"content"))
    return ended(alice, image["id"])[1]


def test_for_administrators_only(placer: Who) -> None:
    for name in ("alice", "carol", "nova"):
        caller = placer(name)
        for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{unused()}"), ("DELETE", f"/{unused()}")):
            response = caller.request(method, f"/v2/tasks{path}")
            assert response.status_code == 403, f"{name} {method} {path}"
        assert caller.request("POST", "/v2/tasks", content=b"{broken").status_code == 403
        assert caller.get("/v2/tasks?limit=x").status_code == 403


def test_wrong_methods(placer: Who) -> None:
    admin = placer("admin")
    refused = admin.request("DELETE", f"/v2/tasks/{unused()}")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
    assert sorted(admin.request("PUT", "/v2/tasks").headers["Allow"].split(", ")) == ["GET", "POST"]
    assert admin.get(f"/v2/tasks/{unused()}").status_code == admin.get("/v2/tasks/x").status_code == 404


def test_one_task(placer: Who, done: dict[str, Any]) -> None:
    task = placer("admin").get(f"/v2/tasks/{done['id']}").json()
    assert set(task) == STUB | {"input", "result", "message", "image_id", "request_id", "user_id"}
    for name in ("id", "type", "status", "owner", "image_id", "request_id", "user_id", "input", "result", "message"):
        assert task[name] == done[name]
    assert (task["self"], task["schema"]) == (f"/v2/tasks/{done['id']}", "/v2/schemas/task")
    for name in ("created_at", "updated_at", "expires_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", task[name])


def test_a_list(placer: Who, done: dict[str, Any]) -> None:
    """An administrator sees the tasks of every project, each without what can be long."""
    document = page(placer("admin"), id=done["id"])
    assert document["schema"] == "/v2/schemas/tasks"
    assert document["first"] == f"/v2/tasks?id={done['id']}"
    assert "next" not in document
    (stub,) = document["tasks"]
    assert set(stub) == STUB
    assert stub["owner"] == done["owner"]


def test_pages(placer: Who, open_places: Service) -> None:
    """Whatever the order, every task is on one page, also where what is sorted by is missing or the same."""
    admin, mark = placer("admin"), unused()[:20]
    rows = []
    with sqlite3.connect(open_places.database) as database:
        for number in range(7):
            expires = f"203{number % 3}-01-01 00:00:00.000000" if number % 2 else None
            image = f"{number % 2}" if number > 3 else None
            made = f"2026-01-0{1 + number % 2} 00:00:00.000000"
            row = (str(uuid.uuid4()), "import", "success", "p", made, None, image, mark, expires)
            rows.append(row)
            database.execute(
                "INSERT INTO tasks (id, type, status, owner, created_at, updated_at, image_id, request_id, expires_at,"
                " deleted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)", row,
            )  # fmt: skip
            database.execute("INSERT INTO task_info (task_id, input) VALUES (?, '{}')", row[:1])
    everything = sorted(row[0] for row in rows)
    for key in ("id", "type", "status", "created_at", "updated_at", "expires_at", "image_id", "owner", "user_id"):
        for direction in ("asc", "desc"):
            seen: list[str] = []
            link = f"/v2/tasks?request_id={mark}&limit=2&sort_key={key}&sort_dir={direction}"
            while link:
                document = admin.get(link).json()
                seen += [task["id"] for task in document["tasks"]]
                link = document.get("next", "")
                assert len(seen) <= 7, f"{key} {direction}"
            assert sorted(seen) == everything, f"{key} {direction}"
    oldest_first = [row[0] for row in sorted(rows, key=lambda row: (row[4] or "", row[0]))]
    assert [task["id"] for task in page(admin, request_id=mark, sort_dir="asc")["tasks"]] == oldest_first
    assert [task["id"] for task in page(admin, request_id=mark)["tasks"]] == oldest_first[::-1]


def test_filters(placer: Who, done: dict[str, Any]) -> None:
    admin = placer("admin")
    for name in ("status", "owner", "image_id", "user_id", "request_id"):
        found = page(admin, **{name: done[name]}, limit="1000")["tasks"]
        assert done["id"] in [task["id"] for task in found], name
        other = "failure" if name == "status" else "x"
        assert not page(admin, id=done["id"], **{name: other})["tasks"], name
    for name in ("created_at", "updated_at", "expires_at"):
        assert page(admin, id=done["id"], **{name: f"{done[name][:19]}Z"})["tasks"], name
        assert not page(admin, id=done["id"], **{name: "2020-01-01T00:00:00"})["tasks"], name
    assert page(admin, id=done["id"], unknown="x", deleted="x")["tasks"], "other names are ignored"
    assert not page(admin, id=done["id"], type="import")["tasks"]
    assert not page(admin, limit="0")["tasks"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=x", "limit=", "marker=x", "marker=99999999-0000-4000-8000-000000000000", "marker=",
        "sort_key=x", "sort_key=input", "sort_key=", "sort_dir=x", "sort_dir=", "status=x", "type=x",
        "type=api_image_import", "type=location_import",
    ],
)  # fmt: skip
def test_wrong_questions(placer: Who, query: str) -> None:
    assert placer("admin").get(f"/v2/tasks?{query}").status_code == 400


def test_those_whose_time_is_over(placer: Who, open_places: Service, site: Site, done: dict[str, Any]) -> None:
    """A list makes those of the caller's own project go."""
    admin = placer("admin")
    image = admin.ready()
    post(admin, image["id"], site.add(b"x"))
    own = ended(admin, image["id"])[1]
    assert page(admin, id=own["id"])["tasks"]
    with sqlite3.connect(open_places.database) as database:
        database.execute(
            "UPDATE tasks SET expires_at = '2020-01-01 00:00:00.000000' WHERE id IN (?, ?)", (own["id"], done["id"])
        )
        database.commit()
        assert admin.get(f"/v2/tasks/{own['id']}").status_code == 200
        assert not page(admin, id=own["id"])["tasks"]
        assert admin.get(f"/v2/tasks/{own['id']}").status_code == 404
        assert page(admin, id=done["id"])["tasks"], "not the administrator's"


def test_an_order(placer: Who, site: Site) -> None:
    admin = placer("admin")
    body = importing(site.add(b"content"), more={"a": ["ü", 1, None, "\U0001f4bf", "\0"]})
    response = add(admin, {**body, "id": unused(), "status": "success", "owner": "x", "message": "x"})
    assert response.status_code == 201, response.text
    task = response.json()
    assert response.headers["Location"] == f"{admin.url}/v2/tasks/{task['id']}"
    assert task["status"] == "pending"
    assert task["input"] == body["input"]
    assert (task["type"], task["result"], task["message"], task["user_id"]) == ("import", None, "", "admin")
    assert "expires_at" not in task
    assert task["owner"] == admin.create()["owner"]
    assert admin.get(task["self"]).json()["input"] == body["input"]


@pytest.mark.parametrize("kind", ["api_image_import", "location_import"])
def test_orders_that_belong_to_an_image(placer: Who, kind: str) -> None:
    """They are taken, as by Glance, and come to nothing: no image waits for them."""
    admin = placer("admin")
    image = admin.ready()
    given = {"image_id": image["id"], "loc_url": "http://127.0.0.1/x", "validation_data": {}, "backend": ["fs"]}
    response = add(admin, {"type": kind, "input": given})
    assert response.status_code == 201
    _, task = ended(admin, image["id"])
    assert (task["status"], task["result"]) == ("failure", None)
    assert admin.show(image["id"])["status"] == "queued"


@pytest.mark.parametrize(
    "body",
    [
        [], {}, {"type": "import"}, {"input": {}}, {"type": "x", "input": {}}, {"type": None, "input": {}},
        {"type": "import", "input": None}, {"type": "import", "input": []}, {"type": "import", "input": {}},
        {"type": "import", "input": {}, "x": 1}, importing(""), importing("file:///etc/passwd"),
        importing("filesystem:///etc/passwd"), importing("ftp://127.0.0.1/x"), importing("swift+config://x/"),
        importing("x"), {**importing("http://127.0.0.1/x"), "id": "x"}, {**importing("http://127.0.0.1/x"), "more": 1},
    ],
)  # fmt: skip
def test_orders_that_make_no_sense(placer: Who, body: object) -> None:
    assert add(placer("admin"), body).status_code == 400


@pytest.mark.parametrize("content", [b"", b"{broken", b'"x"', b"1", b"\xff"])
def test_orders_that_are_no_json(placer: Who, content: bytes) -> None:
    assert placer("admin").request("POST", "/v2/tasks", content=content).status_code == 400


@pytest.mark.better_than_glance  # which fails: 500
@pytest.mark.parametrize(
    "body",
    [
        ["type", "input"], importing(5), importing(["http://127.0.0.1/x"]), {"type": "api_image_import", "input": None},
        importing("http://127.0.0.1/x", image_id={"a": 1}), importing("http://127.0.0.1/x", image_id="x" * 37),
        importing("http://127.0.0.1/x", more="x" * 70_000),
    ],
)  # fmt: skip
def test_orders_that_no_column_holds(placer: Who, body: object) -> None:
    assert add(placer("admin"), body).status_code == 400


@pytest.mark.parametrize(
    "url", ["http://2130706433/x", "http://0x7f000001/x", "http://nosuch.invalid/x", "http://10.0.0.1/x"]
)
def test_where_orders_may_not_lead(placer: Who, url: str) -> None:
    """OSSN-0105: an import that begins with a task goes through the same filter as any other."""
    admin = placer("admin")
    refused = add(admin, importing(url))
    assert refused.status_code == 400
    assert "filtering" in refused.text
