"""Compressed images, made plain while they stream by (plugin `image_decompression`, spec 5.3).

What it is, the first bytes tell: gzip, bzip2, xz, lzma, zstd or a zip archive with one member. Anything else passes
through. One layer is taken off. Memory is bounded whatever the data claims: about 1 MiB is made at a time, and what a
format may ask for its window is limited; how much may come out in all is for whoever takes it to say.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import struct
import sys
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

from glimpse.errors import UnsupportedMediaType
from glimpse.stores.driver import BLOCK

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 64 << 10  # bytes given to a decoder at once: some of them copy what they did not use
WINDOW = 128 << 20  # bytes that xz may take; `xz -9` needs 65 MiB. zstd's own limit is the same
MAGIC = 16  # bytes that tell all formats apart
LONGEST_TAIL = 512 << 10  # bytes behind the member of a zip archive: its name twice, its comments


def is_compressed(head: bytes) -> bool:
    """Whether data that begins with these bytes, at least `MAGIC`, is compressed. Raises `UnsupportedMediaType`."""
    return _decoder_for(head) is not None


async def decompressed(blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The bytes that are inside, in blocks of 1 MiB, or `blocks` themselves where they are not compressed.

    Raises `UnsupportedMediaType` for data that is damaged, cut short, or of a kind that cannot be read. Does not close
    `blocks`.
    """
    head = b""
    async for block in blocks:
        head += block
        if len(head) >= MAGIC:
            break
    decoder = _decoder_for(head)
    if decoder is None:
        if head:
            yield head
        async for block in blocks:
            yield block
        return
    feed = _Feed(decoder)
    parts: list[bytes] = []
    left = BLOCK
    async for block in _again(head, blocks):
        feed.give(block)
        while True:
            part = await asyncio.to_thread(feed.take, left)
            parts.append(part)
            left -= len(part)
            if left:
                break
            yield b"".join(parts)
            parts, left = [], BLOCK
    feed.end()
    if left < BLOCK:
        yield b"".join(parts)


