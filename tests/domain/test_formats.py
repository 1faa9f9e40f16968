"""What is taken for which format: where oslo.utils' detectors alone would crash, or see less than QEMU does."""

from __future__ import annotations

import pytest

from glimpse.domain.formats import HEADER_PIECE, ContentInspector, Detector
from glimpse.errors import UnsupportedMediaType
from tests.journeys import content


def conclude(data: bytes, disk_format: str = "raw", require_match: bool = True, pieces: int = 1 << 20) -> int | None:
    inspector = ContentInspector(disk_format, require_match, ())
    for start in range(0, len(data), pieces):
        inspector.feed(data[start : start + pieces])
    return inspector.conclude()


HARMLESS = {
    "comment with an umlaut": "# für alle\n".encode() * 100,
    "umlaut far behind": b"# text\n" * 5000 + "# für alle\n".encode(),
    "script with an archive behind it": b"#!/bin/sh\n" + b"exit 0 # nothing\n" * 60 + content.noise(100_000),
    "text about VMDK": b"A VMDK begins with version=1, and has a createType of its own.\n" * 20,
    "license": b"Apache License\n" * 500,
    "binary that holds a descriptor": content.noise(600) + content.descriptor("monolithicFlat", "/etc/passwd"),
}

FLAT = content.descriptor("monolithicFlat", "/etc/passwd")
DESCRIPTORS = {
    "as it comes": FLAT.ljust(2048, b"#"),
    "short": b'version=1\ncreateType="vmfs"\nRW 1 VMFS "/etc/x"\n',
    "padded": FLAT.ljust(2048, b"\0"),
    "umlaut in the first sector": "# für alle\n".encode() + FLAT.ljust(2048, b"#"),
    "umlaut behind it": FLAT + b"#\n" * 300 + "# für alle\n".encode(),
    "no version": "# für alle\n".encode() + FLAT.replace(b"version=1\n", b"") + b"#\n" * 300,
    "late type": b"#\n" * 20000 + FLAT,
    "Windows line ends": FLAT.replace(b"\n", b"\r\n") + b"#\r\n" * 300,
    "blank lines first": b"  \n\r\n\n" + FLAT + b"#\n" * 300,
    "a type that is safe only inside a disk": content.descriptor("monolithicSparse").ljust(2048, b"#"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_text_is_no_vmdk(name: str) -> None:
    data = HARMLESS[name]
    assert conclude(data) == len(data)
    with pytest.raises(UnsupportedMediaType, match="does not match"):
        conclude(data, "vmdk")


@pytest.mark.parametrize("require_match", [True, False])
@pytest.mark.parametrize("disk_format", ["raw", "vmdk", "qcow2"])
@pytest.mark.parametrize("name", DESCRIPTORS)
def test_descriptors_alone_are_never_safe(name: str, disk_format: str, require_match: bool) -> None:
    """OSSA-2023-002: whatever it is called, QEMU would open the files that it names."""
    for pieces in (1 << 20, 100, 1):
        with pytest.raises(UnsupportedMediaType, match="safety checks"):
            conclude(DESCRIPTORS[name], disk_format, require_match, pieces)


def test_many_line_ends_take_no_time() -> None:
    assert conclude(b"\r\n" * 500_000) == 1_000_000


@pytest.mark.parametrize(
    ("disk_format", "data"),
    [
        ("qcow2", content.qcow2()),
        ("vmdk", content.vmdk()),
        ("vmdk", content.stream_optimized()),
        ("vdi", content.vdi()),
        ("vhd", content.vhd()),
        ("vhdx", content.vhdx()),
    ],
)
def test_pieces_make_no_difference(disk_format: str, data: bytes) -> None:
    for pieces in (1 << 20, 513, 100):
        assert conclude(data, disk_format, pieces=pieces) == content.VIRTUAL


def test_decided_early() -> None:
    """A large file need not be read to its end, but for a VMDK that has its last word there."""
    for data, early in [(content.noise(1 << 20), True), (content.qcow2(), True), (content.stream_optimized(), False)]:
        detector = Detector(())
        detector.feed(data.ljust(1 << 20, b"\0"))
        assert detector.decided is early


def test_nothing_at_all() -> None:
    assert conclude(b"") is None
    detector = Detector(())
    detector.feed(b"x" * (HEADER_PIECE - 1))
    assert not detector.decided
    assert str(detector.conclude()) == "raw"
