"""DELETE /v2/images/{id}."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .client import Api, replace, unused
from .service import Service
from .wire import Wire, ask


def test_queued(api: Api) -> None:
    image = api.create()
    response = api.raw_delete(image["id"])
    assert response.status_code == 204
    assert response.content == b""
    assert api.raw_delete(image["id"]).status_code == 404


def test_is_gone_from_everywhere(api: Api) -> None:
    tag = unused()
    image = api.active(b"x", tags=[tag])
    other = api.create(tags=[tag])
    api.delete(image["id"])
    assert [found["id"] for found in api.list(tag=tag)] == [other["id"]]
    assert api.raw_show(image["id"]).status_code == 404
    assert api.raw_download(image["id"]).status_code == 404
    assert api.raw_upload(image["id"], b"x").status_code == 404
    assert api.raw_patch(image["id"], []).status_code == 404


def test_bytes_are_gone(api: Api, local: Service) -> None:
    image = api.active(b"x")
    assert len(local.stored(image["id"])) == 1
    api.delete(image["id"])
    assert local.stored(image["id"]) == []


def test_bytes_vanished_before(api: Api, local: Service) -> None:
    image = api.active(b"x")
    for path in local.stored(image["id"]):
        path.unlink()
    api.delete(image["id"])


def test_protected(api: Api) -> None:
    image = api.active(b"x", protected=True)
    response = api.raw_delete(image["id"])
    assert response.status_code == 403
    assert image["id"] in response.text
    assert api.download(image["id"]) == b"x"
    api.patch(image["id"], replace("protected", False))
    api.delete(image["id"])


def test_unknown(api: Api) -> None:
    assert api.raw_delete(unused()).status_code == 404
    assert api.raw_delete("nonsense").status_code == 404


def test_no_body_expected(api: Api) -> None:
    image = api.create()
    assert api.request("DELETE", f"/v2/images/{image['id']}", content=b"{}").status_code == 400
    assert api.show(image["id"])["status"] == "queued"


def test_collection_cannot_be_deleted(api: Api) -> None:
    response = api.request("DELETE", "/v2/images")
    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == ["GET", "POST"]


def test_in_mid_upload(api: Api, local: Service) -> None:
    """The uploader is told, and nothing of what was sent stays."""
    image = api.ready()
    target = f"/v2/images/{image['id']}/file"
    with Wire(local.url) as wire:
        wire.head("PUT", target, {"Content-Type": "application/octet-stream", "Content-Length": "300000"})
        wire.send(bytes(100_000))
        api.wait_for_status(image["id"], "saving")
        api.delete(image["id"])
        wire.send(bytes(200_000))
        assert wire.answer().status == 410
    assert api.raw_show(image["id"]).status_code == 404
    assert local.stored(image["id"]) == []


@pytest.mark.better_than_glance  # its server closes every connection after the answer
def test_connection_stays_usable(local: Service, api: Api) -> None:
    image = api.create()
    with Wire(local.url) as wire:
        wire.head("DELETE", f"/v2/images/{image['id']}")
        answer = wire.answer()
        assert answer.status == 204
        assert answer.headers.get("content-length", "0") == "0"
        wire.head("GET", f"/v2/images/{image['id']}")
        assert wire.answer().status == 404


def test_absent_length_is_no_body(api: Api) -> None:
    image = api.create()
    assert ask(api.url, "DELETE", f"/v2/images/{image['id']}", {"Content-Length": "0"}).status == 204


@pytest.mark.better_than_glance  # which answers 500 where SQLite is busy
def test_at_once(api: Api, local: Service) -> None:
    image = api.active(b"x")
    with ThreadPoolExecutor(6) as pool:
        codes = [answer.status_code for answer in pool.map(api.raw_delete, [image["id"]] * 6)]
    assert codes.count(204) >= 1
    assert set(codes) <= {204, 404, 409}
    assert local.stored(image["id"]) == []


@pytest.mark.better_than_glance  # see above
def test_race_with_the_upload(api: Api, local: Service) -> None:
    """Whoever comes first, in the end there is neither record nor bytes (OSSA-2015-003)."""
    made = [api.ready()["id"] for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        uploads = [pool.submit(api.raw_upload, image_id, bytes(200_000)) for image_id in made]
        deletes = [pool.submit(api.raw_delete, image_id) for image_id in made]
    assert {upload.result().status_code for upload in uploads} <= {204, 404, 409, 410}
    assert {delete.result().status_code for delete in deletes} == {204}
    for image_id in made:
        assert api.raw_show(image_id).status_code == 404
        assert local.stored(image_id) == []
