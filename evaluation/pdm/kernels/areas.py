"""Where the ego is on the map at every sample, and the driving direction (PDMS_V1, sections 4, 5, 8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Flags, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import (
    CARPARK_AREA,
    CENTER_IN_INTERSECTION,
    DDC_COMPLIANT,
    DDC_VIOLATION,
    DDC_WINDOW,
    HALF_LENGTH,
    HALF_WIDTH,
    INTERSECTION,
    LANE,
    LANE_CONNECTOR,
    MULTIPLE_LANES,
    NON_DRIVABLE,
    NUM_STATES,
    ONCOMING,
    REAR_AXLE_TO_CENTER,
    REAR_IN_INTERSECTION,
    ROADBLOCK,
)
from beyonddrive.evaluation.pdm.kernels.grid import Grid, bit_mask, locate


class AreaMasks(NamedTuple):
    """Which polygons of a grid are what, as masks (W,) for :func:`grid.locate`."""

    lane: Ints
    """Lanes and lane connectors."""
    drivable: Ints
    """Roadblocks, intersections and car parks; lanes do not make an area drivable."""
    route: Ints
    """Lanes and lane connectors of the route."""
    intersection: Ints


def area_masks(types: NDArray[np.int8], on_route: Bools) -> AreaMasks:
    """Masks of polygons with classes ``types`` (P,), of which ``on_route`` (P,) belong to the route."""
    lane = (types == LANE) | (types == LANE_CONNECTOR)
    intersection = types == INTERSECTION
    drivable = (types == ROADBLOCK) | intersection | (types == CARPARK_AREA)
    return AreaMasks(*bit_mask(np.stack([lane, drivable, lane & on_route, intersection])))


POINTS = 6
"""Points per sample that are looked up: four corners, the centre, the rear axle."""


@kernel
def ego_areas(
    grid: Grid,
    masks: AreaMasks,
    states: Floats,
    motion: Floats,
    points: Floats,
    found: Ints,
    flags: Flags,
) -> None:
    """Bits (41,) of constants.MULTIPLE_LANES .. for simulated states (41, 11) with motion (41, 3).

    Args: ``points`` (41 * 6, 2) and ``found`` (41 * 6, W) are scratch.
    """
    for t in range(NUM_STATES):
        x, y = states[t, 0], states[t, 1]
        cos, sin = motion[t, 0], motion[t, 1]
        center_x, center_y = x + REAR_AXLE_TO_CENTER * cos, y + REAR_AXLE_TO_CENTER * sin
        ahead_x, ahead_y = HALF_LENGTH * cos, HALF_LENGTH * sin
        left_x, left_y = -HALF_WIDTH * sin, HALF_WIDTH * cos
        i = POINTS * t
        points[i, 0], points[i, 1] = center_x + ahead_x + left_x, center_y + ahead_y + left_y
        points[i + 1, 0], points[i + 1, 1] = center_x - ahead_x + left_x, center_y - ahead_y + left_y
        points[i + 2, 0], points[i + 2, 1] = center_x - ahead_x - left_x, center_y - ahead_y - left_y
        points[i + 3, 0], points[i + 3, 1] = center_x + ahead_x - left_x, center_y + ahead_y - left_y
        points[i + 4, 0], points[i + 4, 1] = center_x, center_y
        points[i + 5, 0], points[i + 5, 1] = x, y
    locate(grid, points, found)
    lane, drivable, route, intersection = masks.lane, masks.drivable, masks.route, masks.intersection
    for t in range(NUM_STATES):
        i = POINTS * t
        lanes, one_holds_all = 0, False
        on0, on1, on2, on3, on_route, center_in, rear_in = False, False, False, False, False, False, False
        for w in range(found.shape[1]):
            a, b, c, d = found[i, w], found[i + 1, w], found[i + 2, w], found[i + 3, w]
            some = (a | b | c | d) & lane[w]
            if some != 0:
                lanes += 2 if some & (some - 1) != 0 else 1
            one_holds_all |= a & b & c & d & lane[w] != 0
            on0 |= a & drivable[w] != 0
            on1 |= b & drivable[w] != 0
            on2 |= c & drivable[w] != 0
            on3 |= d & drivable[w] != 0
            on_route |= found[i + 4, w] & route[w] != 0
            center_in |= found[i + 4, w] & intersection[w] != 0
            rear_in |= found[i + 5, w] & intersection[w] != 0
        bits = 0
        if lanes > 1 and not one_holds_all:
            bits |= MULTIPLE_LANES
        if not (on0 and on1 and on2 and on3):
            bits |= NON_DRIVABLE
        if not on_route:
            bits |= ONCOMING
        if center_in:
            bits |= CENTER_IN_INTERSECTION
        if rear_in:
            bits |= REAR_IN_INTERSECTION
        flags[t] = bits


@kernel
def drivable_area_compliance(flags: Flags) -> float:
    """1, or 0 if a corner leaves the drivable area at any sample (section 7)."""
    for t in range(NUM_STATES):
        if flags[t] & NON_DRIVABLE:
            return 0.0
    return 1.0


@kernel
def driving_direction_compliance(
    states: Floats, motion: Floats, flags: Flags, exempt: int, scratch: Floats
) -> float:
    """1, 0.5 or 0 by the way driven off the route within one second (section 8); scratch is (41,).

    Steps that end where any of the bits ``exempt`` is set do not count: 0, or CENTER_IN_INTERSECTION for
    EPDMS.
    """
    any_counts = False
    for t in range(1, NUM_STATES):
        any_counts |= flags[t] & ONCOMING != 0 and flags[t] & exempt == 0
    if not any_counts:
        return 1.0
    x, y = 0.0, 0.0
    worst = 0.0
    for t in range(NUM_STATES):
        new_x = states[t, 0] + REAR_AXLE_TO_CENTER * motion[t, 0]
        new_y = states[t, 1] + REAR_AXLE_TO_CENTER * motion[t, 1]
        counts = t > 0 and flags[t] & ONCOMING and not flags[t] & exempt
        scratch[t] = math.hypot(new_x - x, new_y - y) if counts else 0.0
        x, y = new_x, new_y
        total = 0.0
        for k in range(max(0, t - DDC_WINDOW + 1), t + 1):
            total += scratch[k]
        worst = max(worst, total)
    if worst < DDC_COMPLIANT:
        return 1.0
    return 0.5 if worst < DDC_VIOLATION else 0.0
