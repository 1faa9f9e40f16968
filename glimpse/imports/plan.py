"""What a task does, as a list of steps: the words that the engine and the plans share.

A step can be run again, by another process too, when the one that ran it has died in the middle; it looks at what is
there, or begins by putting it away. `undo` leaves nothing of what the step, and any run of it before, has put
anywhere. Both are told to stop by being cancelled.

What becomes of the image is decided by one transaction at the end of the task: `finish`, or `give_back` when the task
has failed. It also ends the task, the lock and the lease, so nobody ever sees one of them without the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from glimpse.db.engine import Connection
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location, Task
from glimpse.errors import GlimpseError
from glimpse.images.leases import Lease
from glimpse.images.passage import Room


@dataclass
class Work:
    """One task in the hands of this process, and what its steps have found out so far.

    `alive` ends when the work is nobody's business any more: its image was deleted, or another process has it.
    `facts` become columns of the image, `locations` its places, `failed` are the ids of stores that did not take it,
    `leftovers` those that may hold something which has to go, and could not be asked to remove it.
    `file` is a file of this machine with the bytes as they are to be stored, where a step has made one. `token` is the
    caller's, in the process that took the order. `room` lets the copies in all stores together have so many bytes.
    `keeps_staged` is set when the image goes back to where it came from, with its staged bytes.
    """

    task: Task
    image_id: str
    lease: Lease
    token: str | None = field(default=None, repr=False)
    alive: asyncio.Task[Any] = field(init=False, repr=False)
    said: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    locations: list[Location] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    leftovers: set[str] = field(default_factory=set)
    file: Path | None = None
    room: Room | None = None
    keeps_staged: bool = False

    @property
    def caller(self) -> Context | None:
        """Who has asked for it, while this process has the token; a task that was taken over is nobody's."""
        if self.token is None:
            return None
        return Context(token=self.token, project_id=self.task.owner, user_id=self.task.user_id)


class Step(Protocol):
    """A part of the work."""

    @property
    def name(self) -> str:
        """As the log has it."""
        ...

    async def run(self, work: Work) -> None:
        """Do it, or do it again. Raises `GlimpseError`, whose message is for the task's owner."""
        ...

    async def undo(self, work: Work) -> None:
        """Leave nothing behind. Raises `Unavailable` where that cannot be done now; see `Work.leftovers`."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """What the last transaction did to the image: how it is now, None where it was left alone, and what to tell.

    An event comes with the fields that its payload has beside those of the image.
    """

    image: Image | None
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()


class Plan(Protocol):
    """A kind of task."""

    @property
    def steps(self) -> Sequence[Step]:
        """In the order in which they run; they are undone from the last to the first."""
        ...

    async def is_here(self) -> bool:
        """Whether this node has what it takes; another one waits for the node that has it."""
        ...

    def finish(self, connection: Connection, work: Work, image: Image, now: datetime) -> Ending:
        """Part of the last transaction of a task that succeeds; the image's row is locked. Raises `Conflict`."""
        ...

    def give_back(self, connection: Connection, work: Work, image: Image, error: GlimpseError, now: datetime) -> Ending:
        """Part of the last transaction of a task that has failed."""
        ...

    async def clean(self, work: Work, error: GlimpseError | None) -> None:
        """After the end: put away what is of no more use. What is missed here, a sweep finds."""
        ...
