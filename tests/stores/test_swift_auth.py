"""Who the Swift stores are: service users, callers and trusts, on a real Keystone."""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from glimpse.errors import Unauthorized, Unavailable
from glimpse.stores import swift_auth
from glimpse.stores.swift_auth import CallerLogin, Keystone, LastingLogin, Reach, ServiceLogin
from glimpse.stores.swift_users import Reference
from tests.rig import keystone as rig

SERVICE = "object-elsewhere"  # not Swift's own type, which other tests give to a Swift that runs
STORAGE = "https://swift.example:8443/v1/AUTH_%(project_id)s"
PASSWORD = rig.PASSWORD
OPTIONS: dict[str, Any] = {
    "swift_store_auth_insecure": False,
    "swift_store_cacert": None,
    "swift_store_region": None,
    "swift_store_service_type": SERVICE,
    "swift_store_endpoint_type": "publicURL",
    "swift_store_endpoint": None,
    "swift_store_expire_soon_interval": 60,
}


@pytest.fixture(scope="module")
def server(keystone: rig.Keystone) -> Iterator[rig.Keystone]:
    """Keystone with a store in its catalog."""
    service = keystone.call("POST", "/services", {"service": {"name": SERVICE, "type": SERVICE}})["service"]["id"]
    for interface, url in (("public", STORAGE), ("internal", STORAGE.replace("swift.", "inside."))):
        entry = {"service_id": service, "interface": interface, "url": url, "region_id": rig.REGION}
        keystone.call("POST", "/endpoints", {"endpoint": entry})
    yield keystone
    keystone.call("DELETE", f"/services/{service}")


@pytest.fixture
async def asked(server: rig.Keystone) -> AsyncIterator[Keystone]:
    made = Keystone(server.url, Reach.of(OPTIONS))
    yield made
    made.close()


def user_of(server: rig.Keystone, password: str = PASSWORD) -> Reference:
    return Reference(
        server.url, f"service:{rig.SERVICE_USER}", password, user_domain_id="default", project_domain_name="Default"
    )


def project_id(server: rig.Keystone, name: str) -> str:
    (project,) = server.call("GET", f"/projects?name={name}")["projects"]
    return str(project["id"])


async def test_the_account_of_the_service(server: rig.Keystone, asked: Keystone) -> None:
    """One login serves everybody until its token is refused; nobody sees the token."""
    login = ServiceLogin(user_of(server), asked)
    found = await asyncio.gather(*(login.account() for _ in range(10)))
    assert len({account.token for account in found}) == 1
    assert found[0].storage_url == STORAGE % {"project_id": project_id(server, "service")}
    again = await asyncio.gather(*(login.renewed(found[0]) for _ in range(5)))
    assert {account.token for account in again} == {(await login.account()).token} != {found[0].token}
    for what in (found[0], await login.grant(), user_of(server)):
        assert found[0].token not in repr(what)
        assert again[0].token not in repr(what)
        assert PASSWORD not in repr(what)


async def test_a_token_that_ends_soon_is_replaced(server: rig.Keystone) -> None:
    asked = Keystone(server.url, Reach.of({**OPTIONS, "swift_store_expire_soon_interval": 10**6}))
    login = ServiceLogin(user_of(server), asked)
    assert (await login.account()).token != (await login.account()).token
    asked.close()


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"swift_store_endpoint_type": "internalURL"}, STORAGE.replace("swift.", "inside.")),
        ({"swift_store_region": rig.REGION}, STORAGE),
        ({"swift_store_endpoint": "https://elsewhere.example/v1/all/"}, "https://elsewhere.example/v1/all"),
        ({"swift_store_region": "Nowhere"}, None),
        ({"swift_store_endpoint_type": "adminURL"}, None),
        ({"swift_store_service_type": "nothing"}, None),
    ],
)
async def test_which_swift_is_meant(server: rig.Keystone, options: dict[str, str], url: str | None) -> None:
    asked = Keystone(server.url, Reach.of({**OPTIONS, **options}))
    login = ServiceLogin(user_of(server), asked)
    if url is None:
        with pytest.raises(Unavailable):
            await login.account()
    else:
        assert (await login.account()).storage_url == url % {"project_id": project_id(server, "service")}
    asked.close()


async def test_wrong_credentials(server: rig.Keystone, asked: Keystone, caplog: pytest.LogCaptureFixture) -> None:
    login = ServiceLogin(user_of(server, "not-the-key"), asked)
    with pytest.raises(Unavailable) as failure:
        await login.account()
    assert "credentials" in failure.value.message
    assert "refuses the Swift store's own user" in caplog.text
    assert "not-the-key" not in caplog.text + failure.value.message


