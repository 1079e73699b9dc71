"""Collisions and time to collision of the ego with boxes (PDMS_V1, sections 4, 6, 9)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Flags, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.constants import (
    AHEAD_ANGLE,
    BEHIND_ANGLE,
    HALF_LENGTH,
    HALF_WIDTH,
    MULTIPLE_LANES,
    NON_DRIVABLE,
    NUM_STATES,
    REAR_AXLE_TO_CENTER,
    REAR_IN_INTERSECTION,
    STEP,
    STOPPED_EGO_SPEED,
    TTC_PROJECTIONS,
    TTC_STOPPED_SPEED,
    TTC_STRIDE,
)

EGO_RADIUS = math.hypot(HALF_LENGTH, HALF_WIDTH)
SLACK = 1e-6
"""Added to what is only a cheap test before the exact one [m]."""


class Traffic(NamedTuple):
    """Boxes of other road users over time, prepared for the kernels below."""

    boxes: Floats
    """(T, M, 4) centre x, y [m] and cosine, sine of the heading; NaN where an object is absent."""
    half: Floats
    """(M, 2) half length and half width [m]."""
    bounds: Floats
    """(M, 4) min x, min y, max x, max y of all boxes of an object."""
    agent: Bools
    """(M,) vehicle, pedestrian, bicycle or ego; the others count half in a collision."""
    stopped: Bools
    """(M,) static, or standing when it first appears."""
    ignored: Bools
    """(M,) ignored from the start."""
    map_index: Ints
    """(51,) which of the T maps holds at each sample."""


@kernel
def box_bounds(boxes: Floats, half: Floats) -> Floats:
    """Bounds (M, 4) of boxes (T, M, 4) with half sizes (M, 2) over time; NaN boxes are left out."""
    bounds = np.empty((boxes.shape[1], 4))
    for m in range(boxes.shape[1]):
        low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
        for t in range(boxes.shape[0]):
            x, y, c, s = boxes[t, m, 0], boxes[t, m, 1], boxes[t, m, 2], boxes[t, m, 3]
            dx = abs(half[m, 0] * c) + abs(half[m, 1] * s)
            dy = abs(half[m, 0] * s) + abs(half[m, 1] * c)
            if x == x:
                low_x, low_y = min(low_x, x - dx), min(low_y, y - dy)
                high_x, high_y = max(high_x, x + dx), max(high_y, y + dy)
        bounds[m, 0], bounds[m, 1], bounds[m, 2], bounds[m, 3] = low_x, low_y, high_x, high_y
    return bounds


@kernel
def boxes_touch(
    dx: float,
    dy: float,
    c0: float,
    s0: float,
    l0: float,
    w0: float,
    c1: float,
    s1: float,
    l1: float,
    w1: float,
) -> bool:
    """Whether two boxes have a point in common, by separating axes.

    Args: centre of box 1 minus centre of box 0; cosine, sine, half length, half width of each.
    """
    c, s = abs(c0 * c1 + s0 * s1), abs(c0 * s1 - s0 * c1)
    if abs(dx * c0 + dy * s0) > l0 + l1 * c + w1 * s:
        return False
    if abs(dy * c0 - dx * s0) > w0 + l1 * s + w1 * c:
        return False
    if abs(dx * c1 + dy * s1) > l1 + l0 * c + w0 * s:
        return False
    return abs(dy * c1 - dx * s1) <= w1 + l0 * s + w0 * c


@kernel
def ego_touches(x: float, y: float, cos: float, sin: float, box: Floats, half: Floats) -> bool:
    """Whether the ego's box around (x, y) touches a box (4,) with half sizes (2,); not one that is absent."""
    dx, dy = box[0] - x, box[1] - y
    reach = EGO_RADIUS + half[0] + half[1] + SLACK
    if not dx * dx + dy * dy <= reach * reach:  # NaN is not
        return False
    return boxes_touch(dx, dy, cos, sin, HALF_LENGTH, HALF_WIDTH, box[2], box[3], half[0], half[1])


@kernel
def bearing(cos: float, sin: float, dx: float, dy: float) -> float:
    """Angle between a direction and (dx, dy), 0 .. pi.

    NaN when the points coincide or rounding pushes the cosine beyond 1: neither ahead nor behind, then.
    """
    norm = math.sqrt(dx * dx + dy * dy)
    cosine = cos * (dx / norm) + sin * (dy / norm)
    return math.acos(cosine) if abs(cosine) <= 1.0 else np.nan


@kernel
def nearby(states: Floats, motion: Floats, traffic: Traffic, near: Ints) -> int:
    """Write the objects that the ego can touch within the horizon to ``near`` (M,); return their number.

    Conservative: by the bounds of both over all samples, the ego's with its projections.
    """
    low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
    reach = REAR_AXLE_TO_CENTER + EGO_RADIUS + SLACK
    ahead = TTC_STRIDE * (TTC_PROJECTIONS - 1) * STEP
    for t in range(NUM_STATES):
        x, y = states[t, 0], states[t, 1]
        way = ahead * motion[t, 2]
        dx, dy = way * motion[t, 0], way * motion[t, 1]
        low_x, low_y = min(low_x, x + min(dx, 0.0)), min(low_y, y + min(dy, 0.0))
        high_x, high_y = max(high_x, x + max(dx, 0.0)), max(high_y, y + max(dy, 0.0))
    low_x, low_y, high_x, high_y = low_x - reach, low_y - reach, high_x + reach, high_y + reach
    count, bounds = 0, traffic.bounds
    for m in range(len(bounds)):
        if (
            bounds[m, 0] <= high_x
            and bounds[m, 2] >= low_x
            and bounds[m, 1] <= high_y
            and bounds[m, 3] >= low_y
        ):
            near[count] = m
            count += 1
    return count


