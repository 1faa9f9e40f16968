"""The directory of the cache, laid out as Glance does.

<directory>/<image id>               a copy: whole, checked, synced
<directory>/incomplete/<image id>    one that is being filled, or that a killed process left
<directory>/invalid/<image id>       one that turned out not to be what the record says; kept to be looked at
<directory>/queue/<image id>         an empty file: the image is to be fetched
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glimpse.errors import NotFound

_NAME = re.compile(r"[0-9A-Za-z_-]{1,36}")


class Directory:
    """The cache's files by the ids of their images. Methods raise `OSError`, and `NotFound` for what can be no id."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self._incomplete, self._invalid, self._queue = (self.root / name for name in ("incomplete", "invalid", "queue"))

    def prepare(self) -> None:
        """Make the directories that are missing."""
        for folder in (self._incomplete, self._invalid, self._queue):
            folder.mkdir(parents=True, exist_ok=True)

    def copy(self, image_id: str) -> Path:
        """Where the copy of an image is."""
        return self.root / _name(image_id)

    def incomplete(self, image_id: str) -> Path:
        """Where it is while it is being filled."""
        return self._incomplete / _name(image_id)

    def held(self) -> dict[str, os.stat_result]:
        """Every copy by its image's id."""
        return _files(self.root)

    def is_filling(self, image_id: str) -> bool:
        """Whether a copy is on its way, or was."""
        return self.incomplete(image_id).exists()

    def reject(self, image_id: str) -> None:
        """Put a copy that was being filled where it is never served from."""
        os.replace(self.incomplete(image_id), self._invalid / _name(image_id))

    def drop(self, image_id: str) -> bool:
        """Remove the copy and what is being filled; tells whether there was a copy."""
        self.incomplete(image_id).unlink(missing_ok=True)
        try:
            self.copy(image_id).unlink()
        except FileNotFoundError:
            return False
        return True

    def queued(self) -> list[str]:
        """The ids of the images to fetch, those that wait longest first."""
        waiting = _files(self._queue)
        return sorted(waiting, key=lambda image_id: (waiting[image_id].st_mtime_ns, image_id))

    def queue(self, image_id: str) -> None:
        """Have an image fetched."""
        (self._queue / _name(image_id)).touch()

    def unqueue(self, image_id: str) -> bool:
        """Not any more; tells whether it was to be fetched."""
        try:
            (self._queue / _name(image_id)).unlink()
        except FileNotFoundError:
            return False
        return True

    def clean(self, stall_time: int) -> None:
        """Remove what is invalid, and what nobody fills and nobody has gone on filling for `stall_time` seconds."""
        for image_id in _files(self._invalid):
            (self._invalid / image_id).unlink(missing_ok=True)
        for image_id, facts in _files(self._incomplete).items():
            if facts.st_mtime <= time.time() - stall_time:
                _unlink_unless_locked(self._incomplete / image_id)

    def unusable(self) -> int:
        """The bytes of what is invalid or not complete."""
        return sum(facts.st_size for folder in (self._invalid, self._incomplete) for facts in _files(folder).values())

    def free(self) -> int:
        """The bytes that the file system has left for us."""
        facts = os.statvfs(self.root)
        return facts.f_bavail * facts.f_frsize

    @contextmanager
    def locked(self, wait: bool) -> Iterator[bool]:
        """Nobody else on this node tidies up meanwhile; False for who does not want to wait and would have to."""
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(folder)

    def sync(self) -> None:
        """Have the names on the disk."""
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _name(image_id: str) -> str:
    """The id as a file's name; it may come from a URL."""
    if _NAME.fullmatch(image_id) is None or image_id in ("incomplete", "invalid", "queue", "prefetching"):
        raise NotFound("There is no image with such an ID.")
    return image_id


def _files(folder: Path) -> dict[str, os.stat_result]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            # Other names are somebody else's: lost+found, and cache.db of Glance's older driver.
            if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    found[entry.name] = entry.stat(follow_symlinks=False)
    return found


def _unlink_unless_locked(path: Path) -> None:
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
