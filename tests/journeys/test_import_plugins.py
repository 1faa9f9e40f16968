"""What the plugins of an import do with its bytes: decompression, conversion, properties (spec 5.3 to 5.5)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from .client import Api, Image, Task, replace
from .conftest import IMPORTS, SERVICE_USERS, run, signed_in, with_users
from .content import MIB, VIRTUAL, iso, noise, qcow2
from .service import MULTI_STORE, Service
from .site import Site
from .test_import import COPY, DIRECT, check_content
from .test_import_failures import check_gone, check_queued, ordered

CAP = 16 * MIB


def with_plugins(
    plugins: str, more: Mapping[str, Mapping[str, object]] | None = None
) -> dict[str, Mapping[str, object]]:
    """Imports that go through these plugins, in this order."""
    changes: dict[str, Mapping[str, object]] = {
        **IMPORTS,
        "DEFAULT": {**IMPORTS["DEFAULT"], "image_size_cap": CAP, "workers": 1},
        "image_import_opts": {"image_import_plugins": f"[{plugins}]"},
    }
    return {**changes, **(more or {})}


@pytest.fixture(scope="module")
def unpacking(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service that decompresses."""
    changes = with_plugins("image_decompression")
    yield from run(Service(tmp_path_factory.mktemp("unpacking"), MULTI_STORE, changes), tables)


