"""EPDMS of plans, one stage: the columns, the human filter, and how the sub-scores add up (EPDMS_V2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import (
    EPDMS_WEIGHT_SUM,
    HISTORY_COMFORT_WEIGHT,
    LANE_KEEPING_WEIGHT,
    PROGRESS_THRESHOLD,
    PROGRESS_WEIGHT,
    TTC_WEIGHT,
)
from beyonddrive.evaluation.pdm.scores.plan_scores import PlanScores

EPDMS_COLUMNS = ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK", "HC", "EPDMS_without_EC")
"""Order of the one-stage sub-scores of NAVSIM v2; the last is their score without extended comfort, which
needs the plan of the scene before (:mod:`beyonddrive.evaluation.pdm.scores.epdms_of_run`)."""
FILTERED = ("NC", "DAC", "DDC", "TLC", "TTC", "LK")
"""Sub-scores that a plan is not charged with where the human driver has 0 (section 10)."""


@dataclass(frozen=True, eq=False)
class EpdmsScores(PlanScores):
    """One-stage EPDMS (N, 9) of N plans of one scene, and what explains it, besides :class:`PlanScores`.

    Attributes:
        human: (8,) the human driver's own sub-scores in the same order, as the filter sees them: EP and HC
            are 1.
        tlc_time: (N,) time of the first contact with a red light [s], inf for none.
        lk_time: (N,) time at which the ego has been off the centre line for too long [s], inf for never.
        tlc_light: (N,) index of the red light, into ``cache.extended.light_ids``; -1 for none.
    """

    columns = EPDMS_COLUMNS

    human: Floats
    tlc_time: Floats
    lk_time: Floats
    tlc_light: Ints


def extended_progress(progress: Floats, multiplier: Floats, reference: float, pooled: bool) -> Floats:
    """EP (N,) from progress (N,) [m] and NC * DAC * DDC * TLC (N,) (section 9).

    Args:
        progress: Metres along the centre line; not masked where it is divided.
        multiplier: NC * DAC * DDC * TLC of the same plans, before the human filter.
        reference: The reference planner's progress times its own multiplier.
        pooled: Divide by the largest of all instead of pair by pair.

    >>> extended_progress(np.array([10.0, 4.0, 40.0]), np.array([1.0, 0, 0.5]), 16.0, pooled=False).tolist()
    [0.625, 0.25, 1.0]
    """
    largest = np.maximum(progress * multiplier, reference)
    if pooled and len(largest):
        largest = np.full_like(largest, largest.max())
    short = largest <= PROGRESS_THRESHOLD
    return np.where(short, 1.0, np.clip(progress / np.where(short, 1.0, largest), 0.0, 1.0))


def one_stage_score(values: Floats) -> Floats:
    """Score (N,) without extended comfort of sub-scores (N, 8) (section 12).

    >>> one_stage_score(np.array([[1.0, 1, 1, 1, 0.3, 1, 1, 1], [1, 1, 0.5, 1, 1, 1, 1, 1]])).tolist()
    [0.75, 0.5]
    """
    factor, weighted = score_parts(values)
    return factor * (weighted / EPDMS_WEIGHT_SUM)


def score_parts(values: Floats) -> tuple[Floats, Floats]:
    """Product (N,) of the multipliers and weighted sum (N,) of the others, of sub-scores (N, 8)."""
    nc, dac, ddc, tlc, ep, ttc, lane, comfort = values.T
    weighted = (
        PROGRESS_WEIGHT * ep
        + TTC_WEIGHT * ttc
        + LANE_KEEPING_WEIGHT * lane
        + HISTORY_COMFORT_WEIGHT * comfort
    )
    return nc * dac * ddc * tlc, weighted


def filter_by_human(values: Floats, human: Floats) -> Floats:
    """Sub-scores (N, 8) with 1 in the columns in which the human driver (8,) has exactly 0 (section 10).

    >>> filter_by_human(np.zeros((1, 8)), np.array([0.5, 0, 1, 1, 1, 1, 1, 1])).tolist()
    [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    excused = np.array([name in FILTERED for name in EPDMS_COLUMNS[:-1]]) & (human == 0.0)
    return np.where(excused, 1.0, values)
