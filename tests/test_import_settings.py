"""What the configuration says of imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from glimpse.errors import SettingsError
from tests.test_settings import GOOD, settings


def test_what_imports_of_tasks_need(tmp_path: Path) -> None:
    one = settings(tmp_path, GOOD + "[DEFAULT]\nnode_staging_uri = file:///a/b\n").imports
    assert (one.work_dir, one.conversion_format, one.ovf_properties) == ("/a/b", "", ())
    (tmp_path / "ovf-metadata.json").write_text('{"cim_pasd": ["InstructionSet", "ProcessorArchitecture"]}')
    sections = "[task]\nwork_dir = /c\n[taskflow_executor]\nconversion_format = raw\n"
    other = settings(tmp_path, GOOD + sections).imports
    assert (other.work_dir, other.conversion_format) == ("/c", "raw")
    assert other.ovf_properties == ("InstructionSet", "ProcessorArchitecture")
    stores = "[DEFAULT]\nenabled_backends = a:file\n[glance_store]\ndefault_backend = a\n"
    assert settings(tmp_path, GOOD + stores + sections).imports.work_dir == "/var/lib/glance/os_glance_tasks_store"
    reserved = "[os_glance_tasks_store]\nfilesystem_store_datadir = /d\n"
    assert settings(tmp_path, GOOD + stores + reserved).imports.work_dir == "/d"


@pytest.mark.parametrize("text", ["", "[]", '{"cim_pasd": "x"}', '{"cim_pasd": [1]}'])
def test_a_list_of_properties_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ovf-metadata.json").write_text(text)
    with pytest.raises(SettingsError, match=r"ovf-metadata\.json"):
        settings(tmp_path, GOOD)
