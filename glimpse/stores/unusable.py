"""A store that is configured, but lacks a library or credentials: its images stay known, and cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from glimpse.errors import Gone, Unavailable
from glimpse.stores.driver import Facts, Reader, Stored

NOT_SET_UP = "The store is not set up completely; the service's log says what is missing."


class UnusableStore:
    """A `driver.Store` in the place of one that could not be made."""

    def __init__(self, kind: str, schemes: tuple[str, ...]) -> None:
        self.facts = Facts(kind, schemes, writable=False, ranges=False)
        self.details: Mapping[str, Any] = {}

    def owns(self, url: str) -> bool:
        return False

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        raise Gone(NOT_SET_UP)

    async def open(self, url: str) -> Reader:
        raise Unavailable(NOT_SET_UP)

    async def stat(self, url: str) -> int | None:
        raise Unavailable(NOT_SET_UP)

    async def delete(self, url: str) -> None:
        raise Unavailable(NOT_SET_UP)

    async def discard(self, image_id: str) -> None:
        raise Unavailable(NOT_SET_UP)

    async def check(self) -> None:
        raise Unavailable(NOT_SET_UP)

    async def close(self) -> None:
        """There is nothing to let go of."""
