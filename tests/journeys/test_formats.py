"""What is inside an upload is held against what the record says it is."""

from __future__ import annotations

import pytest

from . import content
from .client import Api
from .content import VIRTUAL
from .service import Service

QCOW2, QCOW2_OLD = content.qcow2(3), content.qcow2(2)

UNSAFE: dict[str, tuple[str, bytes]] = {
    "qcow2 with a backing file": ("qcow2", content.qcow2(3, backing=512)),
    "old qcow2 with a backing file": ("qcow2", content.qcow2(2, backing=512)),
    "qcow2 with a data file": ("qcow2", content.qcow2(3, features=0b100)),
    "qcow2 with unknown features": ("qcow2", content.qcow2(3, features=1 << 5)),
    "qcow2 with far unknown features": ("qcow2", content.qcow2(3, features=1 << 63)),
    "qcow2 of the future": ("qcow2", content.qcow2(4)),
    "qcow of the past": ("qcow2", content.qcow2(1)),
    "vmdk that names another file": ("vmdk", content.vmdk("monolithicFlat")),
    "vmdk that is text only": ("vmdk", content.flat_descriptor()),
    "vmdk with a device": ("vmdk", content.vmdk("fullDevice")),
    "vmdk with a path": ("vmdk", content.vmdk(extent="/etc/passwd")),
    "vmdk with a footer that differs": ("vmdk", content.stream_optimized(footer_version=2)),
}

BAD_DISKS = {
    "no partition": content.mbr(),
    "boot flag": content.mbr(content.partition(0x83, boot=0x11)),
    "protective with another": content.mbr(content.partition(0xEE), content.partition(0x83)),
    "protective at the wrong block": content.mbr(content.partition(0xEE, lba=2)),
    "protective at the wrong place": content.mbr(content.partition(0xEE, start=(0, 1, 0))),
}


def try_upload(api: Api, disk_format: str, data: bytes, container: str = "bare") -> tuple[int, str, str]:
    """Status code, text, image id."""
    image = api.ready(disk_format=disk_format, container_format=container)
    response = api.raw_upload(image["id"], data)
    return response.status_code, response.text, image["id"]


@pytest.mark.parametrize(
    ("disk_format", "data", "virtual"),
    [
        ("qcow2", QCOW2, VIRTUAL),
        ("qcow2", QCOW2_OLD, VIRTUAL),
        ("qcow2", content.qcow2(3, features=0b11), VIRTUAL),
        ("vdi", content.vdi(), VIRTUAL),
        ("vhd", content.vhd(), VIRTUAL),
        ("vhdx", content.vhdx(), VIRTUAL),
        ("vmdk", content.vmdk(), VIRTUAL),
        ("vmdk", content.stream_optimized(), VIRTUAL),
        ("iso", content.iso(), 5 * 2048),
        ("iso", content.iso(content.gpt()[:512]), 5 * 2048),
        ("gpt", content.gpt(), len(content.gpt())),
        ("gpt", content.mbr(content.partition(0x83, boot=0x80)), len(content.gpt())),
        ("raw", b"x", 1),
        ("raw", content.noise(70_000), 70_000),
        # raw says nothing about the content: what is found in it must be harmless, and counts as it is
        ("raw", QCOW2, len(QCOW2)),
        ("raw", content.vdi(), len(content.vdi())),
        ("raw", content.gpt(), len(content.gpt())),
        ("raw", content.iso(), len(content.iso())),
        ("raw", content.luks(), len(content.luks())),
        # no inspector knows these
        ("ami", content.noise(5000), None),
        ("aki", content.noise(5000), None),
        ("ari", content.noise(5000), None),
        ("ploop", content.noise(5000), None),
    ],
)
def test_accepted(api: Api, disk_format: str, data: bytes, virtual: int | None) -> None:
    code, text, image_id = try_upload(api, disk_format, data)
    assert code == 204, text
    image = api.show(image_id)
    assert (image["status"], image["size"], image["virtual_size"]) == ("active", len(data), virtual)
    assert image["disk_format"] == disk_format
    assert api.download(image_id) == data


@pytest.mark.parametrize(
    ("disk_format", "data"),
    [
        ("qcow2", b""),
        ("qcow2", b"x"),
        ("qcow2", content.noise(70_000)),
        ("qcow2", content.vdi()),
        ("qcow2", QCOW2[:100]),
        ("vmdk", QCOW2),
        ("vdi", QCOW2),
        ("vhd", content.vhdx()),
        ("vhdx", content.vhd()),
        ("iso", content.noise(70_000)),
        ("iso", content.gpt()),
        ("gpt", content.noise(70_000)),
        ("ami", QCOW2),
        ("ploop", content.vdi()),
        ("qcow2", content.luks()),
    ],
)
def test_mismatch(api: Api, disk_format: str, data: bytes) -> None:
    code, text, image_id = try_upload(api, disk_format, data)
    assert code == 415
    assert "does not match stream data" in text
    assert disk_format in text
    assert api.show(image_id)["status"] == "queued"


