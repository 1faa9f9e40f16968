"""Advisories about what stores keep their bytes in."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from glimpse.errors import Unavailable
from glimpse.stores.conformance import BrokenOff, blocks, read
from glimpse.stores.driver import BLOCK
from tests.stores.cinder_api import CinderApi, credentials
from tests.stores.test_cinder import settings_for, store_of


def test_ossa_2023_003_cve_2023_2088_a_volume_leaves_no_device_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_devices: None
) -> None:
    """OSSA-2023-003: whichever way an access ends, the device goes from the host, by force, before the attachment is
    deleted: else the next volume that gets the same address could be read through what is left of this one.
    """
    from os_brick.initiator.connectors.local import LocalConnector

    connect = LocalConnector.connect_volume
    happened: list[str] = []

    def connected(self: Any, *args: Any) -> Any:
        happened.append("connect")
        return connect(self, *args)

    def disconnected(self: Any, _info: Any, _device: Any, force: bool = False, ignore_errors: bool = False) -> None:
        happened.append("disconnect by force" if force else "disconnect")

    monkeypatch.setattr(LocalConnector, "connect_volume", connected)
    monkeypatch.setattr(LocalConnector, "disconnect_volume", disconnected)

    def gone() -> bool:
        went, happened[:] = list(happened), []
        return went == ["connect", "disconnect by force", "detach"]

    async def broken_off() -> AsyncIterator[bytes]:
        yield bytes(BLOCK)
        async with asyncio.timeout(30):
            while not happened:  # else nothing is attached yet
                await asyncio.sleep(0.01)
        raise BrokenOff

    async def every_way() -> None:
        cloud = CinderApi(tmp_path, on_detach=lambda: happened.append("detach"))
        async with TestServer(cloud.app()) as server:
            cloud.url = str(server.make_url("")).rstrip("/")
            store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
            content = bytes(3 * BLOCK)
            stored = await store.put(str(uuid.uuid4()), blocks(content), len(content))
            assert gone(), "a complete upload"
            await read(store, stored.url)
            assert gone(), "a complete download"
            reader = await store.open(stored.url)
            await anext(aiter(reader.stream(0, None)))
            await reader.close()
            assert gone(), "a download that the client gives up"
            cloud.path(stored.url.rpartition("/")[2]).write_bytes(b"")
            with pytest.raises(Unavailable):
                await read(store, stored.url)
            assert gone(), "a download that the device fails"
            with pytest.raises(BrokenOff):
                await store.put(str(uuid.uuid4()), broken_off(), len(content))
            assert gone(), "an upload that the client breaks off"
            cloud.refuse = {("POST", "attachments/action"): 500}
            with pytest.raises(Unavailable):
                await store.put(str(uuid.uuid4()), blocks(content), len(content))
            assert gone(), "an attachment that is not completed"
            assert not cloud.attachments
            await store.close()

    asyncio.run(every_way())
