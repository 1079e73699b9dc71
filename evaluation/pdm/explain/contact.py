"""Where a plan meets its limits: contacts, corners off the road, metres off the route, bounds of comfort."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.kernels.arrays import Flags, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.collision import Traffic
from beyonddrive.evaluation.pdm.kernels.comfort import (
    COMFORT_BOUNDS,
    comfort_signals,
    history_comfort_signals,
)
from beyonddrive.evaluation.pdm.kernels.constants import (
    DDC_COMPLIANT,
    DDC_WINDOW,
    MAX_JERK,
    MAX_LAT_ACCELERATION,
    MAX_LON_ACCELERATION,
    MAX_LON_JERK,
    MAX_YAW_ACCELERATION,
    MAX_YAW_RATE,
    MIN_LON_ACCELERATION,
    NUM_STATES,
    ONCOMING,
    REAR_AXLE_TO_CENTER,
)
from beyonddrive.evaluation.pdm.kernels.grid import locate_all
from beyonddrive.evaluation.pdm.kernels.sub_scores import World
from beyonddrive.structures.boxes import box_corners, ego_corners

CORNERS = ("front_left", "rear_left", "rear_right", "front_right")
"""Corners of a box in the order of :func:`beyonddrive.structures.boxes.box_corners`."""
COMFORT_LIMITS = (
    (MIN_LON_ACCELERATION, MAX_LON_ACCELERATION),
    (-MAX_LAT_ACCELERATION, MAX_LAT_ACCELERATION),
    (-MAX_JERK, MAX_JERK),
    (-MAX_LON_JERK, MAX_LON_JERK),
    (-MAX_YAW_RATE, MAX_YAW_RATE),
    (-MAX_YAW_ACCELERATION, MAX_YAW_ACCELERATION),
)
"""Lower and upper limit of each of :data:`beyonddrive.evaluation.pdm.kernels.comfort.COMFORT_BOUNDS`."""


def ego_center(state: Floats) -> Floats:
    """Middle (2,) of the ego box at a state (>= 3,)."""
    heading = float(state[2])
    return state[:2] + REAR_AXLE_TO_CENTER * np.array([math.cos(heading), math.sin(heading)])


def projected_box(state: Floats, seconds: float) -> shapely.Polygon:
    """The ego box after going on at the speed of a state (11,), straight ahead (PDMS_V1, section 9)."""
    way = seconds * math.hypot(state[3], state[4])
    ahead = way * np.array([math.cos(state[2]), math.sin(state[2])])
    return shapely.Polygon(ego_corners(np.array([*(state[:2] + ahead), state[2]])))


def object_box(traffic: Traffic, sample: int, m: int) -> shapely.Polygon:
    """Box of object ``m`` at a sample; empty if it is not there."""
    x, y, cos, sin = traffic.boxes[traffic.map_index[sample], m]
    if not math.isfinite(x):
        return shapely.Polygon()
    return shapely.Polygon(box_corners([x, y], math.atan2(sin, cos), *(2.0 * traffic.half[m])))


def overlap_center(first: shapely.Geometry, second: shapely.Geometry) -> Floats:
    """Middle (2,) of what two shapes share, or of the gap that rounding leaves between them."""
    shared = shapely.intersection(first, second)
    if shared.is_empty:
        shared = shapely.shortest_line(first, second)
    return shapely.get_coordinates(shapely.centroid(shared))[0]


def corner_off_road(world: World, state: Floats) -> tuple[int, Floats]:
    """Index and position (2,) of the first corner that no drivable polygon holds (PDMS_V1, section 5)."""
    corners = ego_corners(state[:3])
    drivable = (locate_all(world.grid, corners) & world.masks.drivable).any(axis=1)
    # Should rounding put all four on the road here, they are on its edge: any is right.
    corner = int(np.argmin(drivable))
    return corner, corners[corner]


def off_route_meters(states: Floats, flags: Flags, exempt: int = 0) -> Floats:
    """Metres (N, 41) driven off the route's lanes in the second up to each sample (PDMS_V1, section 8).

    Args:
        states: (N, 41, >= 3) simulated states.
        flags: (N, 41) area bits.
        exempt: Bits where metres do not count.
    """
    heading = states[..., 2]
    center = states[..., :2] + REAR_AXLE_TO_CENTER * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    way = np.diff(center, axis=1)
    # A window that begins before the first sample is as good as one of zeros there.
    steps = np.zeros((len(states), DDC_WINDOW - 1 + NUM_STATES))
    steps[:, DDC_WINDOW:] = np.hypot(way[..., 0], way[..., 1])
    steps[:, DDC_WINDOW - 1 :][(flags & ONCOMING == 0) | (flags & exempt != 0)] = 0.0
    return np.lib.stride_tricks.sliding_window_view(steps, DDC_WINDOW, axis=1).sum(axis=-1)


def too_far_off_route(meters: Floats) -> Ints:
    """First sample (N,) at which :func:`off_route_meters` (N, 41) of plans that fail DDC reach its limit.

    Rounding may keep a sum in numpy just below the limit that the score found reached: the largest is meant
    then.
    """
    return np.argmax(meters >= np.minimum(DDC_COMPLIANT, meters.max(axis=1, keepdims=True)), axis=1)


class BrokenBound(NamedTuple):
    """A bound of comfort that a motion breaks."""

    name: str
    """One of :data:`beyonddrive.evaluation.pdm.kernels.comfort.COMFORT_BOUNDS`."""
    sample: int
    """The first sample at or beyond the limit."""
    value: float
    """The value farthest beyond it."""
    limit: float


def broken_bounds(states: Floats) -> list[BrokenBound]:
    """Bounds of comfort that states (41, 11) break, in the order in which they are broken first."""
    signals = np.empty((8, NUM_STATES))
    comfort_signals(np.ascontiguousarray(states), signals)
    return _broken(signals)


def broken_history_bounds(history: Floats, states: Floats) -> list[BrokenBound]:
    """As :func:`broken_bounds`, by the rules of EPDMS; samples count from the start of history (n, 11)."""
    signals = np.empty((8, len(history) + NUM_STATES))
    history_comfort_signals(history, np.ascontiguousarray(states), signals)
    return _broken(signals)


def _broken(signals: Floats) -> list[BrokenBound]:
    found = []
    for name, (low, high), signal in zip(COMFORT_BOUNDS, COMFORT_LIMITS, signals, strict=False):
        broken = ~((low < signal) & (signal < high))
        if not broken.any():
            continue
        # A signal that overflows is as far beyond the limit as can be.
        excess = np.nan_to_num(np.maximum(low - signal, signal - high), nan=np.inf)
        worst = int(np.argmax(np.where(broken, excess, -np.inf)))
        value = float(signal[worst])
        found.append(BrokenBound(name, int(np.argmax(broken)), value, low if value <= low else high))
    return sorted(found, key=lambda bound: bound.sample)
