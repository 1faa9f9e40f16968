"""Threads for calls that wait for another service: one that hangs must not stop what needs none of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from glimpse.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

QUEUE = 256  # calls that wait for a thread before more are turned away


class WaitingThreads:
    """So many threads, which wait for `whom` (for people: "the identity service")."""

    def __init__(self, name: str, threads: int, whom: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._whom = whom
        self._waiting = 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A blocking call in one of the threads; also finished for a cancelled task. Raises `Unavailable`."""
        if self._waiting >= QUEUE:
            raise Unavailable(f"Too many calls wait for {self._whom}; try again in a moment.", {"Retry-After": "5"})
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Take no more calls; those that run are not waited for."""
        self._threads.shutdown(wait=False)
