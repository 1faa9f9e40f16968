"""OVA packages: what a good one gives, and that a hostile one gives nothing (with little work)."""

from __future__ import annotations

import io
import tarfile
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from glimpse.errors import UnsupportedMediaType
from glimpse.imports.ova import Package, extract, look_into

DISK = bytes(range(256)) * 300
CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ProcessorAllocationSettingData"
OVF = f"""<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:cim="{CIM}" xmlns:other="http://example.org/other">
  <References><File ovf:id="other" ovf:href="notes.txt"/><File ovf:id="f1" ovf:href="disk.vmdk"/></References>
  <DiskSection><Info>Disks</Info><Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="20"/></DiskSection>
  <VirtualSystem ovf:id="vm"><VirtualHardwareSection><Item>
    <cim:ProcessorArchitecture> x86 </cim:ProcessorArchitecture><cim:InstructionSet/>
    <cim:Secret>no</cim:Secret><other:InstructionSetExtensionName>no</other:InstructionSetExtensionName>
  </Item></VirtualHardwareSection></VirtualSystem>
</Envelope>"""
WANTED = ("ProcessorArchitecture", "InstructionSet", "InstructionSetExtensionName")


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def package(folder: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.USTAR_FORMAT) -> Path:
    path = folder / "package.ova"
    with tarfile.open(path, "w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def good(ovf: str = OVF, disk: str = "disk.vmdk") -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member("machine.ovf", ovf.encode()), member("machine.mf", b"SHA1(x)= 0"), member(disk, DISK)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_a_package(tmp_path: Path, format: int) -> None:
    path = package(tmp_path, good(), format)
    found = look_into(path, WANTED)
    assert found.size == len(DISK)
    assert found.properties == {"cim_pasd_ProcessorArchitecture": "x86", "cim_pasd_InstructionSet": ""}
    target = tmp_path / "disk"
    await extract(path, found, target)
    assert target.read_bytes() == DISK
    assert sorted(each.name for each in tmp_path.iterdir()) == ["disk", "package.ova"]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path: Path, format: int) -> None:
    name = "d" * 200 + "ü.vmdk"
    members = good(OVF.replace('"disk.vmdk"', f'"{name}"'), name)
    for info, _ in members:
        info.mtime = 1.5  # an extended header of its own, in POSIX's form
    path = package(tmp_path, members, format)
    found = look_into(path, ())
    assert path.read_bytes()[found.offset :][: found.size] == DISK
    assert found.properties == {}


def test_folders_and_dots(tmp_path: Path) -> None:
    members = [member("./", type=tarfile.DIRTYPE), *good(disk="./disk.vmdk")]
    assert look_into(package(tmp_path, members), ()).size == len(DISK)


def test_what_follows_the_end_does_not_matter(tmp_path: Path) -> None:
    path = package(tmp_path, good())
    with path.open("ab") as file:
        file.write(b"x" * 5000)
    assert look_into(path, ()).size == len(DISK)


async def test_a_disk_that_was_cut_off_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "package.ova"
    path.write_bytes(b"x" * 100)
    with pytest.raises(UnsupportedMediaType, match="cut off"):
        await extract(path, Package(50, 100, {}), tmp_path / "disk")
    assert [each.name for each in tmp_path.iterdir()] == ["package.ova"]


def without(name: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [each for each in good() if each[0].name != name]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
AT = '<?xml version="1.0" encoding="UTF-8"?>'


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], "no OVF"),
        (without("machine.ovf"), "no OVF"),
        (without("disk.vmdk"), "not in it"),
        (good() + good()[:1], "the same name"),
        ([*good(), member("./disk.vmdk", b"other")], "the same name"),
        (good("<x"), "cannot be read"),
        (good("<x/>"), "0 disks"),
        (good(AT + BOMB + "<x>&b;</x>"), "cannot be read"),
        (good(AT + OUTSIDE + "<x>&a;</x>"), "cannot be read"),
        (good(OVF.replace("UTF-8", "no-such-code")), "cannot be read"),
        (good(OVF.replace("<Disk ovf", '<Disk ovf:fileRef="x"/><Disk ovf')), "2 disks"),
        (good(OVF.replace('fileRef="f1"', 'fileRef="f2"')), "does not say"),
        (good(OVF.replace('ovf:fileRef="f1"', "")), "does not say"),
        (good(OVF.replace('"disk.vmdk"', '"../../etc/passwd"')), "not in it"),
        (good(OVF.replace('"disk.vmdk"', '"http://example.org/disk.vmdk"')), "not in it"),
        (good(OVF.replace('"disk.vmdk"', '"disk.vmdk" ovf:compression="gzip"')), "compressed"),
        ([member("machine.ovf", b" " * (5 << 20)), *without("machine.ovf")], "larger than"),
        ([*without("disk.vmdk"), member("disk.vmdk", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "something else"),
        ([*without("disk.vmdk"), member("disk.vmdk", type=tarfile.LNKTYPE, linkname="machine.ovf")], "something else"),
        ([*without("disk.vmdk"), member("disk.vmdk", type=tarfile.CHRTYPE)], "something else"),
        ([*without("disk.vmdk"), member("disk.vmdk", type=tarfile.FIFOTYPE)], "something else"),
        ([*without("disk.vmdk"), member("disk.vmdk", type=tarfile.GNUTYPE_SPARSE)], "something else"),
        ([member(f"{number}") for number in range(2001)], "more than 1000"),
    ],
)
def test_what_is_no_package(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], why: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=why):
        look_into(package(tmp_path, members), WANTED)


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "package.ova"
    for content in (b"x" * 5000, b"\x1f\x8b" + b"x" * 5000, b"x"):
        path.write_bytes(content)
        with pytest.raises(UnsupportedMediaType, match="no tar archive"):
            look_into(path, WANTED)
    whole = package(tmp_path, good()).read_bytes()
    path.write_bytes(whole[: len(whole) - 20_000])
    with pytest.raises(UnsupportedMediaType, match="cut off"):
        look_into(path, WANTED)


@pytest.mark.parametrize(
    "record",
    [
        b"22 GNU.sparse.major=1\n",
        b"0 a=b\n",
        b"99999 a=b\n",
        b"x",
        b"1 ",
        b"9 a=b\n",
        b"12 size=99\n",
        b"18 size=-12345678\n",
    ],
)
def test_hostile_headers(tmp_path: Path, record: bytes) -> None:
    info, _ = member("pax", record, type=tarfile.XHDTYPE)
    with pytest.raises(UnsupportedMediaType):
        look_into(package(tmp_path, [(info, record), *good()]), WANTED)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_bomb_of_a_header_costs_nothing(tmp_path: Path, kind: bytes) -> None:
    """Nor does a file that is said to be huge."""
    path = tmp_path / "package.ova"
    huge = 200 << 20
    for info in (member("x", type=kind, size=huge)[0], member("x.ovf", size=huge)[0]):
        with path.open("wb") as file:
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.truncate(huge + 2048)
        tracemalloc.start()
        began = time.monotonic()
        with pytest.raises(UnsupportedMediaType):
            look_into(path, WANTED)
        assert time.monotonic() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_headers_without_end(tmp_path: Path) -> None:
    """A header that announces a header that announces …"""
    path = tmp_path / "package.ova"
    info, _ = member("x", type=tarfile.XHDTYPE)
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 5000)
    with pytest.raises(UnsupportedMediaType, match="more than"):
        look_into(path, WANTED)
