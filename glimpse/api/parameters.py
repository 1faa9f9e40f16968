"""Query parameters that several lists have in common. Every function raises `BadRequest` with the parameter's name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import urlencode

from multidict import MultiMapping

from glimpse.domain.schema import require_storable
from glimpse.errors import BadRequest
from glimpse.settings import Settings

BIG_MAX = 2**63 - 1  # what a BIGINT column holds


def check_storable(query: MultiMapping[str]) -> None:
    """Refuse text that no column can hold: comparing with it fails on some databases."""
    require_storable(*(text for pair in query.items() for text in pair))


def one(query: MultiMapping[str], name: str) -> str | None:
    """A parameter that counts once: of several the last, as with Glance. None without it."""
    found = query.getall(name, None)
    return found[-1] if found else None


def limit(query: MultiMapping[str], settings: Settings) -> int:
    """How many items a page may have (options limit_param_default and api_limit_max)."""
    text = one(query, "limit")
    if text is None:
        return min(settings.limit_param_default, settings.api_limit_max)
    number = integer(text, "limit")
    if number < 0:
        raise BadRequest("limit must not be negative")
    return min(number, settings.api_limit_max)


def integer(text: str, name: str) -> int:
    """A whole number; one that no column holds becomes the nearest that a column does."""
    # Python reads "1_0" and digits of other scripts too.
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text.strip()):
        raise BadRequest(f"{name} must be an integer, not {text[:64]!r}")
    return max(-BIG_MAX - 1, min(int(text), BIG_MAX))


def one_of(query: MultiMapping[str], name: str, allowed: tuple[str, ...]) -> str | None:
    """A parameter that has few values; None without it."""
    value = one(query, name)
    if value is not None and value not in allowed:
        raise BadRequest(f"Invalid {name} value {value[:64]!r}; allowed: {', '.join(allowed)}")
    return value


def time(text: str, name: str) -> datetime:
    """A time of ISO 8601, as columns keep it: UTC without zone."""
    try:
        # A plus sign in a query string arrives as a blank.
        when = datetime.fromisoformat(text.strip().replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
        return when if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"Invalid time {text[:64]!r} in filter {name}; ISO 8601 is wanted.") from error


def page_link(path: str, query: MultiMapping[str], marker: str | None = None) -> str:
    """A page's link, with every parameter of the call; repeated ones stay repeated."""
    pairs = [(name, value) for name, value in query.items() if name != "marker"]
    if marker is not None:
        pairs.append(("marker", marker))
    return f"{path}?{urlencode(pairs)}" if pairs else path
