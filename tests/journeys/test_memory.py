"""A worker holds a window of the bytes that pass through it, never the image."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .client import Api, web_download
from .conftest import ON_LOOPBACK
from .content import MIB
from .service import Service
from .site import Site
from .wire import Wire

pytestmark = pytest.mark.better_than_glance  # whose processes are somebody else's

SIZE = 192 * MIB
WINDOW = 48 * MIB


def resident(pid: int, field: str) -> int:
    """Bytes of memory of a process: `VmRSS` now, `VmHWM` at its highest."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def test_large_image(own: Callable[..., Service]) -> None:
    service = own({"DEFAULT": {"workers": 1}})
    [worker] = service.listeners()
    api = Api(service.url)
    api.delete(api.active(bytes(MIB))["id"])
    before = resident(worker, "VmHWM")
    block = bytes(MIB)

    def pieces() -> Iterator[bytes]:
        for _ in range(SIZE // MIB):
            yield block

    image = api.active(pieces())
    assert image["size"] == SIZE
    assert resident(worker, "VmHWM") - before < WINDOW

    # readers that do not read
    wires = [Wire(service.url, receive_buffer=16_384) for _ in range(20)]
    for wire in wires:
        wire.head("GET", f"/v2/images/{image['id']}/file")
        assert wire.answer_head()[0] == 200
    time.sleep(0.5)
    assert resident(worker, "VmHWM") - before < WINDOW
    for wire in wires:
        wire.close()

    with api.http.stream("GET", f"/v2/images/{image['id']}/file") as response:
        assert sum(len(piece) for piece in response.iter_bytes()) == SIZE
    assert resident(worker, "VmHWM") - before < WINDOW
    api.close()


def test_imports(own: Callable[..., Service], site: Site) -> None:
    """From the web into two stores, some of it unpacked, four at the same time; then from one store into the other."""
    changes = {"image_import_opts": {"image_import_plugins": "[image_decompression]"}, "DEFAULT": {"workers": 1}}
    service = own({**ON_LOOPBACK, **changes})
    [worker] = service.listeners()
    api = Api(service.url)
    api.delete(api.imported(api.ready()["id"], web_download(site.add(bytes(MIB))), all_stores=True)[0]["id"])
    before = resident(worker, "VmHWM")
    plain, packed = site.add(bytes(SIZE)), site.add(gzip.compress(bytes(SIZE), 1))
    images = [api.ready() for _ in range(4)]
    for image, url in zip(images, (plain, plain, packed, packed), strict=True):
        api.order(image["id"], web_download(url), all_stores=True)
    for image in images:
        shown, task = api.settled(image["id"], 60)
        assert (shown["status"], shown["size"]) == ("active", SIZE), task["message"]
    assert resident(worker, "VmHWM") - before < 3 * WINDOW
    api.request("DELETE", f"/v2/stores/fs/{images[0]['id']}")
    assert api.imported(images[0]["id"], "copy-image", stores=["fs"])[1]["status"] == "success"
    assert resident(worker, "VmHWM") - before < 3 * WINDOW
    api.close()


def test_uploads_that_wait(own: Callable[..., Service]) -> None:
    """Many slow uploads cost what has arrived and is not written yet, not what is to come."""
    service = own({"DEFAULT": {"workers": 1}})
    [worker] = service.listeners()
    api = Api(service.url)
    images = [api.ready() for _ in range(50)]
    before = resident(worker, "VmRSS")
    wires = [Wire(service.url) for _ in images]
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(64 * MIB)}
    for wire, image in zip(wires, images, strict=True):
        wire.head("PUT", f"/v2/images/{image['id']}/file", headers)
        wire.send(bytes(100_000))
    for image in images:
        api.wait_for_status(image["id"], "saving")
    assert resident(worker, "VmRSS") - before < 2 * WINDOW
    for wire in wires:
        wire.close()
    for image in images:
        api.wait_for_status(image["id"], "queued")
    assert service.stored() == []
    api.close()
