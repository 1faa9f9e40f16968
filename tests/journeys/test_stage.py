"""PUT /v2/images/{id}/stage (spec 1.3.3)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from .client import OCTETS, Api, add, replace, unused
from .content import MIB, noise
from .service import Service
from .wire import Wire, ask

Who = Callable[[str], Api]


def put(image_id: str) -> str:
    return f"/v2/images/{image_id}/stage"


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def check_queued_and_clean(api: Api, service: Service, image_id: str) -> None:
    """After a failure the image is as it was before, nothing is left of the bytes, and it takes others."""
    image = api.wait_for_status(image_id, "queued")
    assert image["size"] is image["checksum"] is None
    assert "os_glance_stage_host" not in image
    deadline = time.monotonic() + 5
    while left := service.stored(image_id):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert api.raw_stage(image_id, b"at last").status_code == 204
    assert api.show(image_id)["size"] == 7


def staged_at(service: Service, image_id: str) -> str | None:
    """The node that has the bytes, as the database has it."""
    query = "SELECT value FROM image_properties WHERE image_id = ? AND name = 'os_glance_stage_host' AND NOT deleted"
    with closing(sqlite3.connect(service.database)) as database:
        found = database.execute(query, (image_id,)).fetchone()
        return None if found is None else str(found[0])


# --- what becomes of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [0, 1000, MIB])
def test_bytes_wait_in_staging(api: Api, local: Service, piece: int) -> None:
    data = noise(3 * MIB + 17)
    image = api.ready()
    response = api.raw_stage(image["id"], chunks(data, piece) if piece else data)
    assert (response.status_code, response.content) == (204, b"")
    shown = api.show(image["id"])
    assert (shown["status"], shown["size"], shown["virtual_size"]) == ("uploading", len(data), None)
    assert shown["checksum"] is shown["os_hash_value"] is shown["os_hash_algo"] is None
    assert "stores" not in shown
    assert [path.read_bytes() for path in local.stored(image["id"])] == [data]
    assert local.stored(image["id"]) == [local.home / "staging" / image["id"]]
    assert api.raw_download(image["id"]).status_code == 204
    api.delete(image["id"])
    assert local.stored(image["id"]) == []


def test_formats_can_wait(api: Api) -> None:
    image = api.create()
    assert api.raw_stage(image["id"], b"content").status_code == 204
    assert api.show(image["id"])["status"] == "uploading"


def test_nothing_at_all(api: Api) -> None:
    image = api.staged(b"")
    assert (image["status"], image["size"]) == ("uploading", 0)


def test_where_it_was_staged(own: Callable[..., Service]) -> None:
    """The other nodes of a cloud ask the one that has the bytes; clients neither see nor change its address."""
    service = own({"DEFAULT": {"worker_self_reference_url": "http://node-1.example.org"}})
    with closing(Api(service.url)) as api:
        image = api.staged()
        assert staged_at(service, image["id"]) == "http://node-1.example.org"
        assert "node-1" not in str([image, api.list()])
        for change in (replace, add):
            refused = api.raw_patch(image["id"], [change("os_glance_stage_host", "http://evil.example.org")])
            assert refused.status_code == 403
        assert api.imported(image["id"], "glance-direct")[0]["status"] == "active"
        assert staged_at(service, image["id"]) is None


def test_a_node_without_an_address(api: Api, local: Service) -> None:
    assert staged_at(local, api.staged()["id"]) is None


def test_events_and_lists_know_the_status(api: Api) -> None:
    tag = unused()
    image = api.staged(tags=[tag])
    assert [found["id"] for found in api.list(tag=tag, status="uploading")] == [image["id"]]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_not_where_it_is_switched_off(limited: Api) -> None:
    assert limited.raw_stage(limited.ready()["id"], b"x").status_code == 404


def test_unknown(api: Api) -> None:
    assert api.raw_stage(unused(), b"x").status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
def test_only_put(api: Api, method: str) -> None:
    refused = api.request(method, put(api.ready()["id"]))
    assert (refused.status_code, refused.headers["Allow"]) == (405, "PUT")


@pytest.mark.parametrize("media", [None, "", "application/json", "text/plain", "application/octet-stream-x"])
def test_other_media_types(api: Api, local: Service, media: str | None) -> None:
    image = api.ready()
    headers = {} if media is None else {"Content-Type": media}
    assert ask(api.url, "PUT", put(image["id"]), headers, b"x").status == 415
    check_queued_and_clean(api, local, image["id"])


def test_once(api: Api, local: Service) -> None:
    image = api.staged(b"first")
    assert api.raw_stage(image["id"], b"other").status_code == 409
    assert api.raw_upload(image["id"], b"other").status_code == 409
    assert [path.read_bytes() for path in local.stored(image["id"])] == [b"first"]
    assert api.show(image["id"])["status"] == "uploading"


def test_not_what_has_bytes(api: Api) -> None:
    image = api.active(b"x")
    assert api.raw_stage(image["id"], b"y").status_code == 409
    assert api.request("POST", f"/v2/images/{image['id']}/actions/deactivate").status_code == 204
    assert api.raw_stage(image["id"], b"y").status_code == 409
    assert api.download(image["id"]) == b"x"


@pytest.mark.parametrize(("said", "sent"), [("3", b"four"), ("5", b"four"), ("1000000", b"")])
def test_another_size_than_announced(api: Api, local: Service, said: str, sent: bytes) -> None:
    image = api.ready()
    for body in (sent, chunks(sent, 2)):
        assert api.raw_stage(image["id"], body, {"x-openstack-image-size": said}).status_code == 400
    check_queued_and_clean(api, local, image["id"])


@pytest.mark.better_than_glance  # which takes it for no announcement at all
def test_more_than_nothing(api: Api, local: Service) -> None:
    image = api.ready()
    assert api.raw_stage(image["id"], b"x", {"x-openstack-image-size": "0"}).status_code == 400
    check_queued_and_clean(api, local, image["id"])


@pytest.mark.parametrize("said", ["x", "1.5", ""])
def test_a_size_that_is_none(api: Api, local: Service, said: str) -> None:
    image = api.ready()
    assert api.raw_stage(image["id"], b"x", {"x-openstack-image-size": said}).status_code == 400
    check_queued_and_clean(api, local, image["id"])


def test_the_announced_size(api: Api) -> None:
    image = api.ready()
    assert api.raw_stage(image["id"], chunks(b"four", 3), {"x-openstack-image-size": "4"}).status_code == 204
    assert api.show(image["id"])["size"] == 4


def test_too_much(own: Callable[..., Service]) -> None:
    service = own({"DEFAULT": {"image_size_cap": 100_000}})
    with closing(Api(service.url)) as api:
        image = api.ready()
        for body in (noise(100_001), chunks(noise(100_001), 30_000)):
            assert api.raw_stage(image["id"], body).status_code == 413
        assert api.raw_stage(image["id"], noise(100_001), {"x-openstack-image-size": "100001"}).status_code == 413
        check_queued_and_clean(api, service, image["id"])
        assert api.staged(noise(100_000))["size"] == 100_000


def test_who_may(user: Who) -> None:
    alice = user("alice")
    community, private = alice.ready(visibility="community"), alice.ready(visibility="private")
    for name, expected in (("bob", (403, 404)), ("carol", (403, 403))):
        for image, code in zip((community, private), expected, strict=True):
            assert user(name).raw_stage(image["id"], b"x").status_code == code
    assert user("admin").raw_stage(community["id"], b"x").status_code == 204
    assert alice.raw_stage(private["id"], b"x").status_code == 204
    assert ask(alice.url, "PUT", put(private["id"]), OCTETS, b"x").status == 401


# --- what goes wrong -------------------------------------------------------------------------------------------------


def begin(api: Api, service: Service, image_id: str, chunked: bool) -> Wire:
    """A staging of which 2 of 8 MiB have been sent and something has reached the directory."""
    wire = Wire(service.url)
    headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(8 * MIB)}
    wire.head("PUT", put(image_id), {**OCTETS, **headers})
    if chunked:
        wire.chunk(noise(2 * MIB))
    else:
        wire.send(noise(2 * MIB))
    api.wait_for_status(image_id, "uploading")
    deadline = time.monotonic() + 10
    while not any(path.stat().st_size for path in service.stored(image_id)):
        assert time.monotonic() < deadline, "nothing reaches the directory"
        time.sleep(0.05)
    return wire


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_goes_away(api: Api, local: Service, chunked: bool) -> None:
    image = api.ready()
    begin(api, local, image["id"], chunked).close()
    check_queued_and_clean(api, local, image["id"])


@pytest.mark.better_than_glance
def test_what_is_being_staged_is_nobody_elses(api: Api, local: Service) -> None:
    """The original imports what has come so far."""
    image = api.ready()
    with begin(api, local, image["id"], False) as wire:
        assert api.raw_import(image["id"], "glance-direct").status_code == 409
        assert api.raw_stage(image["id"], b"x").status_code == 409
        wire.send(noise(6 * MIB, 1))
        assert wire.answer().status == 204
    shown, _ = api.imported(image["id"], "glance-direct")
    assert api.download(image["id"]) == noise(2 * MIB) + noise(6 * MIB, 1)
    assert shown["status"] == "active"


@pytest.mark.better_than_glance  # which answers 500
def test_deleted_while_it_is_staged(api: Api, local: Service) -> None:
    image = api.ready()
    with begin(api, local, image["id"], False) as wire:
        api.delete(image["id"])
        wire.send(noise(6 * MIB))
        assert wire.answer().status in (404, 410)
    deadline = time.monotonic() + 10
    while left := local.stored(image["id"]):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert api.raw_show(image["id"]).status_code == 404


@pytest.mark.better_than_glance
@pytest.mark.parametrize("chunked", [False, True])
def test_kill_9_in_the_middle(own: Callable[..., Service], chunked: bool) -> None:
    """The original leaves the image `uploading`, half its bytes in staging, and imports those."""
    service = own()
    with closing(Api(service.url)) as api:
        image, whole = api.ready(), api.staged(b"whole")
        wire = begin(api, service, image["id"], chunked)
    service.kill()
    wire.close()
    service.start()
    with closing(Api(service.url)) as api:
        check_queued_and_clean(api, service, image["id"])
        assert api.show(whole["id"])["status"] == "uploading"
        shown, _ = api.imported(whole["id"], "glance-direct")
        assert (shown["status"], api.download(whole["id"])) == ("active", b"whole")


@pytest.mark.better_than_glance
def test_left_by_an_image_that_is_gone(own: Callable[..., Service]) -> None:
    """Deleted while no service ran, as by another node: the next start finds its bytes."""
    service = own()
    with closing(Api(service.url)) as api:
        image = api.staged(b"content")
        api.delete(image["id"])
    service.stop()
    stale = [service.home / "staging" / name for name in (image["id"], f"{unused()}.qcow2", unused())]
    kept = service.home / "staging" / "README"
    for path in (*stale, kept):
        path.write_bytes(b"x")
        os.utime(path, (0, 0))  # younger ones may belong to a call that another node serves
    service.start()
    deadline = time.monotonic() + 10
    while left := [path for path in stale if path.exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert kept.exists()
