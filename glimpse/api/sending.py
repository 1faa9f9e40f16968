"""Image bytes to the client: by sendfile where the store has a plain file, else block by block.

Neither the copying nor the disk may hold up the event loop, so a thread of lower priority sends, burst after burst: one
for each file system, as more only fight for the interpreter lock, and a mount that hangs holds up nobody but itself. A
client that is slower than that is waited for on the loop, where it costs nothing.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import select
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from glimpse.api.wire import CUT_OFF, REQUEST_ID, SENT
from glimpse.stores.driver import FileReader, GrowingReader, Reader
from glimpse.threads import at_rest

NICENESS = 5  # of the sending threads: records first
BURST = 64 << 20  # bytes at a time for a single download; many at once share the thread in shorter turns
SMALLEST_BURST = 1 << 20
CLIENT_MAY_TAKE = 5  # milliseconds to make room, before the thread turns to somebody else

# What asyncio raises when the other side has closed, by the moment at which it notices.
_CLIENT_GONE = (ConnectionError, RuntimeError)

LOG = logging.getLogger(__name__)

_running = 0


async def send(
    request: web.BaseRequest, reader: Reader, status: int, headers: Mapping[str, str], offset: int, length: int
) -> web.StreamResponse:
    """Send `length` bytes from `offset`, counted in `SENT`; the request is `CUT_OFF` if not all could be sent.

    A client that is gone and a store that fails midway both break the connection: nothing may follow on it, and nobody
    shall take a part for the whole.
    """
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = length
    await response.prepare(request)
    try:
        in_file = await _send_file(request, reader, offset, length) if isinstance(reader, FileReader) and length else 0
        if in_file < length or not length:
            await _send_stream(request, response, reader, offset + in_file, length - in_file)
    except Exception as error:
        request[CUT_OFF] = True
        if request.transport is not None and not isinstance(error, _CLIENT_GONE):
            LOG.error("%s: the image data broke off: %s", request[REQUEST_ID], error)
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _send_stream(
    request: web.BaseRequest, response: web.StreamResponse, reader: Reader, offset: int, length: int
) -> None:
    sent, before = 0, request.get(SENT, 0)
    async for block in reader.stream(offset, length):
        await response.write(block)
        sent += len(block)
        request[SENT] = before + sent
    if sent != length:
        raise EOFError(f"the store gave {sent} of {length} bytes")


async def _send_file(request: web.BaseRequest, reader: FileReader, offset: int, length: int) -> int:
    """How much of it could be sent from the file: all, but for one that turns out not to get the rest."""
    global _running
    file, growing = reader.file, reader if isinstance(reader, GrowingReader) else None
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client went away")
    # The head, for a client that does not even take that at once; asyncio tells nobody when its buffer is empty.
    while transport.get_write_buffer_size():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    # A number of our own for the connection: asyncio does not let others wait on its, and may close it meanwhile.
    connection = os.dup(transport.get_extra_info("socket").fileno())
    sender = _sender(os.fstat(file.fileno()).st_dev)
    begin, end = offset, offset + length
    _running += 1
    try:
        while offset < end:
            there = min(end, await growing.beyond(offset)) if growing is not None else end
            if there <= offset:
                break
            stop = min(there, offset + max(BURST // _running, SMALLEST_BURST))
            after = await _in_sender(sender, connection, file.fileno(), offset, stop)
            if after == offset:
                await _writable(connection)
            offset = after
            request[SENT] = offset - begin
    finally:
        _running -= 1
        os.close(connection)
    return offset - begin


@functools.cache
def _sender(device: int) -> ThreadPoolExecutor:
    """The thread that sends what lies on a device, made with its first download (so never before the fork)."""
    return ThreadPoolExecutor(1, "send", initializer=_step_back)


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


async def _in_sender(sender: ThreadPoolExecutor, connection: int, file: int, offset: int, stop: int) -> int:
    """Send in a thread; where it came to."""
    burst = asyncio.get_running_loop().run_in_executor(sender, _send_burst, connection, file, offset, stop)
    await at_rest(burst)  # a cancelled task would close the connection under it
    return burst.result()


def _send_burst(connection: int, file: int, offset: int, stop: int) -> int:
    """Send from `offset` until `stop`, or until the client takes no more; where it came to."""
    began = offset
    while offset < stop:
        try:
            sent = os.sendfile(connection, file, offset, stop - offset)
        except BlockingIOError:
            if offset == began or not _makes_room(connection):
                break
            continue
        except ConnectionError:
            if offset == began:
                raise
            break  # so that what the client got is counted; the next attempt fails in the same way
        if not sent:
            raise EOFError("the file is shorter than it was")
        offset += sent
    return offset


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
