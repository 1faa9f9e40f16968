"""The stores that the black-box tests configure, as an operator writes them, for this service and for Glance alike."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import requests

from tests.rig.azurite import ACCOUNT, Azurite
from tests.rig.azurite import KEY as AZURE_KEY
from tests.rig.ceph import POOL, Ceph
from tests.rig.keystone import Keystone
from tests.rig.moto import Moto
from tests.rig.process import wait_for
from tests.rig.swift import KEY, RESELLER_ROLE, USER, KeystoneSwift, Proxy, Swift

KEEPER, KEEPER_PROJECT, KEEPER_PASSWORD = "keeper", "vault", "password-of-the-keeper"  # a user of Keystone, for Swift
RESELLER, RESELLER_PASSWORD = "reseller", "password-of-the-reseller"  # one who may do anything in all accounts
GOOGLE = {"GOOGLE_BEARER_TOKEN": "token-of-google"}  # the surroundings in which a store finds who it is
SECONDS_TO_CLEAN = 30.0
SERVERS = {"keystone_swift": ("swift", "legacy", "tenant"), "swift": ("s3",), "ceph": ("rbd",)}  # by their fixtures
ALL = ("files", *(store_id for ids in SERVERS.values() for store_id in ids))
ALONE = ("gcs", "azure")  # not in Glance
FILLABLE = ("swift", "s3", "rbd")
WITH_CREDENTIALS = ("swift", "legacy", "s3")


class Server(Protocol):
    """What is between this service and the bytes of some stores."""

    def stop(self) -> None:
        """It is gone, in the middle of whatever it does."""

    def start(self) -> None:
        """It is back."""

    def freeze(self) -> None:
        """It does nothing more, and keeps its connections."""

    def thaw(self) -> None:
        """It goes on."""


@dataclass(frozen=True)
class SwiftServer:
    """A proxy of Swift, without which nobody gets at what is behind it."""

    proxy: Proxy

    def stop(self) -> None:
        self.proxy.stop()

    def start(self) -> None:
        self.proxy.start()

    def freeze(self) -> None:
        self.proxy.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.proxy.process.signal(signal.SIGCONT)


@dataclass(frozen=True)
class CephServer:
    """The OSD, which has the bytes. Stopped politely, as it has them in memory."""

    ceph: Ceph

    def stop(self) -> None:
        self.ceph.stop_osd()

    def start(self) -> None:
        self.ceph.start_osd()

    def freeze(self) -> None:
        self.ceph.freeze()

    def thaw(self) -> None:
        self.ceph.thaw()


@dataclass(frozen=True)
class StoreUnderTest:
    """One section of the configuration. `kept` names all that is in its place, finished or not."""

    id: str
    type: str
    options: Mapping[str, object]
    kept: Callable[[], Iterable[str]]
    secrets: Sequence[str] = ()
    wrong: Mapping[str, object] = field(default_factory=dict)  # options that nobody can work with
    without_room: Callable[[], AbstractContextManager[None]] | None = None  # nothing more fits inside


@dataclass(frozen=True)
class StoresUnderTest:
    """All stores of one service, and what was in their places before."""

    stores: Mapping[str, StoreUnderTest]
    before: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, *stores: StoreUnderTest) -> StoresUnderTest:
        """Those stores; what is there now is none of ours."""
        return cls({store.id: store for store in stores}, {store.id: frozenset(store.kept()) for store in stores})

    def sections(self, default: str) -> dict[str, dict[str, object]]:
        """The part of `glance-api.conf` that is about stores."""
        return {
            "DEFAULT": {"enabled_backends": ",".join(f"{store.id}:{store.type}" for store in self.stores.values())},
            "glance_store": {"default_backend": default},
            **{store.id: dict(store.options) for store in self.stores.values()},
        }

    @property
    def secrets(self) -> set[str]:
        """What nobody may ever read."""
        return {secret for store in self.stores.values() for secret in store.secrets}

    def left(self) -> dict[str, list[str]]:
        """What is there now and was not before, by the id of its store."""
        now = {store.id: set(store.kept()) - self.before[store.id] for store in self.stores.values()}
        return {store_id: sorted(names) for store_id, names in now.items() if names}

    def wait_until_empty(self, seconds: float = SECONDS_TO_CLEAN) -> None:
        """Raises `AssertionError` that says what is left."""
        try:
            wait_for("empty stores", lambda: not self.left(), seconds)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.left()}") from error


# --- each kind ------------------------------------------------------------------------------------------------------


def file_store(store_id: str, folder: Path) -> StoreUnderTest:
    """Files in a directory."""

    def kept() -> list[str]:
        return [str(path.relative_to(folder)) for path in folder.rglob("*")]

    folder.mkdir()
    return StoreUnderTest(store_id, "file", {"filesystem_store_datadir": folder}, kept)


SWIFT_SIZES = {"swift_store_large_object_size": 2, "swift_store_large_object_chunk_size": 1}  # MB


def swift_with_reference(keystone: Keystone, swift: KeystoneSwift, file: Path) -> StoreUnderTest:
    """One account for all images; who it is stands in a file of its own, as the guides have it."""
    file.write_text(
        f"[vault]\nuser = {KEEPER_PROJECT}:{KEEPER}\nkey = {KEEPER_PASSWORD}\nauth_address = {keystone.url}/v3\n"
        "auth_version = 3\nuser_domain_id = default\nproject_domain_id = default\n"
    )
    options = {
        "swift_store_config_file": file,
        "default_swift_reference": "vault",
        "swift_store_container": "by-reference",
        "swift_store_create_container_on_put": True,
        **SWIFT_SIZES,
    }
    account = keeper_account(keystone, swift)
    wrong = file.with_name("wrong.conf")
    wrong.write_text(file.read_text().replace(KEEPER_PASSWORD, f"{KEEPER_PASSWORD}-wrong"))
    return StoreUnderTest(
        "swift", "swift", options, lambda: account.kept("by-reference"), [KEEPER_PASSWORD],
        {"swift_store_config_file": wrong}, lambda: account.full("by-reference"),
    )  # fmt: skip


def swift_with_options(keystone: Keystone, swift: KeystoneSwift) -> StoreUnderTest:
    """The same, with the credentials among the options: Glance writes them into each location."""
    options = {
        "swift_store_auth_address": f"{keystone.url}/v3",
        "swift_store_auth_version": 3,
        "swift_store_user": f"{KEEPER_PROJECT}:{KEEPER}",
        "swift_store_key": KEEPER_PASSWORD,
        "swift_store_container": "by-options",
        "swift_store_create_container_on_put": True,
        "swift_store_multiple_containers_seed": 1,
        **SWIFT_SIZES,
    }
    account = keeper_account(keystone, swift)
    return StoreUnderTest(
        "legacy", "swift", options, lambda: account.kept("by-options"), [KEEPER_PASSWORD],
        {"swift_store_key": f"{KEEPER_PASSWORD}-wrong"},
    )  # fmt: skip


def swift_of_users(keystone: Keystone, swift: KeystoneSwift, users: Iterable[str]) -> StoreUnderTest:
    """Every image in the account of the project that owns it."""
    options = {
        "swift_store_multi_tenant": True,
        "swift_store_auth_address": f"{keystone.url}/v3",
        "swift_store_auth_version": 3,
        "swift_store_user": f"{KEEPER_PROJECT}:{RESELLER}",
        "swift_store_key": RESELLER_PASSWORD,
        "swift_store_container": "of-users",
        "swift_store_create_container_on_put": True,
        **SWIFT_SIZES,
    }
    keeper_account(keystone, swift)
    accounts = [SwiftAccount.in_keystone(keystone, swift, user, user) for user in users]

    def kept() -> list[str]:
        return [name for account in accounts for name in account.kept("of-users")]

    return StoreUnderTest("tenant", "swift", options, kept, [RESELLER_PASSWORD])


def s3_store(swift: Swift) -> StoreUnderTest:
    """A bucket of Swift's S3 interface."""
    options = {
        "s3_store_host": swift.url,
        "s3_store_access_key": USER,
        "s3_store_secret_key": KEY,
        "s3_store_bucket": "bucket",
        "s3_store_create_bucket_on_put": True,
        "s3_store_bucket_url_format": "path",
        "s3_store_region_name": "us-east-1",
        "s3_store_large_object_size": 5,
        "s3_store_large_object_chunk_size": 5,
    }
    account = SwiftAccount.of_its_own(swift)
    return StoreUnderTest(
        "s3", "s3", options, lambda: account.kept("bucket"), [KEY],
        {"s3_store_secret_key": f"{KEY}-wrong"}, lambda: account.full("bucket", "bucket+segments"),
    )  # fmt: skip


