"""Tables of planners: means of scored scenes, as aligned text and as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.text_tables import markdown_table
from beyonddrive.evaluation.score_labels import LabelError, ScoreLabel
from beyonddrive.evaluation.score_results import (
    PDMS,
    TABLE_COLUMNS,
    Results,
    ResultsError,
    ScoreKind,
    label_differences,
    shared_scenes,
)
from beyonddrive.evaluation.score_rows import two_stage_means


@dataclass(frozen=True)
class ScoreRow:
    """One planner of a table.

    Attributes:
        label: Name of the planner.
        percent: (S,) means over scenes in percent, in the order of ``kind.columns``; that of an optional
            column is over the scenes that have it.
        num_scenes: Scenes in the means.
        num_failed: Scenes of the file that could not be scored.
        kind: Which score it is.
        scored: What the means are of, if the file says so.
    """

    label: str
    percent: NDArray[np.float64]
    num_scenes: int
    num_failed: int = 0
    kind: ScoreKind = PDMS
    scored: ScoreLabel | None = None

    def __getitem__(self, column: str) -> float:
        """Mean of one column, in percent."""
        return float(self.percent[self.kind.columns.index(column)])


def summarise(
    results: Sequence[Results], common_scenes: bool = False, different_labels: bool = False
) -> list[ScoreRow]:
    """Means over the scenes of each planner.

    Args:
        results: One per planner.
        common_scenes: Compare on the scenes that all of them have; otherwise different scenes are an error.
            Of two stages: on the groups that all of them have.
        different_labels: Compare in spite of labels that differ in more than the scenes.

    Raises:
        ResultsError: If planners were scored by different scores, on different bases, on different scenes, or
            on none in common.
    """
    if not results:
        return []
    first = results[0]
    for result in results:
        if result.kind != first.kind:
            raise ResultsError(
                f"{result.path}: holds {result.kind.name}, but {first.path} holds {first.kind.name}; they "
                f"cannot be compared: evaluate both by one metric"
            )
    if (differing := label_differences(results)) and not different_labels:
        raise ResultsError(
            f"{', '.join(str(result.path) for result in results)}: the scores do not compare, they differ in "
            f"{'; '.join(differing)}; score all on one basis, or give --different-labels"
        )
    order = shared_scenes(results)
    for result in results:
        extra = set(result.values) - set(order)
        if extra and not common_scenes:
            raise ResultsError(
                f"{result.path}: {len(extra)} of {len(result.values)} scenes are not scored in every "
                f"other file, the first is {min(extra)}; score the same split, or give --common-scenes to "
                f"compare on the {len(order)} scenes that all have"
            )
    if not order:
        raise ResultsError(
            f"{', '.join(str(result.path) for result in results)}: no scene is scored in all of them; "
            f"score the same split"
        )
    return [
        ScoreRow(
            result.label,
            100.0 * _means_of(result, order),
            len(order),
            len(result.failures),
            result.kind,
            result.scored and result.scored.of_part(order),
        )
        for result in results
    ]


def _means_of(result: Results, tokens: Sequence[str]) -> NDArray[np.float64]:
    if result.halves:
        try:
            return two_stage_means({t: result.values[t] for t in tokens}, result.halves)
        except LabelError as error:
            raise ResultsError(f"{result.path}: {error}") from error
    return _means(np.array([result.values[token] for token in tokens]))


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of columns over the scenes that have them; NaN where none has."""
    counts = np.isfinite(values).sum(axis=0)
    totals = np.nansum(values, axis=0)
    means = np.full(values.shape[1], np.nan)
    means[counts > 0] = totals[counts > 0] / counts[counts > 0]
    return means


def shown_columns(rows: Sequence[ScoreRow]) -> tuple[str, ...]:
    """Columns of the table of some planners."""
    return rows[0].kind.shown if rows else TABLE_COLUMNS


def best_values(rows: Sequence[ScoreRow]) -> dict[str, float]:
    """The highest value of each column, rounded as shown, among planners without the human."""
    planners = [row for row in rows if row.label.lower() != "human"]
    if len(planners) < 2:
        return {}
    columns = shown_columns(rows)
    known = {column: [row[column] for row in planners if np.isfinite(row[column])] for column in columns}
    return {column: max(round(value, 1) for value in values) for column, values in known.items() if values}


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
    failed, columns = any(row.num_failed for row in rows), shown_columns(rows)
    if style == "markdown":
        best = best_values(rows)
        header = ["planner", *columns, "scenes", *(["failed"] if failed else [])]
        shown = []
        for row in rows:
            cells = [
                f"**{row[column]:.1f}**"
                if round(row[column], 1) == best.get(column) and row.label.lower() != "human"
                else f"{row[column]:.1f}"
                for column in columns
            ]
            cells += [str(row.num_scenes), *([str(row.num_failed)] if failed else [])]
            shown.append([row.label, *cells])
        return markdown_table(header, shown).rstrip("\n")
    width = max(len("planner"), *(len(row.label) for row in rows)) if rows else len("planner")
    head = f"{'planner':<{width}}  " + " ".join(f"{name:>6}" for name in columns) + f" {'scenes':>7}"
    rule = f"{'-' * width}  " + " ".join(["-" * 6] * len(columns)) + f" {'-' * 7}"
    lines = [head + (f" {'failed':>7}" if failed else ""), rule + (f" {'-' * 7}" if failed else "")]
    for row in rows:
        values = " ".join(f"{row[column]:6.1f}" for column in columns)
        tail = f" {row.num_failed:>7}" if failed else ""
        lines.append(f"{row.label:<{width}}  {values} {row.num_scenes:>7}{tail}")
    return "\n".join(lines)


def describe_labels(rows: Sequence[ScoreRow], differing: Sequence[str] = ()) -> list[str]:
    """What the figures of a table are of, in lines: once if all are alike, else planner by planner."""
    texts = {row.label: str(row.scored) if row.scored else f"{row.kind.name}, no label" for row in rows}
    if len(set(texts.values())) == 1:
        return [next(iter(texts.values()))]
    lines = [f"{name}: {text}" for name, text in texts.items()]
    return [*lines, *(f"DIFFERENT LABELS: {text}" for text in differing)]


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
