"""The services that the journeys talk to.

`GLIMPSE_TEST_URL` points the tests of the plain service (no authentication, two file stores) at a server that runs
already; what can only be seen in its directories is then skipped. Tests marked `better_than_glance` hold Glimpse to
more than the original does: leave them out there (`-m "not better_than_glance"`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import bcrypt
import pytest

from .client import Api
from .service import MULTI_STORE, SINGLE_STORE, Service
from .site import Site

PROJECT_A = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
PROJECT_B = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
PROJECT_OF_ADMIN = "cccccccccccccccccccccccccccccccc"
USERS = {
    "admin": (PROJECT_OF_ADMIN, "admin,member,reader"),
    "alice": (PROJECT_A, "member,reader"),
    "bob": (PROJECT_B, "member,reader"),
    "carol": (PROJECT_A, "reader"),
}
# Other services of the cloud, as the location API knows them.
SERVICE_USERS = {**USERS, "nova": (PROJECT_OF_ADMIN, "service,member,reader")}

# Lets the service read from the web servers of these tests: else it goes neither to loopback nor to such ports.
ON_LOOPBACK: dict[str, dict[str, object]] = {
    "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
}

# Imports from those web servers, to two stores; what is in which store can be seen.
IMPORTS: dict[str, dict[str, object]] = {
    "DEFAULT": {
        "enabled_backends": "fs:file,fast:file,web:http",
        "show_multiple_locations": True,
        "image_size_cap": 4 << 20,
    },
    "web": {"weight": 50},
    **ON_LOOPBACK,
}

# What shows locations and lets them be changed.
LOCATIONS: dict[str, dict[str, object]] = {
    "DEFAULT": {
        "enabled_backends": "fs:file,fast:file,web:http",
        "show_multiple_locations": True,
        "show_image_direct_url": True,
        "hashing_algorithm": "sha256",
        "image_location_quota": 4,
    },
    "web": {"weight": 50},
    **ON_LOOPBACK,
}

# What the second, single-store service has that the first has not.
LIMITS: dict[str, dict[str, object]] = {
    "DEFAULT": {
        "image_size_cap": 1 << 20,
        "image_property_quota": 4,
        "image_tag_quota": 3,
        "image_member_quota": 2,
        "limit_param_default": 2,
        "api_limit_max": 3,
        "hashing_algorithm": "sha256",
        "show_image_direct_url": True,
        "public_endpoint": "https://images.example.org/base",
        "enabled_import_methods": "[]",
        "client_socket_timeout": 1,
    },
    "healthcheck": {"disable_by_file_path": "{home}/maintenance"},
    "image_format": {
        "require_image_format_match": False,
        "gpt_safety_checks_nonfatal": "mbr",
        "container_formats": "bare,ovf",
    },
}

_running: list[Service] = []


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "better_than_glance: what the original gets wrong, or cannot be asked for")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the services have logged since it began."""
    report = yield
    if report.when == "call" and report.failed:
        for service in _running:
            text = service.log_since(item.stash.get(_OFFSETS, {}).get(service.url, 0))
            report.sections.append((f"log of {service.home.name}", text))
    return report


_OFFSETS: pytest.StashKey[dict[str, int]] = pytest.StashKey()


@pytest.fixture(autouse=True)
def log_offsets(request: pytest.FixtureRequest) -> None:
    """Remember where each log ends before the test."""
    request.node.stash[_OFFSETS] = {service.url: service.log.stat().st_size for service in _running}


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as `glance-manage db_sync` makes it, to be copied: making it takes longer than most tests."""
    service = Service(tmp_path_factory.mktemp("tables"))
    service.db_sync()
    return service.database


def run(service: Service, tables: Path) -> Iterator[Service]:
    """A service for a fixture: started, and removed at its end; its log is shown with tests that fail."""
    service.db_sync(tables)
    service.start()
    _running.append(service)
    yield service
    _running.remove(service)
    service.stop()
    service.discard()


@pytest.fixture(scope="session")
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service | None]:
    """Two weighted file stores, nobody has to show who they are. None: the service is not ours."""
    if "GLIMPSE_TEST_URL" in os.environ:
        yield None
        return
    yield from run(Service(tmp_path_factory.mktemp("plain")), request.getfixturevalue("tables"))


@pytest.fixture(scope="session")
def api(plain: Service | None) -> Iterator[Api]:
    """The plain service; everybody is an administrator."""
    caller = Api(plain.url if plain else os.environ["GLIMPSE_TEST_URL"])
    yield caller
    if plain is None:
        for image_id in caller.made:
            caller.raw_patch(image_id, [{"op": "replace", "path": "/protected", "value": False}])
            caller.raw_delete(image_id)
    caller.close()


@pytest.fixture
def local(plain: Service | None) -> Service:
    """The plain service's directories."""
    if plain is None:
        pytest.skip("the directories of GLIMPSE_TEST_URL cannot be seen from here")
    return plain


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """One store in the old way of configuring it, and small limits."""
    yield from run(Service(tmp_path_factory.mktemp("single"), SINGLE_STORE, LIMITS), tables)