async def _again(head: bytes, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for block in blocks:
        yield block


def _decoder_for(head: bytes) -> _Decoder | None:
    """What can read data that begins like this; None for what is not compressed. Raises `UnsupportedMediaType`."""
    if head.startswith(b"PK\3\4"):
        return _Zip()
    if head[2:5] == b"-lh" and head[6:7] == b"-":
        raise UnsupportedMediaType("The image data is an lha archive, which cannot be decompressed here; gzip it.")
    if head.startswith(b"\x1f\x8b\x08"):
        return _Members("gzip", lambda: _Inflate(zlib.MAX_WBITS | 16))
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return _Members("bzip2", bz2.BZ2Decompressor)
    if head.startswith(b"\xfd7zXZ\0"):
        return _Members("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, WINDOW))
    if _is_lzma(head):
        return _Members("lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, WINDOW))
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return _Members("zstd", zstd.ZstdDecompressor)
    return None


def _is_lzma(head: bytes) -> bool:
    """The format has no magic: usual parameters, a round size of the dictionary, and a size that can be."""
    if len(head) < 13 or head[0] != 0x5D:
        return False
    dictionary, size = struct.unpack_from("<IQ", head, 1)
    digits = f"{dictionary:b}".rstrip("0")
    return dictionary >= 4096 and digits in ("1", "11") and (size < 1 << 48 or size == (1 << 64) - 1)


class _Decoder(Protocol):
    """Reads one kind of data, piece by piece."""

    name: str

    @property
    def hungry(self) -> bool:
        """Whether all that can be made of the pieces so far was taken."""
        ...

    def take(self, piece: bytes, most: int) -> bytes:
        """Up to `most` bytes out of what is left of earlier pieces and this one, which is empty unless hungry."""
        ...

    def end(self) -> None:
        """There are no more pieces. Raises `EOFError` where there should be, `UnsupportedMediaType`."""
        ...


class _Feed:
    """Blocks of any length to a decoder, in small pieces, with its errors as ours."""

    def __init__(self, decoder: _Decoder) -> None:
        self._decoder = decoder
        self._block = memoryview(b"")

    def give(self, block: bytes) -> None:
        self._block = memoryview(block)

    def take(self, most: int) -> bytes:
        """`most` bytes, fewer when the block is used up; for a byte thread."""
        parts = []
        try:
            while most:
                piece = b""
                if self._decoder.hungry:
                    if not self._block:
                        break
                    piece, self._block = bytes(self._block[:PIECE]), self._block[PIECE:]
                parts.append(self._decoder.take(piece, most))
                most -= len(parts[-1])
        except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError) as error:
            raise UnsupportedMediaType(
                f"The {self._decoder.name} data is damaged, or needs more memory to decompress than it may have."
            ) from error
        return b"".join(parts)

    def end(self) -> None:
        try:
            self._decoder.end()
        except EOFError as error:
            raise UnsupportedMediaType(f"The {self._decoder.name} data ends too early.") from error


class _Stream(Protocol):
    """The interface that the standard library's decompressors share; `_Inflate` has it too."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Inflate:
    """zlib as a `_Stream`."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        made = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # When all of the room is used there may be more to come, even with no input left.
        self.needs_input = len(made) < max_length
        return made


class _Members:
    """One compressed stream behind the other, as all these formats allow; zeros may follow (gzip on tapes, xz)."""

    def __init__(self, name: str, new: Callable[[], _Stream]) -> None:
        self.name = name
        self._new = new
        self._stream: _Stream | None = new()
        self._left = b""  # behind the end of a stream

    @property
    def hungry(self) -> bool:
        return self._stream.needs_input if self._stream is not None else not self._left

    def take(self, piece: bytes, most: int) -> bytes:
        data, self._left = self._left + piece, b""
        if self._stream is None:
            data = data.lstrip(b"\0")
            if not data:
                return b""
            self._stream = self._new()
        made = self._stream.decompress(data, most)
        if self._stream.eof:
            self._left, self._stream = self._stream.unused_data, None
        return made

    def end(self) -> None:
        if self._stream is not None:
            raise EOFError


_LOCAL = struct.Struct("<4s5H3L2H")  # the header of a member (APPNOTE 4.3.7)
ENCRYPTED, UNKNOWN_BEFORE = 0x2041, 0x8  # flags: three of encryption; sizes and checksum are told behind the data
STORED, DEFLATED = 0, 8
ZIP64 = 0xFFFFFFFF  # the size is in the extra field


class _Zip:
    """A zip archive with one member, read from its start (APPNOTE 6.3.10): most tools write what that needs."""

    name = "zip"

    def __init__(self) -> None:
        self._buffer = b""  # the header, and later what follows the data
        self._inflate: _Inflate | None = None
        self._stored = 0  # bytes of a member that is not compressed, still to come
        self._in_data = self._in_tail = False
        self._packed = self._size = self._crc = 0  # as found in the data
        self._promised: tuple[int, int, int] | None = None

    @property
    def hungry(self) -> bool:
        if self._in_tail or not self._in_data:
            return True
        return self._inflate.needs_input if self._inflate is not None else not self._buffer

    def take(self, piece: bytes, most: int) -> bytes:
        if self._in_tail:
            self._buffer += piece
            if len(self._buffer) > LONGEST_TAIL:
                self._check_tail()
                raise EOFError
            return b""
        if not self._in_data:
            self._buffer += piece
            piece = self._begin()
            if not self._in_data:
                return b""
        return self._inflated(piece, most) if self._inflate is not None else self._copied(piece, most)

    def _begin(self) -> bytes:
        """Read the header as soon as it is there; the bytes behind it."""
        if len(self._buffer) < _LOCAL.size:
            return b""
        _, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack_from(self._buffer)
        start = _LOCAL.size + name + extra
        if len(self._buffer) < start:
            return b""
        if flags & ENCRYPTED:
            raise UnsupportedMediaType("The zip archive is encrypted.")
        if method not in (STORED, DEFLATED) or (method == STORED and flags & UNKNOWN_BEFORE):
            raise UnsupportedMediaType(
                "The zip archive is of a kind that cannot be read as it comes; make it with zip."
            )
        if ZIP64 in (packed, size):
            size, packed = _zip64_sizes(self._buffer[start - extra : start]) or (size, packed)
        if not flags & UNKNOWN_BEFORE:
            self._promised = crc, packed, size
        if method == DEFLATED:
            self._inflate = _Inflate(-zlib.MAX_WBITS)
        self._stored = size
        self._in_data = True
        rest, self._buffer = self._buffer[start:], b""
        return rest

    def _inflated(self, piece: bytes, most: int) -> bytes:
        assert self._inflate is not None
        made = self._inflate.decompress(piece, most)
        self._found(made, len(piece))
        if self._inflate.eof:
            self._buffer = self._inflate.unused_data
            self._packed -= len(self._buffer)
            self._in_tail = True
        return made

    def _copied(self, piece: bytes, most: int) -> bytes:
        self._buffer += piece
        part = self._buffer[: min(most, self._stored)]
        self._buffer = self._buffer[len(part) :]
        self._stored -= len(part)
        self._found(part, len(part))
        self._in_tail = not self._stored
        return part

    def _found(self, part: bytes, packed: int) -> None:
        self._packed += packed
        self._size += len(part)
        self._crc = zlib.crc32(part, self._crc)

    def end(self) -> None:
        if not self._in_tail:
            raise EOFError
        self._check_tail()

    def _check_tail(self) -> None:
        """Hold what follows the data against it. Raises as `end`."""
        tail = self._buffer
        if self._promised is None:
            tail = tail[self._descriptor_length(tail) :]
        elif self._promised != (self._crc, self._packed, self._size):
            raise UnsupportedMediaType("The zip data is damaged.")
        if tail.startswith(b"PK\3\4") or _entries(tail) != 1:
            raise UnsupportedMediaType("The zip archive holds more than one file; it must hold exactly one.")

    def _descriptor_length(self, tail: bytes) -> int:
        """With or without a signature, with sizes of four or of eight bytes: nothing says which (APPNOTE 4.3.9)."""
        for form in ("<4sLQQ", "<4sLLL", "<LQQ", "<LLL"):
            mask = -1 if "Q" in form else ZIP64
            expected = (b"PK\7\b",) if "s" in form else ()
            descriptor = struct.pack(form, *expected, self._crc, self._packed & mask, self._size & mask)
            if tail.startswith(descriptor) and tail[len(descriptor) :][:2] == b"PK":
                return len(descriptor)
        raise EOFError if len(tail) < 28 else UnsupportedMediaType("The zip data is damaged.")


def _zip64_sizes(extra: bytes) -> tuple[int, int] | None:
    """Original and compressed size from the extra field of a header (APPNOTE 4.5.3)."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1 and length >= 16 and len(extra) >= 20:
            size, packed = struct.unpack_from("<2Q", extra, 4)
            return size, packed
        extra = extra[4 + length :]
    return None


def _entries(directory: bytes) -> int:
    """The members that a zip archive's directory lists. Raises `EOFError` where it does not get to its end."""
    position = entries = 0
    while not directory.startswith(b"PK\5\6", position):
        rest = directory[position : position + 46]
        if rest.startswith(b"PK\1\2") and len(rest) == 46:
            entries += 1
            position += 46 + sum(struct.unpack_from("<3H", rest, 28))
        elif rest.startswith(b"PK\6\6") and len(rest) >= 12:
            position += 12 + int(struct.unpack_from("<Q", rest, 4)[0])
        elif rest.startswith(b"PK\6\7"):
            position += 20
        else:
            raise EOFError
    end = directory[position : position + 22]
    if len(end) < 22 or len(directory) < position + 22 + int(struct.unpack_from("<H", end, 20)[0]):
        raise EOFError
    return entries
