"""What the stores of objects have to do beyond the suite of all stores: images in parts, and secrets in logs."""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from glimpse.stores.conformance import BrokenOff, Harness, blocks, read
from glimpse.stores.driver import BLOCK

LARGE = secrets.token_bytes(12 * BLOCK + 4711)  # with parts of 5 MiB there are three, the last one a short one


class InParts:
    """For stores whose parts have at most 5 MiB. A subclass brings the fixture `harness`."""

    @pytest.mark.parametrize("announced", [True, False])
    async def test_parts_become_the_whole(self, harness: Harness, announced: bool) -> None:
        stored = await harness.store.put(str(uuid.uuid4()), blocks(LARGE), len(LARGE) if announced else None)
        assert stored.size == len(LARGE)
        assert await harness.store.stat(stored.url) == len(LARGE)
        assert await read(harness.store, stored.url) == LARGE
        assert await read(harness.store, stored.url, 5 * BLOCK - 3, 7) == LARGE[5 * BLOCK - 3 : 5 * BLOCK + 4]

    async def test_blocks_of_any_length(self, harness: Harness) -> None:
        async def uneven() -> AsyncIterator[bytes]:
            position = 0
            for length in (1, 3 * BLOCK, 17, 6 * BLOCK, len(LARGE)):
                yield LARGE[position : position + length]
                position += length

        stored = await harness.store.put(str(uuid.uuid4()), uneven(), None)
        assert await read(harness.store, stored.url) == LARGE

    async def test_a_stream_that_breaks_between_parts_leaves_nothing(self, harness: Harness) -> None:
        image_id, before = str(uuid.uuid4()), harness.leftovers()
        for size in (len(LARGE), None):
            with pytest.raises(BrokenOff):
                async with aclosing(blocks(LARGE, fail_after=11 * BLOCK)) as stream:  # type: ignore[type-var]
                    await harness.store.put(image_id, stream, size)
            left = harness.leftovers()
        assert left == before, f"{left} instead of {before}"

    async def test_a_put_that_is_cancelled_between_parts_leaves_nothing(self, harness: Harness) -> None:
        image_id, before, enough, over = str(uuid.uuid4()), harness.leftovers(), asyncio.Event(), False

        async def endless() -> AsyncIterator[bytes]:
            nonlocal over
            try:
                for number in range(1000):
                    if number == 11:
                        enough.set()
                    if number > 11:
                        await asyncio.sleep(0.05)
                    yield LARGE[:BLOCK]
            finally:
                over = True

        async with aclosing(endless()) as stream:  # type: ignore[type-var]
            task = asyncio.ensure_future(harness.store.put(image_id, stream, 1000 * BLOCK))
            await enough.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # Closing the stream has not failed: nobody was still reading from it.
        assert over
        left = harness.leftovers()
        assert left == before, f"{left} instead of {before}"

    async def test_many_at_once(self, harness: Harness) -> None:
        images = [LARGE[number:] for number in range(3)]
        stored = await asyncio.gather(*(harness.store.put(str(uuid.uuid4()), blocks(image), None) for image in images))
        assert await asyncio.gather(*(read(harness.store, each.url) for each in stored)) == images

    async def test_a_second_put_meanwhile_is_a_duplicate(self, harness: Harness) -> None:
        image_id = str(uuid.uuid4())
        results = await asyncio.gather(
            *(harness.store.put(image_id, blocks(LARGE), len(LARGE)) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["Duplicate", "Stored"]


def watch_for(caplog: pytest.LogCaptureFixture, *hidden: str) -> None:
    """Fail when one of these is in what was logged at any level."""
    for record in caplog.records:
        text = f"{record.getMessage()} {record.exc_text or ''}"
        assert not [each for each in hidden if each in text], (record.name, record.levelname)


@pytest.fixture
def all_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every logger at DEBUG, as with `debug = true`."""
    caplog.set_level(logging.DEBUG)
    return caplog
