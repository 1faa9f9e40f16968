"""Tasks handed out over RabbitMQ: a message says no more than "the task with this id is pending".

The truth is the task's row, which whoever hears of it claims by compare-and-swap. So a message that comes twice does no
harm, and one that is lost only costs the time until the next sweep. A message is acknowledged as soon as its task is
claimed, never at the end: RabbitMQ's limit on unacknowledged deliveries (consumer_timeout, 30 minutes) says nothing
about how long an import may take.

taskiq sends and receives, over aio-pika, on the worker's own loop. What is left to this module: which host, TLS, and
what happens when the connection breaks. While there is none, `hand_out` says so and the engine does the work itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from glimpse.errors import SettingsError
from glimpse.settings import Settings

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection
    from taskiq import AsyncTaskiqDecoratedTask
    from taskiq_aio_pika import AioPikaBroker

LOG = logging.getLogger(__name__)

SCHEMES = ("rabbit", "kombu")  # oslo.messaging's names of one and the same driver
PORT = 5672
PATIENCE = 3.0  # seconds for the broker to take a message, or to answer at all
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two rounds over all hosts
RENEW = 60.0  # seconds after which a consumer is made anew: the broker ends it when its queue is deleted or moved
TASK = "glance.task_is_pending"
DEAD_LETTERS = 100  # messages that are kept of those that the broker gave up; taskiq wants a queue for them

# oslo.messaging's options, as far as they matter here.
TRANSPORT_OPTS = [
    cfg.StrOpt("transport_url", secret=True, help="The message broker; tasks go over it when it names a RabbitMQ"),
    cfg.StrOpt("control_exchange", default="glance", help="What names of exchanges and queues begin with"),
]
RABBIT_OPTS = [
    cfg.BoolOpt("ssl", default=False, help="TLS to the broker"),
    cfg.StrOpt("ssl_ca_file", default="", help="Who must have signed the broker's certificate; without it anybody"),
    cfg.StrOpt("ssl_cert_file", default="", help="The certificate of this service"),
    cfg.StrOpt("ssl_key_file", default="", help="Its key"),
    cfg.BoolOpt("rabbit_quorum_queue", default=False, help="A queue that is replicated in a cluster"),
]


@dataclass(frozen=True, slots=True)
class Host:
    """One node of the broker, and who we are there."""

    name: str
    port: int
    user: str
    password: str


def open_broker(settings: Settings) -> Broker | None:
    """The broker that `transport_url` names; None where it names no RabbitMQ, and tasks stay in their process.

    Nobody is contacted. Raises `SettingsError`.
    """
    values = settings.group("DEFAULT", TRANSPORT_OPTS)
    text = values["transport_url"] or ""
    if not text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        return None
    # Slow to load, so only where it is wanted.
    from oslo_service.backend import BackendType, init_backend

    init_backend(BackendType.THREADING)  # else oslo.messaging loads eventlet
    from oslo_messaging import TransportURL

    try:
        url = TransportURL.parse(settings.for_library(), text)
        hosts = [
            Host(host.hostname or "localhost", host.port or PORT, host.username or "guest", host.password or "guest")
            for host in url.hosts
        ]
        options = _with_query(settings.group("oslo_messaging_rabbit", RABBIT_OPTS), url.query)
    except ValueError as error:
        # What it says may hold the URL, and with it a password.
        raise SettingsError(
            f"[DEFAULT] transport_url cannot be used ({type(error).__name__});"
            " allowed: rabbit://user:password@host:port/vhost"
        ) from None
    if not hosts:
        return None
    import taskiq_aio_pika  # noqa: F401 - now, so that processes forked later share it

    for name in ("taskiq", "aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a line for each message, a traceback for each lost socket
    return Broker(
        hosts, url.virtual_host or "/", f"{values['control_exchange']}_tasks", options["rabbit_quorum_queue"],
        _tls(options) if options["ssl"] else None,
    )  # fmt: skip


def _with_query(values: Mapping[str, Any], query: Mapping[str, str]) -> Mapping[str, Any]:
    """The options, with those over them that the URL has behind its question mark. Raises `ValueError`."""
    return {opt.dest: opt.type(query[opt.dest]) if opt.dest in query else values[opt.dest] for opt in RABBIT_OPTS}


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    """As oslo.messaging: without an authority that we trust, the broker's certificate is not looked at."""
    try:
        context = ssl.create_default_context(cafile=options["ssl_ca_file"] or None)
        if not options["ssl_ca_file"]:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if options["ssl_cert_file"]:
            context.load_cert_chain(options["ssl_cert_file"], options["ssl_key_file"] or None)
    except OSError as error:  # and with it ssl.SSLError
        raise SettingsError(f"[oslo_messaging_rabbit] ssl_*_file cannot be used: {error.strerror}") from error
    return context


