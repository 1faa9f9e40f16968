"""The multi-tenant Swift store on a real Swift with Keystone."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import requests

from glimpse.domain.context import Context
from glimpse.errors import Forbidden, NotFound, SettingsError, Unavailable, Unconfigured
from glimpse.stores import swift_objects
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK, SharingStore, Store
from glimpse.stores.swift import OPTIONS
from glimpse.stores.swift_tenants import TenantSwift
from tests.rig.keystone import PASSWORD, SERVICE_USER, Keystone
from tests.rig.swift import KeystoneSwift

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}


class Accounts:
    """Swift as its users see it."""

    def __init__(self, keystone: Keystone, swift: KeystoneSwift) -> None:
        found = keystone.call("GET", "/projects")["projects"]
        self.projects: dict[str, str] = {project["name"]: project["id"] for project in found}
        self.keystone = keystone
        self.swift = swift
        self.tokens = {who: keystone.token(who, who) for who in ("demo", "alt", "admin")}

    def url(self, project: str = "demo") -> str:
        return self.swift.account_url(self.projects[project])

    def call(self, method: str, path: str, who: str = "demo", **more: Any) -> requests.Response:
        """A request in the account of `demo`."""
        with requests.Session() as session:
            session.trust_env = False
            session.headers["X-Auth-Token"] = self.tokens[who]
            return session.request(method, f"{self.url()}{path}", timeout=30, **more)

    def objects(self) -> list[str]:
        """All containers and objects that `demo` has."""
        containers = self.call("GET", "").text.split()
        return [*containers, *(name for each in containers for name in self.call("GET", f"/{each}").text.split())]

    def context(self, who: str = "demo", **more: Any) -> Context:
        return Context(project_id=self.projects[who], token=self.tokens[who], **more)

    def options(self, **more: object) -> dict[str, Any]:
        """A store in which two blocks make a segment."""
        return {
            **DEFAULTS,
            "keystone_url": "",
            "swift_store_multi_tenant": True,
            "swift_store_auth_address": f"{self.keystone.url}/v3",
            "swift_store_user": f"service:{SERVICE_USER}",
            "swift_store_key": PASSWORD,
            "swift_store_admin_tenants": ["an-admin", "no,*:*"],
            "swift_store_large_object_chunk_size": 1,
            **more,
        }


@pytest.fixture(scope="module")
def accounts(keystone: Keystone, keystone_swift: KeystoneSwift, swift_reseller: None) -> Accounts:
    return Accounts(keystone, keystone_swift)


@pytest.fixture
async def tenants(accounts: Accounts) -> AsyncIterator[TenantSwift]:
    made = TenantSwift(accounts.options(), "[test]")
    yield made
    await made.close()


@pytest.fixture(params=["caller", "service"])
def demos(request: pytest.FixtureRequest, accounts: Accounts, tenants: TenantSwift) -> Store:
    """The store for images of `demo`, for the caller, and when nobody waits any more."""
    context = accounts.context() if request.param == "caller" else None
    return tenants.on_behalf_of(context, accounts.projects["demo"])


class TestTenantSwift(ReadableStore, WritableStore):
    @pytest.fixture
    def harness(self, accounts: Accounts, demos: Store) -> Harness:
        async def place(content: bytes) -> str:
            name = str(uuid.uuid4())
            accounts.call("PUT", f"/glance_{name}").raise_for_status()
            accounts.call("PUT", f"/glance_{name}/{name}", data=content).raise_for_status()
            return f"swift+{accounts.url()}/glance_{name}/{name}"

        missing = f"swift+{accounts.url()}/glance_missing/missing"
        return Harness(demos, place, missing, lambda: len(accounts.objects()))


async def stored(accounts: Accounts, tenants: TenantSwift, content: bytes = b"x") -> tuple[str, str]:
    """The id and the URL of an image of `demo`."""
    image = str(uuid.uuid4())
    demos = tenants.on_behalf_of(accounts.context(), accounts.projects["demo"])
    return image, (await demos.put(image, blocks(content), len(content))).url


async def test_where_it_is_and_who_may(accounts: Accounts, tenants: TenantSwift) -> None:
    """As Glance writes it (spec 4.4). What is no project's id is nobody in Swift's lists."""
    image, url = await stored(accounts, tenants)
    assert url == f"swift+{accounts.url()}/glance_{image}/{image}"
    demo, alt = accounts.projects["demo"], accounts.projects["alt"]
    made = accounts.call("HEAD", f"/glance_{image}").headers
    assert (made["X-Container-Read"], made["X-Container-Write"]) == (f"{demo}:*", "an-admin:*")
    demos = tenants.on_behalf_of(accounts.context(), demo)
    assert isinstance(demos, SharingStore)
    for public, readers, acl in (
        (False, [demo, alt, demo], f"{demo}:*,{alt}:*"),
        (True, [demo], "*:*"),
        (False, [demo, ".r:*", "*", "a,.r", ".rlistings", "x:y", "a b", ""], f"{demo}:*"),
        (False, [], ""),
    ):
        await demos.share(url, public, readers)
        assert accounts.call("HEAD", f"/glance_{image}").headers.get("X-Container-Read", "") == acl
    with pytest.raises(NotFound):
        await demos.share(f"swift+{accounts.url()}/glance_missing/missing", True, [])
    await demos.delete(url)


async def test_who_acts_for_whom(accounts: Accounts, tenants: TenantSwift) -> None:
    """Swift's list does not have everybody whom the service lets read, and admins act for owners."""
    image, url = await stored(accounts, tenants)
    demo = accounts.projects["demo"]
    for context in (accounts.context("alt"), accounts.context("admin", is_admin=True), None):
        assert await read(tenants.on_behalf_of(context, demo), url) == b"x"
    await tenants.on_behalf_of(accounts.context("admin", is_admin=True), demo).delete(url)
    assert accounts.call("HEAD", f"/glance_{image}").status_code == 404


