"""Recomputes every figure that README, docs and reports take from ``results/``: ``python results/check.py``.

A table of figures in a document stands between ``<!-- table: effect/planners test -->`` and ``<!-- end
-->``; rows can be chosen: ``<!-- table: effect/planners test | LTF | LTF, published -->``. ``<!-- parts:
effect/planners | LTF, published | hard | failure_beyond_2m -->`` compares a row with its baseline in
several parts. A figure within a sentence stands between ``<!-- figure: effect/planners test | LTF,
published | difference -->`` and ``<!-- end -->``; its last word is ``score``, ``difference``, ``interval``
(95 % of the difference, over seeds and scenes), ``student`` (95 %, over seeds), ``by seed`` (differences),
``seeds``, ``scenes`` or the name of a column. ``<!-- value: effect/offsets | LTF/0 | across 4 s -->`` is a
cell of ``effect/offsets.csv``, ``<!-- cells: effect/offsets | right -->`` a column with the names of all
rows. The exit code is 1 if anything differs from what the scores give; ``--write`` writes it anew.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from beyonddrive.evaluation.statistics.score_table import ScoreTable, score_file
from beyonddrive.results.tables import RESULTS, KeptTable, kept_tables
from beyonddrive.visualization.sweep_report import REPORT, write_report
from beyonddrive.visualization.sweep_tables import TableRow, markdown_table, signed

ROOT = RESULTS.parent
MARKED = re.compile(r"(<!-- (table|parts|cells|figure|value): ([^>]+?) -->)(.*?)(<!-- end -->)", re.DOTALL)
COLUMNS = ("NC", "DAC", "EP", "TTC", "C", "DDC", "RC", "COM", "completed", "collisions", "left the way")
"""Of the tables in documents, in this order, as far as the scores have them."""


class FigureError(Exception):
    """A mark names what is not there."""


def documents() -> Iterator[Path]:
    """Where figures may stand."""
    yield ROOT / "README.md"
    for pattern in ("docs/**/*.md", "plugins/*/README.md", "results/**/*.md"):
        yield from sorted(ROOT.glob(pattern))


def scores_of(source: str) -> ScoreTable:
    """Scores of a source, such as ``effect/planners test``."""
    name, _, part = source.partition(" ")
    table = KeptTable(name)
    if not score_file(table.folder, part).exists():
        raise FigureError(f"results/{name} has no scores of '{part}'")
    return table.scores(part)


@cache
def rows_of(source: str) -> dict[str, TableRow]:
    """Rows of a source by name."""
    return {row.name: row for row in KeptTable(source.partition(" ")[0]).rows(scores_of(source))}


def row_of(source: str, name: str) -> TableRow:
    """One row of a source."""
    rows = rows_of(source)
    if name not in rows:
        raise FigureError(f"results/{source}: no row '{name}'; there is {'; '.join(rows)}")
    return rows[name]


def block(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a document, with the empty lines that Markdown wants around it."""
    return f"\n\n{markdown_table(header, rows)}\n"


def table_text(source: str, names: list[str]) -> str:
    """A table for a document."""
    rows = [row_of(source, name) for name in names or rows_of(source)]
    columns = [column for column in COLUMNS if column in rows[0].columns]
    header = ["planner", "seeds", scores_of(source).columns[-1], "difference", "95 %", *columns]
    lines = []
    for row in rows:
        spread = f" ± {row.score.std:.1f}" if row.score.num_seeds > 1 else ""
        cells = [row.name, str(row.score.num_seeds), f"{row.score.mean:.1f}{spread}"]
        cells += [figure(row, "difference", 1), figure(row, "interval", 1)] if row.difference else ["", ""]
        lines.append([*cells, *(f"{row.columns[c]:.1f}" for c in columns)])
    return block(header, lines)


def parts_text(name: str, row_name: str, parts: list[str]) -> str:
    """A row and its baseline in several parts."""
    lines = []
    for part in parts:
        row = row_of(f"{name} {part}", row_name)
        if row.baseline is None or row.difference is None:
            raise FigureError(f"row '{row_name}' has no baseline in '{part}'")
        base = row_of(f"{name} {part}", row.baseline)
        cells = [part.replace("_", " "), figure(row, "scenes"), *(figure(r, "score", 1) for r in (base, row))]
        cells += [figure(row, "difference", 1), figure(row, "interval", 1)]
        lines.append(cells)
    return block(["scenes", "number", "without", "with", "difference", "95 %"], lines)


