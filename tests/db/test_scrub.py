"""What is due to be erased, who may erase it, and images that come back, in each kind of database."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from glimpse.db import images, members, scrub
from glimpse.db.engine import Database
from glimpse.db.scrub import STALE, Deadlines, Waiting
from glimpse.db.tables import image_locations, image_properties, image_tags
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location
from glimpse.errors import Conflict, NotFound
from tests.db.opened import opened
from tests.db.test_schema import database_settings

NEVER = datetime(1970, 1, 1)
THEN = datetime(2026, 1, 1)
NOW = THEN + timedelta(days=1)
MARKS = ("mark",)
ADMIN = Context(is_admin=True)


def image(database: Database, *urls: str, status: str = "active", **values: Any) -> Image:
    """A stored image that has its bytes at these places."""
    made = Image(id=str(uuid.uuid4()), status=status, visibility="shared", owner="p", created_at=THEN, updated_at=THEN,
                 **values)  # fmt: skip

    def work(connection: Any) -> Image:
        images.insert(connection, made)
        for url in urls:
            images.add_location(connection, made.id, Location(url, {"store": "s"}), THEN)
        return images.get(connection, made.id, ADMIN)

    return database.write(work)


def deleted(database: Database, *urls: str, status: str = "pending_delete", **values: Any) -> Image:
    made = image(database, *urls, **values)
    database.write(lambda connection: images.delete(connection, made, status, THEN))
    return made


def due(database: Database, delayed: datetime = NOW, gone: datetime = NOW, single: datetime = NOW) -> list[Waiting]:
    return database.read(lambda connection: scrub.due(connection, Deadlines(delayed, gone, single), NOW))


def claim(database: Database, waiting: Waiting, now: datetime = NOW) -> datetime | None:
    return database.write(lambda connection: scrub.claim(connection, waiting, now, MARKS))


def urls(found: list[Waiting]) -> list[str]:
    return [each.location.url for each in found]


def test_each_kind_has_its_own_time(synced: Database) -> None:
    deleted(synced, "file:///a", "file:///b")
    deleted(synced, "file:///c", status="deleted")
    alive = image(synced, "file:///d", "file:///e")
    synced.write(lambda c: images.remove_location(c, alive.locations[0].id, THEN))
    assert urls(due(synced, gone=NEVER, single=NEVER)) == ["file:///a", "file:///b"]
    assert urls(due(synced, delayed=NEVER, single=NEVER)) == ["file:///c"]
    assert urls(due(synced, delayed=NEVER, gone=NEVER)) == ["file:///d"]
    assert [each.location.metadata for each in due(synced, THEN, THEN, THEN)] == [{"store": "s"}] * 4
    assert due(synced, THEN - timedelta(seconds=1), THEN - timedelta(seconds=1), THEN - timedelta(seconds=1)) == []


def test_pages_follow_each_other(synced: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PAGE", 2)
    deleted(synced, *(f"file:///{number}" for number in range(5)))
    seen, after = [], 0
    while page := synced.read(lambda c, after=after: scrub.due(c, Deadlines(NOW, NOW, NOW), NOW, after)):
        assert len(page) <= 2
        seen += urls(page)
        after = page[-1].location.id or 0
    assert seen == [f"file:///{number}" for number in range(5)]


def test_one_of_many_erases_a_place(synced: Database) -> None:
    deleted(synced, "file:///a")
    [waiting] = due(synced)
    with ThreadPoolExecutor(6) as pool:
        claims = list(pool.map(lambda _: claim(synced, waiting), range(6)))
    assert len([each for each in claims if each is not None]) == 1
    assert due(synced) == []


def test_also_in_the_second_in_which_it_was_deleted(synced: Database) -> None:
    deleted(synced, "file:///a")
    [waiting] = due(synced)
    assert claim(synced, waiting, THEN) is not None
    assert claim(synced, waiting, THEN) is None


def test_a_claim_runs_out_unless_it_is_renewed(synced: Database) -> None:
    deleted(synced, "file:///a")
    [waiting] = due(synced)
    first = claim(synced, waiting)
    assert first == NOW
    later = NOW + STALE
    renewed = synced.write(lambda c: scrub.renew(c, waiting.location, first, later))
    assert renewed == later
    assert claim(synced, waiting, later + timedelta(seconds=100)) is None
    second = claim(synced, waiting, later + STALE + timedelta(seconds=1))
    assert second is not None
    assert synced.write(lambda c: scrub.renew(c, waiting.location, renewed, later)) is None


def test_what_is_given_back_is_due_again(synced: Database) -> None:
    deleted(synced, "file:///a")
    [waiting] = due(synced)
    stamp = claim(synced, waiting)
    assert stamp is not None
    synced.write(lambda c: scrub.release(c, waiting.location, stamp))
    assert due(synced) == [waiting]


def test_a_place_that_lives_again_is_not_erased(synced: Database) -> None:
    made = image(synced, "file:///a", "file:///b")
    synced.write(lambda c: images.remove_location(c, made.locations[0].id, THEN))
    [waiting] = due(synced)
    synced.write(lambda c: images.add_location(c, made.id, Location("file:///a"), THEN))
    assert claim(synced, waiting) is None
    assert due(synced) == []
    live = synced.read(lambda c: images.get(c, made.id, ADMIN)).locations
    assert [each.url for each in live] == ["file:///b", "file:///a"]


@pytest.mark.parametrize("busy", ["saving", "importing", "mark"])
def test_nothing_is_erased_while_bytes_are_stored(synced: Database, busy: str) -> None:
    """And the other way round: nobody begins to store while something is erased."""
    made = image(synced, "file:///a", "file:///b")
    synced.write(lambda c: images.remove_location(c, made.locations[0].id, THEN))
    [waiting] = due(synced)
    if busy == "mark":
        synced.write(lambda c: images.set_property(c, made.id, "mark", "x", THEN))
    else:
        synced.write(lambda c: images.set_status(c, made.id, "active", busy, THEN))
    assert claim(synced, waiting) is None
    synced.write(lambda c: scrub.check_at_rest(c, made.id, NOW))
    if busy == "mark":
        synced.write(lambda c: images.drop_property(c, made.id, "mark", "x"))
    else:
        synced.write(lambda c: images.set_status(c, made.id, busy, "active", THEN))
    assert claim(synced, waiting) is not None
    with pytest.raises(Conflict):
        synced.write(lambda c: scrub.check_at_rest(c, made.id, NOW))
    synced.write(lambda c: images.erased(c, waiting.location))
    synced.write(lambda c: scrub.check_at_rest(c, made.id, NOW))


@pytest.fixture(
    params=["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in ("mariadb", "postgresql", "galera"))]
)
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Database]]:
    """One database opened twice, or two nodes of a cluster."""
    match request.param:
        case "sqlite":
            urls = [f"sqlite:///{tmp_path}/glance.sqlite"] * 2
        case "galera":
            urls = list(request.getfixturevalue("galera").fresh_urls())
        case name:
            urls = [request.getfixturevalue(f"{name}_url")] * 2
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(opened(database_settings(tmp_path, url), 4)) for url in urls]


def test_to_erase_and_to_store_exclude_each_other(nodes: list[Database]) -> None:
    """Whoever comes first, on whichever node: never both, and never none."""
    eraser, writer = nodes

    def begin(image_id: str) -> bool:
        """As the lock of an import is taken, or the lease of an upload."""

        def work(connection: Any) -> None:
            images.get(connection, image_id, ADMIN, lock=True)
            scrub.check_at_rest(connection, image_id, NOW)
            images.set_property(connection, image_id, "mark", "x", NOW)

        with contextlib.suppress(Conflict):
            writer.write(work)
            return True
        return False

    waiting = []
    for _ in range(30):
        made = image(eraser, "file:///a", "file:///b")
        eraser.write(lambda c, made=made: images.remove_location(c, made.locations[0].id, THEN))
        waiting.append(Waiting(made.id, made.locations[0], made.owner))
    together = threading.Barrier(2, timeout=60)

    def at_once(call: Callable[[], Any]) -> Any:
        together.wait()
        return call()

    outcomes = []
    with ThreadPoolExecutor(2) as pool:
        for each in waiting:
            stored = pool.submit(at_once, lambda each=each: begin(each.image_id))
            erased = pool.submit(at_once, lambda each=each: claim(eraser, each))
            outcomes.append((stored.result(), erased.result() is not None))
    assert set(outcomes) <= {(True, False), (False, True)}


def test_places_that_two_images_have(synced: Database) -> None:
    url = "swift://account/container/Object"
    one, other = image(synced, url), image(synced, url)
    image(synced, url.lower())

    def is_shared(image_id: str) -> bool:
        return synced.read(lambda connection: scrub.is_shared(connection, image_id, url))

    assert is_shared(one.id)
    synced.write(lambda connection: images.delete(connection, other, "deleted", THEN))
    assert not is_shared(one.id)
    assert is_shared(other.id)


@pytest.mark.parametrize(
    ("place", "alias"),
    [
        ("s3://host/images/{}", "s3://elsewhere/images/{}"),
        ("s3://host/images/{}", "s3+https://{own}/images/{}"),
        ("rbd://{fsid}/images/{}/snap", "rbd://{}"),
        ("rbd://{fsid}/images/{}/snap", "rbd://{fsid}/images/%{}/{own}"),
        ("cinder://cinder/{volume}", "cinder://{volume}"),
    ],
)
def test_one_place_has_many_names(synced: Database, place: str, alias: str) -> None:
    """Whoever may name places may name another image's in a way of his own; its bytes stay all the same."""
    fixed = {"fsid": str(uuid.uuid4()), "volume": str(uuid.uuid4())}
    owner, borrower = image(synced), image(synced)
    own = place.format(owner.id, **fixed)
    synced.write(lambda c: images.add_location(c, owner.id, Location(own, {}), THEN))
    named = f"{ord(owner.id[0]):02x}{owner.id[1:]}" if "%" in alias else owner.id
    url = alias.format(named, own=borrower.id, **fixed)

    def is_shared(image_id: str, url: str) -> bool:
        if scrub.is_own(image_id, url):
            return False
        return synced.read(lambda connection: scrub.is_shared(connection, image_id, url))

    assert is_shared(borrower.id, url)
    assert not is_shared(owner.id, own)
    synced.write(lambda connection: images.delete(connection, owner, "pending_delete", THEN))
    assert is_shared(borrower.id, url) or "volume" in alias
    for waiting in due(synced):
        synced.write(lambda c, at=waiting.location: images.erased(c, at))
    synced.write(lambda c: scrub.finish(c, NOW, NOW))
    assert not is_shared(borrower.id, url)


