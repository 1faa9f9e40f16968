"""Store `azure`: images as block blobs in a container of Azure Blob Storage. Glance has no such store.

azure://<account>/<container>/<image id>
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from glimpse.errors import SettingsError, Unconfigured
from glimpse.stores.clouds import Client, CloudBucket
from glimpse.stores.driver import Facts
from glimpse.stores.objects import MIB, ObjectStore

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureStore, ClientConfig, RetryConfig

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("azure_store_account"),
    cfg.StrOpt("azure_store_key", secret=True, help="Without it the identity of the machine is used"),
    cfg.StrOpt("azure_store_container"),
    cfg.StrOpt("azure_store_endpoint", help="URL of another server than https://ACCOUNT.blob.core.windows.net"),
    cfg.IntOpt("azure_store_large_object_chunk_size", default=10, min=1, max=4000, help="MiB of a block"),
    cfg.IntOpt("azure_store_thread_pools", default=10, min=1, help="Blocks under way at the same time"),
]

MAX_BLOCKS = 50_000  # "Scalability and performance targets for Blob storage"


class AzureBlobStore(ObjectStore):
    """A `driver.Store` on one container."""

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """`where` names the section for `SettingsError` and `Unconfigured`. Connects to nothing."""
        for name in ("azure_store_account", "azure_store_container"):
            if not options[name]:
                raise Unconfigured(f"{where} {name} is not set; an azure store needs it")
        account, container = options["azure_store_account"], options["azure_store_container"]
        key: str = options["azure_store_key"] or ""
        endpoint: str = options["azure_store_endpoint"] or ""
        config: AzureConfig = {"account_name": account, "container_name": container}
        if key:
            config["account_key"] = _checked(key, where)
        if endpoint:
            config["endpoint"] = endpoint

        def make(times: ClientConfig, tries: RetryConfig) -> AzureStore:
            from obstore.store import AzureStore

            return AzureStore(config=config, client_options=times, retry_config=tries)

        part, parallel = options["azure_store_large_object_chunk_size"], options["azure_store_thread_pools"]
        super().__init__(
            Facts("azure", ("azure",), writable=True, ranges=True),
            CloudBucket(
                Client(make, endpoint.startswith("http://"), can_sign=True),
                f"azure://{account}/{container}/",
                part * MIB,
                parallel,
                MAX_BLOCKS,
                overwrites_parts=True,
            ),
            {"azure_store_large_object_chunk_size": part, "azure_store_thread_pools": parallel},
        )


def _checked(key: str, where: str) -> str:
    try:
        b64decode(key, validate=True)
    except ValueError:
        raise SettingsError(f"{where} azure_store_key is not base64, as Azure gives it") from None
    return key
