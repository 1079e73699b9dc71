"""EPDMS of plans, one stage: the columns, the human filter, and how the sub-scores add up (EPDMS_V2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beyonddrive.evaluation.pdm.arrays import Flags, Floats, Ints
from beyonddrive.evaluation.pdm.constants import (
    EPDMS_WEIGHT_SUM,
    HISTORY_COMFORT_WEIGHT,
    LANE_KEEPING_WEIGHT,
    PROGRESS_THRESHOLD,
    PROGRESS_WEIGHT,
    TTC_WEIGHT,
)

EPDMS_COLUMNS = ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK", "HC", "EPDMS_without_EC")
"""Order of the one-stage sub-scores of NAVSIM v2; the last is their score without extended comfort, which
needs the plan of the scene before (:mod:`beyonddrive.evaluation.pdm.run`)."""
FILTERED = ("NC", "DAC", "DDC", "TLC", "TTC", "LK")
"""Sub-scores that a plan is not charged with where the human driver has 0 (section 10)."""


@dataclass(frozen=True, eq=False)
class EpdmsScores:
    """One-stage EPDMS of N plans of one scene, and what explains it.

    Attributes:
        values: (N, 9) float64 in the order of :data:`EPDMS_COLUMNS`.
        human: (8,) the human driver's own sub-scores in the same order, as the filter sees them: EP and HC
            are 1.
        nc_time: (N,) time of the first at-fault collision [s], inf for none.
        ttc_time: (N,) time of the first infraction of the time to collision [s], inf for none.
        tlc_time: (N,) time of the first contact with a red light [s], inf for none.
        lk_time: (N,) time at which the ego has been off the centre line for too long [s], inf for never.
        nc_object: (N,) index of the object hit, into ``cache.tracks``; -1 for none.
        ttc_object: (N,) index of the object that is too close; -1 for none.
        tlc_light: (N,) index of the red light, into ``cache.extended.light_ids``; -1 for none.
        areas: (N, 41) uint8 bits ``MULTIPLE_LANES`` .. of :mod:`beyonddrive.evaluation.pdm.constants`.
        progress: (N,) metres along the centre line, before anything is multiplied to it.
        simulated: (N, 41, 11) states every 0.1 s, global: x, y, heading, vx, vy, ax, ay, steering, steering
            rate, yaw rate, yaw acceleration.
    """

    values: Floats
    human: Floats
    nc_time: Floats
    ttc_time: Floats
    tlc_time: Floats
    lk_time: Floats
    nc_object: Ints
    ttc_object: Ints
    tlc_light: Ints
    areas: Flags
    progress: Floats
    simulated: Floats

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> Floats:
        """One column (N,) by name.

        Raises:
            KeyError: If there is no such column.
        """
        if name not in EPDMS_COLUMNS:
            raise KeyError(f"no score {name!r}; a one-stage EPDMS has {', '.join(EPDMS_COLUMNS)}")
        return self.values[:, EPDMS_COLUMNS.index(name)]


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
    nc, dac, ddc, tlc, ep, ttc, lane, comfort = values.T
    weighted = (
        PROGRESS_WEIGHT * ep
        + TTC_WEIGHT * ttc
        + LANE_KEEPING_WEIGHT * lane
        + HISTORY_COMFORT_WEIGHT * comfort
    )
    return nc * dac * ddc * tlc * (weighted / EPDMS_WEIGHT_SUM)


def filter_by_human(values: Floats, human: Floats) -> Floats:
    """Sub-scores (N, 8) with 1 in the columns in which the human driver (8,) has exactly 0 (section 10).

    >>> filter_by_human(np.zeros((1, 8)), np.array([0.5, 0, 1, 1, 1, 1, 1, 1])).tolist()
    [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    excused = np.array([name in FILTERED for name in EPDMS_COLUMNS[:-1]]) & (human == 0.0)
    return np.where(excused, 1.0, values)
