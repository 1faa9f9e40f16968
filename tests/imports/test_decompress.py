"""Compressed images as the usual tools make them, and as somebody makes them who means harm."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import resource
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import IO, Any

import pytest

from glimpse.errors import UnsupportedMediaType
from glimpse.imports.decompress import decompressed, zstd
from glimpse.stores.driver import BLOCK

# Two and a half blocks: half of it can be compressed, half of it cannot.
CONTENT = bytes(BLOCK) + random.Random(4).randbytes(BLOCK + BLOCK // 2)


async def cut(data: bytes, size: int = 256 << 10) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def plain(data: bytes, size: int = 256 << 10) -> bytes:
    made = [block async for block in decompressed(cut(data, size))]
    joined = b"".join(made)
    assert joined == data or all(len(block) == BLOCK for block in made[:-1])
    return joined


def by_tool(*command: str) -> bytes:
    tool = shutil.which(command[0])
    assert tool, f"{command[0]} is not installed; the package of that name has it"
    return subprocess.run([tool, *command[1:]], input=CONTENT, stdout=subprocess.PIPE, check=True).stdout


def zipped(tmp_path: Path, *options: str) -> bytes:
    (tmp_path / "image.raw").write_bytes(CONTENT)
    subprocess.run(["zip", "-q", *options, "image.zip", "image.raw"], cwd=tmp_path, check=True)
    return (tmp_path / "image.zip").read_bytes()


class Unseekable(io.RawIOBase):
    """A pipe: whoever writes a zip archive into it tells sizes behind the data."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += data
        return len(data)


def archive(to: IO[bytes], method: int = zipfile.ZIP_DEFLATED, zip64: bool = False, names: str = "a") -> None:
    with zipfile.ZipFile(to, "w", method) as made:
        for name in names:
            with made.open(name, "w", force_zip64=zip64) as member:
                member.write(CONTENT)
        made.comment = b"made for a test"


def streamed(**how: Any) -> bytes:
    pipe = Unseekable()
    archive(pipe, **how)
    return bytes(pipe.written)


def written(**how: Any) -> bytes:
    file = io.BytesIO()
    archive(file, **how)
    return file.getvalue()


def python_made() -> dict[str, bytes]:
    return {
        "gzip": gzip.compress(CONTENT, 1),
        "bz2": bz2.compress(CONTENT),
        "xz": lzma.compress(CONTENT, preset=0),
        "lzma": lzma.compress(CONTENT, lzma.FORMAT_ALONE, preset=0),
        "zstd": zstd.compress(CONTENT, options={zstd.CompressionParameter.checksum_flag: 1}),
        "zip": written(),
        "zip, sizes behind": streamed(),
    }


MADE = python_made()


@pytest.mark.parametrize(
    "command",
    [
        ("gzip", "-1"), ("gzip", "-9"), ("bzip2", "-1"), ("xz", "-0"), ("xz", "-T2", "-0"),
        ("xz", "--format=lzma", "-0"), ("zstd", "-1"), ("zstd", "-T2", "--long=27"), ("zip", "-q", "-", "-"),
        ("zip", "-q", "-fz-", "-", "-"),
    ],
    ids=" ".join,
)  # fmt: skip
async def test_what_the_usual_tools_make(command: tuple[str, ...]) -> None:
    assert await plain(by_tool(*command)) == CONTENT


@pytest.mark.parametrize("options", [(), ("-0",), ("-9",), ("-fz",), ("-0", "-fz")], ids=" ".join)
async def test_zip_of_a_file(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert await plain(zipped(tmp_path, *options)) == CONTENT


@pytest.mark.parametrize("zip64", [False, True])
async def test_zip_as_python_makes_it(zip64: bool) -> None:
    for data in (streamed(zip64=zip64), written(zip64=zip64), written(method=zipfile.ZIP_STORED, zip64=zip64)):
        assert await plain(data) == CONTENT


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("size", [997, 64 << 10, 3 << 20])
async def test_the_blocks_it_comes_in_make_no_difference(name: str, size: int) -> None:
    assert await plain(MADE[name], size) == CONTENT


@pytest.mark.parametrize("name", ["gzip", "bz2", "xz", "zstd"])
async def test_several_streams_behind_each_other(name: str) -> None:
    """As pigz, pbzip2, pixz, pzstd and `cat` make them; zeros may follow."""
    assert await plain(MADE[name] * 3 + bytes(1024)) == CONTENT * 3
    for rubbish in (b"rubbish", b"\n", bytes(4) + b"x" * 100):
        with pytest.raises(UnsupportedMediaType):
            await plain(MADE[name] + rubbish)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"\x1f\x8b", b"PK\3", CONTENT, b"BZh9" + bytes(100), b"QFI\xfb" + bytes(1 << 20), b"x-lh" + bytes(9),
        b"\x5d\0\0\0" + bytes(1000), b"\x5d" + b"\xff" * 100, b"PK\5\6" + bytes(18),
    ],
    ids=lambda data: repr(data[:6]),
)  # fmt: skip
async def test_anything_else_passes_through(data: bytes) -> None:
    assert await plain(data) == data
    assert await plain(data, 3 if len(data) < 2000 else 70_000) == data


