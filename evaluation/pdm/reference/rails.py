"""Rails that simulated vehicles drive along: poses and pieces (EPDMS_TWO_STAGE, sections 4.3, 4.4).

Tuples of arrays are costly to hand on, so functions that are called often take what they read.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints


class Fleet(NamedTuple):
    """A simulated vehicles on their rails, and S others that stand unless somebody is in their place."""

    rows: Ints
    """(A,) rows in the tracks."""
    half: Floats
    """(A, 2) half length and half width [m]."""
    snapped: Floats
    """(A, 3) first poses, on the baselines, perhaps beyond the rails."""
    progress: Floats
    speed: Floats
    target: Floats
    """(A,) where they start [m], at what speed, and the speed that they want [m/s]."""
    rail: Ints
    """(A + 1,) first vertex of each rail."""
    xy: Floats
    heading: Floats
    length: Floats
    """Vertices (V, 2) of the rails, their headings (V,), unwrapped, and arc lengths (V,)."""
    capacity: int
    """Vertices of the ring of any band on a rail, at most."""
    standing_rows: Ints
    standing: Floats
    standing_half: Floats
    """(S,) rows in the tracks, (S, 4) boxes x, y, cos, sin, and (S, 2) half sizes."""


@kernel
def _first_beyond(length: Floats, first: int, end: int, position: float, or_at: bool) -> int:
    """First vertex of a rail ``first .. end`` beyond an arc length, or at it; ``end`` if there is none."""
    while first < end:
        middle = (first + end) // 2
        if length[middle] > position or (or_at and length[middle] == position):
            end = middle
        else:
            first = middle + 1
    return first


@kernel
def rail_pose(
    xy: Floats, heading: Floats, length: Floats, first: int, end: int, position: float, pose: Floats
) -> None:
    """Write the pose (3,) at an arc length, clamped to the rail; heading in [-pi, pi)."""
    at = min(max(position, length[first]), length[end - 1])
    j = min(_first_beyond(length, first, end, at, False), end - 1) - 1
    since, span = at - length[j], length[j + 1] - length[j]
    if since == span:  # the end
        pose[0], pose[1], angle = xy[j + 1, 0], xy[j + 1, 1], heading[j + 1]
    else:
        pose[0] = (xy[j + 1, 0] - xy[j, 0]) / span * since + xy[j, 0]
        pose[1] = (xy[j + 1, 1] - xy[j, 1]) / span * since + xy[j, 1]
        angle = (heading[j + 1] - heading[j]) / span * since + heading[j]
    pose[2] = (angle + math.pi) % (2 * math.pi) - math.pi


@kernel
def line_ahead(
    xy: Floats, length: Floats, first: int, end: int, position: float, pose: Floats, line: Floats
) -> int:
    """Write what a vehicle drives along to ``line``: its pose and the vertices ahead, or the last two."""
    at = min(max(position, length[first]), length[end - 1])
    start = _first_beyond(length, first, end, at, False)
    size = 0
    if start == end:
        start = end - 2
    else:
        line[0, 0], line[0, 1] = pose[0], pose[1]
        size = 1
    for j in range(start, end):
        line[size, 0], line[size, 1] = xy[j, 0], xy[j, 1]
        size += 1
    return size


@kernel
def rail_part(fleet: Fleet, i: int, start: float, stop: float, line: Floats) -> int:
    """Write a piece of a rail between two arc lengths to ``line``; at an end of the rail two vertices."""
    xy, heading, length = fleet.xy, fleet.heading, fleet.length
    low, end = fleet.rail[i], fleet.rail[i + 1]
    start = min(max(start, length[low]), length[end - 1])
    stop = min(max(stop, length[low]), length[end - 1])
    first = _first_beyond(length, low, end, start, False)
    last = _first_beyond(length, low, end, stop, True)
    if first == end:
        line[:2] = xy[end - 2 : end]
        return 2
    if last == low:
        line[:2] = xy[low : low + 2]
        return 2
    pose, n = np.empty(3), max(last - first, 0)
    rail_pose(xy, heading, length, low, end, start, pose)
    line[0] = pose[:2]
    line[1 : 1 + n] = xy[first : first + n]
    rail_pose(xy, heading, length, low, end, stop, pose)
    line[1 + n] = pose[:2]
    return n + 2
