"""Stores that go away, hang, are full, or refuse us: a clear answer, nothing left behind, and no restart of ours."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from tests.black_box.image_api import ImageApi
from tests.black_box.stores import (
    ALL,
    FILLABLE,
    KEEPER,
    KEEPER_PASSWORD,
    KEEPER_PROJECT,
    WITH_CREDENTIALS,
    CephServer,
    Server,
    StoresUnderTest,
    SwiftServer,
)
from tests.conftest import ServiceFactory
from tests.rig.ceph import Ceph
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.process import wait_for
from tests.rig.services import Glimpse
from tests.rig.swift import KeystoneSwift, Swift, SwiftStorage

CONTENT = Random(4).randbytes(9 * 2**20 + 3)  # several segments, or parts, in each store that has them
LONG = Random(5).randbytes(20 * 2**20 + 3)  # more than all buffers on the way hold together
PIECE = 2**18
TOKEN = "gAAAA"  # how each of Keystone's tokens begins
PATIENCE = 60.0  # seconds in which a store that is away must have been given up


class Heard(ImageApi):
    """The API, with all that it has answered."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self.answers: list[str] = []

    def call(self, method: str, path: str, seconds: float = 120, **more: Any) -> requests.Response:
        answer = super().call(method, path, seconds, **more)
        text = "" if path.endswith("/file") and answer.ok else answer.text
        self.answers.append(f"{answer.status_code} {dict(answer.headers)} {text}")
        return answer


@dataclass
class Faults:
    """A service with all stores, its user, and the stores' servers."""

    service: Glimpse
    token: str
    stores: StoresUnderTest
    database: Path
    apis: list[Heard] = field(default_factory=list)

    def api(self) -> Heard:
        """One for each thread."""
        self.apis.append(Heard(self.service.url, self.token))
        return self.apis[-1]

    def image(self) -> str:
        """A queued one."""
        return self.api().create(name="one", disk_format="raw", container_format="bare")

    def hurry(self) -> None:
        """What is to be erased later is due now."""
        with sqlite3.connect(self.database) as connection:
            connection.execute(
                "UPDATE image_locations SET deleted_at = datetime(deleted_at, '-1 hour'),"
                " updated_at = datetime(deleted_at, '-1 hour') WHERE status = 'pending_delete'"
                " AND updated_at <= deleted_at AND deleted_at > datetime('now', '-5 minutes')"
            )
        connection.close()

    def wait_until_empty(self) -> None:
        """Nothing is left in any store, however long ago it was to be erased."""

        def empty() -> bool:
            self.hurry()
            return not self.stores.left()

        try:
            wait_for("empty stores", empty, 30)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.stores.left()}") from error

    def stored(self, store_id: str, content: bytes = CONTENT) -> str:
        """A new image in that store."""
        image = self.image()
        headers = {"Content-Type": "application/octet-stream", "X-Image-Meta-Store": store_id}
        self.api().ok("PUT", f"/v2/images/{image}/file", data=content, headers=headers)
        return image

    def whole_round(self, store_id: str, image: str | None = None) -> None:
        """An image goes into the store, comes out of it, and is deleted."""
        api = self.api()
        image = image or self.image()
        upload = Upload(self, store_id, image)
        upload.go_on.set()
        answer = upload.end()
        assert answer.status_code == 204, (store_id, answer.text)
        assert api.download(image) == CONTENT
        api.delete(image)


class Upload:
    """An upload that waits when two thirds of its bytes are sent until it may `go_on`."""

    def __init__(self, faults: Faults, store_id: str, image: str | None = None, size_known: bool = True) -> None:
        self.store_id = store_id
        self.image = image or faults.image()
        self.api = faults.api()
        self.halfway, self.go_on = threading.Event(), threading.Event()
        self._answers: list[requests.Response] = []
        self._failures: list[Exception] = []
        headers = {"Content-Type": "application/octet-stream", "X-Image-Meta-Store": store_id}
        if size_known:
            headers["X-Openstack-Image-Size"] = str(len(CONTENT))
        self._thread = threading.Thread(target=self._send, args=(headers,))
        self._thread.start()

    def _send(self, headers: dict[str, str]) -> None:
        path = f"/v2/images/{self.image}/file"
        try:
            self._answers.append(self.api.call("PUT", path, data=self._pieces(), headers=headers))
        except requests.RequestException as error:
            self._failures.append(error)

    def _pieces(self) -> Iterator[bytes]:
        for start in range(0, len(CONTENT), PIECE):
            if start >= len(CONTENT) * 2 / 3 and not self.halfway.is_set():
                self.halfway.set()
                self.go_on.wait(PATIENCE)
            yield CONTENT[start : start + PIECE]

    def end(self) -> requests.Response:
        """Go on to the end; the answer. Raises `requests.RequestException` where there is none."""
        self.go_on.set()
        self._thread.join()
        if self._failures:
            raise self._failures[0]
        return self._answers[0]


