"""Keystone: the identity service, with projects, users and roles that the tests use.

Its database is a SQLite file, so that Keystone stands when a test takes MariaDB away. Making the tables and the first
users takes many seconds, so that is done once and kept in the cache; a run starts from a copy.
"""

from __future__ import annotations

import fcntl
import grp
import hashlib
import os
import pwd
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from tests.rig.install import CACHE, environment
from tests.rig.process import Process, ServerFailed, free_port, listens, plain_environment

PASSWORD: Final = "user-secret"
SERVICE_USER: Final = "image-service"
REGION: Final = "RegionOne"
_SEED_URL = "http://keystone.invalid"


@dataclass(frozen=True)
class Account:
    """A user with the project and the role it has there. All use the password `PASSWORD`."""

    user: str
    project: str
    role: str


# Beside these: the user `admin`, admin of the project `admin`, whom Keystone's own set-up makes.
ACCOUNTS: Final = (
    Account("demo", "demo", "member"),
    Account("demo_reader", "demo", "reader"),
    Account("alt", "alt", "member"),
    Account("stranger", "elsewhere", "member"),
    Account("compute", "service", "service"),
    Account(SERVICE_USER, "service", "admin"),
    Account(SERVICE_USER, "service", "service"),
)


class Keystone:
    """A Keystone server in `folder`. Start it before use."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        shutil.copytree(_seed(), folder)
        with sqlite3.connect(folder / "keystone.sqlite") as database:
            database.execute("UPDATE endpoint SET url = replace(url, ?, ?)", (_SEED_URL, self.url))
        database.close()
        self.process = _server("Keystone", folder, self.port, token_seconds=43200, threads=4)
        self._session = requests.Session()
        self._session.trust_env = False
        self._admin_token = ""

    @property
    def url(self) -> str:
        """Its base, without /v3."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it. Raises `ServerFailed`."""
        self.process.start(lambda: _answers(self.port))

    def stop(self) -> None:
        """Stop it; what it knows stays."""
        self.process.stop()

    def openrc(self, user: str = "admin", project: str = "admin") -> dict[str, str]:
        """The variables of an `openrc` file."""
        return {
            "OS_AUTH_URL": f"{self.url}/v3",
            "OS_USERNAME": user,
            "OS_PASSWORD": PASSWORD,
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_IMAGE_API_VERSION": "2",
        }

    def authtoken(self, memcached: str | None = None) -> dict[str, str]:
        """The options of a service's [keystone_authtoken]."""
        options = {
            "www_authenticate_uri": self.url,
            "auth_url": self.url,
            "auth_type": "password",
            "project_domain_name": "Default",
            "user_domain_name": "Default",
            "project_name": "service",
            "username": SERVICE_USER,
            "password": PASSWORD,
        }
        return options if memcached is None else {**options, "memcached_servers": memcached}

    def token(self, user: str = "admin", project: str = "admin") -> str:
        """A fresh token of a user for a project."""
        return _token(self._session, self.url, user, project)[0]

    @contextmanager
    def short_lived_token(self, user: str, project: str, seconds: int) -> Iterator[tuple[str, str]]:
        """A token that ends after so many seconds, and the moment (ISO 8601, UTC) when it does.

        A second server on the same keys and users gives it: the life of tokens is one setting for a whole Keystone.
        """
        port = free_port()
        process = _server("Keystone, short-lived tokens", self._folder, port, token_seconds=seconds, threads=1)
        process.start(lambda: _answers(port))
        try:
            yield _token(self._session, f"http://127.0.0.1:{port}", user, project)
        finally:
            process.stop()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """A call of the v3 API as admin, the decoded answer. Raises `requests.HTTPError`."""
        self._admin_token = self._admin_token or self.token()
        headers = {"X-Auth-Token": self._admin_token}
        answer = self._session.request(method, f"{self.url}/v3{path}", json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def forget_image_service(self, user: str = "glance") -> None:
        """Take image services with their endpoints and limits, and the guides' service user, out of Keystone."""
        for service in self.call("GET", "/services?type=image")["services"]:
            for limit in self.call("GET", f"/registered_limits?service_id={service['id']}")["registered_limits"]:
                self.call("DELETE", f"/registered_limits/{limit['id']}")
            self.call("DELETE", f"/services/{service['id']}")
        for found in self.call("GET", f"/users?name={user}")["users"]:
            self.call("DELETE", f"/users/{found['id']}")

    def register_image_service(self, url: str) -> None:
        """Make `url` the one image service of the catalog."""
        self.forget_image_service()
        body = {"service": {"name": "glance", "type": "image"}}
        service = self.call("POST", "/services", body)["service"]
        for interface in ("public", "internal", "admin"):
            entry = {"service_id": service["id"], "interface": interface, "url": url, "region_id": REGION}
            self.call("POST", "/endpoints", {"endpoint": entry})

    def limit_image_service(self, limits: Mapping[str, int]) -> None:
        """Register limits of the image service that hold for every project."""
        (service,) = self.call("GET", "/services?type=image")["services"]
        entries = [
            {"service_id": service["id"], "region_id": REGION, "resource_name": name, "default_limit": limit}
            for name, limit in limits.items()
        ]
        self.call("POST", "/registered_limits", {"registered_limits": entries})


def _token(session: requests.Session, url: str, user: str, project: str) -> tuple[str, str]:
    domain = {"id": "default"}
    body: dict[str, Any] = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user, "domain": domain, "password": PASSWORD}},
            },
            "scope": {"project": {"name": project, "domain": domain}},
        }
    }
    answer = session.post(f"{url}/v3/auth/tokens", json=body, timeout=30)
    answer.raise_for_status()
    return answer.headers["X-Subject-Token"], answer.json()["token"]["expires_at"]


