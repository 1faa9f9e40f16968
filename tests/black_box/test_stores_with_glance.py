"""Glance and Glimpse with the same database, Keystone and stores: each reads and erases what the other has stored."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.black_box.chaos import Records
from tests.black_box.image_api import ImageApi
from tests.black_box.stores import ALL, KEEPER_PASSWORD, StoresUnderTest
from tests.conftest import ServiceFactory
from tests.rig.databases import MariaDB
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glance, Glimpse
from tests.rig.swift import KEY, USER

WAYS = ("Glance reads", "Glimpse reads")
SMALL = Random(1).randbytes(100_003)
# Several segments, or parts, in each store that has them. Glance announces each segment for Swift as a whole one and
# then waits for bytes that do not come, if it knows the size of the image and that is not a multiple of a segment's.
LARGE = Random(2).randbytes(11 * 1_024_000)


@dataclass(frozen=True)
class Both:
    """The two services with all stores, asked by one user."""

    glance: ImageApi
    glimpse: ImageApi
    stores: StoresUnderTest
    records: Records

    def ordered(self, way: str) -> tuple[ImageApi, ImageApi]:
        """Who stores, and who reads."""
        return (self.glimpse, self.glance) if way == "Glance reads" else (self.glance, self.glimpse)


@pytest.fixture(scope="module")
def both(
    rig_folder: Path, mariadb: MariaDB, memcached: Memcached, keystone: Keystone, all_stores: StoresUnderTest
) -> Iterator[Both]:
    """Both services. Glance takes the keys of S3 out of locations, and then looks for them in its surroundings."""
    folder = Path(tempfile.mkdtemp(dir=rig_folder))
    folder.chmod(0o755)
    url = mariadb.fresh_url()
    sections = all_stores.sections(default="files")
    sections["DEFAULT"]["show_multiple_locations"] = True
    sections |= {
        "database": {"connection": url},
        "paste_deploy": {"flavor": "keystone"},
        "keystone_authtoken": dict(keystone.authtoken(memcached.address)),
    }
    factories = ServiceFactory(Glance, folder), ServiceFactory(Glimpse, folder)
    try:
        glance = factories[0](sections, env={"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": KEY})
        glimpse = factories[1](sections, start=False)
        glimpse.start()
        token = keystone.token("demo", "demo")
        yield Both(ImageApi(glance.url, token), ImageApi(glimpse.url, token), all_stores, Records(url))
    finally:
        for factory in factories:
            factory.stop_all()
        shutil.rmtree(folder)


def store(api: ImageApi, store_id: str, content: bytes, *, chunked: bool = False) -> str:
    """A new image with those bytes in that store, sent with their number or without; its id."""
    image = api.create(name="one", disk_format="raw", container_format="bare")
    headers = {"Content-Type": "application/octet-stream", "X-Image-Meta-Store": store_id}
    pieces = (content[start : start + 2**16] for start in range(0, len(content), 2**16))
    api.ok("PUT", f"/v2/images/{image}/file", data=pieces if chunked else content, headers=headers)
    return image


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """What both services have to say alike."""
    return {name: value for name, value in record.items() if name not in ("locations", "direct_url")}


@pytest.mark.parametrize("store_id", ALL)
@pytest.mark.parametrize("way", WAYS)
def test_each_reads_and_erases_what_the_other_stored(both: Both, way: str, store_id: str) -> None:
    writer, reader = both.ordered(way)
    for content, chunked in ((SMALL, False), (LARGE, False), (LARGE + b"tail", True)):
        image = store(writer, store_id, content, chunked=chunked)
        record = reader.show(image)
        assert (record["status"], record["size"]) == ("active", len(content))
        assert record["checksum"] == hashlib.md5(content).hexdigest()
        assert record["os_hash_value"] == hashlib.sha512(content).hexdigest()
        assert facts(record) == facts(writer.show(image))
        assert [place["metadata"]["store"] for place in record["locations"]] == [store_id]
        assert both.stores.left().keys() == {store_id}
        assert reader.download(image) == content
        assert writer.download(image) == content
        reader.delete(image)
        assert writer.call("GET", f"/v2/images/{image}").status_code == 404
        both.stores.wait_until_empty()


def test_credentials_in_locations_of_glance(both: Both) -> None:
    """Glance writes those of Swift there; this service uses such a location and shows nobody what is in it."""
    image = store(both.glance, "legacy", SMALL)
    (row,) = both.records.rows("SELECT value FROM image_locations WHERE image_id = %s", image)
    assert KEEPER_PASSWORD in row["value"]
    for path in (f"/v2/images/{image}", "/v2/images", f"/v2/images/{image}/locations"):
        assert KEEPER_PASSWORD not in both.glimpse.call("GET", path).text, path
    place = both.glimpse.show(image)["locations"][0]
    new = {**place, "metadata": {**place["metadata"], "note": "looked at"}}
    both.glimpse.change(image, {"op": "replace", "path": "/locations", "value": [new]})
    assert both.glimpse.show(image)["locations"] == [new]
    assert both.glimpse.download(image) == both.glance.download(image) == SMALL
    both.glimpse.delete(image)
    both.stores.wait_until_empty()


@pytest.mark.parametrize("store_id", ALL)
def test_no_credentials_in_locations_of_ours(both: Both, store_id: str) -> None:
    image = store(both.glimpse, store_id, SMALL)
    (row,) = both.records.rows("SELECT value FROM image_locations WHERE image_id = %s", image)
    assert not [secret for secret in both.stores.secrets if secret in row["value"]]
    both.glimpse.delete(image)
    both.stores.wait_until_empty()
