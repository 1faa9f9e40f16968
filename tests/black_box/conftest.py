"""What the black-box tests share: a controller node, and a disk image as a user would have one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.black_box import stores
from tests.black_box.client_shell import ClientShell
from tests.black_box.cloud import Cloud, WebServer, is_glance
from tests.black_box.controller import Controller
from tests.black_box.stores import StoresUnderTest
from tests.conftest import ServiceFactory
from tests.rig.ceph import Ceph
from tests.rig.clients import Clients
from tests.rig.databases import MariaDB
from tests.rig.install import program
from tests.rig.keystone import REGION, Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glance, Glimpse, ImageService
from tests.rig.swift import KeystoneSwift, Swift

SAMPLES = Path(__file__).parents[2] / "etc"
MIB = 2**20
KEYSTONE_LOGIN = (
    "auth_url", "auth_type", "username", "password", "user_domain_name", "project_name", "project_domain_name",
)  # fmt: skip
DISK_SIZE = 44 * MIB
LIMITS = {  # in Keystone; sizes in MiB
    "image_size_total": 1000,
    "image_stage_total": 1000,
    "image_count_total": 100,
    "image_count_uploading": 100,
}


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


@pytest.fixture(scope="module")
def standing_cloud(
    mariadb: MariaDB, memcached: Memcached, keystone: Keystone, clients: Clients, rig_folder: Path
) -> Iterator[Cloud]:
    """A cloud in which every option that clients see is on, for all tests of a module.

    With `GLIMPSE_TEST_SERVICE=glance` its Image service is the real Glance.
    """
    folder = Path(tempfile.mkdtemp(dir=rig_folder))
    folder.chmod(0o755)
    for name in ("home", "web"):
        (folder / name).mkdir()
    web = WebServer(folder / "web")
    shell = ClientShell(clients, folder / "home")
    kind: type[ImageService] = Glance if is_glance() else Glimpse
    factory = ServiceFactory(kind, folder)
    try:
        service = factory(cloud_config(mariadb, memcached, keystone, folder), start=False)
        shutil.copy(SAMPLES / "schema-image.json", service.config_dir)  # the properties that clients have options for
        service.manage("db_sync")
        keystone.register_image_service(service.url)
        keystone.limit_image_service(LIMITS)
        service.start()
        yield Cloud(keystone, service, shell, web)
    finally:
        factory.stop_all()
        shell.close()
        web.close()
        keystone.forget_image_service()


@pytest.fixture
def cloud(standing_cloud: Cloud) -> Iterator[Cloud]:
    """The same cloud, emptied after each test."""
    yield standing_cloud
    standing_cloud.clear()


def cloud_config(
    mariadb: MariaDB, memcached: Memcached, keystone: Keystone, folder: Path
) -> dict[str, dict[str, object]]:
    """Two stores to write to and one on the web, locations shown."""
    return {
        "DEFAULT": {
            "enabled_backends": "fs:file,fast:file,web:http",
            "enabled_import_methods": "[glance-direct,web-download,copy-image,glance-download]",
            "show_image_direct_url": True,
            "show_multiple_locations": True,
            "use_keystone_limits": True,
            "image_cache_dir": folder / "cache",
            "worker_self_reference_url": "http://node.example.org:9292",
        },
        "oslo_limit": {
            **{name: keystone.authtoken()[name] for name in KEYSTONE_LOGIN},
            "endpoint_service_type": "image",
            "endpoint_region_name": REGION,
            "endpoint_interface": "public",
        },
        "database": {"connection": mariadb.fresh_url()},
        "glance_store": {"default_backend": "fs"},
        "fs": {"filesystem_store_datadir": folder / "images"},
        "fast": {"filesystem_store_datadir": folder / "fast", "store_description": "the quick one"},
        "os_glance_tasks_store": {"filesystem_store_datadir": folder / "tasks"},
        "import_filtering_opts": {"allowed_ports": "[]", "allowed_hosts": "[127.0.0.1]"},
        "paste_deploy": {"flavor": "keystone+caching"},
        "oslo_concurrency": {"lock_path": folder / "locks"},
        "keystone_authtoken": dict(keystone.authtoken(memcached.address)),
    }


@pytest.fixture(scope="module")
def all_stores(
    rig_folder: Path, keystone: Keystone, swift: Swift, keystone_swift: KeystoneSwift, ceph: Ceph
) -> Iterator[StoresUnderTest]:
    """Every kind of store that Glance has."""
    folder = Path(tempfile.mkdtemp(dir=rig_folder))
    folder.chmod(0o755)
    yield StoresUnderTest.of(
        stores.file_store("files", folder / "files"),
        stores.swift_with_reference(keystone, keystone_swift, folder / "swift.conf"),
        stores.swift_with_options(keystone, keystone_swift),
        stores.swift_of_users(keystone, keystone_swift, ("demo", "alt", "admin")),
        stores.s3_store(swift),
        stores.rbd_store(ceph),
    )
    shutil.rmtree(folder)
