"""From the eight poses of a plan to the 41 reference states of the tracker (PDMS_V1, section 1)."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import MAP_INTERVAL_US, NUM_MAPS, NUM_STATES, STEP
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL

PI = math.pi
TWO_PI = 2.0 * math.pi


def plan_stamps(time_us: int) -> Ints:
    """Time stamps (9,) [us] of the ego state and the eight poses of a plan that starts at ``time_us``.

    Seconds are truncated to whole microseconds, so a pose is exact or one microsecond early.
    """
    seconds = time_us * 1e-6
    stamps = [int((POSE_INTERVAL * (j + 1) + seconds) * 1e6) for j in range(NUM_POSES)]
    return np.array([time_us, *stamps], dtype=np.int64)


def proposal_stamps(time_us: int) -> Ints:
    """Time stamps (51,) [us] of the reference planner's trajectory: exact tenths of a second."""
    return time_us + MAP_INTERVAL_US * np.arange(NUM_MAPS, dtype=np.int64)


@kernel
def sampling(time_us: int, stamps: Ints) -> tuple[Ints, Floats]:
    """Where the 41 samples of the tracker fall between the stamps of a trajectory.

    Returns:
        Interval (41,): index of the knot before each sample, and (41, 2): time since that knot and length of
        the interval [us].
    """
    interval = np.empty(NUM_STATES, np.int64)
    time = np.empty((NUM_STATES, 2))
    seconds = time_us * 1e-6
    k = 0
    for i in range(NUM_STATES):
        sample = min(max(int((i * STEP + seconds) * 1e6), stamps[0]), stamps[-1])
        while k < len(stamps) - 2 and sample > stamps[k + 1]:
            k += 1
        interval[i] = k
        time[i, 0] = sample - stamps[k]
        time[i, 1] = stamps[k + 1] - stamps[k]
    return interval, time


@kernel
def wrap(angle: float) -> float:
    """Angle in (-pi, pi]."""
    if abs(angle) < 3.0:
        return angle  # but for rounding the same as below, which takes a third of the tracker's time
    return math.atan2(math.sin(angle), math.cos(angle))


@kernel
def principal(angle: float) -> float:
    """Angle in [-pi, pi)."""
    return (angle + PI) % TWO_PI - PI


@kernel
def unwrap(angles: Floats) -> None:
    """Unwrap (n,) angles in place: steps of more than half a turn are made the shorter way round."""
    correction = 0.0
    previous = angles[0]
    for i in range(1, len(angles)):
        step = angles[i] - previous
        previous = angles[i]
        if abs(step) >= PI:
            shorter = (step + PI) % TWO_PI - PI
            if shorter == -PI and step > 0:
                shorter = PI
            correction += shorter - step
        angles[i] += correction


@kernel
def sample_poses(knots: Floats, interval: Ints, time: Floats, out: Floats) -> None:
    """Interpolate knots (K, 3), global, at the samples of :func:`sampling` into out (41, 3).

    Unwraps the headings of ``knots`` in place.
    """
    unwrap(knots[:, 2])
    for i in range(len(interval)):
        k = interval[i]
        for c in range(3):
            slope = (knots[k + 1, c] - knots[k, c]) / time[i, 1]
            out[i, c] = slope * time[i, 0] + knots[k, c]
        out[i, 2] = principal(out[i, 2])


def plan_knots(plans: Floats, ego: Floats) -> Floats:
    """Ego pose and plan in the global frame: plans (N, 8, 3) -> (N, 9, 3).

    In numpy, not in a kernel: a heading of exactly half a turn is unwrapped to the left or to the right by
    its last bit, and numpy's sine and cosine are the ones that published scores were made with.
    """
    cos, sin = np.cos(ego[2]), np.sin(ego[2])
    # Contiguous, so that numpy takes the same code path however many plans there are.
    heading = np.ascontiguousarray(plans[..., 2])
    c, s = np.cos(heading), np.sin(heading)
    knots = np.empty((len(plans), plans.shape[1] + 1, 3))
    knots[:, 0] = ego[:3]
    knots[:, 1:, 0] = (cos * plans[..., 0] - sin * plans[..., 1]) + ego[0]
    knots[:, 1:, 1] = (sin * plans[..., 0] + cos * plans[..., 1]) + ego[1]
    knots[:, 1:, 2] = np.arctan2(sin * c + cos * s, cos * c - sin * s)
    return knots


@kernel
def plan_references(knots: Floats, interval: Ints, time: Floats) -> Floats:
    """Reference states (N, 41, 3) of global knots (N, 9, 3), whose headings are unwrapped in place."""
    out = np.empty((len(knots), len(interval), 3))
    for n in range(len(knots)):
        sample_poses(knots[n], interval, time, out[n])
    return out
