"""What a part of the script found, one line each, kept even if the part is killed later."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

PASS, FAIL, SKIPPED, MEASURED = "pass", "FAIL", "skipped", "measured"


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        part: Part of the script.
        what: What was looked at.
        verdict: :data:`PASS`, :data:`FAIL`, :data:`SKIPPED` or :data:`MEASURED`.
        found: The figures, or the reason.
        allowed: What was allowed; empty if nothing was compared.
        figures: The same figures for a program.
    """

    part: str
    what: str
    verdict: str
    found: str
    allowed: str = ""
    figures: dict[str, object] | None = None


def largest_of(differences: Iterable[float]) -> float:
    """The largest; NaN if one is, which Python's ``max`` passes over; infinite if there are none.

    >>> largest_of([0.5, math.nan]), largest_of([])
    (nan, inf)
    """
    found = list(differences)
    return math.nan if any(map(math.isnan, found)) else max(found, default=math.inf)


def append(path: Path, row: Row) -> None:
    """Add a row to a file of one JSON object a line, and print it."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")
    print(f"{row.part}: {row.what}: {row.verdict}: {row.found}", flush=True)


def read(path: Path) -> list[Row]:
    """The rows of a file; a last line that a kill cut short is left out."""
    rows = []
    names = {field.name for field in fields(Row)}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        rows.append(Row(**{name: value for name, value in values.items() if name in names}))
    return rows


def table(rows: Sequence[Row]) -> str:
    """A Markdown table.

    >>> print(table([Row('golden', 'ltf', PASS, '9 arrays, worst 1e-6', '2e-5')]))
    | part | what | verdict | found | allowed |
    | --- | --- | --- | --- | --- |
    | golden | ltf | pass | 9 arrays, worst 1e-6 | 2e-5 |
    """
    lines = ["| part | what | verdict | found | allowed |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = (row.part, row.what, row.verdict, row.found, row.allowed)
        lines.append("| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)
