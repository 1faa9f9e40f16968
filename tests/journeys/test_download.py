"""GET /v2/images/{id}/file: whole images."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from .client import Api, unused
from .content import MIB, noise
from .service import Service
from .wire import Wire, ask


def test_headers(api: Api) -> None:
    data = noise(300_000)
    image = api.active(data)
    response = api.raw_download(image["id"])
    assert response.status_code == 200
    assert response.content == data
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-length"] == str(len(data))
    # the hex digest, not what RFC 1864 means
    assert response.headers["content-md5"] == hashlib.md5(data).hexdigest()
    assert "content-range" not in response.headers
    assert response.headers["x-openstack-request-id"].startswith("req-")


def test_is_never_transformed(api: Api) -> None:
    image = api.active(bytes(100_000))
    answer = ask(api.url, "GET", f"/v2/images/{image['id']}/file", {"Accept-Encoding": "gzip, deflate, br"})
    assert "content-encoding" not in answer.headers
    assert answer.body == bytes(100_000)


@pytest.mark.parametrize("accept", ["", "application/json", "text/html", "image/png"])
def test_accept_is_not_looked_at(api: Api, accept: str) -> None:
    image = api.active(b"content")
    response = api.raw_download(image["id"], {"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"


def test_without_data(api: Api) -> None:
    for image in (api.create(), api.ready()):
        response = api.raw_download(image["id"])
        assert response.status_code == 204
        assert response.content == b""


def test_during_the_upload(api: Api) -> None:
    image = api.ready()
    with Wire(api.url) as wire:
        target = f"/v2/images/{image['id']}/file"
        wire.head("PUT", target, {"Content-Type": "application/octet-stream", "Content-Length": "200000"})
        wire.send(bytes(100_000))
        api.wait_for_status(image["id"], "saving")
        assert api.raw_download(image["id"]).status_code == 204
        wire.send(bytes(100_000))
        assert wire.answer().status == 204
    assert len(api.download(image["id"])) == 200_000


def test_unknown(api: Api) -> None:
    assert api.raw_download(unused()).status_code == 404
    assert api.raw_download("nonsense").status_code == 404
    image = api.active(b"x")
    api.delete(image["id"])
    assert api.raw_download(image["id"]).status_code == 404


def test_no_body_expected(api: Api) -> None:
    image = api.active(b"x")
    assert api.request("GET", f"/v2/images/{image['id']}/file", content=b"x").status_code == 400


def test_bytes_vanished(api: Api, local: Service) -> None:
    image = api.active(b"x")
    for path in local.stored(image["id"]):
        path.unlink()
    assert api.raw_download(image["id"]).status_code == 204


def test_weights_do_not_matter_for_one_location(api: Api) -> None:
    image = api.ready()
    api.upload(image["id"], b"light", {"X-Image-Meta-Store": "fs"})
    assert api.download(image["id"]) == b"light"


def test_slow_reader_gets_everything(api: Api) -> None:
    data = noise(8 * MIB)
    image = api.active(data)
    with Wire(api.url, receive_buffer=16_384) as wire:
        wire.head("GET", f"/v2/images/{image['id']}/file")
        status, headers = wire.answer_head()
        assert (status, headers["content-length"]) == (200, str(len(data)))
        # other callers are served meanwhile
        for _ in range(20):
            assert api.raw_show(image["id"]).status_code == 200
        assert wire.read(len(data)) == data


def test_many_readers(api: Api) -> None:
    data = noise(MIB)
    image = api.active(data)
    with ThreadPoolExecutor(32) as pool:
        assert all(found == data for found in pool.map(api.download, [image["id"]] * 64))


def test_reader_that_goes_away(api: Api) -> None:
    image = api.active(bytes(16 * MIB))
    for _ in range(10):
        with Wire(api.url) as wire:
            wire.head("GET", f"/v2/images/{image['id']}/file")
            wire.read(1000)
    assert len(api.download(image["id"])) == 16 * MIB


def test_delete_during_the_download(api: Api) -> None:
    """Who has begun to read an image reads it to the end."""
    data = noise(16 * MIB)
    image = api.active(data)
    with Wire(api.url, receive_buffer=16_384) as wire:
        wire.head("GET", f"/v2/images/{image['id']}/file")
        status, _ = wire.answer_head()
        assert status == 200
        begin = wire.read(100_000)
        api.delete(image["id"])
        assert begin + wire.read(len(data) - len(begin)) == data


@pytest.mark.better_than_glance  # its server closes every connection after the answer
def test_connection_stays_usable(api: Api) -> None:
    data = noise(100_000)
    image = api.active(data)
    target = f"/v2/images/{image['id']}/file"
    with Wire(api.url) as wire:
        for _ in range(3):
            wire.head("GET", target)
            assert wire.answer().body == data
        wire.head("GET", target, {"Range": "bytes=5-9"})
        assert wire.answer().body == data[5:10]
        wire.head("GET", f"/v2/images/{api.create()['id']}/file")
        assert wire.answer().status == 204
        wire.head("GET", "/v2/images?limit=0")
        assert wire.answer().status == 200
        # two requests at once on the same connection
        wire.head("GET", target)
        wire.head("GET", target)
        assert wire.answer().body == data
        assert wire.answer().body == data


@pytest.mark.better_than_glance  # see above
def test_old_http(api: Api) -> None:
    image = api.active(b"content")
    with Wire(api.url) as wire:
        wire.send(f"GET /v2/images/{image['id']}/file HTTP/1.0\r\n\r\n".encode())
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"content")
        assert wire.closed_within(5)
