"""Rows about imports: how soon an image from the web is active, in one store and in several."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from bench.measure import Row, Side, in_turn
from bench.servers import Nginx, Service
from bench.transfers import SIZE, warm

POLL = 0.05  # seconds between two looks at an image
STORES = ("first", "second", "third")

# The same work by the tools that everybody has: fetch once, hash twice, write, all at the same time.
PIPELINE = """
set -e -o pipefail
mkfifo one two
md5sum <one >md5 & sha512sum <two >sha512 &
curl --silent --fail "$1" | tee one two >copy
wait
sync --data copy
rm one two copy
"""


def downloads(folder: Path, source: Path, rounds: int) -> list[Row]:
    """Web-download from a local nginx, against a pipeline; and to three stores, against one."""
    stores: dict[str, dict[str, object]] = {name: {"filesystem_store_datadir": folder / name} for name in STORES}
    service = Service(
        folder / "glimpse", f"sqlite:///{folder}/database", None,
        {
            "DEFAULT": {"enabled_backends": ",".join(f"{name}:file" for name in STORES)},
            "glance_store": {"default_backend": STORES[0]},
            "os_glance_staging_store": {"filesystem_store_datadir": folder / "staging"},
            "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
            **stores,
        },
    )  # fmt: skip
    service.start()
    nginx = Nginx(folder / "nginx", source, len(os.sched_getaffinity(0)))
    nginx.start()

    def ours(number: int) -> float:
        warm(source)
        return SIZE / _import(service, nginx.url, STORES[:number]) / 1e6

    def pipeline() -> float:
        warm(source)
        began = time.perf_counter()
        subprocess.run(["bash", "-c", PIPELINE, "pipeline", nginx.url], cwd=folder, check=True)
        return SIZE / (time.perf_counter() - began) / 1e6

    try:
        one, three, tools = in_turn(rounds, lambda: ours(1), lambda: ours(3), pipeline)
    finally:
        nginx.stop()
        service.stop()
    seconds = [Side(name, "s", [SIZE / 1e6 / speed for speed in speeds])
               for name, speeds in (("three stores", three), ("one store", one))]  # fmt: skip
    return [
        Row("web-download 2 GiB until active", "curl, md5sum, sha512sum and a write with fsync in one pipeline",
            Side("Glimpse", "MB/s", one), Side("pipeline", "MB/s", tools), reach=0.80),
        Row("the same into three stores: time", "into one store", *seconds, reach=1.50, at_most=True),
    ]  # fmt: skip


def _import(service: Service, uri: str, stores: tuple[str, ...]) -> float:
    """The seconds until the image is active."""
    image = service.create()
    order = {"method": {"name": "web-download", "uri": uri}, "stores": list(stores)}
    began = time.perf_counter()
    service.call("POST", f"/v2/images/{image}/import", json=order)
    while (status := service.call("GET", f"/v2/images/{image}").json()["status"]) != "active":
        if status != "importing":
            raise RuntimeError(f"the import has failed: {service.call('GET', f'/v2/images/{image}/tasks').text}")
        time.sleep(POLL)
    seconds = time.perf_counter() - began
    service.call("DELETE", f"/v2/images/{image}")
    return seconds
