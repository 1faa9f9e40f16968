"""Load on an HTTP server, each kind in a process of its own, and as cheap as can be so that the server is the limit.

    python -m bench.load download URL …      the bytes are dropped in the kernel (MSG_TRUNC)
    python -m bench.load upload URL …        the bytes come from a file by sendfile
    python -m bench.load churn URL …         downloads of parts, again and again, each evicted from the page cache first
    python -m bench.load probe URL …         GETs at a fixed rate, and how long each took
    python -m bench.load slow URL …          downloads that hardly read

Each prints one line of JSON when it is done; `churn` and `slow` print `ready` first and go on until their standard
input is closed. Raises `LoadFailed` for any answer that is not the one expected.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WHOLE = 4 << 20  # bytes that one call of a download asks the kernel for
HEAD_LIMIT = 64 << 10
PATIENCE = 120.0  # seconds without progress


class LoadFailed(Exception):
    """The server answered something else, or not at all."""


@dataclass(frozen=True)
class Target:
    """Where to, and what every request carries."""

    host: str
    port: int
    path: str
    headers: tuple[str, ...] = ()

    def connect(self) -> socket.socket:
        """A blocking connection."""
        connection = socket.create_connection((self.host, self.port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A timeout in Python makes the socket non-blocking, and each call two; the kernel's costs nothing.
        connection.settimeout(None)
        limit = int(PATIENCE).to_bytes(8, "little") + bytes(8)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return connection

    def request(self, method: str = "GET", *more: str) -> bytes:
        """The head of a request."""
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {self.host}:{self.port}", *self.headers, *more, "", ""]
        return "\r\n".join(lines).encode()


def target(url: str, headers: Sequence[str] = ()) -> Target:
    """A target from its URL."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname or "", parts.port or 80, path, tuple(headers))


