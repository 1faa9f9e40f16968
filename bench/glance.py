"""Glimpse and the real Glance side by side: the same MariaDB, Keystone and memcached, two processes each.

Records are also counted per core: requests for each second of CPU time, user and system, of all processes of the
service; the database's time is not in it, and what else the machine does matters less.

Glance comes from PyPI and runs under uWSGI as its admin guide says, with its image cache on. Neither asks Keystone for
limits, which Glimpse does not know yet and which cost Glance a call to Keystone for each create.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.measure import Row, Side, in_turn
from bench.report import publish, raw, table
from bench.servers import Nginx, cpu_seconds, started, wrk
from bench.store_servers import KINDS, StoreServer
from bench.transfers import prepare
from tests.rig.databases import MariaDB
from tests.rig.install import BENCH_PROGRAMS, CACHE, install_programs
from tests.rig.install import main as install
from tests.rig.keystone import Keystone
from tests.rig.memcached import Memcached
from tests.rig.services import Glance, Glimpse, ImageService, Sections, config_text

ROUNDS = 3
SIZE = 1 << 30
SECONDS = 4
LISTED = 100
PAIRS_FOR = 5.0  # seconds of create and delete
PIECE = 1 << 20
POLL = 0.05  # seconds between two looks at an image that is imported
STORES = ("fs", "second", "third")
RECORDS_WHY = "two cores carry MariaDB, the load and both workers; what Glimpse's own share is, the rows per core tell"
BYTES_WHY = "both hash with md5 and sha512, which is what an upload mostly is; the client takes a part of the cores"
NAMES = ("Glimpse", "Glance")
SWIFT_WHY = "Swift's servers need 3 to 5 s of CPU for it, as much for the one as for the other, and share the two cores"
CEPH_WHY = "to read 1 GiB from this Ceph takes 0.75 s when nobody sends it anywhere: a single OSD, one connection"


class Client:
    """One user of one of the services. A new connection for each call: Glance's guide closes them after one."""

    def __init__(self, service: ImageService, token: str) -> None:
        self.url = service.url
        self.pid = service.process.pid
        self.header = f"X-Auth-Token: {token}"
        self._headers = {"X-Auth-Token": token}

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """A call that has to succeed; the decoded answer."""
        connection = self._connect()
        text = json.dumps(body) if body is not None else None
        connection.request(method, path, text, {**self._headers, **(headers or {})})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {self.url}{path}: {answer.status} {content[:200]!r}")
        return json.loads(content) if content else None

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=300)

    def create(self) -> str:
        """A queued image; its id."""
        properties = {f"property_{number}": f"value {number}" for number in range(5)}
        body = {"name": "bench", "disk_format": "raw", "container_format": "bare", "tags": ["one", "two"], **properties}
        identity: str = self.call("POST", "/v2/images", body, {"Content-Type": "application/json"})["id"]
        return identity

    def upload(self, image: str, source: Path, store: str = STORES[0]) -> float:
        """MB (10^6 bytes) a second."""
        connection = self._connect()
        kind = {"Content-Type": "application/octet-stream", "X-Image-Meta-Store": store}
        began = time.perf_counter()
        with source.open("rb", buffering=0) as file:
            connection.putrequest("PUT", f"/v2/images/{image}/file")
            for name, value in {**self._headers, **kind}.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(SIZE))
            connection.endheaders()
            connection.sock.sendfile(file)
        answer = connection.getresponse()
        if answer.status != 204:
            raise RuntimeError(f"upload to {self.url}: {answer.status} {answer.read()[:200]!r}")
        connection.close()
        return SIZE / (time.perf_counter() - began) / 1e6

    def download(self, image: str) -> float:
        """MB a second."""
        connection = self._connect()
        began = time.perf_counter()
        connection.request("GET", f"/v2/images/{image}/file", headers=self._headers)
        answer = connection.getresponse()
        buffer, received = bytearray(PIECE), 0
        while got := answer.readinto(buffer):
            received += got
        connection.close()
        if received != SIZE:
            raise RuntimeError(f"download from {self.url}: {received} of {SIZE} bytes")
        return SIZE / (time.perf_counter() - began) / 1e6

    def import_from(self, uri: str, stores: Sequence[str]) -> float:
        """Import from the web and wait until the image is active; MB a second of the source."""
        image = self.create()
        order = {"method": {"name": "web-download", "uri": uri}, "stores": list(stores)}
        began = time.perf_counter()
        self.call("POST", f"/v2/images/{image}/import", order, {"Content-Type": "application/json"})
        # Glance calls an image active after the first of its stores.
        while self.call("GET", f"/v2/images/{image}").get("stores", "").count(",") + 1 < len(stores) or (
            self.call("GET", f"/v2/images/{image}")["status"] != "active"
        ):
            time.sleep(POLL)
        seconds = time.perf_counter() - began
        self.call("DELETE", f"/v2/images/{image}")
        return SIZE / seconds / 1e6

    def pairs(self) -> float:
        """Creates with their deletes a second, one after the other."""
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < PAIRS_FOR:
            self.call("DELETE", f"/v2/images/{self.create()}")
            count += 1
        return count / (time.perf_counter() - began)


