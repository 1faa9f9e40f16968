"""The Swift store with one user for all images, on a real Swift with Keystone."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from glimpse.errors import Conflict, Forbidden, NotFound, SettingsError, StoreFull, Unavailable, Unconfigured
from glimpse.stores import swift_objects, swift_uploads
from glimpse.stores.conformance import Harness, ReadableStore, WritableStore, blocks, read
from glimpse.stores.driver import BLOCK
from glimpse.stores.swift import OPTIONS, SwiftStore
from tests.rig.keystone import PASSWORD, SERVICE_USER, Keystone
from tests.rig.swift import KeystoneSwift

DEFAULTS: dict[str, Any] = {option.dest: option.default for option in OPTIONS}
UNIT = 1000 * 1024  # what Glance calls a megabyte
USER = f"service:{SERVICE_USER}"


class Account:
    """The account of the service's project, as its own user sees it."""

    def __init__(self, keystone: Keystone, swift: KeystoneSwift) -> None:
        (project,) = keystone.call("GET", "/projects?name=service")["projects"]
        self.url = swift.account_url(project["id"])
        self.keystone = keystone
        self.swift = swift
        self._token = keystone.token(SERVICE_USER, "service")

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {"X-Auth-Token": self._token, **more.pop("headers", {})}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, f"{self.url}{path}", timeout=30, headers=headers, **more)
        answer.raise_for_status()
        return answer

    def objects(self, container: str = "glance") -> list[str]:
        return self.call("GET", f"/{container}").text.split()

    def options(self, **more: object) -> dict[str, Any]:
        """Images of 1 MB and more are in segments of 1 MB."""
        return {
            **DEFAULTS,
            "swift_store_auth_address": f"{self.keystone.url}/v3",
            "swift_store_user": USER,
            "swift_store_key": PASSWORD,
            "swift_store_large_object_size": 1,
            "swift_store_large_object_chunk_size": 1,
            "swift_store_create_container_on_put": True,
            **more,
        }


@pytest.fixture(scope="module")
def account(keystone: Keystone, keystone_swift: KeystoneSwift) -> Iterator[Account]:
    made = Account(keystone, keystone_swift)
    made.call("PUT", "/glance")
    yield made
    for container in made.call("GET", "").text.split():
        paths = [f"/{container}/{name}" for name in made.objects(container)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(partial(made.call, "DELETE"), paths))
        made.call("DELETE", f"/{container}")


@pytest.fixture
async def store(account: Account) -> AsyncIterator[SwiftStore]:
    made = SwiftStore(account.options(), "[test]")
    yield made
    await made.close()


class TestSwiftStore(ReadableStore, WritableStore):
    @pytest.fixture
    async def harness(self, account: Account, store: SwiftStore) -> Harness:
        async def place(content: bytes) -> str:
            name = str(uuid.uuid4())
            account.call("PUT", f"/glance/{name}", data=content)
            return f"swift+config://ref1/glance/{name}"

        return Harness(store, place, "swift+config://ref1/glance/missing", lambda: len(account.objects()))


async def test_static_large_objects_are_deleted_with_their_segments(account: Account, store: SwiftStore) -> None:
    """Glance has made them at times (spec 4.4)."""
    name = str(uuid.uuid4())
    for part in ("a", "b"):
        account.call("PUT", f"/glance/{name}/{part}", data=part.encode() * 10)
    for manifest, parts in ((f"{name}/c", ("b",)), (name, ("a", "c"))):  # one in the other
        paths = [{"path": f"/glance/{name}/{part}"} for part in parts]
        account.call("PUT", f"/glance/{manifest}", params={"multipart-manifest": "put"}, json=paths)
    url = f"swift+config://ref1/glance/{name}"
    assert await read(store, url) == b"a" * 10 + b"b" * 10
    await store.delete(url)
    assert [each for each in account.objects() if each.startswith(name)] == []


