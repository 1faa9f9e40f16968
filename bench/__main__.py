"""`make bench`: every row against the limit of the machine, in one run.

python -m bench                  all rows (about 18 minutes), into RESULTS.md
python -m bench --only upload    rows whose key holds a word, to the terminal alone
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import cached, imports, latency, records, stores, transfers
from bench.measure import Row
from bench.report import publish, raw, table
from bench.store_servers import KINDS
from tests.rig.databases import MariaDB
from tests.rig.install import BENCH_PROGRAMS, CACHE, MissingPart, install_programs
from tests.rig.install import main as install

ROUNDS = 3

Measurement = Callable[[Path], Sequence[Row]]


def measurements(mariadb: MariaDB, source: Path) -> Mapping[str, Measurement]:
    """Every row by a key, each in a folder of its own."""

    def sqlite(folder: Path) -> str:
        return f"sqlite:///{folder}/database"

    return {
        "download": lambda folder: [transfers.downloads(folder, source, ROUNDS, 1)],
        "downloads-16": lambda folder: [transfers.downloads(folder, source, ROUNDS, transfers.MANY)],
        "cached": lambda folder: [cached.many_of_one(folder, ROUNDS)],
        "upload": lambda folder: [transfers.uploads(folder, source, ROUNDS)],
        "imports": lambda folder: imports.downloads(folder, source, ROUNDS),
        "show-mariadb": lambda folder: [records.show(folder, mariadb.fresh_url(), ROUNDS, "MariaDB")],
        "show-sqlite": lambda folder: [records.show(folder, sqlite(folder), ROUNDS, "SQLite")],
        "pages-mariadb": lambda folder: [records.pages(folder, mariadb.fresh_url(), ROUNDS, "MariaDB")],
        "pages-sqlite": lambda folder: [records.pages(folder, sqlite(folder), ROUNDS, "SQLite")],
        "p99-one": lambda folder: [latency.cold_downloads(folder, mariadb.fresh_url(), source, ROUNDS, 1)],
        "p99-all": lambda folder: [latency.cold_downloads(folder, mariadb.fresh_url(), source, ROUNDS, None)],
        "slow": lambda folder: [transfers.slow_downloads(folder, source)],
        "long-upload": lambda folder: [transfers.long_upload(folder)],
        "starts": lambda folder: latency.starts(folder, ROUNDS),
        **{f"stores-{kind}": partial(stores.rows, kind=kind, rounds=ROUNDS) for kind in KINDS},
    }


def run(folder: Path, words: Sequence[str]) -> list[Row]:
    """Measure the rows whose key holds one of the words, or all."""
    mariadb = MariaDB(folder / "mariadb", ["--innodb-buffer-pool-size=512M"])
    mariadb.start()
    try:
        print("  preparing 2 GiB", flush=True)
        source = transfers.prepare(folder / "source", transfers.SIZE)
        rows: list[Row] = []
        for key, measure in measurements(mariadb, source).items():
            if words and not any(word in key for word in words):
                continue
            place, began = folder / key, time.monotonic()
            place.mkdir()
            place.chmod(0o755)
            measured = measure(place)
            for row in measured:
                print(f"  {row.name}: {row.shown} ({time.monotonic() - began:.0f} s)", flush=True)
            rows += measured
        return rows
    finally:
        mariadb.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure against the machine's own limits.")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="only rows whose key holds a word")
    words = parser.parse_args(argv).only
    if install([]):
        return 1
    try:
        install_programs(BENCH_PROGRAMS)
    except MissingPart as error:
        print(f"bench: {error}")
        return 1
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        rows = run(folder, words)
    if words:
        print(f"\n{table(rows)}\n\n{raw(rows)}")
    else:
        publish("Against the limit", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