def read_head(connection: socket.socket, expected: Sequence[int]) -> tuple[int, bytes]:
    """Content-Length of the answer and what came of its body already. Raises `LoadFailed` for another status."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(HEAD_LIMIT)
        if not part:
            raise LoadFailed(f"the connection ended after {data[:200]!r}")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    if int(first.split()[1]) not in expected:
        raise LoadFailed(f"answered {first}: {rest[:300]!r}")
    length = next((line.partition(":")[2] for line in lines if line.lower().startswith("content-length:")), "0")
    return int(length), rest


def _drop(connection: socket.socket, left: int, buffer: memoryview) -> None:
    """Take `left` bytes off the connection without looking at them."""
    while left > 0:
        count = connection.recv_into(buffer, min(left, WHOLE), socket.MSG_TRUNC | socket.MSG_WAITALL)
        if not count:
            raise LoadFailed(f"the connection ended {left} bytes early")
        left -= count


def _together(jobs: Sequence[Callable[[], None]]) -> None:
    """Run each in a thread; raise the first failure."""
    failures: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def download(where: Target, clients: int) -> dict[str, Any]:
    """`clients` whole downloads at once; all connect first."""
    buffer = memoryview(mmap.mmap(-1, WHOLE))
    connections = [where.connect() for _ in range(clients)]
    sizes = []

    def one(connection: socket.socket) -> None:
        connection.sendall(where.request())
        size, rest = read_head(connection, [200])
        _drop(connection, size - len(rest), buffer)
        sizes.append(size)

    began = time.perf_counter()
    _together([lambda c=connection: one(c) for connection in connections])
    return {"seconds": time.perf_counter() - began, "bytes": sum(sizes)}


def upload(where: Target, path: str, size: int) -> dict[str, Any]:
    """One upload of the first `size` bytes of a file."""
    connection = where.connect()
    began = time.perf_counter()
    connection.sendall(where.request("PUT", "Content-Type: application/octet-stream", f"Content-Length: {size}"))
    with open(path, "rb") as source:
        sent = 0
        while sent < size:
            sent += os.sendfile(connection.fileno(), source.fileno(), sent, size - sent)
    read_head(connection, [204])
    return {"seconds": time.perf_counter() - began, "bytes": size}


def churn(where: Target, clients: int, path: str) -> dict[str, Any]:
    """Downloads of `clients` parts of a file, each again and again, each time thrown out of the page cache before."""
    buffer = memoryview(mmap.mmap(-1, WHOLE))
    descriptor = os.open(path, os.O_RDONLY)
    part = os.fstat(descriptor).st_size // clients
    stop = threading.Event()
    moved = [0] * clients

    def one(index: int) -> None:
        with where.connect() as connection:
            while not stop.is_set():
                first = index * part
                os.posix_fadvise(descriptor, first, part, os.POSIX_FADV_DONTNEED)
                connection.sendall(where.request("GET", f"Range: bytes={first}-{first + part - 1}"))
                size, rest = read_head(connection, [206])
                left = size - len(rest)
                while left > 0 and not stop.is_set():
                    step = min(left, WHOLE)
                    _drop(connection, step, buffer)
                    left -= step
                    moved[index] += step

    began = time.perf_counter()
    threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    if not all(thread.is_alive() for thread in threads):
        raise LoadFailed("a download failed")
    _wait_for_the_end()
    seconds = time.perf_counter() - began
    failed = not all(thread.is_alive() for thread in threads)
    stop.set()
    if failed:
        raise LoadFailed("a download failed")
    return {"seconds": seconds, "bytes": sum(moved)}


def _wait_for_the_end() -> None:
    print("ready", flush=True)
    sys.stdin.read()


def probe(where: Target, connections: int, rate: float, seconds: float) -> dict[str, Any]:
    """GETs at `rate` a second in all. A late start counts too."""
    taken: list[float] = []

    def one(index: int) -> None:
        mine = []
        with where.connect() as connection:
            connection.sendall(where.request())
            _one_answer(connection)
            start = time.perf_counter() + 0.2 + index / rate
            for number in range(int(seconds * rate / connections)):
                due = start + number * connections / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                connection.sendall(where.request())
                _one_answer(connection)
                mine.append(time.perf_counter() - due)
        taken.extend(mine)

    _together([lambda i=index: one(i) for index in range(connections)])
    return {"milliseconds": sorted(round(each * 1000, 3) for each in taken)}


def _one_answer(connection: socket.socket) -> None:
    size, rest = read_head(connection, [200])
    while len(rest) < size:
        rest += connection.recv(size - len(rest))


def slow(where: Target, clients: int, per_second: int) -> dict[str, Any]:
    """`clients` downloads that read `per_second` bytes each second, and keep little in their own buffers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, clients + 100)), hard))
    connections = []
    for _ in range(clients):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((where.host, where.port))
        connection.sendall(where.request())
        connections.append(connection)
    for connection in connections:
        read_head_slowly(connection)
        connection.setblocking(False)
    print("ready", flush=True)
    got = 0
    while not select.select([sys.stdin], [], [], 1.0)[0]:
        for connection in connections:
            try:
                part = connection.recv(per_second)
            except BlockingIOError:
                continue
            if not part:
                raise LoadFailed("a slow download was cut off")
            got += len(part)
    return {"bytes": got, "clients": clients}


def read_head_slowly(connection: socket.socket) -> None:
    """The head of an answer and no more than a little of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(256)
        if not part:
            raise LoadFailed(f"the connection ended after {data!r}")
        data += part
    if data.split(b" ", 2)[1] != b"200":
        raise LoadFailed(f"answered {data[:300]!r}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("kind", choices=["download", "upload", "churn", "probe", "slow"])
    parser.add_argument("url")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--file", default="")
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--per-second", type=int, default=1024)
    options = parser.parse_args(argv)
    where = target(options.url, options.header)
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "download": lambda: download(where, options.clients),
        "upload": lambda: upload(where, options.file, options.size),
        "churn": lambda: churn(where, options.clients, options.file),
        "probe": lambda: probe(where, options.clients, options.rate, options.seconds),
        "slow": lambda: slow(where, options.clients, options.per_second),
    }
    try:
        print(json.dumps(kinds[options.kind]()), flush=True)
    except (LoadFailed, OSError) as error:
        print(f"{options.kind}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
