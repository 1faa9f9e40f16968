"""What every store has to do: the suite that a driver's test runs.

    class TestFileStore(ReadableStore, WritableStore):
        @pytest.fixture
        def harness(self, tmp_path): ...

A driver that cannot write leaves `WritableStore` out and says so with `Facts.writable`. The suite ships with the
package, so that a driver from outside proves itself with the same lines.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from glimpse.errors import Duplicate, Gone, NotFound
from glimpse.stores.driver import BLOCK, FileReader, Store


@dataclass
class Harness:
    """A store under test. `place` puts bytes there by another way and returns their URL; `missing` is a URL of the
    store's own kind with nothing behind it; `leftovers` counts everything the store keeps, finished or not."""

    store: Store
    place: Callable[[bytes], Awaitable[str]]
    missing: str
    leftovers: Callable[[], int]


class BrokenOff(Exception):
    """What a stream raises in these tests when its client has gone."""


async def blocks(content: bytes, fail_after: int | None = None) -> AsyncIterator[bytes]:
    """`content` in blocks; with `fail_after` it breaks off behind that many bytes."""
    for start in range(0, len(content), BLOCK):
        if fail_after is not None and start >= fail_after:
            raise BrokenOff
        yield content[start : start + BLOCK]


async def read(store: Store, url: str, offset: int = 0, length: int | None = None) -> bytes:
    """What the store gives back."""
    reader = await store.open(url)
    try:
        return b"".join([block async for block in reader.stream(offset, length)])
    finally:
        await reader.close()


CONTENTS = [b"", b"x", secrets.token_bytes(4097), secrets.token_bytes(2 * BLOCK + 17), bytes(BLOCK) + b"end"]


class ReadableStore:
    """For every store. A subclass brings the fixture `harness`."""

    @pytest.mark.parametrize("content", CONTENTS, ids=len)
    async def test_gives_back_what_is_there(self, harness: Harness, content: bytes) -> None:
        url = await harness.place(content)
        assert await read(harness.store, url) == content
        assert await harness.store.stat(url) in (len(content), None)

    async def test_knows_what_is_not_its_own(self, harness: Harness) -> None:
        for url in ("", "x", "nothing://x/y", "file:///etc/passwd", "http//x", "file://[", "http:"):
            assert not harness.store.owns(url)

    async def test_open_knows_the_size(self, harness: Harness) -> None:
        reader = await harness.store.open(await harness.place(b"12345"))
        assert reader.size in (5, None)
        await reader.close()
        await reader.close()

    async def test_missing_bytes_are_not_found_before_the_first_byte(self, harness: Harness) -> None:
        with pytest.raises(NotFound):
            await harness.store.open(harness.missing)
        with pytest.raises(NotFound):
            await harness.store.stat(harness.missing)

    async def test_ranges_where_the_store_has_them(self, harness: Harness) -> None:
        content = secrets.token_bytes(BLOCK + 100)
        url = await harness.place(content)
        if harness.store.facts.ranges:
            assert await read(harness.store, url, 7, 10) == content[7:17]
            assert await read(harness.store, url, BLOCK - 3, 50) == content[BLOCK - 3 : BLOCK + 47]
            assert await read(harness.store, url, BLOCK, None) == content[BLOCK:]
        else:
            assert await read(harness.store, url, 0, 10) == content[:10]

    async def test_a_file_that_it_offers_holds_the_same_bytes(self, harness: Harness) -> None:
        reader = await harness.store.open(await harness.place(b"0123456789"))
        if isinstance(reader, FileReader):
            assert reader.file.read() == b"0123456789"
        await reader.close()

    async def test_many_readers_at_once(self, harness: Harness) -> None:
        content = secrets.token_bytes(3 * BLOCK)
        url = await harness.place(content)
        assert await asyncio.gather(*(read(harness.store, url) for _ in range(8))) == [content] * 8

    async def test_check_and_close(self, harness: Harness) -> None:
        await harness.store.check()

    async def test_a_store_that_cannot_be_written_to_says_gone(self, harness: Harness) -> None:
        if not harness.store.facts.writable:
            with pytest.raises(Gone):
                await harness.store.put(str(uuid.uuid4()), blocks(b"x"), 1)


class WritableStore:
    """For stores that take bytes."""

    @pytest.mark.parametrize("content", CONTENTS, ids=len)
    @pytest.mark.parametrize("announced", [True, False])
    async def test_put_and_read(self, harness: Harness, content: bytes, announced: bool) -> None:
        stored = await harness.store.put(str(uuid.uuid4()), blocks(content), len(content) if announced else None)
        assert stored.size == len(content)
        assert stored.url.partition("://")[0] in harness.store.facts.schemes
        assert harness.store.owns(stored.url)
        assert await read(harness.store, stored.url) == content

    async def test_a_second_put_is_refused_and_changes_nothing(self, harness: Harness) -> None:
        image_id = str(uuid.uuid4())
        stored = await harness.store.put(image_id, blocks(b"first"), 5)
        with pytest.raises(Duplicate):
            await harness.store.put(image_id, blocks(b"other"), 5)
        assert await read(harness.store, stored.url) == b"first"

    async def test_a_broken_stream_leaves_nothing(self, harness: Harness) -> None:
        image_id, content, before = str(uuid.uuid4()), secrets.token_bytes(3 * BLOCK), harness.leftovers()
        with pytest.raises(BrokenOff):
            async with aclosing(blocks(content, fail_after=BLOCK)) as stream:  # type: ignore[type-var]
                await harness.store.put(image_id, stream, len(content))
        assert harness.leftovers() == before
        stored = await harness.store.put(image_id, blocks(content), len(content))
        assert await read(harness.store, stored.url) == content

    async def test_a_cancelled_put_leaves_nothing(self, harness: Harness) -> None:
        before = harness.leftovers()
        first = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(BLOCK)
                first.set()
                await asyncio.sleep(0.01)

        task = asyncio.create_task(harness.store.put(str(uuid.uuid4()), endless(), None))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert harness.leftovers() == before

    async def test_one_of_two_puts_at_once_wins(self, harness: Harness) -> None:
        image_id, contents = str(uuid.uuid4()), [secrets.token_bytes(BLOCK + 1), secrets.token_bytes(BLOCK + 2)]
        results = await asyncio.gather(
            *(harness.store.put(image_id, blocks(content), len(content)) for content in contents),
            return_exceptions=True,
        )
        won = [result for result in results if not isinstance(result, BaseException)]
        assert len(won) == 1
        assert all(isinstance(result, Duplicate) for result in results if isinstance(result, BaseException))
        assert await read(harness.store, won[0].url) == contents[results.index(won[0])]

    async def test_delete(self, harness: Harness) -> None:
        before = harness.leftovers()
        stored = await harness.store.put(str(uuid.uuid4()), blocks(b"x"), 1)
        await harness.store.delete(stored.url)
        assert harness.leftovers() == before
        with pytest.raises(NotFound):
            await harness.store.delete(stored.url)
        with pytest.raises(NotFound):
            await harness.store.open(stored.url)

    async def test_discard_of_nothing_is_fine(self, harness: Harness) -> None:
        await harness.store.discard(str(uuid.uuid4()))

    async def test_discard_removes_what_a_put_left(self, harness: Harness) -> None:
        before, image_id = harness.leftovers(), str(uuid.uuid4())
        await harness.store.put(image_id, blocks(b"x"), 1)
        await harness.store.discard(image_id)
        assert harness.leftovers() == before
