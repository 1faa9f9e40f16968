"""Store `swift` with `swift_store_multi_tenant`: each image in a container of its own, in its owner's account.

A caller's token does what that caller asks for. Where nobody waits any more, and where an admin acts on somebody's
image, the service's own user does it; Swift must let it into all accounts (a reseller role). Two rules keep that from
being anybody's key: a token goes only to where Keystone's catalog has a Swift, whatever a location says, and the
service's own user works only in the account of the image's owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from yarl import URL

from glimpse.domain.context import Context
from glimpse.errors import (
    Duplicate,
    Forbidden,
    GlimpseError,
    NotFound,
    SettingsError,
    Unauthorized,
    Unavailable,
    Unconfigured,
)
from glimpse.stores.driver import Facts, Reader, Store, Stored
from glimpse.stores.swift_auth import (
    Account,
    CallerLogin,
    Grant,
    Keystone,
    LastingLogin,
    Login,
    Reach,
    ServiceLogin,
)
from glimpse.stores.swift_objects import MISSING, Objects, Place
from glimpse.stores.swift_uploads import Uploads
from glimpse.stores.swift_users import references

LOG = logging.getLogger(__name__)
T = TypeVar("T")

SCHEMES = {"swift": "https", "swift+https": "https", "swift+http": "http"}
CHECK_TIMEOUT = 10  # seconds
ALONE = "nobody waits for this call, and the Swift store has no service user to do it with"
NOBODY = "The store has no account for this image: it needs a caller, or a service user of its own."

# What else stands in a list of readers means something to Swift: `.r:*` is the whole internet (OSSN-0025).
_PROJECT = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]*")


class _Grants(Protocol):
    async def grant(self) -> Grant: ...


@dataclass(frozen=True)
class _Found:
    """What a location says."""

    storage_url: str
    container: str
    name: str


class TenantSwift:
    """A `driver.PersonalStore` and, for the service's own projects, a `driver.Store`."""

    facts = Facts("swift", tuple(SCHEMES), writable=True, ranges=True)

    def __init__(self, options: Mapping[str, Any], where: str) -> None:
        """Raises `SettingsError`, `Unconfigured`."""
        if options["swift_store_config_file"]:
            raise SettingsError(
                f"{where} swift_store_config_file and swift_store_multi_tenant exclude each other: name the service's"
                " user by swift_store_auth_address, swift_store_user and swift_store_key"
            )
        reference = references(options, where).get(options["default_swift_reference"])
        address = reference.auth_address if reference else options["keystone_url"]
        if not address:
            raise Unconfigured(
                f"{where} swift_store_multi_tenant needs Keystone: set [keystone_authtoken] auth_url, or"
                " swift_store_auth_address with swift_store_user and swift_store_key"
            )
        self.container: str = options["swift_store_container"]
        self.keystone = Keystone(address, Reach.of(options))
        self.service = None if reference is None else ServiceLogin(reference, self.keystone)
        self.objects = Objects(options, where)
        self.uploads = Uploads(self.objects, options)
        self.trusts: bool = options["swift_store_use_trusts"]
        self.writers = _list(options["swift_store_admin_tenants"])
        self.details: Mapping[str, Any] = {
            "container": self.container,
            "large_object_size": self.uploads.large,
            "large_object_chunk_size": self.uploads.segment,
        }
        self._origins: frozenset[URL] = frozenset()
        self._of_nobody = _OwnersSwift(self, None, None)

    def on_behalf_of(self, context: Context | None, owner: str | None) -> Store:
        return _OwnersSwift(self, context, owner)

    def owns(self, url: str) -> bool:
        found = self.found(url)
        return found is not None and found.container == f"{self.container}_{found.name}"

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        return await self._of_nobody.put(image_id, blocks, size)

    async def open(self, url: str) -> Reader:
        return await self._of_nobody.open(url)

    async def stat(self, url: str) -> int | None:
        return await self._of_nobody.stat(url)

    async def delete(self, url: str) -> None:
        await self._of_nobody.delete(url)

    async def discard(self, image_id: str) -> None:
        await self._of_nobody.discard(image_id)

    async def share(self, url: str, public: bool, readers: Sequence[str]) -> None:
        await self._of_nobody.share(url, public, readers)

    async def check(self) -> None:
        """Without a user of its own the service has nothing to ask Swift with."""
        if self.service is not None:
            try:
                async with asyncio.timeout(CHECK_TIMEOUT):
                    await self.objects.of_account(self.service)
            except TimeoutError:
                raise Unavailable("The store takes too long to answer.") from None

    async def close(self) -> None:
        self.keystone.close()
        await self.objects.close()

    def found(self, url: str) -> _Found | None:
        """What a location of this kind of store says; None for any other."""
        scheme, _, rest = url.partition("://")
        parts = rest.split("/")
        if scheme not in SCHEMES or len(parts) < 4 or not all(parts) or not url.isprintable() or "@" in parts[0]:
            return None
        if any(each in (".", "..") for each in parts) or any(mark in rest for mark in "?#\\% "):
            return None
        storage_url = f"{SCHEMES[scheme]}://{'/'.join(parts[:-2])}"
        try:
            URL(storage_url).origin()
        except ValueError:
            return None
        return _Found(storage_url, parts[-2], parts[-1])

    async def require_swift(self, storage_url: str, asked: _Grants) -> None:
        """Raise `NotFound` where no Swift of the catalog is: a token must not go there."""
        origin = URL(storage_url).origin()
        if origin not in self._origins:
            self._origins |= (await asked.grant()).origins
        if origin not in self._origins:
            LOG.warning("a location leads to %s, where Keystone's catalog has no Swift", origin)
            raise NotFound(MISSING)


