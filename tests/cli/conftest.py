"""`glance-manage` in this process, with a configuration of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glimpse.cli import manage

Run = Callable[..., int]


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
