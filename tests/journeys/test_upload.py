"""PUT /v2/images/{id}/file."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .client import OCTETS, Api, unused
from .content import MIB, noise
from .service import Service
from .wire import Answer, Wire


def put(image_id: str) -> str:
    return f"/v2/images/{image_id}/file"


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def check_queued_and_clean(api: Api, service: Service | None, image_id: str) -> None:
    """After a failure the image is as it was before, takes another upload, and no byte of the first one is left."""
    image = api.wait_for_status(image_id, "queued")
    assert image["size"] is image["virtual_size"] is None
    assert "stores" not in image
    assert api.raw_download(image_id).status_code == 204
    if service is not None:
        assert service.stored(image_id) == []
    api.upload(image_id, b"at last")
    assert api.download(image_id) == b"at last"


def test_activates(api: Api, local: Service) -> None:
    data = noise(3 * MIB + 17)
    image = api.ready()
    response = api.raw_upload(image["id"], data)
    assert response.status_code == 204
    assert response.content == b""
    shown = api.show(image["id"])
    assert shown["status"] == "active"
    assert shown["size"] == shown["virtual_size"] == len(data)
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert shown["os_hash_algo"] == "sha512"
    assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert shown["stores"] == "fs"
    assert api.download(image["id"]) == data
    assert [path.read_bytes() for path in local.stored(image["id"])] == [data]
    assert local.stored(image["id"])[0] == local.home / "images" / image["id"]


def test_hash_of_the_configuration(limited: Api) -> None:
    image = limited.active(b"content")
    assert image["os_hash_algo"] == "sha256"
    assert image["os_hash_value"] == hashlib.sha256(b"content").hexdigest()
    assert image["checksum"] == hashlib.md5(b"content").hexdigest()


@pytest.mark.parametrize("size", [1, 1000, 65536, 300_000, 1 << 20])
def test_chunked(api: Api, size: int) -> None:
    data = noise(2 * size + 1)
    image = api.active(chunks(data, size))
    assert image["size"] == len(data)
    assert image["checksum"] == hashlib.md5(data).hexdigest()
    assert api.download(image["id"]) == data


def test_chunk_extensions_and_trailers(api: Api) -> None:
    image = api.ready()
    with Wire(api.url) as wire:
        wire.head("PUT", put(image["id"]), {**OCTETS, "Transfer-Encoding": "chunked"})
        wire.chunk(b"one ")
        wire.chunk(b"two")
        wire.chunk(b"")
        assert wire.answer().status == 204
    assert api.download(image["id"]) == b"one two"


@pytest.mark.better_than_glance  # whose server does not know chunk extensions and trailers
def test_odd_but_legal_chunks(api: Api) -> None:
    image = api.ready()
    with Wire(api.url) as wire:
        wire.head("PUT", put(image["id"]), {**OCTETS, "Transfer-Encoding": "chunked"})
        wire.chunk(b"one ", ";name=value")
        wire.chunk(b"two")
        wire.send(b"0\r\nX-Trailer: 1\r\n\r\n")
        assert wire.answer().status == 204
    assert api.download(image["id"]) == b"one two"


def test_zero_bytes_activate(api: Api) -> None:
    """nova makes the record of a snapshot this way."""
    empty = hashlib.sha512(b"").hexdigest()
    for data in (b"", iter([b""])):
        image = api.active(data)
        assert (image["status"], image["size"], image["virtual_size"]) == ("active", 0, None)
        assert image["checksum"] == hashlib.md5(b"").hexdigest()
        assert image["os_hash_value"] == empty
        response = api.raw_download(image["id"])
        assert response.status_code == 200
        assert response.content == b""


@pytest.mark.better_than_glance  # its server gives the connection up
def test_waits_for_permission_to_send(api: Api) -> None:
    image = api.ready()
    with Wire(api.url) as wire:
        wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": "5", "Expect": "100-continue"})
        assert wire.answer().status == 100
        wire.send(b"hello")
        assert wire.answer().status == 204
    assert api.download(image["id"]) == b"hello"


def test_compressed_bytes_are_kept_as_sent(api: Api) -> None:
    """An image is bytes: a Content-Encoding must neither be undone nor blow up in memory."""
    data = gzip.compress(bytes(100_000))
    for encoding in ("gzip", "deflate", "br", "nonsense"):
        image = api.ready()
        api.upload(image["id"], data, {"Content-Encoding": encoding})
        assert api.download(image["id"]) == data


def test_headers_that_clients_add(api: Api) -> None:
    """openstacksdk sends an empty Accept, cinder names the image that a volume came from."""
    image = api.ready()
    api.upload(image["id"], b"x", {"Accept": "", "X-OpenStack-Base-Image-Ref": unused(), "X-OpenStack-Image-Size": "1"})
    assert api.show(image["id"])["status"] == "active"


@pytest.mark.parametrize("media", [None, "", "application/json", "text/plain", "application/octet-stream-x"])
def test_other_media_types(api: Api, media: str | None) -> None:
    image = api.ready()
    headers = {} if media is None else {"Content-Type": media}
    response = api.request("PUT", put(image["id"]), content=b"x", headers=headers)
    assert response.status_code == 415
    assert api.show(image["id"])["status"] == "queued"
    # before anything is looked up
    assert api.request("PUT", put(unused()), content=b"x", headers=headers).status_code == 415


def test_parameters_of_the_media_type(api: Api) -> None:
    api.upload(api.ready()["id"], b"x", {"Content-Type": "application/octet-stream; x=y"})


def test_unknown_image(api: Api) -> None:
    assert api.raw_upload(unused(), b"x").status_code == 404
    assert api.raw_upload("nonsense", b"x").status_code == 404


@pytest.mark.parametrize("fields", [{}, {"disk_format": "raw"}, {"container_format": "bare"}])
def test_formats_come_first(api: Api, fields: dict[str, str]) -> None:
    image = api.create(**fields)
    assert api.raw_upload(image["id"], b"x").status_code == 400
    api.patch(
        image["id"],
        {"op": "add", "path": "/disk_format", "value": "raw"},
        {"op": "add", "path": "/container_format", "value": "bare"},
    )
    api.upload(image["id"], b"x")


def test_only_once(api: Api) -> None:
    image = api.active(b"first")
    assert api.raw_upload(image["id"], b"second").status_code == 409
    assert api.show(image["id"]) == image
    assert api.download(image["id"]) == b"first"


class TestStore:
    def test_chosen(self, api: Api, local: Service) -> None:
        image = api.ready()
        api.upload(image["id"], b"x", {"X-Image-Meta-Store": "fast"})
        assert api.show(image["id"])["stores"] == "fast"
        assert local.stored(image["id"]) == [local.home / "fast" / image["id"]]
        assert api.download(image["id"]) == b"x"

    @pytest.mark.parametrize(
        "store",
        [
            "nonsense",
            "fs,fast",
            # the original stores images in there
            pytest.param("os_glance_staging_store", marks=pytest.mark.better_than_glance),
            pytest.param("os_glance_tasks_store", marks=pytest.mark.better_than_glance),
        ],
    )
    def test_unknown(self, api: Api, store: str) -> None:
        image = api.ready()
        assert api.raw_upload(image["id"], b"x", {"X-Image-Meta-Store": store}).status_code == 400
        assert api.show(image["id"])["status"] == "queued"
        # before the image is looked up
        assert api.raw_upload(unused(), b"x", {"X-Image-Meta-Store": store}).status_code == 400

    def test_ignored_with_a_single_store(self, limited: Api) -> None:
        image = limited.ready()
        limited.upload(image["id"], b"x", {"X-Image-Meta-Store": "nonsense"})


class TestAnnouncedSize:
    @pytest.mark.parametrize("size", [0, 1, 100_000])
    def test_right(self, api: Api, size: int) -> None:
        data = noise(size)
        for body in (data, chunks(data, 4096) if data else iter([b""])):
            image = api.ready()
            api.upload(image["id"], body, {"X-OpenStack-Image-Size": str(size)})
            assert api.show(image["id"])["size"] == size

    @pytest.mark.parametrize("announced", ["1", "99999", "100001", "2000000000"])
    @pytest.mark.parametrize("chunked", [True, False])
    def test_wrong(self, api: Api, local: Service, announced: str, chunked: bool) -> None:
        image = api.ready()
        data = noise(100_000)
        body = chunks(data, 4096) if chunked else data
        assert api.raw_upload(image["id"], body, {"X-OpenStack-Image-Size": announced}).status_code == 400
        check_queued_and_clean(api, local, image["id"])

    @pytest.mark.parametrize("announced", ["many", "1.5", "0x10", "1e3"])
    def test_not_a_number(self, api: Api, announced: str) -> None:
        image = api.ready()
        assert api.raw_upload(image["id"], b"x", {"X-OpenStack-Image-Size": announced}).status_code == 400
        assert api.show(image["id"])["status"] == "queued"

    @pytest.mark.better_than_glance  # "" passes for no header, and -1 for a size that no upload has
    @pytest.mark.parametrize("announced", ["-1", ""])
    def test_no_size_at_all(self, api: Api, announced: str) -> None:
        image = api.ready()
        assert api.raw_upload(image["id"], b"x", {"X-OpenStack-Image-Size": announced}).status_code == 400
        assert api.show(image["id"])["status"] == "queued"


class TestSizeCap:
    """The single-store service takes 1 MiB."""

    def test_just_fits(self, limited: Api) -> None:
        assert limited.active(bytes(MIB))["size"] == MIB
        assert limited.active(chunks(bytes(MIB), 65536))["size"] == MIB

    @pytest.mark.parametrize("size", [MIB + 1, 5 * MIB])
    def test_too_long(self, limited: Api, single: Service, size: int) -> None:
        image = limited.ready()
        assert limited.raw_upload(image["id"], bytes(size)).status_code == 413
        check_queued_and_clean(limited, single, image["id"])

    @pytest.mark.parametrize("size", [MIB + 1, 5 * MIB])
    def test_too_long_without_saying_so(self, limited: Api, single: Service, size: int) -> None:
        image = limited.ready()
        assert limited.raw_upload(image["id"], chunks(bytes(size), 65536)).status_code == 413
        check_queued_and_clean(limited, single, image["id"])

    def test_too_long_with_a_lie(self, limited: Api, single: Service) -> None:
        image = limited.ready()
        headers = {"X-OpenStack-Image-Size": "10"}
        assert limited.raw_upload(image["id"], chunks(bytes(2 * MIB), 65536), headers).status_code in (400, 413)
        check_queued_and_clean(limited, single, image["id"])


class TestBrokenOff:
    """The client goes away, or breaks the rules of HTTP, in the middle."""

    def test_with_a_length(self, api: Api, local: Service) -> None:
        image = api.ready()
        with Wire(local.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": "1000000"})
            wire.send(bytes(400_000))
            api.wait_for_status(image["id"], "saving")
        check_queued_and_clean(api, local, image["id"])

    def test_chunked(self, api: Api, local: Service) -> None:
        image = api.ready()
        with Wire(local.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Transfer-Encoding": "chunked"})
            wire.chunk(bytes(400_000))
            api.wait_for_status(image["id"], "saving")
        check_queued_and_clean(api, local, image["id"])

    def test_inside_a_chunk(self, api: Api, local: Service) -> None:
        image = api.ready()
        with Wire(local.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Transfer-Encoding": "chunked"})
            wire.chunk(bytes(100_000))
            wire.send(b"10000\r\n" + bytes(1000))
            api.wait_for_status(image["id"], "saving")
        check_queued_and_clean(api, local, image["id"])

    @pytest.mark.better_than_glance  # whose server takes a bad chunk for the end of the body
    @pytest.mark.parametrize("noise", [b"what?\r\n", b"-5\r\n", b"ffffffffffffffffffff\r\n", b"\r\n\r\n"])
    def test_malformed_chunk(self, api: Api, local: Service, noise: bytes) -> None:
        image = api.ready()
        with Wire(local.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Transfer-Encoding": "chunked"})
            wire.chunk(bytes(100_000))
            api.wait_for_status(image["id"], "saving")
            wire.send(noise)
        check_queued_and_clean(api, local, image["id"])

    def test_before_the_first_byte(self, api: Api, local: Service) -> None:
        image = api.ready()
        with Wire(local.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": "10"})
            api.wait_for_status(image["id"], "saving")
        check_queued_and_clean(api, local, image["id"])

    def test_again_and_again(self, api: Api, local: Service) -> None:
        image = api.ready()
        for _ in range(3):
            with Wire(local.url) as wire:
                wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": "1000000"})
                wire.send(bytes(200_000))
                api.wait_for_status(image["id"], "saving")
            api.wait_for_status(image["id"], "queued")
        check_queued_and_clean(api, local, image["id"])

    @pytest.mark.better_than_glance  # client_socket_timeout belonged to a server that it has no more
    def test_silence(self, limited: Api, single: Service) -> None:
        """A client that says nothing for `client_socket_timeout` (1 s here) counts as gone."""
        image = limited.ready()
        with Wire(single.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": "1000000"})
            wire.send(bytes(200_000))
            limited.wait_for_status(image["id"], "saving")
            limited.wait_for_status(image["id"], "queued", seconds=8)
        check_queued_and_clean(limited, single, image["id"])

    @pytest.mark.better_than_glance  # see test_silence
    def test_slow_is_not_silent(self, limited: Api, single: Service) -> None:
        image = limited.ready()
        pause = threading.Event()
        with Wire(single.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": "4"})
            for _ in range(4):
                pause.wait(0.4)
                wire.send(b"x")
            assert wire.answer().status == 204


class TestAtOnce:
    def test_second_finds_it_taken(self, api: Api, local: Service) -> None:
        image = api.ready()
        with Wire(local.url) as wire:
            wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": "200000"})
            wire.send(bytes(100_000))
            api.wait_for_status(image["id"], "saving")
            assert api.raw_upload(image["id"], b"second").status_code == 409
            wire.send(bytes(100_000))
            assert wire.answer().status == 204
        assert api.download(image["id"]) == bytes(200_000)

    @pytest.mark.better_than_glance  # which answers 500 where SQLite is busy
    @pytest.mark.parametrize("turn", range(5))
    def test_one_winner(self, api: Api, local: Service, turn: int) -> None:
        image = api.ready()
        contents = [noise(200_000 + number, number) for number in range(6)]
        start = threading.Barrier(len(contents))

        def send(data: bytes) -> Answer:
            with Wire(local.url) as wire:
                wire.head("PUT", put(image["id"]), {**OCTETS, "Content-Length": str(len(data))})
                start.wait(10)
                wire.send(data)
                return wire.answer()

        with ThreadPoolExecutor(len(contents)) as pool:
            answers = list(pool.map(send, contents))
        codes = sorted(answer.status for answer in answers)
        assert codes[0] == 204, codes
        assert set(codes[1:]) <= {409, 410}
        winner = contents[[answer.status for answer in answers].index(204)]
        assert api.download(image["id"]) == winner
        shown = api.show(image["id"])
        assert (shown["size"], shown["checksum"]) == (len(winner), hashlib.md5(winner).hexdigest())
        assert [path.read_bytes() for path in local.stored(image["id"])] == [winner]

    @pytest.mark.better_than_glance  # see above
    def test_a_hundred(self, api: Api) -> None:
        def journey(number: int) -> None:
            data = noise(20_000 + number, number)
            image = api.active(data, name=f"one of many {number}")
            assert image["checksum"] == hashlib.md5(data).hexdigest()
            assert api.download(image["id"]) == data

        with ThreadPoolExecutor(100) as pool:
            for done in [pool.submit(journey, number) for number in range(100)]:
                done.result()


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "HEAD"])
def test_methods(api: Api, method: str) -> None:
    response = api.request(method, put(unused()))
    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == ["GET", "PUT"]
