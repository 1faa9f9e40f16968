"""Whoever cleans up after a call in a thread finds it at rest."""

from __future__ import annotations

import asyncio
import threading

import pytest

from glimpse.threads import at_rest


async def test_a_cancelled_task_waits_for_the_thread() -> None:
    begun, go, over = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go.wait(20)
        over.set()

    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(at_rest(loop.run_in_executor(None, call)))
    await asyncio.to_thread(begun.wait)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert over.is_set()


async def test_no_longer_than_was_said() -> None:
    go = threading.Event()
    call = asyncio.get_running_loop().run_in_executor(None, go.wait, 20)
    assert not await at_rest(call, 0.05)
    go.set()
    assert await at_rest(call)
