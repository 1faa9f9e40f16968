"""SIGTERM and SIGHUP while bytes are on their way.

The original leaves all of this to the server that it runs in.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from .client import OCTETS, Api
from .content import MIB, noise
from .service import Service
from .wire import Wire, ask, wait_until_refused

pytestmark = pytest.mark.better_than_glance

SLOW = 1 << 18  # bytes of receive buffer: the service cannot hand everything over to the system at once


def test_transfers_finish(own: Callable[..., Service]) -> None:
    service = own()
    api = Api(service.url)
    data = noise(32 * MIB)
    image, other = api.active(data), api.ready()
    with Wire(service.url, SLOW) as download, Wire(service.url) as upload, Wire(service.url) as idle:
        download.head("GET", f"/v2/images/{image['id']}/file")
        status, _ = download.answer_head()
        assert status == 200
        begin = download.read(100_000)
        upload.head("PUT", f"/v2/images/{other['id']}/file", {**OCTETS, "Content-Length": str(4 * MIB)})
        upload.send(data[:MIB])
        api.wait_for_status(other["id"], "saving")
        idle.head("GET", "/v2/images?limit=0")
        assert idle.answer().status == 200
        api.close()

        service.signal(signal.SIGTERM)
        assert wait_until_refused(service.url, 5)
        assert idle.closed_within(5)
        with pytest.raises(subprocess.TimeoutExpired):
            service.wait(0.5)

        assert begin + download.read(len(data) - len(begin)) == data
        upload.send(data[MIB : 4 * MIB])
        assert upload.answer().status == 204
    assert service.wait(10) == 0

    service.start()
    api = Api(service.url)
    assert api.download(other["id"]) == data[: 4 * MIB]
    api.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_service_stops_at_once(own: Callable[..., Service], number: signal.Signals) -> None:
    service = own()
    with Wire(service.url) as kept_alive, Wire(service.url) as half:
        kept_alive.head("GET", "/v2/images?limit=0")
        assert kept_alive.answer().status == 200
        half.send(b"GET /v2/images HTTP/1.1\r\nHost: x")
        began = time.monotonic()
        service.signal(number)
        assert service.wait(10) == 0
        assert time.monotonic() - began < 4


def test_patience_has_an_end(own: Callable[..., Service]) -> None:
    """graceful_shutdown_timeout: an upload that does not get on is given up, and its image can be uploaded again."""
    service = own({"DEFAULT": {"graceful_shutdown_timeout": 1}})
    api = Api(service.url)
    image = api.ready()
    with Wire(service.url) as upload:
        upload.head("PUT", f"/v2/images/{image['id']}/file", {**OCTETS, "Content-Length": str(4 * MIB)})
        upload.send(bytes(2 * MIB))
        api.wait_for_status(image["id"], "saving")
        api.close()
        service.signal(signal.SIGTERM)
        service.wait(12)
    service.start()
    api = Api(service.url)
    api.wait_for_status(image["id"], "queued")
    assert service.stored() == []
    api.upload(image["id"], b"x")
    api.close()


def test_reload(own: Callable[..., Service]) -> None:
    """SIGHUP: the new configuration counts, running transfers do not notice, no request is refused."""
    service = own()
    api = Api(service.url)
    data = noise(32 * MIB)
    image, other = api.active(data), api.ready()
    failed: list[str] = []
    stop = threading.Event()

    def knock() -> None:
        while not stop.is_set():
            try:
                answer = ask(service.url, "GET", "/v2/images?limit=1")
                if answer.status != 200:
                    failed.append(str(answer))
            except OSError as error:
                failed.append(repr(error))

    knocker = threading.Thread(target=knock, daemon=True)
    knocker.start()
    with Wire(service.url, SLOW) as download, Wire(service.url) as upload:
        download.head("GET", f"/v2/images/{image['id']}/file")
        status, _ = download.answer_head()
        assert status == 200
        upload.head("PUT", f"/v2/images/{other['id']}/file", {**OCTETS, "Content-Length": str(4 * MIB)})
        upload.send(data[:MIB])
        api.wait_for_status(other["id"], "saving")
        service.configure({"DEFAULT": {"image_property_quota": 1}})
        service.signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while ask(service.url, "POST", "/v2/images", {}, b'{"a": "1", "b": "2"}').status != 413:
            assert time.monotonic() < deadline, "the new limit is not obeyed"
            time.sleep(0.1)
        assert download.read(len(data)) == data
        upload.send(data[MIB : 4 * MIB])
        uploaded = upload.answer()
    stop.set()
    knocker.join()
    assert uploaded.status == 204
    assert failed == []
    assert service.process is not None
    assert service.process.poll() is None
    api.close()


def test_reload_of_nonsense(own: Callable[..., Service]) -> None:
    """A mistake in the file does not end a service that runs."""
    service = own()
    service.configure({"DEFAULT": {"limit_param_default": "many"}})
    service.signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while "limit_param_default" not in service.log_since(0):
        assert time.monotonic() < deadline, "nobody is told"
        time.sleep(0.05)
    assert ask(service.url, "GET", "/v2/images").status == 200
    assert service.process is not None
    assert service.process.poll() is None
