"""Image contents: headers that a format inspector recognises, followed by filler. Sizes in bytes.

Layouts: qcow2 (QEMU's docs/interop/qcow2.txt), VMDK (VMware Virtual Disk Format 5.0), VHD and VHDX (Microsoft's
specifications), VDI (VirtualBox's VDICore.h), ISO 9660 (ECMA-119), MBR (UEFI 2.10, 5.2), LUKS1 (on-disk format 1.2).
"""

from __future__ import annotations

import hashlib
import struct
import uuid

MIB = 1 << 20
VIRTUAL = 10 * MIB


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes without a pattern, the same for the same seed."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(size)


def qcow2(version: int = 3, backing: int = 0, features: int = 0, size: int = VIRTUAL) -> bytes:
    """`backing` is the offset of the backing file's name, `features` the incompatible feature bits (version 3)."""
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, 16, size)
    if version >= 3:
        head = head.ljust(72, b"\0") + struct.pack(">QQQII", features, 0, 0, 4, 104)
    if backing:
        head = head.ljust(backing, b"\0") + b"/etc/passwd"
    return head.ljust(1 << 16, b"\0")


def vdi() -> bytes:
    """A VirtualBox image."""
    return (bytes(64) + struct.pack("<I", 0xBEDA107F)).ljust(0x170, b"\0") + struct.pack("<Q", VIRTUAL) + bytes(4096)


def vhd() -> bytes:
    """A dynamic VHD: the footer's copy is in front."""
    return (b"conectix".ljust(40, b"\0") + struct.pack(">Q", VIRTUAL)).ljust(512, b"\0") + bytes(4096)


def vhdx() -> bytes:
    """Header, region table with one entry, metadata table with the virtual disk size."""
    region = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
    disk_size = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
    metadata_at, item_at = 0x100000, 0x10000
    table = b"regi" + struct.pack("<III", 0, 1, 0) + region + struct.pack("<QII", metadata_at, 1 << 20, 1)
    metadata = struct.pack("<8sHH", b"metadata", 0, 1).ljust(32, b"\0")
    metadata += disk_size + struct.pack("<III", item_at, 8, 0)
    image = b"vhdxfile".ljust(0x30000, b"\0") + table
    image = image.ljust(metadata_at, b"\0") + metadata
    return image.ljust(metadata_at + item_at, b"\0") + struct.pack("<Q", VIRTUAL) + bytes(65536)


def descriptor(kind: str, extent: str = "disk.vmdk") -> bytes:
    """The text part of a VMDK."""
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        "CID=12345678",
        f'createType="{kind}"',
        f'RW {VIRTUAL // 512} SPARSE "{extent}"',
        'ddb.adapterType = "ide"',
    ]
    return ("\n".join(lines) + "\n").encode()


def vmdk(kind: str = "monolithicSparse", extent: str = "disk.vmdk", version: int = 1) -> bytes:
    """A sparse extent with the descriptor at sector 1."""
    head = struct.pack("<4sIIQQQQIQQ", b"KDMV", version, 3, VIRTUAL // 512, 128, 1, 20, 512, 0, 21)
    return head.ljust(512, b"\0") + descriptor(kind, extent).ljust(20 * 512, b"\0") + bytes(1 << 16)


def stream_optimized(footer_version: int = 1) -> bytes:
    """A VMDK whose directory is at its end; the footer repeats the header, or not."""
    layout = "<4sIIQQQQIQQ"
    head = struct.pack(layout, b"KDMV", 1, 0x30001, VIRTUAL // 512, 128, 1, 20, 512, 0, 0xFFFFFFFFFFFFFFFF)
    tail = struct.pack(layout, b"KDMV", footer_version, 0x30001, VIRTUAL // 512, 128, 1, 20, 512, 0, 21)
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    body = head.ljust(512, b"\0") + descriptor("streamOptimized").ljust(20 * 512, b"\0") + bytes(1 << 16)
    return body + marker + tail.ljust(512, b"\0") + bytes(512)


def flat_descriptor() -> bytes:
    """A VMDK that is text only and names another file for the data."""
    return descriptor("monolithicFlat", "/etc/passwd").ljust(2048, b"#")


def iso(boot_sector: bytes = b"") -> bytes:
    """A primary volume descriptor of 5 blocks of 2048; `boot_sector` makes it a hybrid."""
    volume = bytearray(2048)
    volume[0:7] = b"\x01CD001\x01"
    volume[80:88] = struct.pack("<I", 5) + struct.pack(">I", 5)
    volume[128:132] = struct.pack("<H", 2048) + struct.pack(">H", 2048)
    return boot_sector.ljust(0x8000, b"\0") + bytes(volume) + bytes(4096)


def mbr(*partitions: bytes) -> bytes:
    """A partitioned disk: boot sector and filler."""
    return bytes(446) + b"".join(partitions).ljust(64, b"\0") + b"\x55\xaa" + bytes(64 * 512)


def partition(kind: int, boot: int = 0, start: tuple[int, int, int] = (0, 2, 0), lba: int = 1) -> bytes:
    """An entry of the partition table."""
    return struct.pack("<B3BB3BII", boot, *start, kind, 0xFF, 0xFF, 0xFF, lba, 63)


def gpt() -> bytes:
    """A disk with a protective MBR."""
    return mbr(partition(0xEE))


def luks(version: int = 1) -> bytes:
    """An encrypted volume whose payload begins at sector 8."""
    head = b"LUKS\xba\xbe" + struct.pack(">H", version) + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0")
    head += b"sha256".ljust(32, b"\0") + struct.pack(">II", 8, 64)
    return head.ljust(4096, b"\0") + noise(8192)


def qed() -> bytes:
    """A format that nobody may use."""
    return b"QED\0" + bytes(4096)