@pytest.mark.parametrize("case", UNSAFE)
def test_unsafe(api: Api, case: str) -> None:
    disk_format, data = UNSAFE[case]
    code, text, image_id = try_upload(api, disk_format, data)
    assert code == 415
    assert "safety check" in text
    assert api.show(image_id)["status"] == "queued"


@pytest.mark.parametrize("case", [case for case in UNSAFE if "text only" not in case])
def test_unsafe_in_disguise(api: Api, case: str) -> None:
    """Calling it raw does not help: whoever reads it later may look for himself what it is."""
    code, _, image_id = try_upload(api, "raw", UNSAFE[case][1])
    assert code == 415
    assert api.show(image_id)["status"] == "queued"


@pytest.mark.parametrize("disk_format", ["raw", "gpt"])
@pytest.mark.parametrize("case", BAD_DISKS)
def test_bad_partition_tables(api: Api, disk_format: str, case: str) -> None:
    code, _, image_id = try_upload(api, disk_format, BAD_DISKS[case])
    assert code == 415
    assert api.show(image_id)["status"] == "queued"


@pytest.mark.parametrize("disk_format", ["raw", "qcow2", "ami"])
def test_banned(api: Api, disk_format: str) -> None:
    code, _, image_id = try_upload(api, disk_format, content.qed())
    assert code == 415
    assert api.show(image_id)["status"] == "queued"


def test_two_formats_at_once(api: Api) -> None:
    """A file that is this for one reader and that for another is nothing that one should boot."""
    both = bytearray(content.iso())
    both[: len(QCOW2[:200])] = QCOW2[:200]
    for disk_format in ("iso", "qcow2", "raw"):
        code, _, image_id = try_upload(api, disk_format, bytes(both))
        assert code == 415
        assert api.show(image_id)["status"] == "queued"


def test_unsupported_encryption(api: Api) -> None:
    assert try_upload(api, "raw", content.luks(version=2))[0] == 415


@pytest.mark.parametrize("container", ["ovf", "ova", "docker", "compressed", "ami"])
def test_containers_are_not_looked_into(api: Api, container: str) -> None:
    for data in (QCOW2, content.noise(70_000), content.qcow2(backing=512)):
        code, text, image_id = try_upload(api, "vmdk", data, container)
        assert code == 204, text
        assert api.show(image_id)["virtual_size"] is None


@pytest.mark.better_than_glance  # the rejected bytes stay, can be downloaded, and block the next upload
@pytest.mark.parametrize("case", [("qcow2", content.noise(70_000)), ("qcow2", content.qcow2(backing=512))], ids=len)
def test_nothing_stays_of_what_was_refused(api: Api, local: Service, case: tuple[str, bytes]) -> None:
    code, _, image_id = try_upload(api, *case)
    assert code == 415
    image = api.show(image_id)
    for name in ("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"):
        assert image[name] is None, name
    assert "stores" not in image
    assert local.stored(image_id) == []
    assert api.raw_download(image_id).status_code == 204
    api.upload(image_id, QCOW2)
    assert api.download(image_id) == QCOW2
    assert api.show(image_id)["virtual_size"] == VIRTUAL


def test_inspection_does_not_depend_on_the_pieces(api: Api) -> None:
    data = content.vmdk()
    for size in (100, 513, 7000):
        image = api.ready(disk_format="vmdk")
        api.upload(image["id"], iter([data[start : start + size] for start in range(0, len(data), size)]))
        assert api.show(image["id"])["virtual_size"] == VIRTUAL


class TestLenient:
    """A service with require_image_format_match off, and the check of partition tables advisory."""

    def test_mismatch(self, limited: Api) -> None:
        for disk_format, data in [("qcow2", content.noise(70_000)), ("vdi", QCOW2), ("ami", QCOW2)]:
            code, text, image_id = try_upload(limited, disk_format, data)
            assert code == 204, text
            assert limited.show(image_id)["virtual_size"] is None

    @pytest.mark.parametrize("case", UNSAFE)
    def test_unsafe_all_the_same(self, limited: Api, case: str) -> None:
        assert try_upload(limited, *UNSAFE[case])[0] == 415

    @pytest.mark.parametrize("case", BAD_DISKS)
    def test_bad_partition_tables(self, limited: Api, case: str) -> None:
        for disk_format in ("raw", "gpt"):
            assert try_upload(limited, disk_format, BAD_DISKS[case])[0] == 204