async def test_the_services_rights_end_at_the_owners_account(accounts: Accounts, tenants: TenantSwift) -> None:
    """Who gives an image of their own a place in another account has it neither read nor erased."""
    image, url = await stored(accounts, tenants)
    alt = accounts.projects["alt"]
    thiefs = tenants.on_behalf_of(accounts.context("alt"), alt)
    nobodys = tenants.on_behalf_of(None, alt)
    demos = f"swift+{accounts.url()}/glance_{image}"
    for call in (thiefs.open, thiefs.stat, thiefs.delete):
        with pytest.raises(Forbidden):
            await call(url)
    for call in (nobodys.open, nobodys.stat, nobodys.delete, tenants.open, tenants.delete):
        with pytest.raises(NotFound):
            await call(url)
    with pytest.raises(NotFound):
        await tenants.on_behalf_of(None, accounts.projects["demo"]).delete(f"{demos}/{uuid.uuid4()}")
    assert await read(tenants.on_behalf_of(None, accounts.projects["demo"]), url) == b"x"
    await tenants.on_behalf_of(None, accounts.projects["demo"]).delete(url)


async def test_a_token_goes_to_a_swift_of_the_catalog_only(accounts: Accounts, tenants: TenantSwift) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1000))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        demos = tenants.on_behalf_of(accounts.context(), accounts.projects["demo"])
        for host in (f"127.0.0.1:{port}", f"user:key@127.0.0.1:{port}", f"127.0.0.1:{port}\\@swift", f"x@:{port}"):
            with pytest.raises(NotFound):
                await demos.open(f"swift+http://{host}/v1/AUTH_x/glance_y/y")
    assert asked == []


@pytest.mark.parametrize(
    "url",
    [
        "swift+http://host/v1/AUTH_x/glance_y/y?multipart-manifest=get", "swift+http://host/v1/../glance_y/y",
        "swift+http://host/v1/AUTH_x/glance_y/..", "swift+http://host/v1/AUTH%5fx/glance_y/y", "swift+http://host/a/b/",
        "swift+http:///v1/AUTH_x/glance_y/y", "swift+http://:0x/v1/AUTH_x/glance_y/y", "swift+config://ref1/glance/y",
        "swift+http://host/v1/AUTH_x/glance_y/y#z", "swift+http://host/v1/AUTH_x/glance_y/y\n",
    ],
)  # fmt: skip
async def test_what_is_no_location(tenants: TenantSwift, url: str) -> None:
    assert not tenants.owns(url)
    with pytest.raises(NotFound):
        await tenants.open(url)


async def test_a_store_without_a_user_of_its_own(accounts: Accounts) -> None:
    """Callers do everything; what nobody waits for has to wait."""
    alone = {"swift_store_auth_address": None, "keystone_url": accounts.keystone.url, "swift_store_user": None}
    tenants = TenantSwift(accounts.options(**alone), "[test]")
    image, url = await stored(accounts, tenants)
    demo = accounts.projects["demo"]
    with pytest.raises(Forbidden):
        await tenants.on_behalf_of(accounts.context("alt"), demo).open(url)
    nobodys = tenants.on_behalf_of(None, demo)
    for call in (nobodys.stat(url), nobodys.delete(url), nobodys.discard(image), tenants.put(image, blocks(b""), 0)):
        with pytest.raises(Unavailable):
            await call
    await tenants.check()
    await tenants.on_behalf_of(accounts.context(), demo).delete(url)
    await tenants.close()


async def test_swift_away_and_back(accounts: Accounts, tenants: TenantSwift, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of an upload that its server did not survive, when it is back and asked."""
    monkeypatch.setattr(swift_objects, "PAUSES", (0.05,))
    image, demo, before = str(uuid.uuid4()), accounts.projects["demo"], accounts.objects()
    demos = tenants.on_behalf_of(accounts.context(), demo)

    async def stopping() -> AsyncIterator[bytes]:
        async for block in blocks(secrets.token_bytes(4 * BLOCK)):
            yield block
            accounts.swift.stop()

    with pytest.raises(Unavailable):
        await demos.put(image, stopping(), None)
    with pytest.raises(Unavailable):
        await tenants.check()
    accounts.swift.start()
    await tenants.check()
    await tenants.on_behalf_of(None, demo).discard(image)
    assert accounts.objects() == before


async def test_a_service_user_that_keystone_refuses(accounts: Accounts, caplog: pytest.LogCaptureFixture) -> None:
    """Callers go on by themselves."""
    tenants = TenantSwift(accounts.options(swift_store_key="wrong-key"), "[test]")
    _, url = await stored(accounts, tenants)
    demo = accounts.projects["demo"]
    for call in (tenants.check(), tenants.on_behalf_of(None, demo).delete(url)):
        with pytest.raises(Unavailable):
            await call
    await tenants.on_behalf_of(accounts.context(), demo).delete(url)
    assert "wrong-key" not in caplog.text
    await tenants.close()


def test_what_cannot_be_configured(accounts: Accounts) -> None:
    with pytest.raises(SettingsError, match="swift_store_config_file"):
        TenantSwift(accounts.options(swift_store_config_file="/etc/glance/glance-swift.conf"), "[test]")
    with pytest.raises(Unconfigured, match="auth_url"):
        TenantSwift({**DEFAULTS, "keystone_url": "", "swift_store_multi_tenant": True}, "[test]")
