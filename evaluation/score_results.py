"""Scored scenes of one planner, read from the csv text that :mod:`score_rows` writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS
from beyonddrive.evaluation.score_labels import LabelError, ScoreLabel
from beyonddrive.evaluation.score_rows import LABEL, Half
from beyonddrive.structures.digests import digest_of_lines
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import SCORE_COLUMNS

TABLE_COLUMNS = ("PDMS", "NC", "DAC", "EP", "TTC", "C", "DDC")
"""Columns of a table of PDM scores for readers: the score first, then what it is made of."""


@dataclass(frozen=True)
class ScoreKind:
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


PDMS = ScoreKind("PDM score, NAVSIM v1", SCORE_COLUMNS, TABLE_COLUMNS)
EPDMS = ScoreKind("EPDMS, NAVSIM v2", RUN_COLUMNS, (RUN_COLUMNS[-1], *RUN_COLUMNS[:-1]), optional=("EC",))
SCORE_KINDS = (PDMS, EPDMS)
"""Scores whose files are known; on which basis a file has them is in its label."""


class ResultsError(BeyondDriveError, ValueError):
    """A results file is damaged, or two of them cannot be compared; the message names file and remedy."""


@dataclass(frozen=True)
class Results:
    """Scored scenes of one planner, as ``beyonddrive test`` writes them.

    Attributes:
        label: Name of the planner.
        path: The csv file.
        values: (S,) scores in [0, 1] by scene token, in the order of ``kind.columns``; NaN for an optional
            one that a scene lacks.
        failures: Scenes without scores, and logs that are lost as a whole, with the reason.
        kind: Which score it is.
        scored: What the scores are of; None in a file that does not say, such as those of older versions.
        halves: Of two stages: scene -> its place in a group.
    """

    label: str
    path: Path
    values: Mapping[str, NDArray[np.float64]]
    failures: Mapping[str, str] = field(default_factory=dict)
    kind: ScoreKind = PDMS
    scored: ScoreLabel | None = None
    halves: Mapping[str, Half] = field(default_factory=dict)


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
    kind = _kind_of(reader.fieldnames or (), path)
    values: dict[str, NDArray[np.float64]] = {}
    failures: dict[str, str] = {}
    halves: dict[str, Half] = {}
    texts: set[str] = set()
    for line in reader:
        token, where = line["token"], f"{path}, line {reader.line_num}"
        cells = [line[name] for name in kind.columns]
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
        values[token] = _scores(cells, where, kind)
        if line.get("group"):
            halves[token] = _half(line, where)
    if not values:
        raise ResultsError(f"{path}: not a single scored scene in it; see the column error")
    scored = _label(path, texts, values)
    if scored is not None and scored.stages == 2 and halves.keys() != values.keys():
        raise ResultsError(f"{path}: scenes of two stages without a group; score again")
    return Results(label, path, values, failures, kind, scored, halves)


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
    if (label.num_scenes, label.scenes) != (len(tokens), digest_of_lines(tokens)):
        raise ResultsError(
            f"{path}: its label is of {label.num_scenes} scenes {label.scenes}, but the {len(tokens)} in it "
            f"are others; use the file as it was written, and --common-scenes to compare on fewer scenes"
        )
    return label


def _kind_of(columns: Sequence[str], path: Path) -> ScoreKind:
    """The score whose columns a file has; of several that lack some, the one named by its last column."""
    lacking = {kind: [n for n in ("token", *kind.columns) if n not in columns] for kind in SCORE_KINDS}
    best = min(SCORE_KINDS, key=lambda kind: (kind.columns[-1] not in columns, len(lacking[kind])))
    if lacking[best]:
        raise ResultsError(
            f"{path}: no column {', '.join(lacking[best])}; write the file with beyonddrive test --out"
        )
    return best


def _scores(cells: Sequence[str | None], where: str, kind: ScoreKind) -> NDArray[np.float64]:
    row = np.full(len(kind.columns), np.nan)
    for index, (name, cell) in enumerate(zip(kind.columns, cells, strict=True)):
        if not cell and name in kind.optional:
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
    told: dict[str, ScoreLabel] = {}
    """Scenes -> a label that tells of their data."""
    for result in results:
        assert first is not None
        if first.scored is not None and result.scored is not None:
            found += first.scored.differences(result.scored)
        elif first.scored is not result.scored:
            found.append(f"label: {first.path if first.scored is None else result.path} has none")
        if result.scored is not None and result.scored.data:
            found += told.setdefault(result.scored.scenes, result.scored).differences(result.scored)
    return list(dict.fromkeys(found))


def shared_scenes(results: Sequence[Results]) -> list[str]:
    """Tokens that all of at least one planner have, in order; of two stages, those of whole groups."""
    shared = set.intersection(*(set(result.values) for result in results))
    halves = {t: half for result in results for t, half in result.halves.items()}
    broken = {half.group for token, half in halves.items() if token not in shared}
    return sorted(token for token in shared if token not in halves or halves[token].group not in broken)
