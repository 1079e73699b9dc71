"""When plans fail: the moment of the first infraction behind each score (METHOD, "Conventions")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.constants import (
    DDC_COMPLIANT,
    DDC_WINDOW,
    NON_DRIVABLE,
    ONCOMING,
    REAR_AXLE_TO_CENTER,
    STEP,
)
from beyonddrive.evaluation.pdm.scorer import PdmScores
from beyonddrive.structures.plan import SCORE_COLUMNS

CRITICAL = ("NC", "DAC", "TTC")
"""Columns that can bring PDMS down at one moment; the earliest of them is the moment of PDMS."""


def failure_times(scores: PdmScores) -> NDArray[np.float64]:
    """Time of the first infraction behind each score below 1 [s after now].

    Progress and comfort have no moment: they are judged over the whole plan.

    Args:
        scores: Scores of N plans.

    Returns:
        (N, 7) in the order of :data:`beyonddrive.structures.plan.SCORE_COLUMNS`; inf where a score is full
        or has no moment. PDMS has the earliest of :data:`CRITICAL`.
    """
    times = np.full(scores.values.shape, np.inf)
    moments = {
        "NC": scores.nc_time,
        "DAC": _first(scores.areas & NON_DRIVABLE != 0),
        "TTC": scores.ttc_time,
        "DDC": _first(_off_route(scores) >= DDC_COMPLIANT),
    }
    for column, moment in moments.items():
        times[:, SCORE_COLUMNS.index(column)] = np.where(scores.column(column) < 1.0, moment, np.inf)
    critical = [SCORE_COLUMNS.index(column) for column in CRITICAL]
    times[:, SCORE_COLUMNS.index("PDMS")] = times[:, critical].min(axis=1)
    return times


def _first(flags: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Time (N,) of the first sample (N, 41) that is set, inf for none."""
    return np.where(flags.any(axis=1), flags.argmax(axis=1) * STEP, np.inf)


def _off_route(scores: PdmScores) -> NDArray[np.float64]:
    """Metres (N, 41) driven off the route's lanes in the second up to each sample (PDMS_V1, section 8)."""
    states = scores.simulated
    heading = states[..., 2]
    ahead = REAR_AXLE_TO_CENTER * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    steps = np.diff(states[..., :2] + ahead, axis=1)
    meters = np.zeros(heading.shape)
    meters[:, 1:] = np.hypot(steps[..., 0], steps[..., 1])
    meters[scores.areas & ONCOMING == 0] = 0.0
    total = np.cumsum(meters, axis=1)
    total[:, DDC_WINDOW:] -= total[:, :-DDC_WINDOW].copy()
    # Rounding may leave a sum just below a limit that the score found reached.
    return np.asarray(np.round(total, 9))
