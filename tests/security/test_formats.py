"""Advisories about what is inside an image: every way in is held against every trick."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable

import pytest

from tests.journeys import content
from tests.journeys.client import Api, Image, add, web_download
from tests.journeys.content import MIB, VIRTUAL
from tests.journeys.service import Service
from tests.journeys.site import Site
from tests.journeys.test_import import COPY, DIRECT
from tests.journeys.test_import_failures import check_nothing_left
from tests.journeys.test_import_plugins import with_plugins
from tests.journeys.test_location_api import post

Attempt = Callable[[str, bytes], Image]

# What a consumer would have to open another file for, or would have to guess about.
PASSWD = "/etc/passwd"


@pytest.fixture(params=["upload", "chunked", "stage", "web-download", "copy", "location", "promised location"])
def attempt(request: pytest.FixtureRequest, importer: Api, importing: Service, site: Site) -> Attempt:
    """`attempt("qcow2", data)` gives a service an image in each way that there is; it must not have got it."""

    def upload(disk_format: str, data: bytes) -> Image:
        image = importer.ready(disk_format=disk_format)
        body = data if request.param == "upload" else iter([data[:1000], data[1000:]])
        response = importer.raw_upload(image["id"], body)
        assert (response.status_code, PASSWD in response.text) == (415, False)
        return image

    def ingest(disk_format: str, data: bytes) -> Image:
        image = importer.ready(disk_format=disk_format)
        if request.param == "stage":
            assert importer.raw_stage(image["id"], data).status_code == 204
            how: object = DIRECT
        else:
            how = web_download(site.add(data))
        _, task = importer.imported(image["id"], how, all_stores=True)  # type: ignore[arg-type]
        assert (task["status"], PASSWD in task["message"]) == ("failure", False)
        return image

    def copy(disk_format: str, data: bytes) -> Image:
        """From a place that nobody has looked into."""
        image = importer.ready(disk_format=disk_format)
        importer.patch(image["id"], add("locations/-", {"url": site.add(data), "metadata": {}}))
        shown, task = importer.imported(image["id"], COPY, all_stores=True)
        assert (task["status"], shown["stores"]) == ("failure", "web")
        check_nothing_left(importing, image["id"])
        return image

    def place(disk_format: str, data: bytes) -> Image:
        """The location API; without a promise the image is active first, and deactivated when it is looked into."""
        image, promised = importer.ready(disk_format=disk_format), request.param != "location"
        promise = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(data).hexdigest()} if promised else {}
        assert post(importer, image["id"], site.add(data), **promise).status_code == 202
        shown, task = importer.settled(image["id"])
        assert (shown["status"], PASSWD in task["message"]) == ("queued" if promised else "deactivated", False)
        return shown

    def refused(disk_format: str, data: bytes) -> Image:
        image = ingest(disk_format, data) if request.param in ("stage", "web-download") else upload(disk_format, data)
        shown = importer.show(image["id"])
        assert (shown["status"], shown["size"], shown["locations"]) == ("queued", None, [])
        assert importer.raw_download(image["id"]).status_code == 204
        check_nothing_left(importing, image["id"])
        return shown

    return {"copy": copy, "location": place, "promised location": place}.get(request.param, refused)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("disk_format", ["qcow2", "raw"])
def test_ossa_2015_014_cve_2015_5163_qcow2_backing_file(attempt: Attempt, disk_format: str, version: int) -> None:
    """OSSA-2015-014: who converts or boots a qcow2 reads the file that it names as its backing file."""
    attempt(disk_format, content.qcow2(version, backing=512))


@pytest.mark.parametrize("disk_format", ["qcow2", "raw"])
@pytest.mark.parametrize("features", [0b100, 0b110, 1 << 5, 1 << 63])
def test_ossa_2024_001_cve_2024_32498_qcow2_data_file(attempt: Attempt, disk_format: str, features: int) -> None:
    """OSSA-2024-001: an external data file, or a feature that nobody here knows; calling it raw does not help."""
    attempt(disk_format, content.qcow2(features=features))


@pytest.mark.parametrize(
    "data", [content.vmdk("monolithicFlat"), content.flat_descriptor(), content.vmdk("fullDevice")]
)
def test_ossa_2023_002_cve_2022_47951_vmdk_flat_descriptor(attempt: Attempt, data: bytes) -> None:
    """OSSA-2023-002, OSSN-0092: a VMDK that has its data in another file, which it names."""
    attempt("vmdk", data)


@pytest.mark.parametrize("data", [content.vmdk(extent=PASSWD), content.stream_optimized(footer_version=2)])
def test_ossn_0092_vmdk_that_says_two_things(attempt: Attempt, data: bytes) -> None:
    """OSSN-0092: an allowed type, but an extent with a path, or a footer that differs from the header."""
    attempt("vmdk", data)


def test_ossa_2024_003_cve_2024_44082_untrusted_for_conversion(attempt: Attempt) -> None:
    """OSSA-2024-003 (Ironic): consumers run qemu-img on what they get, so a format that it may not have is refused."""
    attempt("raw", content.qed())


def test_ossa_2026_002_cve_2026_24708_another_format_than_declared(attempt: Attempt) -> None:
    """OSSA-2026-002 (Nova): a consumer that is told a format does not guess; so what is told has to be true."""
    attempt("qcow2", content.vdi())


def test_ossa_2026_002_cve_2026_24708_two_formats_at_once(attempt: Attempt) -> None:
    """OSSA-2026-002 (Nova): what is one thing to one reader and another to the next."""
    both = bytearray(content.iso())
    both[:200] = content.qcow2()[:200]
    attempt("iso", bytes(both))


@pytest.fixture
def converter(own: Callable[..., Service]) -> Service:
    return own(with_plugins("image_decompression,image_conversion"))


@pytest.mark.parametrize(
    ("name", "disk_format", "data"),
    [
        ("backing file", "qcow2", content.qcow2(backing=512)),
        ("data file", "qcow2", content.qcow2(features=0b100)),
        ("data file in what is called raw", "raw", content.qcow2(features=0b100)),
        ("flat VMDK", "vmdk", content.vmdk("monolithicFlat")),
    ],
)
def test_ossa_2024_001_cve_2024_32498_nothing_reaches_qemu_img(
    converter: Service, site: Site, name: str, disk_format: str, data: bytes
) -> None:
    """OSSA-2024-001: inspected before the conversion, also inside of what is compressed."""
    api = Api(converter.url)
    for body in (data, gzip.compress(data)):
        image = api.ready(disk_format=disk_format)
        shown, task = api.imported(image["id"], web_download(site.add(body)))
        assert (shown["status"], task["status"], PASSWD in task["message"]) == ("queued", "failure", False)
        check_nothing_left(converter, image["id"])
    api.close()


def test_ossa_2013_029_cve_2013_4463_a_huge_disk_in_a_small_file(converter: Service, site: Site) -> None:
    """OSSA-2013-029 (Nova): what becomes larger than an image may be is not made, neither by qemu-img nor by gzip."""
    api = Api(converter.url)
    for disk_format, data in (("qcow2", content.qcow2(size=1 << 45)), ("raw", gzip.compress(bytes(40 * MIB)))):
        image = api.ready(disk_format=disk_format)
        shown, task = api.imported(image["id"], web_download(site.add(data)))
        assert (shown["status"], task["status"]) == ("queued", "failure")
        check_nothing_left(converter, image["id"])
    api.close()


def test_ossa_2016_012_cve_2015_5162_qemu_img_has_limits(converter: Service, site: Site) -> None:
    """OSSA-2016-012: tables of nonsense cost no more time and memory than qemu-img may have; others go on."""
    api = Api(converter.url)
    hostile = bytearray(content.qcow2(size=VIRTUAL))
    hostile[36:48] = (0x02000000).to_bytes(4, "big") + (0x10000).to_bytes(8, "big")  # 32 million entries of L1
    image, other = api.ready(disk_format="qcow2"), api.ready()
    api.order(image["id"], web_download(site.add(bytes(hostile))))
    assert api.imported(other["id"], web_download(site.add(b"content")))[0]["status"] == "active"
    shown, task = api.settled(image["id"])
    assert (shown["status"], task["status"]) == ("queued", "failure")
    check_nothing_left(converter, image["id"])
    api.close()
