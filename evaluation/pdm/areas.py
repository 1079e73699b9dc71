"""Where the ego is on the map at every sample, and the driving direction (PDMS_V1, sections 4, 5, 8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.arrays import Bools, Flags, Floats, Ints
from beyonddrive.evaluation.pdm.constants import (
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
from beyonddrive.evaluation.pdm.grid import Grid, bit_mask, locate
from beyonddrive.evaluation.pdm.jit import kernel


class AreaMasks(NamedTuple):
    """Which polygons of a grid are what, as masks (W,) for :func:`beyonddrive.evaluation.pdm.grid.locate`."""

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
    return AreaMasks(bit_mask(lane), bit_mask(drivable), bit_mask(lane & on_route), bit_mask(intersection))


@kernel
def ego_area(grid: Grid, masks: AreaMasks, x: float, y: float, cos: float, sin: float, scratch: Ints) -> int:
    """Bits of constants.MULTIPLE_LANES .. for an ego at (x, y); scratch is (5, W).

    (x, y) is the rear axle, (cos, sin) the direction of the heading.
    """
    center_x, center_y = x + REAR_AXLE_TO_CENTER * cos, y + REAR_AXLE_TO_CENTER * sin
    ahead_x, ahead_y = HALF_LENGTH * cos, HALF_LENGTH * sin
    left_x, left_y = -HALF_WIDTH * sin, HALF_WIDTH * cos
    locate(grid, center_x + ahead_x + left_x, center_y + ahead_y + left_y, scratch[0])
    locate(grid, center_x - ahead_x + left_x, center_y - ahead_y + left_y, scratch[1])
    locate(grid, center_x - ahead_x - left_x, center_y - ahead_y - left_y, scratch[2])
    locate(grid, center_x + ahead_x - left_x, center_y + ahead_y - left_y, scratch[3])
    lanes, one_holds_all = 0, False
    for w in range(scratch.shape[1]):
        some = (scratch[0, w] | scratch[1, w] | scratch[2, w] | scratch[3, w]) & masks.lane[w]
        every = scratch[0, w] & scratch[1, w] & scratch[2, w] & scratch[3, w] & masks.lane[w]
        if some != 0:
            lanes += 2 if some & (some - 1) != 0 else 1
        one_holds_all |= every != 0
    flags = 0
    if lanes > 1 and not one_holds_all:
        flags |= MULTIPLE_LANES
    for corner in range(4):
        drivable = False
        for w in range(scratch.shape[1]):
            drivable |= scratch[corner, w] & masks.drivable[w] != 0
        if not drivable:
            flags |= NON_DRIVABLE
    locate(grid, center_x, center_y, scratch[4])
    on_route = False
    for w in range(scratch.shape[1]):
        on_route |= scratch[4, w] & masks.route[w] != 0
        if scratch[4, w] & masks.intersection[w] != 0:
            flags |= CENTER_IN_INTERSECTION
    if not on_route:
        flags |= ONCOMING
    locate(grid, x, y, scratch[4])
    for w in range(scratch.shape[1]):
        if scratch[4, w] & masks.intersection[w] != 0:
            flags |= REAR_IN_INTERSECTION
    return flags


@kernel
def ego_areas(grid: Grid, masks: AreaMasks, states: Floats, scratch: Ints, flags: Flags) -> None:
    """Flags (41,) of simulated states (41, 11); scratch is (5, W)."""
    for t in range(NUM_STATES):
        heading = states[t, 2]
        flags[t] = ego_area(
            grid, masks, states[t, 0], states[t, 1], math.cos(heading), math.sin(heading), scratch
        )


@kernel
def drivable_area_compliance(flags: Flags) -> float:
    """1, or 0 if a corner leaves the drivable area at any sample (section 7)."""
    for t in range(NUM_STATES):
        if flags[t] & NON_DRIVABLE:
            return 0.0
    return 1.0


@kernel
def driving_direction_compliance(states: Floats, flags: Flags, exempt: int, scratch: Floats) -> float:
    """1, 0.5 or 0 by the way driven off the route within one second (section 8); scratch is (41,).

    Steps that end where any of the bits ``exempt`` is set do not count: 0, or CENTER_IN_INTERSECTION for
    EPDMS.
    """
    x, y = 0.0, 0.0
    worst = 0.0
    for t in range(NUM_STATES):
        new_x = states[t, 0] + REAR_AXLE_TO_CENTER * math.cos(states[t, 2])
        new_y = states[t, 1] + REAR_AXLE_TO_CENTER * math.sin(states[t, 2])
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