@pytest.mark.parametrize("user", [USER, quote(USER, safe="")])
async def test_what_glance_wrote_with_credentials_inside(account: Account, store: SwiftStore, user: str) -> None:
    """The key is that of the location, or a user's name would be enough to read all images. No other host is asked."""
    name = str(uuid.uuid4())
    account.call("PUT", f"/glance/{name}", data=b"old")
    host = account.keystone.url.removeprefix("http://")
    url = f"swift+http://{user}:{PASSWORD}@{host}/v3/glance/{name}"
    assert await read(store, url) == b"old"
    assert store.owns(url)
    guessed = f"swift+http://{user}:guessed@{host}/v3/glance/{name}"
    assert not store.owns(guessed)
    with pytest.raises(Unavailable):
        await store.open(guessed)
    for other in (
        f"swift+http://{user}:{PASSWORD}@127.0.0.1:1/v3/glance/{name}",
        f"swift+https://{user}:{PASSWORD}@{host}/v3/glance/{name}",
        f"swift+http://{host}/v3/glance/{name}",
        f"swift+config://other/glance/{name}",
        f"swift+config://ref1/more/glance/{name}",
        f"swift+config://ref1/glance/../glance/{name}",
        "swift+config://ref1/../glance",
    ):
        with pytest.raises(NotFound):
            await store.open(other)
        assert not store.owns(other)
    with pytest.raises(Unavailable):
        await store.open(f"swift+http://service:other:{PASSWORD}@{host}/v3/glance/{name}")


