"""Tables of results that are kept: a plan, the scores of its runs by scene, and how these were made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.engine.files import file_lock, write_atomically
from beyonddrive.engine.sweeps.plan import SweepPlan, read_plan
from beyonddrive.engine.sweeps.records import DATA
from beyonddrive.engine.sweeps.runs import differing_data
from beyonddrive.evaluation.statistics.score_table import (
    DISTANCE,
    RunKey,
    ScoreTable,
    read_table,
    write_runs,
    write_table,
)
from beyonddrive.visualization.sweep_report import (
    differing_values,
    parts_of,
    read_subset,
    subset_parts,
    write_report,
)
from beyonddrive.visualization.sweep_tables import TableRow, table_rows

RESULTS = Path(__file__).parent
MADE_WITH = "made_with.json"


def name_of(run: RunKey) -> str:
    """A run as ``made_with.json`` names it.

    >>> name_of(RunKey("LTF, near/far", 1)), run_of("LTF, near/far/1")
    ('LTF, near/far/1', RunKey(row='LTF, near/far', seed=1))
    """
    return f"{run.row}/{run.seed}"


def run_of(name: str) -> RunKey:
    """The run of a name of :func:`name_of`."""
    row, _, seed = name.rpartition("/")
    return RunKey(row, int(seed))


@dataclass(frozen=True)
class KeptTable:
    """A table that is kept.

    Attributes:
        name: Its plan below this folder, without the ending, such as ``effect/planners``.
    """

    name: str

    @property
    def folder(self) -> Path:
        """Where its scores are."""
        return RESULTS / self.name

    @cached_property
    def plan(self) -> SweepPlan:
        """Rows and seeds."""
        return read_plan(RESULTS / f"{self.name}.yml")

    @property
    def parts(self) -> list[str]:
        """Loaders or difficulties that have scores, and subsets of a loader that has."""
        stored = {path.stem.removeprefix("scores_") for path in self.folder.glob("scores_*.npz")}
        found = stored | {part for part, (_, whole) in subset_parts(self.plan).items() if whole in stored}
        first = [part for part in parts_of(self.plan) if part in found]
        return [*first, *sorted(found.difference(first))]

    def scores(self, part: str) -> ScoreTable:
        """Scores by run and scene; those of a subset are taken from the whole."""
        name, whole = subset_parts(self.plan).get(part, (None, part))
        scores = read_table(self.folder, whole)
        return scores if name is None else scores.part(read_subset(self.plan, name))

    def rows(self, scores: ScoreTable) -> list[TableRow]:
        """Means, intervals and differences of the rows that have runs, from the scores of a part."""
        return table_rows(scores, {row.name: row.baseline for row in self.plan.rows})

    def made_with(self) -> dict[str, Any]:
        """How each run was made, by ``row/seed``; empty if there is none yet."""
        path = self.folder / MADE_WITH
        return json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until nobody else adds runs to it, who would write without those that are added meanwhile.

        Raises:
            SweepError: If there is no such plan.
        """
        _ = self.plan  # (or the lock would make a folder for any name)
        with file_lock(self.folder.with_name(f".{self.folder.name}.lock")):
            yield

    def write(
        self, tables: Mapping[str, ScoreTable], made: Mapping[str, Any], same_data: bool = True
    ) -> None:
        """Keep the scores by part, how the runs were made, and what is computed from these.

        Args:
            tables: Scores of runs, by part, but for subsets; parts and runs that are kept and not given stay.
            made: As :meth:`made_with` gives it.
            same_data: As :func:`joined`.
        """
        had = self.parts
        whole = {
            part: joined(self.scores(part) if part in had else None, new, same_data)
            for part, new in tables.items()
        }
        for part, scores in whole.items():
            write_table(self.folder, part, scores)
        write_atomically(self.folder / MADE_WITH, (json.dumps(made, indent=1) + "\n").encode())
        self.write_computed(self.folder)

    def write_computed(self, folder: Path) -> None:
        """Write what is computed: ``runs.csv``, report, LaTeX tables of all parts, pictures of loaders.

        Pictures that are kept and show the same numbers are not drawn anew.
        """
        runs = {run_of(name): run for name, run in self.made_with().items()}
        scores = {part: self.scores(part) for part in self.parts}
        write_runs(
            folder,
            scores,
            differing_values(self.plan),
            {key: run.get("checkpoint") for key, run in runs.items()},
            {key: run["seconds"]["train"] for key, run in runs.items() if "train" in run.get("seconds", {})},
        )
        anew = differing_data((key.row, key.seed, run.get(DATA)) for key, run in runs.items())
        write_report(folder, self.plan, tables=scores, anew=anew, drawn=self.folder)


def joined(old: ScoreTable | None, new: ScoreTable, same_data: bool = True) -> ScoreTable:
    """Runs of both, those of ``new`` in place of the same of ``old``.

    With ``same_data=False`` the logs of the same scenes may hold something else, and what is joined does not
    tell of them.
    """
    if old is None:
        return new
    if not same_data:
        old, new = (replace(it, label=it.label and replace(it.label, data="")) for it in (old, new))
    if DISTANCE in (*old.columns, *new.columns):  # (closed-loop runs were kept without it)
        old, new = old.with_column(DISTANCE), new.with_column(DISTANCE)
    # (tables of version 0.2 have no label; what they hold is as long as the columns are the same)
    label = old.label or new.label
    differing = label.differences(new.label) if label is not None and new.label is not None else []
    alike = (old.tokens, old.columns, label is None) == (new.tokens, new.columns, new.label is None)
    if differing or not alike:
        told = f": {'; '.join(differing)}" if differing else ""
        raise SystemExit(f"keep: the runs of the sweep were judged on other scenes or by another score{told}")
    if label is not None and new.label is not None:
        # (runs that do not tell of their data are taken to fit, so that those that come later are compared)
        label = replace(label, data=label.data or new.label.data)
    values = dict(zip(old.runs, old.values, strict=True)) | dict(zip(new.runs, new.values, strict=True))
    untrained = old.untrained | new.untrained
    return ScoreTable(
        tuple(values), old.tokens, old.columns, np.stack(list(values.values())), label, untrained
    )


def kept_tables() -> Iterator[KeptTable]:
    """All tables that have runs."""
    for path in sorted(RESULTS.glob("**/*.yml")):
        if any(path.with_suffix("").glob("scores_*.npz")):
            yield KeptTable(path.relative_to(RESULTS).with_suffix("").as_posix())
