"""Events at a real broker: the same as the real Glance's, and none that costs a call anything."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.black_box.image_api import ImageApi
from tests.black_box.test_outages import identity_sections, whole_round, without
from tests.conftest import ServiceFactory
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.process import wait_for
from tests.rig.rabbitmq import PASSWORD, Listener, RabbitMQ
from tests.rig.services import Glance, Glimpse, ImageService

Event = dict[str, Any]
PLAIN = {"disk_format": "raw", "container_format": "bare"}
BYTES = {"Content-Type": "application/octet-stream"}
MIB = 1 << 20
SENT_BY_ROUND = 8  # create; update, prepare, upload, activate, update; send; delete


def sections(broker: RabbitMQ, topic: str, **default: object) -> dict[str, dict[str, object]]:
    """The sections of a service whose events go to that topic of the broker."""
    events = {"driver": "messagingv2", "topics": topic}
    return {"DEFAULT": {"transport_url": broker.url, **default}, "oslo_messaging_notifications": events}


# --- the same events as Glance's -------------------------------------------------------------------------------------


class Session:
    """A morning of three users at one service."""

    def __init__(self, service: ImageService, keystone: Keystone) -> None:
        self.demo = ImageApi(service.url, keystone.token("demo", "demo"))
        self.alt = ImageApi(service.url, keystone.token("alt", "alt"))
        self.admin = ImageApi(service.url, keystone.token("admin", "admin"))
        self.partner = str(keystone.call("GET", "/projects?name=alt")["projects"][0]["id"])

    def images(self) -> None:
        """An image's whole life, shared and switched off on the way; and one whose bytes are refused."""
        demo, alt = self.demo, self.alt
        image = demo.create(name="one", tags=["x", "y"], min_ram=1, color="red", **PLAIN)
        url = f"/v2/images/{image}"
        demo.change(image, {"op": "add", "path": "/size_class", "value": "big"})
        demo.change(image)
        demo.ok("PUT", f"{url}/tags/z")
        demo.ok("DELETE", f"{url}/tags/x")
        demo.upload(image, b"hello world")
        demo.download(image)
        demo.ok("GET", f"{url}/file", headers={"Range": "bytes=2-4"})
        assert demo.call("PUT", f"{url}/file", data=b"again", headers=BYTES).status_code == 409
        demo.ok("POST", f"{url}/members", json={"member": self.partner})
        for status in ("accepted", "accepted", "rejected"):
            alt.ok("PUT", f"{url}/members/{self.partner}", json={"status": status})
        alt.download(image)
        demo.ok("DELETE", f"{url}/members/{self.partner}")
        for action in ("deactivate", "deactivate", "reactivate"):
            demo.ok("POST", f"{url}/actions/{action}")
        demo.delete(image)
        odd = demo.create(name="odd", disk_format="qcow2", container_format="bare")
        assert demo.call("PUT", f"/v2/images/{odd}/file", data=b"no qcow2" * 999, headers=BYTES).status_code == 415
        demo.delete(odd)

    def definitions(self) -> None:
        """Metadata definitions of every kind, made, changed and removed."""
        admin, home = self.admin, "/v2/metadefs/namespaces"
        admin.ok("POST", home, json={"namespace": "First", "display_name": "d", "visibility": "public"})
        admin.ok("PUT", f"{home}/First", json={"namespace": "Second", "visibility": "public"})
        home += "/Second"
        inside = {"p": {"title": "P", "type": "integer", "minimum": 1, "maximum": 9}}
        admin.ok("POST", f"{home}/objects", json={"name": "o", "properties": inside, "required": ["p"]})
        admin.ok("PUT", f"{home}/objects/o", json={"name": "object", "description": "d", "properties": inside})
        admin.ok("DELETE", f"{home}/objects/object")
        schema = {"title": "T", "type": "string", "maxLength": 8, "default": "x", "pattern": "^x", "enum": ["x"]}
        admin.ok("POST", f"{home}/properties", json={"name": "p", **schema})
        admin.ok("PUT", f"{home}/properties/p", json={"name": "q", "title": "T", "type": "string"})
        admin.ok("DELETE", f"{home}/properties/q")
        admin.ok("POST", f"{home}/resource_types", json={"name": "OS::Glance::Image", "prefix": "hw_"})
        admin.ok("DELETE", f"{home}/resource_types/OS::Glance::Image")
        admin.ok("POST", f"{home}/tags/a")
        admin.ok("PUT", f"{home}/tags/a", json={"name": "b"})
        admin.ok("DELETE", f"{home}/tags/b")
        admin.ok("POST", f"{home}/tags", json={"tags": [{"name": "a"}, {"name": "b"}]})
        for part in ("tags", "objects", "properties"):
            admin.ok("DELETE", f"{home}/{part}")
        admin.ok("DELETE", home)


