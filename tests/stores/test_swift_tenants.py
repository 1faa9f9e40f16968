"""The multi-tenant Swift store on a real Swift with Keystone."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import requests

from glimpse.domain.context import Context
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore
from glimpse.stores.driver import Store
from glimpse.stores.swift_objects import OPTIONS
from glimpse.stores.swift_tenants import TenantSwift
from tests.black_box.test_swift_tenants import reseller
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
def accounts(keystone: Keystone, keystone_swift: KeystoneSwift) -> Iterator[Accounts]:
    with reseller(keystone):
        yield Accounts(keystone, keystone_swift)


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
