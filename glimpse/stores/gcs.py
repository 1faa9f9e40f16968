"""Store `gcs`: images as objects in a bucket of Google Cloud Storage. Glance has no such store.

gs://<bucket>/<image id>
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from glimpse.errors import SettingsError, Unconfigured
from glimpse.stores.clouds import Client, CloudBucket
from glimpse.stores.driver import Facts
from glimpse.stores.objects import MIB, ObjectStore

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, GCSStore, RetryConfig

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("gcs_store_bucket"),
    cfg.StrOpt("gcs_store_service_account_file", help="Key file; without it Google's default credentials are used"),
    cfg.StrOpt("gcs_store_endpoint", help="URL of another server than Google's"),
    cfg.IntOpt("gcs_store_large_object_chunk_size", default=10, min=5, help="MiB of a part"),
    cfg.IntOpt("gcs_store_thread_pools", default=10, min=1, help="Parts under way at the same time"),
]

MAX_PARTS = 10_000  # Cloud Storage, "Quotas and limits": XML API multipart uploads


class GcsStore(ObjectStore):
    """A `driver.Store` on one bucket."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """`where` names the section for `SettingsError` and `Unconfigured`. Connects to nothing."""
        bucket: str = options["gcs_store_bucket"]
        if not bucket:
            raise Unconfigured(f"{where} gcs_store_bucket is not set; a gcs store needs it")
        key_file: str | None = options["gcs_store_service_account_file"]
        account = _account(key_file, where)
        endpoint: str = options["gcs_store_endpoint"] or account.get("gcs_base_url", "")
        config: GCSConfig = {"bucket": bucket}
        if key_file:
            config["service_account"] = key_file
        if endpoint:
            config["base_url"] = endpoint

        def make(times: ClientConfig, tries: RetryConfig) -> GCSStore:
            from obstore.store import GCSStore

            return GCSStore(config=config, client_options=times, retry_config=tries)

        part, parallel = options["gcs_store_large_object_chunk_size"], options["gcs_store_thread_pools"]
        client = Client(make, endpoint.startswith("http://"), can_sign=bool(account.get("private_key")))
        super().__init__(
            Facts("gcs", ("gs",), writable=True, ranges=True),
            CloudBucket(client, f"gs://{bucket}/", part * MIB, parallel, MAX_PARTS),
            {"gcs_store_large_object_chunk_size": part, "gcs_store_thread_pools": parallel},
        )


def _account(key_file: str | None, where: str) -> dict[str, Any]:
    """What the key file holds, {} without one."""
    if not key_file:
        return {}
    try:
        account = json.loads(Path(key_file).read_text())
    except (OSError, ValueError):
        account = None
    if not isinstance(account, dict):
        raise SettingsError(f"{where} gcs_store_service_account_file: {key_file} cannot be read as JSON") from None
    return account
