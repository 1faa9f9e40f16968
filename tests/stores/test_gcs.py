"""The Google Cloud Storage store on moto.

Nobody offers that service for a machine without Google, nor an emulator of its XML interface with uploads in parts.
moto imitates S3, which is close to it: paths, uploads in parts, ranges and errors are held here. Not held are tokens,
signed links, and the header that keeps an object from being overwritten (x-goog-if-generation-match).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from glimpse.stores.conformance import Harness, ReadableStore, WritableStore
from glimpse.stores.gcs import OPTIONS, GcsStore
from tests.rig.moto import Moto
from tests.stores.in_parts import InParts
from tests.stores.test_s3 import Server, imitation

__all__ = ["imitation"]

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


def options_for(moto: Moto, bucket: str) -> dict[str, Any]:
    return {
        **DEFAULTS,
        "gcs_store_bucket": bucket,
        "gcs_store_endpoint": moto.url,
        "gcs_store_large_object_chunk_size": 5,
        "gcs_store_thread_pools": 2,
    }


class TestGcsStore(ReadableStore, WritableStore, InParts):
    @pytest.fixture
    async def harness(self, moto: Moto, imitation: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harness]:
        monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "google-token")
        store = GcsStore(options_for(moto, imitation.bucket), "[test]")
        seen = imitation.harness(imitation.store())

        async def place(content: bytes) -> str:
            return f"gs://{imitation.bucket}/{(await seen.place(content)).rpartition('/')[2]}"

        yield Harness(store, place, f"gs://{imitation.bucket}/missing", seen.leftovers)
        await store.close()
