"""From records of scenes to the scores of each basis: human filter, extended comfort, pairs, averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.bases.scenes import MOTION, SceneRecord
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.simulate import STATE_SIZE
from beyonddrive.evaluation.pdm.scores.epdms import filter_by_human, one_stage_score
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS, run_score
from beyonddrive.evaluation.pdm.scores.two_stage import Group, SceneResult, TwoStageScores, two_stage_score
from beyonddrive.evaluation.score_labels import Basis, ScoreLabel
from beyonddrive.structures.plan import SCORE_COLUMNS

LEFT_OUT = "its group has scenes without a score"
"""Why a scene of two stages with which nothing is wrong has no score."""


@dataclass
class BasisResult:
    """Scores of one plan per scene on one basis.

    Attributes:
        label: What they are of.
        plan: Which plan of each scene.
        columns: Names of the scores; the last is the one that counts.
        rows: Scene -> scores by ``columns``.
        logs: Scene -> its log.
        means: Name of a part -> its scores by ``columns``: the empty name is the result, of two stages there
            are ``stage one`` and ``stage two`` as well. Nothing if there is no result.
        failures: Scene -> why it has no score.
        partners: Those of ``failures`` with which nothing is wrong but that their group has others.
        missing: Scenes of two stages that have no plan.
        note: What was left out, or why there is no result, in one line.
        details: Of two stages: scene -> group, half and weight.
    """

    label: ScoreLabel
    plan: int
    columns: tuple[str, ...]
    rows: dict[str, Floats] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    means: dict[str, Floats] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    partners: frozenset[str] = frozenset()
    missing: tuple[str, ...] = ()
    note: str = ""
    details: dict[str, tuple[str, str, float]] = field(default_factory=dict)

    @property
    def causes(self) -> dict[str, str]:
        """Those of ``failures`` that something is wrong with."""
        return {token: reason for token, reason in self.failures.items() if token not in self.partners}


def one_stage_result(basis: Basis, records: Mapping[str, SceneRecord], plan: int) -> BasisResult:
    """Scores of original scenes; those that could not be scored are left out of the means.

    Raises:
        RunError: If two scenes of a log have the same time.
    """
    part = "pdms" if basis.score == "PDMS" else basis.traffic
    scored = {token: record for token, record in records.items() if part in record.arrays}
    result = _result(basis, scored, plan)
    result.failures = {t: r.reasons.get(part, "") for t, r in records.items() if t not in scored}
    result.logs = {token: record.log_name for token, record in records.items()}
    if not scored:
        result.note = f"no scene has a score; the first: {_first(result.failures)}"
        return result
    if part == "pdms":
        values = np.stack([record.arrays[part][plan] for record in scored.values()])
        result.means[""] = values.mean(axis=0)
    else:
        final: list[Floats] = []
        shown: list[Floats] = []
        for basis_filter, out in ((basis.human_filter == "on", final), (basis.human_filter != "off", shown)):
            out += [_filtered(record, part, plan, basis_filter) for record in scored.values()]
        sub_scores = np.stack(final)
        run = run_score(
            [record.log_name for record in scored.values()],
            [float(record.arrays["time"]) for record in scored.values()],
            np.column_stack([sub_scores, one_stage_score(sub_scores)]),
            np.stack([_states(record, plan) for record in scored.values()]),
            list(scored),
        )
        values = np.column_stack([np.stack(shown), run.values[:, 8:]])
        known = np.isfinite(values).sum(axis=0)
        means = np.nansum(values, axis=0) / np.maximum(known, 1)
        result.means[""] = np.where(known > 0, means, np.nan)
    result.rows = dict(zip(scored, values, strict=True))
    return result


def no_result(basis: Basis, plan: int, note: str) -> BasisResult:
    """A basis without scores; the note says why."""
    result = _result(basis, {}, plan)
    result.note = note
    return result


def two_stage_result(
    basis: Basis,
    records: Mapping[str, SceneRecord],
    groups: Sequence[Group],
    plan: int,
    zero: AbstractSet[str] = frozenset(),
) -> BasisResult:
    """Scores of groups whose scenes all have a score; the others are left out, and the note says so.

    All scenes of a group that is left out are failures.

    Args:
        basis: A basis of two stages.
        records: Records of scenes of both stages.
        groups: Groups of which scenes have plans.
        plan: Which plan of each scene.
        zero: Scenes without a plan that count as 0.

    Raises:
        TwoStageError: If the times of a pair do not follow one another.
    """
    part = basis.traffic
    wanted = [token for group in groups for token in group.tokens]
    failures: dict[str, str] = {}
    for token in wanted:
        record = records.get(token)
        # (of a follow-up scene without a plan, its place is needed for the weights of the others)
        needed = "start" if token in zero else part
        if token in zero and token in {t for g in groups for t in (g.now, g.previous)}:
            continue
        if record is None or needed not in record.arrays:
            failures[token] = (record.reasons.get(part, "") if record else "") or "it was not found"
    whole = [group for group in groups if not failures.keys() & set(group.tokens)]
    of_whole = {token for group in whole for token in group.tokens}
    result = _result(basis, {}, plan)
    result.partners = frozenset(wanted) - of_whole - failures.keys()
    result.failures = failures | {token: LEFT_OUT for token in wanted if token in result.partners}
    result.logs = {token: record.log_name for token, record in records.items()}
    if len(whole) < len(groups):
        result.note = (
            f"{len(groups) - len(whole)} of {len(groups)} groups are left out, because {len(failures)} of "
            f"their scenes have no score; the first: {_first(failures)}"
        )
    if not whole:
        return result
    final = _run(records, whole, of_whole, part, plan, basis.human_filter == "on", zero)
    values = final.values
    means = {"": final.combined, "stage one": final.stage_one, "stage two": final.stage_two}
    if basis.human_filter == "columns":
        shown = _run(records, whole, of_whole, part, plan, True, zero)
        values = np.column_stack([shown.values[:, :-1], values[:, -1]])
        of_shown = {"": shown.combined, "stage one": shown.stage_one, "stage two": shown.stage_two}
        means = {name: np.append(of_shown[name][:-1], mean[-1]) for name, mean in means.items()}
    result.label = ScoreLabel.of(basis, final.tokens)
    result.rows = dict(zip(final.tokens, values, strict=True))
    result.means = means
    weight = dict(zip(final.tokens, final.weights.tolist(), strict=True))
    for group in whole:
        for half, original, column in (("now", group.now, 0), ("previous", group.previous, 1)):
            for token in (original, *(pair[column] for pair in group.pairs)):
                result.details[token] = (group.now, half, weight[token])
    return result


def _run(
    records: Mapping[str, SceneRecord],
    groups: Sequence[Group],
    tokens: AbstractSet[str],
    part: str,
    plan: int,
    human_filter: bool,
    zero: AbstractSet[str],
) -> TwoStageScores:
    results = {}
    nowhere: NDArray[np.float64] = np.full(2, np.nan)
    for token in tokens:
        record = records.get(token)
        if token in zero:
            start = record.arrays["start"] if record and "start" in record.arrays else nowhere
            results[token] = SceneResult(np.zeros(8), np.zeros((0, STATE_SIZE)), 0.0, nowhere, start)
        else:
            assert record is not None
            arrays = record.arrays
            results[token] = SceneResult(
                _filtered(record, part, plan, human_filter),
                _states(record, plan),
                float(arrays["time"]),
                arrays["end"][plan],
                arrays["start"],
            )
    return two_stage_score(results, groups, zero)


def _result(basis: Basis, scored: Mapping[str, SceneRecord], plan: int) -> BasisResult:
    columns = SCORE_COLUMNS if basis.score == "PDMS" else RUN_COLUMNS
    return BasisResult(ScoreLabel.of(basis, scored), plan, columns)


def _filtered(record: SceneRecord, part: str, plan: int, human_filter: bool) -> Floats:
    """Sub-scores (8,) of a plan; nobody drove in a follow-up scene."""
    values = record.arrays[part][plan]
    human = record.arrays.get(f"{part}_human")
    if not human_filter or human is None:
        return values
    return filter_by_human(values[None], human)[0]


def _states(record: SceneRecord, plan: int) -> Floats:
    """States (41, 11), as far as extended comfort reads them."""
    motion = record.arrays["motion"][plan]
    states = np.zeros((len(motion), STATE_SIZE))
    states[:, MOTION] = motion
    return states


def _first(failures: Mapping[str, str]) -> str:
    return next((f"{token}: {reason}" for token, reason in failures.items()), "there are no scenes")