class _OwnersSwift:
    """The store for images of one project, asked for by one caller or by nobody; see `driver.Store`."""

    facts = TenantSwift.facts

    def __init__(self, store: TenantSwift, context: Context | None, owner: str | None) -> None:
        self._store = store
        self._owner = owner
        self.details = store.details
        token = context.token if context is not None else None
        self._caller = CallerLogin(store.keystone, token) if token else None
        self._is_owner = context is not None and (owner is None or context.project_id == owner)

    def owns(self, url: str) -> bool:
        return self._store.owns(url)

    async def put(self, image_id: str, blocks: AsyncIterator[bytes], size: int | None) -> Stored:
        login, objects, container = self._home(), self._store.objects, self._container(image_id)
        try:
            url = (await login.account()).storage_url
            acls = {"X-Container-Write": self._store.writers, "X-Container-Read": _list([self._owner or ""])}
            await objects.make_container(login, container, acls)
            try:
                stored = await self._store.uploads.put(Place(login, container, image_id), blocks, size)
            except Duplicate:
                raise
            except BaseException:
                await asyncio.shield(self._drop(login, container))
                raise
        except Forbidden as error:
            raise Unavailable(error.message) from error
        finally:
            await asyncio.shield(login.close())
        scheme, _, rest = url.partition("://")
        return Stored(f"swift+{scheme}://{rest}/{container}/{image_id}", stored)

    async def open(self, url: str) -> Reader:
        return await self._at(url, self._store.objects.open)

    async def stat(self, url: str) -> int | None:
        return await self._at(url, self._store.objects.stat)

    async def delete(self, url: str) -> None:
        await self._at(url, self._delete)

    async def _delete(self, place: Place) -> None:
        try:
            await self._store.objects.delete(place)
        except NotFound:
            await self._drop(place.login, place.container)
            raise
        await self._drop(place.login, place.container)

    async def discard(self, image_id: str) -> None:
        login, container = self._home(), self._container(image_id)
        try:
            await self._store.objects.remove_all(login, container, "")
            await self._store.objects.remove_container(login, container)
        finally:
            await asyncio.shield(login.close())

    async def share(self, url: str, public: bool, readers: Sequence[str]) -> None:
        acls = {
            "X-Container-Read": "*:*" if public else _list(readers),
            "X-Container-Write": self._store.writers,
        }
        await self._at(url, lambda place: self._store.objects.change_container(place.login, place.container, acls))

    async def check(self) -> None:
        await self._store.check()

    async def close(self) -> None:
        """Connections are the store's."""

    def _container(self, image_id: str) -> str:
        return f"{self._store.container}_{image_id}"

    def _home(self) -> Login:
        """The owner's account. Raises `Unavailable` where nobody has a way in."""
        service = self._store.service
        if self._caller is not None and self._is_owner:
            return LastingLogin(self._caller, service, self._store.trusts)
        deputy = service or self._caller
        if deputy is None:
            LOG.error(ALONE)
            raise Unavailable(NOBODY)
        return self._as(deputy)

    def _as(self, deputy: ServiceLogin | CallerLogin) -> Login:
        return _OwnersLogin(deputy, self._owner, bool(self._store.keystone.reach.endpoint))

    async def _at(self, url: str, call: Callable[[Place], Awaitable[T]]) -> T:
        """A call at a location: by the caller, and where Swift does not let that in by the service's own user.

        Raises what `call` raises, `NotFound`, `Unauthorized`, `Unavailable`.
        """
        found = self._store.found(url)
        if found is None:
            raise NotFound(MISSING)
        service = self._store.service
        if self._caller is not None:
            await self._store.require_swift(found.storage_url, self._caller)
            try:
                return await call(Place(_AtLogin(self._caller, found.storage_url), found.container, found.name))
            except (Forbidden, Unauthorized):
                # The call is allowed: an admin's, a reader's of whom Swift does not know, one whose token has ended.
                if service is None or not await self._is_home(found, service):
                    raise
        if service is None:
            LOG.error(ALONE)
            raise Unavailable(NOBODY)
        if not await self._is_home(found, service):
            LOG.warning("a location is not in the account of its image's owner, and is left alone")
            raise NotFound(MISSING)
        return await call(Place(self._as(service), found.container, found.name))

    async def _is_home(self, found: _Found, service: ServiceLogin) -> bool:
        """Whether a place is one that `put` makes for the owner.

        Else whoever may name a place could have the service read, and erase, what is somebody else's.
        """
        home = (await self._as(service).account()).storage_url
        return found.storage_url == home and found.container == self._container(found.name)

    async def _drop(self, login: Login, container: str) -> None:
        """Remove a container that should be empty; one that stays is said in the log."""
        with contextlib.suppress(NotFound):
            try:
                await self._store.objects.remove_container(login, container)
            except GlimpseError as error:
                LOG.warning("container %s stays in Swift: %s", container, error.message)


