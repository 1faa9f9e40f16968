"""Two writers at the same thing, 50 rounds each, through two services on one database: no update is ever lost.

Each writer works on parts of its own and looks after each call whether what it wrote is there. A writer that read
before the other had written, and wrote after it, would undo the other's work, and the other would see that.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tests.black_box.image_api import PATCH_TYPE, ImageApi
from tests.conftest import ServiceFactory
from tests.journeys.site import Site
from tests.rig.services import Glimpse

ROUNDS = 50
KEPT = 5  # each writer takes away what it made so many rounds ago

IMAGE = "/v2/images"
NAMESPACES = "/v2/metadefs/namespaces"

Writers = tuple[ImageApi, ImageApi]


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "galera", "postgresql"])
def writers(request: pytest.FixtureRequest, rig_folder: Path) -> Iterator[Writers]:
    """Two services with one worker each, on one database; nobody has to show who they are.

    In the Galera cluster each has a node of its own, which answers reads when it has what was written on the other.
    """
    folder = rig_folder / f"writers-{request.param}"
    folder.mkdir()
    urls = [f"sqlite:///{folder}/glance.sqlite"] * 2
    if request.param == "galera":
        urls = list(request.getfixturevalue("galera").fresh_urls())
    elif request.param != "sqlite":
        urls = [request.getfixturevalue(request.param).fresh_url()] * 2
    sections: dict[str, dict[str, object]] = {
        "DEFAULT": {
            "enabled_backends": "fs:file,web:http",
            "workers": 1,
            "show_multiple_locations": True,
            **{f"image_{part}_quota": -1 for part in ("property", "tag", "member", "location")},
        },
        "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
        "fs": {"filesystem_store_datadir": folder / "images"},
    }
    factory = ServiceFactory(Glimpse, folder)
    try:
        databases = [{"connection": url, "mysql_wsrep_sync_wait": 1} for url in urls]
        first, second = (factory({**sections, "database": database}) for database in databases)
        yield ImageApi(first.url, None), ImageApi(second.url, None)
    finally:
        factory.stop_all()


def at_once(writers: Writers, work: Callable[[ImageApi, int], None]) -> None:
    """Both writers do their rounds; the first failure of either is raised."""
    with ThreadPoolExecutor(len(writers)) as pool:
        for done in [pool.submit(work, api, number) for number, api in enumerate(writers)]:
            done.result()


def bytes_of(api: ImageApi) -> str:
    """A new active image."""
    image = api.create(disk_format="raw", container_format="bare")
    api.upload(image, b"content")
    return image


def namespace(api: ImageApi, **parts: Any) -> str:
    """A new namespace of metadata definitions."""
    name = uuid.uuid4().hex
    api.ok("POST", NAMESPACES, json={"namespace": name, **parts})
    return name


@dataclass(frozen=True)
class Parts:
    """A set of things with names in a bigger thing, and the calls that make it, add one, take one, and list them."""

    make: Callable[[ImageApi], str]
    add: Callable[[ImageApi, str, str], Any]
    take: Callable[[ImageApi, str, str], Any]
    names: Callable[[ImageApi, str], set[str]]


def definitions(kind: str, body: dict[str, str]) -> Parts:
    """The definitions of one kind in a namespace."""
    listed = "resource_type_associations" if kind == "resource_types" else kind
    return Parts(
        namespace,
        lambda api, home, name: api.ok("POST", f"{NAMESPACES}/{home}/{kind}", json={"name": name, **body}),
        lambda api, home, name: api.ok("DELETE", f"{NAMESPACES}/{home}/{kind}/{name}"),
        lambda api, home: names_in(api.ok("GET", f"{NAMESPACES}/{home}/{kind}").json()[listed]),
    )


def names_in(found: Any) -> set[str]:
    """The names in a list of definitions; that of the properties is an object."""
    return set(found) if isinstance(found, dict) else {each["name"] for each in found}


PARTS = {
    "properties": Parts(
        bytes_of,
        lambda api, image, name: api.change(image, {"op": "add", "path": f"/{name}", "value": "x"}),
        lambda api, image, name: api.change(image, {"op": "remove", "path": f"/{name}"}),
        lambda api, image: {name for name in api.show(image) if name.startswith("its-")},
    ),
    "tags": Parts(
        bytes_of,
        lambda api, image, name: api.ok("PUT", f"{IMAGE}/{image}/tags/{name}"),
        lambda api, image, name: api.ok("DELETE", f"{IMAGE}/{image}/tags/{name}"),
        lambda api, image: set(api.show(image)["tags"]),
    ),
    "members": Parts(
        bytes_of,
        lambda api, image, name: api.ok("POST", f"{IMAGE}/{image}/members", json={"member": name}),
        lambda api, image, name: api.ok("DELETE", f"{IMAGE}/{image}/members/{name}"),
        lambda api, image: {
            member["member_id"] for member in api.ok("GET", f"{IMAGE}/{image}/members").json()["members"]
        },
    ),
    "images": Parts(
        lambda api: uuid.uuid4().hex,
        lambda api, mark, name: api.create(id=str(uuid.uuid5(uuid.NAMESPACE_OID, mark + name)), name=name, tags=[mark]),
        lambda api, mark, name: api.delete(str(uuid.uuid5(uuid.NAMESPACE_OID, mark + name))),
        lambda api, mark: {image["name"] for image in api.images(f"?limit=1000&tag={mark}")},
    ),
    "namespaces": Parts(
        lambda api: uuid.uuid4().hex,
        lambda api, mark, name: api.ok("POST", NAMESPACES, json={"namespace": f"{mark}{name}"}),
        lambda api, mark, name: api.ok("DELETE", f"{NAMESPACES}/{mark}{name}"),
        lambda api, mark: {
            found["namespace"].removeprefix(mark)
            for found in api.ok("GET", f"{NAMESPACES}?limit=1000").json()["namespaces"]
            if found["namespace"].startswith(mark)
        },
    ),
    "metadef objects": definitions("objects", {}),
    "metadef properties": definitions("properties", {"title": "A property", "type": "string"}),
    "metadef resource types": definitions("resource_types", {}),
    "metadef tags": replace(
        definitions("tags", {}), add=lambda api, home, name: api.ok("POST", f"{NAMESPACES}/{home}/tags/{name}")
    ),
    "metadef tags, many at once": replace(
        definitions("tags", {}),
        add=lambda api, home, name: api.ok(
            "POST",
            f"{NAMESPACES}/{home}/tags",
            json={"tags": [{"name": name}]},
            headers={"X-Openstack-Append": "true"},
        ),
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_parts_come_and_go(writers: Writers, kind: str) -> None:
    parts = PARTS[kind]
    whole = parts.make(writers[0])

    def work(api: ImageApi, number: int) -> None:
        for turn in range(ROUNDS):
            parts.add(api, whole, f"its-{number}-{turn}")
            if turn >= KEPT:
                parts.take(api, whole, f"its-{number}-{turn - KEPT}")
            mine = {name for name in parts.names(api, whole) if name.startswith(f"its-{number}-")}
            assert mine == {f"its-{number}-{kept}" for kept in range(turn, max(turn - KEPT, -1), -1)}

    at_once(writers, work)
    left = {f"its-{number}-{turn}" for number in range(2) for turn in range(ROUNDS - KEPT, ROUNDS)}
    assert parts.names(writers[0], whole) == parts.names(writers[1], whole) == left


def test_properties_beside_tags_and_members(writers: Writers) -> None:
    """Two kinds of parts of one image: neither call writes what it did not mean to."""
    image = bytes_of(writers[0])

    def work(api: ImageApi, number: int) -> None:
        kinds = ("properties",) if number == 0 else ("tags", "members")
        for turn in range(ROUNDS):
            for kind in kinds:
                PARTS[kind].add(api, image, f"its-{number}-{turn}")

    at_once(writers, work)
    for kind, number in (("properties", 0), ("tags", 1), ("members", 1)):
        assert PARTS[kind].names(writers[0], image) == {f"its-{number}-{turn}" for turn in range(ROUNDS)}


def test_fields_of_an_image(writers: Writers) -> None:
    """Each writer changes a field of its own, and a property of its own."""
    image = writers[0].create(mine0="", mine1="")

    def work(api: ImageApi, number: int) -> None:
        field = ("name", "owner")[number]
        for turn in range(ROUNDS):
            values = {field: f"field {turn}", f"mine{number}": f"value {turn}"}
            operations = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
            api.change(image, *operations)
            found = api.show(image)
            assert {name: found[name] for name in values} == values

    at_once(writers, work)
    last = ROUNDS - 1
    found = writers[0].show(image)
    assert (found["name"], found["owner"]) == (f"field {last}", f"field {last}")
    assert (found["mine0"], found["mine1"]) == (f"value {last}", f"value {last}")


def test_locations(writers: Writers) -> None:
    image, site = writers[0].create(disk_format="raw", container_format="bare"), Site()
    urls = [[site.add(b"content") for _ in range(ROUNDS)] for _ in writers]

    def work(api: ImageApi, number: int) -> None:
        for url in urls[number]:
            api.change(image, {"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}})

    try:
        at_once(writers, work)
    finally:
        site.stop()
    found = [location["url"] for location in writers[0].show(image)["locations"]]
    assert sorted(found) == sorted(urls[0] + urls[1])


def test_orders_for_a_location(writers: Writers) -> None:
    """Of two orders for the same image one is taken; its task and its image come to an end, and nothing is left."""
    images, site = [writers[0].create(disk_format="raw", container_format="bare") for _ in range(ROUNDS)], Site()
    url, both, taken = site.add(b"content"), Barrier(2), [0] * ROUNDS

    def work(api: ImageApi, number: int) -> None:
        for turn, image in enumerate(images):
            both.wait(30)
            code = api.call("POST", f"{IMAGE}/{image}/locations", json={"url": url}).status_code
            assert code in (202, 409)
            taken[turn] += code == 202

    try:
        at_once(writers, work)
        deadline = time.monotonic() + 30
        for image in images:
            while any(name.startswith("os_glance") for name in writers[0].show(image)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        site.stop()
    assert taken == [1] * ROUNDS
    for image in images:
        shown = writers[1].show(image)
        assert (shown["status"], len(shown["locations"]), bool(shown["os_hash_value"])) == ("active", 1, True)
        [task] = writers[1].ok("GET", f"{IMAGE}/{image}/tasks").json()["tasks"]
        assert task["status"] == "success"


def test_what_members_say(writers: Writers) -> None:
    """Two members of one image change their minds."""
    image = bytes_of(writers[0])
    for number in range(2):
        writers[0].ok("POST", f"{IMAGE}/{image}/members", json={"member": f"its-{number}"})

    def work(api: ImageApi, number: int) -> None:
        path = f"{IMAGE}/{image}/members/its-{number}"
        for turn in range(ROUNDS):
            status = ("accepted", "rejected", "pending")[turn % 3]
            assert api.ok("PUT", path, json={"status": status}).json()["status"] == status
            assert api.ok("GET", path).json()["status"] == status

    at_once(writers, work)


def test_the_same_member(writers: Writers) -> None:
    """Both want to add the same project; one of them does, whoever comes second is told so."""
    image = bytes_of(writers[0])
    added: list[str] = []

    def work(api: ImageApi, number: int) -> None:
        for turn in range(ROUNDS):
            answer = api.call("POST", f"{IMAGE}/{image}/members", json={"member": f"m{turn}"})
            assert answer.status_code in (200, 409)
            if answer.status_code == 200:
                added.append(f"m{turn}")

    at_once(writers, work)
    assert sorted(added) == sorted(f"m{turn}" for turn in range(ROUNDS))
    found = writers[0].ok("GET", f"{IMAGE}/{image}/members").json()["members"]
    assert sorted(member["member_id"] for member in found) == sorted(added)


def test_off_and_on(writers: Writers) -> None:
    """One deactivates, one reactivates, and the record's other writers do not bring an old status back."""
    image = bytes_of(writers[0])

    def work(api: ImageApi, number: int) -> None:
        action = ("deactivate", "reactivate")[number]
        for turn in range(ROUNDS):
            api.ok("POST", f"{IMAGE}/{image}/actions/{action}")
            api.ok("PUT", f"{IMAGE}/{image}/tags/its-{number}-{turn}")

    at_once(writers, work)
    assert len(writers[0].show(image)["tags"]) == 2 * ROUNDS
    writers[0].ok("POST", f"{IMAGE}/{image}/actions/deactivate")
    assert writers[1].show(image)["status"] == "deactivated"


