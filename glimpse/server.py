"""Processes, the socket, drain, reload, readiness.

One process listens and minds the workers; each worker serves the whole API on the shared socket. `glance-worker` is the
same without the socket: its workers only do what goes on beside requests. A worker that dies is replaced. SIGTERM and
SIGINT drain: no new connections, running transfers get graceful_shutdown_timeout seconds. SIGHUP reads the
configuration again: new workers first, then the old ones drain; a configuration with a mistake changes nothing.
systemd is told about each of it (Type=notify).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import logging
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from oslo_log import log as oslo_log

from glimpse.app import Application
from glimpse.errors import SettingsError
from glimpse.service import Foundation, Service, lay_foundation
from glimpse.settings import Settings, url_without_password

LOG = logging.getLogger(__name__)

READ_BUFFER = 512 << 10  # bytes of a body that wait in memory before the client is slowed down; twice that at most
LONGEST_HEADER = 64 << 10  # bytes; tokens with a whole catalogue inside are long
BYTE_THREADS = 16  # threads per worker that hash, inspect and read ahead
RESPAWN_PAUSE = 1.0  # seconds before a worker that died young is replaced
KILL_AFTER = 10.0  # seconds that a draining worker gets on top of its own limit
BIND_PATIENCE = 3.0  # seconds for a predecessor to let go of the port
READY_PATIENCE = 30.0  # seconds for a worker to come up
FRESH = 0.3  # seconds for a new connection to bring its first request, before it counts as idle
CANCEL_PATIENCE = 2.0  # seconds for what is still running after graceful_shutdown_timeout
KEEPALIVE = 75.0  # seconds that an idle connection is kept
ACCEPT_AT_ONCE = 64  # connections that one worker takes in one turn, so that others get some too

_MINDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1


def serve(read_settings: Callable[[], Settings]) -> int:
    """Serve until a signal ends it; the exit code. SIGHUP calls `read_settings` again. Raises `SettingsError`."""
    settings = read_settings()
    foundation = _prepare(settings)
    logging.getLogger("aiohttp.server").addFilter(_OneLine())
    listener = _listen(settings)
    if settings.client_socket_timeout:
        # Connections inherit it: one whose client takes nothing for so long is ended by the kernel (tcp(7)).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, settings.client_socket_timeout * 1000)
    LOG.info(
        "serving http://%s:%d with %d workers, flavor %s, database %s, stores %s",
        settings.bind_host, settings.bind_port, settings.workers, settings.flavor or "none (everybody is admin)",
        url_without_password(settings.database.url), _stores(settings),
    )  # fmt: skip
    return _Minder(read_settings, foundation, listener).run()


def do_tasks(read_settings: Callable[[], Settings]) -> int:
    """As `serve`, without the API: take part in tasks, and clean up. Raises `SettingsError`."""
    settings = read_settings()
    foundation = _prepare(settings)
    LOG.info(
        "working on tasks with %d workers, database %s, stores %s",
        settings.workers, url_without_password(settings.database.url), _stores(settings),
    )  # fmt: skip
    return _Minder(read_settings, foundation, None).run()


def _prepare(settings: Settings) -> Foundation:
    # Libraries of OpenStack load it where it is installed: half a second and 10 MiB, and nothing here runs on it.
    sys.modules["eventlet"] = None  # type: ignore[assignment]
    oslo_log.setup(settings.conf, "glance")
    _raise_file_limit()
    return lay_foundation(settings)


def _stores(settings: Settings) -> str:
    return ", ".join(f"{store.id}:{store.type}" for store in settings.stores)


def _listen(settings: Settings) -> socket.socket:
    address = (settings.bind_host, settings.bind_port)
    deadline = time.monotonic() + BIND_PATIENCE
    while True:
        try:
            family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server(address, family=family, backlog=settings.backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise SettingsError(
                    f"cannot listen on {address[0]}:{address[1]}: {error.strerror}; choose another [DEFAULT] bind_host"
                    " or bind_port, or stop what listens there"
                ) from error
        time.sleep(0.1)


def _raise_file_limit() -> None:
    """A connection is a descriptor, a download two; the usual soft limit of 1024 is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _OneLine(logging.Filter):
    """What strangers send that is no HTTP is worth a line, not a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = "not HTTP, answered %d: %s", (error.code, " ".join(error.message.split())[:100])
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.exc_info = None
        return True


@dataclass
class _Worker:
    pid: int
    began: float
    ready: int  # reading end of a pipe: one byte when the worker serves
    patience: int  # seconds to finish in, as it knows them; 0 for no limit
    retired: bool = False
    kill_at: float | None = None


class _Minder:
    """The parent process. Without a listener its workers serve nobody."""

    def __init__(
        self, read_settings: Callable[[], Settings], foundation: Foundation, listener: socket.socket | None
    ) -> None:
        self._read_settings = read_settings
        self._foundation = foundation
        self._listener = listener
        self._workers: dict[int, _Worker] = {}
        self._stopping = False

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, _MINDED)
        gc.freeze()  # what workers share stays shared
        if not self._start_workers(self._foundation.settings.workers):
            LOG.error("no worker came up; the lines above say why")
            self._stop()
            return 1
        notify("READY=1")
        while self._workers or not self._stopping:
            info = signal.sigtimedwait(_MINDED, 1.0)
            if info is not None:
                self._on_signal(info.si_signo)
            self._reap()
            self._kill_late_ones()
        LOG.info("stopped")
        return 0

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT) and not self._stopping:
            LOG.info("stopping: what runs is finished first")
            notify("STOPPING=1")
            self._stop()
        elif number == signal.SIGHUP and not self._stopping:
            self._reload()

    def _stop(self) -> None:
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        self._retire(list(self._workers.values()))

    def _reload(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._change_to(lay_foundation(self._read_settings()))
        except SettingsError as error:
            LOG.error("the configuration stays as it was: %s", error)
        except Exception:  # whatever is wrong with the new files, the old ones go on being served
            LOG.exception("the configuration stays as it was")
        notify("READY=1")

    def _change_to(self, foundation: Foundation) -> None:
        if self._listener is not None and _address(foundation.settings) != _address(self._foundation.settings):
            LOG.warning("a new address to listen on needs a restart; the old one stays")
        old, before = list(self._workers.values()), self._foundation
        self._foundation = foundation
        oslo_log.setup(foundation.settings.conf, "glance")
        if self._start_workers(foundation.settings.workers):
            self._retire(old)
            LOG.info("configuration reloaded")
            return
        LOG.error("no worker came up with the new configuration; it stays as it was")
        self._foundation = before
        self._retire([worker for worker in self._workers.values() if worker not in old])

    def _start_workers(self, count: int) -> bool:
        """Start workers and wait until they serve; tells whether all of them do."""
        new = [self._fork() for _ in range(count)]
        deadline = time.monotonic() + READY_PATIENCE
        up = 0
        for worker in new:
            readable, _, _ = select.select([worker.ready], [], [], max(0.0, deadline - time.monotonic()))
            up += bool(readable and os.read(worker.ready, 1))  # end of file when it died first
            os.close(worker.ready)
        return up == count

    def _fork(self) -> _Worker:
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _be_worker(self._foundation, self._listener, writing, parent)
        os.close(writing)
        self._workers[pid] = worker = _Worker(
            pid, time.monotonic(), reading, self._foundation.settings.graceful_shutdown_timeout
        )
        return worker

    def _retire(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.retired = True
            worker.kill_at = time.monotonic() + worker.patience + KILL_AFTER if worker.patience else None
            os.kill(worker.pid, signal.SIGTERM)

    def _reap(self) -> None:
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            worker = self._workers.pop(pid)
            if worker.retired or self._stopping:
                continue
            LOG.error("worker %d ended unexpectedly (%s); it is replaced", pid, _how(status))
            if time.monotonic() - worker.began < RESPAWN_PAUSE:
                time.sleep(RESPAWN_PAUSE)
            self._start_workers(1)

    def _kill_late_ones(self) -> None:
        for worker in self._workers.values():
            if worker.kill_at is not None and time.monotonic() > worker.kill_at:
                LOG.warning("worker %d did not end in time; it is killed", worker.pid)
                os.kill(worker.pid, signal.SIGKILL)


def _address(settings: Settings) -> tuple[str, int]:
    return settings.bind_host, settings.bind_port


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _be_worker(foundation: Foundation, listener: socket.socket | None, ready: int, parent: int) -> None:
    """The rest of a worker's life; never returns."""
    code = 1
    try:
        # Without its minder a worker would hold the port for ever.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(0)
        for number in _MINDED:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        asyncio.run(_work(foundation, listener, ready))
        code = 0
    except BaseException:
        LOG.exception("worker failed")
    finally:
        logging.shutdown()
        os._exit(code)


