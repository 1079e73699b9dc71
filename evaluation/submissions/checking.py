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
from beyonddrive.evaluation.bases.places import TwoStageData
from beyonddrive.evaluation.bases.run import BasesScoring
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS
from beyonddrive.evaluation.pdm.scores.two_stage import Group, TwoStageError, read_groups
from beyonddrive.evaluation.score_labels import BASES, ScoreLabel
from beyonddrive.evaluation.score_rows import LABEL, TWO_STAGE
from beyonddrive.evaluation.split_scoring import SplitScoring
from beyonddrive.evaluation.submissions.boards import shown
from beyonddrive.evaluation.submissions.official_file import Plans
from beyonddrive.structures.plan import SCORE_COLUMNS


@dataclass
class Verdict:
    """Scores of one seed.

    Attributes:
        columns: Names of the scores; the last is the one that counts.
        rows: Scene -> scores by ``columns``.
        means: Label -> scores by ``columns``, of the run.
        failures: Scene -> why it has no score; not those that are well but in a group with such a scene. With
            a single one there are no means, as on the leaderboard.
        label: What the scores are of.
        details: Of two stages: scene -> group, half and weight.
    """

    columns: tuple[str, ...]
    rows: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    means: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    label: ScoreLabel | None = None
    details: dict[str, tuple[str, str, float]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """What the means are of, then the means as a table, in percent."""
        if self.label is not None and self.means:
            yield str(self.label)
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
    logs = {}
    for result in scoring.run(executor):
        assert result.values is not None
        verdict.rows[result.token] = result.values[0]
        logs[result.token] = result.log_name
    verdict.rows = {token: verdict.rows[token] for token in plans if token in verdict.rows}
    verdict.failures = scoring.failures
    if verdict.rows:
        data = scoring.scorer.open().logs_digest(logs.items())
        verdict.label = ScoreLabel.of(BASES["pdms"], verdict.rows, data=data)
    if verdict.rows and (partial or not verdict.failures):
        verdict.means["PDMS"] = np.mean(list(verdict.rows.values()), axis=0)
    return verdict


def score_two_stages(data: TwoStageData, stages: Sequence[Plans], executor: Executor) -> Verdict:
    """EPDMS of two stages, as the boards of v2 compute it: reactive traffic in both.

    Args:
        data: Scenes of both stages, and their pairs.
        stages: Plans (8, 3) by token, of each stage as in the official file; or of both together.
        executor: Where to run.

    Raises:
        TwoStageError: If scenes of a group have no plan, or plans are of scenes of no group or of the other
            stage.
        NavsimRootError: If a folder is missing.
    """
    plans = {token: plan[None] for stage in stages for token, plan in stage.items()}
    groups = read_groups(data.split.pairs, str(data.split.path))
    if len(stages) > 1:
        _check_stages(stages, groups, data.split.path)
    known = {token for group in groups for token in group.tokens}
    if others := [token for token in plans if token not in known]:
        raise TwoStageError(
            f"{len(others)} of {len(plans)} plans are of scenes in no group of {data.split.path} "
            f"({shown(others)}), and the board gives no score then: leave them out, or give the split file "
            f"that they are of"
        )
    root = NavsimRoot(data.data_root, data.maps_root)
    scoring = BasesScoring(root, data.logs, plans, "the submission", [BASES["two-stage"]], data)
    if scoring.missing:
        raise TwoStageError(
            f"{len(scoring.missing)} scenes of {data.split.path} have no plan ({shown(scoring.missing)}): "
            f"with a single one missing there is no score; plan for them"
        )
    if scoring.left_out:
        raise TwoStageError(scoring.left_out)
    records = {record.token: record for record in scoring.run(executor)}
    [result] = scoring.results(records)
    verdict = Verdict((*RUN_COLUMNS,), failures=result.causes)
    if not result.failures and not result.means:
        raise TwoStageError(result.note)
    if not result.failures:
        verdict.rows, verdict.label, verdict.details = result.rows, result.label, result.details
        names = {"stage one": "stage one", "stage two": "stage two", "": "combined"}
        verdict.means = {shown: result.means[part] for part, shown in names.items()}
    return verdict


def _check_stages(stages: Sequence[Plans], groups: Sequence[Group], path: Path) -> None:
    """Refuse plans that are in the list of the other stage; a scene in both lists is one of them."""
    first = {token for group in groups for token in (group.now, group.previous)}
    second = {token for group in groups for pair in group.pairs for token in pair}
    for stage, others, name, right in (
        (stages[0], second, "first", "second"),
        (stages[1], first, "second", "first"),
    ):
        if wrong := [token for token in stage if token in others]:
            raise TwoStageError(
                f"{name}_stage_predictions: {len(wrong)} of {len(stage)} plans are of scenes of the {right} "
                f"stage of {path} ({shown(wrong)}), and the board gives no score then: put them into "
                f"{right}_stage_predictions only"
            )


def write_rows(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write scores of scenes as csv: seed, token, scores in [0, 1], why there are none, the label.

    Of two stages group, half and weight are before the label. ``beyonddrive report`` reads it if it is of one
    seed.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    grouped = TWO_STAGE if any(verdict.details for verdict in verdicts) else ()
    columns = verdicts[0].columns
    writer.writerow(("seed", "token", *columns, "error", *grouped, LABEL))
    for seed, verdict in enumerate(verdicts):
        label = "" if verdict.label is None else verdict.label.to_text()
        for token, values in verdict.rows.items():
            numbers = (repr(float(value)) for value in values)
            writer.writerow((seed, token, *numbers, "", *verdict.details.get(token, ()), label))
        for token, reason in verdict.failures.items():
            empty = [""] * len(columns)
            writer.writerow((seed, token, *empty, reason or "no score", *[""] * len(grouped), label))
    write_atomically(path, text.getvalue().encode())
    write_made_with(path)
