"""The table of expected answers knows every URL that there is."""

from __future__ import annotations

import pytest

from glimpse.api.routes import ROUTES, Route
from tests.black_box.policy_table import anonymous, rows

IN_TABLE = {row.url for row in rows()}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_url_has_its_answers(route: Route) -> None:
    """A new URL gets a row in tests/black_box/policy_table.txt; test_policy_coverage.py there then asks it."""
    assert (route.method, anonymous(route.path)) in IN_TABLE


def test_nobody_gets_in() -> None:
    """Whatever the URL, without a token there is only 401."""
    for row in rows():
        assert row.codes[0] == row.glance[0] == 401, row
