"""Fixtures of the real servers. Each starts when the first test asks for it and is gone at the end of the run.

A test that uses one is marked `server` by itself. A part that is missing fails the test with the line to run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.databases import MariaDB, PostgreSQL
from tests.rig.memcached import Memcached

SERVER_FIXTURES = frozenset({"rig_folder"})


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


@pytest.fixture(scope="session")
def mariadb(rig_folder: Path) -> Iterator[MariaDB]:
    """The MariaDB server of this run. Who stops it starts it again."""
    server = MariaDB(rig_folder / "mariadb")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgresql(rig_folder: Path) -> Iterator[PostgreSQL]:
    """The PostgreSQL server of this run. Who stops it starts it again."""
    server = PostgreSQL(rig_folder / "postgresql")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def memcached(rig_folder: Path) -> Iterator[Memcached]:
    """The memcached of this run. Who stops it starts it again."""
    server = Memcached(rig_folder / "memcached")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> str:
    """An empty MariaDB database: mysql+pymysql://…"""
    return mariadb.fresh_url()


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> str:
    """An empty PostgreSQL database: postgresql://…"""
    return postgresql.fresh_url()
