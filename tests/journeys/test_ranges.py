"""GET /v2/images/{id}/file with Range, or with the request header Content-Range that old clients send."""

from __future__ import annotations

import hashlib

import pytest

from .client import Api, Image
from .content import noise

SIZE = 100_000
DATA = noise(SIZE)


@pytest.fixture(scope="module")
def image(api: Api) -> Image:
    return api.active(DATA)


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=10-19", 10, 20),
        ("bytes=65530-65540", 65530, 65541),
        ("bytes=99999-99999", 99999, SIZE),
        ("bytes=99990-", 99990, SIZE),
        ("bytes=99999-", 99999, SIZE),
        ("bytes=0-", 0, SIZE),
        ("bytes=0-99999", 0, SIZE),
        # beyond the end is cut off
        ("bytes=0-100000", 0, SIZE),
        ("bytes=99990-200000", 99990, SIZE),
        ("bytes=5-99999999999999999999", 5, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-100", SIZE - 100, SIZE),
        ("bytes=-100000", 0, SIZE),
        ("bytes=-200000", 0, SIZE),
    ],
)
def test_partial(api: Api, image: Image, header: str, start: int, stop: int) -> None:
    response = api.raw_download(image["id"], {"Range": header})
    assert response.status_code == 206
    assert response.content == DATA[start:stop]
    assert response.headers["content-length"] == str(stop - start)
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert response.headers["content-type"] == "application/octet-stream"
    # of the whole image
    assert response.headers["content-md5"] == hashlib.md5(DATA).hexdigest()


@pytest.mark.parametrize(
    "header",
    [
        "bytes=100000-",
        "bytes=100000-100001",
        "bytes=99999999999999999999-",
        "bytes=9-5",
        "bytes=a-b",
        "bytes=",
        # the original breaks the connection off
        pytest.param("bytes=-", marks=pytest.mark.better_than_glance),
        "bytes",
        "bytes 0-5",
        "octets=0-5",
        "nonsense",
        "bytes=0x0-0x5",
    ],
)
def test_not_satisfiable(api: Api, image: Image, header: str) -> None:
    response = api.raw_download(image["id"], {"Range": header})
    assert response.status_code == 416
    assert DATA[:20] not in response.content


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "bytes=0-0,-1", "bytes=0-,0-,0-"])
def test_several_ranges(api: Api, image: Image, header: str) -> None:
    assert api.raw_download(image["id"], {"Range": header}).status_code == 400


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes 0-9/*", 0, 10), ("bytes 5-99/100000", 5, 100), ("bytes 99990-99999/*", 99990, SIZE)],
)
def test_old_spelling(api: Api, image: Image, header: str, start: int, stop: int) -> None:
    response = api.raw_download(image["id"], {"Content-Range": header})
    assert response.status_code == 206
    assert response.content == DATA[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"


@pytest.mark.parametrize(
    "header", ["bytes 0-100000/*", "bytes 100000-100001/*", "bytes 100000-200000/*", "bytes 9-5/*", "bytes a-b/*"]
)
def test_old_spelling_not_satisfiable(api: Api, image: Image, header: str) -> None:
    assert api.raw_download(image["id"], {"Content-Range": header}).status_code == 416


def test_one_byte_image(api: Api) -> None:
    image = api.active(b"x")
    assert api.raw_download(image["id"], {"Range": "bytes=0-0"}).content == b"x"
    assert api.raw_download(image["id"], {"Range": "bytes=1-"}).status_code == 416


def test_empty_image(api: Api) -> None:
    image = api.active(b"")
    assert api.raw_download(image["id"], {"Range": "bytes=0-0"}).status_code == 416


def test_pieces_make_the_whole(api: Api, image: Image) -> None:
    pieces = [
        api.raw_download(image["id"], {"Range": f"bytes={start}-{start + 29_999}"}).content
        for start in range(0, SIZE, 30_000)
    ]
    assert b"".join(pieces) == DATA


@pytest.mark.better_than_glance  # breaks the connection off
def test_without_data(api: Api) -> None:
    assert api.raw_download(api.ready()["id"], {"Range": "bytes=0-5"}).status_code == 204