async def test_one_layer_is_taken_off() -> None:
    assert await plain(gzip.compress(MADE["xz"])) == MADE["xz"]
    assert await plain(gzip.compress(b"")) == b""


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
async def test_what_is_cut_short(name: str) -> None:
    data = MADE[name]
    for end in [*random.Random(name).sample(range(20, len(data)), 10), len(data) - 1, len(data) - 4]:
        with pytest.raises(UnsupportedMediaType):
            await plain(data[:end])


@pytest.mark.parametrize("name", [name for name in MADE if name != "lzma"])
async def test_what_is_damaged(name: str) -> None:
    """All of these formats have checksums, but for lzma."""
    data = MADE[name]
    for place in random.Random(name).sample(range(len(data) // 3, len(data) * 2 // 3), 5):
        with pytest.raises(UnsupportedMediaType):
            await plain(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])


async def test_noise_behind_each_magic() -> None:
    noise = random.Random(5).randbytes(100_000)
    for magic in (b"\x1f\x8b\x08\0", b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\3\4\x14\0\0\0\x08\0"):
        with pytest.raises(UnsupportedMediaType):
            await plain(magic + noise)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
async def test_zip_with_several_members(method: int) -> None:
    with pytest.raises(UnsupportedMediaType, match="exactly one"):
        await plain(written(names="ab", method=method))
    if method == zipfile.ZIP_DEFLATED:
        with pytest.raises(UnsupportedMediaType, match="exactly one"):
            await plain(streamed(names="ab"))
    small = io.BytesIO()
    with zipfile.ZipFile(small, "w", method) as made:
        made.writestr("a", b"a")
        made.writestr("b", b"b")
    with pytest.raises(UnsupportedMediaType, match="exactly one"):
        await plain(small.getvalue())


async def test_zip_that_is_encrypted(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMediaType, match="encrypted"):
        await plain(zipped(tmp_path, "-P", "secret"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_zip_with_other_methods(method: int) -> None:
    with pytest.raises(UnsupportedMediaType, match="make it with zip"):
        await plain(written(method=method))


async def test_zip_that_is_stored_and_tells_its_size_too_late() -> None:
    with pytest.raises(UnsupportedMediaType, match="make it with zip"):
        await plain(streamed(method=zipfile.ZIP_STORED))


async def test_zip_that_lies_about_its_member() -> None:
    data = bytearray(written())
    for place in (14, 18, 22):  # checksum, compressed size, size
        lying = data.copy()
        struct.pack_into("<L", lying, place, 4711)
        with pytest.raises(UnsupportedMediaType):
            await plain(bytes(lying))


async def test_zip_whose_directory_has_no_end() -> None:
    data = written()
    start = data.index(b"PK\1\2", len(CONTENT) // 2)
    with pytest.raises(UnsupportedMediaType):
        await plain(data[:start] + data[start : start + 47] * 20_000)
    with pytest.raises(UnsupportedMediaType):
        await plain(data[:start] + b"PK\6\6" + b"\xff" * 100)


async def test_lha_is_refused() -> None:
    with pytest.raises(UnsupportedMediaType, match="lha"):
        await plain(b"\x16\x6c-lh5-" + bytes(1000))


# --- bombs ------------------------------------------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    """Half a gigabyte of zeros each."""
    zeros, count = bytes(8 << 20), 64
    squeezed = zlib.compressobj(9, wbits=31)
    packed = b"".join([*(squeezed.compress(zeros) for _ in range(count)), squeezed.flush()])
    return {
        "gzip": packed,
        "bz2": bz2.compress(zeros) * count,
        "xz": lzma.compress(zeros) * count,
        "zstd": zstd.compress(zeros) * count,
    }


@pytest.mark.parametrize(("name", "data"), bombs().items(), ids=bombs().keys())
async def test_bombs_come_out_a_block_at_a_time(name: str, data: bytes) -> None:
    assert len(data) < 2 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = 0
    async with aclosing(decompressed(cut(data, len(data)))) as blocks:
        async for block in blocks:
            assert len(block) == BLOCK
            made += len(block)
            if made >= 256 << 20:
                break
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


async def test_windows_have_a_limit() -> None:
    large = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    options = {zstd.CompressionParameter.window_log: 30, zstd.CompressionParameter.enable_long_distance_matching: 1}
    squeezed = zstd.ZstdCompressor(options=options)
    for data in (
        lzma.compress(b"x", filters=large),
        squeezed.compress(bytes(1 << 20)) + squeezed.flush(),
    ):
        with pytest.raises(UnsupportedMediaType, match="memory"):
            await plain(data)


async def test_a_great_many_empty_streams_take_no_great_time() -> None:
    async with aclosing(decompressed(cut(gzip.compress(b"") * 50_000))) as blocks:
        assert [block async for block in blocks] == []
