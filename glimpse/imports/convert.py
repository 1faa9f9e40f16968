"""Images from one disk format to another, by qemu-img, which is shown nothing before it has been looked at.

qemu-img follows what is written in an image: names of other files, tables without end. So the content is inspected
first, then qemu-img is asked what it sees, and only then it converts; each time as a process of its own with limits on
processor time, memory, size of files and time. Source of the rules: OSSA-2015-014 and OSSA-2024-001 (backing files and
data files), OSSA-2016-012 (images that exhaust qemu-img), OSSA-2023-002 (VMDK with extents elsewhere).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glimpse.domain.formats import Detector
from glimpse.errors import GlimpseError, SettingsError, StoreFull, TooLarge, Unavailable, UnsupportedMediaType
from glimpse.settings import FormatSettings, Settings

LOG = logging.getLogger(__name__)

PLUGIN = "image_conversion"

# disk_format to qemu-img's name. What is not here (ami, ploop, …) is nothing that can be converted.
_NAMES = {"raw": "raw", "gpt": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi", "vhdx": "vhdx", "vhd": "vpc"}

MEMORY = 1 << 30  # bytes of address space for a qemu-img
INFO_CPU, INFO_TIME = 2, 60  # seconds of processor, and altogether, to look at headers
# An image gets a minute and as long as the slowest machine that makes sense needs for its virtual size.
CONVERT_START, CONVERT_CPU_SPEED, CONVERT_SPEED = 60, 32 << 20, 4 << 20  # seconds, bytes per second of each
_OUTPUT = 4 << 20  # bytes of output that are read
_PIECE = 1 << 20  # bytes, to read a file with

_COMMANDS = {"qemu-img": "qemu-utils (qemu-img on Fedora and RHEL)", "prlimit": "util-linux", "setpriv": "util-linux"}
_FOREIGN = frozenset({"backing-filename", "full-backing-filename", "backing-image", "data-file"})


@dataclass(frozen=True, slots=True)
class Converted:
    """An image as it goes on. Sizes in bytes; `virtual_size` is None where nobody knows.

    `path` is the given source when nothing had to be done; else the target, whose container_format is bare.
    """

    path: Path
    disk_format: str
    virtual_size: int | None
    size: int


def check_conversion(settings: Settings) -> None:
    """Conversion that is wanted must be possible. Raises `SettingsError`."""
    wanted = [f"[image_import_opts] image_import_plugins: {PLUGIN}"] if PLUGIN in settings.imports.plugins else []
    if settings.imports.conversion_format:
        wanted.append(f"[taskflow_executor] conversion_format: {settings.imports.conversion_format}")
    if not wanted:
        return
    for command, package in _COMMANDS.items():
        if shutil.which(command) is None:
            raise SettingsError(
                f"{wanted[0]} needs the command {command}, which is not there; install the package {package}"
            )


async def convert(source: Path, target: Path, disk_format: str, settings: Settings) -> Converted:
    """Convert the file `source`, declared as `disk_format`, to `[image_conversion] output_format` at `target`.

    An image that is an ISO, or in that format already, stays as it is. `target` appears only when it is complete, so
    one that is there is believed; `source` is never touched. Raises `UnsupportedMediaType` (content that is not what it
    claims, is not safe, or cannot be converted), `TooLarge`, `StoreFull`, `Unavailable`.
    """
    wanted, formats = settings.imports.output_format, settings.formats
    with full_disk():
        with contextlib.suppress(FileNotFoundError):
            return await asyncio.to_thread(_result, target, wanted, formats)
        found = await asyncio.to_thread(look_at, source, formats)
        if found.disk_format == disk_format == "iso":
            return found
        name = _NAMES.get(disk_format)
        if name is None or _NAMES.get(found.disk_format) != name:
            raise UnsupportedMediaType(
                f"Image disk_format {disk_format} does not match its content, which is {found.disk_format}"
            )
        virtual = await _examine(source, name, settings)
        if name == wanted:
            return replace(found, disk_format=disk_format, virtual_size=virtual)
        return await _make(source, target, name, virtual, settings)


async def _examine(source: Path, name: str, settings: Settings) -> int:
    """What qemu-img sees in the headers; the virtual size in bytes."""
    output = await _run(INFO_CPU, 0, INFO_TIME, ["info", "-f", name, "--output=json", _url(source)])
    try:
        info = json.loads(output)
        seen, virtual = info["format"], int(info["virtual-size"])
    except (ValueError, TypeError, KeyError) as error:
        raise UnsupportedMediaType("qemu-img could not read the image's headers") from error
    if seen != name:
        raise UnsupportedMediaType("qemu-img takes the image for another format than its content shows")
    if _names_other_files(info, _url(source).removeprefix(_PROTOCOL)):
        raise UnsupportedMediaType("Image failed safety checks: it refers to other files")
    if name == "vmdk":
        kind = (info.get("format-specific") or {}).get("data", {}).get("create-type")
        if kind not in settings.formats.vmdk_types:
            raise UnsupportedMediaType("The VMDK is of a type that vmdk_allowed_types does not list")
    if virtual > settings.image_size_cap:
        raise TooLarge(f"The disk in the image is larger than image_size_cap allows ({settings.image_size_cap} bytes).")
    return virtual


def _names_other_files(info: Any, own: str) -> bool:
    """Whether qemu-img speaks of any file but the image, at whatever depth (extents, children, format-specific)."""
    if isinstance(info, list):
        return any(_names_other_files(part, own) for part in info)
    if not isinstance(info, dict):
        return False
    if not _FOREIGN.isdisjoint(info) or info.get("filename", own) != own:
        return True
    return any(_names_other_files(part, own) for part in info.values())


async def _make(source: Path, target: Path, name: str, virtual: int, settings: Settings) -> Converted:
    """Convert beside `target`, look at the result, and give it its name."""
    wanted, cap = settings.imports.output_format, settings.image_size_cap
    cpu, seconds = CONVERT_START + virtual // CONVERT_CPU_SPEED, CONVERT_START + virtual // CONVERT_SPEED
    part = await asyncio.to_thread(_part, target)
    try:
        await _run(cpu, cap, seconds, ["convert", "-f", name, "-O", wanted, _url(source), _url(part)])
        result = await asyncio.to_thread(_result, part, wanted, settings.formats)
        if result.size > cap:
            raise TooLarge(f"The converted image is larger than image_size_cap allows ({cap} bytes).")
        await asyncio.to_thread(_publish, part, target)
    except FileNotFoundError as error:
        raise Unavailable("The conversion was taken over by another process.") from error
    finally:
        part.unlink(missing_ok=True)
    LOG.info("converted %s to %d bytes of %s", name, result.size, wanted)
    return replace(result, path=target)


_PROTOCOL = "file:"


def _url(path: Path) -> str:
    """A file as qemu-img must be told of it, so that no name is taken for a protocol or an option."""
    return f"{_PROTOCOL}{path.absolute()}"


def _part(target: Path) -> Path:
    """The name of an unfinished target; those of processes that were killed go, and with them their hold on it."""
    for left in target.parent.glob(f".{target.name}.*.part"):
        left.unlink(missing_ok=True)
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def _publish(part: Path, target: Path) -> None:
    """The bytes first, then the name: so that after a power failure the name is not all there is."""
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(target)


def _result(path: Path, wanted: str, formats: FormatSettings) -> Converted:
    """What came out; in it another format could be hidden, which would show only now."""
    found = look_at(path, formats)
    if _NAMES.get(found.disk_format) != wanted:
        raise UnsupportedMediaType(f"The image turned out to be {found.disk_format} after its conversion to {wanted}")
    return replace(found, disk_format=wanted)


def look_at(path: Path, formats: FormatSettings) -> Converted:
    """A file as it is, by its content alone. Raises `UnsupportedMediaType`, `FileNotFoundError`."""
    detector = Detector(formats.gpt_checks_nonfatal)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while not detector.decided and (block := file.read(_PIECE)):
            detector.feed(block)
    try:
        found = detector.conclude()
        name = str(found)
        return Converted(path, name, size if name in ("raw", "gpt") else found.virtual_size or None, size)
    except GlimpseError:
        raise
    except Exception as error:  # the detectors parse hostile input; whatever they raise, the image is refused
        LOG.warning("format inspection failed: %s", error)
        raise UnsupportedMediaType("Image format could not be determined") from error


async def _run(cpu: int, file_size: int, seconds: int, arguments: list[str]) -> bytes:
    """What a qemu-img prints that is polite, limited, and dies with us.

    `cpu` is in seconds of processor, `file_size` in bytes that a file may get. Raises as `convert` does.
    """
    # Each of these replaces itself by the next. A service that drains gets its signals without qemu-img: it waits for
    # the conversion, and when it ends before, the kernel takes qemu-img along.
    process = await asyncio.create_subprocess_exec(
        "env", "--ignore-signal=TERM,INT,HUP", "setpriv", "--pdeathsig", "KILL", "--no-new-privs",
        "prlimit", "--core=0", f"--cpu={cpu}:{cpu + 5}", f"--as={MEMORY}", f"--fsize={file_size}",
        "nice", "-n", "10", "qemu-img", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"}, cwd="/",
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            output, errors = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except TimeoutError as error:
        raise UnsupportedMediaType(f"qemu-img took longer than {seconds} seconds with the image") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code or errors:
        LOG.warning("qemu-img %s ended with %d: %r", arguments[0], code, errors[:500])
        raise _failure(code, errors)
    return output


async def _read(stream: asyncio.StreamReader) -> bytes:
    try:
        await stream.readexactly(_OUTPUT)
    except asyncio.IncompleteReadError as end:
        return end.partial
    raise UnsupportedMediaType("qemu-img has too much to say about the image")


def _failure(code: int, errors: bytes) -> GlimpseError:
    """Why qemu-img failed, in words for a caller: its own hold paths."""
    if b"No space left on device" in errors or b"Disk quota exceeded" in errors:
        return StoreFull("There is no room left to convert the image.")
    if code == -signal.SIGXFSZ or b"File too large" in errors:
        return TooLarge("The converted image would be larger than image_size_cap allows.")
    if code == -signal.SIGXCPU:
        return UnsupportedMediaType("qemu-img needed more processor time than the image is worth")
    if code in (-signal.SIGKILL, 127):  # a shell's 127: there is no such command
        return Unavailable("qemu-img could not run to its end.")
    return UnsupportedMediaType("qemu-img could not convert the image")


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """What goes wrong with files, in words for a caller. Raises `StoreFull`, `Unavailable`."""
    try:
        yield
    except OSError as error:
        LOG.warning("work on a file failed: %s", error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("There is no room left to work on the image.") from error
        raise Unavailable("The image cannot be read or written where it is worked on.") from error
