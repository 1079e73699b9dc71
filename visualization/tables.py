"""Tables of planners: means of scored scenes, as aligned text and as markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import SCORE_COLUMNS

TABLE_COLUMNS = ("PDMS", "NC", "DAC", "EP", "TTC", "C", "DDC")
"""Columns of a table for readers: the score first, then what it is made of."""


class ResultsError(BeyondDriveError, ValueError):
    """A results file is damaged, or two of them cannot be compared; the message names file and remedy."""


@dataclass(frozen=True)
class Results:
    """Scored scenes of one planner, as ``beyonddrive test`` writes them.

    Attributes:
        label: Name of the planner.
        path: The csv file.
        values: (7,) scores in [0, 1] by scene token.
        failures: Scenes without scores, with the reason.
    """

    label: str
    path: Path
    values: Mapping[str, NDArray[np.float64]]
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreRow:
    """One planner of a table.

    Attributes:
        label: Name of the planner.
        percent: (7,) means over scenes in percent, in the order of ``SCORE_COLUMNS``.
        num_scenes: Scenes in the means.
        num_failed: Scenes of the file that could not be scored.
    """

    label: str
    percent: NDArray[np.float64]
    num_scenes: int
    num_failed: int = 0

    def __getitem__(self, column: str) -> float:
        """Mean of one column, in percent."""
        return float(self.percent[SCORE_COLUMNS.index(column)])


def read_results(label: str, path: Path) -> Results:
    """Read a csv file of scored scenes; columns token, NC, DAC, EP, TTC, C, DDC, PDMS and perhaps error.

    Raises:
        ResultsError: If the file is missing, lacks a column, repeats a scene, or a score is not in [0, 1].
    """
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{label}: {path}: cannot be read ({error}); write it with beyonddrive test --out"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in ("token", *SCORE_COLUMNS) if name not in (reader.fieldnames or ())]
    if missing:
        raise ResultsError(
            f"{path}: no column {', '.join(missing)}; write the file with beyonddrive test --out"
        )
    values: dict[str, NDArray[np.float64]] = {}
    failures: dict[str, str] = {}
    for line in reader:
        token, where = line["token"], f"{path}, line {reader.line_num}"
        if not token or token in values or token in failures:
            raise ResultsError(
                f"{where}: token {token!r} is empty or there twice; run beyonddrive test again"
            )
        cells = [line[name] for name in SCORE_COLUMNS]
        if not any(cells) and line.get("error"):
            failures[token] = line["error"]
            continue
        values[token] = _scores(cells, where)
    if not values:
        raise ResultsError(f"{path}: not a single scored scene in it; see the column error")
    return Results(label, path, values, failures)


def _scores(cells: Sequence[str | None], where: str) -> NDArray[np.float64]:
    row = np.full(len(SCORE_COLUMNS), np.nan)
    for index, (name, cell) in enumerate(zip(SCORE_COLUMNS, cells, strict=True)):
        with suppress(ValueError):
            row[index] = float(cell or "nan")
        if not 0.0 <= row[index] <= 1.0:  # also refuses NaN
            raise ResultsError(
                f"{where}: {name} is {cell!r}, wanted a number in [0, 1]; run beyonddrive test again"
            )
    return row


def summarise(results: Sequence[Results], common_scenes: bool = False) -> list[ScoreRow]:
    """Means over the scenes of each planner.

    Args:
        results: One per planner.
        common_scenes: Compare on the scenes that all of them have; otherwise different scenes are an error.

    Raises:
        ResultsError: If planners were scored on different scenes, or on none in common.
    """
    if not results:
        return []
    shared = set.intersection(*(set(result.values) for result in results))
    for result in results:
        extra = set(result.values) - shared
        if extra and not common_scenes:
            raise ResultsError(
                f"{result.path}: {len(extra)} of {len(result.values)} scenes are not scored in every "
                f"other file, the first is {min(extra)}; score the same split, or give --common-scenes to "
                f"compare on the {len(shared)} scenes that all have"
            )
    if not shared:
        raise ResultsError(
            f"{', '.join(str(result.path) for result in results)}: no scene is scored in all of them; "
            f"score the same split"
        )
    order = sorted(shared)
    return [
        ScoreRow(
            result.label,
            100.0 * np.mean([result.values[token] for token in order], axis=0),
            len(order),
            len(result.failures),
        )
        for result in results
    ]


def best_values(rows: Sequence[ScoreRow], reference: Sequence[str] = ("human",)) -> dict[str, float]:
    """The highest value of each column, rounded as shown, among planners that are no reference."""
    planners = [row for row in rows if row.label.lower() not in reference]
    return {
        column: max(round(row[column], 1) for row in planners)
        for column in TABLE_COLUMNS
        if len(planners) > 1
    }


def format_table(rows: Sequence[ScoreRow], style: Literal["text", "markdown"] = "text") -> str:
    """Planners as lines, means in percent as columns.

    Args:
        rows: One per planner, in the order shown.
        style: ``text`` for a terminal; ``markdown``, where the best planner of a column is bold.

    >>> print(format_table([ScoreRow('LTF', np.full(7, 50.0), 3), ScoreRow('human', np.full(7, 100.0), 3)]))
    planner    PDMS     NC    DAC     EP    TTC      C    DDC  scenes
    -------  ------ ------ ------ ------ ------ ------ ------ -------
    LTF        50.0   50.0   50.0   50.0   50.0   50.0   50.0       3
    human     100.0  100.0  100.0  100.0  100.0  100.0  100.0       3
    """
    failed = any(row.num_failed for row in rows)
    if style == "markdown":
        best = best_values(rows)
        header = ["planner", *TABLE_COLUMNS, "scenes", *(["failed"] if failed else [])]
        lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
        for row in rows:
            cells = [
                f"**{row[column]:.1f}**"
                if round(row[column], 1) == best.get(column) and row.label.lower() != "human"
                else f"{row[column]:.1f}"
                for column in TABLE_COLUMNS
            ]
            cells += [str(row.num_scenes), *([str(row.num_failed)] if failed else [])]
            lines.append("| " + " | ".join([row.label.replace("|", "\\|"), *cells]) + " |")
        return "\n".join(lines)
    width = max(len("planner"), *(len(row.label) for row in rows)) if rows else len("planner")
    head = f"{'planner':<{width}}  " + " ".join(f"{name:>6}" for name in TABLE_COLUMNS) + f" {'scenes':>7}"
    rule = f"{'-' * width}  " + " ".join(["-" * 6] * len(TABLE_COLUMNS)) + f" {'-' * 7}"
    lines = [head + (f" {'failed':>7}" if failed else ""), rule + (f" {'-' * 7}" if failed else "")]
    for row in rows:
        values = " ".join(f"{row[column]:6.1f}" for column in TABLE_COLUMNS)
        tail = f" {row.num_failed:>7}" if failed else ""
        lines.append(f"{row.label:<{width}}  {values} {row.num_scenes:>7}{tail}")
    return "\n".join(lines)


def parse_named(arguments: Sequence[str], option: str) -> list[tuple[str, str]]:
    """Split ``NAME=VALUE`` arguments; names must differ.

    Raises:
        ResultsError: If one is no such pair, or a name comes twice.

    >>> parse_named(['LTF + BeyondDrive=a.csv'], '--row')
    [('LTF + BeyondDrive', 'a.csv')]
    """
    pairs: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (equals and name.strip() and value):
            raise ResultsError(f"{option} {argument!r}: wanted NAME=VALUE, for example 'LTF=results.csv'")
        if name.strip() in pairs:
            raise ResultsError(f"{option} {argument!r}: the name {name.strip()!r} is there twice")
        pairs[name.strip()] = value
    return list(pairs.items())
