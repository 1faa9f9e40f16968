"""Many downloads of an image that a slow web server has and nobody has asked for yet, against nginx as a cache."""

from __future__ import annotations

import itertools
import os
import pwd
from pathlib import Path

from bench.generator import run
from bench.measure import Row, Side, in_turn
from bench.servers import HEADER, Service
from bench.transfers import prepare, rate, warm
from tests.rig.install import program
from tests.rig.process import Process, free_port, listens

CLIENTS = 200
SIZE = 128 << 20
SLOW = 25  # MiB a second that the web server gives away
PATCH_TYPE = "application/openstack-images-v2.1-json-patch"


class Front:
    """nginx, twice: a slow web server with one file, and in front of it one with a cache that reads it once."""

    def __init__(self, folder: Path, file: Path, workers: int) -> None:
        folder.mkdir()
        self.slow, self.cached = free_port(), free_port()
        self._log = folder / "access.log"
        # As root it would drop to a user who may not look into this folder.
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        configuration = folder / "nginx.conf"
        configuration.write_text(
            f"""daemon off; {user} worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format asked $request_method; access_log off; sendfile on; default_type application/octet-stream;
    client_body_temp_path {folder}/body; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi; proxy_temp_path {folder}/proxy;
    proxy_cache_path {folder}/cache keys_zone=images:1m max_size=10g use_temp_path=off;
    server {{
        listen 127.0.0.1:{self.slow}; access_log {self._log} asked;
        location = /image {{ alias {file}; limit_rate {SLOW}m; }}
    }}
    server {{
        listen 127.0.0.1:{self.cached};
        location / {{
            proxy_pass http://127.0.0.1:{self.slow}; proxy_cache images; proxy_cache_valid 200 1h;
            proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; proxy_max_temp_file_size 0;
        }}
    }}
}}
"""
        )
        self.process = Process("nginx", [program("nginx"), "-p", folder, "-c", configuration], folder / "log")

    def start(self) -> None:
        """Start both."""
        self.process.start(lambda: listens(self.slow) and listens(self.cached))

    def stop(self) -> None:
        """Stop both."""
        self.process.stop()

    def reads(self) -> int:
        """How often the file was asked for so far."""
        return self._log.read_text().count("GET")


def many_of_one(folder: Path, rounds: int) -> Row:
    """All bytes that the clients get, by the time until the last of them has all."""
    workers = len(os.sched_getaffinity(0))
    file = prepare(folder / "file", SIZE)
    front = Front(folder / "nginx", file, workers)
    service = Service(folder / "glimpse", f"sqlite:///{folder}/database", workers, {
        "DEFAULT": {"image_cache_dir": folder / "cache", "show_multiple_locations": True},
        "paste_deploy": {"flavor": "http_basic+caching"},
        "glance_store": {"stores": "file,http"},
        "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
    })  # fmt: skip
    front.start()
    service.start()
    reads: list[int] = []

    def clients(url: str) -> float:
        warm(file)
        before = front.reads()
        speed = rate(run("load", "download", url, "--header", HEADER, "--clients", CLIENTS))
        reads.append(front.reads() - before)
        return speed

    def ours() -> float:
        image = service.create()
        place = {"url": f"http://127.0.0.1:{front.slow}/image", "metadata": {}}
        patch = [{"op": "add", "path": "/locations/-", "value": place}]
        service.call("PATCH", f"/v2/images/{image}", json=patch, headers={"Content-Type": PATCH_TYPE})
        return clients(f"{service.url}/v2/images/{image}/file")

    numbers = itertools.count()
    try:
        glimpse, nginx = in_turn(
            rounds, ours, lambda: clients(f"http://127.0.0.1:{front.cached}/image?{next(numbers)}")
        )
    finally:
        service.stop()
        front.stop()
    return Row(
        f"{CLIENTS} downloads at once of 128 MiB that a web server gives away at {SLOW} MiB/s, none cached",
        "nginx with proxy_cache_lock, same web server", Side("Glimpse", "MB/s", glimpse), Side("nginx", "MB/s", nginx),
        reach=0.80, more=[f"reads of the web server: Glimpse {reads[::2]}, nginx {reads[1::2]}"],
        why="" if set(reads[::2]) == {1} else "the web server was read more than once",
    )  # fmt: skip
