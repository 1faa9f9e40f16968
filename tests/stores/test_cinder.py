"""The Cinder store: the conformance suite, and what is Cinder's only. See `cinder_api` for what is real here."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from glimpse.domain.context import Context
from glimpse.domain.record import Location
from glimpse.errors import Conflict, NotFound, StoreFull, Unavailable, Unconfigured
from glimpse.settings import Settings
from glimpse.stores.cinder import CinderStore
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK
from glimpse.stores.registry import open_stores
from tests.stores.cinder_api import CinderApi, credentials
from tests.stores.configured import settings_of

pytestmark = pytest.mark.usefixtures("block_devices")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[CinderApi]:
    folder = tmp_path / "volumes"
    folder.mkdir()
    cloud = CinderApi(folder)
    async with TestServer(cloud.app()) as server:
        cloud.url = str(server.make_url("")).rstrip("/")
        yield cloud


def settings_for(folder: Path, **sections: Any) -> Settings:
    stores = [name for name in sections if name != "keystone_authtoken"]
    locks = {"lock_path": folder / "locks"}
    return settings_of(folder, dict.fromkeys(stores, "cinder"), oslo_concurrency=locks, **sections)


def store_of(settings: Settings, store_id: str = "one") -> CinderStore:
    found = open_stores(settings).get(store_id)
    assert found is not None
    assert isinstance(found.store, CinderStore)
    return found.store


class TestCinderStore(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, tmp_path: Path, cloud: CinderApi) -> AsyncIterator[Harness]:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))

        async def place(content: bytes) -> str:
            return f"cinder://one/{cloud.add_volume(content)}"

        yield Harness(store, place, f"cinder://one/{uuid.uuid4()}", lambda: len(cloud.volumes) + len(cloud.attachments))
        await store.close()


class TestVolumes:
    async def test_what_a_volume_of_an_image_is(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one={**credentials(cloud.url), "cinder_volume_type": "fast"}))
        image_id = str(uuid.uuid4())
        stored = await store.on_behalf_of(None, "owner").put(image_id, blocks(b"bytes"), None)
        (volume_id,) = cloud.volumes
        volume = cloud.volumes[volume_id]
        assert stored.url == f"cinder://one/{volume_id}"
        assert (volume["name"], volume["size"], volume["volume_type"]) == (f"image-{image_id}", 1, "fast")
        assert volume["metadata"] == {
            "glance_image_id": image_id, "image_size": "5", "image_owner": "owner", "glance_store": "one",
        }  # fmt: skip
        assert volume["readonly"] is True
        assert not cloud.attachments
        assert store.details == {"volume_type": "fast", "use_multipath": False}
        await store.close()

    async def test_a_single_store_names_no_store_in_its_urls(self, tmp_path: Path, cloud: CinderApi) -> None:
        section = {"stores": "cinder", "default_store": "cinder", **credentials(cloud.url)}
        locks = {"lock_path": tmp_path / "locks"}
        store = store_of(settings_of(tmp_path, {}, glance_store=section, oslo_concurrency=locks), "cinder")
        stored = await store.put(str(uuid.uuid4()), blocks(b"bytes"), 5)
        assert stored.url == f"cinder://{next(iter(cloud.volumes))}"
        assert store.owns(stored.url)
        assert await read(store, stored.url) == b"bytes"
        await store.close()

    async def test_urls_of_a_single_store_are_read_with_store_ids_too(self, tmp_path: Path, cloud: CinderApi) -> None:
        stores = open_stores(settings_for(tmp_path, one=credentials(cloud.url)))
        url = f"cinder://{cloud.add_volume(b'bytes')}"
        holding = stores.holding(Location(url))
        assert holding is not None
        assert await read(holding.store, url) == b"bytes"
        assert await holding.store.stat(url) == 5
        await stores.close()

    async def test_a_volume_with_less_than_it_should_have_is_missed(self, tmp_path: Path, cloud: CinderApi) -> None:
        """glance_store's iterator ends without a word when the device fails."""
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        volume = cloud.add_volume(b"0123456789")
        cloud.path(volume).write_bytes(b"01234")
        with pytest.raises(Unavailable):
            await read(store, f"cinder://one/{volume}")
        assert not cloud.attachments
        await store.close()

    async def test_a_reader_that_is_given_up_detaches(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        volume = cloud.add_volume(bytes(3 * BLOCK))
        reader = await store.open(f"cinder://one/{volume}")
        assert cloud.attachments
        await reader.close()
        assert not cloud.attachments
        await store.close()

    async def test_all_readers_have_one_attachment(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        url = f"cinder://one/{cloud.add_volume(b'bytes')}"
        first, second = await store.open(url), await store.open(url)
        assert len(cloud.attachments) == 1
        await first.close()
        assert len(cloud.attachments) == 1
        assert await read(store, url) == b"bytes"
        await second.close()
        assert not cloud.attachments
        assert await read(store, url) == b"bytes"
        await store.close()

    async def test_a_range_attaches_once(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        assert await read(store, f"cinder://one/{cloud.add_volume(b'0123456789')}", 3, 4) == b"3456"
        assert cloud.attached == 1
        assert not cloud.attachments
        await store.close()


class TestLeftovers:
    async def test_a_killed_upload_is_detached_and_deleted(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        image_id = str(uuid.uuid4())
        volume = self.volume_of(cloud, image_id, "one")
        cloud.volumes[volume]["status"] = "in-use"
        cloud.attachments["left"] = {"id": "left", "volume_id": volume, "connection_info": {}}
        await store.discard(image_id)
        assert not cloud.volumes
        assert not cloud.attachments
        await store.close()

    async def test_a_volume_of_another_store_is_let_be(self, tmp_path: Path, cloud: CinderApi) -> None:
        """Both have the same account: an image may be in both. So may a volume of Glance be, without a mark."""
        sections = {name: credentials(cloud.url) for name in ("one", "two")}
        stores = open_stores(settings_for(tmp_path, **sections))
        image_id = str(uuid.uuid4())
        stored = [await each.store.put(image_id, blocks(each.id.encode()), 3) for each in stores]
        self.volume_of(cloud, image_id, None)
        await stores.default.store.discard(image_id)
        assert len(cloud.volumes) == 2
        two = stores.get("two")
        assert two is not None
        assert await read(two.store, stored[1].url) == b"two"
        await stores.close()

    def volume_of(self, cloud: CinderApi, image_id: str, store: str | None) -> str:
        mark = {} if store is None else {"glance_store": store}
        metadata = {"glance_image_id": image_id, "image_size": "3", **mark}
        return cloud.add_volume(b"xyz", name=f"image-{image_id}", metadata=metadata)


class TestRefusals:
    async def test_no_room_is_a_full_store(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        cloud.quota = 0
        with pytest.raises(StoreFull):
            await store.put(str(uuid.uuid4()), blocks(b"x"), 1)
        await store.close()

    async def test_a_volume_in_use_is_not_deleted(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        volume = cloud.add_volume(b"x", status="in-use")
        with pytest.raises(Conflict) as raised:
            await store.delete(f"cinder://one/{volume}")
        assert volume not in raised.value.message
        await store.close()

    @pytest.mark.parametrize("status", [401, 403, 500, 503])
    async def test_what_cinder_refuses_is_unavailable(self, tmp_path: Path, cloud: CinderApi, status: int) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        cloud.refuse = {(method, "volumes"): status for method in ("GET", "POST", "DELETE")}
        url = f"cinder://one/{uuid.uuid4()}"
        for call in (store.put("x", blocks(b"x"), 1), store.open(url), store.delete(url), store.check()):
            with pytest.raises(Unavailable):
                await call
        cloud.refuse = {}
        await store.check()
        await store.close()

    async def test_an_attachment_that_is_refused_leaves_no_volume(self, tmp_path: Path, cloud: CinderApi) -> None:
        store = store_of(settings_for(tmp_path, one=credentials(cloud.url)))
        cloud.refuse = {("PUT", "attachments"): 500}
        with pytest.raises(Unavailable):
            await store.put(str(uuid.uuid4()), blocks(b"x"), 1)
        assert not cloud.volumes
        assert not cloud.attachments
        await store.close()

    async def test_a_keystone_that_is_away_is_unavailable(self, tmp_path: Path, cloud: CinderApi) -> None:
        away = {**credentials(cloud.url), "cinder_store_auth_address": "http://127.0.0.1:9/v3"}
        store = store_of(settings_for(tmp_path, one=away))
        with pytest.raises(Unavailable):
            await store.check()
        await store.close()

    @pytest.mark.parametrize("trust", ["nobody", "this one", "anybody"])
    async def test_certificates_are_verified(self, tmp_path: Path, certificate: Path, trust: str) -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        cloud = CinderApi(tmp_path)
        server = TestServer(cloud.app())
        await server.start_server(ssl=tls)
        cloud.url = str(server.make_url("")).rstrip("/")
        options = {"this one": {"cinder_ca_certificates_file": certificate}, "anybody": {"cinder_api_insecure": True}}
        store = store_of(settings_for(tmp_path, one={**credentials(cloud.url), **options.get(trust, {})}))
        if trust == "nobody":
            with pytest.raises(Unavailable):
                await store.check()
        else:
            await store.check()
        await store.close()
        await server.close()

    def test_without_a_place_for_locks_there_is_no_such_store(self, tmp_path: Path, cloud: CinderApi) -> None:
        with pytest.raises(Unconfigured, match=r"lock_path"):
            open_stores(settings_of(tmp_path, {"one": "cinder"}, one=credentials(cloud.url)))


class TestAccounts:
    async def test_each_store_has_its_own(self, tmp_path: Path, cloud: CinderApi) -> None:
        """glance_store has one session for a process."""
        sections = {name: credentials(cloud.url, f"project-{name}") for name in ("one", "two")}
        stores = open_stores(settings_for(tmp_path, **sections))
        image_id = str(uuid.uuid4())
        for _ in range(2):
            for each in stores:
                cloud.projects.clear()
                await each.store.put(image_id, blocks(b"x"), 1)
                assert set(cloud.projects) == {f"project-{each.id}"}
                await each.store.discard(image_id)
        assert cloud.users == ["user-of-project-one", "user-of-project-two"]
        await stores.close()

    @pytest.mark.parametrize("template", [False, True])
    async def test_without_one_it_is_the_callers(self, tmp_path: Path, cloud: CinderApi, template: bool) -> None:
        endpoint = {"cinder_endpoint_template": f"{cloud.url}/volume/v3/%(tenant)s"} if template else {}
        settings = settings_for(tmp_path, one=endpoint, keystone_authtoken={"auth_url": f"{cloud.url}/v3/"})
        store = store_of(settings)
        own = store.on_behalf_of(Context(user_id="alice", project_id="hers", token="hers"), "hers")
        stored = await own.put(str(uuid.uuid4()), blocks(b"bytes"), 5)
        assert {volume["project"] for volume in cloud.volumes.values()} == {"hers"}
        assert await read(own, stored.url) == b"bytes"
        other = store.on_behalf_of(Context(user_id="bob", project_id="his", token="his"), "his")
        with pytest.raises(NotFound):
            await other.open(stored.url)
        with pytest.raises(Unavailable):
            await store.open(stored.url)
        with pytest.raises(Unavailable):
            await store.on_behalf_of(None, "hers").delete(stored.url)
        await own.delete(stored.url)
        assert not cloud.volumes
        assert not cloud.users
        await store.check()
        await store.close()
