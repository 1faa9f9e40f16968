"""The image state machine, as a table (API reference, Image status; importing to uploading is new: a store failed, and
the staged bytes are kept).

`queued` is a record without bytes, `saving` while an upload runs, `uploading` and `importing` on the way
through staging, `active` when the bytes can be had, `deactivated` when only admins may have them.
"""

from __future__ import annotations

from datetime import UTC, datetime

from glimpse.domain.record import Image
from glimpse.errors import BadRequest, Conflict

TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"saving", "uploading", "importing", "active", "deleted"}),
    "saving": frozenset({"active", "killed", "deleted", "queued"}),
    "uploading": frozenset({"importing", "queued", "deleted"}),
    "importing": frozenset({"active", "deleted", "queued", "uploading"}),
    "active": frozenset({"pending_delete", "deleted", "deactivated"}),
    "killed": frozenset({"deleted"}),
    "pending_delete": frozenset({"deleted", "active", "deactivated"}),
    "deleted": frozenset(),
    "deactivated": frozenset({"active", "pending_delete", "deleted"}),
}

# Properties of an image: the marks of a running upload and of a running task, the node that has its staged bytes and
# where a store has them, the stores to which the image is still to be copied, and those for which that failed.
LEASE_PROPERTY = "os_glance_upload_lease"
TASK_LEASE_PROPERTY = "os_glance_task_lease"
STAGE_HOST_PROPERTY = "os_glance_stage_host"
STAGED_PROPERTY = "os_glance_staged_at"
COPY_PROPERTY = "os_glance_importing_to_stores"
FAILED_PROPERTY = "os_glance_failed_import"
# Of one that waits for the scrubber: it was deactivated, and will be if it is restored.
DEACTIVATED_PROPERTY = "os_glance_deactivated"

STATUSES = tuple(TRANSITIONS)

# Bytes without a format are of no use to anybody, so these states want both formats.
_NEED_FORMATS = frozenset({"saving", "active", "importing"})


def check_transition(image: Image, to: str) -> None:
    """Raise `Conflict` when the table forbids the step, `BadRequest` when the step needs formats that are not set."""
    if to not in TRANSITIONS[image.status]:
        raise Conflict(f"Image status transition from {image.status} to {to} is not allowed")
    if image.status in ("queued", "uploading") and to in _NEED_FORMATS:
        for name in ("container_format", "disk_format"):
            if getattr(image, name) is None:
                raise BadRequest(f"Property {name} is needed before there can be data")


def now() -> datetime:
    """The present as records keep it: UTC, no zone, whole seconds (what every supported DATETIME column holds)."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


def epoch(when: datetime) -> float:
    """A time of a record as file systems have it: seconds since 1970."""
    return when.replace(tzinfo=UTC).timestamp()


def spelled(when: datetime) -> str:
    """A time of a record as clients and events get it."""
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