def figure(row: TableRow, what: str, digits: int = 2) -> str:
    """One figure of a row."""
    if what in row.columns:
        return f"{row.columns[what]:.{digits}f}"
    if what == "score":
        return f"{row.score.mean:.{digits}f}"
    if what == "seeds":
        return str(row.score.num_seeds)
    if what == "scenes":
        return f"{row.score.num_scenes:,}"
    found = row.difference
    if found is None or what not in ("difference", "interval", "student"):
        raise FigureError(f"row '{row.name}' has no '{what}'")
    if what == "difference":
        return signed(found.mean, digits)
    low, high = (found.low, found.high) if what == "interval" else (found.seed_low, found.seed_high)
    return f"{signed(low, digits)} to {signed(high, digits)}"


def csv_lines(source: str) -> list[dict[str, str]]:
    """Lines of a table in CSV; none if it is not there."""
    path = RESULTS / f"{source}.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def cells_text(source: str, columns: list[str]) -> str:
    """Some columns of a table in CSV, all its rows."""
    names = [line["row"] for line in csv_lines(source)]
    if not names or not columns:
        raise FigureError(f"results/{source}.csv has no rows, or no columns are named")
    return block(["", *columns], [[name, *(cell(source, name, c) for c in columns)] for name in names])


def by_seed(source: str, row: TableRow) -> str:
    """Differences of a row from its baseline, one for each seed that both have."""
    table = scores_of(source)
    if row.baseline is None:
        raise FigureError(f"row '{row.name}' has no baseline")
    score = table.columns[-1]
    seeds = sorted(set(table.seeds(row.name)) & set(table.seeds(row.baseline)))
    apart = table.of(row.name, score, seeds) - table.of(row.baseline, score, seeds)
    return ", ".join(signed(float(value), 1) for value in apart.mean(axis=1))


def cell(source: str, row: str, column: str) -> str:
    """A cell of a table in CSV whose first column is ``row``."""
    found = [line[column] for line in csv_lines(source) if line["row"] == row and column in line]
    if not found:
        raise FigureError(f"results/{source}.csv has no row '{row}' with '{column}'")
    return found[0]


def text_of(kind: str, mark: str) -> str:
    """What stands behind a mark."""
    source, *rest = (part.strip() for part in mark.split(" | "))
    if kind == "value":
        return cell(source, *rest) if len(rest) == 2 else cell(source, "", "")
    if kind == "table":
        return table_text(source, rest)
    if kind == "cells":
        return cells_text(source, rest)
    if kind == "figure" and rest[1:] == ["by seed"]:
        return by_seed(source, row_of(source, rest[0]))
    if kind == "parts" and len(rest) > 1:
        return parts_text(source, rest[0], rest[1:])
    if kind == "parts" or len(rest) != 2:
        raise FigureError(f"'{mark}': a figure is '<table> <part> | <row> | <what>'")
    return figure(row_of(source, rest[0]), rest[1])


def check_document(path: Path, write: bool) -> list[str]:
    """Differences of a document, which are mended if ``write``."""
    text = path.read_text()
    problems = []

    def renewed(match: re.Match[str]) -> str:
        start, kind, mark, old, end = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        try:
            new = text_of(kind, mark)
        except FigureError as error:
            problems.append(f"{path.relative_to(ROOT)}:{line}: {error}")
            return match.group()
        if new != old:
            problems.append(
                f"{path.relative_to(ROOT)}:{line}: has {old.strip()}\nbut the scores give {new.strip()}"
            )
        return f"{start}{new}{end}"

    new_text = MARKED.sub(renewed, text)
    if write and new_text != text:
        path.write_text(new_text)
    return problems


def check_report(table: KeptTable, write: bool) -> list[str]:
    """Whether the report of a table is what its scores give."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part in table.parts:
            shutil.copy(score_file(table.folder, part), place)
        new = write_report(place, table.plan, parts=table.parts)
    kept = table.folder / REPORT
    if kept.exists() and kept.read_text() == new:
        return []
    if write:
        write_report(table.folder, table.plan, parts=table.parts)
    return [f"{kept.relative_to(ROOT)}: is not what its scores give"]


def main() -> int:
    """Check; 1 if something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what differs anew")
    args = parser.parse_args()
    tables = list(kept_tables())
    problems = [problem for table in tables for problem in check_report(table, args.write)]
    marks = 0
    for path in documents():
        marks += len(MARKED.findall(path.read_text()))
        problems += check_document(path, args.write)
    for problem in problems:
        print(problem, file=sys.stderr)
    told = "written anew" if args.write else "differ"
    print(f"results: {len(tables)} tables, {marks} marks in documents, {len(problems)} {told}")
    return int(bool(problems) and not args.write)


if __name__ == "__main__":
    sys.exit(main())