class _OwnersLogin:
    """Somebody else's token in the account of a project: its own storage URL with the other project's id."""

    def __init__(self, deputy: ServiceLogin | CallerLogin, owner: str | None, fixed: bool) -> None:
        """`fixed` where one storage URL is for all projects (`swift_store_endpoint`)."""
        self._deputy = deputy
        self._owner = owner
        self._fixed = fixed

    async def account(self) -> Account:
        grant = await self._deputy.grant()
        url = grant.account().storage_url
        if self._owner is None or self._owner == grant.project or self._fixed:
            return Account(url, grant.token)
        base, _, account = url.rpartition("/")
        if not grant.project or grant.project not in account:
            LOG.error("the storage URL of the Swift store's user does not end with a project's id, so that it leads to"
                      " nobody else's account")  # fmt: skip
            raise Unavailable(NOBODY)
        return Account(f"{base}/{account.replace(grant.project, self._owner)}", grant.token)

    async def renewed(self, old: Account) -> Account:
        await self._deputy.renewed(old)
        return await self.account()

    async def close(self) -> None:
        """The deputy is the store's."""


class _AtLogin:
    """A caller's token at a storage URL that a location names."""

    def __init__(self, caller: CallerLogin, storage_url: str) -> None:
        self._caller = caller
        self._storage_url = storage_url

    async def account(self) -> Account:
        return Account(self._storage_url, self._caller.token)

    async def renewed(self, old: Account) -> Account:
        return await self._caller.renewed(old)

    async def close(self) -> None:
        """The caller's token ends by itself."""


def _list(projects: Sequence[str]) -> str:
    """Projects with all their users, as Swift's lists have them (its keystoneauth: `<project id>:*`)."""
    return ",".join(f"{project}:*" for project in dict.fromkeys(projects) if _PROJECT.fullmatch(project))
