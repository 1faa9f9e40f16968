"""The tables that the clients print, read back."""

from __future__ import annotations


def rows(text: str) -> list[dict[str, str]]:
    """The rows of the (first) table in `text`, by the column's heading. A wrapped cell's lines are put together."""
    lines = [line for line in text.splitlines() if line.startswith("|") and line.endswith("|")]
    assert lines, f"there is no table in:\n{text}"
    heading, *body = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    found: list[dict[str, str]] = []
    for cells in body:
        assert len(cells) == len(heading), f"a row with {len(cells)} of {len(heading)} columns: {cells}"
        if not cells[0] and found:
            for name, cell in zip(heading, cells, strict=True):
                found[-1][name] += cell
        else:
            found.append(dict(zip(heading, cells, strict=True)))
    return found


def fields(text: str) -> dict[str, str]:
    """A table of two columns (Field or Property, and Value) as a mapping."""
    table = rows(text)
    key, value = table[0].keys()
    assert (key, value) in (("Field", "Value"), ("Property", "Value")), f"not a table of fields: {key}, {value}"
    return {row[key]: row[value] for row in table}
