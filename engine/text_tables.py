"""Tables as text: Markdown, and csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Cells as a table in Markdown: names in the first column, figures in the others.

    >>> print(markdown_table(["row", "PDMS"], [["human", "94.9"]]), end="")
    | row | PDMS |
    | --- | ---: |
    | human | 94.9 |
    >>> print(markdown_table(["row"], [["LTF | a"]]).splitlines()[-1])
    | LTF \| a |
    """
    names = "|" + "".join(f" {_cell(name)} |" if name else " |" for name in header)
    lines = [names, "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, cells)) + " |" for cells in rows)]) + "\n"


def _cell(text: str) -> str:
    """A text that ends neither its cell nor its line."""
    return text.replace("|", r"\|").replace("\n", " ")


def csv_text(lines: Sequence[Mapping[str, object]]) -> str:
    """Lines with the same keys, at least one, as csv with a header; None is an empty cell.

    >>> print(csv_text([{"row": "LTF", "right": "48.9"}]), end="")
    row,right
    LTF,48.9
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
