"""A driver as another package may bring it, for glance_store: bytes in memory, and failures on demand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from glance_store import exceptions, location
from glance_store.capabilities import BitMasks
from glance_store.driver import Store
from oslo_config import cfg


class StoreLocation(location.StoreLocation):  # type: ignore[misc]
    """`memory://<name>`."""

    def parse_uri(self, uri: str) -> None:
        self.validate_schemas(uri, valid_schemas=("memory://",))
        self.name = uri.removeprefix("memory://")

    def get_uri(self) -> str:
        return f"memory://{self.name}"


class MemoryDriver(Store):  # type: ignore[misc]
    """What is kept, and what fails, is of the class: tests see it."""

    _CAPABILITIES = BitMasks.RW_ACCESS | BitMasks.DRIVER_REUSABLE
    OPTIONS = (cfg.StrOpt("memory_name", default="plain"), cfg.IntOpt("memory_size", default=100))
    kept: ClassVar[dict[str, bytes]] = {}
    reads: ClassVar[int | None] = None  # bytes that `add` reads; None for all
    fails: ClassVar[dict[str, Exception]] = {}  # by the name of the call
    loses: ClassVar[int] = 0  # bytes that are missing at the end of `get`
    closed: ClassVar[list[str]] = []
    callers: ClassVar[list[Any]] = []
    opened: ClassVar[list[Any]] = []  # holds them, so that nobody else closes them

    @classmethod
    def forget(cls) -> None:
        cls.kept, cls.fails, cls.closed, cls.callers, cls.opened = {}, {}, [], [], []
        cls.reads, cls.loses, cls._CAPABILITIES = None, 0, BitMasks.RW_ACCESS | BitMasks.DRIVER_REUSABLE

    def get_schemes(self) -> tuple[str, ...]:
        return ("memory",)

    def configure_add(self) -> None:
        self._fail("configure")

    def _fail(self, call: str) -> None:
        if call in self.fails:
            raise self.fails[call]

    def add(
        self, image_id: str, image_file: Any, image_size: int, hashing_algo: str, context: Any = None,
        verifier: Any = None,
    ) -> tuple[Any, ...]:  # fmt: skip
        self.callers.append(context)
        begin = image_file.read(10)
        self._fail("add")
        content = begin + image_file.read(-1 if self.reads is None else self.reads - len(begin))
        self.kept[image_id] = content
        return f"memory://{image_id}", len(content), "md5", "hash", {"store": "one"}

    def get(self, location: Any, offset: int = 0, chunk_size: int | None = None, context: Any = None) -> Any:
        self._fail("get")
        content = self._content(location)

        def chunks() -> Iterator[bytes]:
            try:
                yield content[:4]
                self._fail("read")
                yield content[4 : len(content) - self.loses]
            finally:
                self.closed.append(location.get_store_uri())

        opened = chunks()
        self.opened.append(opened)
        next(opened)  # as drivers do that look before they promise
        return _Rest(content[:4], opened), len(content)

    def _content(self, location: Any) -> bytes:
        try:
            return self.kept[location.store_location.name]
        except KeyError:
            raise exceptions.NotFound(image="password=hunter2") from None

    def get_size(self, location: Any, context: Any = None) -> int:
        self._fail("get_size")
        return len(self._content(location))

    def delete(self, location: Any, context: Any = None) -> None:
        self._fail("delete")
        self._content(location)
        del self.kept[location.store_location.name]


class _Rest:
    def __init__(self, first: bytes, rest: Iterator[bytes]) -> None:
        self._first, self.wrapped = first, rest

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self.wrapped
