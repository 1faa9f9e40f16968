"""The Azure store on Azurite."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from glimpse.stores.azure import OPTIONS, AzureBlobStore
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks
from tests.rig.azurite import ACCOUNT, KEY, Azurite
from tests.stores.in_parts import InParts, all_logged

__all__ = ["all_logged"]

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


def options_for(azurite: Azurite, container: str) -> dict[str, Any]:
    return {
        **DEFAULTS,
        "azure_store_account": ACCOUNT,
        "azure_store_key": KEY,
        "azure_store_container": container,
        "azure_store_endpoint": azurite.url,
        "azure_store_large_object_chunk_size": 1,
        "azure_store_thread_pools": 3,
    }


@pytest.fixture
def container(azurite: Azurite) -> str:
    name = f"images-{uuid.uuid4().hex[:12]}"
    azurite.make_container(name)
    return name


class TestAzureStore(ReadableStore, WritableStore, InParts):
    @pytest.fixture
    async def harness(self, azurite: Azurite, container: str) -> AsyncIterator[Harness]:
        store = AzureBlobStore(options_for(azurite, container), "[test]")

        async def place(content: bytes) -> str:
            return (await store.put(str(uuid.uuid4()), blocks(content), len(content))).url

        missing = f"azure://{ACCOUNT}/{container}/missing"
        yield Harness(store, place, missing, lambda: azurite.blobs(container))
        await store.close()
