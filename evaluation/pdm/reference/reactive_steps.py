"""Steps of reactive traffic: corridors, leads, the driver model (EPDMS_TWO_STAGE, section 4.4).

Footprints are not simplified, as the official code does to 1e-5 m: that moves gaps by less.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.bands import SHALLOW, band_ring
from beyonddrive.evaluation.pdm.kernels.collision import boxes_touch
from beyonddrive.evaluation.pdm.kernels.constants import HALF_LENGTH, HALF_WIDTH, STEP
from beyonddrive.evaluation.pdm.kernels.polyline import square_distance
from beyonddrive.evaluation.pdm.kernels.rings import box_ring, ring_distance, rings_touch, separation
from beyonddrive.evaluation.pdm.reference.rails import Fleet, line_ahead, rail_part, rail_pose

MAX_ACCELERATION, MAX_BRAKING = 1.0, 2.0
"""Of the driver model [m/s2]."""
MIN_GAP, HEADWAY, EXPONENT = 1.0, 1.5, 4
"""Of the driver model [m, s]."""
RADIUS = 100.0
"""Vehicles farther from the ego are removed [m]."""
SLACK = 1e-3
"""Added to what is only a cheap test before the exact one [m]."""
NO_NEARER = 1e-9
"""Distances that differ by less are equal [m]."""
WIDENED = 1.0 + SHALLOW
"""Half widths of a corridor on the inside of bends, at most."""
EGO, FREE, REMOVED = -1, -2, -3
"""What there is in place of a lead."""


class _Scene(NamedTuple):
    """Where everybody is, step by step; index A is the ego."""

    progress: Floats
    speed: Floats
    poses: Floats
    cosines: Floats
    sines: Floats
    """(A,) of the headings."""
    alive: Bools
    boxes: Floats
    """(A + 1, 4, 2) rings of the boxes."""
    bands: Floats
    """(A, capacity, 2) rings of the rail ahead, which belongs to the footprint once a vehicle has moved."""
    sizes: Ints
    """(A + 1,) vertices of these; 0 for none, -1 if it is not made yet."""
    ends: Floats
    """(A, 2) arc lengths that the band is between."""
    circles: Floats
    """(A + 1, 3) centre and radius of a circle around the footprint."""


class _Scratch(NamedTuple):
    line: Floats
    part: Floats
    ring: Floats


@kernel
def drive(fleet: Fleet, ego: Floats, boxes: Floats, speed: Floats, trace: Floats, lead: Ints) -> int:
    """Drive a fleet against the simulated states (41, 11) of the ego.

    Args:
        fleet: Who drives.
        ego: The states.
        boxes: (41, M, 4) written from map 1 on, for those that are there.
        speed: (41, M) written alike.
        trace: (40, A, 5) written: progress, speed, gap, lead speed, rear length.
        lead: (40, A) written: index of the lead, or what there is in its place.

    Returns:
        The vehicle that lies beyond the end of its rail, so that the traffic cannot be simulated; -1 if all
        is well.
    """
    count, longest = len(fleet.rows), 0
    for i in range(count):
        longest = max(longest, fleet.rail[i + 1] - fleet.rail[i])
    scratch = _Scratch(np.empty((longest + 2, 2)), np.empty((longest + 2, 2)), np.empty((fleet.capacity, 2)))
    scene = _Scene(
        fleet.progress.copy(),
        fleet.speed.copy(),
        np.empty((count, 3)),
        np.empty(count),
        np.empty(count),
        np.ones(count, np.bool_),
        np.empty((count + 1, 4, 2)),
        np.empty((count, fleet.capacity, 2)),
        np.zeros(count + 1, np.int64),
        np.empty((count, 2)),
        np.empty((count + 1, 3)),
    )
    for i in range(count):
        rail_pose(
            fleet.xy,
            fleet.heading,
            fleet.length,
            fleet.rail[i],
            fleet.rail[i + 1],
            scene.progress[i],
            scene.poses[i],
        )
        scene.cosines[i], scene.sines[i] = math.cos(scene.poses[i, 2]), math.sin(scene.poses[i, 2])
        box_ring(fleet.snapped[i], fleet.half[i, 0], fleet.half[i, 1], scene.boxes[i])
        scene.circles[i, 0], scene.circles[i, 1] = fleet.snapped[i, 0], fleet.snapped[i, 1]
        scene.circles[i, 2] = math.hypot(fleet.half[i, 0], fleet.half[i, 1])
    scene.circles[count, 2] = math.hypot(HALF_LENGTH, HALF_WIDTH)
    hits = np.empty(count + 1, np.int64)
    for k in range(1, len(ego)):
        now = ego[k - 1]
        # The official code puts the middle of the ego's box at its rear axle.
        box_ring(now, HALF_LENGTH, HALF_WIDTH, scene.boxes[count])
        scene.circles[count, 0], scene.circles[count, 1] = now[0], now[1]
        for i in range(count):
            if math.hypot(scene.poses[i, 0] - now[0], scene.poses[i, 1] - now[1]) > RADIUS:
                scene.alive[i] = False
        for i in range(count):
            if not scene.alive[i]:
                continue
            found = _in_corridor(fleet, scene, i, scratch, hits)
            if found < 0:
                return i
            if found == 0:
                gap = fleet.length[fleet.rail[i + 1] - 1] - scene.progress[i]
                along, rear, who = 0.0, fleet.half[i, 0], FREE
            else:
                gap, who = _nearest(fleet, scene, i, hits[:found], scratch.part)
                rear = 0.0
                if who == count:
                    who, velocity, heading = EGO, math.hypot(now[3], now[4]), now[2]
                else:
                    velocity, heading = scene.speed[who], scene.poses[who, 2]
                along = velocity * math.cos(heading - scene.poses[i, 2])
            _advance(fleet, scene, i, gap - rear, along)
            trace[k - 1, i, 0], trace[k - 1, i, 1] = scene.progress[i], scene.speed[i]
            trace[k - 1, i, 2], trace[k - 1, i, 3], trace[k - 1, i, 4] = gap, along, rear
            lead[k - 1, i] = who
        for i in range(count):
            if scene.alive[i]:
                row, pose = fleet.rows[i], scene.poses[i]
                boxes[k, row, 0], boxes[k, row, 1] = pose[0], pose[1]
                boxes[k, row, 2], boxes[k, row, 3] = scene.cosines[i], scene.sines[i]
                speed[k, row] = scene.speed[i]
        _stand(fleet, scene.alive, boxes[k], speed[0], speed[k])
    return -1


@kernel
def _in_corridor(fleet: Fleet, scene: _Scene, i: int, scratch: _Scratch, hits: Ints) -> int:
    """Write who else is in a vehicle's way to ``hits``; return how many, -1 if it is not there itself."""
    count, found = len(fleet.rows), 0
    circles, alive, half, line = scene.circles, scene.alive, fleet.half[i, 1], scratch.line
    size = line_ahead(
        fleet.xy,
        fleet.length,
        fleet.rail[i],
        fleet.rail[i + 1],
        scene.progress[i],
        scene.poses[i],
        line,
    )
    has_moved = scene.sizes[i] != 0
    for j in range(count + 1):
        if j < count and not alive[j]:
            continue
        if j == i and has_moved:  # its box is where the corridor starts
            continue
        reach = circles[j, 2] + half + SLACK
        first, last = _near(line, size, circles[j, 0], circles[j, 1], reach)
        piece = line[max(first - 1, 0) : min(last + 3, size)]
        is_hit = first >= 0 and _is_hit(fleet, scene, i, j, piece, half, scratch)
        if j == i and not is_hit:
            return -1
        if j != i and is_hit:
            hits[found] = j
            found += 1
    return found