def records(ours: Client, theirs: Client) -> list[Row]:
    """Show, list, create and delete."""
    for client in (ours, theirs):
        for _ in range(LISTED):
            client.create()
    shown = {client: f"/v2/images/{client.create()}" for client in (ours, theirs)}

    def load(client: Client, path: str) -> tuple[float, float]:
        """Requests a second by the clock, and a second of the service's CPU time."""
        before = cpu_seconds(client.pid)
        rate = wrk(f"{client.url}{path}", SECONDS, headers=[client.header])
        return rate, rate * SECONDS / (cpu_seconds(client.pid) - before)

    rows = []
    for name, path in (("GET image", ""), ("list of 25", "/v2/images?limit=25")):
        left, right = in_turn(
            ROUNDS, lambda p=path: load(ours, p or shown[ours]), lambda p=path: load(theirs, p or shown[theirs])
        )
        for index, (what, unit, reach) in enumerate((("by the clock", "/s", None), ("per core", "/CPU s", 10))):
            sides = [
                Side(side, unit, [run[index] for run in runs]) for side, runs in (("Glimpse", left), ("Glance", right))
            ]
            rows.append(Row(f"{name}, 16 connections, {what}", "Glance", *sides, reach=reach, why=RECORDS_WHY))
            print(f"  {rows[-1].name}: {rows[-1].shown}", flush=True)
    left, right = in_turn(ROUNDS, ours.pairs, theirs.pairs)
    rows.append(
        Row(
            "create + delete, one by one",
            "Glance",
            Side("Glimpse", "/s", left),
            Side("Glance", "/s", right),
            reach=10,
            why=RECORDS_WHY,
        )
    )
    return rows


def transfers(ours: Client, theirs: Client, source: Path) -> list[Row]:
    """Upload, the first download, and one that comes from Glance's cache."""
    taken: dict[Client, tuple[list[float], list[float], list[float]]] = {ours: ([], [], []), theirs: ([], [], [])}
    for number in range(ROUNDS):
        for client, (uploads, firsts, repeated) in taken.items():
            image = client.create()
            uploads.append(client.upload(image, source))
            firsts.append(client.download(image))
            repeated.append(client.download(image))
            client.call("DELETE", f"/v2/images/{image}")
        print(f"  transfers: round {number + 1} of {ROUNDS}", flush=True)
    names = (("upload 1 GiB", 1.8), ("first download", 3.0), ("repeated download, Glance's from its cache", 0.95))
    return [
        Row(name, "Glance", Side("Glimpse", "MB/s", taken[ours][index]), Side("Glance", "MB/s", taken[theirs][index]),
            reach=reach, why=BYTES_WHY if not index else "")
        for index, (name, reach) in enumerate(names)
    ]  # fmt: skip


def imports(ours: Client, theirs: Client, folder: Path, source: Path) -> list[Row]:
    """The same web-downloads, into one store and into three."""
    nginx = Nginx(folder / "nginx", source, 1)
    nginx.start()
    try:
        rows = []
        for stores in (STORES[:1], STORES):
            left, right = in_turn(
                ROUNDS,
                lambda chosen=stores: ours.import_from(nginx.url, chosen),
                lambda chosen=stores: theirs.import_from(nginx.url, chosen),
            )
            name = f"web-download 1 GiB into {len(stores)} store{'s' if len(stores) > 1 else ''}"
            rows.append(Row(name, "Glance", Side("Glimpse", "MB/s", left), Side("Glance", "MB/s", right), reach=2.0))
            print(f"  {rows[-1].name}: {rows[-1].shown}", flush=True)
        return rows
    finally:
        nginx.stop()


