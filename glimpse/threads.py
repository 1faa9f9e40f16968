"""Calls in threads, which nobody can stop once they have begun."""

from __future__ import annotations

import asyncio
from typing import Any


async def at_rest(call: asyncio.Future[Any], seconds: float | None = None) -> bool:
    """Wait until a call in a thread is over, for no longer than `seconds`; tells whether it is.

    A cancelled task waits for it just so before it goes on: whoever cleans up next must find the thread at rest.
    """
    try:
        await asyncio.wait([call], timeout=seconds)
    except asyncio.CancelledError:
        await asyncio.wait([call], timeout=seconds)
        raise
    return call.done()
