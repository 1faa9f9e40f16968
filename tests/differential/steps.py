"""What is sent: a scenario is a list of steps, a step is one request of one user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

PATCH_21: Final = "application/openstack-images-v2.1-json-patch"
PATCH_20: Final = "application/openstack-images-v2.0-json-patch"
OCTETS: Final = "application/octet-stream"

ABSENT: Final = object()

# Who asks: the user and the project in Keystone, or nobody.
USERS: Final[Mapping[str, tuple[str, str] | None]] = {
    "admin": ("admin", "admin"),
    "member": ("demo", "demo"),
    "reader": ("demo_reader", "demo"),
    "stranger": ("alt", "alt"),
    "here": ("two", "demo"),  # one user, two projects
    "there": ("two", "alt"),
    "service": ("compute", "service"),
    "nobody": None,
}

# An id that no image has; also what a placeholder becomes when the step that should have filled it was refused.
UNKNOWN: Final = "99999999-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Step:
    """One request. `${name}` in path, headers and JSON stands for something known by then (`play.Side.known`).

    `keep` names what the answer has at `key`, for later steps. `json` is sent as JSON, `body` as it is.
    """

    user: str
    method: str
    path: str
    json: Any = ABSENT
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: str = ""
    key: str = "id"

    def __str__(self) -> str:
        more = "" if self.json is ABSENT else f" {self.json!r}"
        more += "" if self.body is None else f" {self.body[:200]!r}"
        headers = f" {dict(self.headers)}" if self.headers else ""
        text = f"{self.user}: {self.method} {self.path}{headers}{more}"
        return text if len(text) <= 400 else f"{text[:400]}…"


@dataclass(frozen=True)
class Settle:
    """Not a request: gives every image and every namespace a time of its own, a minute apart in the order of id or
    name, so that sorting by time and filters on times have one right answer."""


@dataclass(frozen=True)
class Scenario:
    """Steps one after the other, on empty databases. A chained one ends at the first different status, because
    what follows depends on it."""

    name: str
    steps: Sequence[Step | Settle]
    chained: bool = False


def fixed(number: int) -> str:
    """An id that a scenario chooses itself, so that both sides have the same."""
    return f"{number:08d}-0000-4000-8000-000000000000"


def get(path: str, user: str = "member", **more: Any) -> Step:
    """GET."""
    return Step(user, "GET", path, **more)


def create(user: str = "member", keep: str = "", **fields: Any) -> Step:
    """POST /v2/images with these fields."""
    return Step(user, "POST", "/v2/images", json=fields, keep=keep)


def ready(user: str = "member", keep: str = "", **fields: Any) -> Step:
    """POST /v2/images of something that takes data."""
    return create(user, keep, **{"disk_format": "raw", "container_format": "bare", **fields})


def upload(image: str, user: str = "member", data: bytes = b"content") -> Step:
    """PUT file."""
    return Step(user, "PUT", f"/v2/images/{image}/file", body=data, headers={"Content-Type": OCTETS})


def patch(image: str, operations: Any, user: str = "member", media: str = PATCH_21) -> Step:
    """PATCH image."""
    return Step(user, "PATCH", f"/v2/images/{image}", json=operations, headers={"Content-Type": media})


def show(image: str, user: str = "member") -> Step:
    """GET image."""
    return get(f"/v2/images/{image}", user)


def delete(path: str, user: str = "member", **more: Any) -> Step:
    """DELETE of anything."""
    return Step(user, "DELETE", path, **more)


def post(path: str, user: str = "member", json: Any = ABSENT, **more: Any) -> Step:
    """POST of anything."""
    return Step(user, "POST", path, json=json, **more)


def put(path: str, user: str = "member", json: Any = ABSENT, **more: Any) -> Step:
    """PUT of anything."""
    return Step(user, "PUT", path, json=json, **more)


def encoded(text: str) -> str:
    """Text as it stands in a path or a query."""
    return quote(text, safe="")
