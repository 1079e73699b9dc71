"""Comfort of a motion: six bounds on filtered signals (PDMS_V1, section 10; EPDMS_V2, section 8)."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import (
    MAX_JERK,
    MAX_LAT_ACCELERATION,
    MAX_LON_ACCELERATION,
    MAX_LON_JERK,
    MAX_YAW_ACCELERATION,
    MAX_YAW_RATE,
    MIN_LON_ACCELERATION,
    NUM_STATES,
    REAR_AXLE_TO_CENTER,
    STEP,
)

COMFORT_BOUNDS = (
    "longitudinal acceleration",
    "lateral acceleration",
    "jerk",
    "longitudinal jerk",
    "yaw rate",
    "yaw acceleration",
)
"""Names of the rows of :func:`comfort_signals`."""


def savgol_bands(window: int, order: int, derivative: int = 0, step: float = STEP) -> Floats:
    """Savitzky-Golay filter with interpolated edges: its weights at the start, in the middle, at the end.

    An even window is centred half a sample after the one it gives the value for.

    Args:
        window: Samples that a polynomial is fitted to.
        order: Order of the polynomial.
        derivative: Which derivative of the polynomial is taken.
        step: Time between samples [s].

    Returns:
        (2 * (window // 2) + 1, window): a row for each of the first ``window // 2`` samples, one for all in
        the middle, and one for each of the last.

    >>> out = np.empty(9)
    >>> savgol(savgol_bands(5, 2, derivative=1, step=1.0), np.arange(9.0) ** 2, out)
    >>> (out.round(9) + 0.0).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]
    """
    half, offset = window // 2, (window - 1) / 2.0
    # Abscissae in -1 .. 1 keep the fit well conditioned.
    fit = np.linalg.pinv(np.vander((np.arange(window) - offset) / offset, order + 1, increasing=True))
    positions = np.concatenate([np.arange(half), [offset], np.arange(window - half, window)])
    powers = np.zeros((len(positions), order + 1))
    for k in range(derivative, order + 1):
        factor = math.factorial(k) / math.factorial(k - derivative)
        powers[:, k] = factor * ((positions - offset) / offset) ** (k - derivative)
    return np.ascontiguousarray(powers @ fit / (offset * step) ** derivative)


SMOOTHING_FILTER = savgol_bands(8, 2)
HISTORY_JERK_FILTER = savgol_bands(15, 2, 1)
YAW_RATE_FILTER = savgol_bands(5, 2, 1)
YAW_ACCELERATION_FILTER = savgol_bands(5, 3, 2)


def parabola_fit() -> tuple[Floats, Floats, Floats]:
    """A filter whose window is the whole motion, in factors: one parabola through all 41 samples.

    Returns:
        (3, 41) from samples to coefficients, and from those (41, 3) to values and to slopes [1/s].
    """
    offset = (NUM_STATES - 1) / 2.0
    positions = (np.arange(NUM_STATES) - offset) / offset
    powers = np.vander(positions, 3, increasing=True)
    slopes = np.column_stack([0.0 * positions, 0.0 * positions + 1.0, 2.0 * positions]) / (offset * STEP)
    fit: Floats = np.linalg.pinv(powers).astype(np.float64)
    return np.ascontiguousarray(fit), powers.astype(np.float64), slopes


PARABOLA_FIT, PARABOLA_VALUES, PARABOLA_SLOPES = parabola_fit()


@kernel
def parabola(basis: Floats, signal: Floats, out: Floats) -> None:
    """Filter a signal (41,) by the parabola through all of it, and round to 8 decimals.

    Args: ``basis`` (41, 3) is PARABOLA_VALUES or PARABOLA_SLOPES.
    """
    c0, c1, c2 = 0.0, 0.0, 0.0
    for k in range(NUM_STATES):
        value = signal[k]
        c0 += PARABOLA_FIT[0, k] * value
        c1 += PARABOLA_FIT[1, k] * value
        c2 += PARABOLA_FIT[2, k] * value
    for i in range(NUM_STATES):
        out[i] = np.rint((basis[i, 0] * c0 + basis[i, 1] * c1 + basis[i, 2] * c2) * 1e8) / 1e8


@kernel
def savgol(bands: Floats, signal: Floats, out: Floats) -> None:
    """Filter a signal (n,) with the weights of :func:`savgol_bands` and round to 8 decimals; n >= window."""
    window, size, half = bands.shape[1], len(signal), bands.shape[0] // 2
    shift, last = (window - 1) // 2, size - window
    for i in range(half):
        head, tail = 0.0, 0.0
        for k in range(window):
            head += bands[i, k] * signal[k]
            tail += bands[half + 1 + i, k] * signal[last + k]
        out[i], out[size - half + i] = head, tail
    for i in range(half, size - half):
        out[i] = 0.0
    for k in range(window):
        weight = bands[half, k]
        for i in range(half, size - half):
            out[i] += weight * signal[i - shift + k]
    for i in range(size):
        out[i] = np.rint(out[i] * 1e8) / 1e8


@kernel
def unwrapped(heading: Floats, out: Floats) -> None:
    """Copy headings (n,) without jumps of whole turns."""
    turns = 0.0
    for t in range(len(heading)):
        if t > 0:
            turns += np.rint((heading[t] - heading[t - 1]) / (2.0 * math.pi))
        out[t] = heading[t] - 2.0 * math.pi * turns


@kernel
def comfort_signals(states: Floats, out: Floats) -> None:
    """Write the six filtered signals of states (41, 11) to out (8, 41); the last two rows are scratch."""
    signal, smooth = out[6], out[7]
    signal[:] = states[:, 5]
    parabola(PARABOLA_VALUES, signal, out[0])
    savgol(SMOOTHING_FILTER, signal, smooth)
    parabola(PARABOLA_SLOPES, smooth, out[3])
    signal[:] = states[:, 6]
    parabola(PARABOLA_VALUES, signal, out[1])
    for t in range(NUM_STATES):
        signal[t] = math.hypot(states[t, 5], states[t, 6])
    savgol(SMOOTHING_FILTER, signal, smooth)
    parabola(PARABOLA_SLOPES, smooth, out[2])
    unwrapped(states[:, 2], signal)
    savgol(YAW_RATE_FILTER, signal, out[4])
    savgol(YAW_ACCELERATION_FILTER, signal, out[5])


@kernel
def history_comfort_signals(history: Floats, states: Floats, out: Floats) -> None:
    """Write the six filtered signals of the past and the plan to out (8, n + 41) (EPDMS_V2, section 8).

    Args:
        history: (n, 11) states before the first of ``states``.
        states: (41, 11) simulated states.
        out: The last two rows are scratch.
    """
    past, signal, smooth = len(history), out[6], out[7]
    for t in range(out.shape[1]):
        state = history[t] if t < past else states[t - past]
        # Both terms of the lever arm go into the longitudinal acceleration, none into the lateral one.
        signal[t] = state[5] + REAR_AXLE_TO_CENTER * state[9] ** 2 + REAR_AXLE_TO_CENTER * state[10]
        smooth[t] = state[6]
    savgol(SMOOTHING_FILTER, signal, out[0])
    savgol(SMOOTHING_FILTER, smooth, out[1])
    for t in range(out.shape[1]):
        state = history[t] if t < past else states[t - past]
        signal[t] = math.hypot(state[5], state[6])
    savgol(SMOOTHING_FILTER, signal, smooth)
    savgol(HISTORY_JERK_FILTER, smooth, out[2])
    savgol(HISTORY_JERK_FILTER, out[0], out[3])
    for t in range(out.shape[1]):
        smooth[t] = history[t, 2] if t < past else states[t - past, 2]
    unwrapped(smooth, signal)
    savgol(YAW_RATE_FILTER, signal, out[4])
    savgol(YAW_ACCELERATION_FILTER, signal, out[5])


@kernel
def within_bounds(signals: Floats) -> float:
    """1 if the first six of ``signals`` (8, n) keep their bounds at every sample, else 0."""
    for t in range(signals.shape[1]):
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


@kernel
def comfort(states: Floats, signals: Floats) -> float:
    """1 if every signal keeps its bounds at every sample, else 0; ``signals`` (8, 41) is scratch."""
    comfort_signals(states, signals)
    return within_bounds(signals)


@kernel
def history_comfort(history: Floats, states: Floats, signals: Floats) -> float:
    """As :func:`comfort`, with the past (n, 11) in front; ``signals`` (8, n + 41) is scratch."""
    history_comfort_signals(history, states, signals)
    return within_bounds(signals)
