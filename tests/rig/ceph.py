"""Ceph: a monitor and one OSD that keeps everything in memory, without keys."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.rig.install import program
from tests.rig.process import Process, ServerFailed, free_port, listens, own, plain_environment, wait_for

POOL = "images"
_ROOM = 2 << 30  # bytes that the OSD takes


class Ceph:
    """A Ceph cluster of one copy of everything, with the pool `images`, ready for RBD. Its OSD keeps what it has when
    it is stopped, and loses all of it when it is killed."""

    def __init__(self, folder: Path, room: int = _ROOM) -> None:
        self._folder = own(folder, None)
        self.fsid = str(uuid.uuid4())
        self.conf = folder / "ceph.conf"
        self._port, old_port = free_port(), free_port()
        self._addresses = f"[v2:127.0.0.1:{self._port},v1:127.0.0.1:{old_port}]"
        self.conf.write_text(_conf(self._folder, self.fsid, self._addresses, room))
        self._env = plain_environment(HOME=str(own(folder / "home", None)), CEPH_CONF=str(self.conf))
        self.mon = self._daemon("ceph-mon", "m")
        self.osd = self._daemon("ceph-osd", "0")

    def _daemon(self, name: str, number: str) -> Process:
        command = [program(name), "-f", "-i", number, "-c", self.conf]
        return Process(name, command, self._folder / f"{name}.log", env=self._env)

    def start(self) -> None:
        """Start what does not run; a new cluster is made first. Raises `ServerFailed`."""
        if not self.mon.running:
            self.start_mon()
        if not self.osd.running:
            self.start_osd()

    def start_mon(self) -> None:
        """Start the monitor; it knows what it knew. Raises `ServerFailed`."""
        if not (self._folder / "mon").exists():
            new_map = self._folder / "monmap"
            self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "m", self._addresses, str(new_map))
            self.run("ceph-mon", "--mkfs", "-i", "m", "--monmap", str(new_map), "-c", str(self.conf))
        self.mon.start(lambda: listens(self._port))
        wait_for("a quorum of Ceph", self._answers, 30)

    def start_osd(self) -> None:
        """Start the OSD with what it had when it was stopped. Raises `ServerFailed`."""
        data = self._folder / "osd"
        new = not data.exists()
        if new:
            identity = str(uuid.uuid4())
            self.ceph("osd", "new", identity, "0")
            own(data, None)
            self.run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", identity, "-c", str(self.conf))
        self.osd.start(self._is_up)
        if new:
            self.make_pool(POOL)

    def stop(self) -> None:
        """Stop both. What the OSD holds stays."""
        self.stop_osd()
        self.mon.stop()

    def stop_osd(self) -> None:
        """Stop the OSD, also one that was frozen."""
        if self.osd.running:
            self.osd.signal(signal.SIGCONT)
        self.osd.stop()

    def freeze(self) -> None:
        """Let the OSD answer nobody until `thaw`."""
        self.osd.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.osd.signal(signal.SIGCONT)

    def fill(self) -> None:
        """Have the pools full, as they are above `mon_osd_full_ratio`, until `empty`; the OSD needs some bytes."""
        self._set_ratios("0.0000001", "0.0000002", "0.0000003")
        wait_for("a full pool", lambda: self._pools_are_full(), 30)

    def empty(self) -> None:
        """Have room in them again."""
        self._set_ratios("0.85", "0.9", "0.95")
        wait_for("a pool with room", lambda: not self._pools_are_full(), 30)

    def _set_ratios(self, *ratios: str) -> None:
        for ratio, value in zip(("full", "backfillfull", "nearfull"), reversed(ratios), strict=True):
            self.ceph("osd", f"set-{ratio}-ratio", value)

    def _pools_are_full(self) -> bool:
        pools = self.ceph("osd", "dump")["pools"]
        return all("full" in pool["flags_names"].split(",") for pool in pools)

    def make_pool(self, name: str) -> None:
        """Make a pool for RBD images."""
        self.ceph("osd", "pool", "create", name, "8")
        self.rbd("pool", "init", name)

    def ceph(self, *words: str) -> Any:
        """An answer of the `ceph` command, from its JSON. Raises `ServerFailed`."""
        out = self.run("ceph", "-c", str(self.conf), "--connect-timeout", "10", "-f", "json", *words)
        return json.loads(out) if out.strip() else None

    def rbd(self, *words: str) -> bytes:
        """What the `rbd` command prints. Raises `ServerFailed`."""
        return self.run("rbd", "-c", str(self.conf), *words)

    def run(self, name: str, *words: str) -> bytes:
        """What a program prints that finds the cluster by itself. Raises `ServerFailed`."""
        try:
            done = subprocess.run(
                [program(name), *words], check=True, capture_output=True, env=self._env, timeout=60, cwd=self._folder
            )
        except subprocess.CalledProcessError as error:
            raise ServerFailed(f"{name} {' '.join(words)}: {error.stderr.decode(errors='replace')[-2000:]}") from error
        except subprocess.TimeoutExpired as error:
            raise ServerFailed(f"{name} {' '.join(words)}: no answer\n{self.mon.tail()}\n{self.osd.tail()}") from error
        return done.stdout

    def _answers(self) -> bool:
        return _succeeds(partial(self.ceph, "quorum_status"))

    def _is_up(self) -> bool:
        return bool(self.ceph("osd", "stat")["num_up_osds"])


def _succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except ServerFailed:
        return False
    return True


def _conf(folder: Path, fsid: str, addresses: str, room: int) -> str:
    options: dict[str, object] = {
        "fsid": fsid,
        "mon host": addresses,
        "public addr": "127.0.0.1",
        "ms bind ipv6": "false",
        **{f"auth {what} required": "none" for what in ("cluster", "service", "client")},
        "osd pool default size": 1,
        "osd pool default min size": 1,
        "mon allow pool size one": "true",
        "mon allow pool delete": "true",
        "mon data avail warn": 1,
        "mon data avail crit": 1,
        "paxos propose interval": 0.05,  # each snapshot waits for it
        "objecter tick interval": 1,  # seconds after which clients say that they are there,
        "osd client watch timeout": 4,  # and without that are taken for dead
        "osd objectstore": "memstore",
        "memstore device bytes": room,
        "osd fast shutdown": "false",  # else memstore has no time to write down what it has
        "osd class update on start": "false",
        "osd crush chooseleaf type": 0,
        "mon data": folder / "mon",
        "osd data": folder / "osd",
        "run dir": folder,
        "admin socket": folder / "$name.$pid.asok",
        "log file": "",
        "log to stderr": "true",
        "err to stderr": "true",
        "debug rocksdb": 0,
        "mon cluster log file": folder / "cluster.log",
    }
    lines = [f"{name} = {value}\n" for name, value in options.items()]
    return "".join(["[global]\n", *lines, "[client]\nlog to stderr = false\nerr to stderr = false\n"])
