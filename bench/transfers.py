"""Rows about bytes: downloads and uploads, how fast, and how much memory they take."""

from __future__ import annotations

import os
from pathlib import Path

from bench.generator import run, running
from bench.measure import Row, Side, in_turn
from bench.servers import HEADER, Nginx, Service, memory

GIB = 1 << 30
SIZE = 2 * GIB
MANY = 16
SLOW = 2000
LONG = 10 * GIB
RANDOM_PART = 8 << 20


def prepare(path: Path, size: int) -> Path:
    """A file of bytes without holes, synced and in the page cache."""
    block = os.urandom(RANDOM_PART)
    with path.open("wb") as output:
        for _ in range(size // len(block)):
            output.write(block)
        output.flush()
        os.fsync(output.fileno())
    return path


def warm(path: Path) -> None:
    """Bring a whole file into the page cache; some machines let go of pages that nobody used for a while."""
    with path.open("rb", buffering=0) as source:
        while source.read(RANDOM_PART):
            pass


def rate(result: dict[str, float]) -> float:
    """MB (10^6 bytes) a second."""
    return result["bytes"] / result["seconds"] / 1e6


def fill_image(service: Service, source: Path, size: int) -> str:
    """A new image with the first `size` bytes of a file; its id."""
    image = service.create()
    _upload(service, image, source, size)
    return image


def _upload(service: Service, image: str, source: Path, size: int) -> float:
    url = f"{service.url}/v2/images/{image}/file"
    return rate(run("load", "upload", url, "--header", HEADER, "--file", source, "--size", size))


def _download(url: str, file: Path, clients: int) -> float:
    warm(file)
    return rate(run("load", "download", url, "--header", HEADER, "--clients", clients))


def downloads(folder: Path, source: Path, rounds: int, clients: int) -> Row:
    """Whole downloads of one warm file, against nginx with as many workers."""
    workers = len(os.sched_getaffinity(0))
    service = Service(folder / "glimpse", f"sqlite:///{folder}/database", workers)
    service.start()
    image = fill_image(service, source, SIZE)
    file = service.images / image
    nginx = Nginx(folder / "nginx", file, workers)
    nginx.start()
    try:
        url = f"{service.url}/v2/images/{image}/file"
        ours, theirs = in_turn(
            rounds, lambda: _download(url, file, clients), lambda: _download(nginx.url, file, clients)
        )
    finally:
        nginx.stop()
        service.stop()
    name = "download 2 GiB, 1 client" if clients == 1 else f"download 2 GiB, {clients} clients at once"
    return Row(
        name, "nginx sendfile, same file", Side("Glimpse", "MB/s", ours), Side("nginx", "MB/s", theirs), reach=0.90
    )


def uploads(folder: Path, source: Path, rounds: int) -> Row:
    """One raw upload, against the same work without HTTP."""
    service = Service(folder / "glimpse", f"sqlite:///{folder}/database", None)
    service.start()

    def ours() -> float:
        image = service.create()
        warm(source)
        speed = _upload(service, image, source, SIZE)
        service.call("DELETE", f"/v2/images/{image}")
        return speed

    def local(*options: str) -> float:
        target = folder / "copy"
        warm(source)
        seconds: float = run("local", source, target, SIZE, *options)["seconds"]
        target.unlink()
        return SIZE / seconds / 1e6

    try:
        glimpse, plain, threads = in_turn(rounds, ours, local, lambda: local("--threads"))
    finally:
        service.stop()
    row = Row(
        "upload 2 GiB raw", "md5 + sha512 + write + fsync in one local process, one after the other",
        Side("Glimpse", "MB/s", glimpse), Side("local", "MB/s", plain), reach=0.90,
    )  # fmt: skip
    beside = Side("local, hashes in two threads beside the write", "MB/s", threads)
    return Row(**{**vars(row), "more": [f"{beside}: Glimpse is at {row.ours.median / beside.median:.2f}x of that"]})


def long_upload(folder: Path) -> Row:
    """The most memory that the worker took while one large image came in."""
    source = folder / "sparse"
    with source.open("wb") as output:
        output.truncate(LONG)
    service = Service(folder / "glimpse", f"sqlite:///{folder}/database", 1)
    service.start()
    try:
        speed = _upload(service, service.create(), source, LONG)
        status = Path(f"/proc/{service.workers()[0]}/status").read_text()
    finally:
        service.stop()
    peak = next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM:"))
    return Row(
        "upload 10 GiB: most memory of the worker", "-", Side("RSS", "MB", [peak]), reach=150, at_most=True,
        more=[f"at {speed:.0f} MB/s"],
    )  # fmt: skip


def slow_downloads(folder: Path, source: Path) -> Row:
    """Memory for each of many downloads that hardly move."""
    service = Service(folder / "glimpse", f"sqlite:///{folder}/database", None)
    service.start()
    try:
        image = fill_image(service, source, 256 << 20)
        url = f"{service.url}/v2/images/{image}/file"
        run("load", "probe", f"{service.url}/v2/images/{image}", "--header", HEADER, "--seconds", 2)
        workers = service.workers()
        before = memory(workers)
        with running("load", "slow", url, "--header", HEADER, "--clients", SLOW):
            run("load", "probe", f"{service.url}/v2/images/{image}", "--header", HEADER, "--seconds", 5)
            after = memory(workers)
    finally:
        service.glimpse.kill9()  # a drain would wait for downloads that hardly move
    grown = {name: (after[name] - before[name]) / SLOW / 1000 for name in before}
    return Row(
        f"{SLOW:,} slow downloads at once: memory for each", "-", Side("PSS of all workers", "KB", [grown["Pss"]]),
        reach=100, at_most=True, more=[f"RSS {grown['Rss']:.1f} KB, USS {grown['Uss']:.1f} KB each"],
    )  # fmt: skip
