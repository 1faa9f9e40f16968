"""The location API: a place is given with one call, looked at and hashed after it (spec 1.4, 2.4)."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from .client import Api, Image, add, replace, unused
from .conftest import ON_LOOPBACK
from .content import MIB, flat_descriptor, noise, qcow2
from .service import Service
from .site import Site
from .test_locations import place

Who = Callable[[str], Api]


def post(api: Api, image_id: str, url: Any, **validation_data: Any) -> httpx.Response:
    more = {"validation_data": validation_data} if validation_data else {}
    return api.request("POST", f"/v2/images/{image_id}/locations", json={"url": url, **more})


def tasks(api: Api, image_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/v2/images/{image_id}/tasks").json()["tasks"]
    return found


def ended(api: Api, image_id: str, seconds: float = 15) -> tuple[Image, dict[str, Any]]:
    """The image and its last task, when all of them have come to their end."""
    deadline = time.monotonic() + seconds
    while any(task["status"] in ("pending", "processing") for task in tasks(api, image_id)):
        assert time.monotonic() < deadline, tasks(api, image_id)
        time.sleep(0.05)
    return api.show(image_id), tasks(api, image_id)[-1]


def sha256(data: bytes) -> dict[str, str]:
    return {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(data).hexdigest()}


# --- what becomes of it ----------------------------------------------------------------------------------------------


def test_a_location_is_taken_and_hashed(placer: Who, site: Site) -> None:
    alice, data = placer("alice"), noise(3 * MIB)
    url = site.add(data)
    image = alice.ready()
    response = post(alice, image["id"], url)
    assert (response.status_code, response.content) == (202, b"")
    shown, task = ended(alice, image["id"])
    assert (shown["status"], shown["size"]) == ("active", len(data))
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert {name: shown[name] for name in sha256(data)} == sha256(data)
    assert shown["locations"] == [place(url, {"store": "web"})]
    assert not [name for name in shown if name.startswith("os_glance")]
    assert (task["status"], task["message"], task["result"]) == ("success", "", {"image_id": image["id"]})
    assert task["input"] == {"image_id": image["id"], "loc_url": url, "validation_data": {}}
    assert task["request_id"] == response.headers["x-openstack-request-id"]
    assert alice.download(image["id"]) == data


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "md5"])
def test_bytes_are_held_against_what_was_promised(placer: Who, site: Site, algorithm: str) -> None:
    alice, data = placer("alice"), noise(MIB + 1)
    image = alice.ready()
    value = hashlib.new(algorithm, data).hexdigest()
    assert post(alice, image["id"], site.add(data), os_hash_algo=algorithm, os_hash_value=value).status_code == 202
    shown, task = ended(alice, image["id"])
    assert (shown["status"], task["status"]) == ("active", "success")
    assert (shown["os_hash_algo"], shown["os_hash_value"]) == (algorithm, value)


def refused(api: Api, site: Site, promised: bytes) -> Image:
    """An image that was given other bytes than promised."""
    image = api.ready()
    assert post(api, image["id"], site.add(b"other"), **sha256(promised)).status_code == 202
    shown, task = ended(api, image["id"])
    assert (task["status"], task["result"]) == ("failure", None)
    return shown


def test_other_bytes_than_promised(placer: Who, site: Site) -> None:
    shown = refused(placer("alice"), site, b"content")
    assert (shown["status"], shown["size"], shown["checksum"]) == ("queued", None, None)
    assert shown["os_hash_algo"] is shown["os_hash_value"] is None
    assert shown["stores"] == "web"
    assert "os_glance_import_task" not in shown


@pytest.mark.better_than_glance
def test_a_refused_location_never_comes_to_life(placer: Who, site: Site) -> None:
    """The original lets it be read, and makes it a part of whatever the image becomes."""
    alice, data = placer("alice"), b"content"
    images = [refused(alice, site, data) for _ in range(4)]
    for image in images:
        assert alice.raw_download(image["id"]).status_code == 204
    assert post(alice, images[0]["id"], site.add(data), **sha256(data)).status_code == 202
    assert len(ended(alice, images[0]["id"])[0]["locations"]) == len(tasks(alice, images[0]["id"])) - 1 == 1
    alice.upload(images[1]["id"], data)
    alice.patch(images[2]["id"], add("locations/-", place(site.add(data))))
    alice.patch(images[3]["id"], replace("locations", [place(site.add(data))]))
    for image in images:
        shown = alice.show(image["id"])
        assert (shown["status"], shown["size"], len(shown["locations"])) == ("active", 7, 1)
        assert alice.download(image["id"]) == data


HARMFUL = {
    "OSSA-2015-014, a backing file": ("qcow2", qcow2(backing=512)),
    "OSSA-2024-001, a data file": ("qcow2", qcow2(features=0b100)),
    "OSSA-2023-002, a flat VMDK": ("vmdk", flat_descriptor()),
    "in disguise": ("raw", qcow2(backing=512)),
    "another format": ("qcow2", noise(70_000)),
}


@pytest.mark.better_than_glance  # which never looks into what is not uploaded
@pytest.mark.parametrize("case", HARMFUL)
def test_content_that_no_upload_could_have(placer: Who, site: Site, case: str) -> None:
    """Refused where the image waits for its hash, else switched off when its bytes are known."""
    alice, admin = placer("alice"), placer("admin")
    disk_format, data = HARMFUL[case]
    waits = alice.ready(disk_format=disk_format)
    assert post(alice, waits["id"], site.add(data), **sha256(data)).status_code == 202
    shown, task = ended(alice, waits["id"])
    assert (shown["status"], task["status"]) == ("queued", "failure")
    assert alice.raw_download(waits["id"]).status_code == 204
    at_once = alice.ready(disk_format=disk_format)
    assert post(alice, at_once["id"], site.add(data)).status_code == 202
    shown, task = ended(alice, at_once["id"])
    assert (shown["status"], task["status"]) == ("deactivated", "success")
    assert "deactivated" in task["message"]
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert alice.raw_download(at_once["id"]).status_code == 403
    assert admin.download(at_once["id"]) == data


@pytest.mark.parametrize("path", ["/none", "/none?x=" + 500 * "y", "/white space"])
def test_places_that_cannot_be_read(placer: Who, site: Site, path: str) -> None:
    alice = placer("alice")
    image = alice.ready()
    assert post(alice, image["id"], site.url + path).status_code == 202
    shown, task = ended(alice, image["id"])
    assert (task["status"], site.url in task["message"]) == ("failure", False)
    assert (shown["status"], shown["size"], shown["locations"]) == ("queued", None, [])
    alice.upload(image["id"], b"after all")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "filesystem:///etc/passwd", "FILE:///etc/passwd", "rbd://x", ""])
def test_not_even_services_name_files(placer: Who, url: str) -> None:
    nova = placer("nova")
    image = nova.ready()
    assert post(nova, image["id"], url).status_code == 202
    shown, task = ended(nova, image["id"])
    assert (task["status"], "passwd" in task["message"]) == ("failure", False)
    assert (shown["status"], shown["locations"]) == ("queued", [])


@pytest.mark.better_than_glance
def test_formats_first(placer: Who, site: Site) -> None:
    """The original keeps the location of an image that cannot become active."""
    alice = placer("alice")
    image = alice.create(container_format="bare")
    assert post(alice, image["id"], site.add(b"x")).status_code == 202
    shown, task = ended(alice, image["id"])
    assert (shown["status"], shown["locations"], task["status"]) == ("queued", [], "failure")


def test_without_secure_hash(own: Callable[..., Service], site: Site) -> None:
    service = own({
        "DEFAULT": {
            "enabled_backends": "fs:file,fast:file,web:http", "show_multiple_locations": True, "do_secure_hash": False,
        },
        **ON_LOOPBACK,
    })  # fmt: skip
    api = Api(service.url)
    url = site.add(b"content")
    plain, promised = api.ready(), api.ready()
    assert post(api, plain["id"], url).status_code == 202
    shown, _ = ended(api, plain["id"])
    assert (shown["status"], shown["os_hash_value"], shown["os_hash_algo"]) == ("active", None, None)
    assert post(api, promised["id"], url, **sha256(b"other")).status_code == 202
    shown, _ = ended(api, promised["id"])
    assert (shown["status"], shown["os_hash_algo"], shown["checksum"]) == ("active", "sha256", None)
    assert shown["os_hash_value"] == sha256(b"other")["os_hash_value"]
    assert not [request for request in site.asked if request.startswith("GET")]
    api.close()


def test_a_server_that_breaks_off_is_asked_again(placer: Who, site: Site) -> None:
    alice, data = placer("alice"), noise(2 * MIB)
    failures = [1, 2]

    def before(path: str) -> None:
        if failures:
            failures.pop()
            raise ConnectionResetError

    site.before = before
    image = alice.ready()
    assert post(alice, image["id"], site.add(data), **sha256(data)).status_code == 202
    shown, _ = ended(alice, image["id"])
    assert (shown["status"], failures) == ("active", [])


# --- while it runs ---------------------------------------------------------------------------------------------------


def held(site: Site) -> threading.Event:
    """GETs of the site wait until this is set."""
    go = threading.Event()
    site.before = lambda path: go.wait(30)
    return go


def test_one_thing_at_a_time(placer: Who, site: Site) -> None:
    alice, data, go = placer("alice"), b"content", held(site)
    image = alice.ready()
    url = site.add(data)
    assert post(alice, image["id"], url, **sha256(data)).status_code == 202
    shown = alice.wait_for_status(image["id"], "importing")
    [task] = tasks(alice, image["id"])
    assert shown["os_glance_import_task"] == task["id"]
    assert (task["status"], task["expires_at"]) == ("processing", None)
    assert post(alice, image["id"], url).status_code == 409
    assert alice.raw_upload(image["id"], b"other").status_code == 409
    assert alice.raw_patch(image["id"], [add("locations/-", place(url))]).status_code == 409
    go.set()
    shown, _ = ended(alice, image["id"])
    assert shown["status"] == "active"


def test_two_at_once(placer: Who, site: Site) -> None:
    alice, go = placer("alice"), held(site)
    image = alice.ready()
    url, codes = site.add(b"content"), []
    threads = [
        threading.Thread(target=lambda: codes.append(post(alice, image["id"], url).status_code)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    go.set()
    assert sorted(codes) == [202, *[409] * 5]
    shown, _ = ended(alice, image["id"])
    assert len(shown["locations"]) == len(tasks(alice, image["id"])) == 1


def test_deleted_while_it_is_hashed(placer: Who, open_places: Service, site: Site) -> None:
    alice, data, go = placer("alice"), noise(4 * MIB), held(site)
    image = alice.ready()
    assert post(alice, image["id"], site.add(data), **sha256(data)).status_code == 202
    alice.wait_for_status(image["id"], "importing")
    alice.delete(image["id"])
    go.set()
    assert alice.raw_show(image["id"]).status_code == 404
    with sqlite3.connect(open_places.database) as database:
        deadline = time.monotonic() + 15
        query = "SELECT status FROM tasks WHERE image_id = ?"
        while database.execute(query, (image["id"],)).fetchone() != ("failure",):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        query = "SELECT name FROM image_properties WHERE image_id = ?"
        assert database.execute(query, (image["id"],)).fetchall() == []


def test_active_before_it_is_hashed(placer: Who, site: Site) -> None:
    alice, data, go = placer("alice"), b"content", held(site)
    image = alice.ready()
    assert post(alice, image["id"], site.add(data)).status_code == 202
    shown = alice.wait_for_status(image["id"], "active")
    assert (shown["size"], shown["os_hash_algo"], shown["os_hash_value"]) == (7, "sha256", None)
    alice.patch(image["id"], add("name", "meanwhile"))
    go.set()
    shown, _ = ended(alice, image["id"])
    assert (shown["name"], shown["os_hash_value"]) == ("meanwhile", sha256(data)["os_hash_value"])


# --- what is refused at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"url": 1},
        {"url": None},
        {"url": "http://127.0.0.1/", "validation_data": None},
        {"url": "http://127.0.0.1/", "validation_data": {"os_hash_algo": "sha256"}},
        {"url": "http://127.0.0.1/", "validation_data": {"os_hash_value": "aa"}},
        {"url": "http://127.0.0.1/", "validation_data": {"checksum": 32 * "a", **sha256(b"")}},
        {"url": "http://127.0.0.1/", "validation_data": {"os_hash_algo": "sha224", "os_hash_value": 56 * "a"}},
        {"url": "http://127.0.0.1/", "validation_data": {"os_hash_algo": "sha256", "os_hash_value": 63 * "a"}},
        {"url": "http://127.0.0.1/", "validation_data": {"os_hash_algo": "sha256", "os_hash_value": 64 * "z"}},
    ],
)
def test_malformed(placer: Who, body: Any) -> None:
    alice = placer("alice")
    image = alice.ready()
    assert alice.request("POST", f"/v2/images/{image['id']}/locations", json=body).status_code == 400
    assert alice.show(image["id"]) == image
    assert tasks(alice, image["id"]) == []


@pytest.mark.better_than_glance
def test_a_url_that_no_column_holds(placer: Who) -> None:
    alice = placer("alice")
    image = alice.ready()
    assert post(alice, image["id"], "http://127.0.0.1/" + 70_000 * "x").status_code == 400


def test_other_members_of_the_body_are_tolerated(placer: Who, site: Site) -> None:
    alice = placer("alice")
    image = alice.ready()
    body = {"url": site.add(b"x"), "validation_data": {}, "metadata": {"store": "fs"}}
    assert alice.request("POST", f"/v2/images/{image['id']}/locations", json=body).status_code == 202
    shown, _ = ended(alice, image["id"])
    assert shown["stores"] == "web"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "HTTP://127.0.0.1/x", "rbd://pool/x", "swift+config://x/y", "", "x"]
)
@pytest.mark.parametrize("name", ["alice", "admin"])
def test_people_name_places_on_the_web_only(placer: Who, name: str, url: str) -> None:
    """By their roles; an administrator is no service."""
    image = placer(name).ready()
    assert post(placer(name), image["id"], url).status_code == 403
    assert tasks(placer(name), image["id"]) == []


def test_nobody_reads_from_the_web_without_a_store_for_it(user: Who, site: Site) -> None:
    alice = user("alice")
    image = alice.ready()
    assert post(alice, image["id"], site.add(b"x")).status_code == 403
    assert site.asked == []


def test_who_may(placer: Who, site: Site) -> None:
    alice, url = placer("alice"), site.add(b"x")
    community, private = alice.ready(visibility="community"), alice.ready(visibility="private")
    for name, expected in (("bob", (403, 404)), ("carol", (403, 403))):
        for image, code in zip((community, private), expected, strict=True):
            assert post(placer(name), image["id"], url).status_code == code
    assert post(alice, unused(), url).status_code == 404
    assert post(alice, alice.active(b"x")["id"], url).status_code == 409
    assert post(placer("nova"), community["id"], url).status_code == 202
    assert ended(placer("nova"), community["id"])[0]["status"] == "active"
    assert alice.request("PUT", f"/v2/images/{private['id']}/locations").status_code == 405


# --- the list --------------------------------------------------------------------------------------------------------


def test_locations_are_for_services(placer: Who, site: Site) -> None:
    alice = placer("alice")
    image, empty = alice.active(b"content"), alice.ready()
    alice.patch(image["id"], add("locations/-", place(site.add(b"content"), {"note": "x"})))
    for name in ("nova", "admin"):
        answer = placer(name).get(f"/v2/images/{image['id']}/locations")
        if name == "nova":
            assert answer.status_code == 404, "an image of others, and nova is no administrator"
            continue
        assert answer.json() == alice.show(image["id"])["locations"]
        assert placer(name).get(f"/v2/images/{empty['id']}/locations").json() == []
    public = placer("admin").active(b"content", visibility="public")
    assert placer("nova").get(f"/v2/images/{public['id']}/locations").json()[0]["metadata"]["store"] == "fs"
    assert alice.get(f"/v2/images/{image['id']}/locations").status_code == 403
    assert placer("bob").get(f"/v2/images/{image['id']}/locations").status_code == 404
    assert placer("admin").get(f"/v2/images/{unused()}/locations").status_code == 404


def test_the_list_does_not_ask_for_the_option(user: Who) -> None:
    admin = user("admin")
    image = admin.active(b"content")
    [location] = admin.get(f"/v2/images/{image['id']}/locations").json()
    assert location["url"].startswith("file:///")
    assert location["metadata"] == {"store": "fs"}
