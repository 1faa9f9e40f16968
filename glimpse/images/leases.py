"""Who is writing an image's bytes: a mark in the database while an upload runs, so that a killed one is noticed.

An upload writes the property `os_glance_upload_lease` beside the status `saving`: which process it is, which store
takes the bytes, and, by the row's time, that it is still alive. On the machine of that process the kernel says whether
it lives; elsewhere a mark that was not renewed for STALE seconds counts as dead. Only the schema of Glance is used.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

RENEW = 20  # seconds between two renewals
STALE = 180  # seconds without a renewal after which another machine may take over


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class Lease:
    """One running upload, or other work. `store` is the id of the store that may hold unfinished bytes, "" for none.

    `attempt` counts the processes that had the work so far, this one among them.
    """

    process: Process
    store: str
    token: str
    attempt: int = 1

    def text(self) -> str:
        """As the database keeps it."""
        return json.dumps(asdict(self), sort_keys=True)


class Leases:
    """The leases that this process holds."""

    def __init__(self) -> None:
        self._me = this_process()
        self._running: set[str] = set()

    def take(self, store: str, attempt: int = 1) -> Lease:
        """A new lease of this process."""
        lease = Lease(self._me, store, secrets.token_hex(8), attempt)
        self._running.add(lease.token)
        return lease

    def drop(self, lease: Lease) -> None:
        """The upload has ended, in whichever way."""
        self._running.discard(lease.token)

    def is_alive(self, lease: Lease, renewed: datetime | None, now: datetime) -> bool:
        """Whether somebody still works under this lease."""
        known = self.knows(lease)
        if known is not None:
            return known
        return renewed is not None and (now - renewed).total_seconds() < STALE

    def knows(self, lease: Lease) -> bool | None:
        """Whether somebody works under this lease, as far as it can be seen from here; None for another machine's."""
        there = lease.process
        if there == self._me:
            return lease.token in self._running
        if (there.host, there.boot, there.namespace) == (self._me.host, self._me.boot, self._me.namespace):
            return _start_of(there.pid) == there.started
        return None


def parse(text: str) -> Lease | None:
    """A lease as the database keeps it; None when the text is none of ours."""
    try:
        values = json.loads(text)
        return Lease(Process(**values["process"]), values["store"], values["token"], int(values.get("attempt", 1)))
    except (ValueError, TypeError, KeyError):
        return None


def this_process() -> Process:
    """The process that asks (call again after a fork)."""
    return Process(
        host=socket.gethostname(),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        namespace=os.readlink("/proc/self/ns/pid"),
        pid=os.getpid(),
        started=_start_of(os.getpid()) or "",
    )


def _start_of(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot; None when there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
