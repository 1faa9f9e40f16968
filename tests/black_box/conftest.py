"""What the black-box tests share: a controller node, and a disk image as a user would have one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.black_box.controller import Controller
from tests.conftest import ServiceFactory
from tests.rig.clients import Clients
from tests.rig.databases import MariaDB
from tests.rig.install import program
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glimpse

MIB = 2**20
DISK_SIZE = 44 * MIB


@pytest.fixture(scope="session")
def disk_image(rig_folder: Path) -> Path:
    """A qcow2 of a disk that looks bootable: boot code, one active Linux partition, some data in it."""
    random = Random(1)  # the same bytes in each run
    boot = bytearray(512)
    boot[:4] = b"\xeb\x3c\x90\x00"
    boot[446:462] = (
        bytes([0x80, 1, 1, 0, 0x83, 0xFE, 0xFF, 0xFF]) + (2048).to_bytes(4, "little") + (88064).to_bytes(4, "little")
    )
    boot[510:] = b"\x55\xaa"
    raw, image = rig_folder / "disk.raw", rig_folder / "disk.qcow2"
    with raw.open("wb") as disk:
        disk.truncate(DISK_SIZE)
        disk.write(boot)
        disk.seek(MIB)
        disk.write(random.randbytes(12 * MIB))
    subprocess.run([program("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    raw.unlink()
    return image


@pytest.fixture
def controller(
    mariadb: MariaDB,
    memcached: Memcached,
    keystone: Keystone,
    clients: Clients,
    glimpse_service: ServiceFactory[Glimpse],
    disk_image: Path,
) -> Iterator[Controller]:
    """A controller node with everything but a set-up Image service."""
    service = glimpse_service("", start=False)
    node = Controller(mariadb, memcached, keystone, clients, service)
    yield node
    node.restore()
