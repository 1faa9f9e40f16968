"""Reads `policy_table.txt`: which answer every kind of caller gets from every URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("policy_table.txt")
CALLERS = ("nobody", "stranger", "reader", "member", "shared", "admin", "service")


@dataclass(frozen=True)
class Row:
    """One call on one kind of thing, and the status for each of `CALLERS`."""

    method: str
    path: str
    on: str
    codes: tuple[int, ...]
    body: str

    @property
    def url(self) -> tuple[str, str]:
        """Method and path, with whatever names its {parts} have: two tables may name them differently."""
        return self.method, anonymous(self.path)


def anonymous(path: str) -> str:
    """A path of a table of URLs without the names of its parts."""
    return re.sub(r"\{\w+\}", "{}", path)


def rows() -> list[Row]:
    """The table."""
    found: list[Row] = []
    for line in TABLE.read_text().splitlines():
        words = line.split(maxsplit=3 + len(CALLERS))
        if not words or words[0] == "#":
            continue
        codes = tuple(int(word) for word in words[3 : 3 + len(CALLERS)])
        body = words[3 + len(CALLERS)] if len(words) > 3 + len(CALLERS) else ""
        found.append(Row(words[0], words[1], words[2], codes, body))
    return found
