"""Numbers: runs of two sides in turn, their medians, and the ratio that a row of the table stands for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what it is, and the figure of each run."""

    name: str
    unit: str
    values: Sequence[float]

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """How far the runs lie apart, as a part of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0

    def __str__(self) -> str:
        runs = ", ".join(short(value) for value in self.values)
        return f"{self.name}: {short(self.median)} {self.unit} ({runs}; spread {self.spread:.0%})"


@dataclass(frozen=True)
class Row:
    """A row of the table. `ours` is divided by `theirs`; without `theirs` it stands for itself.

    `reach` is what was promised, None for a row that is only told. `at_most` turns the promise round. `more` are
    further figures without a promise; `why` is said when the row falls short.
    """

    name: str
    against: str
    ours: Side
    theirs: Side | None = None
    reach: float | None = None
    at_most: bool = False
    more: Sequence[str] = field(default_factory=tuple)
    why: str = ""

    @property
    def result(self) -> float:
        """The ratio, or our figure where there is nothing to divide by."""
        return self.ours.median / self.theirs.median if self.theirs is not None else self.ours.median

    @property
    def reached(self) -> bool:
        """Whether the promise is kept."""
        if self.reach is None:
            return True
        return self.result <= self.reach if self.at_most else self.result >= self.reach

    @property
    def shown(self) -> str:
        """The result as people read it."""
        return f"{self.result:.2f}x" if self.theirs is not None else f"{short(self.result)} {self.ours.unit}"

    @property
    def promised(self) -> str:
        """The promise as people read it."""
        if self.reach is None:
            return ""
        amount = f"{self.reach:.2f}x" if self.theirs is not None else f"{short(self.reach)} {self.ours.unit}"
        return f"{'<=' if self.at_most else '>='} {amount}"


def short(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def in_turn(rounds: int, *sides: Callable[[], T]) -> list[list[T]]:
    """Run the sides in turn (A B A B …), so that a machine that is busy for a while is so for all of them."""
    values: list[list[T]] = [[] for _ in sides]
    for _ in range(rounds):
        for index, side in enumerate(sides):
            values[index].append(side())
    return values
