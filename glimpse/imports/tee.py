"""One stream of blocks into several stores at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from glimpse.errors import GlimpseError
from glimpse.stores.driver import Stored
from glimpse.stores.registry import ConfiguredStore

AHEAD = 4  # blocks that the quickest store may be ahead of the slowest


@dataclass
class _Branch:
    """One store's end of the stream. None in the queue is the end of it, an error is passed on."""

    store: ConfiguredStore
    queue: asyncio.Queue[bytes | BaseException | None] = field(default_factory=lambda: asyncio.Queue(AHEAD))

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        while (block := await self.queue.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block


class _Stopped(Exception):
    """The source has failed, or another store where all have to succeed."""


async def put_in_all(
    stores: Sequence[ConfiguredStore], image_id: str, blocks: AsyncIterator[bytes], size: int | None, must_succeed: bool
) -> tuple[dict[str, Stored], dict[str, GlimpseError]]:
    """What each store has kept, and why others have not, by the stores' ids.

    The stream is read once and runs at the pace of the slowest store; one that fails is left behind. With
    `must_succeed` the first failure ends it all and is raised, as is any failure of `blocks`: then the stores that had
    finished still hold the bytes, the others hold nothing.
    """
    if len(stores) == 1:
        return await _put_in_one(stores[0], image_id, blocks, size, must_succeed)
    branches = {branch.store.id: branch for branch in map(_Branch, stores)}
    puts = {
        name: asyncio.create_task(branch.store.store.put(image_id, branch.blocks(), size))
        for name, branch in branches.items()
    }
    failures: dict[str, GlimpseError] = {}
    try:
        async for block in blocks:
            await _give(block, branches, puts, failures, must_succeed)
        await _give(None, branches, puts, failures, must_succeed)
        for name in branches:
            await _collect(name, puts[name], failures, must_succeed)
    except BaseException:
        await _stop(branches, puts)
        raise
    return {name: put.result() for name, put in puts.items() if name not in failures}, failures


async def _put_in_one(
    store: ConfiguredStore, image_id: str, blocks: AsyncIterator[bytes], size: int | None, must_succeed: bool
) -> tuple[dict[str, Stored], dict[str, GlimpseError]]:
    failed_source: list[GlimpseError] = []

    async def watched() -> AsyncGenerator[bytes, None]:
        try:
            async for block in blocks:
                yield block
        except GlimpseError as error:
            failed_source.append(error)
            raise

    try:
        return {store.id: await store.store.put(image_id, watched(), size)}, {}
    except GlimpseError as error:
        if must_succeed or failed_source:
            raise
        return {}, {store.id: error}


async def _give(
    block: bytes | None, branches: dict[str, _Branch], puts: dict[str, asyncio.Task[Stored]],
    failures: dict[str, GlimpseError], must_succeed: bool,
) -> None:  # fmt: skip
    for name, branch in branches.items():
        if name in failures:
            continue
        if branch.queue.full() and not puts[name].done():
            room = asyncio.create_task(branch.queue.put(block))
            await asyncio.wait({room, puts[name]}, return_when=asyncio.FIRST_COMPLETED)
            if room.done():
                continue
            room.cancel()
        if puts[name].done():
            await _collect(name, puts[name], failures, must_succeed)
            if name in failures:
                if len(failures) == len(branches):
                    raise failures[name]
                continue
        branch.queue.put_nowait(block)


async def _collect(name: str, put: asyncio.Task[Stored], failures: dict[str, GlimpseError], must_succeed: bool) -> None:
    if name in failures:
        return
    try:
        await put
    except GlimpseError as error:
        if must_succeed:
            raise
        failures[name] = error


async def _stop(branches: dict[str, _Branch], puts: dict[str, asyncio.Task[Stored]]) -> None:
    """End every put that still runs, by a failure of its stream: so each of them cleans up in its own way."""
    for name, put in puts.items():
        queue = branches[name].queue
        while not queue.empty():
            queue.get_nowait()
        if not put.done():
            queue.put_nowait(_Stopped())
    await asyncio.wait(puts.values())
    for put in puts.values():
        put.exception()
