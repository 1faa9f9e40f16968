"""Fixes about the keys of S3 stores, which never got an advisory's number."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path
from typing import Any

import botocore.config
import botocore.session
import pytest
import requests

from tests.conftest import ServiceFactory
from tests.rig.services import Glimpse
from tests.rig.swift import KEY, USER, Swift

SECRET_WORDS = (KEY, USER, "AWS4-HMAC", "Signature=", "X-Amz-")


class Shop:
    """A service with an S3 store on Swift that logs all it can, and what was said to its clients."""

    def __init__(self, factory: ServiceFactory[Glimpse], swift: Swift) -> None:
        self.bucket = f"images{uuid.uuid4().hex[:12]}"
        self.host = swift.url.partition("://")[2]
        self.service = factory({
            "DEFAULT": {
                "enabled_backends": "s3:s3", "debug": "true", "workers": "1",
                "show_image_direct_url": "true", "show_multiple_locations": "true",
            },
            "glance_store": {"default_backend": "s3"},
            "s3": {
                "s3_store_host": swift.url, "s3_store_access_key": USER, "s3_store_secret_key": KEY,
                "s3_store_bucket": self.bucket, "s3_store_create_bucket_on_put": "true",
                "s3_store_bucket_url_format": "path", "s3_store_large_object_chunk_size": "5",
                "s3_store_large_object_size": "5",
            },
        })  # fmt: skip
        self.said = ""
        config = botocore.config.Config(s3={"addressing_style": "path"})
        self.client = botocore.session.Session().create_client(
            "s3", endpoint_url=swift.url, aws_access_key_id=USER, aws_secret_access_key=KEY, config=config,
            region_name="us-east-1",
        )  # fmt: skip

    def call(self, method: str, path: str, **parameters: Any) -> requests.Response:
        answer = requests.request(method, f"{self.service.url}/v2{path}", timeout=60, **parameters)
        self.said += f"{answer.headers}{answer.text if len(answer.content) < 100_000 else ''}"
        return answer

    def image(self, content: bytes = b"") -> str:
        body = {"name": "x", "disk_format": "raw", "container_format": "bare"}
        image_id = str(self.call("POST", "/images", json=body).json()["id"])
        if content:
            headers = {"Content-Type": "application/octet-stream"}
            assert self.call("PUT", f"/images/{image_id}/file", data=content, headers=headers).status_code == 204
        return image_id

    @property
    def database(self) -> Path:
        return self.service.data_dir / "glance.sqlite"

    def check_secrets(self) -> None:
        """No key, and nothing that was signed with it, in logs, answers and locations."""
        assert " DEBUG " in self.service.logs
        for word in SECRET_WORDS:
            assert word not in self.service.logs, word
            assert word not in self.said, word
            assert word.encode() not in self.database.read_bytes(), word


@pytest.fixture
def shop(glimpse_service: ServiceFactory[Glimpse], swift: Swift) -> Shop:
    return Shop(glimpse_service, swift)


def test_s3_bug_2095304_keys_in_logs(shop: Shop, swift: Swift) -> None:
    """Bug 2095304, a fix without a number: with `debug = true` the log had the keys of the S3 store."""
    for content in (b"small", bytes(6 << 20)):
        image_id = shop.image(content)
        assert shop.call("GET", f"/images/{image_id}/file").content == content
        shown = shop.call("GET", f"/images/{image_id}").json()
        assert shown["direct_url"] == f"s3://{shop.host}/{shop.bucket}/{image_id}"
        assert shop.call("DELETE", f"/images/{image_id}").status_code == 204
    kept, lost = shop.image(b"kept"), shop.image(b"lost")
    shop.client.delete_object(Bucket=shop.bucket, Key=lost)
    shop.call("GET", f"/images/{lost}/file")
    swift.stop()
    try:
        assert shop.call("GET", f"/images/{kept}/file").status_code == 503
    finally:
        swift.start()
    shop.check_secrets()


@pytest.mark.parametrize("keys", ["access:plain", "access:with/slash/", "a%3Ab:s%2Fc"])
def test_s3_secret_with_a_slash_in_a_location(shop: Shop, keys: str) -> None:
    """A fix without a number: keys were written into locations, where users could read them, and a slash in the
    secret cut such a URL in the wrong place."""
    image_id = shop.image(b"legacy")
    with sqlite3.connect(shop.database) as connection:
        url = f"s3://{keys}@{shop.host}/{shop.bucket}/{image_id}"
        assert connection.execute(
            "UPDATE image_locations SET value = ? WHERE image_id = ?", (url, image_id)
        ).rowcount == 1  # fmt: skip
    connection.close()
    assert shop.call("GET", f"/images/{image_id}/file").content == b"legacy"
    shown = shop.call("GET", f"/images/{image_id}").json()
    clean = f"s3://{shop.host}/{shop.bucket}/{image_id}"
    assert (shown["direct_url"], [each["url"] for each in shown["locations"]]) == (clean, [clean])
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    # Who sends back what was read has changed nothing.
    back = [{"op": "replace", "path": "/locations", "value": shown["locations"]}]
    assert shop.call("PATCH", f"/images/{image_id}", json=back, headers=headers).status_code == 200
    assert shop.call("GET", f"/images/{image_id}/file").content == b"legacy"
    # A caller's own keys are not kept either.
    given = shop.image()
    added = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]
    assert shop.call("PATCH", f"/images/{given}", json=added, headers=headers).status_code == 200
    shop.call("DELETE", f"/images/{given}")
    assert shop.call("DELETE", f"/images/{image_id}").status_code == 204
    secret = keys.partition(":")[2]
    assert secret not in shop.said
    assert secret not in shop.service.logs
    assert f"@{shop.host}" not in shop.said + shop.service.logs