@kernel
def remove_touching(traffic: Traffic, ego: Floats) -> None:
    """Take what touches the ego (11,) now out of all maps, in place (EPDMS_V2, section 2)."""
    cos, sin = math.cos(ego[2]), math.sin(ego[2])
    x, y = ego[0] + REAR_AXLE_TO_CENTER * cos, ego[1] + REAR_AXLE_TO_CENTER * sin
    boxes, half, bounds = traffic.boxes, traffic.half, traffic.bounds
    for m in range(len(bounds)):
        if ego_touches(x, y, cos, sin, boxes[0, m], half[m]):
            for t in range(len(boxes)):
                for k in range(4):
                    boxes[t, m, k] = np.nan
            bounds[m, 0], bounds[m, 1], bounds[m, 2], bounds[m, 3] = np.inf, np.inf, -np.inf, -np.inf


@kernel
def is_at_fault(
    traffic: Traffic, map_row: int, m: int, state: Floats, cos: float, sin: float, area: int
) -> bool:
    """Whether the ego is to blame for touching object ``m`` (section 6)."""
    if math.hypot(state[3], state[4]) <= STOPPED_EGO_SPEED:
        return False
    if traffic.stopped[m]:
        return True
    box = traffic.boxes[map_row, m]
    dx, dy = box[0] - state[0], box[1] - state[1]
    if bearing(cos, sin, dx, dy) > BEHIND_ANGLE:
        return False
    # The front bumper is a box without length.
    front = REAR_AXLE_TO_CENTER + HALF_LENGTH
    if boxes_touch(
        dx - front * cos,
        dy - front * sin,
        cos,
        sin,
        0.0,
        HALF_WIDTH,
        box[2],
        box[3],
        traffic.half[m, 0],
        traffic.half[m, 1],
    ):
        return True
    return area & (MULTIPLE_LANES | NON_DRIVABLE) != 0


@kernel
def no_at_fault_collision(
    states: Floats, motion: Floats, flags: Flags, traffic: Traffic, near: Ints, ignored: Bools
) -> tuple[float, int, int]:
    """Sub-score, sample and object of the first at-fault collision, -1 for none.

    ``states`` (41, 11), ``motion`` (41, 3) cosine, sine, speed, ``flags`` (41,), ``near`` (K,) the objects to
    look at, ``ignored`` (M,) scratch.
    """
    # Read once: a field of a tuple of arrays costs as much as a test if it is read in a loop.
    boxes, half, map_index = traffic.boxes, traffic.half, traffic.map_index
    for m in near:
        ignored[m] = traffic.ignored[m]
    score, sample, hit = 1.0, -1, -1
    for t in range(NUM_STATES):
        cos, sin = motion[t, 0], motion[t, 1]
        x, y = states[t, 0] + REAR_AXLE_TO_CENTER * cos, states[t, 1] + REAR_AXLE_TO_CENTER * sin
        row = map_index[t]
        for m in near:
            if ignored[m] or not ego_touches(x, y, cos, sin, boxes[row, m], half[m]):
                continue
            if is_at_fault(traffic, row, m, states[t], cos, sin, flags[t]):
                if sample < 0:
                    sample, hit = t, m
                if traffic.agent[m]:
                    return 0.0, sample, hit
                score = 0.5
            else:
                ignored[m] = True
    return score, sample, hit


@kernel
def time_to_collision(
    states: Floats,
    motion: Floats,
    flags: Flags,
    traffic: Traffic,
    near: Ints,
    ignored: Bools,
    num_samples: int,
) -> tuple[float, int, int]:
    """Sub-score, sample and object of the first infraction, -1 for none; arguments as for collisions."""
    boxes, half, map_index = traffic.boxes, traffic.half, traffic.map_index
    for m in near:
        ignored[m] = traffic.ignored[m]
    for t in range(num_samples):
        cos, sin, speed = motion[t, 0], motion[t, 1], motion[t, 2]
        if speed < TTC_STOPPED_SPEED:
            continue
        rear_x, rear_y = states[t, 0], states[t, 1]
        off_lane = flags[t] & (MULTIPLE_LANES | NON_DRIVABLE | REAR_IN_INTERSECTION) != 0
        for k in range(TTC_PROJECTIONS):
            f = k * TTC_STRIDE
            way = REAR_AXLE_TO_CENTER + f * STEP * speed
            x, y = rear_x + way * cos, rear_y + way * sin
            row = map_index[t + f]
            for m in near:
                if ignored[m] or not ego_touches(x, y, cos, sin, boxes[row, m], half[m]):
                    continue
                angle = bearing(cos, sin, boxes[row, m, 0] - rear_x, boxes[row, m, 1] - rear_y)
                if angle < AHEAD_ANGLE or (off_lane and not angle > BEHIND_ANGLE):
                    return 0.0, t, m
                ignored[m] = True
    return 1.0, -1, -1
