"""The services of the journeys, for what is tested here in the same way."""

from tests.journeys.conftest import (
    api,
    guarded,
    importer,
    importing,
    limited,
    local,
    log_offsets,
    open_places,
    own,
    placer,
    plain,
    pytest_configure,
    pytest_runtest_makereport,
    single,
    site,
    tables,
    user,
)
from tests.journeys.test_cache import caching
from tests.stores.cinder_api import block_devices

__all__ = [
    "api",
    "block_devices",
    "caching",
    "guarded",
    "importer",
    "importing",
    "limited",
    "local",
    "log_offsets",
    "open_places",
    "own",
    "placer",
    "plain",
    "pytest_configure",
    "pytest_runtest_makereport",
    "single",
    "site",
    "tables",
    "user",
]