async def test_references_of_a_file(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "glance-swift.conf"
    path.write_text(f"[mine]\nuser = {USER}\nkey = {PASSWORD}\nauth_address = {account.keystone.url}/v3\n")
    named = {"swift_store_config_file": str(path), "default_swift_reference": "mine"}
    store = SwiftStore({**account.options(), **named, "swift_store_user": None}, "[test]")
    image = str(uuid.uuid4())
    stored = await store.put(image, blocks(b"x"), 1)
    assert stored.url == f"swift+config://mine/glance/{image}"
    assert await read(store, stored.url) == b"x"
    await store.close()
    with pytest.raises(Unconfigured, match="ref1"):
        SwiftStore({**account.options(), "swift_store_config_file": str(path)}, "[test]")


async def test_images_are_spread_over_containers(account: Account) -> None:
    """`swift_store_multiple_containers_seed`; a dash among the characters does not count."""
    store = SwiftStore(account.options(swift_store_multiple_containers_seed=9), "[test]")
    image = "ABCDEF01-2345-6789-abcd-ef0123456789"
    stored = await store.put(image, blocks(b"x"), 1)
    assert stored.url == f"swift+config://ref1/glance_abcdef01-2/{image}"
    assert store.owns(stored.url)
    assert await read(store, stored.url) == b"x"
    await store.discard(image)
    assert account.objects("glance_abcdef01-2") == []
    await store.close()


async def test_a_container_that_is_missing(account: Account, caplog: pytest.LogCaptureFixture) -> None:
    names = {"swift_store_container": "absent", "swift_store_create_container_on_put": False}
    store = SwiftStore(account.options(**names), "[test]")
    with pytest.raises(Unavailable):
        await store.put(str(uuid.uuid4()), blocks(b"x"), 1)
    assert "swift_store_create_container_on_put" in caplog.text
    with pytest.raises(Unavailable):
        await store.check()
    await store.discard(str(uuid.uuid4()))
    await store.close()


async def test_a_quota_that_is_reached(account: Account, store: SwiftStore) -> None:
    before = account.objects()
    account.call("POST", "/glance", headers={"X-Container-Meta-Quota-Bytes": str(UNIT + 10)})
    try:
        content = secrets.token_bytes(3 * UNIT)
        for size in (len(content), None):
            with pytest.raises(StoreFull):
                await store.put(str(uuid.uuid4()), blocks(content), size)
        assert account.objects() == before
    finally:
        account.call("POST", "/glance", headers={"X-Container-Meta-Quota-Bytes": ""})


async def test_wrong_credentials(account: Account, caplog: pytest.LogCaptureFixture) -> None:
    store = SwiftStore(account.options(swift_store_key="wrong-key"), "[test]")
    for call in (store.check(), store.put(str(uuid.uuid4()), blocks(b"x"), 1), store.stat("swift+config://ref1/a/b")):
        with pytest.raises(Unavailable):
            await call
    assert "wrong-key" not in caplog.text
    await store.close()


async def test_a_user_without_rights(account: Account, store: SwiftStore) -> None:
    reader = SwiftStore(account.options(swift_store_user="demo:demo_reader"), "[test]")
    with pytest.raises(Forbidden):
        await reader.check()
    with pytest.raises(Unavailable):
        await reader.put(str(uuid.uuid4()), blocks(b"x"), 1)
    for call in (reader.open, reader.delete):
        with pytest.raises(Forbidden):
            await call("swift+config://ref1/glance/image")
    await reader.close()


async def test_a_server_that_stops_in_an_upload(
    account: Account, store: SwiftStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload fails, and what it left goes with the next try; nothing has to be restarted here."""
    monkeypatch.setattr(swift_objects, "PAUSES", (0.05,))
    monkeypatch.setattr(swift_uploads, "PAUSES", (0.05,))
    image, before = str(uuid.uuid4()), account.objects()
    content = secrets.token_bytes(3 * UNIT)

    async def stopping() -> AsyncIterator[bytes]:
        async for block in blocks(content):
            yield block
            account.swift.stop()

    with pytest.raises(Unavailable):
        await store.put(image, stopping(), len(content))
    with pytest.raises(Unavailable):
        await store.check()
    account.swift.start()
    await store.discard(image)
    assert account.objects() == before
    stored = await store.put(image, blocks(content), len(content))
    assert await read(store, stored.url) == content
    await store.delete(stored.url)


async def test_a_download_goes_on_where_it_broke_off(account: Account, store: SwiftStore) -> None:
    image, content = str(uuid.uuid4()), secrets.token_bytes(20 * BLOCK)
    account.call("PUT", f"/glance/{image}", data=content)
    reader = await store.open(f"swift+config://ref1/glance/{image}")
    got = []
    async for block in reader.stream(0, None):
        got.append(block)
        if len(got) == 3:
            account.swift.stop()
            account.swift.start()
    assert b"".join(got) == content
    await reader.close()


async def test_a_token_that_swift_takes_no_more(account: Account, store: SwiftStore) -> None:
    stored = await store.put(str(uuid.uuid4()), blocks(b"x"), 1)
    (login,) = store._logins.values()
    for call in (lambda: read(store, stored.url), lambda: store.put(str(uuid.uuid4()), blocks(b"y"), 1)):
        assert login._grant is not None
        object.__setattr__(login._grant, "token", "no-token-any-more")
        await call()
    await store.delete(stored.url)


async def test_links(account: Account, store: SwiftStore) -> None:
    """Anybody reads from them, without a token, until they end (Object Storage API, Temporary URL)."""
    content = secrets.token_bytes(UNIT + 5)
    stored = await store.put(str(uuid.uuid4()), blocks(content), len(content))
    account.call("POST", "", headers={"X-Account-Meta-Temp-URL-Key": ""})
    assert await store.link(stored.url, 60) is None
    account.call("POST", "", headers={"X-Account-Meta-Temp-URL-Key": "signing-key"})
    store._keys.clear()
    with requests.Session() as session:
        session.trust_env = False
        link = await store.link(stored.url, 60)
        assert link is not None
        assert "signing-key" not in link
        assert (await asyncio.to_thread(session.get, link)).content == content
        ended = await store.link(stored.url, -1)
        assert ended is not None
        assert (await asyncio.to_thread(session.get, ended)).status_code == 401
    with pytest.raises(NotFound):
        await store.link("swift+config://ref1/glance/missing", 60)


def test_what_is_not_configured() -> None:
    with pytest.raises(Unconfigured, match="swift_store_user"):
        SwiftStore(DEFAULTS, "[test]")
    user = {"swift_store_auth_address": "keystone", "swift_store_user": USER, "swift_store_key": "x"}
    with pytest.raises(SettingsError, match="swift_store_cacert"):
        SwiftStore({**DEFAULTS, **user, "swift_store_cacert": "/nothing/there"}, "[test]")


async def test_what_changes_under_a_reader_is_not_read_on(store: SwiftStore, account: Account) -> None:
    """The rest of other bytes would look like the end of those that came before."""
    name = str(uuid.uuid4())
    account.call("PUT", f"/glance/{name}", data=bytes(4 * BLOCK))
    reader = await store.open(f"swift+config://ref1/glance/{name}")
    account.call("PUT", f"/glance/{name}", data=b"x" * (4 * BLOCK))
    with pytest.raises(Conflict):
        await anext(aiter(reader.stream(BLOCK, None)))
    await reader.close()
