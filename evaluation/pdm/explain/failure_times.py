"""When plans fail: the moment of the first infraction behind each score (METHOD, "Conventions")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.explain.contact import off_route_meters, too_far_off_route
from beyonddrive.evaluation.pdm.kernels.constants import NON_DRIVABLE, STEP
from beyonddrive.evaluation.pdm.scores.pdms import PdmScores
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
        "DAC": STEP * (scores.areas & NON_DRIVABLE != 0).argmax(axis=1),
        "TTC": scores.ttc_time,
        "DDC": STEP * too_far_off_route(off_route_meters(scores.simulated, scores.areas)),
    }
    for column, moment in moments.items():
        times[:, SCORE_COLUMNS.index(column)] = np.where(scores.column(column) < 1.0, moment, np.inf)
    critical = [SCORE_COLUMNS.index(column) for column in CRITICAL]
    times[:, SCORE_COLUMNS.index("PDMS")] = times[:, critical].min(axis=1)
    return times
