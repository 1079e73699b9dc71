"""Tables and pictures of a sweep: means, intervals, and paired differences against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from beyonddrive.engine.text_tables import markdown_table
from beyonddrive.evaluation.statistics.intervals import Estimate, difference_of, estimates
from beyonddrive.evaluation.statistics.score_table import (
    COLLISIONS,
    DISTANCE,
    RATE,
    ScoreTable,
    known_mean,
)
from beyonddrive.visualization.picture_values import DIGEST, digest

_ROW_INCHES = 0.32
_BASE_INCHES = 1.1
_WIDTH_INCHES = 8.0
POWER_SEEDS = (3, 10, 20)
POWER_WIDTH = 0.5
"""Half the width of the interval that the table of power is about, in points."""


@dataclass(frozen=True)
class TableRow:
    """A row of the table.

    Attributes:
        name: For readers.
        score: The score, in percent.
        columns: Means of the other columns that any scene has, in percent, and collisions per km where it was
            told how far any was driven; NaN if this row has none.
        baseline: Row that it is compared with; None for none.
        difference: Paired difference of the score from the baseline, in points.
        column_differences: Means of the paired differences of the other columns, and the difference of the
            rates.
    """

    name: str
    score: Estimate
    columns: Mapping[str, float]
    baseline: str | None = None
    difference: Estimate | None = None
    column_differences: Mapping[str, float] | None = None


def table_rows(table: ScoreTable, baselines: Mapping[str, str | None]) -> list[TableRow]:
    """Estimate every row of the scores that has runs, in the order of ``baselines``.

    A row and its baseline are compared on the seeds that both have, so a difference can be of fewer seeds
    than the score; a baseline without a training has one run, which is compared with every seed.

    Args:
        table: Scores of the runs.
        baselines: Name of the baseline, or None, by row.
    """
    score = table.columns[-1]
    others = [
        name
        for name in table.columns[:-1]
        if name != DISTANCE and not np.isnan(table.values[..., table.columns.index(name)]).all()
    ]
    has_rate = {COLLISIONS, DISTANCE} <= set(table.columns) and not np.isnan(
        table.values[..., table.columns.index(DISTANCE)]
    ).all()
    names = [name for name in baselines if table.seeds(name)]
    values = [table.of(name, score) for name in names]
    pairs = {}
    for name in names:
        if (baseline := baselines[name]) is not None:
            ours, against = paired_seeds(table, name, baseline)
            if ours:
                pairs[name] = (baseline, ours, against)
    differences = {
        name: difference_of(table.of(name, score, ours), table.of(baseline, score, against))
        for name, (baseline, ours, against) in pairs.items()
    }
    found = iter(estimates([*values, *differences.values()]))
    rows = {}
    for name in names:
        means = {column: _mean(table.of(name, column)) for column in others}
        if has_rate:
            means[RATE] = _rate(table, name, table.seeds(name))
        rows[name] = TableRow(name, next(found), means)
    for name, (baseline, ours, against) in pairs.items():
        columns = {
            column: _mean(table.of(name, column, ours) - table.of(baseline, column, against))
            for column in others
        }
        if has_rate:
            columns[RATE] = _rate(table, name, ours) - _rate(table, baseline, against)
        rows[name] = replace(
            rows[name],
            baseline=baseline,
            difference=next(found),
            column_differences=columns,
        )
    return list(rows.values())


def paired_seeds(table: ScoreTable, row: str, baseline: str) -> tuple[list[int], list[int]]:
    """Seeds of a row and of its baseline that are compared with each other; none if none fit."""
    ours, theirs = table.seeds(row), table.seeds(baseline)
    if not ours or not theirs:
        return [], []
    if baseline in table.untrained:
        return ours, theirs
    if row in table.untrained:
        return ours * len(theirs), theirs
    common = sorted(set(ours) & set(theirs))
    return common, common


def _mean(values: NDArray[np.float64]) -> float:
    mean = known_mean(values)
    return float("nan") if mean is None else mean


def _rate(table: ScoreTable, row: str, seeds: Sequence[int]) -> float:
    """Collisions per km of a row, of the scenes that tell how far it drove; NaN if it drove nowhere."""
    collisions, distance = (table.of(row, column, seeds) for column in (COLLISIONS, DISTANCE))
    told = ~np.isnan(distance)
    driven = float(distance[told].sum())
    return float(collisions[told].sum()) / driven if driven > 0 else float("nan")


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign.

    >>> signed(1.234), signed(-0.5)
    ('+1.23', '-0.50')
    """
    return f"{value:+.{digits}f}"


def interval_text(interval: tuple[float, float], digits: int = 2) -> str:
    """An interval of a difference; a dash of a single scene, which has none.

    >>> interval_text((-0.5, 1.0)), interval_text((float("nan"), float("nan")))
    ('-0.50 to +1.00', '-')
    """
    return "-" if np.isnan(interval).any() else " to ".join(signed(end, digits) for end in interval)


def seeds_text(count: int) -> str:
    """How many seeds.

    >>> seeds_text(1), seeds_text(3)
    ('1 seed', '3 seeds')
    """
    return f"{count} seed{'s' if count > 1 else ''}"


