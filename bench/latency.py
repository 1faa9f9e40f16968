"""Rows about waiting: records while the disk is busy, a worker that died, and the start."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

from bench.generator import run, running
from bench.measure import Row, Side, short
from bench.servers import HEADER, Service
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
    busy, idle, speeds = [], [], []
    medians: list[tuple[float, float]] = []
    try:
        image = fill_image(service, source, COLD_SIZE)
        url = f"{service.url}/v2/images/{image}"
        _probe(url, 1)
        churn = ["load", "churn", f"{url}/file", "--header", HEADER, "--clients", COLD_CLIENTS]
        for _ in range(rounds):
            quiet = _probe(url)
            with running(*churn, "--file", service.images / image) as downloads:
                loud = _probe(url)
            speeds.append(rate(downloads))
            idle.append(percentile(quiet, 0.99))
            busy.append(percentile(loud, 0.99))
            medians.append((percentile(quiet, 0.5), percentile(loud, 0.5)))
    finally:
        service.stop()
    half = [statistics.median(each) for each in zip(*medians, strict=True)]
    return Row(
        f"p99 of GET image while {COLD_CLIENTS} cold downloads run, {_workers(workers)}", "the same idle",
        Side("busy", "ms", busy), Side("idle", "ms", idle), reach=3, at_most=True,
        more=[f"p50 {short(half[1])} ms busy, {short(half[0])} ms idle",
              f"downloads at {statistics.median(speeds):.0f} MB/s meanwhile"],
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
