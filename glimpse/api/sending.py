"""Image bytes to the client: by sendfile where the store has a plain file, else block by block.

Neither the copying nor the disk may hold up the event loop. So one thread of lower priority sends, burst after burst;
what the page cache does not hold is read by other threads first; and a client that is slower than all that is waited
for on the loop, where it costs nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import select
import threading
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from io import FileIO
from typing import TypeVar

from aiohttp import web

from glimpse.api.wire import CUT_OFF, REQUEST_ID
from glimpse.stores.driver import FileReader, Reader

NICENESS = 5  # of the sending thread: records first
BURST = 64 << 20  # bytes at a time for a single download; many at once share the thread in shorter turns
SMALLEST_BURST = 1 << 20
STEP = 1 << 20  # bytes that are looked for in the page cache, and read ahead, at once
PROBE = 128 << 10  # bytes between two probes of the page cache; the kernel reads ahead in such steps
CLIENT_MAY_TAKE = 5  # milliseconds to make room, before the thread turns to somebody else

# What asyncio raises when the other side has closed, by the moment at which it notices.
_CLIENT_GONE = (ConnectionError, RuntimeError)

LOG = logging.getLogger(__name__)
T = TypeVar("T")

_running = 0


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
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client went away")
    # The head, for a client that does not even take that at once; asyncio tells nobody when its buffer is empty.
    while transport.get_write_buffer_size():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    # A number of our own for the connection: asyncio does not let others wait on its, and may close it meanwhile.
    connection = os.dup(transport.get_extra_info("socket").fileno())
    end = offset + length
    _running += 1
    try:
        while offset < end:
            stop = min(end, offset + max(BURST // _running, SMALLEST_BURST))
            offset, pause = await _in_sender(connection, file.fileno(), offset, stop)
            if pause is Pause.DISK:
                await _finished(asyncio.to_thread(_read_ahead, file.fileno(), offset, min(STEP, end - offset)))
            elif pause is Pause.CLIENT:
                await _writable(connection)
    finally:
        _running -= 1
        os.close(connection)


class Pause(Enum):
    """What the sending thread would have had to wait for."""

    NONE = 0
    CLIENT = 1
    DISK = 2


@functools.cache
def _sender() -> ThreadPoolExecutor:
    """The thread of this process, made with the first download (never before the fork)."""
    return ThreadPoolExecutor(1, "send", initializer=_step_back)


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


async def _in_sender(connection: int, file: int, offset: int, stop: int) -> tuple[int, Pause]:
    loop = asyncio.get_running_loop()
    return await _finished(loop.run_in_executor(_sender(), _send_burst, connection, file, offset, stop))


async def _finished(work: Awaitable[T]) -> T:
    """The result of a thread. It cannot be stopped, so a cancelled task waits for it before anything is closed."""
    future = asyncio.ensure_future(work)
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
    return future.result()


def _send_burst(connection: int, file: int, offset: int, stop: int) -> tuple[int, Pause]:
    """Send from `offset` until `stop`, or until something would have to be waited for; where it came to."""
    began = offset
    while offset < stop:
        end = min(offset + STEP, stop)
        if not _is_cached(file, offset, end):
            return offset, Pause.DISK
        while offset < end:
            try:
                sent = os.sendfile(connection, file, offset, end - offset)
            except BlockingIOError:
                if offset == began or not _makes_room(connection):
                    return offset, Pause.CLIENT
                continue
            if not sent:
                raise EOFError("the file is shorter than it was")
            offset += sent
    return offset, Pause.NONE


def _is_cached(file: int, offset: int, end: int) -> bool:
    """Whether this part of the file can be had without the disk; also true behind the end of a file."""
    probe = [bytearray(1)]
    try:
        for position in (*range(offset, end, PROBE), end - 1):
            os.preadv(file, probe, position, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # a file system that cannot tell (some network ones): the thread has to wait for it
        return True
    return True


def _read_ahead(file: int, offset: int, size: int) -> None:
    """Bring a part of the file into the page cache; the bytes themselves are of no interest."""
    os.pread(file, size, offset)


def _makes_room(connection: int) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return bool(poll.poll(CLIENT_MAY_TAKE))


async def _writable(connection: int) -> None:
    """Wait until the client takes more, or is gone, which the next attempt notices."""
    loop = asyncio.get_running_loop()
    writable = loop.create_future()
    loop.add_writer(connection, _wake, writable)
    try:
        await writable
    finally:
        loop.remove_writer(connection)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
