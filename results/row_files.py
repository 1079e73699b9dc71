"""Small tables with a name per row, such as ``effect/offsets.csv``, that scripts add to."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.text_tables import csv_text


def read_rows(path: Path) -> list[dict[str, str]]:
    """Its lines, by column; none if there is no such file."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def named_files(texts: Sequence[str]) -> dict[str, Path]:
    """Files by row, from ``ROW=FILE``; the name of a row has no ``=``.

    Raises:
        SystemExit: If a text is no such pair, or two have one name.

    >>> named_files(["LTF/0=w=5/test.npz"])
    {'LTF/0': PosixPath('w=5/test.npz')}
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not name or not file or name in found:
            raise SystemExit(f"--plans: expected ROW=FILE, each row once, got {text!r}")
        found[name] = Path(file)
    return found


def add_rows(path: Path, rows: Mapping[str, Mapping[str, str]], shared: str | None = None) -> str:
    """Add rows by name, in the place of those that have their names.

    Args:
        path: The file.
        rows: Cells by the name of the row.
        shared: A row that all others were measured beside; the file has the same, or rows of others stay.

    Returns:
        The file's text now.

    Raises:
        SystemExit: If the file has other columns, or another row ``shared``.
    """
    lines = {line["row"]: line for line in read_rows(path)}
    there = None if shared is None or not lines.keys() - rows.keys() else lines.get(shared)
    if shared is not None and there is not None and there != {"row": shared, **rows[shared]}:
        raise SystemExit(
            f"{path}: row '{shared}' is another one there, so the others were measured beside another "
            "pool; remove the file, and measure all its rows again"
        )
    lines |= {name: {"row": name, **cells} for name, cells in rows.items()}
    first = next(iter(lines.values()))
    for name, line in lines.items():
        if differing := sorted(first.keys() ^ line.keys()):
            raise SystemExit(
                f"{path}: row '{name}' and the first one do not both have {', '.join(differing)}; remove the "
                "file, and measure all its rows again"
            )
    text = csv_text(list(lines.values()))
    write_atomically(path, text.encode())
    return text