@pytest.fixture(scope="session")
def limited(single: Service) -> Iterator[Api]:
    """The single-store service."""
    caller = Api(single.url)
    yield caller
    caller.close()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service with users: HTTP basic authentication from a password file."""
    home = tmp_path_factory.mktemp("guarded")
    yield from run(Service(home, MULTI_STORE, with_users(home, USERS)), tables)


@pytest.fixture(scope="session")
def user(guarded: Service) -> Iterator[Callable[[str], Api]]:
    """`user("alice")` calls the guarded service as alice."""
    yield from signed_in(guarded, USERS)


def with_users(home: Path, users: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, object]]:
    """What a service with a password file has that the plain one has not."""
    passwords = home / "htpasswd"
    lines = []
    for name, (project, roles) in users.items():
        digest = bcrypt.hashpw(f"{name}-secret".encode(), bcrypt.gensalt(4)).decode()
        lines.append(f"{name}:{digest}:{project}:{roles}\n")
    passwords.write_text("".join(lines))
    return {"DEFAULT": {"http_basic_auth_user_file": passwords}, "paste_deploy": {"flavor": "http_basic"}}


def signed_in(service: Service, names: Iterable[str]) -> Iterator[Callable[[str], Api]]:
    """For a fixture: what calls a service as one of those users."""
    callers = {name: Api(service.url, (name, f"{name}-secret")) for name in names}
    yield callers.__getitem__
    for caller in callers.values():
        caller.close()


@pytest.fixture(scope="session")
def open_places(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service with users that shows locations and lets them be changed; its third store reads from web servers."""
    home = tmp_path_factory.mktemp("places")
    service = Service(home, MULTI_STORE, with_users(home, SERVICE_USERS))
    service.configure(LOCATIONS)
    yield from run(service, tables)


@pytest.fixture(scope="session")
def placer(open_places: Service) -> Iterator[Callable[[str], Api]]:
    """`placer("alice")` calls that service as alice; there is also nova, another service."""
    yield from signed_in(open_places, SERVICE_USERS)


@pytest.fixture(scope="session")
def importing(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[Service]:
    """A service that imports from the web servers of these tests; nobody has to show who they are."""
    yield from run(Service(tmp_path_factory.mktemp("importing"), MULTI_STORE, IMPORTS), tables)


@pytest.fixture(scope="session")
def importer(importing: Service) -> Iterator[Api]:
    """That service; everybody is an administrator."""
    caller = Api(importing.url)
    yield caller
    caller.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server with pages to point locations at."""
    made = Site()
    yield made
    made.stop()


@pytest.fixture
def own(tmp_path: Path, tables: Path) -> Iterator[Callable[..., Service]]:
    """`own(changes)` starts a service for this test alone, to be killed or filled up."""
    started: list[Service] = []

    def start(
        changes: Mapping[str, Mapping[str, object]] | None = None,
        launcher: tuple[str, ...] = (),
        base: Mapping[str, Mapping[str, object]] = MULTI_STORE,
    ) -> Service:
        service = Service(tmp_path / f"own{len(started)}", base, changes, launcher)
        service.db_sync(tables)
        started.append(service)
        _running.append(service)
        service.start()
        return service

    yield start
    for service in started:
        _running.remove(service)
        service.kill()
        service.discard()
