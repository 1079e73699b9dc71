"""Tables of planners: means of scored scenes, as aligned text and as markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.text_tables import markdown_table
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS
from beyonddrive.evaluation.score_labels import LabelError, ScoreLabel, scenes_digest
from beyonddrive.evaluation.score_rows import LABEL, Half, two_stage_means
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import SCORE_COLUMNS

TABLE_COLUMNS = ("PDMS", "NC", "DAC", "EP", "TTC", "C", "DDC")
"""Columns of a table of PDM scores for readers: the score first, then what it is made of."""


@dataclass(frozen=True)
class Basis:
    """Which score a file of results holds; two of different scores are not compared.

    Attributes:
        name: For readers.
        columns: In the order of the file.
        shown: In the order of a table: the score first.
        optional: Columns that a scene may lack.
    """

    name: str
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    optional: tuple[str, ...] = ()


PDMS = Basis("PDM score, NAVSIM v1", SCORE_COLUMNS, TABLE_COLUMNS)
EPDMS = Basis("EPDMS, NAVSIM v2", RUN_COLUMNS, (RUN_COLUMNS[-1], *RUN_COLUMNS[:-1]), optional=("EC",))
BASES = (PDMS, EPDMS)
"""Scores whose files are known."""


class ResultsError(BeyondDriveError, ValueError):
    """A results file is damaged, or two of them cannot be compared; the message names file and remedy."""


@dataclass(frozen=True)
class Results:
    """Scored scenes of one planner, as ``beyonddrive test`` writes them.

    Attributes:
        label: Name of the planner.
        path: The csv file.
        values: (S,) scores in [0, 1] by scene token, in the order of ``basis.columns``; NaN for an optional
            one that a scene lacks.
        failures: Scenes without scores, and logs that are lost as a whole, with the reason.
        basis: Which score it is.
        scored: What the scores are of; None in a file that does not say, such as those of older versions.
        halves: Of two stages: scene -> its place in a group.
    """

    label: str
    path: Path
    values: Mapping[str, NDArray[np.float64]]
    failures: Mapping[str, str] = field(default_factory=dict)
    basis: Basis = PDMS
    scored: ScoreLabel | None = None
    halves: Mapping[str, Half] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreRow:
    """One planner of a table.

    Attributes:
        label: Name of the planner.
        percent: (S,) means over scenes in percent, in the order of ``basis.columns``; that of an optional
            column is over the scenes that have it.
        num_scenes: Scenes in the means.
        num_failed: Scenes of the file that could not be scored.
        basis: Which score it is.
        scored: What the means are of, if the file says so.
    """

    label: str
    percent: NDArray[np.float64]
    num_scenes: int
    num_failed: int = 0
    basis: Basis = PDMS
    scored: ScoreLabel | None = None

    def __getitem__(self, column: str) -> float:
        """Mean of one column, in percent."""
        return float(self.percent[self.basis.columns.index(column)])


def read_results(label: str, path: Path) -> Results:
    """Read a csv file of scored scenes, of the PDM score or of the EPDMS of one or two stages.

    A row without a token, but with a log and a reason, is of a log that is lost as a whole.

    Raises:
        ResultsError: If the file is missing, lacks a column, repeats a scene, a score is not in [0, 1], or
            its scenes are not those that its label is of.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a mark before the first column
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{label}: {path}: cannot be read ({error}); write it with beyonddrive test --out"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    basis = _basis_of(reader.fieldnames or (), path)
    values: dict[str, NDArray[np.float64]] = {}
    failures: dict[str, str] = {}
    halves: dict[str, Half] = {}
    texts: set[str] = set()
    for line in reader:
        token, where = line["token"], f"{path}, line {reader.line_num}"
        cells = [line[name] for name in basis.columns]
        has_failed = not any(cells) and bool(line.get("error"))
        if has_failed and not token:
            token = line.get("log") or ""
        if not token or token in values or token in failures:
            raise ResultsError(
                f"{where}: token {token!r} is empty or there twice; run beyonddrive test again"
            )
        texts.add(line.get(LABEL) or "")
        if has_failed:
            failures[token] = line["error"]
            continue
        values[token] = _scores(cells, where, basis)
        if line.get("group"):
            halves[token] = _half(line, where)
    if not values:
        raise ResultsError(f"{path}: not a single scored scene in it; see the column error")
    scored = _label(path, texts, values)
    if scored is not None and scored.stages == 2 and halves.keys() != values.keys():
        raise ResultsError(f"{path}: scenes of two stages without a group; score again")
    return Results(label, path, values, failures, basis, scored, halves)


