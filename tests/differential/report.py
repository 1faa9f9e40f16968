"""Playing all scenarios on both sides, and the account of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.differential.accepted import ACCEPTED, Accepted
from tests.differential.comparison import Difference, compare
from tests.differential.play import Side
from tests.differential.steps import Scenario, Settle, Step

_SHOWN = 60  # unexpected differences that are written out


@dataclass
class Account:
    """What a run has found."""

    requests: int = 0
    equal: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    used: set[Accepted] = field(default_factory=set)

    def take(self, scenario: Scenario, number: int, step: Step, differences: list[Difference]) -> None:
        """Note the differences of one request."""
        self.requests += 1
        if not differences:
            self.equal += 1
            return
        entries = [next((entry for entry in ACCEPTED if entry.covers(step, each)), None) for each in differences]
        self.used.update(entry for entry in entries if entry)
        if all(entries):
            self.accepted.update({entry.reason for entry in entries if entry})
            return
        pairs = zip(differences, entries, strict=True)
        lines = "".join(f"\n    {difference}" for difference, entry in pairs if entry is None)
        self.unexpected.append(f"{scenario.name}, step {number}, {step}{lines}")

    @property
    def never_met(self) -> list[str]:
        """Accepted differences that did not show up."""
        return [f"{entry.reason} ({entry.request}, {entry.where})" for entry in ACCEPTED if entry not in self.used]

    def summary(self) -> str:
        """All of it as text."""
        lines = [
            f"{self.requests} requests: {self.equal} equal, {self.requests - self.equal - len(self.unexpected)} with "
            f"accepted differences, {len(self.unexpected)} with unexpected ones"
        ]
        lines += [f"  {count:5}  {reason}" for reason, count in self.accepted.most_common()]
        lines += [f"  accepted, but never met: {text}" for text in self.never_met]
        lines += [f"  UNEXPECTED  {text}" for text in self.unexpected[:_SHOWN]]
        if len(self.unexpected) > _SHOWN:
            lines.append(f"  … and {len(self.unexpected) - _SHOWN} more")
        return "\n".join(lines)


def play_all(scenarios: Iterable[Scenario], glance: Side, glimpse: Side, account: Account) -> None:
    """Play every scenario on both sides at once, step by step, and note what comes back."""
    with ThreadPoolExecutor(2) as threads:
        for scenario in scenarios:
            plays = [side.play(scenario) for side in (glance, glimpse)]
            for number, step in enumerate(scenario.steps):
                theirs, ours = threads.map(next, plays)
                if isinstance(step, Settle) or theirs is None or ours is None:
                    continue
                account.take(scenario, number, step, compare(step, (glance, glimpse), (theirs, ours)))
                if scenario.chained and theirs.status != ours.status:
                    break
