"""A part of the cloud goes away and comes back: the service says so, goes on where it can, and needs no restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

import pytest

from tests.black_box.image_api import ImageApi
from tests.conftest import ServiceFactory
from tests.rig.databases import DatabaseServer
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.process import wait_for
from tests.rig.services import Glimpse

CONTENT = bytes(range(256)) * 1024


class Stoppable(Protocol):
    """A part of the rig that a test takes away."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


@contextmanager
def without(part: Stoppable, leave: Callable[[], None] | None = None) -> Iterator[None]:
    """The part is gone inside, and back after it, however the test went."""
    (leave or part.stop)()
    try:
        yield
    finally:
        part.start()


def identity_sections(keystone: Keystone, memcached: Memcached | None) -> dict[str, dict[str, object]]:
    """The sections of a service that asks Keystone who somebody is."""
    address = memcached.address if memcached is not None else None
    return {"paste_deploy": {"flavor": "keystone"}, "keystone_authtoken": dict(keystone.authtoken(address))}


@pytest.fixture
def service(glimpse_service: ServiceFactory[Glimpse], keystone: Keystone, memcached: Memcached) -> Glimpse:
    """A running service with Keystone and memcached."""
    return glimpse_service(identity_sections(keystone, memcached))


def whole_round(api: ImageApi) -> None:
    """Create, upload, download and delete one image."""
    image = api.create(name="round", disk_format="raw", container_format="bare")
    api.upload(image, CONTENT)
    assert api.download(image) == CONTENT
    api.delete(image)


def test_keystone_gone_and_back(service: Glimpse, keystone: Keystone) -> None:
    """Known tokens go on, unknown ones get 503, and later work; a service may even start without Keystone."""
    known = ImageApi(service.url, keystone.token("demo", "demo"))
    whole_round(known)
    unknown = ImageApi(service.url, keystone.token("demo", "demo"))
    with without(keystone):
        whole_round(known)
        assert unknown.call("GET", "/v2/images").status_code == 503
        assert known.call("GET", "/healthcheck").status_code == 200
        service.restart()
        assert unknown.call("GET", "/v2/images").status_code == 503
    whole_round(unknown)
    whole_round(ImageApi(service.url, keystone.token("demo", "demo")))


def test_keystone_gone_without_memcached(glimpse_service: ServiceFactory[Glimpse], keystone: Keystone) -> None:
    """Without a memcached a worker remembers tokens by itself; there is one worker here, as each has its own memory."""
    sections = {**identity_sections(keystone, None), "DEFAULT": {"enabled_backends": "fs:file", "workers": 1}}
    service = glimpse_service(sections)
    known = ImageApi(service.url, keystone.token("demo", "demo"))
    whole_round(known)
    with without(keystone):
        whole_round(known)


def test_memcached_gone_and_back(service: Glimpse, keystone: Keystone, memcached: Memcached) -> None:
    """Tokens, known or not, go on; nobody waits long for a cache that does not answer."""
    known = ImageApi(service.url, keystone.token("demo", "demo"))
    whole_round(known)
    with without(memcached):
        started = time.monotonic()
        whole_round(known)
        whole_round(ImageApi(service.url, keystone.token("alt", "alt")))
        assert time.monotonic() - started < 15
    whole_round(known)
    whole_round(ImageApi(service.url, keystone.token("alt", "alt")))


def test_token_expires(service: Glimpse, keystone: Keystone) -> None:
    """A token is good until its end and not after it, although its facts are in the cache."""
    with keystone.short_lived_token("demo", "demo", seconds=4) as (token, end):
        api = ImageApi(service.url, token)
        whole_round(api)
    remaining = datetime.fromisoformat(end).timestamp() - time.time()
    time.sleep(max(remaining, 0) + 1)
    answer = api.call("GET", "/v2/images")
    assert answer.status_code == 401
    assert keystone.url in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("token", [None, "nonsense", "gAAAAAB" + "x" * 180])
def test_no_token_is_no_way_in(service: Glimpse, token: str | None) -> None:
    """Without a token, or with an invented one, there is only 401."""
    api = ImageApi(service.url, token)
    for method, path in (("GET", "/v2/images"), ("POST", "/v2/images"), ("GET", "/v2/schemas/image")):
        assert api.call(method, path).status_code == 401


@pytest.fixture(params=["mariadb", "postgresql"])
def database(request: pytest.FixtureRequest) -> DatabaseServer:
    """Each kind of database server in turn."""
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_database_gone_and_back(way: str, database: DatabaseServer, glimpse_service: ServiceFactory[Glimpse]) -> None:
    """503 while it is away, for reads and writes, and everything again when it is back, in the same processes."""
    service = glimpse_service({"database": {"connection": database.fresh_url()}})
    process = service.process.pid
    api = ImageApi(service.url, None)
    whole_round(api)
    kept = api.create(name="kept", disk_format="raw", container_format="bare")
    api.upload(kept, CONTENT)
    with without(database, database.kill9 if way == "killed" else database.stop):
        for method, path in (("GET", "/v2/images"), ("GET", f"/v2/images/{kept}"), ("GET", f"/v2/images/{kept}/file")):
            assert api.call(method, path).status_code == 503
        assert api.call("POST", "/v2/images", json={"name": "x"}).status_code == 503
        assert api.call("DELETE", f"/v2/images/{kept}").status_code == 503
        assert api.call("GET", "/").status_code == 300
        assert api.call("GET", "/healthcheck").status_code == 200
    # each pooled connection that died may cost its user one more answer, but none costs two
    assert api.download(kept) == CONTENT
    for _ in range(8):
        whole_round(api)
    assert service.process.pid == process
    assert "Traceback" not in service.logs


def test_database_gone_at_the_end_of_an_upload(
    mariadb: DatabaseServer, glimpse_service: ServiceFactory[Glimpse]
) -> None:
    """Bytes that have arrived are not lost because the database is away for a moment."""
    service = glimpse_service({"database": {"connection": mariadb.fresh_url()}})
    api = ImageApi(service.url, None)
    image = api.create(name="cut", disk_format="raw", container_format="bare")
    halfway, back = threading.Event(), threading.Event()

    def content() -> Iterator[bytes]:
        yield CONTENT
        halfway.set()
        back.wait(60)
        yield CONTENT

    answers: list[int] = []
    headers = {"Content-Type": "application/octet-stream"}
    path = f"/v2/images/{image}/file"
    upload = threading.Thread(
        target=lambda: answers.append(api.call("PUT", path, data=content(), headers=headers).status_code)
    )
    upload.start()
    assert halfway.wait(30)
    other = ImageApi(service.url, None)
    wait_for("the upload to begin", lambda: other.show(image)["status"] == "saving", 10)
    with without(mariadb):
        back.set()
        time.sleep(2)
        assert not answers
    upload.join(60)
    assert answers == [204]
    assert other.download(image) == CONTENT * 2


def test_service_waits_for_its_database(mariadb: DatabaseServer, glimpse_service: ServiceFactory[Glimpse]) -> None:
    """After a power cut the service may be up before its database; it serves when that comes."""
    service = glimpse_service({"database": {"connection": mariadb.fresh_url()}}, start=False)
    service.manage("db_sync")
    api = ImageApi(service.url, None)
    with without(mariadb):
        service.start()
        assert api.call("GET", "/v2/images").status_code == 503
    whole_round(api)