async def test_an_application_credential(server: rig.Keystone, asked: Keystone) -> None:
    token = server.token(rig.SERVICE_USER, "service")
    user = (await asked.grant_of(token)).user
    secret = {"application_credential": {"name": str(uuid.uuid4()), "secret": "app-secret"}}
    made = asked._call("POST", f"/users/{user}/application_credentials", token, secret).json()
    credential = made["application_credential"]["id"]
    reference = Reference(server.url, application_credential_id=credential, application_credential_secret="app-secret")
    service = ServiceLogin(reference, asked)
    account = await service.account()
    assert account.storage_url.endswith(project_id(server, "service"))
    assert "app-secret" not in repr(reference)
    with server.short_lived_token("demo", "demo", 100) as (short, _):
        # It cannot act within a trust, so the upload goes on with the caller's token for as long as that holds.
        login = LastingLogin(CallerLogin(asked, short), service, trusts=True)
        for _ in range(10):
            assert (await login.account()).token == short
            await asyncio.sleep(0.01)
        await login.close()


async def test_keystone_away_and_back(server: rig.Keystone, asked: Keystone, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds a token goes on; what has none fails, and works again without a restart."""
    monkeypatch.setattr(swift_auth, "PAUSES", (0.01,))
    soon = Keystone(server.url, Reach.of({**OPTIONS, "swift_store_expire_soon_interval": 10**6}))
    with_token, without = ServiceLogin(user_of(server), soon), ServiceLogin(user_of(server), asked)
    held = await with_token.account()
    server.stop()
    try:
        assert await with_token.account() == held
        with pytest.raises(Unavailable) as failure:
            await without.account()
        assert server.url not in failure.value.message
        assert str(server.port) not in failure.value.message
    finally:
        server.start()
    assert (await without.account()).token
    assert (await with_token.account()).token != held.token
    soon.close()


async def test_a_keystone_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swift_auth, "TIMEOUT", 0.2)
    monkeypatch.setattr(swift_auth, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = Keystone(f"http://127.0.0.1:{listener.getsockname()[1]}", Reach.of(OPTIONS))
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await asked.grant_of("token")
        asked.close()


async def test_the_account_of_a_caller(server: rig.Keystone, asked: Keystone) -> None:
    login = CallerLogin(asked, server.token("demo", "demo"))
    account = await login.account()
    assert account.storage_url == STORAGE % {"project_id": project_id(server, "demo")}
    with pytest.raises(Unauthorized):
        await login.renewed(account)
    with pytest.raises(Unauthorized):
        await CallerLogin(asked, "no-token").account()


async def test_an_upload_outlasts_its_token(server: rig.Keystone, asked: Keystone) -> None:
    """A trust in time, with the caller's own rights, gone afterwards (spec 4.4, swift_store_use_trusts)."""
    service = ServiceLogin(user_of(server), asked)
    with server.short_lived_token("demo", "demo", 6) as (token, _):
        caller = CallerLogin(asked, token)
        login = LastingLogin(caller, service, trusts=True)
        first = await login.account()
        assert first.token == token
        demo = (await caller.grant()).user
        async with asyncio.timeout(30):
            while (renewed := await login.account()).token == token:
                await asyncio.sleep(0.1)
    assert renewed.storage_url == first.storage_url
    assert login._trusted is not None
    assert (await login._trusted.grant()).user == demo
    assert len(trusts_of(server, demo)) == 1
    assert (await login.renewed(renewed)).token not in (token, renewed.token)
    await login.close()
    assert trusts_of(server, demo) == []


async def test_an_upload_that_ends_in_time_makes_no_trust(server: rig.Keystone, asked: Keystone) -> None:
    caller = CallerLogin(asked, server.token("demo", "demo"))
    login = LastingLogin(caller, ServiceLogin(user_of(server), asked), trusts=True)
    await login.account()
    await asyncio.sleep(0)
    assert trusts_of(server, (await caller.grant()).user) == []
    await login.close()


@pytest.mark.parametrize("known", [True, False])
async def test_without_a_trust_the_service_takes_over(server: rig.Keystone, asked: Keystone, known: bool) -> None:
    """OSSA-2015-020: a token that ends in the middle must not leave bytes that nobody can remove."""
    service = ServiceLogin(user_of(server), asked)
    login = LastingLogin(CallerLogin(asked, server.token("demo", "demo")), service if known else None, trusts=False)
    account = await login.account()
    if not known:
        with pytest.raises(Unauthorized):
            await login.renewed(account)
    else:
        assert await login.renewed(account) == await login.account()
        assert (await login.account()).token == (await service.account()).token
        assert (await login.account()).storage_url == account.storage_url
    await login.close()


async def test_no_secret_in_the_log(server: rig.Keystone, asked: Keystone, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the libraries say at DEBUG (OSSN-0052)."""
    with caplog.at_level(logging.DEBUG):
        token = server.token("demo", "demo")
        service = ServiceLogin(user_of(server), asked)
        mine = (await service.account()).token
        caller = await asked.grant_of(token)
        trust = await asked.trust(caller, (await service.grant()).user)
        trusted = (await service.within(trust).grant()).token
        await asked.end_trust(trust, trusted)
    assert "keystoneauth" in "".join(record.name for record in caplog.records)
    for secret in (token, mine, trusted, PASSWORD):
        assert secret not in caplog.text


def trusts_of(server: rig.Keystone, user: str) -> list[Any]:
    found: list[Any] = server.call("GET", f"/OS-TRUST/trusts?trustor_user_id={user}")["trusts"]
    return found