@pytest.fixture
def unpacker(unpacking: Service) -> Iterator[Api]:
    caller = Api(unpacking.url)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def converting(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service that decompresses and converts to raw."""
    changes = with_plugins("image_decompression,image_conversion", {"image_conversion": {"output_format": "raw"}})
    yield from run(Service(tmp_path_factory.mktemp("converting"), MULTI_STORE, changes), tables)


@pytest.fixture
def converter(converting: Service) -> Iterator[Api]:
    caller = Api(converting.url)
    yield caller
    caller.close()


# --- decompression ---------------------------------------------------------------------------------------------------


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()


def zstd(data: bytes) -> bytes:
    """A zstd frame of blocks that are kept as they are (RFC 8878, 3.1.1): its size in 8 bytes, no checksum."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + len(data).to_bytes(8, "little")
    pieces = [data[start : start + 100_000] for start in range(0, len(data), 100_000)]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        frame += (last | len(piece) << 3).to_bytes(3, "little") + piece
    return frame


DATA = noise(MIB) + bytes(2 * MIB)
ZIPPED = zipped(("disk.raw", DATA))


@pytest.mark.parametrize("method", [DIRECT, "web-download"])
@pytest.mark.parametrize("packed", [gzip.compress(DATA, 1), ZIPPED, DATA], ids=["gzip", "zip", "plain"])
def test_decompresses(unpacker: Api, unpacking: Service, site: Site, method: str, packed: bytes) -> None:
    image, how = ordered(unpacker, site, method, packed)
    shown, task = unpacker.imported(image["id"], how, all_stores=True)
    assert (task["status"], shown["virtual_size"]) == ("success", len(DATA)), task["message"]
    check_content(unpacker, unpacking, shown, DATA, "fs", "fast")


@pytest.mark.better_than_glance
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
@pytest.mark.parametrize(
    "packed",
    [
        lzma.compress(DATA),
        bz2.compress(DATA),
        zstd(DATA),
        gzip.compress(DATA[:MIB], 1) + gzip.compress(DATA[MIB:], 1),
        zipped(("../../../etc/disk.raw", DATA), method=zipfile.ZIP_STORED),
    ],
    ids=["xz", "bzip2", "zstd", "gzip in two members", "stored zip with a path"],
)
def test_decompresses_more(unpacker: Api, unpacking: Service, site: Site, method: str, packed: bytes) -> None:
    test_decompresses(unpacker, unpacking, site, method, packed)


def test_compressed_on_purpose(unpacker: Api, unpacking: Service, site: Site) -> None:
    """`container_format` says that users want it so."""
    packed = gzip.compress(DATA, 1)
    image, how = ordered(unpacker, site, "web-download", packed, container_format="compressed")
    shown, _ = unpacker.imported(image["id"], how)
    check_content(unpacker, unpacking, shown, packed, "fs")


def test_one_layer(unpacker: Api, unpacking: Service, site: Site) -> None:
    inner = gzip.compress(DATA, 1)
    image, how = ordered(unpacker, site, "web-download", gzip.compress(inner, 1))
    shown, _ = unpacker.imported(image["id"], how)
    check_content(unpacker, unpacking, shown, inner, "fs")


def test_uploads_and_copies_are_left_alone(unpacker: Api, unpacking: Service) -> None:
    packed = gzip.compress(DATA, 1)
    image = unpacker.active(packed)
    shown, _ = unpacker.imported(image["id"], COPY, stores=["fast"])
    check_content(unpacker, unpacking, shown, packed, "fs", "fast")


@pytest.mark.better_than_glance
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
@pytest.mark.parametrize(
    "packed",
    [
        zipped(("a", b"one"), ("b", b"two")),
        zipped(),
        gzip.compress(DATA, 1)[:-9],
        gzip.compress(DATA, 1)[: MIB // 2],
        gzip.compress(DATA, 1)[:-8] + bytes(8),
        lzma.compress(DATA)[:-20],
        ZIPPED[: MIB // 2],
    ],
    ids=["two members", "no member", "short gzip", "half a gzip", "wrong checksum", "short xz", "half a zip"],
)
def test_what_cannot_be_decompressed(unpacker: Api, unpacking: Service, site: Site, method: str, packed: bytes) -> None:
    image, how = ordered(unpacker, site, method, packed)
    shown, task = unpacker.imported(image["id"], how, all_stores=True)
    if packed == zipped() and shown["status"] == "active":  # begins with the magic of another record: no archive to us
        check_content(unpacker, unpacking, shown, packed, "fs", "fast")
        return
    check_queued(unpacker, unpacking, image, task)


@pytest.mark.better_than_glance
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: zipped(("x", data))])
def test_bombs(unpacker: Api, unpacking: Service, site: Site, pack: Callable[[bytes], bytes]) -> None:
    """A few kilobytes that become more than anybody may keep."""
    image, how = ordered(unpacker, site, "web-download", pack(bytes(4 * CAP)))
    _, task = unpacker.imported(image["id"], how, all_stores=True)
    check_queued(unpacker, unpacking, image, task)


@pytest.mark.better_than_glance
def test_packed_is_inspected_all_the_same(unpacker: Api, unpacking: Service, site: Site) -> None:
    for data in (qcow2(backing=512), qcow2(features=4), noise(MIB)):
        image, how = ordered(unpacker, site, DIRECT, gzip.compress(data), disk_format="qcow2")
        _, task = unpacker.imported(image["id"], how)
        check_queued(unpacker, unpacking, image, task)
    image, how = ordered(unpacker, site, DIRECT, gzip.compress(qcow2()), disk_format="qcow2")
    shown, _ = unpacker.imported(image["id"], how)
    assert (shown["status"], shown["virtual_size"], shown["size"]) == ("active", VIRTUAL, len(qcow2()))


# --- conversion ------------------------------------------------------------------------------------------------------

DISK = noise(MIB, 1) + bytes(6 * MIB) + noise(MIB, 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """`made("qcow2", "-c")` is the disk in that format of qemu-img."""
    folder = tmp_path_factory.mktemp("disks")
    (folder / "raw").write_bytes(DISK)

    def make(name: str, *options: str) -> bytes:
        target = folder / f"made.{name}"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", name, *options, folder / "raw", target], check=True)
        return target.read_bytes()

    return make


Made = Callable[..., bytes]
STREAM = ("-o", "subformat=streamOptimized")


def check_raw(api: Api, service: Service, image: Image, task: Task, *stores: str) -> None:
    """The image has become the disk itself."""
    assert task["status"] == "success", task["message"]
    assert (image["disk_format"], image["container_format"]) == ("raw", "bare")
    assert image["virtual_size"] == len(DISK)
    check_content(api, service, image, DISK, *stores)


@pytest.mark.parametrize("method", [DIRECT, "web-download"])
@pytest.mark.parametrize(
    ("disk_format", "name", "options"),
    [
        ("qcow2", "qcow2", ()),
        ("qcow2", "qcow2", ("-c",)),
        ("vmdk", "vmdk", STREAM),
        ("vdi", "vdi", ()),
        ("vhdx", "vhdx", ()),
        ("raw", "raw", ()),
    ],
)
def test_converts(
    converter: Api, converting: Service, site: Site, made: Made, method: str, disk_format: str, name: str,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    image, how = ordered(converter, site, method, made(name, *options), disk_format=disk_format)
    shown, task = converter.imported(image["id"], how, all_stores=True)
    check_raw(converter, converting, shown, task, "fs", "fast")


@pytest.mark.better_than_glance  # which can never convert this format
def test_converts_vhd(converter: Api, converting: Service, site: Site, made: Made) -> None:
    test_converts(converter, converting, site, made, DIRECT, "vhd", "vpc", ("-o", "force_size"))


def test_decompresses_then_converts(converter: Api, converting: Service, site: Site, made: Made) -> None:
    for packed in (gzip.compress(made("qcow2"), 1), zipped(("disk.qcow2", made("qcow2")))):
        image, how = ordered(converter, site, "web-download", packed, disk_format="qcow2")
        shown, task = converter.imported(image["id"], how)
        check_raw(converter, converting, shown, task, "fs")


def test_stays_what_it_is(converter: Api, converting: Service, site: Site) -> None:
    """A CD is no disk, and an upload no import."""
    image, how = ordered(converter, site, DIRECT, iso(), disk_format="iso")
    shown, _ = converter.imported(image["id"], how)
    assert shown["disk_format"] == "iso"
    check_content(converter, converting, shown, iso(), "fs")
    uploaded = converter.active(qcow2(), disk_format="qcow2")
    shown, _ = converter.imported(uploaded["id"], COPY, stores=["fast"])
    assert shown["disk_format"] == "qcow2"
    check_content(converter, converting, shown, qcow2(), "fs", "fast")


@pytest.mark.better_than_glance
@pytest.mark.parametrize("method", [DIRECT, "web-download"])
@pytest.mark.parametrize(
    ("disk_format", "data"),
    [
        ("raw", qcow2()),
        ("qcow2", noise(MIB)),
        ("qcow2", qcow2(backing=512)),
        ("qcow2", qcow2(features=4)),
        ("raw", qcow2(features=4)),
        ("qcow2", qcow2()[:4096]),
        ("qcow2", iso()),
    ],
    ids=["qcow2 as raw", "raw as qcow2", "backing", "data file", "data file as raw", "cut short", "iso as qcow2"],
)
def test_what_cannot_be_converted(
    converter: Api, converting: Service, site: Site, method: str, disk_format: str, data: bytes
) -> None:
    image, how = ordered(converter, site, method, data, disk_format=disk_format)
    _, task = converter.imported(image["id"], how, all_stores=True)
    check_queued(converter, converting, image, task)
    assert (converter.show(image["id"])["disk_format"], "passwd" in task["message"]) == (disk_format, False)


@pytest.mark.better_than_glance
def test_a_disk_that_is_larger_than_it_may_be(converter: Api, converting: Service, site: Site) -> None:
    """A kilobyte that would become a raw file of a terabyte."""
    image, how = ordered(converter, site, DIRECT, qcow2(size=1 << 40), disk_format="qcow2")
    _, task = converter.imported(image["id"], how)
    check_queued(converter, converting, image, task)


@pytest.mark.better_than_glance
def test_deleted_before_it_is_converted(converter: Api, converting: Service, site: Site, made: Made) -> None:
    data, images = made("qcow2"), []
    for _ in range(6):
        image, how = ordered(converter, site, DIRECT, data, disk_format="qcow2")
        images.append(image["id"])
        converter.order(image["id"], how, all_stores=True)
        converter.delete(image["id"])
    for image_id in images:
        check_gone(converter, converting, image_id)


def test_to_qcow2(own: Callable[..., Service], site: Site, made: Made, tmp_path: Path) -> None:
    service = own(with_plugins("image_conversion", {"image_conversion": {"output_format": "qcow2"}}))
    api = Api(service.url)
    image, how = ordered(api, site, DIRECT, DISK)
    shown, task = api.imported(image["id"], how)
    assert (task["status"], shown["disk_format"], shown["virtual_size"]) == ("success", "qcow2", len(DISK))
    (tmp_path / "converted").write_bytes(api.download(image["id"]))
    assert shown["size"] == (tmp_path / "converted").stat().st_size < len(DISK)
    back = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "converted", tmp_path / "back")
    subprocess.run(back, check=True)
    assert (tmp_path / "back").read_bytes() == DISK
    assert service.stored(image["id"]) == [service.home / "images" / image["id"]]
    api.close()


# --- properties ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def injecting(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service that marks what people import, but not what administrators and services do."""
    home = tmp_path_factory.mktemp("injecting")
    options = {
        "inject": "checked:not yet,os_distro:unknown,os_glance_import_task:x,os_glance_own:x",
        "ignore_user_roles": "admin,service",
    }
    service = Service(home, MULTI_STORE, with_users(home, SERVICE_USERS))
    changes = with_plugins("no_op,inject_image_metadata", {"inject_metadata_properties": options})
    service.configure(changes)
    yield from run(service, tables)


@pytest.fixture
def signed(injecting: Service) -> Iterator[Callable[[str], Api]]:
    yield from signed_in(injecting, SERVICE_USERS)


Who = Callable[[str], Api]


def imports_of(api: Api, site: Site, **fields: Any) -> Iterator[Image]:
    """One image by each method, active."""
    for method in (DIRECT, "web-download"):
        image, how = ordered(api, site, method, b"content", **fields)
        shown, task = api.imported(image["id"], how)
        assert (shown["status"], task["status"]) == ("active", "success"), task["message"]
        yield shown


def test_marks_imports(signed: Who, site: Site) -> None:
    for image in imports_of(signed("alice"), site, os_distro="debian", kept="as it is"):
        assert (image["checked"], image["os_distro"], image["kept"]) == ("not yet", "unknown", "as it is")
        assert not {"os_glance_import_task", "os_glance_own"} & image.keys()


@pytest.mark.parametrize("name", ["admin", "nova"])
def test_not_of_everybody(signed: Who, site: Site, name: str) -> None:
    for image in imports_of(signed(name), site, os_distro="debian"):
        assert (image["os_distro"], "checked" in image) == ("debian", False)


def test_not_uploads_and_copies(signed: Who) -> None:
    alice = signed("alice")
    image = alice.active(b"content")
    shown, _ = signed("admin").imported(image["id"], COPY, stores=["fast"])
    assert "checked" not in shown
    alice.patch(image["id"], replace("name", "mine"))
