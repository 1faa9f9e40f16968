"""Whether a project may have one more image, or more bytes: limits of Keystone, or the cap `user_storage_quota`.

Glance looks at the usage, then stores, so that uploads at the same time pass the limit together. Here what an upload
may fill is reserved first, in the database, in the transaction that makes the image `saving` (see `db.quota`):

* an announced size at once and whole;
* a size that is not known in steps, as bytes arrive, never more than there is. The block that does not fit ends the
  upload with 413.

One case is softer. Where a project has used exactly its whole `image_size_total`, Glance lets one more upload of
unknown size through, and tempest expects that of it (test_image_size_quota). Such an upload gets one MiB, the unit of
that limit, if no other upload of the project runs: so this is the most that a limit can ever be passed by.

Images count for the project that owns them, whoever calls. In a transaction that makes anything of a project grow:

    account = quotas.account(owner)          # may ask Keystone: not in a transaction, nor on a record thread
    def work(connection):
        account.take_turn(connection)        # before anything else is read
        ...
        account.admit_image(connection)      # or another of its methods; raises TooLarge
    quotas.write(work)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from glimpse.access.limits import COUNT_TOTAL, COUNT_UPLOADING, RESOURCES, SIZE_TOTAL, STAGE_TOTAL, KeystoneLimits
from glimpse.access.waiting import WaitingThreads
from glimpse.db import additions
from glimpse.db import quota as books
from glimpse.db.engine import Connection, Database
from glimpse.errors import Conflict, TooLarge, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

MIB = 2**20
STEP = 64 * MIB  # bytes that an upload of unknown size reserves at once where there is plenty
STORAGE_QUOTA = "user_storage_quota"
THREADS = 8  # per worker, that wait for Keystone


@dataclass(frozen=True, slots=True)
class Reservation:
    """What running work may fill: `size` bytes now, and more while its project uses at most `ceiling` bytes.

    `limit` names the quota; for `image_stage_total` bytes in staging are meant, else those in stores.
    """

    image_id: str
    project: str | None
    size: int
    ceiling: int
    limit: str


@dataclass(frozen=True, slots=True)
class Account:
    """The quotas of one project while a call lasts. None is no limit: of bytes, images, images being uploaded, and
    bytes in staging.
    """

    project: str | None
    size: int | None = None
    images: int | None = None
    uploading: int | None = None
    limit: str = STORAGE_QUOTA
    staged: int | None = None

    @property
    def limited(self) -> bool:
        """Whether any quota is set."""
        return (self.size, self.images, self.uploading, self.staged) != (None, None, None, None)

    def take_turn(self, connection: Connection) -> None:
        """The first statement of a transaction that reserves: lets others of this project wait until its end."""
        if self.limited:
            books.take_turn(connection, self.project)

    def admit_image(self, connection: Connection) -> None:
        """One more image, whose row is about to be inserted. Raises `TooLarge`."""
        if self.images is not None:
            _within(COUNT_TOTAL, self.images, books.image_count(connection, self.project), 1)

    def admit_upload(self, connection: Connection, image_id: str, size: int | None) -> Reservation | None:
        """Reserve what the upload of an image, still `queued`, may fill; None is as much as it likes.

        `size` is the announced number of bytes. Raises `TooLarge`.
        """
        if not self.limited:
            return None
        uploading = books.uploading_count(connection, self.project) if self._is_of_keystone else 0
        if self.uploading is not None:
            _within(COUNT_UPLOADING, self.uploading, uploading, 1)
        return self._reserve(connection, image_id, size, alone=not uploading)

    def admit_stage(self, connection: Connection, image_id: str, size: int | None) -> Reservation | None:
        """The same for bytes on their way into staging. Raises `TooLarge`."""
        if not self._is_of_keystone:
            return None
        if self.uploading is not None:
            _within(COUNT_UPLOADING, self.uploading, books.uploading_count(connection, self.project), 1)
        ceiling = None
        if self.staged is not None:
            ceiling = _ceiling(STAGE_TOTAL, self.staged, books.staged_bytes(connection, self.project), size, alone=True)
        books.reserve(connection, self.project, image_id, size or 0)
        return None if ceiling is None else Reservation(image_id, self.project, size or 0, ceiling, STAGE_TOTAL)

    def check_import(self, connection: Connection) -> None:
        """Refuse an import where the project has more than its limit already. Raises `TooLarge`."""
        if self._is_of_keystone and self.size is not None:
            used = books.used_bytes(connection, self.project)
            if used > self.size:
                raise _over(SIZE_TOTAL, self.size, used, 0)

    def admit_import(
        self, connection: Connection, image_id: str, size: int | None, staged: int | None
    ) -> Reservation | None:
        """Reserve what an import may fill: `size` bytes in all its stores together, None where nobody knows.

        The image counts among those that are uploaded already. `staged` is what comes in by it, 0 where that is not
        known, None where it is there. Raises `TooLarge`.
        """
        if not self.limited:
            return None
        uploading = books.uploading_count(connection, self.project) if self._is_of_keystone else 1
        if staged is not None and self.uploading is not None:
            _within(COUNT_UPLOADING, self.uploading, uploading, 0)
        if staged is not None and self.staged is not None:
            used = books.staged_bytes(connection, self.project)
            # An image that is copied counts as staged, with its size, since it was marked so.
            if used > self.staged:
                raise _over(STAGE_TOTAL, self.staged, used, staged)
        books.release(connection, image_id)  # of an attempt before
        return self._reserve(connection, image_id, size, alone=uploading <= 1)

    def _reserve(self, connection: Connection, image_id: str, size: int | None, alone: bool) -> Reservation | None:
        ceiling = None
        if self.size is not None:
            used = books.used_bytes(connection, self.project)
            ceiling = _ceiling(self.limit, self.size, used, size, alone and self._is_of_keystone)
        # Also where bytes have no limit: the upload of an image that is deleted meanwhile is counted by this.
        books.reserve(connection, self.project, image_id, size or 0)
        return None if ceiling is None else Reservation(image_id, self.project, size or 0, ceiling, self.limit)

    @property
    def _is_of_keystone(self) -> bool:
        return self.limit == SIZE_TOTAL

    def admit_bytes(self, connection: Connection, image_id: str, size: int) -> None:
        """Let all copies of an image together have `size` bytes, whatever they had before. Raises `TooLarge`."""
        if self.size is not None:
            used = books.used_bytes(connection, self.project, besides=image_id)
            if used + size > self.size:
                raise _over(self.limit, self.size, used, size)


class Quotas:
    """What limits projects in this installation, if anything does."""

    def __init__(self, database: Database, storage_quota: int, limits: KeystoneLimits | None) -> None:
        """`storage_quota` is in bytes, 0 for none, and of no effect beside limits of Keystone, as in Glance."""
        self._database = database
        self._storage = storage_quota if limits is None else 0
        self._limits = limits
        self._threads = WaitingThreads("limits", THREADS, "the limits of their project") if limits else None
        self._complete = False

    @property
    def on(self) -> bool:
        """Whether anything is limited."""
        return self._limits is not None or self._storage > 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a record call that may ask Keystone: in a thread of its own kind, if there is a Keystone to ask."""
        run = self._database.run if self._threads is None else self._threads.run
        return await run(call, *args, **kwargs)

    def account(self, project: str | None) -> Account:
        """What the project may have. Blocks while it asks Keystone, if it does. Raises `Unavailable`."""
        if self._limits is None:
            return self.storage_account(project)
        limits = {name: limit if limit >= 0 else None for name, limit in self._limits.of(project).items()}
        mib = limits[SIZE_TOTAL]
        size = None if mib is None else mib * MIB
        mib = limits[STAGE_TOTAL]
        staged = None if mib is None else mib * MIB
        return Account(project, size, limits[COUNT_TOTAL], limits[COUNT_UPLOADING], SIZE_TOTAL, staged)

    def storage_account(self, project: str | None) -> Account:
        """The same with nothing but `user_storage_quota`, for what no limit of Keystone is about. Never blocks."""
        return Account(project, self._storage or None)

    def write(self, work: Callable[[Connection], T]) -> T:
        """`Database.write` where the tables for quotas may be needed; adds them to a database that Glance made."""
        if not self.on:
            return self._database.write(work)
        self._add_tables()
        try:
            return self._database.write(work)
        except Unavailable:
            self._complete = False  # perhaps the tables are gone, with a backup that was played back
            raise

    def _add_tables(self) -> None:
        if not self._complete:
            try:
                self._database.write(additions.complete)
            except Conflict:  # on PostgreSQL: another process did the same at the same moment
                self._database.write(additions.complete)
            self._complete = True

    def extend(self, reservation: Reservation, size: int) -> Reservation:
        """Let an upload have at least `size` bytes. Raises `TooLarge`, `Gone`, `Unavailable`."""

        def work(connection: Connection) -> Reservation:
            books.take_turn(connection, reservation.project)
            count = books.staged_bytes if reservation.limit == STAGE_TOTAL else books.used_bytes
            used = count(connection, reservation.project)
            left, missing = reservation.ceiling - used, size - reservation.size
            if missing > left:
                raise _over(reservation.limit, reservation.ceiling, used - reservation.size, size)
            # Large steps cost few transactions; where little is left, small ones leave some of it to other uploads.
            step = max(missing, min(max(STEP, size // 4), left // 8))
            books.change(connection, reservation.image_id, reservation.size + step)
            return replace(reservation, size=reservation.size + step)

        return self.write(work)

    def release(self, connection: Connection, image_id: str) -> None:
        """Count for an image, whose upload ends in this transaction, nothing but what its record says."""
        if self.on:
            books.release(connection, image_id)

    def forget_dead(self) -> None:
        """Remove what uploads left that ended while quotas were switched off."""
        if self.on:
            self.write(books.forget_dead)

    def usage(self, project: str | None) -> dict[str, dict[str, int]]:
        """What `GET /v2/info/usage` shows: usage and limit of each resource of Keystone's; nothing without them."""
        if self._limits is None:
            return {}
        limits: Mapping[str, int] = self._limits.of(project)
        self._add_tables()
        used = self._database.read(
            lambda connection: {
                SIZE_TOTAL: books.used_bytes(connection, project) // MIB,
                STAGE_TOTAL: books.staged_bytes(connection, project) // MIB,
                COUNT_TOTAL: books.image_count(connection, project),
                COUNT_UPLOADING: books.uploading_count(connection, project),
            }
        )
        return {name: {"limit": limits[name], "usage": used[name]} for name in RESOURCES}

    def close(self) -> None:
        """Let go of the threads."""
        if self._threads is not None:
            self._threads.close()


def _ceiling(what: str, limit: int, used: int, size: int | None, alone: bool) -> int:
    """The most bytes that a project may use while it brings `size` more, None where nobody knows. Raises `TooLarge`."""
    ceiling = limit
    if size is None and alone and limit and used // MIB * MIB == limit:
        ceiling += MIB
    if used + (size or 0) > ceiling or (size is None and used >= ceiling):
        raise _over(what, limit, used, size)
    return ceiling


def _within(what: str, limit: int, used: int, more: int) -> None:
    if used + more > limit:
        raise TooLarge(f"The project has reached its limit {what}: it has {used} of {limit}.")


def _over(what: str, limit: int, used: int, size: int | None) -> TooLarge:
    wanted = "" if size is None else f", and {_mib(size)} are asked for"
    return TooLarge(f"The project has reached its limit {what}: {_mib(used)} of {_mib(limit)} are used{wanted}.")


def _mib(size: int) -> str:
    return f"{size / MIB:.2f}".rstrip("0").rstrip(".") + " MiB"
