"""Events: what is told and what not, and what becomes of them while nobody takes them. No broker runs here."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from glimpse import notifications
from glimpse.domain.metadef import ASSOCIATION, NAMESPACE, OBJECT, TAG, Definition
from glimpse.domain.record import Image, Location, Member, Task
from glimpse.errors import SettingsError
from glimpse.notifications import (
    LIMIT,
    MetadefChange,
    Notifications,
    check_notifications,
    gone,
    payload,
    stores_of_import,
)
from glimpse.settings import Settings, load

NOW = datetime(2026, 3, 4, 5, 6, 7)
NOBODY = "rabbit://glance:hush-hush@127.0.0.1:1/"
IMAGE = Image("i1", "active", "public", NOW, NOW, name="n", owner="o", size=3, tags=("b", "a"))

Configure = Callable[..., Settings]
Told = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    def write(default: str = "", events: str = "driver = test") -> Settings:
        file = tmp_path / "glance-api.conf"
        file.write_text(
            f"[DEFAULT]\nenabled_backends = fs:file\n{default}\n[glance_store]\ndefault_backend = fs\n"
            f"[fs]\nfilesystem_store_datadir = {tmp_path}\n[database]\nconnection = sqlite://\n"
            f"[oslo_messaging_notifications]\n{events}\n"
        )
        return load(["--config-file", str(file)])

    return write


@pytest.fixture
def told(configure: Configure) -> Iterator[Told]:
    """What oslo.messaging's driver `test` was given so far."""
    check_notifications(configure())
    from oslo_messaging.notify import _impl_test

    _impl_test.reset()
    yield lambda: [message for _, message, _, _ in _impl_test.NOTIFICATIONS]
    _impl_test.reset()


def tell_and_stop(settings: Settings, *events: str) -> None:
    sender = Notifications(settings)
    sender.start()
    for event in events:
        sender.tell(event, IMAGE)
    sender.stop()


@pytest.mark.parametrize("events", ["", "driver =", "driver = noop"])
def test_without_a_driver_nothing_happens(configure: Configure, events: str) -> None:
    settings = configure(events=events)
    check_notifications(settings)
    sender = Notifications(settings)
    sender.start()
    sender.tell("image.create", IMAGE)
    assert sender._thread is None
    assert not sender._queue
    sender.stop()


def test_nothing_of_messaging_is_loaded_without_need() -> None:
    code = "import sys, glimpse.server; sys.exit(any(n in sys.modules for n in ('oslo_messaging', 'kombu', 'amqp')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_event_has_the_fields_of_oslo_messaging(configure: Configure, told: Told) -> None:
    settings = configure(default="default_publisher_id = image.here")
    sender = Notifications(settings)
    sender.start()
    before = datetime.now(UTC).replace(tzinfo=None)
    sender.tell("image.delete", IMAGE, **gone(NOW))
    sender.tell("image.upload", "it failed", "ERROR")
    after = datetime.now(UTC).replace(tzinfo=None)
    sender.stop()
    deleted, failed = told()
    assert (deleted["event_type"], deleted["priority"], deleted["publisher_id"]) == (
        "image.delete", "INFO", "image.here"
    )  # fmt: skip
    assert before <= datetime.fromisoformat(deleted["timestamp"]) <= after
    assert deleted["payload"] == {**payload(IMAGE), "deleted": True, "deleted_at": "2026-03-04T05:06:07Z"}
    assert (failed["priority"], failed["payload"]) == ("ERROR", "it failed")
    assert deleted["message_id"] != failed["message_id"]


def test_events_keep_their_order(configure: Configure, told: Told) -> None:
    names = [f"image.x{number}" for number in range(300)]
    tell_and_stop(configure(), *names)
    assert [event["event_type"] for event in told()] == names


@pytest.mark.parametrize(
    ("disabled", "left"),
    [
        ("image", ["images.x", "task.create", "metadef_tag.create"]),
        ("image.member", ["image.create", "images.x", "task.create", "metadef_tag.create"]),
        ("image.create,task", ["image.member.create", "images.x", "metadef_tag.create"]),
        ("metadef_tag, image.member.create", ["image.create", "images.x", "task.create"]),
        ("image.mem", ["image.create", "image.member.create", "images.x", "task.create", "metadef_tag.create"]),
    ],
)
def test_disabled_events_and_groups(configure: Configure, told: Told, disabled: str, left: list[str]) -> None:
    events = ("image.create", "image.member.create", "images.x", "task.create", "metadef_tag.create")
    tell_and_stop(configure(default=f"disabled_notifications = {disabled}"), *events)
    assert [event["event_type"] for event in told()] == left


def test_telling_never_raises(configure: Configure, told: Told, caplog: pytest.LogCaptureFixture) -> None:
    sender = Notifications(configure())
    sender.start()
    sender.tell("image.odd", {"value": object()})
    sender.tell("image.even", {"value": 1})
    sender.stop()
    assert [event["event_type"] for event in told()] == ["image.even"]
    assert "image.odd" in caplog.text


