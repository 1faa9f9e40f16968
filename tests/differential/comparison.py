"""What is the same: two answers without what must differ (ids, times, addresses), and what is left between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.differential.play import Answer, Side
from tests.differential.steps import ABSENT, Step

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_EXACT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
# Ids that a scenario chose itself are left alone: they are the same on both sides.
_ID = re.compile(r"[0-9a-f]{8}-(?!0000-4000-8000-)[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_HEADERS = ("location", "accept-patch", "content-md5", "content-range", "www-authenticate", "retry-after")
_UNORDERED = ("objects", "members", "tags", "resource_types", "resource_type_associations", "tasks", "required", "enum")
MISSING = "(missing)"


@dataclass(frozen=True)
class Difference:
    """One place in two answers: `status`, `header name`, `body` or a path into it like `body.images[0].name`."""

    where: str
    glance: Any
    glimpse: Any

    def __str__(self) -> str:
        return f"{self.where}: Glance {_short(self.glance)}, Glimpse {_short(self.glimpse)}"


def compare(step: Step, sides: tuple[Side, Side], answers: tuple[Answer, Answer]) -> list[Difference]:
    """All differences between Glance's answer (first) and Glimpse's; with different statuses, that is the only one."""
    theirs, ours = answers
    if theirs.status != ours.status:
        return [Difference("status", _told(theirs), _told(ours))]
    found = list(_headers(sides, answers))
    if step.method == "HEAD" or not theirs.body + ours.body:  # no body, so no form of one
        return found
    if theirs.content_type != ours.content_type:
        found.append(Difference("header content-type", theirs.content_type, ours.content_type))
    elif theirs.status >= 400:
        found += _forms(theirs, ours)
    else:
        documents = [_masked(answer.json(), side) for side, answer in zip(sides, answers, strict=True)]
        if ABSENT in documents:
            found += _unequal("body", theirs.body, ours.body)
        else:
            keep_order = "/metadefs/" in step.path and "sort_key=" in step.path
            found += _inside("body", *(_sorted(document, keep_order) for document in documents))
    return found


def _told(answer: Answer) -> str:
    """The status with what was said about it, to see at once what is at odds."""
    text = re.sub(r"<[^>]*>|\s+", " ", answer.body.decode(errors="replace"))
    return f"{answer.status} ({text.strip()[:160]})"


def _headers(sides: tuple[Side, Side], answers: tuple[Answer, Answer]) -> Iterator[Difference]:
    names = {name for answer in answers for name in answer.headers if name.startswith("openstack-image-")}
    for name in sorted({*_HEADERS, *names}):
        values = [_masked(answer.headers.get(name, MISSING), side) for side, answer in zip(sides, answers, strict=True)]
        yield from _unequal(f"header {name}", *values)
    allowed = [sorted(re.split(r",\s*", answer.headers.get("allow", MISSING))) for answer in answers]
    yield from _unequal("header allow", *allowed)
    ids = [answer.headers.get("x-openstack-request-id", MISSING)[:4] for answer in answers]
    yield from _unequal("header x-openstack-request-id", *ids)


def _forms(theirs: Answer, ours: Answer) -> list[Difference]:
    """The words of an error are ours, its form is not."""
    one, other = theirs.json(), ours.json()
    if not isinstance(one, dict) or not isinstance(other, dict):
        return []
    return list(_inside("body", {**one, "message": bool(one.get("message"))},
                        {**other, "message": bool(other.get("message"))}))  # fmt: skip


def _unequal(where: str, one: Any, other: Any) -> list[Difference]:
    return [] if one == other and type(one) is type(other) else [Difference(where, one, other)]


def _inside(where: str, one: Any, other: Any) -> Iterator[Difference]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _inside(f"{where}.{key}", one.get(key, MISSING), other.get(key, MISSING))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _inside(f"{where}[{number}]", *pair)
    else:
        yield from _unequal(where, one, other)


def _masked(value: Any, side: Side) -> Any:
    if isinstance(value, dict):
        return {_masked(key, side): _masked(inner, side) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, side) for inner in value]
    if not isinstance(value, str):
        return value
    if _TIME.fullmatch(value):
        return "<time>"
    if _EXACT_TIME.fullmatch(value):
        return "<exact time>"
    for name, known in side.ids.items():
        value = value.replace(known, f"<{name}>")
    value = value.replace(side.url, "<url>").replace(side.folder, "<folder>")
    return _ID.sub("<id>", value)


def _sorted(value: Any, keep_order: bool) -> Any:
    """Lists that are sets in a fixed order; also lists whose order is that of times which may be the same."""
    if isinstance(value, list):
        return [_sorted(inner, keep_order) for inner in value]
    if not isinstance(value, dict):
        return value
    value = {key: _sorted(inner, keep_order) for key, inner in value.items()}
    for key in _UNORDERED:
        if isinstance(value.get(key), list) and not (keep_order and key in ("tags", "objects")):
            value[key] = sorted(value[key], key=_rank)
    return value


def _rank(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("name") or item.get("member_id") or item.get("id") or "")
    return str(item)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