class Broker:
    """The broker as one process sees it. Made before or after the fork, started after it."""

    def __init__(
        self, hosts: Iterable[Host], virtual_host: str, queue: str, quorum: bool, tls: ssl.SSLContext | None
    ) -> None:
        self._hosts = tuple(hosts)
        self._virtual_host = virtual_host
        self._queue = queue
        self._quorum = quorum
        self._tls = tls
        self._line: _Line | None = None
        self._stay: asyncio.Task[None] | None = None

    async def start(self, take: Callable[[str], Awaitable[None]], room: asyncio.Event) -> None:
        """Connect, now or as soon as the broker is there, and call `take` with the id of each task that is handed out.

        `take` returns when the task is claimed, or is refused. `room` is set while this process has a free slot: only
        then are messages fetched. Returns at once.
        """
        self._stay = asyncio.create_task(self._stay_connected(take, room))

    async def hand_out(self, task_id: str) -> bool:
        """Tell all processes that a task is pending; false when the broker does not take it within `PATIENCE`."""
        line = self._line
        return line is not None and await line.hand_out(task_id)

    async def stop(self) -> None:
        """Take nothing any more, and part from the broker."""
        if self._stay is not None:
            self._stay.cancel()
            await asyncio.gather(self._stay, return_exceptions=True)

    async def _stay_connected(self, take: Callable[[str], Awaitable[None]], room: asyncio.Event) -> None:
        hosts = random.sample(self._hosts, len(self._hosts))
        pause, told = FIRST_PAUSE, False
        for number, host in enumerate(itertools.cycle(hosts), 1):
            line, why = _Line(self._open(host), take, room), ""
            try:
                async with asyncio.timeout(PATIENCE):
                    await line.open()
                LOG.info("tasks are handed out over the message broker %s:%d", host.name, host.port)
                self._line, pause, told = line, FIRST_PAUSE, False
                await line.serve()
                LOG.warning("the connection to the message broker %s:%d is lost", host.name, host.port)
            except Exception as error:
                why = _why(error)
            finally:
                self._line = None
                await line.close()
            if why and not told and number % len(hosts) == 0:
                LOG.warning("no message broker, so each process takes its tasks itself: %s", why)
                told = True
            if number % len(hosts) == 0:
                # Spread out, as every worker of every node does this.
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
                pause = min(pause * 2, LONGEST_PAUSE)

    def _open(self, host: Host) -> AioPikaBroker:
        from aio_pika import Connection, ExchangeType
        from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

        class OneConnection(Connection):
            """Neither reconnects, nor warns of itself when it was never open; `_Line.close` closes it."""

            def __del__(self) -> None:
                pass

        kind = QueueType.QUORUM if self._quorum else QueueType.CLASSIC
        return AioPikaBroker(
            host=host.name, port=host.port, login=host.user, password=host.password, virtualhost=self._virtual_host,
            ssl=self._tls is not None, ssl_context=self._tls, timeout=PATIENCE, connection_class=OneConnection,
            qos=1, exchange=Exchange(name=self._queue, type=ExchangeType.DIRECT),
            task_queues=[Queue(name=self._queue, type=kind)],
            dead_letter_queue=Queue(name=f"{self._queue}.dead", type=kind, arguments={"x-max-length": DEAD_LETTERS}),
        )  # fmt: skip