def _half(line: Mapping[str, str], where: str) -> Half:
    try:
        return Half(line["group"], line["half"], float(line["weight"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ResultsError(f"{where}: group, half and weight are damaged ({error!r}); score again") from error


def _label(path: Path, texts: Collection[str], tokens: Collection[str]) -> ScoreLabel | None:
    """The label that all rows of a file share; None if no row has one."""
    if set(texts) == {""}:
        return None
    if len(texts) > 1:
        raise ResultsError(f"{path}: rows of different labels, so of several files; keep them apart")
    try:
        label = ScoreLabel.parse(next(iter(texts)))
    except LabelError as error:
        raise ResultsError(f"{path}: {error}") from error
    if (label.num_scenes, label.scenes) != (len(tokens), scenes_digest(tokens)):
        raise ResultsError(
            f"{path}: its label is of {label.num_scenes} scenes {label.scenes}, but the {len(tokens)} in it "
            f"are others; use the file as it was written, and --common-scenes to compare on fewer scenes"
        )
    return label


def _basis_of(columns: Sequence[str], path: Path) -> Basis:
    """The score whose columns a file has; of several that lack some, the one named by its last column."""
    lacking = {basis: [n for n in ("token", *basis.columns) if n not in columns] for basis in BASES}
    best = min(BASES, key=lambda basis: (basis.columns[-1] not in columns, len(lacking[basis])))
    if lacking[best]:
        raise ResultsError(
            f"{path}: no column {', '.join(lacking[best])}; write the file with beyonddrive test --out"
        )
    return best


def _scores(cells: Sequence[str | None], where: str, basis: Basis) -> NDArray[np.float64]:
    row = np.full(len(basis.columns), np.nan)
    for index, (name, cell) in enumerate(zip(basis.columns, cells, strict=True)):
        if not cell and name in basis.optional:
            continue
        with suppress(ValueError):
            row[index] = float(cell or "nan")
        if not 0.0 <= row[index] <= 1.0:  # also refuses NaN
            raise ResultsError(
                f"{where}: {name} is {cell!r}, wanted a number in [0, 1]; run beyonddrive test again"
            )
    return row


def label_differences(results: Sequence[Results]) -> list[str]:
    """What differs between the labels of files, such as ``traffic: logged, reactive``; nothing if alike."""
    found = []
    first = results[0] if results else None
    for result in results[1:]:
        assert first is not None
        if first.scored is not None and result.scored is not None:
            found += first.scored.differences(result.scored)
        elif first.scored is not result.scored:
            found.append(f"label: {first.path if first.scored is None else result.path} has none")
    return list(dict.fromkeys(found))


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
        if result.basis != first.basis:
            raise ResultsError(
                f"{result.path}: holds {result.basis.name}, but {first.path} holds {first.basis.name}; they "
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
            result.basis,
            result.scored and replace(result.scored, num_scenes=len(order), scenes=scenes_digest(order)),
        )
        for result in results
    ]


def shared_scenes(results: Sequence[Results]) -> list[str]:
    """Tokens that all of at least one planner have, in order; of two stages, those of whole groups."""
    shared = set.intersection(*(set(result.values) for result in results))
    halves = {t: half for result in results for t, half in result.halves.items()}
    broken = {half.group for token, half in halves.items() if token not in shared}
    return sorted(token for token in shared if token not in halves or halves[token].group not in broken)


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
    return rows[0].basis.shown if rows else TABLE_COLUMNS


def best_values(rows: Sequence[ScoreRow], reference: Sequence[str] = ("human",)) -> dict[str, float]:
    """The highest value of each column, rounded as shown, among planners that are no reference."""
    planners = [row for row in rows if row.label.lower() not in reference]
    return {
        column: max(round(row[column], 1) for row in planners)
        for column in shown_columns(rows)
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
            shown.append([row.label.replace("|", "\\|"), *cells])
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
    texts = {row.label: str(row.scored) if row.scored else f"{row.basis.name}, no label" for row in rows}
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