@kernel
def _near(line: Floats, size: int, x: float, y: float, reach: float) -> tuple[int, int]:
    """First and last segment of a polyline that come near a point; -1 if none does."""
    first, last = -1, -1
    for n in range(size - 1):
        if (
            min(line[n, 0], line[n + 1, 0]) > x + reach
            or max(line[n, 0], line[n + 1, 0]) < x - reach
            or min(line[n, 1], line[n + 1, 1]) > y + reach
            or max(line[n, 1], line[n + 1, 1]) < y - reach
        ):
            continue
        square, _ = square_distance(line, n, x, y)
        if square <= reach * reach:
            last = n
            if first < 0:
                first = n
    return first, last


@kernel
def _is_hit(
    fleet: Fleet, scene: _Scene, i: int, j: int, piece: Floats, half: float, scratch: _Scratch
) -> bool:
    """Whether the corridor of a vehicle, around a piece of its line, touches a footprint."""
    box, band, cos, sin = scene.boxes[j], scene.boxes[j], scene.cosines[i], scene.sines[i]
    if scene.sizes[j] != 0:
        band = _band(fleet, scene, j, scratch.part)
    # Most are on the next lane: to one side of it.
    wide = half * WIDENED + SLACK
    if min(separation(piece, box, -sin, cos), separation(piece, band, -sin, cos)) > wide:
        return False
    if min(separation(piece, box, sin, -cos), separation(piece, band, sin, -cos)) > wide:
        return False
    corridor = scratch.ring[: band_ring(piece, half, scratch.ring)]
    if rings_touch(box, corridor):
        return True
    return scene.sizes[j] != 0 and rings_touch(band, corridor)


@kernel
def _band(fleet: Fleet, scene: _Scene, i: int, line: Floats) -> Floats:
    """Ring of the rail ahead of a vehicle; ``line`` is scratch."""
    if scene.sizes[i] < 0:
        n = rail_part(fleet, i, scene.ends[i, 0], scene.ends[i, 1], line)
        scene.sizes[i] = band_ring(line[:n], fleet.half[i, 1], scene.bands[i])
    return scene.bands[i, : scene.sizes[i]]


