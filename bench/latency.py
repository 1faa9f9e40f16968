"""Rows about waiting: records while the disk is busy, a worker that died, and the start."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

from bench.generator import run, running
from bench.measure import Row, Side, in_turn, short
from bench.servers import HEADER, Nginx, Service
from bench.transfers import fill_image, rate
from tests.rig.process import wait_for

COLD_CLIENTS = 64
COLD_SIZE = 2 << 30
RATE = 100  # requests a second
CONNECTIONS = 4
SECONDS = 8


def _probe(url: str, seconds: float = SECONDS) -> list[float]:
    """Milliseconds of each request, sorted."""
    options = ["--header", HEADER, "--clients", CONNECTIONS, "--rate", RATE, "--seconds", seconds]
    taken: list[float] = run("load", "probe", url, *options)["milliseconds"]
    return taken


def percentile(values: list[float], part: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * part))]


def cold_downloads(folder: Path, connection: str, source: Path, rounds: int, workers: int | None) -> Row:
    """The slowest hundredth of GETs while cold downloads run, against the same without them."""
    service = Service(folder / "glimpse", connection, workers)
    service.start()
    try:
        image = fill_image(service, source, COLD_SIZE)
        nginx = Nginx(folder / "nginx", service.images / image, len(service.workers()))
        nginx.start()
        url = f"{service.url}/v2/images/{image}"
        _probe(url, 1)
        speeds: list[float] = []

        def quiet() -> list[float]:
            return _probe(url)

        def loud(file_url: str) -> list[float]:
            churn = ["churn", file_url, "--header", HEADER, "--clients", str(COLD_CLIENTS)]
            with running("load", *churn, "--file", service.images / image) as downloads:
                taken = _probe(url)
            speeds.append(rate(downloads))
            return taken

        idle, busy, beside = in_turn(rounds, quiet, lambda: loud(f"{url}/file"), lambda: loud(nginx.url))
        nginx.stop()
    finally:
        service.stop()
    half = [statistics.median(percentile(run, 0.5) for run in runs) for runs in (idle, busy, beside)]
    late = [[percentile(run, 0.99) for run in runs] for runs in (idle, busy, beside)]
    part = statistics.median(late[2]) / statistics.median(late[0])
    floor = Side("the machine's own part: the same downloads from nginx, beside an idle Glimpse", "ms p99", late[2])
    return Row(
        f"p99 of GET image while {COLD_CLIENTS} cold downloads run, {_workers(workers)}", "the same idle",
        Side("busy", "ms", late[1]), Side("idle", "ms", late[0]), reach=3, at_most=True,
        more=[f"{floor}: {part:.2f}x idle",
              f"p50 {short(half[0])} ms idle, {short(half[1])} busy, {short(half[2])} beside nginx",
              f"downloads at {statistics.median(speeds[::2]):.0f} MB/s, nginx {statistics.median(speeds[1::2]):.0f}"],
        why=f"the downloads take every core; with nginx sending them, and Glimpse idle, it is {part:.2f}x already.",
    )  # fmt: skip


def _workers(workers: int | None) -> str:
    return "one worker" if workers == 1 else f"{workers or len(os.sched_getaffinity(0))} workers"


def starts(folder: Path, rounds: int) -> list[Row]:
    """From the death of the only worker to the next answer, and from the command to the first one."""
    service = Service(folder / "glimpse", f"sqlite:///{folder}/database", 1)
    service.glimpse.manage("db_sync")
    commands, workers = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        service.start(sync=False)
        service.call("GET", "/v2/images")
        commands.append(time.perf_counter() - began)
        try:
            wait_for("the worker to grow up", lambda: service.answers("/v2/images"), 10)
            time.sleep(2)  # one that dies young is replaced with a pause, on purpose
            began = time.perf_counter()
            os.kill(service.workers()[0], signal.SIGKILL)
            wait_for("an answer", lambda: service.answers("/v2/images"), 30)
            workers.append(time.perf_counter() - began)
        finally:
            service.stop()
    return [
        Row("a worker is killed: until the next answer", "-", Side("worker", "s", workers), reach=1, at_most=True),
        Row("glance-api: until the first answer", "-", Side("command", "s", commands)),
    ]