def rbd_store(ceph: Ceph) -> StoreUnderTest:
    """A pool of Ceph."""

    def kept() -> list[str]:
        objects = ceph.run("rados", "-p", POOL, "ls").decode().splitlines()
        return [name for name in objects if name.startswith(("rbd_id.", "rbd_header.", "rbd_data."))]

    @contextmanager
    def full() -> Iterator[None]:
        ceph.fill()
        try:
            yield
        finally:
            ceph.empty()

    options = {"rbd_store_ceph_conf": ceph.conf, "rbd_store_chunk_size": 1, "rados_connect_timeout": 3}
    return StoreUnderTest("rbd", "rbd", options, kept, without_room=full)


def gcs_store(moto: Moto) -> StoreUnderTest:
    """A bucket of what stands in for Google Cloud Storage; not in Glance. The service takes `GOOGLE` from its env."""
    bucket = f"{moto.url}/bucketofgoogle"
    requests.put(bucket, timeout=30).raise_for_status()

    def kept() -> list[str]:
        lists = (requests.get(f"{bucket}{query}", timeout=30).text for query in ("", "?uploads"))
        return [key for text in lists for key in re.findall(r"<Key>(.*?)</Key>", text)]

    options = {
        "gcs_store_bucket": "bucketofgoogle",
        "gcs_store_endpoint": moto.url,
        "gcs_store_large_object_chunk_size": 5,
    }
    return StoreUnderTest("gcs", "gcs", options, kept, [*GOOGLE.values()])


