"""Image bytes to the client: by sendfile where the store has a plain file, else block by block.

sendfile runs on the event loop, and would stop it while the disk is read. So a file goes out window by window, and a
window that the page cache does not hold is read by a thread first. Nothing is kept in memory for a slow client.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import threading
from collections.abc import Mapping
from io import FileIO

from aiohttp import web

from glimpse.api.wire import CUT_OFF, REQUEST_ID
from glimpse.stores.driver import FileReader, Reader

WINDOW = 8 << 20  # bytes at once for a single download; many at once share the loop in smaller turns
SMALLEST_WINDOW = 256 << 10
COLD_WINDOW = 1 << 20  # bytes to read ahead when the disk is asked
PROBE = 64 << 10  # bytes between two probes of the page cache; the kernel reads ahead in larger steps than this

# What asyncio raises when the other side has closed, by the moment at which it notices.
_CLIENT_GONE = (ConnectionError, RuntimeError)

LOG = logging.getLogger(__name__)

_running = 0
_scratch = threading.local()


async def send(
    request: web.BaseRequest, reader: Reader, status: int, headers: Mapping[str, str], offset: int, length: int
) -> web.StreamResponse:
    """Send `length` bytes from `offset`, and mark the request as `CUT_OFF` when not all of them could be sent.

    A client that is gone and a store that fails midway both break the connection: nothing may follow on it, and nobody
    shall take a part for the whole.
    """
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = length
    await response.prepare(request)
    try:
        if isinstance(reader, FileReader) and length:
            await _send_file(request, reader.file, offset, length)
        else:
            await _send_stream(response, reader, offset, length)
    except Exception as error:
        request[CUT_OFF] = True
        if request.transport is not None and not isinstance(error, _CLIENT_GONE):
            LOG.error("%s: the image data broke off: %s", request[REQUEST_ID], error)
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _send_stream(response: web.StreamResponse, reader: Reader, offset: int, length: int) -> None:
    sent = 0
    async for block in reader.stream(offset, length):
        await response.write(block)
        sent += len(block)
    if sent != length:
        raise EOFError(f"the store gave {sent} of {length} bytes")


async def _send_file(request: web.BaseRequest, file: FileIO, offset: int, length: int) -> None:
    global _running
    loop = asyncio.get_running_loop()
    end = offset + length
    _running += 1
    try:
        while offset < end:
            size = min(max(WINDOW // _running, SMALLEST_WINDOW), end - offset)
            if not _is_cached(file, offset, size):
                size = min(size, COLD_WINDOW)
                await asyncio.to_thread(_read_ahead, file, offset, size)
            if request.transport is None:
                raise ConnectionResetError("the client went away")
            sent = await loop.sendfile(request.transport, file, offset, size)
            if sent < size:
                raise EOFError("the file is shorter than it was")
            offset += sent
    finally:
        _running -= 1


def _is_cached(file: FileIO, offset: int, size: int) -> bool:
    """Whether reading this part of the file would not wait for the disk."""
    probe = [bytearray(1)]
    descriptor = file.fileno()
    try:
        for position in (*range(offset, offset + size, PROBE), offset + size - 1):
            os.preadv(descriptor, probe, position, os.RWF_NOWAIT)
    except OSError:  # it would wait, or the file system cannot tell (some network ones)
        return False
    return True


def _read_ahead(file: FileIO, offset: int, size: int) -> None:
    """Bring a part of the file into the page cache; the bytes themselves are of no interest."""
    buffer: mmap.mmap | None = getattr(_scratch, "buffer", None)
    if buffer is None:
        buffer = _scratch.buffer = mmap.mmap(-1, COLD_WINDOW)
    os.preadv(file.fileno(), [memoryview(buffer)[:size]], offset)
