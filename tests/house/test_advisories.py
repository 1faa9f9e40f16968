"""Each known advisory about import, locations, formats, the cache and deleting has a test that bears its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SECURITY = Path(__file__).parents[1] / "security"

# OSSA are OpenStack's advisories, OSSN its notes; a year alone is a fix that got no number.
ADVISORIES = (
    "ossa_2012_017_cve_2012_4573",
    "ossa_2012_017_cve_2012_5482",
    "ossa_2013_002_cve_2013_0212",
    "ossa_2013_007_cve_2013_1840",
    "ossa_2013_018_cve_2013_4111",
    "ossa_2013_027_cve_2013_4428",
    "ossa_2013_029_cve_2013_4463",
    "ossa_2014_004_cve_2014_1948",
    "ossa_2014_012_cve_2014_0162",
    "ossa_2014_028_cve_2014_5356",
    "ossa_2014_041_cve_2014_9493",
    "ossa_2015_002_cve_2015_1195",
    "ossa_2015_003_cve_2014_9623",
    "ossa_2015_004_cve_2014_9684",
    "ossa_2015_004_cve_2015_1881",
    "ossa_2015_013_cve_2015_3289",
    "ossa_2015_014_cve_2015_5163",
    "ossa_2015_019_cve_2015_5251",
    "ossa_2015_020_cve_2015_5286",
    "ossa_2016_006_cve_2016_0757",
    "ossa_2016_012_cve_2015_5162",
    "ossa_2023_002_cve_2022_47951",
    "ossa_2023_003_cve_2023_2088",
    "ossa_2024_001_cve_2024_32498",
    "ossa_2024_003_cve_2024_44082",
    "ossa_2026_002_cve_2026_24708",
    "ossa_2026_004_cve_2026_34881",
    "ossn_0025",
    "ossn_0052",
    "ossn_0061_cve_2015_8234",
    "ossn_0065",
    "ossn_0075_cve_2016_4383",
    "ossn_0078_cve_2017_7200",
    "ossn_0090_cve_2022_4134",
    "ossn_0092",
    "ossn_0105",
    "list_cached_nodes_2026",
    "s3_bug_2095304",
    "s3_secret_with_a_slash",
)


def written() -> dict[str, str]:
    """The tests, and the first word of what each says that it holds."""
    found = {}
    for path in SECURITY.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = ast.get_docstring(node) or ""
    return found


@pytest.mark.parametrize("advisory", ADVISORIES)
def test_every_advisory_has_its_test(advisory: str) -> None:
    assert [name for name in written() if name.startswith(f"test_{advisory}_")]


def test_every_test_names_its_advisory_and_says_what_is_held() -> None:
    for name, text in written().items():
        kind, year, number = name.split("_")[1:4]
        if kind == "ossa":
            assert f"OSSA-{year}-{number}" in text, name
        elif kind == "ossn":
            assert f"OSSN-{year}" in text, name
        else:
            assert "without a number" in text, name