def test_a_counter(writers: Writers) -> None:
    """Both add to one number. With If-Match no addition is lost, although it is made in two calls."""
    image = writers[0].create(counter="0")

    def work(api: ImageApi, number: int) -> None:
        for _ in range(ROUNDS):
            while True:
                seen = api.ok("GET", f"{IMAGE}/{image}")
                more = {"op": "replace", "path": "/counter", "value": str(int(seen.json()["counter"]) + 1)}
                headers = {"Content-Type": PATCH_TYPE, "If-Match": seen.headers["ETag"]}
                answer = api.call("PATCH", f"{IMAGE}/{image}", json=[more], headers=headers)
                if answer.status_code == 200:
                    break
                assert answer.status_code == 412

    at_once(writers, work)
    assert writers[0].show(image)["counter"] == str(2 * ROUNDS)


WHOLE = {
    "namespace": ("", {}),
    "object": ("/objects/it", {"name": "it"}),
    "property": ("/properties/it", {"name": "it", "type": "string"}),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_definitions_that_are_replaced(writers: Writers, kind: str) -> None:
    """Both replace one definition as a whole. What is there is always what one of them wrote, never a mixture."""
    home = namespace(writers[0], objects=[{"name": "it"}], properties={"it": {"title": "", "type": "string"}})
    path, body = f"{NAMESPACES}/{home}{WHOLE[kind][0]}", WHOLE[kind][1] or {"namespace": home}

    def filled(mark: str) -> dict[str, Any]:
        if kind == "object":
            return {**body, "description": mark, "required": [mark]}
        return {**body, ("display_name" if kind == "namespace" else "title"): mark, "description": mark}

    def work(api: ImageApi, number: int) -> None:
        for turn in range(ROUNDS):
            sent = filled(f"its-{number}-{turn}")
            answer = api.ok("PUT", path, json=sent).json()
            assert {name: answer[name] for name in sent} == sent
            found = api.ok("GET", path).json()
            wanted = filled(found["description"])
            assert {name: found[name] for name in wanted} == wanted

    at_once(writers, work)
    last = writers[0].ok("GET", path).json()["description"]
    assert last in {f"its-{number}-{ROUNDS - 1}" for number in range(2)}


def test_tags_that_are_renamed(writers: Writers) -> None:
    """Each writer gives a tag of its own, in the same namespace, one new name after the other."""
    home = namespace(writers[0], tags=[{"name": "its-0-0"}, {"name": "its-1-0"}])

    def work(api: ImageApi, number: int) -> None:
        for turn in range(ROUNDS):
            tag = f"{NAMESPACES}/{home}/tags/its-{number}-{turn}"
            api.ok("PUT", tag, json={"name": f"its-{number}-{turn + 1}"})

    at_once(writers, work)
    found = writers[1].ok("GET", f"{NAMESPACES}/{home}/tags").json()["tags"]
    assert {tag["name"] for tag in found} == {f"its-{number}-{ROUNDS}" for number in range(2)}


def test_the_same_definition(writers: Writers) -> None:
    """Both want to make it; one does, the other is told that it is there."""
    home = namespace(writers[0])
    made: list[str] = []

    def work(api: ImageApi, number: int) -> None:
        for turn in range(ROUNDS):
            for kind, more in (
                ("objects", {}),
                ("properties", {"title": "t", "type": "string"}),
                ("resource_types", {}),
            ):
                name = f"{kind}-{turn}"
                answer = api.call("POST", f"{NAMESPACES}/{home}/{kind}", json={"name": name, **more})
                assert answer.status_code in (201, 409), answer.text
                if answer.status_code == 201:
                    made.append(name)

    at_once(writers, work)
    assert sorted(made) == sorted(
        f"{kind}-{turn}" for kind in ("objects", "properties", "resource_types") for turn in range(ROUNDS)
    )
