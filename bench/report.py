"""Tables for people: on the terminal, and in RESULTS.md with the machine they were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench.measure import Row

RESULTS = Path(__file__).with_name("RESULTS.md")
COMMANDS = "`make bench`, `make bench-glance` and `make bench-million`"
HEAD = f"# Results\n\nWritten by {COMMANDS}; ratios of medians of runs in turn.\n"
PACKAGES = ("aiohttp", "SQLAlchemy", "PyMySQL", "orjson")


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| row | against | result | reach | |", "|---|---|---|---|---|"]
    for row in rows:
        kept = "" if row.reach is None else "reached" if row.reached else "**falls short**"
        lines.append(f"| {row.name} | {row.against} | {row.shown} | {row.promised} | {kept} |")
    return "\n".join(lines)


def raw(rows: Sequence[Row]) -> str:
    """The figures behind the rows, and why a row falls short."""
    lines = []
    for row in rows:
        lines.append(f"* {row.name}: {row.ours}" + (f"; {row.theirs}" if row.theirs is not None else ""))
        lines += [f"  * {figure}" for figure in row.more]
        if row.why and not row.reached:
            lines.append(f"  * falls short: {row.why}")
    return "\n".join(lines)


def machine() -> str:
    """What it was measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores ({cpu[1] if cpu else platform.machine()}),"  # noqa: DTZ011
        f" {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}, {packages}."
        " The generators of the load run on the same cores."
    )


def publish(title: str, rows: Sequence[Row]) -> None:
    """Print the rows and put them into RESULTS.md, in the place of the last ones with that title."""
    print(f"\n{table(rows)}\n\n{raw(rows)}\n", flush=True)
    text = RESULTS.read_text() if RESULTS.exists() else HEAD
    section = f"## {title}\n\n{machine()}\n\n{table(rows)}\n\n### Figures: {title}\n\n{raw(rows)}\n"
    before, *others = re.split(r"(?m)^(?=## )", text)
    kept = [other.rstrip() + "\n" for other in others if not other.startswith(f"## {title}\n")]
    RESULTS.write_text("\n".join([before.rstrip() + "\n", *kept, section]))
