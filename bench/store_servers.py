"""The servers of stores, and beside each the store's own tool, as an operator calls it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.servers import started
from tests.rig.ceph import POOL, Ceph
from tests.rig.install import environment
from tests.rig.keystone import PASSWORD, Keystone
from tests.rig.process import plain_environment
from tests.rig.swift import KEY, USER, KeystoneSwift, Swift, SwiftStorage

PLACE = "bench"  # container and bucket
CEPH_ROOM = 6 << 30  # bytes of memory that its OSD takes at most

_S3 = """
import sys, boto3
what, *names = sys.argv[1:]
client = boto3.client("s3")
if what == "make":
    client.create_bucket(Bucket=names[0])
elif what == "put":
    client.upload_file(*names)
elif what == "get":
    # its transfers never end when they go to a pipe, and through a file they take longer
    for block in client.get_object(Bucket=names[0], Key=names[1])["Body"].iter_chunks(1 << 20):
        sys.stdout.buffer.write(block)
else:
    client.delete_object(Bucket=names[0], Key=names[1])
"""


@dataclass(frozen=True)
class StoreServer:
    """A store that runs: what a service's section needs, and the commands of its own tool.

    In them $1 is a local file and $2 the name in the store; a download goes to standard output.
    """

    kind: str
    title: str
    options: Mapping[str, object]
    tools: tuple[str, str]  # for upload and download
    upload: str
    download: str
    remove: str
    env: Mapping[str, str]

    def shell(self, script: str, folder: Path, *arguments: object) -> None:
        """Run a script in which these commands are. Raises `subprocess.CalledProcessError`."""
        command = ["bash", "-e", "-o", "pipefail", "-c", script, "bash", *map(str, arguments)]
        subprocess.run(command, cwd=folder, check=True, env=plain_environment(**self.env), stdout=subprocess.DEVNULL)


@contextmanager
def swift(folder: Path) -> Iterator[StoreServer]:
    """Swift with a Keystone, and the swift command of python-swiftclient."""
    folder.mkdir()
    keystone, storage = Keystone(folder / "keystone"), SwiftStorage(folder / "storage")
    proxy = KeystoneSwift(folder / "proxy", storage, keystone)
    with started(keystone, storage, proxy):
        references = folder / "references"
        references.write_text(
            f"[here]\nuser = demo:demo\nkey = {PASSWORD}\nauth_address = {keystone.url}/v3\nauth_version = 3\n"
        )
        program = f'"{environment("glance")}/bin/swift"'
        yield StoreServer(
            "swift", "Swift",
            {
                "swift_store_config_file": references,
                "default_swift_reference": "here",
                "swift_store_container": PLACE,
                "swift_store_create_container_on_put": "true",
            },
            ("swift upload", "swift download"),
            f'{program} upload --object-name "$2" {PLACE} "$1"',
            f'{program} download --output - {PLACE} "$2"',
            f'{program} delete {PLACE} "$2"',
            keystone.openrc("demo", "demo"),
        )  # fmt: skip


@contextmanager
def s3(folder: Path) -> Iterator[StoreServer]:
    """Swift's S3 interface, and boto3, whose transfers are those of the command aws s3 cp."""
    folder.mkdir()
    storage = SwiftStorage(folder / "storage")
    proxy = Swift(folder / "proxy", storage)
    with started(storage, proxy):
        script = folder / "s3.py"
        script.write_text(_S3)
        program = f'"{environment("glance")}/bin/python" "{script}"'
        server = StoreServer(
            "s3", "S3 (Swift's s3api)",
            {
                "s3_store_host": proxy.url,
                "s3_store_access_key": USER,
                "s3_store_secret_key": KEY,
                "s3_store_bucket": PLACE,
                "s3_store_bucket_url_format": "path",
            },
            ("upload_file of boto3", "get_object of boto3"),
            f'{program} put "$1" {PLACE} "$2"',
            f'{program} get {PLACE} "$2"',
            f'{program} remove {PLACE} "$2"',
            {
                "AWS_ENDPOINT_URL": proxy.url,
                "AWS_ACCESS_KEY_ID": USER,
                "AWS_SECRET_ACCESS_KEY": KEY,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            },
        )  # fmt: skip
        server.shell(f"{program} make {PLACE}", folder)
        yield server


@contextmanager
def rbd(folder: Path) -> Iterator[StoreServer]:
    """Ceph, and its rbd command."""
    ceph = Ceph(folder, CEPH_ROOM)
    with started(ceph):
        yield StoreServer(
            "rbd", "Ceph",
            {"rbd_store_ceph_conf": ceph.conf, "rbd_store_pool": POOL, "rbd_store_user": "admin"},
            ("rbd import", "rbd export"),
            f'rbd import --no-progress --object-size 8M "$1" {POOL}/"$2"',
            f'rbd export --no-progress {POOL}/"$2" -',
            f'rbd rm --no-progress {POOL}/"$2"',
            {"CEPH_CONF": str(ceph.conf)},
        )  # fmt: skip


KINDS: Mapping[str, Callable[[Path], AbstractContextManager[StoreServer]]] = {"swift": swift, "s3": s3, "rbd": rbd}