def azure_store(azurite: Azurite) -> StoreUnderTest:
    """A container of Azure; not in Glance."""
    azurite.make_container("azure-container")

    def kept() -> list[str]:
        return [str(number) for number in range(azurite.blobs("azure-container", begun=True))]

    options = {
        "azure_store_account": ACCOUNT,
        "azure_store_key": AZURE_KEY,
        "azure_store_container": "azure-container",
        "azure_store_endpoint": azurite.url,
        "azure_store_large_object_chunk_size": 1,
    }
    return StoreUnderTest("azure", "azure", options, kept, [AZURE_KEY], {"azure_store_key": AZURE_KEY[::-1]})


# --- what is in Swift -----------------------------------------------------------------------------------------------


class SwiftAccount:
    """An account as its owner sees it; `login` gives its storage URL and a token."""

    def __init__(self, login: Callable[[], tuple[str, str]]) -> None:
        self._login = login
        self._session = requests.Session()
        self._session.trust_env = False
        self._url = ""

    @classmethod
    def in_keystone(cls, keystone: Keystone, swift: KeystoneSwift, user: str, project: str) -> SwiftAccount:
        """That of a project."""
        (found,) = keystone.call("GET", f"/projects?name={project}")["projects"]
        return cls(lambda: (swift.account_url(found["id"]), keystone.token(user, project)))

    @classmethod
    def of_its_own(cls, swift: Swift) -> SwiftAccount:
        """That of the proxy's own user."""

        def login() -> tuple[str, str]:
            headers = {"X-Auth-User": USER, "X-Auth-Key": KEY}
            with requests.Session() as session:
                session.trust_env = False
                answer = session.get(f"{swift.url}/auth/v1.0", headers=headers, timeout=30)
            answer.raise_for_status()
            return answer.headers["X-Storage-Url"], answer.headers["X-Auth-Token"]

        return cls(login)

    def kept(self, prefix: str) -> list[str]:
        """All containers whose names begin so, and all objects in them. Those that the store keeps are left out."""
        found = []
        for container in self._names("", prefix):
            objects = self._names(f"/{container}", "")
            found += [f"{container}/{name}" for name in objects]
            if container.startswith(f"{prefix}_") and len(container) > len(prefix) + 8:
                found.append(container)  # that of one image
        return found

    def _names(self, path: str, prefix: str) -> list[str]:
        answer = self._call("GET", path, params={"format": "json", "prefix": prefix})
        return [] if answer.status_code == 404 else [entry["name"] for entry in answer.json() if "name" in entry]

    @contextmanager
    def full(self, *containers: str) -> Iterator[None]:
        """Nothing fits into those containers inside. Swift asks about a quota only what is there already."""
        for container in containers:
            self._call("PUT", f"/{container}")
            self._call("PUT", f"/{container}/filler", data=b"12345")
            self._call("POST", f"/{container}", headers={"X-Container-Meta-Quota-Bytes": "1"})
        try:
            yield
        finally:
            for container in containers:
                self._call("DELETE", f"/{container}/filler")
                self._call("POST", f"/{container}", headers={"X-Remove-Container-Meta-Quota-Bytes": "x"})

    def _call(self, method: str, path: str, again: bool = True, **more: Any) -> requests.Response:
        if not self._url:
            self._url, self._session.headers["X-Auth-Token"] = self._login()
        answer = self._session.request(method, f"{self._url}{path}", timeout=30, **more)
        if answer.status_code == 401 and again:  # a test has revoked the token
            self._url = ""
            return self._call(method, path, again=False, **more)
        if not answer.ok and answer.status_code != 404:
            answer.raise_for_status()
        return answer


def keeper_account(keystone: Keystone, swift: KeystoneSwift) -> SwiftAccount:
    """The account of `KEEPER`, who is made when not there; the admin may look into it."""
    if not keystone.call("GET", f"/projects?name={KEEPER_PROJECT}")["projects"]:
        keystone.call("POST", "/projects", {"project": {"name": KEEPER_PROJECT, "domain_id": "default"}})
        add_user(keystone, KEEPER, KEEPER_PASSWORD)
        add_user(keystone, RESELLER, RESELLER_PASSWORD)
        for name, role in ((KEEPER, "member"), ("admin", "member"), (RESELLER, RESELLER_ROLE)):
            give_role(keystone, name, role)
    return SwiftAccount.in_keystone(keystone, swift, "admin", KEEPER_PROJECT)


def add_user(keystone: Keystone, name: str, password: str) -> None:
    """Somebody without a role."""
    keystone.call("POST", "/users", {"user": {"name": name, "password": password, "domain_id": "default"}})


def give_role(keystone: Keystone, user: str, role: str) -> None:
    """In `KEEPER_PROJECT`."""
    found = {
        kind: keystone.call("GET", f"/{kind}?name={name}")[kind][0]["id"]
        for kind, name in (("projects", KEEPER_PROJECT), ("users", user), ("roles", role))
    }
    keystone.call("PUT", f"/projects/{found['projects']}/users/{found['users']}/roles/{found['roles']}")
