"""Rows about stores: uploads and downloads through Glimpse, against the store's own tool and the hashing beside it.

The store's servers run on the same cores as both sides.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench.generator import run
from bench.measure import Row, Side, in_turn
from bench.servers import HEADER, Service
from bench.store_servers import KINDS, StoreServer
from bench.transfers import GIB, fill_image, prepare, rate, warm

# The file is in the page cache: to read it three times side by side is quicker than a pipe through tee.
UPLOAD = 'md5sum "$1" & sha512sum "$1" & {tool}; wait'
# A pipe, as a file on the way costs more than it gains.
DOWNLOAD = """
mkfifo one two
md5sum <one & sha512sum <two &
{tool} | tee one two
wait
rm one two
"""


def rows(folder: Path, kind: str, rounds: int) -> list[Row]:
    """Upload and download of 1 GiB."""
    source = prepare(folder / "source", GIB)
    with KINDS[kind](folder / "store") as server:
        service = Service(
            folder / "glimpse", f"sqlite:///{folder}/database", None,
            {"DEFAULT": {"enabled_backends": f"bench:{kind}"}, "glance_store": {"default_backend": "bench"},
             "bench": dict(server.options)},
        )  # fmt: skip
        service.start()
        try:
            ours, tool = in_turn(rounds, lambda: _ours(service, source), lambda: _tool(server, folder, source))
        finally:
            service.stop()
    (up, down), (tool_up, tool_down, plain) = zip(*ours, strict=True), zip(*tool, strict=True)
    return [
        Row(
            f"upload 1 GiB, {server.title}", f"{server.tools[0]}, md5sum and sha512sum beside",
            Side("Glimpse", "MB/s", up), Side("tool and hashes", "MB/s", tool_up), reach=0.80,
        ),
        Row(
            f"download 1 GiB, {server.title}", f"{server.tools[1]} into md5sum and sha512sum; Glimpse hashes none",
            Side("Glimpse", "MB/s", down), Side("tool and hashes", "MB/s", tool_down), reach=0.80,
            more=[str(Side("tool alone, without hashing", "MB/s", plain))],
        ),
    ]  # fmt: skip


def _ours(service: Service, source: Path) -> tuple[float, float]:
    """MB a second of an upload and of a download."""
    warm(source)
    began = time.perf_counter()
    image = fill_image(service, source, GIB)
    up = GIB / (time.perf_counter() - began) / 1e6
    down = rate(run("load", "download", f"{service.url}/v2/images/{image}/file", "--header", HEADER))
    service.call("DELETE", f"/v2/images/{image}")
    return up, down


def _tool(server: StoreServer, folder: Path, source: Path) -> tuple[float, float, float]:
    """The same by the store's own tool, and a download that nobody hashes."""
    warm(source)

    def speed(script: str) -> float:
        began = time.perf_counter()
        server.shell(script, folder, source, "image")
        return GIB / (time.perf_counter() - began) / 1e6

    up = speed(UPLOAD.format(tool=server.upload))
    down, plain = speed(DOWNLOAD.format(tool=server.download)), speed(server.download)
    server.shell(server.remove, folder, source, "image")
    return up, down, plain