def _answers(port: int) -> bool:
    if not listens(port):
        return False
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://127.0.0.1:{port}/v3", timeout=5).ok
    except requests.RequestException:
        return False


def _configuration(folder: Path, token_seconds: int) -> str:
    return f"""\
[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{folder}/keystone.sqlite
[cache]
enabled = true
backend = oslo_cache.dict
[identity]
password_hash_rounds = 4
[token]
expiration = {token_seconds}
[fernet_tokens]
key_repository = {folder}/fernet-keys
[credential]
key_repository = {folder}/credential-keys
"""


def _server(name: str, folder: Path, port: int, token_seconds: int, threads: int) -> Process:
    home = environment("keystone")
    config = folder / f"keystone-{port}.conf"
    config.write_text(_configuration(folder, token_seconds))
    command: list[str | Path] = [
        home / "bin" / "pyuwsgi", "--master", "--die-on-term", "--no-orphans", "--lazy-apps", "--enable-threads",
        "--processes", "1", "--threads", str(threads), "--buffer-size", "65535", "--disable-logging",
        "--need-app", "--http-socket", f"127.0.0.1:{port}", "--add-header", "Connection: close",
        "--module", "keystone.wsgi.api:application",
    ]  # fmt: skip
    env = plain_environment(OS_KEYSTONE_CONFIG_DIR=str(folder), OS_KEYSTONE_CONFIG_FILES=config.name)
    return Process(name, command, folder / f"log-{port}", env=env)


def _seed() -> Path:
    """The folder with a Keystone that knows `ACCOUNTS`; made when the versions or this file have changed."""
    home = environment("keystone")
    recipe = (home / "stamp").read_text() + Path(__file__).read_text()
    name = f"keystone-seed-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    with (CACHE / "keystone-seed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / name).is_dir():
            for outdated in CACHE.glob("keystone-seed-*"):
                shutil.rmtree(outdated)
            unfinished = CACHE / "keystone-seed-unfinished"
            _make_seed(home, unfinished)
            unfinished.rename(CACHE / name)
    return CACHE / name


def _make_seed(home: Path, folder: Path) -> None:
    folder.mkdir()
    for keys in ("fernet-keys", "credential-keys"):
        (folder / keys).mkdir(mode=0o700)
    config = folder / "seed.conf"
    config.write_text(_configuration(folder, token_seconds=3600))
    endpoints = [f"--bootstrap-{kind}-url={_SEED_URL}/v3/" for kind in ("admin", "internal", "public")]
    owner = [
        f"--keystone-user={pwd.getpwuid(os.getuid()).pw_name}",
        f"--keystone-group={grp.getgrgid(os.getgid()).gr_name}",
    ]
    for arguments in (
        ["db_sync"],
        ["fernet_setup", *owner],
        ["credential_setup", *owner],
        ["bootstrap", f"--bootstrap-password={PASSWORD}", f"--bootstrap-region-id={REGION}", *endpoints],
    ):
        command = [str(home / "bin" / "keystone-manage"), "--config-file", str(config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(), check=False)
        if done.returncode:
            raise ServerFailed(f"{' '.join(command)} ended with {done.returncode}\n{done.stderr}")
        if arguments == ["db_sync"]:
            _ignore_case_in_names(folder / "keystone.sqlite")
    config.unlink()
    port = free_port()
    process = _server("Keystone, first users", folder, port, token_seconds=3600, threads=1)
    process.start(lambda: _answers(port))
    try:
        _add_accounts(f"http://127.0.0.1:{port}/v3")
    finally:
        process.stop()


def _ignore_case_in_names(path: Path) -> None:
    """Let the domain `default` be found as `Default`, as with MySQL; guides write it either way."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA writable_schema = ON")
        changed = database.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'name VARCHAR(64)', 'name VARCHAR(64) COLLATE NOCASE')"
            " WHERE type = 'table' AND name = 'project'"
        )
        assert changed.rowcount == 1
    database.close()
    with sqlite3.connect(path) as database:
        database.execute("REINDEX project")
    database.close()


def _add_accounts(url: str) -> None:
    session = requests.Session()
    session.trust_env = False
    session.headers["X-Auth-Token"] = _token(session, url.removesuffix("/v3"), "admin", "admin")[0]

    def create(kind: str, **fields: Any) -> str:
        answer = session.post(f"{url}/{kind}s", json={kind: {"domain_id": "default", **fields}}, timeout=30)
        answer.raise_for_status()
        identity: str = answer.json()[kind]["id"]
        return identity

    roles = {role["name"]: role["id"] for role in session.get(f"{url}/roles", timeout=30).json()["roles"]}
    projects = {name: create("project", name=name) for name in dict.fromkeys(account.project for account in ACCOUNTS)}
    names = dict.fromkeys(account.user for account in ACCOUNTS)
    users = {name: create("user", name=name, password=PASSWORD) for name in names}
    for account in ACCOUNTS:
        path = f"projects/{projects[account.project]}/users/{users[account.user]}/roles/{roles[account.role]}"
        session.put(f"{url}/{path}", timeout=30).raise_for_status()
