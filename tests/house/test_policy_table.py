"""The table of expected answers and the table of URLs know the same URLs."""

from __future__ import annotations

from glimpse.api.routes import ROUTES
from tests.black_box.policy_table import anonymous, rows


def test_every_url_has_its_answers() -> None:
    """A new URL gets a row in tests/black_box/policy_table.txt; test_policy_coverage.py there then asks it."""
    assert {row.url for row in rows()} == {(route.method, anonymous(route.path)) for route in ROUTES}


def test_nobody_gets_in() -> None:
    """Whatever the URL, without a token there is only 401."""
    assert {row.codes[0] for row in rows()} == {401}