@kernel
def _nearest(fleet: Fleet, scene: _Scene, i: int, hits: Ints, line: Floats) -> tuple[float, int]:
    """Distance of a footprint to the nearest of others, and whose: of several that touch the lowest."""
    count, best, who, least = len(fleet.rows), np.inf, -1, np.inf
    own, cos, sin = scene.boxes[i], scene.cosines[i], scene.sines[i]
    if scene.sizes[i] != 0:
        own = _band(fleet, scene, i, line)
    for j in hits:
        box, band = scene.boxes[j], scene.boxes[j]
        if j < count and scene.sizes[j] != 0:
            band = _band(fleet, scene, j, line)
        # A little farther, so that what is as near is told from what is not.
        distance = ring_distance(own, box, best + SLACK)
        distance = _closer(own, band, cos, sin, distance)
        distance = _closer(scene.boxes[i], box, cos, sin, distance)
        distance = _closer(scene.boxes[i], band, cos, sin, distance)
        if distance > best:
            continue
        bottom = min(box[:, 1].min(), band[:, 1].min())
        top = max(box[:, 1].max(), band[:, 1].max())
        if distance < best or bottom + top < least:
            best, who, least = distance, j, bottom + top
    return best, who


@kernel
def _closer(a: Floats, b: Floats, cos: float, sin: float, distance: float) -> float:
    """The distance of two rings if it is less; not looked at if b begins no nearer ahead."""
    if distance == 0.0 or separation(a, b, cos, sin) > distance - NO_NEARER:
        return distance
    return ring_distance(a, b, distance)


@kernel
def _advance(fleet: Fleet, scene: _Scene, i: int, gap: float, along: float) -> None:
    """Move a vehicle by one step behind a lead of this speed along its own direction."""
    v = scene.speed[i]
    closing = v * (v - along) / (2.0 * math.sqrt(MAX_ACCELERATION * MAX_BRAKING))
    share = (MIN_GAP + HEADWAY * v + closing) / max(gap, MIN_GAP)
    acceleration = MAX_ACCELERATION * (1.0 - (v / fleet.target[i]) ** EXPONENT - share * share)
    acceleration = min(max(acceleration, -MAX_BRAKING), MAX_ACCELERATION)
    position = scene.progress[i] + STEP * v
    v = max(v + STEP * acceleration, 0.0)
    scene.progress[i], scene.speed[i] = position, v
    xy, heading, length = fleet.xy, fleet.heading, fleet.length
    first, end = fleet.rail[i], fleet.rail[i + 1]
    half_length, half_width, pose = fleet.half[i, 0], fleet.half[i, 1], scene.poses[i]
    rail_pose(xy, heading, length, first, end, position, pose)
    scene.cosines[i], scene.sines[i] = math.cos(pose[2]), math.sin(pose[2])
    box_ring(pose, half_length, half_width, scene.boxes[i])
    start, stop = position - half_length, position + half_length + HEADWAY * v
    scene.ends[i, 0], scene.ends[i, 1] = start, stop
    scene.sizes[i] = -1
    # Around the box and the band, at an end of the rail around a whole segment.
    radius = half_length + half_width + HEADWAY * v
    if start >= length[end - 1]:
        radius += length[end - 1] - length[end - 2]
    if stop <= length[first]:
        radius += length[first + 1] - length[first]
    circle = scene.circles[i]
    circle[0], circle[1], circle[2] = pose[0], pose[1], radius


@kernel
def _stand(fleet: Fleet, alive: Bools, boxes: Floats, observed: Floats, speed: Floats) -> None:
    """Write the boxes (M, 4) and speeds (M,) of others that stand in a map, in nobody's place."""
    taken = np.empty(len(fleet.standing_rows), np.bool_)
    for s in range(len(fleet.standing_rows)):
        box, half = fleet.standing[s], fleet.standing_half[s]
        is_free = True
        for i in range(len(alive)):
            if alive[i] and is_free:
                is_free = not _boxes_touch(box, half, boxes[fleet.rows[i]], fleet.half[i])
        for other in range(s):
            if taken[other] and is_free:
                is_free = not _boxes_touch(box, half, fleet.standing[other], fleet.standing_half[other])
        taken[s] = is_free
        if is_free:
            row = fleet.standing_rows[s]
            boxes[row] = box
            speed[row] = observed[row]


@kernel
def _boxes_touch(box: Floats, half: Floats, other: Floats, other_half: Floats) -> bool:
    return boxes_touch(
        other[0] - box[0],
        other[1] - box[1],
        box[2],
        box[3],
        half[0],
        half[1],
        other[2],
        other[3],
        other_half[0],
        other_half[1],
    )