def test_an_image_without_bytes_is_deleted(synced: Database) -> None:
    made, other = deleted(synced, "file:///a", "file:///b"), deleted(synced, "file:///c")
    first, second, _ = due(synced)
    assert synced.write(lambda c: scrub.finish(c, NOW, NOW)) == []
    for waiting in (first, second):
        synced.write(lambda c, at=waiting.location: images.erased(c, at))
    assert synced.write(lambda c: scrub.finish(c, THEN - timedelta(seconds=1), NOW)) == []
    assert synced.write(lambda c: scrub.finish(c, NOW, NOW)) == [made.id]
    with pytest.raises(Conflict):
        synced.read(lambda c: scrub.restorable(c, made.id))
    assert synced.read(lambda c: scrub.restorable(c, other.id)) != []


def test_an_image_comes_back_as_it_was(synced: Database) -> None:
    made = image(
        synced, "file:///a", "file:///b", "file:///c", properties={"a": "1", "b": "2", "os_glance_x": "y"},
        tags=("t", "u"), name="n",
    )  # fmt: skip
    synced.write(lambda c: members.add(c, made.id, "q", THEN))
    smaller = made.with_(properties={"a": "1", "os_glance_x": "y"}, tags=("t",), locations=made.locations[1:])
    synced.write(lambda c: images.update(c, made, smaller))
    whole = synced.read(lambda c: images.get(c, made.id, ADMIN))
    when = THEN + timedelta(hours=1)
    synced.write(lambda c: images.delete(c, whole, "pending_delete", when))
    places = synced.read(lambda c: scrub.restorable(c, made.id))
    assert [each.url for each in places] == ["file:///b", "file:///c"]
    assert synced.write(lambda c: scrub.restore(c, made.id, places, NOW)) == "active"
    back = synced.read(lambda c: images.get(c, made.id, ADMIN))
    assert (back.status, back.name, back.properties, back.tags) == ("active", "n", {"a": "1"}, ("t",))
    assert [each.url for each in back.locations] == ["file:///b", "file:///c"]
    assert [each.member_id for each in synced.read(lambda c: members.find(c, made.id))] == ["q"]
    for table in (image_tags, image_properties, image_locations):
        query = sa.select(sa.func.count()).where(table.c.deleted == sa.false(), table.c.deleted_at.is_not(None))
        assert synced.read(lambda c, query=query: c.execute(query).scalar_one()) == 0


