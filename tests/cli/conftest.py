"""`glance-manage` in this process, with a configuration of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glimpse.cli import manage

Run = Callable[..., int]


@pytest.fixture(autouse=True)
def log_of_this_process() -> Iterator[None]:
    """Commands that log set it up for their process, which here is that of the tests."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def config(folder: Path, url: str, extra: str = "") -> str:
    """Write a configuration with that database; its path."""
    file = folder / "glance-api.conf"
    file.write_text(f"[database]\nconnection = {url}\n{extra}")
    return str(file)


@pytest.fixture
def conf(tmp_path: Path) -> str:
    """The path of a configuration with an empty SQLite database."""
    return config(tmp_path, f"sqlite:///{tmp_path}/glance.sqlite")


@pytest.fixture
def run(conf: str) -> Run:
    """Run the command in this process, with that configuration; its exit code."""
    return lambda *arguments: manage.main(["--config-file", conf, *arguments])
