"""What stands behind a mark of a document, computed from the tables that are kept.

A table of figures is marked ``<!-- table: effect/planners test -->``; rows can be chosen: ``<!-- table:
effect/planners test | LTF | LTF, published -->``. Further:

``scores: effect/planners test, test-epdms | LTF``: scores and differences of several parts side by side;
``power: effect/planners test | LTF, published``: what narrows the interval of a difference;
``parts: effect/planners | LTF, published | hard | test``: a row and its baseline in several parts;
``calibrated: effect/planners test | LTF | WoTE``: planners as they are trained and calibrated, each time with
the difference that the published recipe makes;
``figure: effect/planners test | LTF, published | difference``: a figure within a sentence. Its last word is
``score``, ``score of seed 0``, ``difference``, ``interval`` (95 % of the difference), ``bootstrap`` (the same
by the bootstrap), ``by seed`` (differences), ``difference of seed 0``, ``seeds``, ``scenes``, ``half width``,
``seeds needed`` (for an interval of half a point to either side with these scenes), ``scenes needed 20`` (the
same, with 20 seeds) or a column;
``value: effect/offsets | LTF/0 | across 4 s``: a cell of ``effect/offsets.csv``;
``cells: effect/offsets | right``: a column of it with the names of all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from math import isnan

from beyonddrive.engine.text_tables import markdown_table
from beyonddrive.evaluation.statistics.score_table import COLLISIONS, RATE, ScoreTable
from beyonddrive.results import tables
from beyonddrive.results.row_files import read_rows
from beyonddrive.results.tables import KeptTable
from beyonddrive.visualization.sweep_tables import (
    POWER_WIDTH,
    TableRow,
    column_text,
    count_text,
    difference_text,
    interval_text,
    paired_seeds,
    power_table,
    signed,
)

COLUMNS = (
    *("NC", "DAC", "TLC", "EP", "TTC", "C", "LK", "HC", "EC", "DDC"),
    *("RC", "COM", "completed", COLLISIONS, RATE, "left the way"),
)
"""Of the tables in documents, in this order, as far as the scores have them."""


OF_SEED = "score of seed "
APART_OF_SEED = "difference of seed "


class FigureError(Exception):
    """A mark names what is not there."""


def scores_of(source: str) -> ScoreTable:
    """Scores of a source, such as ``effect/planners test``."""
    name, _, part = source.partition(" ")
    table = KeptTable(name)
    if part not in table.parts:
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
        cells = [row.name, str(row.score.num_seeds), *score_cells(row)]
        lines.append([*cells, *(column_text(row, column) for column in columns)])
    return block(header, lines)


def score_cells(row: TableRow, told: int | None = None) -> list[str]:
    """Score, difference from the baseline and its interval; with its seeds if others are told beside."""
    seeds = row.score.num_seeds
    fewer = "" if told in (None, seeds) else f" ({seeds} of the seeds)"
    spread = f" ± {row.score.std:.1f}" if seeds > 1 else ""
    interval = figure(row, "interval", 1) if row.difference else ""
    return [f"{row.score.mean:.1f}{spread}{fewer}", difference_text(row, 1), interval]


def scores_text(name: str, parts: list[str], names: list[str]) -> str:
    """Scores and differences of several parts side by side; a dash where a row was not judged."""
    found = {part: rows_of(f"{name} {part}") for part in parts}
    header = ["planner", "seeds"]
    for part in parts:
        header += [what_is_scored(scores_of(f"{name} {part}")), "difference", "95 %"]
    lines = []
    for row_name in names or found[parts[0]]:
        first = row_of(f"{name} {parts[0]}", row_name)
        cells = [row_name, str(first.score.num_seeds)]
        for rows in found.values():
            row = rows.get(row_name)
            cells += ["-", "", ""] if row is None else score_cells(row, first.score.num_seeds)
        lines.append(cells)
    return block(header, lines)


def what_is_scored(table: ScoreTable) -> str:
    """The score of a table, and what the label says of traffic and filter if there are several."""
    label = table.label
    if label is None or label.human_filter == "none":
        return table.columns[-1]
    return f"{label.score}, {label.traffic} traffic, human filter {label.human_filter}"


def power_text(source: str, names: list[str]) -> str:
    """What makes intervals as narrow as half a point, of rows with more than one seed."""
    found = power_table([row_of(source, name) for name in names or rows_of(source)])
    if not found:
        raise FigureError(
            f"results/{source}: no row of {', '.join(names)} shares two seeds with its baseline"
        )
    return f"\n\n{found}\n"


def parts_text(name: str, row_name: str, parts: list[str]) -> str:
    """A row and its baseline in several parts, both on the seeds that are compared."""
    lines = []
    for part in parts:
        row, table = row_of(f"{name} {part}", row_name), scores_of(f"{name} {part}")
        if row.baseline is None or row.difference is None:
            raise FigureError(f"row '{row_name}' has no baseline in '{part}'")
        seeds = dict(zip((row_name, row.baseline), paired_seeds(table, row_name, row.baseline), strict=True))
        pair = (table.of(own, table.columns[-1], seeds[own]) for own in (row.baseline, row_name))
        cells = [part.replace("_", " "), figure(row, "scenes"), *(f"{scores.mean():.1f}" for scores in pair)]
        cells += [figure(row, "difference", 1), figure(row, "interval", 1)]
        lines.append(cells)
    return block(["scenes", "number", "without", "with", "difference", "95 %"], lines)


def calibrated_text(source: str, names: list[str]) -> str:
    """Planners as trained and calibrated, and what the published recipe changes; a dash where it is not."""
    found = rows_of(source)
    lines = []
    for name in names:
        seeds = row_of(source, name).score.num_seeds
        cells = [name, str(seeds)]
        for ending in ("", ", calibrated"):
            without, recipe = row_of(source, name + ending), found.get(f"{name}, published{ending}")
            cells.append(score_cells(without, seeds)[0])
            cells += (
                ["-", ""] if recipe is None else [difference_text(recipe, 1, seeds), score_cells(recipe)[2]]
            )
        lines.append(cells)
    if not lines:
        raise FigureError(f"results/{source}: no planners are named")
    half = ["recipe", "95 %"]
    return block(["planner", "seeds", "as trained", *half, "calibrated", *half], lines)


def figure(row: TableRow, what: str, digits: int = 2) -> str:
    """One figure of a row."""
    if what in row.columns and not isnan(row.columns[what]):
        return f"{row.columns[what]:.{digits}f}"
    if what == "score":
        return f"{row.score.mean:.{digits}f}"
    if what == "seeds":
        return str(row.score.num_seeds)
    if what == "scenes":
        return f"{row.score.num_scenes:,}"
    found = row.difference
    if found is None:
        raise FigureError(f"row '{row.name}' has no '{what}'")
    if what == "difference":
        return signed(found.mean, digits)
    if (spread := found.spread) is not None:
        if what == "half width":
            return f"{spread.half_width(found.num_seeds, found.num_scenes):.{digits}f}"
        if what == "seeds needed":
            return count_text(spread.seeds_for(POWER_WIDTH, found.num_scenes))
        if what.startswith("scenes needed ") and what.split()[-1].isdecimal():
            return count_text(spread.scenes_for(POWER_WIDTH, int(what.split()[-1])))
    intervals = {"interval": found.interval, "bootstrap": found.bootstrap}
    if what not in intervals:
        raise FigureError(f"row '{row.name}' has no '{what}'; its difference is of {found.num_seeds} seed(s)")
    return interval_text(intervals[what], digits)


def csv_lines(source: str) -> list[dict[str, str]]:
    """Lines of a table in CSV; none if it is not there."""
    return read_rows(tables.RESULTS / f"{source}.csv")


def cells_text(source: str, columns: list[str]) -> str:
    """Some columns of a table in CSV, all its rows."""
    names = [line["row"] for line in csv_lines(source)]
    if not names or not columns:
        raise FigureError(f"results/{source}.csv has no rows, or no columns are named")
    return block(["", *columns], [[name, *(cell(source, name, c) for c in columns)] for name in names])


def by_seed(source: str, row: TableRow) -> str:
    """Differences of a row from its baseline, one for each seed that both have."""
    return ", ".join(signed(value, 1) for value in _apart(source, row).values())


def apart_of_seed(source: str, row: TableRow, seed: str) -> str:
    """Difference of a row from its baseline with one of the seeds that both have."""
    apart = {str(own): value for own, value in _apart(source, row).items()}
    if seed not in apart:
        raise FigureError(f"row '{row.name}' and its baseline have no seed '{seed}'")
    return signed(apart[seed])


def _apart(source: str, row: TableRow) -> dict[int, float]:
    table = scores_of(source)
    if row.baseline is None:
        raise FigureError(f"row '{row.name}' has no baseline")
    score = table.columns[-1]
    ours, theirs = paired_seeds(table, row.name, row.baseline)
    apart = table.of(row.name, score, ours) - table.of(row.baseline, score, theirs)
    seeds = theirs if row.name in table.untrained else ours
    return dict(zip(seeds, apart.mean(axis=1).tolist(), strict=True))


def of_seed(source: str, row: TableRow, seed: str) -> str:
    """Score of a row with one of its seeds."""
    table = scores_of(source)
    if not seed.isdecimal() or int(seed) not in table.seeds(row.name):
        raise FigureError(f"row '{row.name}' has no seed '{seed}'")
    return f"{table.of(row.name, table.columns[-1], [int(seed)]).mean():.2f}"


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
    if kind == "scores":
        name, _, parts = source.partition(" ")
        return scores_text(name, [part.strip() for part in parts.split(",")], rest)
    if kind == "calibrated":
        return calibrated_text(source, rest)
    if kind == "power":
        return power_text(source, rest)
    if kind == "cells":
        return cells_text(source, rest)
    if kind == "figure" and rest[1:] == ["by seed"]:
        return by_seed(source, row_of(source, rest[0]))
    if kind == "figure" and rest[1:2] and rest[1].startswith(OF_SEED):
        return of_seed(source, row_of(source, rest[0]), rest[1].removeprefix(OF_SEED))
    if kind == "figure" and rest[1:2] and rest[1].startswith(APART_OF_SEED):
        return apart_of_seed(source, row_of(source, rest[0]), rest[1].removeprefix(APART_OF_SEED))
    if kind == "parts" and len(rest) > 1:
        return parts_text(source, rest[0], rest[1:])
    if kind == "parts" or len(rest) != 2:
        raise FigureError(f"'{mark}': a figure is '<table> <part> | <row> | <what>'")
    return figure(row_of(source, rest[0]), rest[1])