def comparable(events: list[Event]) -> list[Event]:
    """Events without what differs from run to run, and without what is better here on purpose."""
    text = json.dumps([{name: event[name] for name in ("event_type", "priority", "payload", "publisher_id")}
                       for event in events])  # fmt: skip
    known: dict[str, str] = {}
    text = re.sub(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", lambda m: known.setdefault(m[0], f"#{len(known)}"), text
    )
    text = re.sub(r'"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z"', '"TIME"', text)
    found: list[Event] = json.loads(text)
    for event in found:
        payload = event["payload"]
        if isinstance(payload, str):
            event["payload"] = payload.partition(" due to ")[0]  # the reason in our words
        elif "tags" in payload:
            payload["tags"].sort()
            if payload["size"] is None:
                payload["checksum"] = None  # Glance keeps the one of bytes that it has refused
    return found


def test_the_same_events_as_glance(
    rabbitmq: RabbitMQ,
    keystone: Keystone,
    memcached: Memcached,
    glimpse_service: ServiceFactory[Glimpse],
    glance_service: ServiceFactory[Glance],
) -> None:
    """Event by event, field by field, in the same order, and the times are of the same form."""
    told: list[list[Event]] = []
    for factory, topic in ((glance_service, "of_glance"), (glimpse_service, "of_glimpse")):
        service = factory(identity_sections(keystone, memcached) | sections(
            rabbitmq, topic, default_publisher_id="image.here", enabled_backends="fs:file"
        ))  # fmt: skip
        session = Session(service, keystone)
        session.images()
        session.definitions()
        service.stop()
        told.append(comparable(Listener(rabbitmq, topic).take()))
    glance, glimpse = told
    names = [[f"{event['priority']} {event['event_type']}" for event in events] for events in told]
    assert names[1] == names[0]
    for theirs, ours in zip(glance, glimpse, strict=True):
        assert ours == theirs


# --- with, without, and again with a broker --------------------------------------------------------------------------


@pytest.fixture
def listener(rabbitmq: RabbitMQ) -> Iterator[Listener]:
    """Of the topic `events`, which is empty at first."""
    listener = Listener(rabbitmq, "events")
    listener.take()
    yield listener


def slowest_of(rounds: int, api: ImageApi) -> float:
    """Seconds of the slowest of so many rounds."""
    seconds = []
    for _ in range(rounds):
        started = time.monotonic()
        whole_round(api)
        seconds.append(time.monotonic() - started)
    return max(seconds)


def test_broker_gone_and_back(rabbitmq: RabbitMQ, listener: Listener, glimpse_service: ServiceFactory[Glimpse]) -> None:
    """Killed, and later frozen: calls are as quick as ever, and when the broker is back it gets every event."""
    service = glimpse_service(sections(rabbitmq, "events", debug="true", workers=1))
    api = ImageApi(service.url, None)
    usual = slowest_of(5, api)
    assert len(listener.wait_for(5 * SENT_BY_ROUND)) == 5 * SENT_BY_ROUND
    with without(rabbitmq, rabbitmq.kill9):
        began = time.time()
        assert slowest_of(20, api) < max(1.0, 5 * usual)
        ended = time.time()
        time.sleep(2)
    events = listener.wait_for(20 * SENT_BY_ROUND, 60)
    assert len(events) == 20 * SENT_BY_ROUND
    assert [event["event_type"] for event in events[:8]] == [
        "image.create", "image.update", "image.prepare", "image.upload", "image.activate", "image.update",
        "image.send", "image.delete",
    ]  # fmt: skip
    for event in events:  # the time at which it happened, not that of sending
        told = time.strptime(event["timestamp"][:19], "%Y-%m-%d %H:%M:%S")
        assert int(began) <= time.mktime(told) - time.timezone <= ended + 1
    rabbitmq.process.signal(signal.SIGSTOP)
    try:
        assert slowest_of(20, api) < max(1.0, 5 * usual)
    finally:
        rabbitmq.process.signal(signal.SIGCONT)
    assert len(listener.wait_for(20 * SENT_BY_ROUND, 90)) == 20 * SENT_BY_ROUND
    assert PASSWORD not in service.logs