class _SmallBuffer(HTTPAdapter):
    """Connections that hold little between the service and its client."""

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)]
        super().init_poolmanager(*arguments, socket_options=options, **more)


class Download:
    """A download that has begun; `content` is what has come."""

    def __init__(self, faults: Faults, image: str) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount("http://", _SmallBuffer())
        headers = {"X-Auth-Token": faults.token}
        url = f"{faults.service.url}/v2/images/{image}/file"
        answer = self._session.get(url, headers=headers, stream=True, timeout=120)
        answer.raise_for_status()
        self._pieces = answer.iter_content(2**16)
        self.content = bytearray(next(self._pieces))

    def rest(self) -> None:
        """Take what follows. Raises `requests.RequestException` when the end does not come."""
        for piece in self._pieces:
            self.content += piece
        self._session.close()


@pytest.fixture(scope="module")
def faults(rig_folder: Path, memcached: Memcached, keystone: Keystone, all_stores: StoresUnderTest) -> Iterator[Faults]:
    """One service; after all tests neither its log nor any answer has had a secret in it."""
    folder = Path(tempfile.mkdtemp(dir=rig_folder))
    folder.chmod(0o755)
    database = folder / "glance.sqlite"
    sections = all_stores.sections(default="files")
    sections["DEFAULT"] |= {"debug": True, "workers": 1, "wakeup_time": 1, "show_multiple_locations": True}
    sections |= {
        "database": {"connection": f"sqlite:///{database}"},
        "paste_deploy": {"flavor": "keystone"},
        "keystone_authtoken": dict(keystone.authtoken(memcached.address)),
    }
    for store_id in WITH_CREDENTIALS:
        store = all_stores.stores[store_id]
        sections["DEFAULT"]["enabled_backends"] = (
            f"{sections['DEFAULT']['enabled_backends']},wrong-{store_id}:{store.type}"
        )
        sections[f"wrong-{store_id}"] = {**store.options, **store.wrong}
    factory = ServiceFactory(Glimpse, folder)
    try:
        service = factory(sections)
        yield Faults(service, keystone.token("demo", "demo"), all_stores, database)
    finally:
        factory.stop_all()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def servers(keystone_swift: KeystoneSwift, swift: Swift, ceph: Ceph) -> list[Server]:
    """All that keep bytes, but for the directory of the files."""
    return [SwiftServer(keystone_swift), SwiftServer(swift), CephServer(ceph)]


def test_uploads_whose_service_is_killed(faults: Faults) -> None:
    """Into all stores at once; after its next start nothing is left of them."""
    uploads = [Upload(faults, store_id) for store_id in ALL]
    for upload in uploads:
        assert upload.halfway.wait(30)
    wait_for("parts", lambda: faults.stores.left().keys() == set(ALL), 30)
    faults.service.kill9()
    for upload in uploads:
        with pytest.raises(requests.RequestException):
            upload.end()
    faults.service.start()
    api = faults.api()
    for upload in uploads:
        wait_for("the sweep", lambda image=upload.image: api.show(image)["status"] == "queued", 60)  # type: ignore[misc]
    faults.wait_until_empty()
    for upload in uploads:
        faults.whole_round(upload.store_id, upload.image)
    faults.wait_until_empty()


