"""EPDMS of a whole run, one stage: extended comfort and averages (EPDMS_V2, sections 11, 12).

Everything here is numpy on arrays, so that it can run where the scores are collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.kernels.comfort import savgol_bands
from beyonddrive.evaluation.pdm.kernels.constants import (
    EPDMS_WEIGHT_SUM,
    EXTENDED_COMFORT_WEIGHT,
    NUM_STATES,
    STEP,
)
from beyonddrive.evaluation.pdm.scores.epdms import EPDMS_COLUMNS, score_parts
from beyonddrive.structures.errors import BeyondDriveError

RUN_COLUMNS = (*EPDMS_COLUMNS[:-1], "EC", "EPDMS")
"""Order of the scores of a run."""
NEIGHBOR_GAP = 0.55
"""Two scenes of a log that are not farther apart are neighbours [s]."""
EXTENDED_COMFORT_LIMITS = (0.7, 0.5, 0.1, 0.1)
"""Largest root mean square of the difference of two neighbours' plans: of acceleration [m/s2], jerk [m/s3],
yaw rate [rad/s] and yaw acceleration [rad/s2]."""

_ACCELERATION = savgol_bands(8, 2)
_JERK = savgol_bands(15, 2, 1)
_YAW_RATE = savgol_bands(5, 2, 1)
_YAW_ACCELERATION = savgol_bands(5, 2, 2)


class RunError(BeyondDriveError, ValueError):
    """Rows of a run contradict each other; the message names the log, the scenes and the remedy."""


@dataclass(frozen=True, eq=False)
class RunScores:
    """One-stage EPDMS of S scenes, one plan each.

    Attributes:
        values: (S, 10) float64 in the order of :data:`RUN_COLUMNS`; EC is NaN for a scene without neighbour.
        previous: (S,) index of the scene before in the same log, -1 for none.
        rms: (S, 4) what extended comfort compares with :data:`EXTENDED_COMFORT_LIMITS`; NaN for none.
    """

    values: Floats
    previous: Ints
    rms: Floats

    @property
    def averages(self) -> dict[str, float]:
        """Plain means of all columns; that of EC is over the scenes that have one, NaN if none has."""
        means = {}
        for name, column in zip(RUN_COLUMNS, self.values.T, strict=True):
            known = column[~np.isnan(column)]
            means[name] = float(known.mean()) if len(known) else float("nan")
        return means


def run_score(
    log_names: Sequence[str],
    start_times: ArrayLike,
    values: ArrayLike,
    simulated: ArrayLike,
    tokens: Sequence[str] = (),
) -> RunScores:
    """Add extended comfort to the scores of a run, and what comes of it.

    A scene that could not be scored is simply not a row: it is nobody's neighbour. If no two scenes are
    neighbours, no scene has extended comfort.

    Args:
        log_names: S logs.
        start_times: (S,) time of the current frame [s].
        values: (S, 9) scores in the order of :data:`epdms.EPDMS_COLUMNS`, usually
            with the human filter on.
        simulated: (S, 41, 11) simulated states of the plans.
        tokens: S scenes, to name them in errors; without them their rows are named.

    Raises:
        RunError: If shapes do not fit, or two scenes of a log have the same time.
    """
    values, simulated = np.asarray(values, dtype=np.float64), np.asarray(simulated, dtype=np.float64)
    times, count = np.asarray(start_times, dtype=np.float64), len(log_names)
    shapes = ((values, (count, 9)), (simulated, (count, NUM_STATES, 11)), (times, (count,)))
    for array, shape in shapes:
        if array.shape != shape:
            raise RunError(f"a run of {count} scenes: expected an array {shape}, got {array.shape}")
    previous = neighbors(log_names, times, tokens)
    comfort, rms = np.full(count, np.nan), np.full((count, 4), np.nan)
    for row in np.flatnonzero(previous >= 0):
        before = previous[row]
        comfort[row], rms[row] = extended_comfort(
            simulated[row], simulated[before], times[row] - times[before]
        )
    final = final_epdms(values[:, :8], comfort)
    return RunScores(np.column_stack([values[:, :8], comfort, final]), previous, rms)


def neighbors(log_names: Sequence[str], start_times: ArrayLike, tokens: Sequence[str] = ()) -> Ints:
    """Per scene, the index of the one just before it in its log, -1 if that is more than 0.55 s ago.

    Args:
        log_names: S logs.
        start_times: (S,) time of the current frame [s].
        tokens: S scenes, to name them in errors; without them their rows are named.

    Raises:
        RunError: If two scenes of a log are less than half a step apart.

    >>> neighbors(["a", "b", "a", "a"], [10.5, 10.0, 10.0, 11.5]).tolist()
    [2, -1, -1, -1]
    """
    times = np.asarray(start_times, dtype=np.float64)
    previous = np.full(len(log_names), -1, dtype=np.int64)
    rows_of: dict[str, list[int]] = {}
    for row, log in enumerate(log_names):
        rows_of.setdefault(log, []).append(row)
    for log, rows in rows_of.items():
        ordered = sorted(rows, key=lambda row: times[row])
        for before, row in pairwise(ordered):
            gap = times[row] - times[before]
            if round(gap / STEP) < 1:
                first, second = (tokens[i] if len(tokens) else f"row {i}" for i in (before, row))
                raise RunError(
                    f"log {log}: two scenes are {gap:.3f} s apart ({first}, {second}); give every scene "
                    f"once, with its own time"
                )
            if gap <= NEIGHBOR_GAP:
                previous[row] = before
    return previous


def extended_comfort(states: Floats, previous: Floats, interval: float) -> tuple[float, Floats]:
    """EC of a plan, 1 or 0, and the four root mean squares (4,) behind it (section 11).

    Args:
        states: (41, 11) simulated states of the plan.
        previous: (41, 11) those of the plan of the scene before.
        interval: Time between the two scenes [s].

    >>> standing = np.zeros((41, 11))
    >>> extended_comfort(standing, standing, 0.5)[0]
    1.0
    """
    steps = round(interval / STEP)
    if not 1 <= steps <= NUM_STATES - _JERK.shape[1]:
        raise RunError(f"extended comfort compares scenes 0.1 to 2.6 s apart, got {interval:.3f} s")
    difference = comfort_features(states[: NUM_STATES - steps]) - comfort_features(previous[steps:])
    rms = np.sqrt((difference**2).mean(axis=1))
    return float((rms <= EXTENDED_COMFORT_LIMITS).all()), rms


def comfort_features(states: Floats) -> Floats:
    """Acceleration, jerk, yaw rate and yaw acceleration (4, n) of states (n, 11), n >= 15."""
    acceleration = _filter(_ACCELERATION, np.hypot(states[:, 5], states[:, 6]))
    turns = np.cumsum(np.rint(np.diff(states[:, 2], prepend=states[:1, 2]) / (2.0 * np.pi)))
    heading = states[:, 2] - 2.0 * np.pi * turns
    return np.stack(
        [
            acceleration,
            _filter(_JERK, acceleration),
            _filter(_YAW_RATE, heading),
            _filter(_YAW_ACCELERATION, heading),
        ]
    )


def final_epdms(values: Floats, comfort: Floats) -> Floats:
    """EPDMS (S,) of sub-scores (S, 8) and extended comfort (S,), NaN where there is none (section 12).

    >>> final_epdms(np.ones((2, 8)), np.array([0.0, np.nan])).tolist()
    [0.875, 1.0]
    """
    factor, weighted = score_parts(values)
    has = ~np.isnan(comfort)
    weighted = weighted + EXTENDED_COMFORT_WEIGHT * np.where(has, comfort, 0.0)
    return factor * (weighted / (EPDMS_WEIGHT_SUM + EXTENDED_COMFORT_WEIGHT * has))


def _filter(bands: Floats, signal: Floats) -> Floats:
    """:func:`beyonddrive.evaluation.pdm.kernels.comfort.savgol` in numpy."""
    window, half = bands.shape[1], bands.shape[0] // 2
    middle = np.lib.stride_tricks.sliding_window_view(signal, window) @ bands[half]
    shift = (window - 1) // 2
    middle = middle[half - shift : len(signal) - half - shift]
    filtered = np.concatenate([bands[:half] @ signal[:window], middle, bands[half + 1 :] @ signal[-window:]])
    return np.round(filtered, 8)
