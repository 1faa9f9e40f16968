"""`make bench-million`: lists of a million images in MariaDB, each against a page in the order of the primary key.

    python -m bench.million

Both requests of a pair are sent in turn on connections of their own, so that a busy machine is busy for both. Values of
filters are those of images drawn by chance: what many images have is asked for often.
"""

from __future__ import annotations

import base64
import http.client
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import bcrypt
import pymysql

from bench import million_rows
from bench.latency import percentile
from bench.measure import Row, Side
from bench.report import publish
from bench.servers import Service
from tests.rig.databases import PASSWORD, USER, MariaDB
from tests.rig.install import BENCH_PROGRAMS, CACHE, install_programs

ROUNDS = 3
REQUESTS = 40  # of each side in a round
REACH = 3.0
PRIMARY_KEY_PAGE = "limit=25&sort_key=id&sort_dir=asc&visibility=all"
SORTS = ("sort_key=created_at&sort_dir=desc", "sort_key=name&sort_dir=asc", "sort_key=size&sort_dir=desc")
# Who asks: the user's name, the number of the project, the roles.
CALLERS = (("admin", 1000, "admin"), ("large", 0, "member,reader"), ("small", 1000, "member,reader"))
WHY = "see its plan below: what is read to find the page"


@dataclass(frozen=True)
class Case:
    """A list: who asks for what; `values` draws the value behind `{}` in the query."""

    caller: str
    name: str
    query: str
    values: Sequence[str] = ("",)

    @property
    def path(self) -> str:
        """One of its requests."""
        return f"/v2/images?limit=25&{self.query.format(quote(random.choice(self.values), safe='='))}"


