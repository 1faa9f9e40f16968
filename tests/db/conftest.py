"""Databases with the whole schema in them, one of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glimpse.db.engine import Database
from tests.db.opened import opened
from tests.db.test_schema import database_settings


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("mariadb_url", marks=pytest.mark.server),
        pytest.param("postgresql_url", marks=pytest.mark.server),
    ]
)
def synced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database at the head, open as the service opens it."""
    url = f"sqlite:///{tmp_path}/glance.sqlite"
    if request.param != "sqlite":
        url = request.getfixturevalue(request.param)
    with opened(database_settings(tmp_path, url), 8) as database:
        yield database