class Case:
    """A store in an outage. Its first failure is kept for the test of that store; what follows then is left out."""

    def __init__(self, faults: Faults, store_id: str) -> None:
        self.faults = faults
        self.store_id = store_id
        self.failure: BaseException | None = None
        self._api = faults.api()

    def take(self, step: str) -> None:
        """One of the steps below."""
        if self.failure is None:
            try:
                getattr(self, step)()
            except (Exception, pytest.fail.Exception) as error:
                self.failure = error

    def before(self) -> None:
        """Uploads with and without a known size, and a download, are in their middle."""
        faults, store_id = self.faults, self.store_id
        self.kept, self.deleted, self.long = (faults.stored(store_id, content) for content in (CONTENT, CONTENT, LONG))
        self.uploads = [Upload(faults, store_id, size_known=known) for known in (True, False)]
        self.download = Download(faults, self.long)
        for upload in self.uploads:
            assert upload.halfway.wait(30)

    def meanwhile(self) -> None:
        """What has begun fails, what begins is refused; a delete is done later. Images are queued again."""
        for upload in self.uploads:
            upload.go_on.set()
        self.uploads.append(Upload(self.faults, self.store_id))
        with pytest.raises(requests.RequestException):
            self.download.rest()
        assert len(self.download.content) < len(LONG)
        assert self._api.call("DELETE", f"/v2/images/{self.deleted}").status_code == 204
        answer = self._api.call("GET", f"/v2/images/{self.kept}/file")
        assert answer.status_code == 503, answer.text
        assert_harmless(answer)
        for upload in self.uploads:
            answer = upload.end()
            assert answer.status_code == 503, answer.text
            assert_harmless(answer)
            assert self._api.show(upload.image)["status"] == "queued"

    def after(self) -> None:
        """The same images go in, what was there comes out."""
        for upload in self.uploads:
            self.faults.whole_round(self.store_id, upload.image)
        for image, content in ((self.kept, CONTENT), (self.long, LONG)):
            assert self._api.download(image) == content
            self._api.delete(image)

    def clean(self) -> None:
        """Nothing of it all is left."""
        assert self.store_id not in self.faults.stores.left()


@pytest.fixture(scope="module")
def outage(faults: Faults, servers: list[Server]) -> dict[str, Case]:
    """All servers go away, and come back, while every store is in use."""
    cases = {store_id: Case(faults, store_id) for store_id in ALL if store_id != "files"}
    with ThreadPoolExecutor(len(cases)) as threads:
        list(threads.map(lambda case: case.take("before"), cases.values()))
        for server in servers:
            server.stop()
        list(threads.map(lambda case: case.take("meanwhile"), cases.values()))
        for server in servers:
            server.start()
        list(threads.map(lambda case: case.take("after"), cases.values()))
    with suppress(AssertionError):
        faults.wait_until_empty()
    for case in cases.values():
        case.take("clean")
    return cases


@pytest.mark.parametrize("store_id", [store_id for store_id in ALL if store_id != "files"])
def test_server_goes_away_and_comes_back(outage: dict[str, Case], store_id: str) -> None:
    failure = outage[store_id].failure
    if failure is not None:
        raise failure


def test_slow_servers(faults: Faults, servers: list[Server]) -> None:
    """Those that hang for a moment make nothing fail, neither an upload nor a download."""
    with ThreadPoolExecutor(len(ALL)) as threads:
        images = dict(zip(ALL, threads.map(lambda store_id: faults.stored(store_id, LONG), ALL), strict=True))
    uploads = [Upload(faults, store_id) for store_id in ALL]
    downloads = {store_id: Download(faults, image) for store_id, image in images.items()}
    for upload in uploads:
        assert upload.halfway.wait(30)
    for server in servers:
        server.freeze()
    try:
        for upload in uploads:
            upload.go_on.set()
        time.sleep(2)
    finally:
        for server in servers:
            server.thaw()
    api = faults.api()
    for store_id, download in downloads.items():
        download.rest()
        assert download.content == LONG, store_id
    for upload in uploads:
        assert upload.end().status_code == 204, upload.store_id
        assert api.download(upload.image) == CONTENT
    for image in (*images.values(), *(upload.image for upload in uploads)):
        api.delete(image)
    faults.wait_until_empty()