def test_one_that_was_deactivated_comes_back_so(synced: Database) -> None:
    made = image(synced, "file:///a", status="deactivated")
    synced.write(lambda c: images.set_property(c, made.id, "os_glance_deactivated", "true", THEN))
    synced.write(lambda c: images.delete(c, made, "pending_delete", THEN))
    places = synced.read(lambda c: scrub.restorable(c, made.id))
    assert synced.write(lambda c: scrub.restore(c, made.id, places, NOW)) == "deactivated"
    assert synced.read(lambda c: images.get(c, made.id, ADMIN)).properties == {}


def test_glance_deletes_the_places_a_moment_earlier(synced: Database) -> None:
    made = image(synced, "file:///a", properties={"a": "1"})
    before = THEN - timedelta(seconds=2)
    synced.write(lambda c: images.remove_location(c, made.locations[0].id, before))
    synced.write(lambda c: images.delete(c, made, "pending_delete", THEN))
    places = synced.read(lambda c: scrub.restorable(c, made.id))
    synced.write(lambda c: scrub.restore(c, made.id, places, NOW))
    back = synced.read(lambda c: images.get(c, made.id, ADMIN))
    assert ([each.url for each in back.locations], back.properties) == (["file:///a"], {"a": "1"})


def test_no_image_comes_back_while_it_is_erased(synced: Database) -> None:
    made = deleted(synced, "file:///a")
    places = synced.read(lambda c: scrub.restorable(c, made.id))
    [waiting] = due(synced)
    assert claim(synced, waiting)
    with pytest.raises(Conflict):
        synced.write(lambda c: scrub.restore(c, made.id, places, NOW))
    synced.write(lambda c: scrub.restore(c, made.id, places, NOW + 2 * STALE))  # who had the claim is dead
    assert claim(synced, waiting, NOW + 3 * STALE) is None
    synced.write(lambda c: images.erased(c, waiting.location))  # said too late: it lives
    assert synced.read(lambda c: images.get(c, made.id, ADMIN)).locations != ()


def test_what_cannot_come_back(synced: Database) -> None:
    with pytest.raises(NotFound):
        synced.read(lambda c: scrub.restorable(c, "unknown"))
    for other in (image(synced, "file:///a"), deleted(synced, "file:///a", status="deleted")):
        with pytest.raises(Conflict, match="pending_delete"):
            synced.read(lambda c, other=other: scrub.restorable(c, other.id))
        with pytest.raises(Conflict):
            synced.write(lambda c, other=other: scrub.restore(c, other.id, [], NOW))