async def _work(foundation: Foundation, listener: socket.socket | None, ready: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MINDED)
    loop.set_default_executor(ThreadPoolExecutor(BYTE_THREADS, "bytes"))
    service = Service(foundation)
    door = await _Door.open(Application(foundation, service), listener) if listener is not None else None
    service.start()
    os.write(ready, b"1")
    os.close(ready)
    await stop.wait()
    deadline = time.monotonic() + (foundation.settings.graceful_shutdown_timeout or math.inf)
    service.rest()
    if door is not None:
        await door.close()
    await service.stop(deadline - time.monotonic())


class _Door:
    """Where requests come into a worker."""

    def __init__(self, application: Application, server: web.Server, runner: web.ServerRunner, limit: float) -> None:
        self._application = application
        self._server = server
        self._runner = runner
        self._limit = limit

    @classmethod
    async def open(cls, application: Application, listener: socket.socket) -> _Door:
        """Accept connections."""
        settings = application.settings
        server = web.Server(
            application.handle, max_line_size=LONGEST_HEADER, max_field_size=LONGEST_HEADER, read_bufsize=READ_BUFFER,
            auto_decompress=False, access_log=None, keepalive_timeout=KEEPALIVE,
        )  # fmt: skip
        runner = web.ServerRunner(server, shutdown_timeout=CANCEL_PATIENCE)
        await runner.setup()
        await web.SockSite(runner, listener, backlog=ACCEPT_AT_ONCE).start()
        listener.listen(settings.backlog)  # asyncio has set it to what it takes at once
        return cls(application, server, runner, settings.graceful_shutdown_timeout or math.inf)

    async def close(self) -> None:
        """Accept no more, and wait for the answers that are under way."""
        for site in list(self._runner.sites):
            await site.stop()
        await _drain(self._server, self._application, self._limit)
        await self._runner.cleanup()
        await _let_others_finish()
        await self._application.close()


async def _drain(server: web.Server, application: Application, limit: float) -> None:
    """Close idle connections, and wait until the others have got their answers.

    aiohttp's own shutdown would tell every connection to close at once, and from then on drop what is being uploaded.
    """
    application.draining = True
    deadline = time.monotonic() + limit
    if server.connections:
        # What was accepted a moment ago has not been read yet.
        await asyncio.sleep(FRESH)
    while True:
        for connection in server.connections:
            if connection not in application.busy:
                connection.force_close()
        if not application.busy or time.monotonic() > deadline:
            return
        await asyncio.sleep(0.05)


async def _let_others_finish() -> None:
    """Handlers that were cancelled still put their images back; the database has to be there for that."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    handlers = [task for task in others if "handle" in getattr(task.get_coro(), "__qualname__", "")]
    if handlers:
        await asyncio.wait(handlers, timeout=KILL_AFTER / 2)


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing happens where it does not listen."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.sendto(state.encode(), address)
        except OSError as error:
            LOG.warning("systemd cannot be told %s: %s", state.partition("=")[0], error.strerror)
