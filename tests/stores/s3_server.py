"""S3 servers for the tests of more than one driver: Swift's S3 interface, and moto for what that has not."""

from __future__ import annotations

import uuid
from typing import Any

import botocore.config
import botocore.session
import pytest
from botocore.exceptions import ClientError

from glimpse.errors import GlimpseError
from glimpse.stores.conformance import Harness
from glimpse.stores.s3 import OPTIONS, S3Store
from tests.rig.moto import Moto
from tests.rig.swift import KEY, USER, Swift

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


class Server:
    """An S3 server as a second client sees it, with a bucket of its own for each test."""

    def __init__(self, url: str, access: str, secret: str) -> None:
        self.url = url
        self.options = {
            "s3_store_host": url,
            "s3_store_access_key": access,
            "s3_store_secret_key": secret,
            # No dash: obstore writes it as %2D, which moto does not read.
            "s3_store_bucket": f"images{uuid.uuid4().hex[:12]}",
            "s3_store_bucket_url_format": "path",
            "s3_store_large_object_chunk_size": 5,
            "s3_store_large_object_size": 5,
            "s3_store_thread_pools": 2,
        }
        config = botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        self.client = botocore.session.Session().create_client(
            "s3", endpoint_url=url, aws_access_key_id=access, aws_secret_access_key=secret, region_name="us-east-1",
            config=config,
        )  # fmt: skip

    @property
    def bucket(self) -> str:
        return str(self.options["s3_store_bucket"])

    def make_bucket(self) -> None:
        self.client.create_bucket(Bucket=self.bucket)

    def store(self, **options: Any) -> S3Store:
        return S3Store({**DEFAULTS, **self.options, **options}, "[test]")

    def uploads(self) -> list[dict[str, Any]]:
        return list(self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []))

    def keys(self) -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def harness(self, store: S3Store) -> Harness:
        async def place(content: bytes) -> str:
            key = str(uuid.uuid4())
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content)
            return self.location(key)

        return Harness(store, place, self.location("missing"), lambda: len(self.uploads()) + len(self.keys()))

    def location(self, key: str) -> str:
        return f"s3://{self.url.partition('://')[2]}/{self.bucket}/{key}"


@pytest.fixture
def imitation(moto: Moto) -> Server:
    server = Server(moto.url, "moto-access", "moto/secret")
    server.make_bucket()
    return server


@pytest.fixture
def real(swift: Swift) -> Server:
    server = Server(swift.url, USER, KEY)
    server.make_bucket()
    return server


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


def check_quiet(error: GlimpseError, server: Server) -> None:
    """Nothing in an error for clients says where the store is, or who we are there."""
    for hidden in (KEY, USER, "moto", "127.0.0.1", server.bucket, server.url.rpartition(":")[2]):
        assert hidden not in error.message