class _Line:
    """One connection for the time that it holds. It does not reconnect: `Broker` makes another, to any of the hosts."""

    def __init__(self, broker: AioPikaBroker, take: Callable[[str], Awaitable[None]], room: asyncio.Event) -> None:
        self._broker = broker
        self._take = take
        self._room = room
        self._lost = asyncio.Event()
        self._pause = asyncio.Event()  # set: nothing more is fetched for now

        async def task_is_pending(task_id: str) -> None:
            await self._on_message(task_id)

        self._task: AsyncTaskiqDecoratedTask[[str], Any] = broker.register_task(task_is_pending, TASK)

    async def open(self) -> None:
        """Connect, and make what is missing at the broker. Raises what aio-pika raises."""
        self._broker.is_worker_process = True
        await self._broker.startup()
        for connection in self._connections():
            connection.close_callbacks.add(self._on_loss)

    async def serve(self) -> None:
        """Take messages while there is room, until the connection is lost."""
        receiving = asyncio.create_task(self._receive())
        receiving.add_done_callback(self._on_loss)
        try:
            await self._lost.wait()
        finally:
            receiving.cancel()
            await asyncio.wait([receiving], timeout=PATIENCE)

    async def _receive(self) -> None:
        from taskiq import AcknowledgeType
        from taskiq.receiver import Receiver

        while await self._has_room():
            self._pause.clear()
            receiver = Receiver(
                self._broker, validate_params=False, run_startup=False, max_async_tasks=1,
                ack_type=AcknowledgeType.WHEN_EXECUTED,
            )  # fmt: skip
            renew = asyncio.get_running_loop().call_later(RENEW, self._pause.set)
            try:
                await receiver.listen(self._pause)
            finally:
                renew.cancel()
            if self._lost.is_set() or not self._pause.is_set():
                return
            await self._give_back()

    async def _give_back(self) -> None:
        """What was fetched and not looked at is unacknowledged: with its channel it goes back into the queue."""
        reading, channel = self._broker.read_conn, self._broker.read_channel
        assert reading is not None and channel is not None
        await channel.close()
        self._broker.read_channel = await reading.channel()

    async def _has_room(self) -> bool:
        """Waits for a free slot; false when the connection is lost before."""
        waits = [asyncio.create_task(event.wait()) for event in (self._room, self._lost)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        return not self._lost.is_set()

    async def hand_out(self, task_id: str) -> bool:
        """Send one message; see `Broker.hand_out`."""
        if self._lost.is_set():
            return False
        try:
            async with asyncio.timeout(PATIENCE):
                await self._task.kicker().with_task_id(task_id).kiq(task_id)
        except Exception as error:
            LOG.info("task %s was not handed out: %s", task_id, _why(error))
            self._on_loss()
            return False
        return True

    async def close(self) -> None:
        """Part from the broker, also from one that does not answer."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(PATIENCE):
                await self._broker.shutdown()
        for connection in self._connections():
            with contextlib.suppress(Exception):
                async with asyncio.timeout(PATIENCE):
                    await connection.close()

    def _connections(self) -> list[AbstractConnection]:
        return [each for each in (self._broker.write_conn, self._broker.read_conn) if each is not None]

    def _on_loss(self, *_: object) -> None:
        """Whatever it was that ended, it means that another connection is needed."""
        self._lost.set()
        self._pause.set()

    async def _on_message(self, task_id: str) -> None:
        if not self._room.is_set():
            # The last slot was taken meanwhile, by a task that was not handed out: this one is for somebody else.
            await self.hand_out(task_id)
        else:
            try:
                await self._take(task_id)
            except Exception:
                LOG.exception("task %s was handed out, but could not be taken", task_id)
        if not self._room.is_set():
            self._pause.set()


def _why(error: Exception) -> str:
    """A failure in a few words that hold no password."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