def stores(ours: Client, theirs: Client, servers: Sequence[StoreServer], source: Path) -> list[Row]:
    """Uploads to and downloads from the same servers of stores."""

    def measured(client: Client, work: Callable[[], float]) -> tuple[float, float]:
        before = cpu_seconds(client.pid)
        return work(), cpu_seconds(client.pid) - before

    def transfers(client: Client, kind: str) -> tuple[tuple[float, float], tuple[float, float]]:
        image = client.create()
        up = measured(client, lambda: client.upload(image, source, kind))
        down = measured(client, lambda: client.download(image))
        client.call("DELETE", f"/v2/images/{image}")
        return up, down

    rows = []
    for server in servers:
        runs = in_turn(ROUNDS, partial(transfers, ours, server.kind), partial(transfers, theirs, server.kind))
        for index, what in enumerate(("upload", "download")):
            speed, spent = (
                [Side(name, unit, [run[index][figure] for run in side]) for name, side in zip(NAMES, runs, strict=True)]
                for figure, unit in enumerate(("MB/s", "s"))
            )
            more = [f"CPU time of the service: {'; '.join(map(str, spent))}"]
            name = f"{what} 1 GiB, {server.title}"
            why = SWIFT_WHY if server.kind != "rbd" else CEPH_WHY if index else BYTES_WHY
            rows.append(Row(name, "Glance, same server", *speed, reach=1.5, more=more, why=why))
            print(f"  {rows[-1].name}: {rows[-1].shown}", flush=True)
    return rows


@dataclass(frozen=True)
class Beside:
    """What both services have beside them."""

    mariadb: MariaDB
    keystone: Keystone
    memcached: Memcached

    def configuration(self, kinds: Mapping[str, str], sections: Sections, flavor: str, **default: object) -> str:
        """With a database of its own. `kinds` are the names of the stores and their types."""
        return config_text({
            "DEFAULT": {"enabled_backends": ",".join(map(":".join, kinds.items())), **default},
            "database": {"connection": self.mariadb.fresh_url()},
            "keystone_authtoken": self.keystone.authtoken(self.memcached.address),
            "paste_deploy": {"flavor": flavor},
            "glance_store": {"default_backend": next(iter(kinds))},
            "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
            **sections,
        })  # fmt: skip

    @contextmanager
    def both(self, ours: Glimpse, theirs: Glance) -> Iterator[tuple[Client, Client]]:
        """Have both run."""
        for service in (ours, theirs):
            service.manage("db_sync")
        with started(ours, theirs):
            yield Client(ours, self.keystone.token()), Client(theirs, self.keystone.token())


def with_files(folder: Path, beside: Beside, source: Path) -> list[Row]:
    """Rows about records and about stores of files; both with their image caches."""

    def configuration(name: str, **default: object) -> str:
        place = folder / name
        folders = {**{store: store for store in STORES}, "os_glance_staging_store": "staging"}
        sections = {section: {"filesystem_store_datadir": place / part} for section, part in folders.items()}
        kinds = dict.fromkeys(STORES, "file")
        cache = {"image_cache_dir": place / "cache"}
        return beside.configuration(kinds, sections, "keystone+cachemanagement", **cache, **default)

    folder.mkdir()
    ours = Glimpse(folder / "glimpse", configuration("ours", workers=2), {})
    reference = {"worker_self_reference_url": "http://127.0.0.1:9292"}
    theirs = Glance(folder / "glance", configuration("theirs", **reference), {})
    with beside.both(ours, theirs) as clients:
        return [*records(*clients), *transfers(*clients, source), *imports(*clients, folder, source)]


def with_stores(folder: Path, beside: Beside, source: Path) -> list[Row]:
    """Rows about stores that are servers; both without image caches."""
    folder.mkdir()
    with ExitStack() as stack:
        servers = [stack.enter_context(start(folder / kind)) for kind, start in KINDS.items()]
        kinds = {kind: kind for kind in KINDS}
        sections = {server.kind: server.options for server in servers}
        ours, theirs = (
            service(folder / name, beside.configuration(kinds, sections, "keystone", workers=2), {})
            for name, service in (("glimpse", Glimpse), ("glance", Glance))
        )
        return stores(*stack.enter_context(beside.both(ours, theirs)), servers, source)


MEASUREMENTS = {"files": with_files, "stores": with_stores}


def compare(folder: Path, words: Sequence[str]) -> list[Row]:
    """The rows of those words, with everything started and stopped."""
    mariadb, memcached = MariaDB(folder / "mariadb"), Memcached(folder / "memcached")
    keystone = Keystone(folder / "keystone")
    source = prepare(folder / "source", SIZE)
    with started(mariadb, memcached, keystone):
        beside = Beside(mariadb, keystone, memcached)
        return [row for word in words for row in MEASUREMENTS[word](folder / word, beside, source)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.glance", description="Measure against the real Glance.")
    parser.add_argument("--only", choices=MEASUREMENTS, help="only these rows, to the terminal alone")
    only = parser.parse_args(argv).only
    if install([]):
        return 1
    install_programs(BENCH_PROGRAMS)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        rows = compare(folder, [only] if only else list(MEASUREMENTS))
    if only:
        print(f"\n{table(rows)}\n\n{raw(rows)}")
    else:
        publish("Against Glance", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
