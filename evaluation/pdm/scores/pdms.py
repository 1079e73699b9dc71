"""PDM score of plans: the columns, and how the sub-scores add up (PDMS_V1, section 11)."""

from __future__ import annotations

import numpy as np

from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import (
    COMFORT_WEIGHT,
    PROGRESS_THRESHOLD,
    PROGRESS_WEIGHT,
    TTC_WEIGHT,
    WEIGHT_SUM,
)
from beyonddrive.evaluation.pdm.scores.plan_scores import PlanScores
from beyonddrive.structures.plan import SCORE_COLUMNS


class PdmScores(PlanScores):
    """PDM scores (N, 7) of N plans of one scene, and what explains them, as in :class:`PlanScores`."""

    columns = SCORE_COLUMNS


def relative_progress(progress: Floats, multiplier: Floats, reference: float, pooled: bool) -> Floats:
    """EP (N,) from progress (N,) [m] and NC * DAC (N,) (section 11).

    Args:
        progress: Metres along the centre line.
        multiplier: NC * DAC of the same plans.
        reference: The reference planner's progress times its own NC * DAC.
        pooled: Divide by the largest of all instead of pair by pair.

    >>> relative_progress(np.array([10.0, 40.0]), np.array([1.0, 0.5]), 16.0, pooled=False).tolist()
    [0.625, 1.0]
    """
    raw = progress * multiplier
    largest = np.maximum(raw, reference)
    if pooled and len(raw):
        largest = np.full_like(raw, largest.max())
    short = largest <= PROGRESS_THRESHOLD
    return np.where(short, (multiplier != 0.0).astype(np.float64), raw / np.where(short, 1.0, largest))


def final_score(
    nc: Floats,
    dac: Floats,
    ep: Floats,
    ttc: Floats,
    comfort: Floats,
) -> Floats:
    """PDMS (N,) from its sub-scores (N,).

    >>> one = np.ones(1)
    >>> final_score(one, one, 0.4 * one, one, one).round(6).tolist()
    [0.75]
    """
    weighted = (PROGRESS_WEIGHT * ep + TTC_WEIGHT * ttc + COMFORT_WEIGHT * comfort) / WEIGHT_SUM
    return nc * dac * weighted
