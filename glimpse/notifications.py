"""Events told to the outside: what became of a record, over oslo.messaging (Glance's admin guide, Notifications).

A call only puts its event into a queue in memory, and one thread per process sends, so a broker that is slow, hangs or
is away costs no call anything. Meanwhile the queue grows to `LIMIT` bytes; then the oldest events go, and the log says
how many. Events of one process are sent in their order. Without a driver there is neither thread nor queue.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Any

import orjson

from glimpse.domain.lifecycle import COPY_PROPERTY, FAILED_PROPERTY, spelled
from glimpse.domain.metadef import ASSOCIATION, NAMESPACE, OBJECT, PROPERTY, TAG, Definition, Kind
from glimpse.domain.record import Image, Member, Task
from glimpse.domain.schema import HIDDEN_PROPERTIES
from glimpse.errors import SettingsError
from glimpse.settings import Settings

LOG = logging.getLogger(__name__)

LIMIT = 16 << 20  # bytes of events in one process that wait for the broker
GOODBYE = 3.0  # seconds at the end of a process to send what still waits
REMIND = 60.0  # seconds between two lines of the log about events that were dropped
CONTROL_EXCHANGE = "glance"  # Glance's default for control_exchange


def is_wanted(settings: Settings) -> bool:
    """Whether any driver is configured that does something."""
    return any(driver not in ("", "noop") for driver in settings.notification_drivers)


def check_notifications(settings: Settings) -> None:
    """Load what sending needs, so that processes forked later share it; nobody is contacted. Raises `SettingsError`."""
    if is_wanted(settings):
        _Bus(settings).close()


class Notifications:
    """The events of one process. Made and started after the fork; every method may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._on = is_wanted(settings)
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._said = -math.inf
        self._ending = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send."""
        if self._on:
            self._thread = threading.Thread(target=self._send_all, name="notifications", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Send what waits, for at most `GOODBYE` seconds; what is left then is lost, and the log says so."""
        if self._thread is None:
            return
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(GOODBYE)
        if self._thread.is_alive() and self._queue:
            LOG.warning("%d events are lost: the message broker did not take them before the end", len(self._queue))

    def tell(self, event: str, what: Any, priority: str = "INFO", **more: Any) -> None:
        """Put an event into the queue, after the transaction that it tells of; never raises.

        `what` is the record as it is now (see `payload`), or the payload itself; `more` are further fields of it.
        """
        if not self._on or self._is_disabled(event):
            return
        try:
            message = {
                "message_id": str(uuid.uuid4()),
                "publisher_id": self._settings.default_publisher_id,
                "event_type": event,
                "priority": priority,
                "payload": {**payload(what), **more} if more else payload(what),
                "timestamp": str(datetime.now(UTC).replace(tzinfo=None)),
            }
            # As text an event is small, of known size, and as it was at this moment.
            self._put(orjson.dumps(message))
        except Exception:
            LOG.exception("the event %s cannot be told", event)

    def _is_disabled(self, event: str) -> bool:
        """`disabled_notifications` names events, or groups of them: image.member is all of image.member.*."""
        return any(event == name or event.startswith(f"{name}.") for name in self._settings.disabled_notifications)

    def _put(self, message: bytes) -> None:
        with self._changed:
            self._queue.append(message)
            self._size += len(message)
            while self._size > LIMIT:
                self._size -= len(self._queue.popleft())
                self._dropped += 1
            self._changed.notify()
        self._report()

    def _next(self) -> bytes | None:
        """The oldest event, as soon as there is one; None when the end has come and nothing waits."""
        with self._changed:
            while not self._queue:
                if self._ending:
                    return None
                self._changed.wait()
            message = self._queue.popleft()
            self._size -= len(message)
            return message

    def _send_all(self) -> None:
        try:
            bus = _Bus(self._settings)
            while (message := self._next()) is not None:
                bus.send(orjson.loads(message))
                self._report()
            bus.close()
        except Exception:
            LOG.exception("no more events are sent by this process")

    def _report(self) -> None:
        now = time.monotonic()
        with self._changed:
            if not self._dropped or now - self._said < REMIND:
                return
            count, self._dropped, self._said = self._dropped, 0, now
        LOG.warning("%d events were dropped, as the message broker does not take them", count)


