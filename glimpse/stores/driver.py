"""The store interface: what keeps the bytes of images has to be able to do, and nothing more.

A driver moves bytes between a stream and one storage product. It does not hash, count quotas, inspect or log requests:
that happens once, around the stream, in `images.data`. It asks its product again where that is harmless and may help.
A driver translates its product's failures into `glimpse.errors`; it never lets a path, an address or a credential into
an error's message.

What only some products can do is a protocol each: `PersonalStore`, `SharingStore`, `LendingStore`, `LinkingStore`.

Every driver passes `glimpse.stores.conformance`; its test is the few lines that run that suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from typing import Any, Protocol, runtime_checkable

from glimpse.domain.context import Context

BLOCK = 1 << 20  # bytes in a block, but for the last one of a stream
HOLE = bytes(BLOCK)  # this very object is a block that its source does not store: a store may leave it out as well


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true of a kind of store. `schemes` are those of the URLs it gives out and understands."""

    type: str
    schemes: tuple[str, ...]
    writable: bool
    ranges: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """The result of `put`: where the bytes are, how many, and what clients may know about the place."""

    url: str
    size: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Reader(Protocol):
    """Bytes that are there for sure. `size` is their number, None when the store does not say."""

    size: int | None

    def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """The bytes from `offset`, `length` of them or all that follow.

        An offset other than 0 only where `Facts.ranges` is true. Raises `Unavailable` when the store fails midway.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection or the file. May be called twice."""
        ...


@runtime_checkable
class FileReader(Protocol):
    """A `Reader` whose bytes are a plain file, so that the kernel can send them (sendfile)."""

    @property
    def file(self) -> FileIO:
        """The open file; offsets in the file are offsets in the image."""
        ...


@runtime_checkable
class GrowingReader(FileReader, Protocol):
    """A `FileReader` whose file is still being written."""

    async def beyond(self, offset: int) -> int:
        """Wait until there is more than the first `offset` bytes; how many there are then.

        `offset` itself where the file will not get them: then `stream` has them. Raises what `stream` raises.
        """
        ...


class Store(Protocol):
    """One configured store. Safe for any number of calls at once within one event loop."""

    facts: Facts
    details: Mapping[str, Any]  # what admins may read of its configuration (stores/detail): never a secret

    def owns(self, url: str) -> bool:
        """Whether the URL is in this store's own place, as far as its text tells. Asks nobody."""
        ...

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        """Keep the bytes of an image: all of them, durable when this returns, or none.

        `size` is the expected number of bytes, None when unknown. A failure of `blocks` passes through unchanged.
        Raises `Duplicate` (the store holds bytes for this image), `StoreFull`, `Unavailable` (not now, or write
        permission denied), `Gone` (the store cannot be written to at all).
        """
        ...

    async def open(self, url: str) -> Reader:
        """Open what `put` returned. Raises `NotFound`, `Unavailable`, `Forbidden` before the first byte."""
        ...

    async def stat(self, url: str) -> int | None:
        """The number of bytes there, None when the store does not say. Raises as `open`."""
        ...

    async def delete(self, url: str) -> None:
        """Remove the bytes. Raises `NotFound`, `Forbidden`, `Unavailable`, `Conflict` (in use)."""
        ...

    async def discard(self, image_id: str) -> None:
        """Remove whatever a `put` of this image left behind when its process was killed. Nothing there is fine."""
        ...

    async def check(self) -> None:
        """Raise the reason why the store cannot be used now; return when it can."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


@runtime_checkable
class PersonalStore(Protocol):
    """A store that keeps each image in the account of the image's owner (multi-tenant Swift, Cinder)."""

    def on_behalf_of(self, context: Context | None, owner: str | None) -> Store:
        """The same store for calls about images of the project `owner`; it shares connections, and is not closed.

        `context` is the caller, whose token may be used; None when nobody waits any more, as for the scrubber.
        """
        ...


@runtime_checkable
class SharingStore(Protocol):
    """A store that has to be told which projects may read an image's bytes."""

    async def share(self, url: str, public: bool, readers: Sequence[str]) -> None:
        """Let these projects read, or with `public` all of them, and no others. Raises as `Store.open`."""
        ...


@runtime_checkable
class LendingStore(Protocol):
    """A store on whose bytes others may build without a copy of their own (clones of an RBD image)."""

    async def in_use(self, url: str) -> bool:
        """Whether somebody does, so that `delete` would raise `Conflict`. Raises as `Store.open`."""
        ...


@runtime_checkable
class LinkingStore(Protocol):
    """A store that can let a client read from it directly."""

    async def link(self, url: str, seconds: int) -> str | None:
        """A URL from which anybody can read the bytes for so long; None where there can be none.

        It works as a credential: it goes to the client that asked and nowhere else. Raises as `Store.open`.
        """
        ...