@pytest.mark.parametrize("store_id", FILLABLE)
def test_full_store(faults: Faults, store_id: str) -> None:
    """413 with and without a known size; with room again the same image goes in."""
    without_room = faults.stores.stores[store_id].without_room
    assert without_room is not None
    images = [faults.image(), faults.image()]
    with without_room():
        for image, size_known in zip(images, (True, False), strict=True):
            upload = Upload(faults, store_id, image, size_known)
            upload.go_on.set()
            answer = upload.end()
            assert answer.status_code == 413, answer.text
            assert_harmless(answer)
            assert faults.api().show(image)["status"] == "queued"
    faults.wait_until_empty()
    for image in images:
        faults.whole_round(store_id, image)
    faults.wait_until_empty()


@pytest.mark.parametrize("store_id", WITH_CREDENTIALS)
def test_wrong_credentials(faults: Faults, store_id: str) -> None:
    upload = Upload(faults, f"wrong-{store_id}")
    upload.go_on.set()
    answer = upload.end()
    assert answer.status_code == 503, answer.text
    assert_harmless(answer)
    assert faults.api().show(upload.image)["status"] == "queued"
    faults.whole_round(store_id, upload.image)


def test_revoked_tokens(
    faults: Faults, keystone: Keystone, swift_storage: SwiftStorage, keystone_swift: KeystoneSwift
) -> None:
    """The service's token for Swift does not hold any more: it takes another one, and nobody notices."""
    stores = ("swift", "legacy")
    kept = {store_id: faults.stored(store_id) for store_id in stores}
    api = faults.api()
    for store_id in stores:
        uploading = Upload(faults, store_id)
        assert uploading.halfway.wait(30)
        time.sleep(1.5)  # what came so far is on its way: a request while the user is disabled would be refused rightly
        revoke_tokens(keystone, swift_storage, keystone_swift)
        assert uploading.end().status_code == 204
        assert api.download(uploading.image) == CONTENT
        revoke_tokens(keystone, swift_storage, keystone_swift)
        assert api.download(kept[store_id]) == CONTENT
        revoke_tokens(keystone, swift_storage, keystone_swift)
        api.delete(kept[store_id])
        api.delete(uploading.image)
    assert not faults.stores.left()


def revoke_tokens(keystone: Keystone, storage: SwiftStorage, swift: KeystoneSwift) -> None:
    """No token of the service's user in Swift holds any more; Swift forgets that they were good."""
    account, headers = swift.account_url(KEEPER_PROJECT), {"X-Auth-Token": keeper_token(keystone)}
    # not an account of its own, but Swift knows who it is
    assert requests.get(account, headers=headers, timeout=30).status_code == 403
    (user,) = keystone.call("GET", f"/users?name={KEEPER}")["users"]
    for enabled in (False, True):
        keystone.call("PATCH", f"/users/{user['id']}", {"user": {"enabled": enabled}})
    storage.memcached.stop()
    storage.memcached.start()
    assert requests.get(account, headers=headers, timeout=30).status_code == 401
    time.sleep(1.1)  # Keystone knows the second, no more, in which a token was made


def keeper_token(keystone: Keystone) -> str:
    """A token of the service's user in Swift."""
    domain = {"id": "default"}
    user: dict[str, Any] = {"name": KEEPER, "domain": domain, "password": KEEPER_PASSWORD}
    identity = {"methods": ["password"], "password": {"user": user}}
    body: dict[str, Any] = {
        "auth": {"identity": identity, "scope": {"project": {"name": KEEPER_PROJECT, "domain": domain}}}
    }
    answer = requests.post(f"{keystone.url}/v3/auth/tokens", json=body, timeout=30)
    answer.raise_for_status()
    return answer.headers["X-Subject-Token"]


def test_nothing_secret_was_said(faults: Faults) -> None:
    """Neither in a log nor in an answer nor in the database, in all of the tests above."""
    secrets = {*faults.stores.secrets, TOKEN}
    with sqlite3.connect(faults.database) as connection:
        rows = "\n".join(map(str, connection.execute("SELECT value, meta_data FROM image_locations")))
    connection.close()
    said = {"the log": faults.service.logs, "a location": rows}
    said |= {"an answer": "\n".join(text for api in faults.apis for text in api.answers)}
    assert all(said.values())
    assert not [(secret, where) for where, text in said.items() for secret in secrets if secret in text]


def assert_harmless(answer: requests.Response) -> None:
    """An error that says something, but not where things are."""
    text = answer.text
    assert len(text) > 40
    assert not [word for word in ("127.0.0.1", "AUTH_", "Traceback", "http:") if word in text], text
