"""The Google Cloud Storage store on moto.

Nobody offers that service for a machine without Google, nor an emulator of its XML interface with uploads in parts.
moto imitates S3, which is close to it: paths, uploads in parts, ranges and errors are held here. Not held are tokens,
signed links, and the header that keeps an object from being overwritten (x-goog-if-generation-match).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from glimpse.errors import NotFound, SettingsError, Unavailable, Unconfigured
from glimpse.stores import clouds, objects
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK
from glimpse.stores.gcs import OPTIONS, GcsStore
from tests.rig.gate import Gate
from tests.rig.moto import Moto
from tests.stores.in_parts import LARGE, InParts, all_logged, watch_for
from tests.stores.s3_server import Server, imitation

__all__ = ["all_logged", "imitation"]

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


def options_for(moto: Moto, bucket: str) -> dict[str, Any]:
    return {
        **DEFAULTS,
        "gcs_store_bucket": bucket,
        "gcs_store_endpoint": moto.url,
        "gcs_store_large_object_chunk_size": 5,
        "gcs_store_thread_pools": 2,
    }


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """What Google would have given out for a key file."""
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "google-token")
    return "google-token"


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


async def test_locations_elsewhere_are_not_found(moto: Moto) -> None:
    store = GcsStore(options_for(moto, "images"), "[test]")
    assert store.owns("gs://images/key")
    for url in ("gs://other/key", "gs://images/", "gs://images/a/b", "gs://images", "s3://h/images/key"):
        assert not store.owns(url)
        with pytest.raises(NotFound):
            await store.open(url)


def test_options_that_cannot_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unconfigured, match=r"\[test\] gcs_store_bucket"):
        GcsStore(DEFAULTS, "[test]")
    (tmp_path / "no.json").write_text("secret, and no JSON")
    for path in (tmp_path / "no.json", tmp_path / "missing"):
        with pytest.raises(SettingsError, match=r"\[test\] gcs_store_service_account_file") as caught:
            GcsStore({**DEFAULTS, "gcs_store_bucket": "b", "gcs_store_service_account_file": str(path)}, "[test]")
        assert "secret" not in str(caught.value)


async def test_a_missing_bucket(moto: Moto, token: str) -> None:
    store = GcsStore(options_for(moto, "nowhere"), "[test]")
    for call in (store.check, lambda: store.put("key", blocks(b"x"), 1), lambda: store.put("key", blocks(LARGE), None)):
        with pytest.raises(Unavailable, match="bucket does not exist"):
            await call()
    await store.discard("key")
    await store.close()


async def test_a_server_that_goes_away_and_comes_back(
    moto: Moto, imitation: Server, token: str, monkeypatch: pytest.MonkeyPatch, all_logged: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(clouds, "PATIENCE", 1)
    monkeypatch.setattr(objects, "PAUSES", (0.1, 0.3))
    async with Gate(moto.port) as gate:
        url = f"http://127.0.0.1:{gate.port}"
        store = GcsStore({**options_for(moto, imitation.bucket), "gcs_store_endpoint": url}, "[test]")

        async def until_it_is_gone() -> AsyncIterator[bytes]:
            async for block in blocks(LARGE):
                yield block
            gate.shut()

        with pytest.raises(Unavailable):
            await store.put("key", until_it_is_gone(), len(LARGE))
        assert imitation.keys() == []
        await gate.open()
        stored = await store.put("key", blocks(LARGE), len(LARGE))
        reader = await store.open(stored.url)
        gate.shut_at = gate.passed + 5 * BLOCK
        reopening = asyncio.create_task(gate.open_again())
        assert b"".join([block async for block in reader.stream(17, None)]) == LARGE[17:]
        await reopening
        assert await read(store, stored.url) == LARGE
        await store.close()
    watch_for(all_logged, token)


async def test_links_need_a_key_file(moto: Moto, token: str, tmp_path: Path) -> None:
    without = GcsStore(options_for(moto, "images"), "[test]")
    assert await without.link("gs://images/key", 60) is None
    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"client_email": "images@example.org", "private_key_id": "1", "private_key": private.decode()}
    path = tmp_path / "account.json"
    path.write_text(json.dumps({**account, "type": "service_account"}))
    store = GcsStore({**options_for(moto, "images"), "gcs_store_service_account_file": str(path)}, "[test]")
    link = await store.link("gs://images/key", 60)
    assert link is not None
    assert "/images/key?" in link
    assert "X-Goog-Signature=" in link