class Client:
    """One caller on one connection."""

    def __init__(self, service: Service, caller: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", service.glimpse.port, timeout=120)
        self._headers = {"Authorization": "Basic " + base64.b64encode(f"{caller}:{caller}".encode()).decode()}

    def seconds(self, path: str) -> float:
        """How long a GET takes. Raises `RuntimeError` when it does not succeed."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return time.perf_counter() - began


def cases(drawn: Mapping[str, Sequence[str]]) -> Iterator[Case]:
    """Every list: each filter in each order for admins; what a project sees, in each order, for a large and a small."""
    asked = {
        "all": ("visibility=all", ("",)),
        "by owner": ("visibility=all&owner={}", drawn["owner"]),
        "by visibility": ("visibility={}", ("private", "shared", "public", "community")),
        "by name": ("visibility=all&name={}", drawn["name"]),
        "by property": ("visibility=all&{}", drawn["property"]),
        "by tag": ("visibility=all&tag={}", drawn["tag"]),
    }
    for sort in SORTS:
        key = sort.partition("=")[2].partition("&")[0]
        for name, (query, values) in asked.items():
            yield Case("admin", f"admin, {name}, by {key}", f"{query}&{sort}", values)
        yield Case("admin", f"admin, default list, by {key}", sort)
        for caller in ("large", "small"):
            yield Case(caller, f"{caller} project, default list, by {key}", sort)
            yield Case(caller, f"{caller} project, by tag, by {key}", f"tag={{}}&{sort}", drawn["tag"])
            yield Case(caller, f"{caller} project, by visibility public, by {key}", f"visibility=public&{sort}")


def draw(connection: pymysql.Connection[pymysql.cursors.Cursor]) -> Mapping[str, Sequence[str]]:
    """Values of images drawn by chance."""
    drawn: dict[str, list[str]] = {"owner": [], "name": [], "property": [], "tag": []}
    with connection.cursor() as cursor:
        for _ in range(100):
            start = f"{random.getrandbits(32):08x}"
            cursor.execute("SELECT id, owner, name FROM images WHERE id > %s AND deleted = 0 LIMIT 1", start)
            image, owner, name = cursor.fetchone() or ("", "", "")
            drawn["owner"].append(owner)
            drawn["name"].append(name or "base 1")
            cursor.execute("SELECT name, value FROM image_properties WHERE image_id = %s", image)
            drawn["property"].append("=".join(random.choice(cursor.fetchall())))
            cursor.execute("SELECT value FROM image_tags WHERE image_id = %s", image)
            drawn["tag"].append(random.choice(cursor.fetchall())[0])
    return drawn


def measure(case: Case, mine: Client, admin: Client, plan: Sequence[str]) -> Row:
    """p95 of a case and of the page by primary key, request by request in turn."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        taken: tuple[list[float], list[float]] = [], []
        for _ in range(REQUESTS):
            taken[0].append(mine.seconds(case.path) * 1000)
            taken[1].append(admin.seconds(f"/v2/images?{PRIMARY_KEY_PAGE}") * 1000)
        ours.append(percentile(sorted(taken[0]), 0.95))
        theirs.append(percentile(sorted(taken[1]), 0.95))
    return Row(
        case.name, "page by primary key", Side("p95", "ms", ours), Side("primary key", "ms", theirs), reach=REACH,
        at_most=True, more=plan, why=WHY,
    )  # fmt: skip


def plans(connection: pymysql.Connection[pymysql.cursors.Cursor], request: Callable[[], object]) -> list[str]:
    """What MariaDB does for the statements of one request: EXPLAIN of each, one line for a table."""
    with connection.cursor() as cursor:
        cursor.execute("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = 0")
        cursor.execute("TRUNCATE mysql.general_log")
        cursor.execute("SET GLOBAL general_log = 1")
        request()
        cursor.execute("SET GLOBAL general_log = 0")
        cursor.execute(
            "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE command_type = 'Query'"
            " AND argument LIKE '%FROM %image%' AND argument LIKE 'SELECT%'"
        )
        lines: list[str] = []
        for (statement,) in cursor.fetchall():
            cursor.execute(f"EXPLAIN {statement}")
            for _, _, table, kind, _, key, _, _, rows, extra in cursor.fetchall():
                # Without the page's own images, and what belongs to an image that was found.
                if table and not table.startswith("<") and table != "image" and not str(key).startswith("ix_image_"):
                    lines.append(f"{table}: {kind} {key}, {rows} rows, {extra or '-'}")
        return list(dict.fromkeys(lines))


def scans(rows: Sequence[Row]) -> Row:
    """In how many lists a table is read as a whole."""
    whole = [row.name for row in rows if any(": ALL " in line or ": index None" in line for line in row.more)]
    return Row("lists whose plan reads a whole table", "EXPLAIN", Side("lists", "", [len(whole)]), reach=0,
               at_most=True, more=whole)  # fmt: skip


def run(folder: Path) -> list[Row]:
    """Load, build the indexes, measure."""
    mariadb = MariaDB(folder / "mariadb", ["--innodb-buffer-pool-size=3G", "--innodb-log-file-size=512M"])
    mariadb.start()
    service = None
    try:
        url = mariadb.fresh_url()
        service = Service(folder / "glimpse", url, 1)
        service.glimpse.manage("db", "upgrade")
        name = url.rpartition("/")[2]
        with closing(
            pymysql.connect(
                host="127.0.0.1", port=mariadb.port, user=USER, password=PASSWORD, database=name, autocommit=True
            )
        ) as connection:
            loaded = million_rows.load(connection)
            began = time.monotonic()
            service.glimpse.manage("db_sync")
            built = time.monotonic() - began
            print(f"  loaded in {loaded:.0f} s, indexes built in {built:.0f} s", flush=True)
            _add_callers(folder / "glimpse" / "users")
            service.start(sync=False)
            rows = list(_measured(service, connection))
        times = [Row("loading the rows", "-", Side("load", "s", [loaded])),
                 Row("db_sync: building the twelve indexes", "-", Side("db_sync", "s", [built]))]  # fmt: skip
        return [*rows, scans(rows), *times]
    finally:
        if service is not None:
            service.stop()
        mariadb.stop()


def _add_callers(users: Path) -> None:
    with users.open("a") as file:
        for name, number, roles in CALLERS:
            hashed = bcrypt.hashpw(name.encode(), bcrypt.gensalt(4)).decode()
            file.write(f"{name}:{hashed}:{million_rows.project(number)}:{roles}\n")


def _measured(service: Service, connection: pymysql.Connection[pymysql.cursors.Cursor]) -> Iterator[Row]:
    for case in cases(draw(connection)):
        # New ones each time: the service closes what was idle for long.
        mine, admin = Client(service, case.caller), Client(service, "admin")
        for _ in range(5):
            mine.seconds(case.path)  # what the first of a kind makes ready
        admin.seconds(f"/v2/images?{PRIMARY_KEY_PAGE}")
        plan = plans(connection, lambda mine=mine, case=case: mine.seconds(case.path))
        row = measure(case, mine, admin, plan)
        print(f"  {row.name}: {row.shown} ({statistics.median(row.ours.values):.1f} ms)", flush=True)
        yield row


def main() -> int:
    """The command."""
    install_programs(BENCH_PROGRAMS)
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        publish("A million images", run(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