def test_service_starts_and_ends_without_a_broker(
    rabbitmq: RabbitMQ, listener: Listener, glimpse_service: ServiceFactory[Glimpse]
) -> None:
    """Neither waits for it: what is told before the broker comes is sent then, and an end takes a few seconds."""
    with without(rabbitmq):
        service = glimpse_service(sections(rabbitmq, "events", workers=1))
        whole_round(ImageApi(service.url, None))
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 8
        assert "events are lost" in service.logs
        service.start()
        whole_round(ImageApi(service.url, None))
    assert len(listener.wait_for(SENT_BY_ROUND, 60)) == SENT_BY_ROUND
    assert PASSWORD not in service.logs


def resident(pid: str) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_without_a_broker(
    rabbitmq: RabbitMQ, listener: Listener, glimpse_service: ServiceFactory[Glimpse]
) -> None:
    """Events of 300 MiB cost the memory of a few; the oldest go, the newest come, and the log says so."""
    service = glimpse_service(sections(rabbitmq, "events", workers=1))
    api = ImageApi(service.url, None)
    image = api.create(**{f"p{number}": "x" * 60_000 for number in range(50)})
    name = {"op": "replace", "path": "/name"}
    for number in range(5):
        api.change(image, {**name, "value": f"before {number}"})
    listener.wait_for(6)
    (worker,) = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    with without(rabbitmq, rabbitmq.kill9):
        before = resident(worker)
        for number in range(100):
            api.change(image, {**name, "value": f"after {number}"})
        assert resident(worker) - before < 100 * MIB
    wait_for("the last event", lambda: any(e["payload"]["name"] == "after 99" for e in listener.take()), 60)
    assert 1 <= service.logs.count("events were dropped") <= 2


def test_disabled_notifications(
    rabbitmq: RabbitMQ, listener: Listener, glimpse_service: ServiceFactory[Glimpse]
) -> None:
    """Groups and single events."""
    service = glimpse_service(sections(
        rabbitmq, "events", workers=1, disabled_notifications="image.member,image.update,image.send,metadef_tag"
    ))  # fmt: skip
    api = ImageApi(service.url, None)
    image = api.create(name="told", owner="somebody", visibility="shared", **PLAIN)
    api.ok("POST", f"/v2/images/{image}/members", json={"member": "partner"})
    api.ok("DELETE", f"/v2/images/{image}/members/partner")
    api.ok("POST", "/v2/metadefs/namespaces", json={"namespace": "told"})
    api.ok("POST", "/v2/metadefs/namespaces/told/tags/a")
    api.upload(image, b"hello")
    api.download(image)
    api.delete(image)
    service.stop()
    assert [event["event_type"] for event in listener.take()] == [
        "image.create", "metadef_namespace.create", "image.prepare", "image.upload", "image.activate", "image.delete",
    ]  # fmt: skip


def test_a_download_that_breaks_off(
    rabbitmq: RabbitMQ, listener: Listener, glimpse_service: ServiceFactory[Glimpse]
) -> None:
    """It is told with priority ERROR, and with fewer bytes than there are."""
    service = glimpse_service(sections(rabbitmq, "events", workers=1))
    api = ImageApi(service.url, None)
    image = api.create(**PLAIN)
    api.upload(image, bytes(64 * MIB))
    listener.wait_for(6)
    with api.call("GET", f"/v2/images/{image}/file", stream=True) as answer:
        next(answer.iter_content(MIB))
    (event,) = listener.wait_for(1)
    assert (event["event_type"], event["priority"]) == ("image.send", "ERROR")
    assert MIB <= event["payload"]["bytes_sent"] < 64 * MIB
