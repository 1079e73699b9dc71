"""Scores of many runs by scene: in memory (runs, scenes, columns), and as two files.

``runs.csv`` has a line per run: its row, seed, values, checkpoint and mean scores. ``scores_<part>.npz`` has
the scores by scene that these are the means of, and the label of what they are. Intervals, tables and
pictures are all computed from them.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.engine.files import atomic_file, write_atomically
from beyonddrive.evaluation.score_labels import LabelError, ScoreLabel
from beyonddrive.evaluation.statistics.spread import StatisticsError

RUNS = "runs.csv"
_OWN = ("row", "seed", "part", "checkpoint", "num_scenes")
COLLISIONS, DISTANCE, RATE = "collisions", "km", "collisions per km"
"""Columns of scenes that were driven: whether it collided, how far it went [km]; and what their sums give."""


@dataclass(frozen=True)
class RunKey:
    """Which run: a row of the table, and the seed of its training."""

    row: str
    seed: int


@dataclass(frozen=True)
class ScoreTable:
    """Scores of runs on the same scenes.

    Attributes:
        runs: R runs.
        tokens: T scenes.
        columns: C names, such as ``SCORE_COLUMNS``; the last is the score itself.
        values: (R, T, C) float32 in [0, 1], :data:`DISTANCE` in km; NaN where a scene lacks a column, such as
            extended comfort.
        label: What the scores are; None if nobody said.
        untrained: Rows without a training, whose one run stands for every seed.
    """

    runs: tuple[RunKey, ...]
    tokens: tuple[str, ...]
    columns: tuple[str, ...]
    values: NDArray[np.float32]
    label: ScoreLabel | None = None
    untrained: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        shape = (len(self.runs), len(self.tokens), len(self.columns))
        if self.values.shape != shape:
            raise StatisticsError(f"scores must have the shape {shape}, got {self.values.shape}")
        for kind, keys in (("run", self.runs), ("scene", self.tokens), ("column", self.columns)):
            if len(set(keys)) < len(keys):
                raise StatisticsError(f"scores have a {kind} twice")

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in the order of their first runs."""
        return list(dict.fromkeys(run.row for run in self.runs))

    def seeds(self, row: str) -> list[int]:
        """Seeds that a row has."""
        return sorted(run.seed for run in self.runs if run.row == row)

    def of(self, row: str, column: str, seeds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Scores (S, T) of a row in percent, by seed.

        Raises:
            StatisticsError: If a seed is missing.
        """
        wanted = self.seeds(row) if seeds is None else seeds
        places = {run: index for index, run in enumerate(self.runs)}
        lacking = [seed for seed in wanted if RunKey(row, seed) not in places]
        if lacking or not wanted:
            raise StatisticsError(
                f"row '{row}' has no scores of seed {', '.join(map(str, lacking)) or '(any)'}"
            )
        index = [places[RunKey(row, seed)] for seed in wanted]
        return 100.0 * self.values[index, :, self.columns.index(column)].astype(np.float64)

    def with_column(self, name: str) -> ScoreTable:
        """The same with a column before the score, NaN throughout, if it is not there."""
        if name in self.columns:
            return self
        values = np.insert(self.values, -1, np.nan, axis=2)
        return replace(self, columns=(*self.columns[:-1], name, self.columns[-1]), values=values)

    def of_seeds(self, seeds: Collection[int]) -> ScoreTable:
        """The same without runs of other seeds; rows without a training keep their one run."""
        keep = [run.row in self.untrained or run.seed in seeds for run in self.runs]
        runs = tuple(run for run, is_kept in zip(self.runs, keep, strict=True) if is_kept)
        return replace(self, runs=runs, values=self.values[keep])

    def part(self, tokens: Collection[str]) -> ScoreTable:
        """The same runs on some of the scenes.

        Raises:
            StatisticsError: If one of them is not there.
        """
        wanted = set(tokens)
        if lacking := sorted(wanted.difference(self.tokens)):
            raise StatisticsError(f"{len(lacking)} of {len(wanted)} scenes have no scores: {lacking[0]} ...")
        keep = np.array([token in wanted for token in self.tokens])
        kept = tuple(token for token, is_kept in zip(self.tokens, keep, strict=True) if is_kept)
        label = self.label and self.label.of_part(kept)
        return replace(self, tokens=kept, values=self.values[:, keep], label=label)


def table_of(
    scores: Mapping[RunKey, Mapping[str, NDArray[np.float64]]],
    columns: Sequence[str],
    label: ScoreLabel | None = None,
    untrained: Collection[str] = (),
) -> ScoreTable:
    """Put the scores (C,) by token of several runs together.

    Raises:
        StatisticsError: If two runs have not the same scenes.
    """
    tokens: tuple[str, ...] | None = None
    for run, values in scores.items():
        own = tuple(sorted(values))
        if tokens is not None and own != tokens:
            odd = min(set(own) ^ set(tokens))
            raise StatisticsError(
                f"row '{run.row}', seed {run.seed}: has other scenes than the rest, such as {odd}"
            )
        tokens = own
    found = [[values[token] for token in tokens or ()] for values in scores.values()]
    shape = (len(scores), len(tokens or ()), len(columns))
    array = np.array(found, np.float32).reshape(shape)
    return ScoreTable(tuple(scores), tokens or (), tuple(columns), array, label, frozenset(untrained))


def known_mean(values: ArrayLike) -> float | None:
    """The mean of the values that are there, which are not NaN; None if none is.

    >>> known_mean([1.0, float("nan"), 2.0]), known_mean([float("nan")])
    (1.5, None)
    """
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None


def score_file(folder: Path, part: str) -> Path:
    """Where the scores by scene of a part are."""
    return folder / f"scores_{part}.npz"


def write_table(folder: Path, part: str, table: ScoreTable) -> None:
    """Write the scores by scene of a part."""
    arrays = {
        "rows": np.array([run.row for run in table.runs], dtype=np.str_),
        "seeds": np.array([run.seed for run in table.runs], dtype=np.int64),
        "tokens": np.array(table.tokens, dtype=np.str_),
        "columns": np.array(table.columns, dtype=np.str_),
        "values": table.values,
        "label": np.array(table.label.to_text() if table.label else "", dtype=np.str_),
        "untrained": np.array(sorted(table.untrained), dtype=np.str_),
    }
    with atomic_file(score_file(folder, part)) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_table(folder: Path, part: str) -> ScoreTable:
    """Read the scores by scene of a part.

    Raises:
        StatisticsError: If the file is missing or damaged; names it.
    """
    path = score_file(folder, part)
    try:
        with np.load(path, allow_pickle=False) as file:
            runs = tuple(
                RunKey(str(row), int(seed)) for row, seed in zip(file["rows"], file["seeds"], strict=True)
            )
            tokens, columns = map(str, file["tokens"]), map(str, file["columns"])
            # Files of version 0.2 say neither what the scores are nor which rows are not trained.
            text = str(file.get("label", ""))
            untrained = frozenset(map(str, file.get("untrained", ())))
            label = ScoreLabel.parse(text) if text else None
            return ScoreTable(runs, tuple(tokens), tuple(columns), file["values"], label, untrained)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, StatisticsError, LabelError) as error:
        raise StatisticsError(
            f"{path}: no scores of a sweep ({error}); run beyonddrive sweep again"
        ) from error


def write_runs(
    folder: Path,
    tables: Mapping[str, ScoreTable],
    values: Mapping[str, Mapping[str, str]],
    checkpoints: Mapping[RunKey, str | None],
    seconds: Mapping[RunKey, float],
) -> None:
    """Write ``runs.csv``: a line per run and part, with mean scores in percent.

    A sub-score that a part does not have, or no scene of it, is an empty cell. :data:`DISTANCE` is summed.

    Args:
        folder: Where it goes.
        tables: Scores by part.
        values: What differs between the rows, by row and name.
        checkpoints: Names of what was judged.
        seconds: Of each training.
    """
    names = list(dict.fromkeys(name for row in values.values() for name in row))
    columns = list(dict.fromkeys(name for table in tables.values() for name in reversed(table.columns)))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_OWN[:2], *names, *_OWN[2:], *columns, "train_seconds"])
    for part, table in tables.items():
        for run, scores in zip(table.runs, table.values, strict=True):
            found = dict(zip(table.columns, scores.T.astype(np.float64), strict=True))
            known = {name: mean for name in columns if (mean := known_mean(found.get(name, ()))) is not None}
            if DISTANCE in known:
                known[DISTANCE] = float(np.nansum(found[DISTANCE])) / 100.0
            means = [f"{100.0 * known[name]:.4f}" if name in known else "" for name in columns]
            own = [values.get(run.row, {}).get(name, "") for name in names]
            told = [part, checkpoints.get(run) or "", len(table.tokens)]
            took = f"{seconds[run]:.1f}" if run in seconds else ""
            writer.writerow([run.row, run.seed, *own, *told, *means, took])
    write_atomically(folder / RUNS, text.getvalue().encode())
