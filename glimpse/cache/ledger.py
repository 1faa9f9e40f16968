"""What is known of the copies beside their bytes: checksum, hits, times. In the database, or with the files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from glimpse.cache.directory import Directory
from glimpse.cache_settings import CacheSettings
from glimpse.db import cached
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.record import Copy
from glimpse.errors import SettingsError

_HITS, _CHECKSUM = "user.hits", "user.checksum"


class Ledger(Protocol):
    """The copies of this node. Called in threads."""

    def put(self, copy: Copy, file: int) -> None:
        """Note a new copy, whose file is open under that number."""
        ...

    def get(self, image_id: str) -> Copy | None:
        """A copy; None where nothing is known of it."""
        ...

    def all(self) -> list[Copy]:
        """Every copy that is known."""
        ...

    def hit(self, counts: Mapping[str, int], when: datetime) -> None:
        """Copies were asked for, each so many times."""
        ...

    def remove(self, image_ids: Iterable[str]) -> None:
        """Forget copies."""
        ...


class RowLedger:
    """In the database, where other nodes see it (image_cache_driver = centralized_db). Raises `Unavailable`."""

    def __init__(self, database: Database, node: str) -> None:
        self._database, self._node = database, node

    def put(self, copy: Copy, file: int) -> None:
        self._database.write(lambda connection: cached.put(connection, self._node, copy))

    def get(self, image_id: str) -> Copy | None:
        return self._database.read(lambda connection: cached.get(connection, self._node, image_id))

    def all(self) -> list[Copy]:
        return self._database.read(lambda connection: cached.copies(connection, self._node))

    def hit(self, counts: Mapping[str, int], when: datetime) -> None:
        self._database.write(lambda connection: cached.hit(connection, self._node, counts, when))

    def remove(self, image_ids: Iterable[str]) -> None:
        ids = list(image_ids)
        self._database.write(lambda connection: cached.remove(connection, self._node, ids))


class FileLedger:
    """With the files: their size and times, and extended attributes (image_cache_driver = xattr or sqlite)."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def put(self, copy: Copy, file: int) -> None:
        os.setxattr(file, _HITS, str(copy.hits).encode())
        os.setxattr(file, _CHECKSUM, (copy.checksum or "").encode())

    def get(self, image_id: str) -> Copy | None:
        path = self._directory.copy(image_id)
        try:
            facts = path.stat()
            hits, checksum = os.getxattr(path, _HITS), os.getxattr(path, _CHECKSUM)
        except OSError:
            return None
        return Copy(
            image_id=image_id,
            size=facts.st_size,
            checksum=checksum.decode() or None,
            last_accessed=_moment(facts.st_atime),
            last_modified=_moment(facts.st_mtime),
            hits=int(hits),
        )

    def all(self) -> list[Copy]:
        return [copy for image_id in self._directory.held() if (copy := self.get(image_id)) is not None]

    def hit(self, counts: Mapping[str, int], when: datetime) -> None:
        seconds = int(lifecycle.epoch(when))
        for image_id, count in counts.items():
            with suppress(OSError), self._directory.copy(image_id).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # other processes count too
                number = file.fileno()
                os.setxattr(number, _HITS, str(int(os.getxattr(number, _HITS)) + count).encode())
                os.utime(number, ns=(seconds * 10**9, os.fstat(number).st_mtime_ns))

    def remove(self, image_ids: Iterable[str]) -> None:
        """What is known went with the file."""


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None)


def open_ledger(settings: CacheSettings, directory: Directory, database: Database) -> Ledger:
    """The ledger that `image_cache_driver` names."""
    if settings.driver == "centralized_db":
        return RowLedger(database, settings.node)
    return FileLedger(directory)


def prepare(settings: CacheSettings) -> None:
    """Make the directories, and see whether the driver can work there. Raises `SettingsError`."""
    directory = Directory(settings.directory)
    try:
        directory.prepare()
    except OSError as error:
        raise SettingsError(f"[DEFAULT] image_cache_dir: {settings.directory}: {error.strerror}") from error
    if settings.driver != "centralized_db":
        try:
            os.setxattr(directory.root, _HITS, b"0")
        except OSError as error:
            raise SettingsError(
                f"[DEFAULT] image_cache_driver: {settings.directory} is on a file system without extended attributes;"
                " allowed there: centralized_db"
            ) from error
