"""Fixtures of the real servers. Each starts when the first test asks for it and is gone at the end of the run.

A test that uses one is marked `server` by itself. A part that is missing fails the test with the line to run.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import pytest

from tests.rig.azurite import Azurite
from tests.rig.barbican import Barbican
from tests.rig.ceph import Ceph
from tests.rig.clients import Clients
from tests.rig.databases import Galera, MariaDB, PostgreSQL
from tests.rig.keystone import SERVICE_USER, Keystone
from tests.rig.memcached import Memcached
from tests.rig.moto import Moto
from tests.rig.rabbitmq import RabbitMQ
from tests.rig.services import Glance, Glimpse, ImageService, Sections, config_text, one_store
from tests.rig.swift import RESELLER_ROLE, KeystoneSwift, Swift, SwiftStorage

Service = TypeVar("Service", bound=ImageService)
SERVER_FIXTURES = frozenset({"rig_folder"})


def pytest_configure() -> None:
    """Somebody who ends the run politely (a CI at its time limit) gets the servers stopped, as with Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses a part of the rig, directly or not, is a `server` test."""
    for item in items:
        if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def rig_folder() -> Iterator[Path]:
    """The folder below which the servers keep their data; other system users may pass through it."""
    folder = Path(tempfile.mkdtemp(prefix="glimpse-rig-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Server(Protocol):
    """A part of the rig."""

    def start(self) -> None:
        """Begin, and return when it answers."""

    def stop(self) -> None:
        """End it."""


Part = TypeVar("Part", bound=Server)


def _running(server: Part) -> Iterator[Part]:
    """For a fixture: started, and stopped in any case."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mariadb(rig_folder: Path) -> Iterator[MariaDB]:
    """The MariaDB server of this run. Who stops it starts it again."""
    yield from _running(MariaDB(rig_folder / "mariadb"))


@pytest.fixture(scope="session")
def galera(rig_folder: Path) -> Iterator[Galera]:
    """The Galera cluster of this run."""
    yield from _running(Galera(rig_folder / "galera"))


@pytest.fixture(scope="session")
def postgresql(rig_folder: Path) -> Iterator[PostgreSQL]:
    """The PostgreSQL server of this run. Who stops it starts it again."""
    yield from _running(PostgreSQL(rig_folder / "postgresql"))


@pytest.fixture(scope="session")
def memcached(rig_folder: Path) -> Iterator[Memcached]:
    """The memcached of this run. Who stops it starts it again."""
    yield from _running(Memcached(rig_folder / "memcached"))


@pytest.fixture(scope="session")
def rabbitmq(rig_folder: Path) -> Iterator[RabbitMQ]:
    """The RabbitMQ of this run. Who stops it starts it again."""
    yield from _running(RabbitMQ(rig_folder / "rabbitmq"))


@pytest.fixture(scope="session")
def keystone(rig_folder: Path) -> Iterator[Keystone]:
    """The Keystone of this run. Who stops it starts it again."""
    yield from _running(Keystone(rig_folder / "keystone"))


@pytest.fixture(scope="session")
def barbican(rig_folder: Path, keystone: Keystone) -> Iterator[Barbican]:
    """The Barbican of this run. Who stops it starts it again."""
    yield from _running(Barbican(rig_folder / "barbican", keystone))


@pytest.fixture(scope="session")
def swift_storage(rig_folder: Path) -> Iterator[SwiftStorage]:
    """What is behind the proxies of Swift of this run."""
    yield from _running(SwiftStorage(rig_folder / "swift"))


@pytest.fixture(scope="session")
def swift(rig_folder: Path, swift_storage: SwiftStorage) -> Iterator[Swift]:
    """The Swift of this run that has users of its own. Who stops it starts it again."""
    yield from _running(Swift(rig_folder / "swift-own", swift_storage))


@pytest.fixture(scope="session")
def keystone_swift(rig_folder: Path, swift_storage: SwiftStorage, keystone: Keystone) -> Iterator[KeystoneSwift]:
    """The Swift of this run that asks Keystone who somebody is. Who stops it starts it again."""
    yield from _running(KeystoneSwift(rig_folder / "swift-keystone", swift_storage, keystone))


