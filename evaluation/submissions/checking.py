"""Scores of a submission, as its leaderboard would compute them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.environment import write_made_with
from beyonddrive.engine.executors import Executor
from beyonddrive.engine.files import write_atomically
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS
from beyonddrive.evaluation.split_scoring import SplitScoring
from beyonddrive.evaluation.submissions.official_file import Plans
from beyonddrive.evaluation.submissions.two_stage_run import TwoStageData, score_run
from beyonddrive.structures.plan import SCORE_COLUMNS


@dataclass
class Verdict:
    """Scores of one seed.

    Attributes:
        columns: Names of the scores; the last is the one that counts.
        rows: Scene -> scores by ``columns``.
        means: Label -> scores by ``columns``, of the run.
        failures: Scene -> why it has no score. With a single one there are no means, as on the leaderboard.
    """

    columns: tuple[str, ...]
    rows: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    means: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The means as a table, in percent."""
        width = max((len(label) for label in self.means), default=0)
        if self.means:
            yield " " * width + "".join(f"{name:>8}" for name in self.columns)
        for label, values in self.means.items():
            yield f"{label:<{width}}" + "".join(f"{100 * value:8.2f}" for value in values)


def score_one_stage(
    root: NavsimRoot,
    split: str,
    plans: Plans,
    executor: Executor,
    cache_dir: Path | None = None,
    partial: bool = False,
) -> Verdict:
    """PDMS of plans (8, 3) by token, as board navtest computes it.

    Args:
        root: Where logs and maps are.
        split: Split of the logs.
        plans: Plans by token.
        executor: Where to run.
        cache_dir: Store of metric caches.
        partial: Whether there are means of the scenes that have scores if others have none.

    Raises:
        NavsimRootError: If there is no such split.
        StoreError: If ``cache_dir`` holds something else.
    """
    verdict = Verdict(SCORE_COLUMNS)
    scoring = SplitScoring(
        root, split, {token: plan[None] for token, plan in plans.items()}, cache_dir=cache_dir
    )
    for result in scoring.run(executor):
        assert result.values is not None
        verdict.rows[result.token] = result.values[0]
    verdict.rows = {token: verdict.rows[token] for token in plans if token in verdict.rows}
    verdict.failures = scoring.failures
    if verdict.rows and (partial or not verdict.failures):
        verdict.means["PDMS"] = np.mean(list(verdict.rows.values()), axis=0)
    return verdict


def score_two_stages(data: TwoStageData, stages: Sequence[Plans], executor: Executor) -> Verdict:
    """EPDMS of two stages, as the boards of v2 compute it: reactive traffic in both.

    Raises:
        TwoStageError: If scenes of a group have no plan.
        NavsimRootError: If a folder is missing.
    """
    verdict = Verdict((*RUN_COLUMNS,))
    run = score_run(data, {token: plan for stage in stages for token, plan in stage.items()}, executor)
    verdict.failures = run.failures
    if run.scores is not None:
        verdict.rows = dict(zip(run.scores.tokens, run.scores.values, strict=True))
        verdict.means = {
            "stage one": run.scores.stage_one,
            "stage two": run.scores.stage_two,
            "combined": run.scores.combined,
        }
    return verdict


def write_rows(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write scores of scenes as csv: seed, token, scores in [0, 1]."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("seed", "token", *verdicts[0].columns))
    for seed, verdict in enumerate(verdicts):
        for token, values in verdict.rows.items():
            writer.writerow((seed, token, *(repr(float(value)) for value in values)))
    write_atomically(path, text.getvalue().encode())
    write_made_with(path)