def difference_text(row: TableRow, digits: int = 2, told: int | None = None) -> str:
    """The difference of a row, with its number of seeds if a reader is told another one; empty without.

    Args:
        row: The row.
        digits: Behind the point.
        told: Seeds that stand beside it; those of the score if None.
    """
    if row.difference is None:
        return ""
    seeds = row.difference.num_seeds
    fewer = "" if seeds == (told or row.score.num_seeds) else f" ({seeds_text(seeds)})"
    return f"{signed(row.difference.mean, digits)}{fewer}"


def _cells(row: TableRow, names: Sequence[str]) -> list[str]:
    spread = f" ± {row.score.std:.2f}" if row.score.num_seeds > 1 else ""
    cells = [row.name, str(row.score.num_seeds), f"{row.score.mean:.2f}{spread}"]
    low, high = row.score.interval
    cells.append("-" if np.isnan(low) else f"{low:.1f} to {high:.1f}")
    if row.difference is None:
        cells += ["", "", ""]
    else:
        found = row.difference
        cells += [difference_text(row), interval_text(found.interval), interval_text(found.bootstrap)]
    return [*cells, *(column_text(row, name) for name in names)]


def _header(score: str, names: Sequence[str]) -> list[str]:
    against = ["difference", "95 %", "95 % (bootstrap)"]
    return ["row", "seeds", score, "95 %", *against, *names]


def column_text(row: TableRow, name: str) -> str:
    """A mean of a row in percent, or its rate per km; a dash for a row that has none."""
    value = row.columns[name]
    return "-" if np.isnan(value) else f"{value:.{2 if name == RATE else 1}f}"


def markdown(rows: Sequence[TableRow], score: str) -> str:
    """The table in Markdown: means ± standard deviation over seeds, intervals, differences."""
    names = list(rows[0].columns) if rows else []
    return markdown_table(_header(score, names), [_cells(row, names) for row in rows])


def latex(rows: Sequence[TableRow], score: str) -> str:
    """The table in LaTeX, for the package ``booktabs``."""
    names = list(rows[0].columns) if rows else []
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(_header(score, names)) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(_escaped, _header(score, names))) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_escaped, _cells(row, names))) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


_LATEX = str.maketrans(
    {letter: rf"\{letter}" for letter in "&%_#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
)


def _escaped(text: str) -> str:
    r"""A text as LaTeX shows it.

    >>> print(_escaped(r"50% of $\{x}_1^2$ ± 1"))
    50\% of \$\textbackslash{}\{x\}\_1\textasciicircum{}2\$ $\pm$ 1
    """
    return text.translate(_LATEX)


def power_table(rows: Sequence[TableRow]) -> str:
    """What makes the interval of each difference as narrow as ``POWER_WIDTH``, in Markdown; empty if unknown.

    Standard deviations of what varies with the seed, the scene and both, in points; half the width of the
    interval now; seeds that suffice with the scenes that are there, and scenes that do with so many seeds.
    """
    lines = []
    for row in rows:
        found = row.difference
        if found is None or found.spread is None:
            continue
        spread, seeds, scenes = found.spread, found.num_seeds, found.num_scenes
        cells = [f"{np.sqrt(part):.2f}" for part in (spread.seeds, spread.scenes, spread.rest)]
        cells += [
            f"±{spread.half_width(seeds, scenes):.2f}",
            count_text(spread.seeds_for(POWER_WIDTH, scenes)),
        ]
        cells += [count_text(spread.scenes_for(POWER_WIDTH, wanted)) for wanted in POWER_SEEDS]
        lines.append([row.name, *cells])
    if not lines:
        return ""
    header = ["row", "by seed", "by scene", "rest", "now", f"seeds for ±{POWER_WIDTH}"]
    return markdown_table([*header, *(f"scenes with {seeds} seeds" for seeds in POWER_SEEDS)], lines)


def count_text(needed: int | None) -> str:
    """How many seeds or scenes are needed."""
    return "none suffices" if needed is None else f"{needed:,}"


def interval_values(rows: Sequence[TableRow], score: str) -> list[Any]:
    """The numbers that :func:`intervals_picture` shows, as JSON values."""
    return [
        score,
        *([row.name, row.score.as_numbers(), row.difference and row.difference.as_numbers()] for row in rows),
    ]


def intervals_picture(rows: Sequence[TableRow], score: str) -> bytes:
    """The score of every row and its difference from the baseline, with their intervals, as PNG."""
    figure = Figure((_WIDTH_INCHES, _BASE_INCHES + _ROW_INCHES * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    left.set_yticks(places, [row.name for row in rows])
    left.invert_yaxis()
    left.set_xlabel(score)
    right.set_xlabel(f"difference of {score}")
    right.axvline(0.0, color="0.6", linewidth=1.0)
    for place, row in zip(places, rows, strict=True):
        for axes, found in ((left, row.score), (right, row.difference)):
            if found is not None:
                axes.plot(found.interval, [place, place], color="tab:blue", linewidth=2.0)
                axes.plot([found.mean], [place], "o", color="tab:blue", markersize=4.0)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={DIGEST: digest(interval_values(rows, score))})
    return file.getvalue()
