"""Another region's Image service, played by a small web server: what is taken from it, and what it is not told."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from glimpse.errors import BadRequest, Conflict, GlimpseError, NotFound, Unavailable
from glimpse.imports.glance_download import RemoteGlance, RemoteImage, endpoint_of
from glimpse.settings import FilterSettings, FormatSettings
from glimpse.stores.uri_filter import UriFilter
from glimpse.stores.web import WebClient

IMAGE = "8c1b2c9e-5d3e-4b0a-9a38-3a2b8a1d5f00"
TOKEN = "gAAAA-secret"
FORMATS = FormatSettings(("bare", "ovf"), ("raw", "qcow2"), True, frozenset(), frozenset())
PREFIXES = ("hw_", "trait:", "os_")
RECORD: dict[str, Any] = {
    "id": IMAGE, "status": "active", "disk_format": "raw", "container_format": "bare", "size": 5, "name": "theirs",
    "hw_disk_bus": "scsi", "trait:HW_CPU": "required", "os_distro": "debian", "os_glance_stage_host": "http://x",
    "os_hash_algo": "sha512", "os_hidden": False, "hw_number": 7, "hw_nul": "\0", "else": "no", "hw_" + "x" * 255: "y",
}  # fmt: skip


@dataclass
class Region:
    """Its Image service, as it answers for one image."""

    endpoint: str = ""
    record: Any = field(default_factory=lambda: dict(RECORD))
    status: int = 200
    away: str = ""
    tokens: list[str | None] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.tokens.append(request.headers.get("X-Auth-Token"))
        if self.away:
            return web.Response(status=302, headers={"Location": self.away + request.path})
        if request.path == f"/image/v2/images/{IMAGE}/file":
            return web.Response(status=self.status, body=b"bytes")
        if request.path == f"/image/v2/images/{IMAGE}":
            return web.Response(status=self.status, text=json.dumps(self.record))
        return web.Response(status=404)


async def _region() -> AsyncIterator[Region]:
    made = Region()
    runner = web.ServerRunner(web.Server(made.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}/image"
    yield made
    await runner.cleanup()


region = pytest.fixture(_region)
stranger = pytest.fixture(_region)


@pytest.fixture
async def client() -> AsyncIterator[WebClient]:
    made = WebClient(UriFilter(FilterSettings(("http",), (), ("127.0.0.1",), (), (), ())))
    yield made
    await made.close()


@pytest.fixture
def remote(region: Region, client: WebClient) -> RemoteGlance:
    return RemoteGlance(client, region.endpoint, IMAGE, TOKEN)


async def test_record_and_bytes(remote: RemoteGlance, region: Region) -> None:
    assert await remote.describe(FORMATS, PREFIXES) == RemoteImage(
        "raw", "bare", {"hw_disk_bus": "scsi", "trait:HW_CPU": "required", "os_distro": "debian"}, 5
    )
    assert (await remote.describe(FORMATS, ())).properties == {}
    reader = await remote.open()
    assert reader.size == 5
    assert b"".join([block async for block in reader.stream(0, None)]) == b"bytes"
    await reader.close()
    assert region.tokens == [TOKEN] * 3


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"status": "queued"}, Conflict),
        ({"disk_format": "vhd"}, BadRequest),
        ({"container_format": None}, BadRequest),
        ({"size": None}, Unavailable),
        ({"size": "5"}, Unavailable),
        ({"size": True}, Unavailable),
        ({"size": -1}, Unavailable),
    ],
)
async def test_what_cannot_be_imported(
    remote: RemoteGlance, region: Region, change: dict[str, Any], error: type[GlimpseError]
) -> None:
    region.record |= change
    with pytest.raises(error):
        await remote.describe(FORMATS, PREFIXES)


@pytest.mark.parametrize("record", [[], "x", None, {}, {"status": "active"}])
async def test_what_is_no_image_service(remote: RemoteGlance, region: Region, record: Any) -> None:
    region.record = record
    with pytest.raises(Unavailable):
        await remote.describe(FORMATS, PREFIXES)


async def test_refusals(remote: RemoteGlance, region: Region) -> None:
    for status, error in ((404, NotFound), (401, Unavailable), (500, Unavailable), (300, Unavailable)):
        region.status = status
        for attempt in (remote.describe(FORMATS, PREFIXES), remote.open()):
            with pytest.raises(error):
                await attempt


async def test_the_token_is_for_that_region_only(
    remote: RemoteGlance, region: Region, stranger: Region, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    region.away = stranger.endpoint.removesuffix("/image")
    await remote.describe(FORMATS, PREFIXES)
    assert stranger.tokens == [None]
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(remote)


async def test_the_filter_holds_for_the_catalogue_too(region: Region) -> None:
    """OSSA-2026-004: both the record and the data."""
    lists = FilterSettings(("http", "https"), (), (), (), (80, 443), ())
    for one in (lists, replace(lists, allowed_ports=()), replace(lists, allowed_hosts=("127.0.0.1",))):
        client = WebClient(UriFilter(one))
        remote = RemoteGlance(client, region.endpoint, IMAGE, TOKEN)
        for attempt in (remote.describe(FORMATS, PREFIXES), remote.open()):
            with pytest.raises(Unavailable):
                await attempt
        await client.close()
    assert not region.tokens


def test_endpoints() -> None:
    def endpoint(region: str, interface: str, url: str) -> dict[str, str]:
        return {"region_id": region, "region": region, "interface": interface, "url": url, "id": "1"}

    catalogue = [
        {"type": "compute", "endpoints": [endpoint("Two", "public", "http://nova")]},
        {"type": "image"},
        {
            "type": "image",
            "endpoints": [
                endpoint("One", "public", "http://one"),
                endpoint("Two", "internal", "http://inside/"),
                endpoint("Two", "public", "http://two/image/v2/"),
            ],
        },
    ]
    assert endpoint_of(catalogue, "two", "public") == "http://two/image"
    assert endpoint_of(catalogue, "TWO", "internal") == "http://inside"
    assert endpoint_of(catalogue, "One", "public") == "http://one"
    for region, interface in (("Three", "public"), ("Two", "admin"), ("", "public"), ("Two", "")):
        with pytest.raises(NotFound):
            endpoint_of(catalogue, region, interface)
    with pytest.raises(NotFound):
        endpoint_of((), "One", "public")
