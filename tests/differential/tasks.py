"""The tasks API: who may ask, which questions and orders make sense. What an order comes to is told in journeys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.steps import UNKNOWN, Scenario, delete, get, post

USERS = ("admin", "member", "reader", "service", "nobody")
WEB = "${web}/file"
QUERIES = (
    "limit=0", "limit=1", "limit=-1", "limit=x", "limit=", "limit=5000", "marker=x", f"marker={UNKNOWN}", "marker=",
    "sort_key=x", "sort_key=", "sort_key=input", "sort_key=id", "sort_key=type", "sort_key=status", "sort_key=owner",
    "sort_key=expires_at", "sort_key=created_at", "sort_key=updated_at", "sort_key=image_id", "sort_dir=x", "sort_dir=",
    "sort_dir=asc", "sort_dir=desc", "status=x", "status=pending", "status=failure", "type=x", "type=import",
    "type=api_image_import", "type=location_import", "owner=x", f"id={UNKNOWN}", "image_id=x", "user_id=x",
    "request_id=x", "deleted=true", "nothing=x", "created_at=2020-01-01T00:00:00Z", "limit=1&nothing=x&owner=y",
)  # fmt: skip
BODIES: tuple[Any, ...] = (
    None, [], {}, "x", {"type": "import"}, {"input": {}}, {"type": "x", "input": {}}, {"type": None, "input": {}},
    {"type": "import", "input": None}, {"type": "import", "input": []}, {"type": "import", "input": "x"},
    {"type": "import", "input": {}}, {"type": "import", "input": {}, "more": 1},
    *({"type": "import", "input": {"import_from": url}} for url in (
        "", "x", "http", "file:///etc/passwd", "filesystem:///etc/passwd", "ftp://127.0.0.1/x", "swift+config://x/y",
        "HTTP://127.0.0.1/x", "http://", "http://2130706433/x", "http://0x7f000001/x", "http://nosuch.invalid/x",
    )),
    {"type": "import", "input": {"import_from": WEB}, "id": "x"},
    {"type": "import", "input": {"import_from": WEB}, "status": "x"},
    {"type": "import", "input": {"import_from": WEB}, "message": 1},
)  # fmt: skip
TAKEN: tuple[Any, ...] = (
    {"type": "import", "input": {"import_from": WEB}},
    {"type": "import", "input": {"import_from": WEB, "image_id": UNKNOWN, "\U0001f4bf": ["ü"]}},
    {"type": "import", "input": {"import_from": WEB}, "id": UNKNOWN, "status": "success", "message": "x", "owner": "x"},
    {"type": "api_image_import", "input": {}},
    {"type": "location_import", "input": {"image_id": UNKNOWN}},
)


def scenarios() -> Iterator[Scenario]:
    """All of them."""
    yield Scenario("tasks by whom", [
        step
        for user in USERS
        for step in (
            get("/v2/tasks", user), get("/v2/tasks?limit=x", user), get(f"/v2/tasks/{UNKNOWN}", user),
            get("/v2/tasks/x", user), delete(f"/v2/tasks/{UNKNOWN}", user), post("/v2/tasks", user, json={}),
            post("/v2/tasks", user, body=b"{"),
        )
    ])  # fmt: skip
    yield Scenario("lists of tasks", [get(f"/v2/tasks?{query}", "admin") for query in QUERIES])
    yield Scenario("orders of tasks", [post("/v2/tasks", "admin", json=body) for body in BODIES + TAKEN])
