"""Who we are towards Swift: tokens and storage URLs from Keystone (Identity API v3, the only one that Glance takes).

`ServiceLogin` uses the service's own credentials, `CallerLogin` the token that a caller came with. `LastingLogin` is
for uploads in a caller's account: they may take longer than the token holds, so it becomes a trust in time
(OSSA-2015-020: an upload must not end as bytes that nobody can remove any more).

keystoneauth1 blocks, so Keystone is asked in threads. Tokens and passwords are in no repr, log or error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from keystoneauth1 import access, session
from keystoneauth1 import exceptions as keystone_errors
from yarl import URL

from glimpse.errors import GlimpseError, Unauthorized, Unavailable
from glimpse.stores.swift_users import Reference

LOG = logging.getLogger(__name__)
T = TypeVar("T")

TIMEOUT = 10  # seconds that Keystone may be silent
PATIENCE = 25  # seconds for an answer, with everything that is tried again
PAUSES = (0.3, 1.0)  # seconds before Keystone is asked again that does not answer
THREADS = 4  # per Keystone and process
TRUST_BEFORE = 300.0  # seconds before the end of its token that a trust is made for a caller
TRUST_FOR = 86400.0  # seconds after which a trust ends that a killed process has left behind
TRUST_AGAIN = 30.0  # seconds before a trust is tried again that Keystone was away for

AWAY = "Keystone cannot be asked for access to the store now; try again in a moment."
REFUSED = "The store refuses the service's own credentials; the log says more."
ENDED = "The token does not hold any more."


@dataclass(frozen=True, slots=True)
class Account:
    """Where requests to Swift go (no slash at the end), and the token to send with them."""

    storage_url: str
    token: str = field(repr=False)


class Login(Protocol):
    """One way to an account. For any number of calls at once within one event loop."""

    async def account(self) -> Account:
        """The account with a token that holds. Raises `Unavailable`, `Unauthorized` (a caller's token has ended)."""
        ...

    async def renewed(self, old: Account) -> Account:
        """The same with another token, as Swift does not take that of `old` any more (401). Raises as `account`."""
        ...

    async def close(self) -> None:
        """Let go of threads and trusts."""
        ...


@dataclass(frozen=True)
class Reach:
    """How Keystone is spoken to, and which Swift of its catalog is meant. `soon` are seconds: see `Login.account`."""

    verify: bool | str
    service_type: str
    interface: str
    region: str | None
    endpoint: str
    soon: float

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Reach:
        """What the options of a Swift store say."""
        return cls(
            verify=False if options["swift_store_auth_insecure"] else options["swift_store_cacert"] or True,
            service_type=options["swift_store_service_type"],
            interface=options["swift_store_endpoint_type"],
            region=options["swift_store_region"] or None,
            endpoint=(options["swift_store_endpoint"] or "").rstrip("/"),
            soon=options["swift_store_expire_soon_interval"],
        )


@dataclass(frozen=True)
class Grant:
    """What Keystone says of a token. `ends` is a time as `time.time` has it; `origins` are those of every Swift."""

    token: str = field(repr=False)
    ends: float
    storage_url: str | None
    origins: frozenset[URL]
    user: str
    project: str | None
    roles: tuple[str, ...]

    def account(self) -> Account:
        """The account of the project. Raises `Unavailable` where the catalog has no Swift."""
        if self.storage_url is None:
            LOG.error("Keystone's catalog has no Swift of the configured type, interface and region for project %s",
                      self.project)  # fmt: skip
            raise Unavailable("The store cannot be found in Keystone's catalog.")
        return Account(self.storage_url, self.token)

    def lasts(self, seconds: float) -> bool:
        """Whether the token holds for so long."""
        return self.ends - time.time() > seconds


class Keystone:
    """Keystone at one address, asked in threads of its own."""

    def __init__(self, address: str, reach: Reach) -> None:
        """The address may lack a scheme (https then) and the version at its end."""
        address = (address if "://" in address else f"https://{address}").rstrip("/")
        self._address = address if address.endswith("/v3") else f"{address}/v3"
        self.reach = reach
        self._threads = ThreadPoolExecutor(THREADS, "swift-keystone")
        self._session: session.Session | None = None

    async def grant(self, reference: Reference, trust: str | None = None) -> Grant:
        """A new token for a service user, within a trust if one is named. Raises `Unavailable`."""
        plugin = reference.plugin(self._address, trust)
        try:
            found = await self._ask(lambda: plugin.get_access(self._connected()))
        except Unauthorized as error:
            LOG.error("Keystone at %s refuses the Swift store's own user: %s", self._address, error.__cause__)
            raise Unavailable(REFUSED) from error
        return self._read(found)

    async def grant_of(self, token: str) -> Grant:
        """What a token is good for. Raises `Unauthorized` (it has ended), `Unavailable`."""
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}

        def ask() -> access.AccessInfo:
            answer = self._connected().get(f"{self._address}/auth/tokens", headers=headers, authenticated=False)
            return access.create(resp=answer, auth_token=token)

        return self._read(await self._ask(ask))

    async def trust(self, trustor: Grant, trustee: str) -> str:
        """Let the user `trustee` act as the owner of a token, in its project and with its roles; the trust's id.

        Raises `Unauthorized`, also where Keystone does not let this token make trusts, and `Unavailable`.
        """
        trust = {
            "trustor_user_id": trustor.user, "trustee_user_id": trustee, "project_id": trustor.project,
            "impersonation": True, "roles": [{"name": role} for role in trustor.roles],
            "expires_at": f"{datetime.now(UTC) + timedelta(seconds=TRUST_FOR):%Y-%m-%dT%H:%M:%SZ}",
        }  # fmt: skip
        call = partial(self._call, "POST", "/OS-TRUST/trusts", trustor.token, {"trust": trust})
        return str((await self._ask(call, again=False)).json()["trust"]["id"])

    async def end_trust(self, trust: str, token: str) -> None:
        """Raises `Unauthorized`, `Unavailable`."""
        await self._ask(partial(self._call, "DELETE", f"/OS-TRUST/trusts/{trust}", token))

    def close(self) -> None:
        """Take no more calls; those that run are not waited for."""
        self._threads.shutdown(wait=False)

    def _call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        headers = {"X-Auth-Token": token}
        return self._connected().request(
            f"{self._address}{path}", method, json=body, headers=headers, authenticated=False
        )

    def _connected(self) -> session.Session:
        # Made on first use, as workers fork; made twice it is no harm.
        if self._session is None:
            self._session = session.Session(verify=self.reach.verify, timeout=TIMEOUT)
        return self._session

    async def _ask(self, call: Callable[[], T], again: bool = True) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                for pause in PAUSES if again else ():
                    with contextlib.suppress(_Away):
                        return await self._once(call)
                    await asyncio.sleep(pause)
                return await self._once(call)
        except (TimeoutError, _Away) as error:
            LOG.error("Keystone at %s does not answer: %s", self._address, str(error) or "it takes too long")
            raise Unavailable(AWAY, {"Retry-After": "5"}) from None

    async def _once(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except (keystone_errors.Unauthorized, keystone_errors.Forbidden, keystone_errors.NotFound) as error:
            raise Unauthorized(ENDED) from error
        except (keystone_errors.RetriableConnectionFailure, keystone_errors.HttpServerError) as error:
            raise _Away(" ".join(str(error).split())) from None
        except (keystone_errors.ClientException, ValueError, KeyError, TypeError) as error:
            LOG.error("Keystone at %s: %s", self._address, " ".join(str(error).split()) or type(error).__name__)
            raise Unavailable(AWAY) from None

    def _read(self, found: Any) -> Grant:
        reach, services = self.reach, found.service_catalog
        urls = services.get_urls(service_type=reach.service_type, interface=reach.interface, region_name=reach.region)
        every = services.get_urls(service_type=reach.service_type, interface=None)
        storage_url = reach.endpoint or (urls[0].rstrip("/") if urls else None)
        return Grant(
            token=found.auth_token,
            ends=found.expires.timestamp(),
            storage_url=storage_url,
            origins=frozenset(URL(url).origin() for url in (*every, storage_url) if url),
            user=found.user_id,
            project=found.project_id,
            roles=tuple(found.role_names),
        )


class _Away(Exception):
    """Keystone does not answer; it may when asked again. Never leaves this module."""


class ServiceLogin:
    """The service's own credentials; see `Login`. Any number of calls share one login."""

    def __init__(self, reference: Reference, keystone: Keystone, trust: str | None = None) -> None:
        """With `trust`, as the one whom that trust is from."""
        self.keystone = keystone
        self._reference = reference
        self._trust = trust
        self._grant: Grant | None = None
        self._asking: asyncio.Task[Grant] | None = None

    async def grant(self) -> Grant:
        """A token that holds for `Reach.soon` seconds, if Keystone gives one. Raises `Unavailable`."""
        known = self._grant
        if known is not None and known.lasts(self.keystone.reach.soon):
            return known
        try:
            return await self._new()
        except Unavailable:
            if known is not None and known.lasts(0):
                return known
            raise

    async def account(self) -> Account:
        return (await self.grant()).account()

    async def renewed(self, old: Account) -> Account:
        self.forget(old)
        return await self.account()

    def forget(self, old: Account) -> None:
        """Let the next `grant` be another one, if it still is that of `old`."""
        if self._grant is not None and self._grant.token == old.token:
            self._grant = None

    @property
    def takes_trusts(self) -> bool:
        """Whether Keystone lets this user act within a trust: not by an application credential."""
        return not self._reference.application_credential_id

    def within(self, trust: str) -> ServiceLogin:
        """The same user as the one whom a trust is from."""
        return ServiceLogin(self._reference, self.keystone, trust)

    async def close(self) -> None:
        self.keystone.close()

    async def _new(self) -> Grant:
        if self._asking is None:
            self._asking = asyncio.create_task(self._log_in())
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    async def _log_in(self) -> Grant:
        self._grant = await self.keystone.grant(self._reference, self._trust)
        return self._grant

    def _asked(self, task: asyncio.Task[Grant]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # whoever waited has it; perhaps nobody waits any more


class CallerLogin:
    """The token that a caller came with; see `Login`. There is no other when it has ended."""

    def __init__(self, keystone: Keystone, token: str) -> None:
        self._keystone = keystone
        self.token = token
        self._grant: Grant | None = None

    async def grant(self) -> Grant:
        """What the token is good for; Keystone is asked once. Raises `Unauthorized`, `Unavailable`."""
        if self._grant is None:
            self._grant = await self._keystone.grant_of(self.token)
        return self._grant

    async def account(self) -> Account:
        return (await self.grant()).account()

    async def renewed(self, old: Account) -> Account:
        raise Unauthorized(ENDED)

    async def close(self) -> None:
        """The threads are the store's."""


class LastingLogin:
    """A caller's account for an upload, which may outlast the caller's token; see `Login`.

    Shortly before that ends the caller trusts the service's user, if Keystone lets it; an upload that ends earlier
    costs nothing. Where the token fails and there is no trust, the service's own credentials take over: the caller was
    allowed to upload when it began, and what is there has to be finished or removed (OSSA-2015-020).
    """

    def __init__(self, caller: CallerLogin, service: ServiceLogin | None, trusts: bool) -> None:
        self._caller = caller
        self._service = service
        self._trusts = trusts
        self._keeper: asyncio.Task[None] | None = None
        self._trust = ""
        self._trusted: ServiceLogin | None = None
        self._deputy = False
        self._closing = asyncio.Event()

    async def account(self) -> Account:
        own = (await self._caller.grant()).account()
        if self._keeper is None and self._trusts and self._service is not None and self._service.takes_trusts:
            self._keeper = asyncio.create_task(self._keep(self._service))
        deputy = self._trusted or (self._service if self._deputy else None)
        return own if deputy is None else Account(own.storage_url, (await deputy.grant()).token)

    async def renewed(self, old: Account) -> Account:
        own = (await self._caller.grant()).account()
        deputy = self._trusted or self._service
        if deputy is None:
            raise Unauthorized(ENDED)
        self._deputy = True
        deputy.forget(old)
        return Account(own.storage_url, (await deputy.grant()).token)

    async def close(self) -> None:
        """End the trust, if there is one."""
        self._closing.set()
        if self._keeper is not None:
            await asyncio.wait([self._keeper])
        if self._trusted is None or self._service is None:
            return
        try:
            await self._service.keystone.end_trust(self._trust, (await self._trusted.grant()).token)
        except GlimpseError as error:
            LOG.warning("trust %s of an upload stays in Keystone until it ends: %s", self._trust, error.message)

    async def _keep(self, service: ServiceLogin) -> None:
        """Have a trust before the token ends."""
        caller = await self._caller.grant()
        pause = max(0.0, caller.ends - time.time() - TRUST_BEFORE)
        while not await self._closes_within(pause) and caller.lasts(0):
            try:
                await self._make_trust(caller, service)
                return
            except Unauthorized:
                LOG.info("a caller of project %s cannot trust the service's user; its upload has to end in time",
                         caller.project)  # fmt: skip
                return
            except Unavailable:
                pause = TRUST_AGAIN

    async def _closes_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._closing.wait(), seconds)
        return False

    async def _make_trust(self, caller: Grant, service: ServiceLogin) -> None:
        trustee = (await service.grant()).user
        self._trust = await service.keystone.trust(caller, trustee)
        trusted = service.within(self._trust)
        try:
            await trusted.grant()
        except GlimpseError:
            await service.keystone.end_trust(self._trust, caller.token)
            raise
        self._trusted = trusted
