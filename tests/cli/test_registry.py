"""`glance-registry`: started by older guides, and content with that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glimpse.cli import registry

SAMPLE = """\
[DEFAULT]
notification_driver = noop
verbose = True
[database]
connection = mysql+pymysql://glance:hunter2@controller/glance
[keystone_authtoken]
auth_uri = http://controller:5000
auth_plugin = password
[paste_deploy]
flavor = keystone
"""


def test_says_one_line_and_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "glance-registry.conf"
    file.write_text(SAMPLE)
    assert registry.main(["--config-file", str(file)]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "no registry" in shown.err


@pytest.mark.parametrize("text", ["no assignment\n", None])
def test_wrong_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    file = tmp_path / "glance-registry.conf"
    if text is not None:
        file.write_text(text)
    assert registry.main(["--config-file", str(file)]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("ERROR: ")
    assert "glance-registry.conf" in shown.err
    assert shown.err.count("\n") == 1


def test_installed_command_reads_its_own_file(tmp_path: Path) -> None:
    """From the folder of the configuration, when none is named on the command line."""
    (tmp_path / "glance-registry.conf").write_text("no assignment\n")
    command = [str(Path(sys.executable).with_name("glance-registry"))]
    done = subprocess.run(
        command, env={"OS_GLANCE_CONFIG_DIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "glance-registry.conf" in done.stderr
