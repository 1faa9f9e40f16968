"""Tasks over a real RabbitMQ: it goes and comes back, two processes share the work, and who says what is in the log."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import kombu
import pytest

from glimpse.errors import SettingsError
from glimpse.imports import broker as under_test
from glimpse.imports.broker import Broker, Host, open_broker
from glimpse.settings import load
from tests.rig.process import free_port
from tests.rig.rabbitmq import PASSWORD, USER, RabbitMQ

Opener = Callable[..., "Worker"]


def configured(folder: Path, *lines: str, rabbit: tuple[str, ...] = ()) -> Broker | None:
    path = folder / f"{uuid.uuid4()}.conf"
    text = ["[DEFAULT]", *lines, "[database]", "connection = sqlite://", "[oslo_messaging_rabbit]", *rabbit]
    path.write_text("\n".join(text))
    return open_broker(load(["--config-file", str(path)]))


class Worker:
    """A process that takes tasks, as the broker sees it."""

    def __init__(self, broker: Broker | None) -> None:
        assert broker is not None
        self.broker = broker
        self.room = asyncio.Event()
        self.room.set()
        self.taken: list[str] = []
        self.came = asyncio.Event()

    async def start(self) -> None:
        await self.broker.start(self.take, self.room)

    async def take(self, task_id: str) -> None:
        self.taken.append(task_id)
        self.came.set()

    async def hand_out(self, seconds: float = 20) -> str:
        """A task, as soon as the broker takes it."""
        task_id, end = str(uuid.uuid4()), time.monotonic() + seconds
        while not await self.broker.hand_out(task_id):
            assert time.monotonic() < end, "the broker takes nothing"
            await asyncio.sleep(0.05)
        return task_id


async def until(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not happen"
        await asyncio.sleep(0.02)


@pytest.fixture
async def worker(tmp_path: Path, rabbitmq: RabbitMQ) -> AsyncIterator[Opener]:
    made: list[Worker] = []
    exchange = f"glance-{uuid.uuid4()}"  # what other tests left is not for us

    def make(url: str = rabbitmq.url, **rabbit: object) -> Worker:
        options = tuple(f"{name} = {value}" for name, value in rabbit.items())
        lines = (f"transport_url = {url}", f"control_exchange = {exchange}")
        made.append(Worker(configured(tmp_path, *lines, rabbit=options)))
        return made[-1]

    yield make
    for each in made:
        await each.broker.stop()


async def test_two_processes_share_the_tasks(worker: Opener) -> None:
    one, two = worker(), worker()
    await one.start()
    await two.start()
    first = await one.hand_out()
    await until(lambda: first in one.taken + two.taken)
    await two.hand_out()  # both are connected by now
    given = {first} | {await one.hand_out() for _ in range(60)}
    await until(lambda: given <= set(one.taken + two.taken))
    assert len(one.taken + two.taken) == 62
    assert min(len(one.taken), len(two.taken)) > 15


async def test_who_has_no_room_leaves_tasks_to_others(worker: Opener) -> None:
    full, free = worker(), worker()
    await full.start()
    given = [await full.hand_out()]
    await until(lambda: full.taken == given)
    full.room.clear()  # by a task that did not come this way, while a message may be on its way
    await free.start()
    given += [await free.hand_out() for _ in range(10)]
    await until(lambda: sorted(full.taken + free.taken) == sorted(given))
    assert len(full.taken) == 1
    full.room.set()
    free.room.clear()
    given += [await free.hand_out() for _ in range(10)]
    await until(lambda: sorted(full.taken + free.taken) == sorted(given))
    assert len(free.taken) == 10


async def test_the_last_slot_ends_fetching(worker: Opener) -> None:
    only = worker()

    async def take(task_id: str) -> None:
        only.taken.append(task_id)
        only.room.clear()

    await only.broker.start(take, only.room)
    given = [await only.hand_out() for _ in range(5)]
    for count in range(1, 6):
        await until(lambda count=count: len(only.taken) == count)  # type: ignore[misc]
        await asyncio.sleep(0.1)
        assert len(only.taken) == count
        only.room.set()
    assert sorted(only.taken) == sorted(given)


async def test_a_failing_take_ends_nothing(worker: Opener, caplog: pytest.LogCaptureFixture) -> None:
    odd = worker()

    async def take(task_id: str) -> None:
        odd.taken.append(task_id)
        if len(odd.taken) == 1:
            raise RuntimeError("no database")

    await odd.broker.start(take, odd.room)
    given = [await odd.hand_out(), await odd.hand_out()]
    await until(lambda: odd.taken == given)
    assert "could not be taken" in caplog.text


async def test_the_broker_goes_and_comes_back(
    worker: Opener, rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    here = worker()
    rabbitmq.stop()
    try:
        await here.start()
        began = time.monotonic()
        assert not await here.broker.hand_out("1")
        assert time.monotonic() - began < 1
        await asyncio.sleep(2)
    finally:
        rabbitmq.start()  # not by a thread: it dies with who started it
    first = await here.hand_out()
    await until(lambda: here.taken == [first])
    assert caplog.text.count("no message broker") == 1
    rabbitmq.kill9()
    try:
        await until(lambda: "is lost" in caplog.text)
        assert not await here.broker.hand_out("2")
        await asyncio.sleep(2)
    finally:
        rabbitmq.start()  # not by a thread: it dies with who started it
    second = await here.hand_out()
    await until(lambda: second in here.taken)  # the first one perhaps again: what the killed one had on disk
    assert caplog.text.count("no message broker") <= 2
    assert "Traceback" not in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_broker_that_hangs_costs_seconds(worker: Opener, rabbitmq: RabbitMQ) -> None:
    here = worker()
    await here.start()
    await here.hand_out()
    os.killpg(rabbitmq.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert not await here.broker.hand_out("1")
        assert time.monotonic() - began < under_test.PATIENCE + 1
        began = time.monotonic()
        assert not await here.broker.hand_out("2")
        assert time.monotonic() - began < 1
    finally:
        os.killpg(rabbitmq.process.pid, signal.SIGCONT)
    last = await here.hand_out(40)
    await until(lambda: last in here.taken)


async def test_messages_hold_an_id_and_wait_for_a_taker(worker: Opener, rabbitmq: RabbitMQ) -> None:
    busy = worker()
    busy.room.clear()
    await busy.start()
    given = await busy.hand_out()
    with kombu.Connection(rabbitmq.url.replace("rabbit:", "amqp:")) as connection:
        message = kombu.Queue(busy.broker._queue, channel=connection.channel()).get()
        assert message is not None
        assert given in message.body.decode()
        assert message.properties["delivery_mode"] == 2
        message.reject(requeue=True)
    busy.room.set()
    await until(lambda: busy.taken == [given])


async def test_a_queue_that_somebody_deletes_comes_back(
    worker: Opener, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "RENEW", 0.5)
    here = worker()
    await here.start()
    first = await here.hand_out()
    await until(lambda: here.taken == [first])
    with kombu.Connection(rabbitmq.url.replace("rabbit:", "amqp:")) as connection:
        kombu.Queue(here.broker._queue, channel=connection.channel()).delete()
    await asyncio.sleep(2)
    second = await here.hand_out()
    await until(lambda: here.taken == [first, second])


async def test_the_next_host_is_tried(worker: Opener, rabbitmq: RabbitMQ) -> None:
    nodes = f"{USER}:{PASSWORD}@127.0.0.1:{free_port()},{USER}:{PASSWORD}@127.0.0.1:{rabbitmq.port}"
    here = worker(f"rabbit://{nodes}//")
    await here.start()
    given = await here.hand_out()
    await until(lambda: here.taken == [given])


async def test_tls(worker: Opener, rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture) -> None:
    trusting = worker(rabbitmq.tls_url, ssl=True, ssl_ca_file=rabbitmq.certificate)
    by_url = worker(f"{rabbitmq.tls_url}?ssl=true")
    await trusting.start()
    await by_url.start()
    given = [await trusting.hand_out(), await by_url.hand_out()]
    await until(lambda: sorted(trusting.taken + by_url.taken) == sorted(given))
    elsewhere = worker(rabbitmq.tls_url.replace("127.0.0.1", "localhost"), ssl=True, ssl_ca_file=rabbitmq.certificate)
    await elsewhere.start()  # a certificate of another name
    await until(lambda: "no message broker" in caplog.text)
    assert not await elsewhere.broker.hand_out("1")


async def test_quorum_queues(worker: Opener) -> None:
    here = worker(rabbit_quorum_queue=True)
    await here.start()
    given = await here.hand_out()
    await until(lambda: here.taken == [given])


@pytest.mark.parametrize(
    "lines", [(), ("transport_url = rabbit://",), ("transport_url = rabbit:///",), ("transport_url = fake://h",)]
)
def test_without_a_rabbit_tasks_stay_in_their_process(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert configured(tmp_path, *lines) is None


def test_urls_of_oslo_messaging(tmp_path: Path) -> None:
    made = configured(tmp_path, "transport_url = rabbit://us%40er:p%2Fw@[::1]:5673,other/a%2Fb?rabbit_quorum_queue=1")
    assert made is not None
    assert made._hosts == (Host("::1", 5673, "us@er", "p/w"), Host("other", 5672, "guest", "guest"))
    assert (made._virtual_host, made._queue, made._quorum, made._tls) == ("a/b", "glance_tasks", True, None)


@pytest.mark.parametrize(
    ("lines", "rabbit"),
    [
        (("transport_url = rabbit://u:secret@host:port/",), ()),
        (("transport_url = rabbit://u:secret@host/?ssl=maybe",), ()),
        (("transport_url = rabbit://u:secret@host/",), ("ssl = true", "ssl_ca_file = /nowhere.pem")),
    ],
)
def test_what_cannot_be_used_stops_the_start(tmp_path: Path, lines: tuple[str, ...], rabbit: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as raised:
        configured(tmp_path, *lines, rabbit=rabbit)
    assert "secret" not in str(raised.value)