def test_a_driver_that_fails_costs_one_event(
    configure: Configure, told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from oslo_messaging.notify._impl_test import TestDriver

    original = TestDriver.notify

    def notify(self: Any, context: Any, message: Any, priority: Any, retry: Any) -> None:
        if message["event_type"] == "image.bad":
            raise RuntimeError("hush-hush")
        original(self, context, message, priority, retry)

    monkeypatch.setattr(TestDriver, "notify", notify)
    tell_and_stop(configure(), "image.bad", "image.good")
    assert [event["event_type"] for event in told()] == ["image.good"]
    assert "image.bad was not sent" in caplog.text
    assert "hush-hush" not in caplog.text


def test_without_a_broker_memory_and_calls_stay_small(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sender = Notifications(configure(default=f"transport_url = {NOBODY}\ndebug = true", events="driver = messagingv2"))
    sender.start()
    big = {"text": "x" * (1 << 20)}
    slowest = 0.0
    for number in range(40):
        started = time.perf_counter()
        sender.tell(f"image.x{number}", big)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.5
    assert LIMIT - (2 << 20) < sum(map(len, sender._queue)) == sender._size <= LIMIT
    assert b"image.x39" in sender._queue[-1], "the newest are kept"
    dropped = [record for record in caplog.records if "were dropped" in record.message]
    assert len(dropped) == 1, "one line a minute"
    started = time.monotonic()
    sender.stop()
    assert time.monotonic() - started < notifications.GOODBYE + 1
    assert f"{len(sender._queue)} events are lost" in caplog.text
    assert "hush-hush" not in caplog.text


def test_the_log_is_spared(configure: Configure, caplog: pytest.LogCaptureFixture) -> None:
    """With `retry` events are lost one by one, and the library has much to say of each."""
    default = f"transport_url = {NOBODY}"
    tell_and_stop(configure(default=default, events="driver = messagingv2\nretry = 0"), *["image.x"] * 5)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "oslo_messaging.notify.messaging"]
    assert line.startswith("events are lost, as they cannot be sent: ")
    assert "refused" in line
    assert len(caplog.records) < 5
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("rabbit://glance:hush-hush@host:port/", "messagingv2"),
        ("carrier-pigeon://glance:hush-hush@host/", "messagingv2"),
        (NOBODY, "mesagingv2"),
    ],
)
def test_a_mistake_stops_the_start(configure: Configure, url: str, driver: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_notifications(configure(default=f"transport_url = {url}", events=f"driver = {driver}"))
    assert "allowed" in str(caught.value)
    assert "hush-hush" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_image_in_an_event() -> None:
    image = IMAGE.with_(
        locations=(Location("rbd://secret"),), os_hash_value="h", checksum="c", virtual_size=4, visibility="shared",
        properties={"p": "1", "os_glance_upload_lease": "x", "os_glance_importing_to_stores": "a,b"},
    )  # fmt: skip
    assert payload(image) == {
        "id": "i1", "name": "n", "status": "active", "created_at": "2026-03-04T05:06:07Z",
        "updated_at": "2026-03-04T05:06:07Z", "min_disk": 0, "min_ram": 0, "protected": False, "checksum": "c",
        "owner": "o", "disk_format": None, "container_format": None, "size": 3, "virtual_size": 4, "is_public": False,
        "visibility": "shared", "properties": {"p": "1", "os_glance_importing_to_stores": "a,b"}, "tags": ["b", "a"],
        "deleted": False, "deleted_at": None,
    }  # fmt: skip
    assert payload(IMAGE)["is_public"] is True
    assert stores_of_import(image) == {"os_glance_importing_to_stores": ["a", "b"], "os_glance_failed_import": []}


def test_a_member_and_a_task_in_an_event() -> None:
    assert payload(Member("i1", "m1", "pending", NOW, NOW)) == {
        "image_id": "i1", "member_id": "m1", "status": "pending", "created_at": "2026-03-04T05:06:07Z",
        "updated_at": "2026-03-04T05:06:07Z", "deleted": False, "deleted_at": None,
    }  # fmt: skip
    task = Task("t1", "import", "failure", "o", NOW, NOW, input={"url": "secret"}, result={"a": 1}, message="why")
    assert payload(task) == {
        "id": "t1", "type": "import", "status": "failure", "result": None, "owner": "o", "message": None,
        "expires_at": None, "created_at": "2026-03-04T05:06:07Z", "updated_at": "2026-03-04T05:06:07Z",
        "deleted": False, "deleted_at": None,
    }  # fmt: skip


HOME = Definition("N", {"visibility": "public", "protected": True, "owner": "o"}, NOW, None, 1)
TIMES = {"created_at": "2026-03-04T05:06:07Z", "updated_at": "2026-03-04T05:06:07Z"}


def test_metadata_definitions_in_an_event() -> None:
    renamed = MetadefChange("update", NAMESPACE, HOME, HOME, "M")
    assert renamed.event == "metadef_namespace.update"
    assert payload(renamed) == {
        "namespace": "N", "namespace_old": "M", "display_name": None, "protected": True, "visibility": "public",
        "owner": "o", "description": None, "deleted": False, "deleted_at": None, **TIMES,
    }  # fmt: skip
    linked = MetadefChange("create", ASSOCIATION, HOME, Definition("OS::X", {"prefix": "x_"}, NOW, NOW, 2, 1))
    assert linked.event == "metadef_resource_type.create"
    assert payload(linked) == {
        "namespace": "N", "name": "OS::X", "name_old": "OS::X", "prefix": "x_", "properties_target": None,
        "deleted": False, "deleted_at": None, **TIMES,
    }  # fmt: skip
    inside = {"a": {"type": "array", "items": {"type": "string"}, "minItems": 0}}
    thing = MetadefChange("delete", OBJECT, HOME, Definition("O", {"properties": inside}, NOW, NOW, 3, 1))
    (told,) = payload(thing)["properties"]
    assert (told["name"], told["items"], told["minItems"], told["pattern"]) == ("a", {"type": "string"}, 0, None)
    tag = MetadefChange("update", TAG, HOME, Definition("new", {}, NOW, NOW, 4, 1), "old")
    assert payload(tag)["name_old"] == "old"