@pytest.fixture(scope="session")
def swift_reseller(keystone: Keystone, keystone_swift: KeystoneSwift) -> None:
    """Swift lets the service's own user into all accounts, as multi-tenant stores need it; for the rest of the run."""
    (project,) = keystone.call("GET", "/projects?name=service")["projects"]
    (user,) = keystone.call("GET", f"/users?name={SERVICE_USER}")["users"]
    (role,) = keystone.call("GET", f"/roles?name={RESELLER_ROLE}")["roles"]
    keystone.call("PUT", f"/projects/{project['id']}/users/{user['id']}/roles/{role['id']}")


@pytest.fixture(scope="session")
def ceph(rig_folder: Path) -> Iterator[Ceph]:
    """The Ceph cluster of this run. Who stops its OSD or monitor starts it again."""
    yield from _running(Ceph(rig_folder / "ceph"))


@pytest.fixture(scope="session")
def moto(rig_folder: Path) -> Iterator[Moto]:
    """The imitation of S3, and of Google Cloud Storage. Nobody stops this one: it would forget all."""
    yield from _running(Moto(rig_folder / "moto"))


@pytest.fixture(scope="session")
def azurite(rig_folder: Path) -> Iterator[Azurite]:
    """The Azurite of this run. Nobody stops this one: what it was told last is not on its disk yet."""
    yield from _running(Azurite(rig_folder / "azurite"))


@pytest.fixture(scope="session")
def clients(rig_folder: Path) -> Clients:
    """The real `openstack` and `glance` commands."""
    return Clients(rig_folder / "home")


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> str:
    """An empty MariaDB database: mysql+pymysql://…"""
    return mariadb.fresh_url()


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> str:
    """An empty PostgreSQL database: postgresql://…"""
    return postgresql.fresh_url()


class ServiceFactory(Generic[Service]):
    """Makes image services for one test, and stops them after it."""

    def __init__(self, kind: type[Service], folder: Path) -> None:
        self._kind = kind
        self._folder = folder
        self.made: list[Service] = []

    def __call__(
        self,
        config: str | Sections | None = None,
        *,
        env: Mapping[str, str] | None = None,
        start: bool = True,
    ) -> Service:
        """A service with that `glance-api.conf`, its database synchronised and running unless `start` is false.

        `config` is the text of the file, or its sections. Sections (none are fine) are laid over those of a service
        with SQLite and one file store, both in its `data_dir`, and no identity.
        """
        folder = self._folder / f"{self._kind.name}-{len(self.made)}"
        if not isinstance(config, str):
            data = folder / "data"
            sections = one_store(data / "images", f"sqlite:///{data}/glance.sqlite")
            for name, options in (config or {}).items():
                sections[name] = {**sections.get(name, {}), **options}
            config = config_text(sections)
        service = self._kind(folder, config, env or {})
        self.made.append(service)
        if start:
            service.manage("db_sync")
            service.start()
        return service

    def stop_all(self) -> None:
        """End what still runs, and print the logs: pytest shows them when the test has failed."""
        for service in self.made:
            service.kill9()
            print(service.process.tail(80))


@pytest.fixture
def service_folder(rig_folder: Path) -> Iterator[Path]:
    """A folder for one test, into which other system users can look (those of pytest are closed)."""
    folder = Path(tempfile.mkdtemp(dir=rig_folder))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def glimpse_service(service_folder: Path) -> Iterator[ServiceFactory[Glimpse]]:
    """Makes running Glimpse services: `service = glimpse_service({"paste_deploy": {"flavor": "keystone"}})`."""
    factory = ServiceFactory(Glimpse, service_folder)
    yield factory
    factory.stop_all()


@pytest.fixture
def glance_service(service_folder: Path) -> Iterator[ServiceFactory[Glance]]:
    """Makes running services of the real Glance in the same way."""
    factory = ServiceFactory(Glance, service_folder)
    yield factory
    factory.stop_all()
