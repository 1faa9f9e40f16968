"""What changes of locations do to an image, without any store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from glimpse.domain import locations
from glimpse.domain.locations import LocationRules, NewLocation, Unmeasured
from glimpse.domain.record import Image, Location
from glimpse.errors import BadRequest, Conflict, Forbidden, TooLarge

THEN = datetime(2026, 1, 2)
ONE, TWO = "http://one/x", "http://two/x"


def image(*urls: str, status: str = "active", **fields: Any) -> Image:
    held = tuple(Location(url, {}, id=number) for number, url in enumerate(urls, 1))
    values = {"disk_format": "raw", "container_format": "bare", **fields}
    return Image("i", status, "shared", THEN, THEN, locations=held, **values)


def rules(**fields: Any) -> LocationRules:
    sizes: Mapping[str, int | None] = {ONE: 7, TWO: 8, "bad": None, "empty": 0}
    return replace(LocationRules(3, "sha256", lambda url: "web", sizes), **fields)


def value(url: str, **fields: Any) -> dict[str, Any]:
    return {"url": url, "metadata": {}, **fields}


def test_a_url_is_looked_at_only_after_everything_else() -> None:
    queued = image(status="queued")
    with pytest.raises(Unmeasured) as asked:
        locations.replace(queued, [value("new"), value(ONE), value("new", metadata={"a": "b"})], rules())
    assert asked.value.urls == ["new"]
    for broken in (image(status="saving"), image(status="deactivated")):
        with pytest.raises(Conflict):
            locations.add(broken, "-", value("new"), rules())
    with pytest.raises(BadRequest):
        locations.add(queued, "x", value("new"), rules())
    with pytest.raises(TooLarge):
        locations.add(image(ONE, ONE, TWO), "-", value("new"), rules())
    with pytest.raises(Conflict):
        said = {"os_hash_algo": "md5", "os_hash_value": 32 * "a"}
        locations.add(queued, "-", value("new", validation_data=said), rules())


def test_the_size_comes_with_the_first_location() -> None:
    added = locations.add(image(status="queued"), "-", value(TWO), rules())
    assert (added.status, added.size) == ("active", 8)
    assert locations.add(added, "-", value(ONE), rules()).size == 8
    for url in ("bad", "empty"):
        with pytest.raises(BadRequest):
            locations.add(image(status="queued"), "-", value(url), rules())


def test_no_quota() -> None:
    assert len(locations.add(image(*[TWO] * 5), "-", value(ONE), rules(quota=-1)).locations) == 6
    with pytest.raises(TooLarge):
        locations.add(image(), "-", value(ONE), rules(quota=0))


def test_replaced_metadata_keeps_the_rows() -> None:
    before = image(ONE, TWO)
    before = before.with_(locations=tuple(reversed(before.locations)))  # as their weight orders them
    after = locations.replace(before, [value(TWO, metadata={"a": "b"}), value(ONE)], rules())
    assert [(each.id, each.url, each.metadata) for each in after.locations] == [
        (1, TWO, {"a": "b", "store": "web"}), (2, ONE, {"store": "web"}),
    ]  # fmt: skip
    with pytest.raises(BadRequest):
        locations.replace(before, [value(ONE), value(ONE)], rules())


@pytest.mark.parametrize(("position", "left"), [("0", [TWO, "c"]), ("1", [ONE, "c"]), ("-", [ONE, TWO])])
def test_removal(position: str, left: list[str]) -> None:
    assert [each.url for each in locations.remove(image(ONE, TWO, "c"), position).locations] == left


@pytest.mark.parametrize("position", ["3", "-1", "x", "99999999999", "", "٣"])
def test_removal_of_what_is_not_there(position: str) -> None:
    with pytest.raises(BadRequest):
        locations.remove(image(ONE, TWO, "c"), position)


def test_the_last_one_stays() -> None:
    for position in ("0", "-", "x"):
        with pytest.raises(Forbidden):
            locations.remove(image(ONE), position)
    with pytest.raises(Forbidden):
        locations.replace(image(ONE), [], rules())


@pytest.mark.parametrize("text", ["ab " * 21 + "a", " " * 64, "٣" * 64, "a" * 63, "0x" + "a" * 62])
def test_what_is_no_hash(text: str) -> None:
    with pytest.raises(ValueError, match="os_hash_value"):
        locations.check_hash("sha256", text)


def test_an_order_goes_through_a_task() -> None:
    body = {"url": ONE, "validation_data": {"os_hash_algo": "md5", "os_hash_value": 32 * "A"}, "more": 1}
    wanted = NewLocation.parse(body)
    wanted.check()
    assert wanted == NewLocation(ONE, "md5", 32 * "A")
    assert NewLocation.from_task({"loc_url": ONE, "validation_data": wanted.validation_data()}) == wanted
    assert NewLocation.from_task({"loc_url": ONE, "validation_data": {}}).validation_data() == {}
    with pytest.raises(BadRequest):
        NewLocation(ONE, "md5", 32 * "x").check()


@pytest.mark.parametrize("scheme", ["swift", "swift+http", "swift+https"])
def test_credentials_of_swift_are_not_shown(scheme: str) -> None:
    place = Location(f"{scheme}://project%3Auser:a/key@keystone:5000/v3/images/one")
    assert place.shown == f"{scheme}://keystone:5000/v3/images/one"
    assert "a/key" in place.url


@pytest.mark.parametrize("url", ["swift+config://ref/images/one", "http://me:mine@example.org/one", "file:///one@two"])
def test_other_urls_are_shown_as_they_are(url: str) -> None:
    assert Location(url).shown == url
