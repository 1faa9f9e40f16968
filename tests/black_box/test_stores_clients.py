"""The real client with every store: images created in it and saved from it, and copied between each pair of stores."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.black_box.client_shell import ClientShell
from tests.black_box.cloud import ADMIN, DEMO, Cloud, WebServer
from tests.black_box.image_api import ImageApi
from tests.black_box.stores import ALL, ALONE, GOOGLE, StoresUnderTest, azure_store, gcs_store
from tests.conftest import ServiceFactory
from tests.rig.azurite import Azurite
from tests.rig.clients import Clients
from tests.rig.databases import MariaDB
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.moto import Moto
from tests.rig.process import wait_for
from tests.rig.services import Glimpse, config_text

EVERY = (*ALL, *ALONE)
CONTENT = Random(3).randbytes(6 * 2**20 + 5)  # several segments, or parts, in each store that has them


@dataclass(frozen=True)
class CloudOfStores:
    """A cloud whose Image service has all stores; which one is the default changes."""

    cloud: Cloud
    stores: StoresUnderTest
    sections: dict[str, dict[str, object]]
    file: Path

    def make_default(self, store_id: str) -> None:
        """Have images go into that store when nobody says where, as an operator does it: edit, and reload."""
        self.sections["glance_store"]["default_backend"] = store_id
        service = self.cloud.service
        service.config_file.write_text(config_text(self.sections))
        old = set(service.process.children)
        service.process.signal(signal.SIGHUP)
        wait_for("new workers", lambda: not old & set(service.process.children) and self._default() == store_id, 30)

    def _default(self) -> str:
        found = ImageApi(self.cloud.service.url, self.cloud.keystone.token()).ok("GET", "/v2/info/stores").json()
        (default,) = [entry["id"] for entry in found["stores"] if entry.get("default")]
        return str(default)

    def create(self, name: str, user: str = DEMO) -> dict[str, Any]:
        """`openstack image create`; the record."""
        made: dict[str, Any] = self.cloud.openstack(
            "image create", name, "--file", self.file, "-f", "json", user=user
        ).json
        return made

    def saved(self, image: str, *options: str, user: str = DEMO) -> bytes:
        """What `openstack image save` brings."""
        target = self.cloud.folder / "saved"
        self.cloud.openstack("image save", image, "--chunk-size", "65536", "--file", target, *options, user=user)
        content = target.read_bytes()
        target.unlink()
        return content

    def places(self, image: str) -> set[str]:
        """The stores that have the bytes of an image."""
        return set(
            self.cloud.openstack("image show", image, "-f", "json", user=ADMIN).json["properties"]["stores"].split(",")
        )


@pytest.fixture(scope="module")
def with_stores(
    rig_folder: Path, mariadb: MariaDB, memcached: Memcached, keystone: Keystone, clients: Clients,
    all_stores: StoresUnderTest, moto: Moto, azurite: Azurite,
) -> Iterator[CloudOfStores]:  # fmt: skip
    """One Glimpse with every store."""
    stores = StoresUnderTest.of(*all_stores.stores.values(), gcs_store(moto), azure_store(azurite))
    folder = Path(tempfile.mkdtemp(dir=rig_folder))
    folder.chmod(0o755)
    for name in ("home", "web"):
        (folder / name).mkdir()
    sections = stores.sections(default=EVERY[0])
    sections["DEFAULT"] |= {"enabled_import_methods": "[glance-direct,web-download,copy-image]", "workers": 1}
    sections |= {
        "database": {"connection": mariadb.fresh_url()},
        "paste_deploy": {"flavor": "keystone"},
        "keystone_authtoken": dict(keystone.authtoken(memcached.address)),
        "os_glance_staging_store": {"filesystem_store_datadir": folder / "staging"},
    }
    web, shell, factory = (
        WebServer(folder / "web"),
        ClientShell(clients, folder / "home"),
        ServiceFactory(Glimpse, folder),
    )
    try:
        service = factory(config_text(sections), env=GOOGLE)
        keystone.register_image_service(service.url)
        cloud = Cloud(keystone, service, shell, web)
        yield CloudOfStores(cloud, stores, sections, cloud.file("disk.raw", CONTENT))
    finally:
        factory.stop_all()
        shell.close()
        web.close()
        keystone.forget_image_service()
        shutil.rmtree(folder)


@pytest.mark.parametrize("store_id", EVERY)
def test_an_image_is_created_and_saved(with_stores: CloudOfStores, store_id: str) -> None:
    with_stores.make_default(store_id)
    image = with_stores.create("in its store")["id"]
    assert with_stores.places(image) == {store_id}
    assert with_stores.stores.left().keys() == {store_id}
    assert with_stores.saved(image) == CONTENT
    with_stores.cloud.openstack("image delete", image)
    with_stores.stores.wait_until_empty()


@pytest.mark.parametrize("source", EVERY)
def test_an_image_is_copied_to_all_other_stores(with_stores: CloudOfStores, keystone: Keystone, source: str) -> None:
    """Ordered by the admin, as only admins may; the image is a user's."""
    token = keystone.token("demo", "demo")
    with_stores.make_default(source)
    image = with_stores.create("in many stores")["id"]
    cloud, others = with_stores.cloud, [store for store in EVERY if store != source]
    cloud.openstack("image import", image, "--method", "copy-image", "--store", *others, user=ADMIN)
    wait_for("the copies", lambda: cloud.tasks(image)[0]["status"] in ("success", "failure"), 60)
    (task,) = cloud.tasks(image)
    assert task["status"] == "success", task["message"]
    assert with_stores.places(image) == set(EVERY) == with_stores.stores.left().keys()
    for store in EVERY:
        read = ImageApi(cloud.service.url, token).ok("GET", f"/v2/images/{image}/file?prefer={store}")
        assert read.content == CONTENT, store
    assert "cannot be read from store" not in cloud.service.logs  # else another one has helped out
    cloud.openstack("image delete", image)
    with_stores.stores.wait_until_empty()
