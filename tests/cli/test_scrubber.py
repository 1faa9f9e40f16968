"""`glance-scrubber`: one pass, for ever, and back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import glimpse
from glimpse.cli import scrubber
from glimpse.db import images
from glimpse.db.engine import Database
from glimpse.domain import lifecycle
from glimpse.domain.context import Context
from glimpse.domain.record import Image, Location
from glimpse.settings import load
from tests.db.opened import opened

ADMIN = Context(is_admin=True)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    file = tmp_path / "glance-scrubber.conf"
    file.write_text(
        "[DEFAULT]\nenabled_backends = fs:file\nscrub_time = 60\nwakeup_time = 1\n[glance_store]\ndefault_backend = fs"
        f"\n[fs]\nfilesystem_store_datadir = {tmp_path}/fs\n[database]\nconnection = sqlite:///{tmp_path}/db\n"
    )
    (tmp_path / "fs").mkdir()
    with opened(load(["--config-file", str(file)]).database, 1):
        return file


@pytest.fixture
def run(conf: Path) -> Callable[..., int]:
    return lambda *arguments: scrubber.main(["--config-file", str(conf), *arguments])


def put(conf: Path, image_id: str, ago: int = 3600) -> Path:
    """An image that was deleted so many seconds ago; its file."""
    file, now, old = conf.parent / "fs" / image_id, lifecycle.now(), lifecycle.now() - timedelta(days=1)
    file.write_bytes(b"bytes")
    database = Database(load(["--config-file", str(conf)]).database, 1)

    def work(connection: images.Connection) -> None:
        images.insert(connection, Image(image_id, "active", "shared", old, old, properties={"a": "1"}))
        images.add_location(connection, image_id, Location(file.as_uri(), {"store": "fs"}), old)
        image = images.get(connection, image_id, ADMIN)
        images.delete(connection, image, "pending_delete", now - timedelta(seconds=ago))

    database.write(work)
    database.close()
    return file


def found(conf: Path, image_id: str) -> Image:
    database = Database(load(["--config-file", str(conf)]).database, 1)
    try:
        return database.read(lambda c: images.get(c, image_id, ADMIN))
    finally:
        database.close()


def test_one_pass(run: Callable[..., int], conf: Path) -> None:
    old, young = put(conf, "old"), put(conf, "young", ago=30)
    assert run() == 0
    assert (old.exists(), young.exists()) == (False, True)
    assert run() == 0


def test_restore(run: Callable[..., int], conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(conf, "mine")
    assert run("--restore", "mine") == 0
    assert "active" in capsys.readouterr().out
    back = found(conf, "mine")
    assert (back.status, back.properties, len(back.locations)) == ("active", {"a": "1"}, 1)
    assert run() == 0
    assert file.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--restore", "unknown"), "unknown"),
        (("--restore", "erased"), "deleted"),
        (("--restore", "erased", "--daemon"), "exclude"),
        (("--restore", "erased", "-D"), "exclude"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Callable[..., int], conf: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    put(conf, "erased")
    assert run() == 0
    capsys.readouterr()
    assert run(*arguments) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("ERROR: ")
    assert words in shown.err
    assert shown.out == ""


def test_a_configuration_with_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "glance-scrubber.conf"
    file.write_text("[DEFAULT]\nscrub_time = soon\n[database]\nconnection = sqlite://\n")
    assert scrubber.main(["--config-file", str(file)]) == 1
    assert "scrub_time" in capsys.readouterr().err


def test_a_database_without_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "glance-scrubber.conf"
    file.write_text(f"[database]\nconnection = sqlite:///{tmp_path}/empty\n[glance_store]\n"
                    f"filesystem_store_datadir = {tmp_path}/fs\n")  # fmt: skip
    assert scrubber.main(["--config-file", str(file)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("ERROR: ")


def test_for_ever_until_told(conf: Path) -> None:
    """The installed command, with its own file in the folder of the configuration."""
    first = put(conf, "first")
    env = {
        **os.environ,
        "OS_GLANCE_CONFIG_DIR": str(conf.parent),
        "PYTHONPATH": str(Path(glimpse.__file__).parents[1]),
    }
    command = [str(Path(sys.executable).with_name("glance-scrubber")), "--daemon"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
    try:
        _wait(lambda: not first.exists())
        second = put(conf, "second")
        _wait(lambda: not second.exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def _wait(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
