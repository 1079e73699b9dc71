"""EPDMS of a run of two stages: comfort of pairs, weights of follow-up scenes, a product per half group.

EPDMS_TWO_STAGE, section 6. Everything here is numpy on arrays, so that it can run where scores are collected.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import EPDMS_WEIGHT_SUM, EXTENDED_COMFORT_WEIGHT, STEP
from beyonddrive.evaluation.pdm.scores.epdms import score_parts
from beyonddrive.evaluation.pdm.scores.epdms_of_run import NEIGHBOR_GAP, RUN_COLUMNS, extended_comfort
from beyonddrive.structures.errors import BeyondDriveError, shorten

KERNEL = 0.2
"""Twice the variance of the kernel that weights follow-up scenes by the distance of their starts [m2]."""
MIN_WEIGHT_SUM = 1e-8
"""With less than this all follow-up scenes count equally."""


class TwoStageError(BeyondDriveError, ValueError):
    """A run of two stages is incomplete or contradicts its table of pairs; the message names tokens."""


class Group(NamedTuple):
    """Two original scenes half a second apart, and the follow-up scenes of both.

    Attributes:
        now: The later original scene.
        previous: The one half a second before.
        pairs: (follow-up of now, follow-up of previous) of the same rollout.
    """

    now: str
    previous: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        """All scenes of the group."""
        return (self.now, self.previous, *(token for pair in self.pairs for token in pair))


class SceneResult(NamedTuple):
    """What the aggregation needs of one scored scene."""

    values: Floats
    """(8,) sub-scores, filtered in the first stage."""
    states: Floats
    """(41, 11) simulated states of the plan."""
    time: float
    """Start [s]."""
    end: Floats
    """(2,) last pose of the plan, global; read in the first stage."""
    start: Floats
    """(2,) logged rear axle now, global; read in the second stage."""


@dataclass(frozen=True, eq=False)
class TwoStageScores:
    """Scores of a run.

    Attributes:
        tokens: Scenes, as in the table of groups.
        values: (S, 10) by :data:`epdms_of_run.RUN_COLUMNS`; the last is the score.
        weights: (S,) of follow-up scenes within their half group; 1 in the first stage.
        groups: (G, 4) score of now, its follow-ups, previous, its follow-ups.
        combined: (10,) THE result is the last: the mean over groups of products per half group.
        stage_one: (10,) means over original scenes.
        stage_two: (10,) means over weighted follow-ups.
    """

    tokens: tuple[str, ...]
    values: Floats
    weights: Floats
    groups: Floats
    combined: Floats
    stage_one: Floats
    stage_two: Floats

    @property
    def epdms(self) -> float:
        """The two-stage EPDMS in [0, 1]."""
        return float(self.combined[-1])


def read_groups(table: Any, source: str = "reactive_all_mapping") -> list[Group]:
    """Groups from a table ``[[now, previous, [[now2, previous2], ...]], ...]``.

    Raises:
        TwoStageError: If it is none, a group has no pairs, or a token is there twice.
    """
    if not isinstance(table, list | tuple):
        raise TwoStageError(f"{source}: expected a list of groups, got {_brief(table)}")
    groups = []
    for number, row in enumerate(table):
        where = f"{source}: group {number}"
        if not isinstance(row, list | tuple) or len(row) != 3 or not isinstance(row[2], list | tuple):
            raise TwoStageError(
                f"{where}: expected [now, previous, [[now2, previous2], ...]], got {_brief(row)}"
            )
        now, previous = (_token(value, where) for value in row[:2])
        pairs = []
        for pair in row[2]:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or None in pair:
                raise TwoStageError(
                    f"{where}, of {now}: a pair needs both halves, [now2, previous2], got {_brief(pair)}"
                )
            pairs.append((_token(pair[0], where), _token(pair[1], where)))
        if not pairs:
            raise TwoStageError(f"{source}: group of {now} has no follow-up scenes")
        groups.append(Group(now, previous, tuple(pairs)))
    seen: set[str] = set()
    for group in groups:
        for token in group.tokens:
            if token in seen:
                raise TwoStageError(
                    f"{source}: group of {group.now}: {token} is there twice; a scene belongs to one pair, "
                    f"and no scene follows itself"
                )
            seen.add(token)
    return groups


def two_stage_score(
    results: Mapping[str, SceneResult], groups: Sequence[Group], zero: Collection[str] = ()
) -> TwoStageScores:
    """Aggregate a run.

    Groups of which no scene was scored are left out; of the others every scene has to be there.

    Args:
        results: Scored scenes.
        groups: The table.
        zero: Scenes without a plan that count as 0 in every column, extended comfort of their pair included.
            Those of the second stage need their start in ``results`` for the weights; a plan that does not
            end anywhere weights its follow-up scenes alike.

    Raises:
        TwoStageError: If scenes of a group are missing, a result belongs to no group, nothing was scored, or
            the times of a pair do not follow one another.
    """
    used = [group for group in groups if any(token in results for token in group.tokens)]
    tokens = tuple(token for group in used for token in group.tokens)
    if missing := [token for token in tokens if token not in results and token not in zero]:
        raise TwoStageError(
            f"{len(missing)} scenes of scored groups have no score: {shorten(missing)}; there is no "
            f"two-stage score without them"
        )
    if unknown := sorted(set(results) - set(tokens)):
        raise TwoStageError(f"{len(unknown)} scenes are in no group of the table: {shorten(unknown)}")
    if not used:
        raise TwoStageError("no scene of any group was scored")
    comfort = {}
    for group in used:
        for later, earlier in ((group.now, group.previous), *group.pairs):
            is_zero = later in zero or earlier in zero
            comfort[later] = comfort[earlier] = 0.0 if is_zero else _pair_comfort(results, later, earlier)
    nowhere = np.full(2, np.nan)
    return aggregate(
        used,
        {t: np.zeros(9) if t in zero else np.append(results[t].values, comfort[t]) for t in tokens},
        {
            token: nowhere if token in zero else results[token].end
            for group in used
            for token in (group.now, group.previous)
        },
        {token: results[token].start for group in used for pair in group.pairs for token in pair},
    )


def aggregate(
    groups: Sequence[Group],
    sub_scores: Mapping[str, Floats],
    ends: Mapping[str, Floats],
    starts: Mapping[str, Floats],
) -> TwoStageScores:
    """Scores, weights and means of groups whose scenes all have sub-scores (section 6).

    Args:
        groups: The groups.
        sub_scores: Scene -> (9,) sub-scores and extended comfort.
        ends: Original scene -> (2,) where its plan ends, global [m].
        starts: Follow-up scene -> (2,) where it starts, global [m].
    """
    tokens = tuple(token for group in groups for token in group.tokens)
    row_of = {token: row for row, token in enumerate(tokens)}
    values = np.array([sub_scores[token] for token in tokens])
    factor, weighted = score_parts(values[:, :8])
    total = weighted + EXTENDED_COMFORT_WEIGHT * values[:, 8]
    values = np.column_stack([values, factor * (total / (EPDMS_WEIGHT_SUM + EXTENDED_COMFORT_WEIGHT))])
    weights, halves = np.ones(len(tokens)), []
    for group in groups:
        for original, column in ((group.now, 0), (group.previous, 1)):
            rows = np.array([row_of[pair[column]] for pair in group.pairs])
            weights[rows] = follow_up_weights(ends[original], np.array([starts[tokens[row]] for row in rows]))
            follow_ups = weights[rows] @ values[rows] / weights[rows].sum()
            halves.append((values[row_of[original]], follow_ups))
    before, after = (np.array(part) for part in zip(*halves, strict=True))  # (2 G, 10)
    scores = np.stack([before[:, -1], after[:, -1]], axis=1).reshape(len(groups), 4)
    per_group = (before * after).reshape(len(groups), 2, len(RUN_COLUMNS)).mean(axis=1)
    return TwoStageScores(
        tokens, values, weights, scores, per_group.mean(axis=0), before.mean(axis=0), after.mean(axis=0)
    )


def follow_up_weights(end: Floats, starts: Floats) -> Floats:
    """Weights (n,) of follow-up scenes that start at (n, 2), for a plan that ends at (2,); they sum to 1.

    >>> follow_up_weights(np.zeros(2), np.array([[0.0, 0.0], [9.0, 0.0]])).round(6).tolist()
    [1.0, 0.0]
    >>> follow_up_weights(np.zeros(2), np.array([[5.0, 0.0], [9.0, 0.0]])).tolist()
    [0.5, 0.5]
    """
    weights = np.exp(-((starts - end) ** 2).sum(axis=1) / KERNEL)
    total = weights.sum()
    if np.isnan(total) or total <= MIN_WEIGHT_SUM:
        return np.full(len(starts), 1.0 / len(starts))
    normalised: Floats = weights / total
    return normalised


def _pair_comfort(results: Mapping[str, SceneResult], later: str, earlier: str) -> float:
    gap = results[later].time - results[earlier].time
    # (extended comfort compares plans that are a whole number of steps apart, and not none)
    if not gap < NEIGHBOR_GAP or round(gap / STEP) < 1:
        raise TwoStageError(
            f"pair {later}, {earlier}: the first starts {gap:.3f} s after the second; expected "
            f"{0.5 * STEP} to {NEIGHBOR_GAP} s: is the order (later, earlier)?"
        )
    return extended_comfort(results[later].states, results[earlier].states, gap)[0]


def _token(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise TwoStageError(
            f"{where}: a token is a text, got {_brief(value)} (put quotes around all-digit tokens)"
        )
    return value


def _brief(value: Any) -> str:
    """A value of a file in a few characters, however deep it is or if it holds itself."""
    return reprlib.repr(value)
