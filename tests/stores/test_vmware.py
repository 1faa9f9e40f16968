"""The VMware store over a small HTTPS server in the place of a datastore's; no vCenter can run here.

glance_store's driver is the real one. What it says to the vCenter itself, by SOAP through oslo.vmware, is answered by
`Session`.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from oslo_config import cfg
from oslo_service.backend import BackendType, init_backend

from glimpse.errors import NotFound, StoreFull, Unavailable, Unconfigured
from glimpse.settings import Settings
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.registry import open_stores
from glimpse.stores.vmware import VmwareStore
from tests.stores.configured import settings_of

OPTIONS: dict[str, object] = {
    "vmware_server_host": "127.0.0.1", "vmware_server_username": "root", "vmware_server_password": "secret",
    "vmware_datastores": "center:first:10\nvmware_datastores = center:second",
}  # fmt: skip


class Datastores:
    """Files by path and datastore."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.free = 1 << 30
        self.sessions = 0

    async def answer(self, request: web.Request) -> web.Response:
        name = (request.path, request.query["dsName"])
        assert request.query["dcPath"] == "center"
        if request.headers.get("Cookie") != f"session={self.sessions}":
            return web.Response(status=401)
        if request.method == "PUT":
            self.files[name] = await request.read()
            return web.Response(status=201)
        if name not in self.files:
            return web.Response(status=404)
        return web.Response(body=self.files[name])


@pytest.fixture
async def vcenter(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> AsyncIterator[Datastores]:
    init_backend(BackendType.THREADING)  # as the adapter does, before oslo.vmware is imported
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # the driver's library would take them before its option
        monkeypatch.delenv(name, raising=False)
    from glance_store._drivers import vmware_datastore
    from oslo_vmware import exceptions as vmware_exceptions

    datastores = Datastores()

    class Session:
        def __init__(self, *_args: Any, **_more: Any) -> None:
            datastores.sessions += 1
            cookie = SimpleNamespace(name="session", value=str(datastores.sessions))
            content = SimpleNamespace(fileManager=None, searchIndex=None)
            self.vim = SimpleNamespace(client=SimpleNamespace(cookiejar=[cookie]), service_content=content)

        def is_current_session_active(self) -> bool:
            return True

        def invoke_api(self, _module: Any, method: str, *args: Any, **wanted: Any) -> Any:
            assert method == "DeleteDatastoreFile_Task"
            place, _, path = wanted["name"].removeprefix("[").partition("] ")
            return (f"/folder{path}", place)

        def wait_for_task(self, name: tuple[str, str]) -> None:
            if datastores.files.pop(name, None) is None:
                raise vmware_exceptions.FileNotFoundException

    def datastore(_driver: Any, center: str, name: str) -> Any:
        return SimpleNamespace(name=name, datacenter=SimpleNamespace(path=center, ref=None))

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", datastores.answer)
    server = TestServer(app)
    await server.start_server(ssl=tls)
    url = vmware_datastore.StoreLocation.https_url.fget
    with_port = property(lambda self: url(self).replace("://127.0.0.1/", f"://127.0.0.1:{server.port}/"))
    monkeypatch.setattr(vmware_datastore.StoreLocation, "https_url", with_port)
    monkeypatch.setattr(vmware_datastore.api, "VMwareAPISession", Session)
    monkeypatch.setattr(vmware_datastore.Store, "_get_datastore", datastore)
    monkeypatch.setattr(vmware_datastore.Store, "_get_datacenter", lambda _driver, path: SimpleNamespace(ref=path))
    monkeypatch.setattr(vmware_datastore.Store, "_get_freespace", lambda _driver, _datastore: datastores.free)
    yield datastores
    await server.close()


@pytest.fixture(autouse=True)
def process_wide() -> Iterator[None]:
    yield
    cfg.CONF.clear()


def settings_for(folder: Path, **options: object) -> Settings:
    return settings_of(folder, {"one": "vmware"}, one={**OPTIONS, **options})


def store_of(settings: Settings) -> VmwareStore:
    store = open_stores(settings).default.store
    assert isinstance(store, VmwareStore)
    return store


class TestVmwareStore(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, tmp_path: Path, vcenter: Datastores, certificate: Path) -> AsyncIterator[Harness]:
        store = store_of(settings_for(tmp_path, vmware_ca_file=certificate))

        def url(name: str) -> str:
            place = urlencode({"dsName": "second", "dcPath": "center"})
            return f"vsphere://127.0.0.1/folder/openstack_glance/{name}?{place}"

        async def place(content: bytes) -> str:
            name = str(uuid.uuid4())
            vcenter.files[f"/folder/openstack_glance/{name}", "second"] = content
            return url(name)

        yield Harness(store, place, url("missing"), lambda: len(vcenter.files))
        await store.close()


class TestVmware:
    async def test_where_an_image_is(self, tmp_path: Path, vcenter: Datastores, certificate: Path) -> None:
        store = store_of(settings_for(tmp_path, vmware_store_image_dir="/images/", vmware_ca_file=certificate))
        stored = await store.put("x", blocks(b"bytes"), 5)
        assert stored.url == "vsphere://127.0.0.1/folder/images/x?dsName=first&dcPath=center"
        assert store.owns(stored.url)
        assert not store.owns("vsphere://127.0.0.1/folder/images2/x?dsName=first&dcPath=center")
        vcenter.sessions += 1  # the host has forgotten the session: the driver logs in again
        assert await read(store, stored.url) == b"bytes"
        await store.close()

    async def test_leftovers_in_any_datastore_are_removed(
        self, tmp_path: Path, vcenter: Datastores, certificate: Path
    ) -> None:
        store = store_of(settings_for(tmp_path, vmware_ca_file=certificate))
        for place in ("first", "second"):
            vcenter.files["/folder/openstack_glance/x", place] = b"part"
        await store.discard("x")
        assert not vcenter.files
        await store.close()

    async def test_no_datastore_with_room_is_a_full_store(
        self, tmp_path: Path, vcenter: Datastores, certificate: Path
    ) -> None:
        store = store_of(settings_for(tmp_path, vmware_ca_file=certificate))
        vcenter.free = 4
        with pytest.raises(StoreFull):
            await store.put("x", blocks(b"bytes"), 5)
        await store.close()

    async def test_a_certificate_that_nobody_signed_is_refused(self, tmp_path: Path, vcenter: Datastores) -> None:
        store = store_of(settings_for(tmp_path))
        with pytest.raises(Unavailable):
            await store.put("x", blocks(b"bytes"), 5)
        assert not vcenter.files
        await store.close()

    async def test_a_url_without_a_datastore_is_not_found(self, tmp_path: Path, vcenter: Datastores) -> None:
        store = store_of(settings_for(tmp_path))
        with pytest.raises(NotFound):
            await store.open("vsphere://127.0.0.1/folder/x")
        await store.close()

    @pytest.mark.parametrize("missing", ["vmware_server_host", "vmware_server_password"])
    def test_what_is_not_set_is_named(self, tmp_path: Path, missing: str) -> None:
        init_backend(BackendType.THREADING)
        options = {name: value for name, value in OPTIONS.items() if name != missing}
        with pytest.raises(Unconfigured, match=rf"\[one\] {missing} is not set"):
            open_stores(settings_of(tmp_path, {"one": "vmware"}, one=options))

    def test_a_single_store_is_chosen_by_its_scheme(self, tmp_path: Path) -> None:
        section = {"stores": "vmware", "default_store": "vsphere", **OPTIONS}
        assert open_stores(settings_of(tmp_path, {}, glance_store=section)).default.store.facts.schemes == ("vsphere",)
