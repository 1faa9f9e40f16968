"""Store `swift`: images as objects in containers of a service user (spec 4.4); with a switch, of their owners.

Locations name a user of the configuration and never its key, `swift+config://<reference>/<container>/<image id>`;
Glance reads them with or without `swift_store_config_file`. Those that Glance wrote with credentials inside are read
as well, where their Keystone is one of the configuration.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from hmac import compare_digest
from typing import Any
from urllib.parse import unquote

from oslo_config import cfg
from yarl import URL

from glimpse.errors import Forbidden, NotFound, Unavailable, Unconfigured
from glimpse.stores.driver import Facts, Reader, Stored
from glimpse.stores.swift_auth import Keystone, Reach, ServiceLogin
from glimpse.stores.swift_objects import MISSING, Objects, Place, url_of
from glimpse.stores.swift_tenants import TenantSwift
from glimpse.stores.swift_uploads import Uploads
from glimpse.stores.swift_users import Reference, references

LOG = logging.getLogger(__name__)

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt("default_swift_reference", default="ref1"),
    cfg.BoolOpt("swift_buffer_on_upload", default=False, help="Without effect: nothing is sent twice"),
    cfg.ListOpt("swift_store_admin_tenants", default=[], help="Projects that may write in the containers of others"),
    cfg.StrOpt("swift_store_application_credential_id", secret=True),
    cfg.StrOpt("swift_store_application_credential_secret", secret=True),
    cfg.StrOpt("swift_store_auth_address"),
    cfg.BoolOpt("swift_store_auth_insecure", default=False),
    cfg.StrOpt("swift_store_auth_version", default="3", help="Without effect: Keystone's API is v3"),
    cfg.StrOpt("swift_store_cacert", help="File with the certificates to trust instead of the system's"),
    cfg.StrOpt("swift_store_config_file", help="File with service users, a section for each"),
    cfg.StrOpt("swift_store_container", default="glance"),
    cfg.BoolOpt("swift_store_create_container_on_put", default=False),
    cfg.StrOpt("swift_store_endpoint", help="Storage URL instead of the one from Keystone's catalog"),
    cfg.StrOpt("swift_store_endpoint_type", default="publicURL", choices=["publicURL", "adminURL", "internalURL"]),
    cfg.IntOpt("swift_store_expire_soon_interval", default=60, min=0, help="Seconds before its end to renew a token"),
    cfg.StrOpt("swift_store_key", secret=True),
    cfg.IntOpt("swift_store_large_object_chunk_size", default=200, min=1, help="MB of a segment"),
    cfg.IntOpt("swift_store_large_object_size", default=5120, min=1, help="MB from which an image is in segments"),
    cfg.BoolOpt("swift_store_multi_tenant", default=False),
    cfg.IntOpt("swift_store_multiple_containers_seed", default=0, min=0, max=32),
    cfg.StrOpt("swift_store_project_id"),
    cfg.StrOpt("swift_store_project_name"),
    cfg.StrOpt("swift_store_region"),
    cfg.IntOpt("swift_store_retry_get_count", default=0, min=0),
    cfg.StrOpt("swift_store_service_type", default="object-store"),
    cfg.BoolOpt("swift_store_ssl_compression", default=True, help="Without effect"),
    cfg.BoolOpt("swift_store_use_trusts", default=True),
    cfg.StrOpt("swift_store_user", secret=True, help="project:user"),
    cfg.StrOpt("swift_upload_buffer_dir", help="Without effect: nothing is sent twice"),
]

SCHEMES = ("swift", "swift+http", "swift+https", "swift+config")
CHECK_TIMEOUT = 10  # seconds
KEYS_FOR = 60.0  # seconds that the key for links of an account is remembered


def open_swift(options: Mapping[str, Any], where: str) -> SwiftStore | TenantSwift:
    """The store that the options ask for. Raises `SettingsError`, `Unconfigured`."""
    return (TenantSwift if options["swift_store_multi_tenant"] else SwiftStore)(options, where)


class SwiftStore:
    """A `driver.Store`, and a `driver.LinkingStore`."""

    facts = Facts("swift", SCHEMES, writable=True, ranges=True)

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """Raises `SettingsError`, `Unconfigured`."""
        self._references = references(options, where)
        self._name: str = options["default_swift_reference"]
        if self._name not in self._references:
            raise Unconfigured(
                f"{where} has no Swift user {self._name!r} (default_swift_reference): name it in"
                " swift_store_config_file, or set swift_store_auth_address, swift_store_user (project:user) and"
                " swift_store_key"
            )
        self._reach = Reach.of(options)
        self._keystones: dict[str, Keystone] = {}
        self._logins: dict[Reference, ServiceLogin] = {}
        self._container: str = options["swift_store_container"]
        self._seed: int = options["swift_store_multiple_containers_seed"]
        self._makes_containers = options["swift_store_create_container_on_put"] or self._seed > 0
        self._present: set[str] = set()  # containers
        self._keys: dict[str, tuple[float, str]] = {}
        self._objects = Objects(options, where)
        self._uploads = Uploads(self._objects, options)
        self.details: Mapping[str, Any] = {
            "container": self._container,
            "large_object_size": self._uploads.large,
            "large_object_chunk_size": self._uploads.segment,
        }

    def owns(self, url: str) -> bool:
        scheme, _, rest = url.partition("://")
        reference, _, path = rest.partition("/")
        if scheme == "swift+config":
            mine = reference == self._name
        else:
            mine = "@" in rest and self._reference_of(scheme, rest) == self._references[self._name]
            path = "/".join(rest.split("/")[-2:])
        container, _, name = path.partition("/")
        named = bool(name) and "/" not in name
        return mine and named and container in (self._container, self._container_of(name))

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        place = self._place_of(image_id)
        try:
            await self._require_container(place)
            stored = await self._uploads.put(place, blocks, size)
        except Forbidden as error:
            raise Unavailable(error.message) from error
        except NotFound as error:
            self._present.discard(place.container)
            raise Unavailable("The store's container is gone.") from error
        return Stored(f"swift+config://{self._name}/{place.container}/{image_id}", stored)

    async def open(self, url: str) -> Reader:
        return await self._objects.open(self._place(url))

    async def stat(self, url: str) -> int | None:
        return await self._objects.stat(self._place(url))

    async def delete(self, url: str) -> None:
        await self._objects.delete(self._place(url))

    async def discard(self, image_id: str) -> None:
        place = self._place_of(image_id)
        await self._objects.remove(place)
        await self._objects.remove_all(place.login, place.container, f"{image_id}-")

    async def check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                login = self._login(self._references[self._name])
                if self._makes_containers:
                    await self._objects.of_account(login)
                else:
                    await self._objects.require_container(login, self._container)
        except TimeoutError:
            raise Unavailable("The store takes too long to answer.") from None
        except NotFound as error:
            raise Unavailable("The store's container is missing.") from error

    async def link(self, url: str, seconds: int) -> str | None:
        """A temporary URL (Object Storage API, Temporary URL middleware), where the account has a key for them."""
        place = self._place(url)
        await self._objects.stat(place)
        account = await place.login.account()
        until, key = self._keys.get(account.storage_url, (0.0, ""))
        if until < time.monotonic():
            headers = await self._objects.of_account(place.login)
            key = headers.get("X-Account-Meta-Temp-Url-Key") or headers.get("X-Account-Meta-Temp-Url-Key-2") or ""
            self._keys[account.storage_url] = time.monotonic() + KEYS_FOR, key
        can = (await self._objects.abilities(account.storage_url)).digests
        digest = next((name for name in ("sha256", "sha512", "sha1") if name in can), None)
        if not key or digest is None:
            LOG.info("the Swift account of the store has no key for temporary URLs")
            return None
        target, ends = url_of(account.storage_url, place), int(time.time()) + seconds
        signed = hmac.new(key.encode(), f"GET\n{ends}\n{target.raw_path}".encode(), digest).hexdigest()
        return str(target.with_query(temp_url_sig=signed, temp_url_expires=str(ends)))

    async def close(self) -> None:
        for keystone in self._keystones.values():
            keystone.close()
        await self._objects.close()

    async def _require_container(self, place: Place) -> None:
        if place.container in self._present:
            return
        try:
            await self._objects.require_container(place.login, place.container)
        except NotFound as error:
            if not self._makes_containers:
                LOG.error("Swift has no container %s: make it, or set swift_store_create_container_on_put",
                          place.container)  # fmt: skip
                raise Unavailable("The store's container is missing.") from error
            await self._objects.make_container(place.login, place.container, {})
        self._present.add(place.container)

    def _container_of(self, image_id: str) -> str:
        """With a seed, images are spread over containers by the first characters of their ids; dashes do not count."""
        if not self._seed:
            return self._container
        first = image_id.lower()[: self._seed]
        return f"{self._container}_{image_id.lower()[: self._seed + first.count('-')]}"

    def _place_of(self, image_id: str) -> Place:
        return Place(self._login(self._references[self._name]), self._container_of(image_id), image_id)

    def _place(self, url: str) -> Place:
        """What a location names. Raises `NotFound`."""
        scheme, _, rest = url.partition("://")
        parts = rest.split("/")
        if scheme not in SCHEMES or len(parts) < 3 or not all(parts) or not url.isprintable() or {".", ".."} & {*parts}:
            raise NotFound(MISSING)
        reference = self._references.get(parts[0]) if scheme == "swift+config" else self._reference_of(scheme, rest)
        if reference is None or (scheme == "swift+config" and len(parts) != 3):
            LOG.warning("a location names a Swift user or a Keystone that is not configured")
            raise NotFound(MISSING)
        return Place(self._login(reference), parts[-2], parts[-1])

    def _reference_of(self, scheme: str, rest: str) -> Reference | None:
        """The user in a location with credentials inside (Glance's), if its Keystone is one that is configured.

        Else whoever may name a place would send the service to any host. The key is always that of the location: with
        a configured one in its stead a user's name would be enough to reach all images.
        """
        credentials, at, where = rest.partition("@")
        user, colon, key = unquote(credentials).rpartition(":")
        if not at or not colon:
            return None
        address = _address(f"{'http' if scheme == 'swift+http' else 'https'}://{'/'.join(where.split('/')[:-2])}")
        same = [each for each in self._references.values() if _address(each.auth_address) == address]
        if ":" not in user or not same:
            return None
        known = (each for each in same if each.user == user and compare_digest(each.key.encode(), key.encode()))
        domains = {} if same[0].user else {"user_domain_id": "default", "project_domain_id": "default"}
        named = replace(same[0], user=user, key=key, application_credential_id="", **domains)
        return next(known, named)

    def _login(self, reference: Reference) -> ServiceLogin:
        known = self._logins.get(reference)
        if known is not None:
            return known
        address = reference.auth_address
        if address not in self._keystones:
            self._keystones[address] = Keystone(address, self._reach)
        made = ServiceLogin(reference, self._keystones[address])
        if reference in self._references.values():  # any number of others may stand in locations
            self._logins[reference] = made
        return made


def _address(address: str) -> str:
    """Keystone's address as it can be compared: without the version and the slash at its end."""
    try:
        url = URL(address if "://" in address else f"https://{address}")
    except ValueError:
        return address
    return str(url).rstrip("/").removesuffix("/v3").rstrip("/")
