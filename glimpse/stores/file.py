"""Store `file`: images as files in one or several directories (Glance's filesystem store).

    <datadir>/<image id>                     an image, complete and synced
    <datadir>/.<image id>.<token>.part       bytes of an upload that is under way, or that was killed

A file gets its real name only after its bytes are on the disk, by a link that cannot overwrite another.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from oslo_config import cfg

from glimpse.errors import (
    Duplicate,
    Forbidden,
    GlimpseError,
    Gone,
    NotFound,
    SettingsError,
    StoreFull,
    Unavailable,
)
from glimpse.stores.driver import BLOCK, HOLE, Facts, Stored
from glimpse.threads import at_rest

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("filesystem_store_datadir", default="/var/lib/glance/images"),
    cfg.MultiStrOpt("filesystem_store_datadirs", default=[]),
    cfg.StrOpt("filesystem_store_metadata_file"),
    cfg.IntOpt("filesystem_store_file_perm", default=0, help="Octal mode of image files; 0 leaves it to the umask"),
    cfg.IntOpt("filesystem_store_chunk_size", default=64 * 1024, min=1),
    cfg.BoolOpt("filesystem_thin_provisioning", default=False),
    cfg.IntOpt("filesystem_store_timeout", default=0, min=0, help="Seconds that one access may take; 0 for no limit"),
    cfg.IntOpt("filesystem_store_thread_pool_size", default=10, min=1),
]

EARLY = 16 * BLOCK  # bytes after which the disk is told to begin with them

_libc = ctypes.CDLL(None)
_SYNC_FILE_RANGE_WRITE = 2

P = ParamSpec("P")
T = TypeVar("T")


class FileStore:
    """A `driver.Store` on directories, and on any file system with hard links (ext4, xfs, NFS, CephFS, tmpfs)."""

    facts = Facts("file", ("file", "filesystem"), writable=True, ranges=True)

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """Create missing directories. `where` names the section for `SettingsError`."""
        self._directories = _directories(options, where)
        self.details: Mapping[str, Any] = {
            "data_dir": options["filesystem_store_datadir"],
            "chunk_size": options["filesystem_store_chunk_size"],
            "thin_provisioning": options["filesystem_thin_provisioning"],
        }
        self._mode = _mode(options["filesystem_store_file_perm"], where)
        self._metadata = _metadata(options["filesystem_store_metadata_file"], where)
        self._hole = options["filesystem_store_chunk_size"] if options["filesystem_thin_provisioning"] else 0
        self._timeout = options["filesystem_store_timeout"] or None
        self._threads = ThreadPoolExecutor(options["filesystem_store_thread_pool_size"], "file-store")
        self._read_only = not self._prepare()

    def _prepare(self) -> bool:
        """Make the directories; tells whether at least one can be written to."""
        writable = False
        for directory, _ in self._directories:
            with suppress(OSError):
                directory.mkdir(parents=True, exist_ok=True)
                if self._mode is not None:
                    directory.chmod(directory.stat().st_mode | _search_bits(self._mode))
                writable = os.access(directory, os.W_OK | os.X_OK) or writable
        return writable

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One access to the disk, in a thread of this store, so that a hung mount stops nobody else."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))
        if not await at_rest(future, self._timeout):
            raise Unavailable("The store does not answer in time.")
        try:
            return future.result()
        except OSError as error:
            raise _translated(error) from error

    def owns(self, url: str) -> bool:
        try:
            path = Path(os.path.normpath(_path(url)))
        except (NotFound, ValueError):
            return False
        return any(path.is_relative_to(directory) for directory, _ in self._directories)

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        if self._read_only:
            raise Gone("The store cannot be written to.")
        directory = await self._run(self._choose, size)
        part = _Part(directory, image_id)
        complete = False
        try:
            await self._run(part.create)
            written = 0
            async for block in blocks:
                await self._run(part.write, block, self._hole)
                written += len(block)
            await self._run(part.publish, written, self._mode)
            complete = True
        finally:
            # Also when the task is cancelled: the thread cleans up, whatever becomes of this coroutine.
            await asyncio.shield(self._run(part.drop, complete))
        return Stored(part.final.as_uri(), written, self._metadata_of(directory))

    def _choose(self, size: int | None) -> Path:
        """The directory of the highest priority that can be written to and has room; among equals the roomiest."""
        usable = [entry for entry in self._directories if os.access(entry[0], os.W_OK | os.X_OK)]
        if not usable:
            raise Unavailable("The store may not be written to.")
        free = [(priority, _free(directory), directory) for directory, priority in usable]
        fitting = [entry for entry in free if entry[1] >= (size or 0)]
        if not fitting:
            raise StoreFull("The store is full.")
        return max(fitting, key=lambda entry: entry[:2])[2]

    def _metadata_of(self, directory: Path) -> Mapping[str, Any]:
        """What `filesystem_store_metadata_file` says of the mount that holds this directory."""
        for entry in self._metadata:
            if directory.is_relative_to(entry["mountpoint"]):
                return entry
        return {}

    async def open(self, url: str) -> OpenFile:
        return OpenFile(self, await self._run(FileIO, _path(url), "rb"))

    async def stat(self, url: str) -> int | None:
        return await self._run(lambda: _path(url).stat().st_size)

    async def delete(self, url: str) -> None:
        await self._run(_delete, _path(url))

    async def discard(self, image_id: str) -> None:
        await self._run(self._discard, image_id)

    def _discard(self, image_id: str) -> None:
        for directory, _ in self._directories:
            for leftover in [*directory.glob(f".{image_id}.*.part"), directory / image_id]:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # nor is anything in what is none
                    leftover.unlink()

    async def check(self) -> None:
        await self._run(self._check)

    def _check(self) -> None:
        for directory, _ in self._directories:
            os.statvfs(directory)
        if self._read_only:
            raise Gone("The store cannot be written to.")

    async def close(self) -> None:
        self._threads.shutdown(wait=False)


class _Part:
    """An image on its way into a directory. Its methods run in threads, and one of them may be late.

    `drop` has the last word: what publishes after it does nothing, what published before it is taken back.
    """

    def __init__(self, directory: Path, image_id: str) -> None:
        self.final = directory / image_id
        self._path = directory / f".{image_id}.{secrets.token_hex(8)}.part"
        self._lock = threading.Lock()
        self._dropped = False
        self._published = False
        self._unsent = 0  # bytes since the disk was last told to begin with them
        # An object, not a number: a thread that is late finds it closed, never another file under the same number.
        self._output: FileIO | None = None

    def create(self) -> None:
        if self.final.exists():
            raise Duplicate("The store holds data for this image already.")
        with self._lock:
            self._output = None if self._dropped else FileIO(self._path, "xb")

    def _open(self) -> FileIO:
        if self._output is None:
            raise Unavailable("The upload was given up.")
        return self._output

    def write(self, block: bytes, hole: int) -> None:
        """Write a block; what was a hole stays one, and with `hole`, pieces of so many zero bytes become one too."""
        output = self._open()
        if block is HOLE:
            output.seek(len(block), os.SEEK_CUR)
            return
        if not hole:
            _write_all(output, block)
            self._unsent += len(block)
            if self._unsent >= EARLY:
                # Else the disk rests while bytes come, and `publish` waits for all of them.
                _begin_to_sync(output, self._unsent)
                self._unsent = 0
            return
        for start in range(0, len(block), hole):
            piece = block[start : start + hole]
            if piece.count(0) == len(piece):
                output.seek(len(piece), os.SEEK_CUR)
            else:
                _write_all(output, piece)

    def publish(self, size: int, mode: int | None) -> None:
        output = self._open()
        output.truncate(size)  # a hole at the very end has not made the file any longer yet
        if mode is not None:
            os.fchmod(output.fileno(), mode)
        os.fsync(output.fileno())
        with self._lock:
            if self._dropped:
                raise Unavailable("The upload was given up.")
            os.link(self._path, self.final)
            self._published = True
        self._path.unlink()
        _sync_directory(self.final.parent)

    def drop(self, keep: bool) -> None:
        """The end of the upload; only with `keep` does a published image stay."""
        with self._lock:
            self._dropped = True
            if self._output is None:
                return
            self._output.close()
            self._path.unlink(missing_ok=True)
            if self._published and not keep:
                self.final.unlink(missing_ok=True)


class OpenFile:
    """A `driver.Reader` and `driver.FileReader`."""

    def __init__(self, store: FileStore, file: FileIO) -> None:
        self._store = store
        self.file = file
        self.size: int | None = os.fstat(file.fileno()).st_size

    async def stream(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = (self.size or 0) if length is None else offset + length
        while offset < end:
            block = await self._store._run(_read, self.file.fileno(), min(BLOCK, end - offset), offset)
            if not block:
                raise Unavailable("The image data is shorter than it was.")
            offset += len(block)
            yield block

    async def close(self) -> None:
        self.file.close()


def _directories(options: Mapping[str, Any], where: str) -> Sequence[tuple[Path, int]]:
    """(directory, priority) of every place that is configured."""
    several: list[str] = options["filesystem_store_datadirs"]
    if not several:
        return [(Path(options["filesystem_store_datadir"]).absolute(), 0)]
    found: dict[Path, int] = {}
    for entry in several:
        path, _, priority = entry.partition(":")
        try:
            directory, number = Path(path.strip()).absolute(), int(priority or 0)
        except ValueError as error:
            raise SettingsError(
                f"{where} filesystem_store_datadirs: {entry!r}; allowed: path or path:priority"
            ) from error
        if directory in found:
            raise SettingsError(f"{where} filesystem_store_datadirs: {path} is given twice; allowed: different paths")
        found[directory] = number
    return list(found.items())


def _mode(value: int, where: str) -> int | None:
    """The option is written in octal digits: 640 means 0o640."""
    if value <= 0:
        return None
    try:
        mode = int(str(value), 8)
    except ValueError:
        mode = 0
    if not mode & 0o400:
        raise SettingsError(
            f"{where} filesystem_store_file_perm: {value}; allowed: octal, readable by its owner, as 640"
        )
    return mode


def _search_bits(mode: int) -> int:
    """Who may read the files must be able to pass through the directory."""
    return (0o010 if mode & 0o040 else 0) | (0o001 if mode & 0o004 else 0)


def _metadata(path: str | None, where: str) -> list[Mapping[str, Any]]:
    if not path:
        return []
    try:
        loaded = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{where} filesystem_store_metadata_file: {path} cannot be read as JSON") from error
    entries = loaded if isinstance(loaded, list) else [loaded]
    if not all(isinstance(entry, dict) and "id" in entry and "mountpoint" in entry for entry in entries):
        raise SettingsError(
            f"{where} filesystem_store_metadata_file: {path}: every object needs an id and a mountpoint"
        )
    return entries


def _path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme not in FileStore.facts.schemes or not parts.path.startswith("/"):
        raise NotFound("The location is not one of a file store.")
    return Path(unquote(parts.netloc + parts.path) if parts.netloc else unquote(parts.path))


def _write_all(output: FileIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[output.write(view) :]


def _read(descriptor: int, length: int, offset: int) -> bytes:
    """Some bytes of a file; `HOLE` itself where so many of them are in a hole (lseek(2), SEEK_DATA)."""
    if length == BLOCK:
        try:
            data = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: nothing but a hole up to the end.
            data = os.fstat(descriptor).st_size if error.errno == errno.ENXIO else offset
        if data - offset >= BLOCK:
            return HOLE
    return os.pread(descriptor, length, offset)


def _begin_to_sync(output: FileIO, length: int) -> None:
    """Let the kernel begin to write what came last, without waiting for it (sync_file_range(2)); a hint, no more."""
    start = max(0, output.tell() - length)
    _libc.sync_file_range(output.fileno(), ctypes.c_int64(start), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Forbidden("The store refuses to delete the image data.") from error


def _free(directory: Path) -> int:
    try:
        stat = os.statvfs(directory)
    except OSError:
        return -1
    return stat.f_bavail * stat.f_frsize


def _translated(error: OSError) -> GlimpseError:
    match error.errno:
        case errno.ENOENT:
            return NotFound("The store does not hold the image data.")
        case errno.EEXIST:
            return Duplicate("The store holds data for this image already.")
        case errno.ENOSPC | errno.EFBIG | errno.EDQUOT:
            return StoreFull("The store is full.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return Unavailable("The store may not be written to.")
        case _:
            return Unavailable("The store failed to read or write.")
