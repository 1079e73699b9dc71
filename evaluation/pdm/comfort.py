"""Comfort of a simulated motion: six bounds on filtered signals (PDMS_V1, section 10)."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.evaluation.pdm.arrays import Floats
from beyonddrive.evaluation.pdm.constants import (
    MAX_JERK,
    MAX_LAT_ACCELERATION,
    MAX_LON_ACCELERATION,
    MAX_LON_JERK,
    MAX_YAW_ACCELERATION,
    MAX_YAW_RATE,
    MIN_LON_ACCELERATION,
    NUM_STATES,
    STEP,
)
from beyonddrive.evaluation.pdm.jit import kernel

COMFORT_BOUNDS = (
    "longitudinal acceleration",
    "lateral acceleration",
    "jerk",
    "longitudinal jerk",
    "yaw rate",
    "yaw acceleration",
)
"""Names of the rows of :func:`comfort_signals`."""


def savgol_matrix(size: int, window: int, order: int, derivative: int = 0, step: float = STEP) -> Floats:
    """Savitzky-Golay filter with interpolated edges as a matrix (size, size).

    An even window is centred half a sample after the one it gives the value for.

    Args:
        size: Length of the signal.
        window: Samples that a polynomial is fitted to.
        order: Order of the polynomial.
        derivative: Which derivative of the polynomial is taken.
        step: Time between samples [s].

    >>> m = savgol_matrix(9, 5, 2, derivative=1, step=1.0)
    >>> (m @ np.arange(9.0) ** 2).round(6).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]
    """
    half = window // 2
    offset = (window - 1) / 2.0
    # Abscissae in -1 .. 1 keep the fit well conditioned.
    fit = np.linalg.pinv(np.vander((np.arange(window) - offset) / offset, order + 1, increasing=True))
    matrix = np.zeros((size, size))

    def weights(position: float) -> Floats:
        powers = np.zeros(order + 1)
        for k in range(derivative, order + 1):
            factor = math.factorial(k) / math.factorial(k - derivative)
            powers[k] = factor * ((position - offset) / offset) ** (k - derivative)
        return powers @ fit / (offset * step) ** derivative

    for i in range(size):
        if i < half:
            matrix[i, :window] = weights(i)
        elif i >= size - half:
            matrix[i, size - window :] = weights(i - (size - window))
        else:
            first = i - (window - 1) // 2
            matrix[i, first : first + window] = weights(offset)
    return matrix


def _columns(window: int, order: int, derivative: int = 0) -> Floats:
    """A filter stored by columns, so that :func:`apply_filter` runs over contiguous memory."""
    return np.ascontiguousarray(savgol_matrix(NUM_STATES, window, order, derivative).T)


ACCELERATION_FILTER = _columns(41, 2)
JERK_INPUT_FILTER = _columns(8, 2)
JERK_FILTER = _columns(41, 2, 1)
YAW_RATE_FILTER = _columns(5, 2, 1)
YAW_ACCELERATION_FILTER = _columns(5, 3, 2)


@kernel
def apply_filter(columns: Floats, signal: Floats, out: Floats) -> None:
    """Multiply a matrix stored by columns with ``signal`` and round to 8 decimals."""
    for i in range(len(out)):
        out[i] = 0.0
    for j in range(len(signal)):
        value = signal[j]
        for i in range(len(out)):
            out[i] += columns[j, i] * value
    for i in range(len(out)):
        out[i] = np.rint(out[i] * 1e8) / 1e8


@kernel
def comfort_signals(states: Floats, out: Floats) -> None:
    """Write the six filtered signals of states (41, 11) to out (8, 41); the last two rows are scratch."""
    signal, smooth = out[6], out[7]
    apply_filter(ACCELERATION_FILTER, states[:, 5], out[0])
    apply_filter(ACCELERATION_FILTER, states[:, 6], out[1])
    for t in range(NUM_STATES):
        signal[t] = math.hypot(states[t, 5], states[t, 6])
    apply_filter(JERK_INPUT_FILTER, signal, smooth)
    apply_filter(JERK_FILTER, smooth, out[2])
    apply_filter(JERK_INPUT_FILTER, states[:, 5], smooth)
    apply_filter(JERK_FILTER, smooth, out[3])
    turns = 0.0
    for t in range(NUM_STATES):
        if t > 0:
            turns += np.rint((states[t, 2] - states[t - 1, 2]) / (2.0 * math.pi))
        signal[t] = states[t, 2] - 2.0 * math.pi * turns
    apply_filter(YAW_RATE_FILTER, signal, out[4])
    apply_filter(YAW_ACCELERATION_FILTER, signal, out[5])


@kernel
def comfort(states: Floats, signals: Floats) -> float:
    """1 if every signal keeps its bounds at every sample, else 0; ``signals`` (8, 41) is scratch."""
    comfort_signals(states, signals)
    for t in range(NUM_STATES):
        if not (
            MIN_LON_ACCELERATION < signals[0, t] < MAX_LON_ACCELERATION
            and abs(signals[1, t]) < MAX_LAT_ACCELERATION
            and abs(signals[2, t]) < MAX_JERK
            and abs(signals[3, t]) < MAX_LON_JERK
            and abs(signals[4, t]) < MAX_YAW_RATE
            and abs(signals[5, t]) < MAX_YAW_ACCELERATION
        ):
            return 0.0
    return 1.0
