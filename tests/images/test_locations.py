"""Which places callers may name, with a store that the service reads with its own credentials: S3 on a real Swift."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from glimpse.access.policy import Policy
from glimpse.db import images
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.record import Image
from glimpse.images.locations import Locations
from glimpse.images.scrub import Scrubber
from glimpse.notifications import Notifications
from glimpse.settings import load
from glimpse.stores.registry import open_stores
from glimpse.stores.uri_filter import UriFilter
from tests.db.opened import opened
from tests.rig.swift import KEY, USER, Swift
from tests.stores.s3_server import Server

OWNER, STRANGER = (Context(project_id=name, roles=frozenset({"member"})) for name in ("p", "q"))
ADMIN = Context(project_id="a", roles=frozenset({"admin"}), is_admin=True)
NOVA = Context(project_id="q", roles=frozenset({"member"}), service_roles=frozenset({"service"}))
CONF = """\
[DEFAULT]
enabled_backends = one:s3, two:s3
[glance_store]
default_backend = one
[backend_defaults]
s3_store_access_key = {user}
s3_store_secret_key = {key}
s3_store_bucket_url_format = path
[one]
s3_store_host = {first}
s3_store_bucket = {bucket}
[two]
s3_store_host = {second}
s3_store_bucket = {bucket}
[database]
connection = sqlite:///{folder}/db
"""


@dataclass
class Cloud:
    """A service whose first S3 is away, with one private image of OWNER in the second, and an object beside it."""

    locations: Locations
    database: Database
    host: str
    bucket: str
    image_id: str
    other_bucket: str

    async def size(self, context: Context, bucket: str, key: str) -> int | None:
        return await self.locations.measure(context, context.project_id, f"s3://{self.host}/{bucket}/{key}")


@pytest.fixture
async def cloud(tmp_path: Path, swift: Swift) -> AsyncIterator[Cloud]:
    server, other = Server(swift.url, USER, KEY), Server(swift.url, USER, KEY)
    server.make_bucket()
    other.make_bucket()
    (tmp_path / "glance-api.conf").write_text(CONF.format(
        user=USER, key=KEY, bucket=server.bucket, folder=tmp_path, first="http://127.0.0.1:9", second=swift.url,
    ))  # fmt: skip
    settings = load(["--config-file", str(tmp_path / "glance-api.conf")])
    stores, now, image_id = open_stores(settings), lifecycle.now(), str(uuid.uuid4())
    image = Image(image_id, "active", "private", now, now, owner="p")
    with opened(settings.database, 2) as database:
        database.write(lambda c: images.insert(c, image))
        server.client.put_object(Bucket=server.bucket, Key=image_id, Body=b"secret")
        server.client.put_object(Bucket=server.bucket, Key="nobodys", Body=b"12345")
        server.client.put_object(Bucket=other.bucket, Key="x", Body=b"others")
        locations = Locations(
            settings, database, Policy(settings.conf), stores, Scrubber(settings, database, stores),
            Notifications(settings), UriFilter(settings.uri_filter),
        )  # fmt: skip
        yield Cloud(locations, database, swift.url.partition("://")[2], server.bucket, image_id, other.bucket)
    await stores.close()


@pytest.mark.parametrize("caller", [OWNER, ADMIN, NOVA])
async def test_who_may_name_a_place(cloud: Cloud, caller: Context) -> None:
    """The store that has it is asked, although another one understands such URLs too, and is away."""
    assert await cloud.size(caller, cloud.bucket, cloud.image_id) == 6
    assert await cloud.size(caller, cloud.bucket, "nobodys") == 5


async def test_nobody_reads_the_image_of_others_by_its_place(cloud: Cloud) -> None:
    assert await cloud.size(STRANGER, cloud.bucket, cloud.image_id) is None
    assert await cloud.size(STRANGER, cloud.bucket, "nobodys") == 5
    public = Image(cloud.image_id, "active", "public", lifecycle.now(), lifecycle.now(), owner="p")
    before = cloud.database.read(lambda c: images.get(c, cloud.image_id, ADMIN))
    cloud.database.write(lambda c: images.update(c, before, public.with_(locations=before.locations)))
    assert await cloud.size(STRANGER, cloud.bucket, cloud.image_id) == 6


async def test_the_service_lends_its_credentials_to_nobody(cloud: Cloud) -> None:
    """It could read other buckets; who is neither an admin nor another service cannot send it there."""
    assert await cloud.size(OWNER, cloud.other_bucket, "x") is None
