"""The state machine is the table of the API reference."""

from __future__ import annotations

from datetime import datetime

import pytest

from glimpse.domain.lifecycle import STATUSES, TRANSITIONS, check_transition, now
from glimpse.domain.record import Image
from glimpse.errors import BadRequest, Conflict

THEN = datetime(2026, 1, 1)


def image(status: str, formats: bool = True) -> Image:
    made = Image("id", status, "shared", THEN, THEN)
    return made.with_(disk_format="raw", container_format="bare") if formats else made


@pytest.mark.parametrize("before", STATUSES)
@pytest.mark.parametrize("after", STATUSES)
def test_every_pair(before: str, after: str) -> None:
    if after in TRANSITIONS[before]:
        check_transition(image(before), after)
    else:
        with pytest.raises(Conflict):
            check_transition(image(before), after)


def test_bytes_need_formats() -> None:
    with pytest.raises(BadRequest, match="container_format"):
        check_transition(image("queued", formats=False), "saving")
    check_transition(image("queued", formats=False), "uploading")


def test_times_have_whole_seconds_and_no_zone() -> None:
    assert now().tzinfo is None
    assert now().microsecond == 0
