"""OVA packages: the one disk in them, and what they say of the machine that it belongs to (DMTF DSP0243).

A package is a tar archive of files: a description (OVF, an XML document) and the disks. It comes from anywhere, so
nothing in it is believed: no name is used as a path, links and sparse files are refused, and what is read into memory
is small. The disk is inspected by whoever takes it from here, as any other image.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree

from glimpse.errors import UnsupportedMediaType

_BLOCK = tarfile.BLOCKSIZE
MEMBERS = 1000  # files in a package
DESCRIPTION_SIZE = 4 << 20  # bytes of the OVF document
_TEXT_SIZE = 1000  # characters of a property
_EXTENDED_SIZE = 64 << 10  # bytes of a header with a long name
_PIECE = 64 << 20  # bytes that are copied at once
# Extended headers of POSIX and of GNU; what else is there has no place in a package.
_PAX, _GLOBAL, _LONG_NAME = tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)

# What the properties of a machine are called on an image, by the namespace that they have in the document.
_CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ProcessorAllocationSettingData"
_PREFIX = "cim_pasd_"


@dataclass(frozen=True, slots=True)
class Package:
    """Where the disk is in the package, in bytes, and the properties that were asked for."""

    offset: int
    size: int
    properties: dict[str, str]


def look_into(source: Path, wanted: Collection[str]) -> Package:
    """Find the disk of the package `source`; `wanted` are names of CIM properties to read.

    Raises `UnsupportedMediaType` for what is no package with one disk.
    """
    with source.open("rb") as file:
        files: dict[str, tuple[int, int]] = {}
        for name, offset, size in _files(file, os.fstat(file.fileno()).st_size):
            if name in files:
                raise _bad("two files in it have the same name")
            files[name] = (offset, size)
        description = next((place for name, place in files.items() if name.lower().endswith(".ovf")), None)
        if description is None:
            raise _bad("there is no OVF file in it")
        if description[1] > DESCRIPTION_SIZE:
            raise _bad(f"its OVF file is larger than {DESCRIPTION_SIZE} bytes")
        file.seek(description[0])
        root = _parsed(file.read(description[1]))
    disk = files.get(_disk_name(root))
    if disk is None:
        raise _bad("the disk that its OVF file names is not in it")
    return Package(*disk, _properties(root, wanted))


async def extract(source: Path, package: Package, target: Path) -> None:
    """Put the disk of the package into the file `target`, which appears only when it is complete. Raises `OSError`."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with source.open("rb") as file, part.open("xb") as out:
            done = 0
            while done < package.size:
                # In pieces, so that a task that is to stop can.
                piece = min(_PIECE, package.size - done)
                copied = await asyncio.to_thread(os.sendfile, out.fileno(), file.fileno(), package.offset + done, piece)
                if not copied:
                    raise _bad("it was cut off")
                done += copied
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _bad(why: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(f"This is no OVA package that can be imported: {why}.")


# --- the archive -----------------------------------------------------------------------------------------------------


def _files(file: BinaryIO, length: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file. Raises `UnsupportedMediaType`.

    The library reads one header at a time here: its own way through an archive takes whole extended headers, sparse
    maps and lists of members into memory, however large they are.
    """
    position, count = 0, 0
    extended: dict[str, str] = {}
    while True:
        file.seek(position)
        header = file.read(_BLOCK)
        if not header.strip(b"\0"):
            return
        count += 1
        if count > 2 * MEMBERS:
            raise _bad(f"there are more than {MEMBERS} files in it")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            size = int(extended.get("size", info.size))
        except (tarfile.TarError, ValueError) as error:
            raise _bad("it is no tar archive") from error
        position += _BLOCK
        if not 0 <= size <= length - position:
            raise _bad("it was cut off")
        if info.type in (_PAX, _GLOBAL, _LONG_NAME):
            if size > _EXTENDED_SIZE:
                raise _bad("a header in it is too long")
            told = _extended(info.type, file.read(size))
            extended = extended if info.type == _GLOBAL else extended | told
        elif info.type in _FILES:
            yield extended.get("path", info.name).removeprefix("./"), position, size
            extended = {}
        elif info.type != tarfile.DIRTYPE or size:
            raise _bad("it holds something else than files")
        position += -(-size // _BLOCK) * _BLOCK


def _extended(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extended header says of the next file: its path, its size. Raises `UnsupportedMediaType`."""
    if kind == _LONG_NAME:
        return {"path": data.rstrip(b"\0").decode(errors="surrogateescape")}
    told = {}
    while data.strip(b"\0"):
        length = data.partition(b" ")[0]
        end = int(length) if re.fullmatch(rb"[0-9]{1,6}", length) else 0
        keyword, equals, value = data[len(length) + 1 : end].removesuffix(b"\n").partition(b"=")
        if not equals or end > len(data) or keyword.startswith(b"GNU.sparse"):
            raise _bad("a header in it is not understood")
        told[keyword.decode(errors="replace")] = value.decode(errors="surrogateescape")
        data = data[end:]
    return told


# --- the description -------------------------------------------------------------------------------------------------


def _parsed(document: bytes) -> Element:
    try:
        root: Element = ElementTree.fromstring(document, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:  # the second is also what is forbidden
        raise _bad("its OVF file cannot be read") from error
    return root


def _disk_name(root: Element) -> str:
    """The name of the file with the one disk (DSP0243, 7.1 and 9.1)."""
    disks = [disk for section in _named(root.iter(), "DiskSection") for disk in _named(section, "Disk")]
    if len(disks) != 1:
        raise _bad(f"it has {len(disks)} disks, and one is wanted")
    wanted = _attributes(disks[0]).get("fileRef")
    for references in _named(root.iter(), "References"):
        for file in map(_attributes, _named(references, "File")):
            if wanted is not None and file.get("id") == wanted:
                if file.get("compression", "identity") != "identity":
                    raise _bad("its disk is compressed")
                return file.get("href", "").removeprefix("./")
    raise _bad("its OVF file does not say which file is the disk")


def _properties(root: Element, wanted: Collection[str]) -> dict[str, str]:
    found = {}
    for element in root.iter():
        namespace, _, name = element.tag.removeprefix("{").rpartition("}")
        if namespace == _CIM and name in wanted:
            text = (element.text or "").strip()
            if len(text) > _TEXT_SIZE:
                raise _bad(f"what its OVF file says of {name} is too long")
            found[f"{_PREFIX}{name}"] = text
    return found


def _named(elements: Iterator[Element] | Element, name: str) -> list[Element]:
    return [element for element in elements if element.tag.rpartition("}")[2] == name]


def _attributes(element: Element) -> dict[str, str]:
    return {name.rpartition("}")[2]: value for name, value in element.items()}
