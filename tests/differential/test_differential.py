"""Glimpse and the real Glance, asked the same: what is not equal has to be in `accepted.py`, with a reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential import discovery, drawn, lists, locations, metadefs, patches, records, sharing, tasks
from tests.differential.play import Side
from tests.differential.report import Account, play_all
from tests.differential.steps import Scenario

PARTS = (records, patches, lists, sharing, locations, metadefs, tasks, discovery, drawn)


def everything() -> Iterator[Scenario]:
    """Every scenario of every part."""
    for part in PARTS:
        yield from part.scenarios()


@pytest.mark.glance_differential
def test_same_answers(sides: tuple[Side, Side], capsys: pytest.CaptureFixture[str]) -> None:
    account = Account()
    play_all(everything(), *sides, account)
    with capsys.disabled():
        print(f"\n{account.summary()}")
    assert not account.unexpected
    assert not account.never_met
