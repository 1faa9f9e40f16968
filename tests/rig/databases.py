"""MariaDB, one server or a Galera cluster, and PostgreSQL, tuned to forget at a power cut and to be quick."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psycopg
import pymysql

from tests.rig.install import program
from tests.rig.process import Process, ServerFailed, as_user, free_port, listens, own, plain_environment

USER = "rig"
PASSWORD = "rig-secret"


class DatabaseServer(Protocol):
    """What a test that needs any real database server asks of it."""

    port: int

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill9(self) -> None: ...
    def fresh_url(self) -> str: ...


def _service_user(name: str) -> str | None:
    return name if os.geteuid() == 0 else None


def _prepare(command: list[str | Path], user: str | None) -> None:
    done = subprocess.run(as_user(user, command), capture_output=True, text=True, env=plain_environment(), check=False)
    if done.returncode:
        raise ServerFailed(f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}")


class MariaDB:
    """A MariaDB server; `rig` may do everything. The database's own root has no password."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.socket = folder / "mysqld.sock"
        user = _service_user("mysql")
        data = own(own(folder, user) / "data", user)
        # a server that starts clears its temporary folder: it must not be that of another run
        temporary = f"--tmpdir={own(folder / 'tmp', user)}"
        grants = folder / "grants.sql"
        grants.write_text(
            f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' IDENTIFIED BY '{PASSWORD}' WITH GRANT OPTION;\n"
        )
        _prepare(
            [program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", temporary,
             "--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=16M"],
            user,
        )  # fmt: skip
        command: list[str | Path] = [
            program("mariadbd"), "--no-defaults", f"--datadir={data}", temporary, f"--socket={self.socket}",
            f"--pid-file={data}/pid", "--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve",
            "--character-set-server=utf8mb4", "--max-connections=500", "--performance-schema=OFF",
            "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", f"--init-file={grants}",
            # written at each commit, but not waited for: survives kill -9 of the server, not of the machine
            "--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF", "--sync-binlog=0", *options,
        ]  # fmt: skip
        self.process = Process("MariaDB", command, folder / "log", user=user)

    def start(self) -> None:
        """Start it. Raises `ServerFailed`."""
        self.process.start(lambda: listens(self.port))

    def stop(self) -> None:
        """Stop it; the data stay."""
        self.process.stop()

    def kill9(self) -> None:
        """End it without a goodbye."""
        self.process.kill9()

    def execute(self, *statements: str) -> None:
        """Run statements as `rig`."""
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, autocommit=True
        ) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)

    def fresh_url(self) -> str:
        """Make an empty database and return its URL."""
        name = f"glimpse_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"


class Galera:
    """Two nodes of one cluster of MariaDB servers."""

    def __init__(self, folder: Path) -> None:
        first = free_port()
        own(folder, _service_user("mysql"))
        self._nodes = [
            MariaDB(folder / "1", [*_cluster_options(first, "gcomm://"), "--wsrep-new-cluster"]),
            MariaDB(folder / "2", _cluster_options(free_port(), f"gcomm://127.0.0.1:{first}")),
        ]

    def start(self) -> None:
        """Start both, the second with a copy of the first one's data. Raises `ServerFailed`."""
        for node in self._nodes:
            node.process.start(lambda node=node: _takes_part(node))

    def stop(self) -> None:
        """Stop both."""
        for node in reversed(self._nodes):
            node.stop()

    def fresh_urls(self) -> tuple[str, str]:
        """Make an empty database and return its URL on each node."""
        first, second = self._nodes
        url = first.fresh_url()
        return url, url.replace(f":{first.port}/", f":{second.port}/")


def _cluster_options(port: int, cluster: str) -> list[str]:
    """For a node that the others reach on that port; `cluster` says where they are."""
    provider = [
        f"base_port={port}", f"gmcast.listen_addr=tcp://127.0.0.1:{port}",
        f"ist.recv_addr=tcp://127.0.0.1:{free_port()}", "gcache.size=32M",
    ]  # fmt: skip
    return [
        "--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--wsrep-cluster-name=glimpse",
        f"--wsrep-cluster-address={cluster}", f"--wsrep-node-address=127.0.0.1:{port}",
        f"--wsrep-provider-options={';'.join(provider)}", "--wsrep-sst-method=rsync",
        f"--wsrep-sst-receive-address=127.0.0.1:{free_port()}", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2",
    ]  # fmt: skip


def _takes_part(node: MariaDB) -> bool:
    """Whether the node has the cluster's data and answers."""
    try:
        node.execute("SELECT COUNT(*) FROM mysql.global_priv")
    except pymysql.Error:
        return False
    return True


class PostgreSQL:
    """A PostgreSQL server; `rig` is its superuser."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._user = _service_user("postgres")  # it refuses to run as root
        self._data = own(folder, self._user) / "data"
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        _prepare(
            [program("initdb"), f"--pgdata={self._data}", f"--username={USER}", f"--pwfile={secret}",
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
            self._user,
        )  # fmt: skip
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": folder, "fsync": "off",
            "full_page_writes": "off", "shared_buffers": "32MB", "max_connections": 300,
        }  # fmt: skip
        command: list[str | Path] = [program("postgres"), "-D", self._data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        # SIGINT is its quick way out; at SIGTERM it would wait for its clients
        self.process = Process("PostgreSQL", command, folder / "log", user=self._user, stop_signal=signal.SIGINT)

    def start(self) -> None:
        """Start it. Raises `ServerFailed`."""
        self.process.start(self._answers)

    def stop(self) -> None:
        """Stop it; the data stay."""
        self.process.stop()

    def kill9(self) -> None:
        """End it without a goodbye."""
        self.process.kill9()

    def _answers(self) -> bool:
        try:
            with self._connect():
                return True
        except psycopg.OperationalError:
            return False

    @contextmanager
    def _connect(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=5) as connection:
            yield connection

    def _url(self, name: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def fresh_url(self) -> str:
        """Make an empty database and return its URL."""
        name = f"glimpse_{secrets.token_hex(4)}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)
