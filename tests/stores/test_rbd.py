"""The RBD store on a real Ceph: the conformance suite, and what only Ceph has."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from glimpse.stores.conformance import Harness, ReadableStore, WritableStore
from glimpse.stores.rbd import OPTIONS, RbdStore
from tests.rig.ceph import POOL, Ceph

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}
MISSING = f"rbd://{uuid.uuid4()}/{POOL}/{uuid.uuid4()}/snap"


def make(ceph: Ceph, **options: Any) -> RbdStore:
    return RbdStore({**DEFAULTS, "rbd_store_ceph_conf": str(ceph.conf), **options}, "[test]")


def everything(ceph: Ceph, pool: str = POOL) -> int:
    """The number of objects in a pool."""
    return len(ceph.run("rados", "-p", pool, "ls").split())


async def harness_of(store: RbdStore, ceph: Ceph, folder: Path) -> Harness:
    async def place(content: bytes) -> str:
        name = f"placed-{uuid.uuid4()}"
        (folder / name).write_bytes(content)
        if content:
            ceph.rbd("import", str(folder / name), f"{POOL}/{name}")
        else:
            ceph.rbd("create", "--size", "0", f"{POOL}/{name}")
        ceph.rbd("snap", "create", f"{POOL}/{name}@snap")
        return f"rbd://{ceph.fsid}/{POOL}/{name}/snap"

    def leftovers() -> int:
        images = json.loads(ceph.rbd("ls", POOL, "--format", "json"))
        return len([name for name in images if not name.startswith("placed-")])

    return Harness(store, place, MISSING, leftovers)


class TestRbdStore(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, ceph: Ceph, tmp_path: Path) -> AsyncIterator[Harness]:
        store = make(ceph)
        yield await harness_of(store, ceph, tmp_path)
        await store.close()


class TestThinRbdStoreOfSmallChunks(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, ceph: Ceph, tmp_path: Path) -> AsyncIterator[Harness]:
        store = make(ceph, rbd_store_chunk_size=1, rbd_thin_provisioning=True, rados_connect_timeout=20)
        yield await harness_of(store, ceph, tmp_path)
        await store.close()


@pytest.fixture
async def store(ceph: Ceph) -> AsyncIterator[RbdStore]:
    store = make(ceph, rbd_store_chunk_size=1, rados_connect_timeout=3)
    yield store
    await store.close()
