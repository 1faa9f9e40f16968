"""Requests that no honest client sends. The service refuses them calmly, and goes on."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from .client import OCTETS, Api, add, unused
from .service import Service
from .wire import Wire, ask


@pytest.fixture(autouse=True)
def lives(api: Api, plain: Service | None) -> Iterator[None]:
    """After each of these the same processes answer as before, and nothing of it was news to them."""
    offset, workers = (plain.log.stat().st_size, plain.listeners()) if plain else (0, [])
    yield
    assert api.raw_list(limit="1").status_code == 200
    if plain is not None:
        assert plain.listeners() == workers
        assert "ERROR glimpse" not in plain.log_since(offset)


def raw_status(url: str, data: bytes) -> int | None:
    """The status that some bytes get; None when the connection is just closed."""
    with Wire(url) as wire:
        wire.send(data)
        try:
            return wire.answer().status
        except (ConnectionError, OSError):
            return None


@pytest.mark.parametrize(
    "target",
    [
        "/v2/images/..",
        "/v2/images/%2e%2e/%2e%2e",
        "/v2/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v2/images/..%2f..%2f..%2fetc%2fpasswd/file",
        "/v2/images/....//....//etc/passwd/file",
        "/v2/images/%2Fetc%2Fpasswd/file",
        "/v2/images/%00/file",
        "/v2/images/%00",
        "/v2/images/a%00b/file",
        "/v2/images/%0d%0aX-Evil:%201",
        "/v2/images/%20",
        "/v2/images/;id",
        "/v2/images/'%20or%20'1'='1",
        "/v2/images/%F0%9F%92%BF",
        "/v2/images/" + "a" * 4000,
        "/v2/images/" + "a" * 4000 + "/file",
        "/v2/" + "x/" * 500,
        "/v2/schemas/../../etc/passwd",
        "/v2/schemas/%2e%2e%2fimage",
        "/v2/images/%252e%252e%252fetc",
    ],
    ids=lambda target: target[:40],
)
def test_paths(api: Api, target: str) -> None:
    for method in ("GET", "DELETE"):
        answer = ask(api.url, method, target)
        assert answer.status in (300, 400, 404, 405), answer
        assert b"root:" not in answer.body
        assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "target", ["//v2//images", "//v2/images", "/./v2/images", "/v2/./images", "/v2/images/../images"]
)
def test_doubtful_paths(api: Api, target: str) -> None:
    assert ask(api.url, "GET", target).status in (200, 300, 400, 404)


@pytest.mark.better_than_glance  # breaks the connection off
@pytest.mark.parametrize("target", ["/v2/images/%ff", "/v2/images/%c3%28", "/v2/images/%ff/file"])
def test_paths_that_are_not_utf8(api: Api, target: str) -> None:
    assert ask(api.url, "GET", target).status in (400, 404)


@pytest.mark.parametrize(
    "query",
    [
        "name=%ff",
        "%ff=x",
        "tag=%c3%28",
        "sort_key=%ff",
        "marker=%00",
        "name=%00",
        "limit=" + "9" * 5000,
        "limit=%31%00",
        "limit=1e9",
        "limit=%EF%BC%91",
        "size_min=" + "9" * 5000,
        "size_min=-1",
        "min_ram=x",
        "size=x",
        "min_ram=99999999999999999999999999",
        pytest.param("size_max=99999999999999999999999999", marks=pytest.mark.better_than_glance),
        "created_at=0000-00-00T00:00:00Z",
        "created_at=99999-01-01T00:00:00Z",
        "created_at=gt:",
        "sort=" + "name," * 1000,
        "sort_key=id&" * 50,
        "name=%F0%9F%92%BF",
        "os_distro=%F0%9F%92%BF",
        "a=b&" * 300,
        pytest.param("tag=x&" * 100, marks=pytest.mark.better_than_glance),
        "=x",
        "&&&",
        "name",
        "name=in:",
        "name=in:" + "x," * 3000,
        "owner=%27%20or%201%3D1%20--",
        "__class__=x",
        "sort_key=__class__",
        "sort_key=images.id",
        "visibility=%27",
        "unknown%27%22%3B=x",
    ],
    ids=lambda query: query[:40],
)
def test_queries(api: Api, query: str) -> None:
    """Those marked are a 500 in the original."""
    answer = ask(api.url, "GET", f"/v2/images?{query}")
    assert answer.status in (200, 400, 413, 414), answer


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": NaN}',
        b'{"min_ram": Infinity}',
        b'{"min_ram": 1e400}',
        b'{"min_ram": ' + b"9" * 6000 + b"}",
        b'{"min_ram": -0.0}',
        b'{"name": "\\ud83d\\udcbf"}',
        b'{"name": "a\x00b"}',
        b'\xef\xbb\xbf{"name": "x"}',
        '{"name": "x"}'.encode("utf-16"),
        b"\x80\x04\x95",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
        b"---\nname: !!python/object/apply:os.system ['id']",
        b'{"name": "x",}',
        b"{'name': 'x'}",
        b'{"name": "x"}{"name": "y"}',
        b'{"": "x", "": "y"}' * 2,
        b'{"__class__": {"x": 1}}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_bodies(api: Api, body: bytes) -> None:
    answer = ask(api.url, "POST", "/v2/images", {"Content-Type": "application/json"}, body)
    # a BOM and a number with a sign can be read with good will
    assert answer.status in ((400, 413) if body[:3] != b"\xef\xbb\xbf" and b"-0.0" not in body else (201, 400))
    assert b"root:" not in answer.body
    image = api.create()
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    assert ask(api.url, "PATCH", f"/v2/images/{image['id']}", headers, body).status in (400, 413)


@pytest.mark.better_than_glance  # 500
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[" * 50_000 + b"]" * 50_000,
        b'{"tags": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"x": ' + b"[" * 400 + b"]" * 400 + b"}",
        b'{"name": "\\ud800"}',
        b'{"\\udfff": "x"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_deep_and_broken_bodies(api: Api, body: bytes) -> None:
    assert ask(api.url, "POST", "/v2/images", {}, body).status in (400, 413)
    image = api.create()
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    patch = b'[{"op": "add", "path": "/x", "value": ' + body + b"}]"
    for text in (body, patch):
        assert ask(api.url, "PATCH", f"/v2/images/{image['id']}", headers, text).status in (400, 413)


@pytest.mark.parametrize(
    "name", ["a\u0000b", "a\nb", "\u202egnp", "<b>", "'; drop table images; --", "a\\b", "%s%n", "${x}"]
)
def test_odd_names(api: Api, name: str) -> None:
    """They come back as they went in, or are refused; nothing in between."""
    response = api.raw_create(name=name, odd=name, tags=[name])
    if response.status_code == 400:
        return
    assert response.status_code == 201
    image = api.show(response.json()["id"])
    assert (image["name"], image["odd"], image["tags"]) == (name, name, [name])
    api.delete(image["id"])


def test_repeated_keys_count_once(api: Api) -> None:
    answer = ask(api.url, "POST", "/v2/images", {}, b'{"min_ram": 1, "min_ram": "x"}')
    assert answer.status == 400
    answer = ask(api.url, "POST", "/v2/images", {}, b'{"x": 1, "x": "one"}')
    assert answer.status == 400 or json.loads(answer.body)["x"] == "one"


def test_huge_json(api: Api) -> None:
    """Ten megabytes of one name."""
    body = b'{"name": "' + b"n" * 10_000_000 + b'"}'
    assert ask(api.url, "POST", "/v2/images", {}, body).status in (400, 413)


@pytest.mark.better_than_glance  # whose server has no limit of its own
def test_endless_json(api: Api) -> None:
    with Wire(api.url) as wire:
        wire.head("POST", "/v2/images", {"Transfer-Encoding": "chunked"})
        # hanging up in the middle is as good an answer as any
        with contextlib.suppress(OSError):
            wire.chunk(b'{"name": "')
            for _ in range(200):
                wire.chunk(b"n" * 1_000_000)
            wire.chunk(b'"}')
            wire.chunk(b"")
            assert wire.answer().status in (400, 413)


@pytest.mark.better_than_glance  # whose server reads only plain bodies of this call
def test_compressed_json_bomb(api: Api) -> None:
    body = gzip.compress(b'{"name": "' + b"n" * 100_000_000 + b'"}')
    answer = ask(api.url, "POST", "/v2/images", {"Content-Encoding": "gzip"}, body)
    assert answer.status in (400, 413, 415)


class TestHeaders:
    def test_large_token(self, api: Api) -> None:
        """Tokens with a catalog in them reach 16 KiB and more."""
        assert ask(api.url, "GET", "/v2/images?limit=0", {"X-Auth-Token": "t" * 30_000}).status == 200

    def test_long_query(self, api: Api) -> None:
        wanted = ",".join(unused() for _ in range(800))
        answer = ask(api.url, "GET", f"/v2/images?id=in:{wanted}")
        assert answer.status == 200

    @pytest.mark.parametrize("size", [1 << 17, 1 << 20, 1 << 23])
    def test_huge(self, api: Api, size: int) -> None:
        try:
            answer = ask(api.url, "GET", "/v2/images?limit=0", {"X-Huge": "x" * size})
        except OSError:
            return  # hung up in the middle
        assert answer.status in (400, 413, 414, 431)

    def test_huge_target(self, api: Api) -> None:
        try:
            answer = ask(api.url, "GET", "/v2/images?name=" + "x" * (1 << 20))
        except OSError:
            return  # hung up in the middle
        assert answer.status in (400, 413, 414, 431)

    def test_many(self, api: Api) -> None:
        fields = {f"X-Many-{number}": "x" for number in range(5000)}
        try:
            answer = ask(api.url, "GET", "/v2/images?limit=0", fields)
        except OSError:
            return  # hung up in the middle
        assert answer.status in (200, 400, 413, 431)

    def test_bytes_that_are_not_text(self, api: Api) -> None:
        for value in (b"\xff\xfe", b"\xc3\xa9", b"a\tb"):
            data = b"GET /v2/images?limit=0 HTTP/1.1\r\nHost: x\r\nX-Odd: " + value + b"\r\nConnection: close\r\n\r\n"
            assert raw_status(api.url, data) in (200, 400, None)

    def test_a_host_that_is_no_text(self, api: Api) -> None:
        for path in (b"/", b"/versions", b"/v2/images?limit=0"):
            data = b"GET " + path + b" HTTP/1.1\r\nHost: a\xffb\r\nConnection: close\r\n\r\n"
            assert raw_status(api.url, data) in (200, 300, 400, None)

    def test_range_of_many_pieces(self, api: Api) -> None:
        image = api.active(b"content")
        header = "bytes=" + ",".join("0-" for _ in range(2000))
        assert api.raw_download(image["id"], {"Range": header}).status_code in (400, 416)

    @pytest.mark.parametrize("length", ["-1", "abc", "1, 2", "99999999999999999999999999", "+5", "0x5", "", "1 2"])
    def test_content_length(self, api: Api, length: str) -> None:
        image = api.ready()
        request = f"PUT /v2/images/{image['id']}/file HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        with Wire(api.url) as wire:
            wire.send(f"{request}Content-Length: {length}\r\n\r\nhello".encode())
        # whatever it meant, the image does not hold what nobody has sent
        found = api.wait_for_status(image["id"], "queued") if length.startswith("9") else api.show(image["id"])
        assert found["size"] in (None, 0)

    @pytest.mark.better_than_glance  # left to whatever stands in front of it
    def test_smuggling(self, api: Api) -> None:
        """Two lengths of one body: proxies and servers must not disagree where the next request begins."""
        image = api.ready()
        start = f"PUT /v2/images/{image['id']}/file HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        inner = "DELETE /v2/images/x HTTP/1.1\r\nHost: x\r\n\r\n"
        for lengths in (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: identity, chunked, identity\r\n",
        ):
            code = raw_status(api.url, f"{start}{lengths}\r\n0\r\n\r\n{inner}".encode())
            assert code in (400, 501, None), lengths

    def test_identity_headers_change_nothing(self, api: Api) -> None:
        headers = {"X-Project-Id": "f" * 32, "X-Tenant-Id": "f" * 32, "X-Roles": "reader", "X-User-Id": "eve"}
        headers |= {"X-Identity-Status": "Invalid", "X-Is-Admin-Project": "False"}
        response = api.request("POST", "/v2/images", json={}, headers=headers)
        assert response.status_code == 201
        assert response.json()["owner"] is None


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2/images\r\n\r\n",
        b"GET /v2/images HTTP/9.9\r\n\r\n",
        b"GET /v2/images HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /v2/images HTTP/1.1\r\n: x\r\n\r\n",
        b"GET /v2/images HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://127.0.0.1/v2/images HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 1000 + b"\r\n\r\n",
        "GET /v2/images/ü HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_noise_instead_of_http(api: Api, data: bytes) -> None:
    with Wire(api.url) as wire:
        wire.send(data)
        wire.finish()
        text = wire.read_to_end()
    assert b" 500 " not in text.partition(b"\r\n")[0]


@pytest.mark.better_than_glance  # has one thread for each
def test_idle_connections_block_nobody(api: Api) -> None:
    wires = [Wire(api.url) for _ in range(200)]
    for wire in wires[:100]:
        wire.send(b"GET /v2/images HTTP/1.1\r\nHost: ")
    assert api.raw_list(limit="1").status_code == 200
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("value", ["../../etc/passwd", "/etc/passwd", "fs/../fast", "fs\x00", "FS", " fs "])
def test_store_names(api: Api, local: Service, value: str) -> None:
    image = api.ready()
    answer = ask(api.url, "PUT", f"/v2/images/{image['id']}/file", {**OCTETS, "X-Image-Meta-Store": value}, b"x")
    if value.strip() == "fs":
        assert answer.status in (204, 400)
    else:
        assert answer.status == 400
        assert local.stored(image["id"]) == []


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a?b", "a#b", "%2e", " ", "é", "a%b"])
def test_odd_property_names(api: Api, name: str) -> None:
    image = api.create(**{name: "value"})
    assert api.show(image["id"])[name] == "value"
    token = name.replace("~", "~0").replace("/", "~1")
    if name.strip():
        assert api.patch(image["id"], {"op": "replace", "path": f"/{token}", "value": "new"})[name] == "new"
    found = api.get(f"/v2/images?{quote(name, safe='')}=value&id={image['id']}")
    assert found.status_code == 200


def test_status_cannot_be_reached_from_outside(api: Api) -> None:
    """OSSA-2015-019: who can put an active image back to queued can replace what others boot."""
    image = api.active(b"good")
    headers = {"X-Image-Meta-Status": "queued", "X-Glance-Registry-Purge-Props": "true", "X-Image-Meta-Property-x": "y"}
    assert api.request("GET", f"/v2/images/{image['id']}", headers=headers).status_code == 200
    for operation in (add("status", "queued"), add("status", "active"), add("size", 1), add("checksum", "0" * 32)):
        assert api.raw_patch(image["id"], [operation]).status_code == 403
    response = api.request("PUT", f"/v2/images/{image['id']}/file", content=b"evil", headers={**OCTETS, **headers})
    assert response.status_code == 409
    assert api.show(image["id"]) == image
    assert api.download(image["id"]) == b"good"