class _OnceAMinute(logging.Filter):
    """oslo.messaging complains of every event and every attempt, with traceback and payload; this is what is left."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            return True
        now, text = time.monotonic(), str(record.msg)
        if now - self._said.get(text, -math.inf) < REMIND:
            return False
        self._said[text] = now
        if record.exc_info and record.exc_info[1] is not None:
            why = " ".join(str(record.exc_info[1]).split())
            record.msg, record.args, record.exc_info = "events are lost, as they cannot be sent: %s", (why,), None
        return True


_ONCE_A_MINUTE = _OnceAMinute()


class _Bus:
    """oslo.messaging's drivers as they are configured; its own Notifier would give late events the time of sending.

    Raises `SettingsError`. The first event connects.
    """

    def __init__(self, settings: Settings) -> None:
        unknown = set(settings.notification_drivers) - entry_points(group="oslo.messaging.notify.drivers").names
        if unknown - {""}:
            raise SettingsError(
                f"[oslo_messaging_notifications] driver: {', '.join(sorted(unknown))} is not known; allowed:"
                " messagingv2, messaging, log, noop"
            )
        # Slow to load, so only where events are wanted.
        from oslo_service.backend import BackendType, init_backend

        init_backend(BackendType.THREADING)  # else oslo.messaging loads eventlet
        import oslo_messaging
        from stevedore.named import NamedExtensionManager

        oslo_messaging.set_transport_defaults(control_exchange=CONTROL_EXCHANGE)
        conf = settings.for_library()
        try:
            self._transport = oslo_messaging.get_notification_transport(conf)
        except Exception as error:
            # What it says may hold the URL, and with it a password.
            raise SettingsError(
                "transport_url of [DEFAULT] or [oslo_messaging_notifications] cannot be used"
                f" ({type(error).__name__}); allowed: rabbit://user:password@host:port/vhost"
            ) from None
        options = conf.oslo_messaging_notifications
        # Kombu takes -1 for none at all at the first connection, though it is oslo.messaging's word for ever.
        self._retry = options.retry if options.retry >= 0 else None
        loaded: NamedExtensionManager[Any] = NamedExtensionManager(
            "oslo.messaging.notify.drivers", [name for name in options.driver if name], invoke_on_load=True,
            invoke_args=(conf,), invoke_kwds={"topics": options.topics, "transport": self._transport},
        )  # fmt: skip
        self._drivers: list[Any] = [extension.obj for extension in loaded]
        for name in ("oslo_messaging.notify.messaging", "oslo.messaging._drivers.impl_rabbit"):
            logging.getLogger(name).addFilter(_ONCE_A_MINUTE)

    def send(self, message: dict[str, Any]) -> None:
        """Hand a message to each driver. Those of messaging wait for the broker as long as `retry` says."""
        for driver in self._drivers:
            try:
                driver.notify({}, message, message["priority"], self._retry)
            except Exception as error:
                LOG.error("the event %s was not sent: %s", message["event_type"], type(error).__name__)

    def close(self) -> None:
        """Part from the broker."""
        self._transport.cleanup()


# --- what is told ----------------------------------------------------------------------------------------------------


_PROPERTY_FIELDS = (
    "type", "title", "description", "default", "minimum", "maximum", "enum", "pattern", "minLength", "maxLength",
    "confidential", "items", "uniqueItems", "minItems", "maxItems", "additionalItems",
)  # fmt: skip
_METADEF_FIELDS: Mapping[Kind, tuple[str, ...]] = {
    NAMESPACE: ("display_name", "protected", "visibility", "owner", "description"),
    OBJECT: ("required", "description"),
    PROPERTY: _PROPERTY_FIELDS,
    ASSOCIATION: ("prefix", "properties_target"),
    TAG: (),
}
_STILL_THERE = {"deleted": False, "deleted_at": None}


@functools.singledispatch
def payload(what: Any) -> Any:
    """A record in the words of an event, without anything secret (no locations); what is no record stays as it is."""
    return what


@payload.register
def _image(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "created_at": spelled(image.created_at),
        "updated_at": spelled(image.updated_at),
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "checksum": image.checksum,
        "owner": image.owner,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "is_public": image.visibility == "public",
        "visibility": image.visibility,
        "properties": {name: value for name, value in image.properties.items() if name not in HIDDEN_PROPERTIES},
        "tags": list(image.tags),
        **_STILL_THERE,
    }


@payload.register
def _member(member: Member) -> dict[str, Any]:
    return {
        "image_id": member.image_id,
        "member_id": member.member_id,
        "status": member.status,
        "created_at": spelled(member.created_at),
        "updated_at": spelled(member.updated_at),
        **_STILL_THERE,
    }


@payload.register
def _task(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "result": None,
        "owner": task.owner,
        "message": None,
        "expires_at": None if task.expires_at is None else spelled(task.expires_at),
        "created_at": spelled(task.created_at),
        "updated_at": spelled(task.updated_at),
        **_STILL_THERE,
    }


@dataclass(frozen=True, slots=True)
class MetadefChange:
    """What happened to a metadata definition in the namespace `home` (itself, if it is one).

    `verb` is create, update, delete, or delete_objects and its like; `old_name` is what an update began with.
    """

    verb: str
    kind: Kind
    home: Definition
    what: Definition
    old_name: str | None = None

    @property
    def event(self) -> str:
        """The name of the event."""
        return f"metadef_{'resource_type' if self.kind is ASSOCIATION else self.kind.noun}.{self.verb}"


@payload.register
def _metadef(change: MetadefChange) -> dict[str, Any]:
    kind, what = change.kind, change.what
    old = what.name if change.old_name is None else change.old_name
    told: dict[str, Any] = {"namespace": what.name, "namespace_old": old}
    if kind is not NAMESPACE:
        told = {"namespace": change.home.name, "name": what.name, "name_old": old}
    told |= {name: what.values.get(name) for name in _METADEF_FIELDS[kind]}
    if kind is OBJECT:
        inside = what.values.get("properties") or {}
        told["properties"] = [
            {"name": name, **{field: values.get(field) for field in _PROPERTY_FIELDS}}
            for name, values in inside.items()
        ]
    if kind.dated:
        told |= {"created_at": spelled(what.created_at), "updated_at": spelled(what.updated_at or what.created_at)}
    return {**told, **_STILL_THERE}


def gone(when: datetime) -> Mapping[str, Any]:
    """The fields that say of a record that it was deleted."""
    return {"deleted": True, "deleted_at": spelled(when)}


def stores_of_import(image: Image) -> Mapping[str, Any]:
    """The fields that say of an image where it is being imported to, and where that failed."""
    return {
        name: list(filter(None, (image.properties.get(name) or "").split(",")))
        for name in (COPY_PROPERTY, FAILED_PROPERTY)
    }
