"""`glance-replicator`: images from one cloud to another, or to a directory and from there.

It speaks version 2 of the Image API to both ends. It can be run again at any time: what is there is left alone, what
was left half done is done. Bytes are held against the checksums of their image on the way and at their end, and an
image that did not get there whole is not left there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from oslo_config import cfg

from glimpse import config_files
from glimpse.cli.remote import Document, Failure, Remote, check_id, checked_image
from glimpse.domain.schema import READ_ONLY, RESERVED_PREFIX
from glimpse.errors import SettingsError

PROG = "glance-replicator"
T = TypeVar("T")

# What the command line does not say is in the file.
OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt("chunksize", default=65536, min=1, max=2**30),
    cfg.StrOpt("dontreplicate", default="created_at date deleted_at location updated_at"),
    cfg.BoolOpt("metaonly", default=False),
    cfg.StrOpt("sourcetoken", default="", secret=True),
    cfg.StrOpt("targettoken", default="", secret=True),
]

# Facts about the bytes, and the end of a record's way: they follow from what is done, and are not written.
_CONTENT = ("size", "checksum", "os_hash_algo", "os_hash_value")
_LAST = ("visibility", "protected")
_NEVER = READ_ONLY - {"id"} | {"locations"}
_AT_CREATION = ("disk_format", "container_format")


@dataclass(frozen=True)
class Choices:
    """The options: the fields that are left out, the length of a block, the two tokens."""

    left_out: frozenset[str]
    block: int
    records_only: bool
    source_token: str
    target_token: str

    def fields(self, image: Document) -> Document:
        """What of an image is to be written elsewhere."""
        return {
            name: value for name, value in image.items()
            if value is not None and name not in _NEVER | self.left_out and not name.startswith(RESERVED_PREFIX)
        }  # fmt: skip


@dataclass(frozen=True)
class Command:
    """What can be typed: its arguments, what it does, and the function, which returns the exit code."""

    takes: tuple[str, ...]
    help: str
    run: Callable[..., int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 failed, or not for every image."""
    typed, others = _parser().parse_known_intermixed_args(argv)
    try:
        for name in ("config_file", "config_dir"):
            others += [word for path in getattr(typed, name) for word in (f"--{name.replace('_', '-')}", path)]
        conf = config_files.parse(others, PROG)
        if typed.command in (None, "help"):
            return _help(*typed.args[:1])
        if typed.command not in COMMANDS:
            raise ValueError(f"Unknown command: {typed.command}")
        command = COMMANDS[typed.command]
        if len(typed.args) != len(command.takes):
            raise ValueError(f"{typed.command} takes {' '.join(command.takes)}")
        return command.run(_choices(conf, typed), *typed.args)
    except (SettingsError, ValueError, Failure, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    """Options stand anywhere among the words; what is not known here is oslo.config's."""
    parser = argparse.ArgumentParser(PROG, allow_abbrev=False)
    parser.add_argument("-c", "--chunksize", help="bytes in one write, 65536")
    parser.add_argument("-D", "--dontreplicate", help="fields that are not copied or compared, with spaces between")
    parser.add_argument("-m", "--metaonly", action="store_true", help="only records of images that are there, no bytes")
    parser.add_argument("-t", "--token", help="for both ends; else sourcetoken and targettoken of the file")
    for name in ("--config-file", "--config-dir"):
        parser.add_argument(name, action="append", default=[], metavar="PATH")
    parser.add_argument("command", nargs="?", help="what to do; help lists the commands")
    parser.add_argument("args", nargs="*", help="what the command takes")
    return parser


def _choices(conf: cfg.ConfigOpts, typed: argparse.Namespace) -> Choices:
    conf.register_opts(OPTIONS)
    for name in ("chunksize", "dontreplicate"):
        try:
            if getattr(typed, name) is not None:
                conf.set_override(name, getattr(typed, name))
        except ValueError as error:
            raise ValueError(f"--{name}: {error}") from error
    values = config_files.read(conf, "DEFAULT", OPTIONS)
    return Choices(
        frozenset(values["dontreplicate"].split()), values["chunksize"], values["metaonly"] or typed.metaonly,
        typed.token or values["sourcetoken"], typed.token or values["targettoken"],
    )  # fmt: skip


def _help(name: str = "") -> int:
    if name in COMMANDS:
        command = COMMANDS[name]
        print(f"{PROG} {name} {' '.join(f'<{each}>' for each in command.takes)}\n\n{command.help}")
        return 0
    print("Commands:\n\n    help <command>  more of one of these\n")
    for other, command in COMMANDS.items():
        print(f"    {other:<15} {command.help.partition('.')[0]}")
    return 0


def _size(choices: Choices, server: str) -> int:
    images = [image for image in Remote(server, choices.target_token).images() if image["status"] == "active"]
    total = sum(image["size"] or 0 for image in images)
    print(f"Total size is {total} bytes ({_readable(total)}) across {len(images)} images")
    return 0


def _readable(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def _compare(choices: Choices, source: str, target: str) -> int:
    there = Remote(target, choices.target_token)

    def look(image: Document) -> None:
        other = there.find(image["id"])
        if other is not None:
            for name in _differing(choices, image, other, _CONTENT):
                was = other.get(name, "undefined")
                print(f"{image['id']}: field {name} differs (source is {image[name]}, destination is {was})")
        elif image["status"] == "active":
            print(f'Image {image["id"]} ("{image.get("name")}") entirely missing from the destination')

    return _each(Remote(source, choices.source_token).images(), look)


def _differing(choices: Choices, image: Document, other: Document, facts: Iterable[str] = ()) -> list[str]:
    """The names of fields that the source has in another value than the target; of the facts those that both know."""
    known = {name for name in facts if image.get(name) is not None and other.get(name) is not None}
    names = [*choices.fields(image), *sorted(known - choices.left_out)]
    return [name for name in names if not _is_same(image[name], other.get(name))]


def _is_same(one: Any, other: Any) -> bool:
    return sorted(one) == sorted(other) if isinstance(one, list) and isinstance(other, list) else bool(one == other)


def _each(things: Iterable[T], do: Callable[[T], None]) -> int:
    """One after the other; a failure of one is told and does not keep the others."""
    code = 0
    for thing in things:
        try:
            do(thing)
        except (Failure, OSError) as error:
            print(f"ERROR: {error}", file=sys.stderr)
            code = 1
    return code


# --- to and from a directory -----------------------------------------------------------------------------------------


def _dump(choices: Choices, server: str, path: str) -> int:
    source, folder = Remote(server, choices.source_token), Path(path)
    if not folder.is_dir():
        raise ValueError(f"{path} is no directory")

    def save(image: Document) -> None:
        record, data = folder / image["id"], folder / f"{image['id']}.img"
        wanted = image["status"] == "active" and not choices.records_only
        if wanted and not (data.exists() and data.stat().st_size == image["size"]):
            print(f"Storing {image['id']} ({image.get('name')}), {image['size']} bytes, in {data}")
            _write(data, checked(source.download(image["id"], choices.block), image))
        # Last: the record says that its bytes are there.
        _write(record, iter([json.dumps(image).encode()]))

    return _each(source.images(), save)


def _write(path: Path, blocks: Iterator[bytes]) -> None:
    """A file that is there whole, or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _load(choices: Choices, server: str, path: str) -> int:
    target, folder = Remote(server, choices.target_token), Path(path)

    def bring(record: Path) -> None:
        data = folder / f"{record.name}.img"
        try:
            image = checked_image(json.loads(record.read_bytes()), record)
        except ValueError as error:
            raise Failure(f"{record} is no record of an image") from error
        if data.exists() or choices.records_only:
            _replicate(choices, image, target, lambda: _read(data, choices.block))
        else:
            print(f"{image['id']} has no bytes in {path}, it is left out")

    return _each(sorted(entry for entry in folder.iterdir() if _is_record(entry)), bring)


def _is_record(path: Path) -> bool:
    try:
        check_id(path.name)
    except Failure:
        return False
    return True


def _read(path: Path, block: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(block):
            yield data


# --- from cloud to cloud ---------------------------------------------------------------------------------------------


def _livecopy(choices: Choices, source: str, target: str) -> int:
    here, there = Remote(source, choices.source_token), Remote(target, choices.target_token)

    def copy(image: Document) -> None:
        _replicate(choices, image, there, lambda: here.download(image["id"], choices.block))

    return _each(here.images(), copy)


def _replicate(choices: Choices, image: Document, target: Remote, read: Callable[[], Iterator[bytes]]) -> None:
    """Bring an image, or what has changed of its record, to the target. Raises `Failure`."""
    image_id = image["id"]
    found = target.find(image_id)
    if found is not None and found["status"] not in ("queued", "saving"):
        _update(choices, image, found, target)
    elif image["status"] == "active" and not choices.records_only:
        print(f"Image {image_id} ({image.get('name')}) is being copied, {image['size']} bytes")
        fields = choices.fields(image)
        if found is None:
            # Nobody else sees it, and it can be deleted, until it is whole.
            early = {name: value for name, value in fields.items() if name not in _LAST}
            target.create({**early, "visibility": "private", "protected": False})
        try:
            target.upload(image_id, checked(read(), image), image["size"])
            arrived = target.find(image_id)
            if arrived is None or arrived["status"] != "active" or _content(image, arrived):
                raise Failure(f"{target.place} has other bytes of image {image_id} than were sent")
        except BaseException:
            # One that was queued before is somebody's record; its bytes have not been kept.
            if found is None:
                _remove(target, image_id)
            raise
        _update(choices, image, arrived, target)


def _remove(target: Remote, image_id: str) -> None:
    try:
        target.delete(image_id)
    except Failure as error:
        print(f"ERROR: image {image_id} stays without bytes: {error}", file=sys.stderr)


def _content(image: Document, other: Document) -> list[str]:
    """The facts about its bytes in which an image differs, where both sides know them."""
    one_algorithm = image.get("os_hash_algo") == other.get("os_hash_algo")
    facts = _CONTENT if one_algorithm else ("size", "checksum")
    return [name for name in facts if None not in (image.get(name), other.get(name)) and image[name] != other[name]]


def _update(choices: Choices, image: Document, found: Document, target: Remote) -> None:
    image_id = image["id"]
    if differing := _content(image, found):
        raise Failure(f"{target.place} has another image under {image_id}: {', '.join(differing)} differ")
    fields = choices.fields(image)
    changed = [name for name in _differing(choices, image, found) if name not in ("id", *_AT_CREATION)]
    if changed:
        print(f"Image {image_id} ({image.get('name')}) gets {', '.join(changed)}")
        operations = [
            {"op": "replace" if name in found else "add", "path": f"/{_pointer(name)}", "value": fields[name]}
            for name in changed
        ]
        target.change(image_id, operations)


def _pointer(name: str) -> str:
    """A name in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def checked(blocks: Iterator[bytes], image: Document) -> Iterator[bytes]:
    """The same blocks, the last of them only when all are what their image says. Raises `Failure` before it if not."""
    algorithm, expected = image.get("os_hash_algo"), image.get("os_hash_value")
    if algorithm not in hashlib.algorithms_available or not expected:
        algorithm, expected = "md5", image.get("checksum")
    digest, size, held = hashlib.new(str(algorithm), usedforsecurity=False), 0, b""
    for block in blocks:
        digest.update(block)
        size += len(block)
        if held:
            yield held
        held = block
    if image.get("size") not in (None, size) or (expected and digest.hexdigest() != expected):
        raise Failure(f"the bytes of image {image['id']} are not those of its record: {size} of them, {algorithm}")
    if held:
        yield held


COMMANDS = {
    "compare": Command(
        ("fromserver:port", "toserver:port"),
        "What is missing from the target, or different there. Nothing is changed.",
        _compare,
    ),
    "dump": Command(
        ("server:port", "path"),
        "Save the images of a server in a directory. Each is a file <id> with its record, and <id>.img with its bytes.",
        _dump,
    ),
    "livecopy": Command(
        ("fromserver:port", "toserver:port"),
        "Bring the images of one server to another. Records that changed since are changed there too.",
        _livecopy,
    ),
    "load": Command(
        ("server:port", "path"), "Bring the images in a directory to a server. The directory is one of dump.", _load
    ),
    "size": Command(("server:port",), "How many bytes the images of a server have. That is what dump needs.", _size),
}


if __name__ == "__main__":
    sys.exit(main())
