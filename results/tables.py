"""Tables of results that are kept: a plan, the scores of its runs by scene, and how these were made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from beyonddrive.engine.sweeps.plan import SweepPlan, read_plan
from beyonddrive.evaluation.statistics.score_table import ScoreTable, read_table
from beyonddrive.visualization.sweep_tables import TableRow, table_rows

RESULTS = Path(__file__).parent
MADE_WITH = "made_with.json"


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
        """Loaders, subsets or difficulties that have scores."""
        found = {path.stem.removeprefix("scores_") for path in self.folder.glob("scores_*.npz")}
        first = [part for part in (*self.plan.loaders, *self.plan.subsets) if part in found]
        return [*first, *sorted(found.difference(first))]

    def scores(self, part: str) -> ScoreTable:
        """Scores by run and scene."""
        return read_table(self.folder, part)

    def rows(self, part: str) -> list[TableRow]:
        """Means, intervals and differences of the rows that have runs."""
        return table_rows(self.scores(part), {row.name: row.baseline for row in self.plan.rows})

    def made_with(self) -> dict[str, Any]:
        """How each run was made, by ``row/seed``; empty if there is none yet."""
        path = self.folder / MADE_WITH
        return json.loads(path.read_text()) if path.exists() else {}


def kept_tables() -> Iterator[KeptTable]:
    """All tables that have runs."""
    for path in sorted(RESULTS.glob("**/*.yml")):
        if any(path.with_suffix("").glob("scores_*.npz")):
            yield KeptTable(path.relative_to(RESULTS).with_suffix("").as_posix())
