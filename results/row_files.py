"""Small tables with a name per row, such as ``effect/offsets.csv``, that scripts add to."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from beyonddrive.engine.files import write_atomically
from beyonddrive.visualization.sweep_tables import csv_text


def read_rows(path: Path) -> list[dict[str, str]]:
    """Its lines, by column; none if there is no such file."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def add_rows(path: Path, rows: Mapping[str, Mapping[str, str]]) -> str:
    """Add rows by name, in the place of those that have their names.

    Returns:
        The file's text now.
    """
    lines = {line["row"]: line for line in read_rows(path)}
    lines |= {name: {"row": name, **cells} for name, cells in rows.items()}
    text = csv_text(list(lines.values()))
    write_atomically(path, text.encode())
    return text
