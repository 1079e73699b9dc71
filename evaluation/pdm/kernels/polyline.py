"""Positions along a polyline: arc length, projection, interpolation (PDMS_V1, sections 11, 12.8)."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats


def arc_length(xy: Floats) -> Floats:
    """Distance along a polyline (V, 2) from its start to each vertex: (V,).

    >>> arc_length(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])).tolist()
    [0.0, 5.0, 6.0]
    """
    steps = np.sqrt((np.diff(xy, axis=0) ** 2).sum(axis=1))
    return np.concatenate([[0.0], np.cumsum(steps)])


@kernel
def square_distance(line: Floats, i: int, x: float, y: float) -> tuple[float, float]:
    """Squared distance of (x, y) to segment ``i`` of a polyline, and how far along it: 0 .. 1."""
    ax, ay = line[i, 0], line[i, 1]
    ux, uy = line[i + 1, 0] - ax, line[i + 1, 1] - ay
    dx, dy = x - ax, y - ay
    square = ux * ux + uy * uy
    along = dx * ux + dy * uy
    if along <= 0.0 or square == 0.0:
        return dx * dx + dy * dy, 0.0
    if along >= square:
        ex, ey = dx - ux, dy - uy
        return ex * ex + ey * ey, 1.0
    cross = ux * dy - uy * dx
    return cross * cross / square, along / square


@kernel
def project(line: Floats, length: Floats, x: float, y: float) -> float:
    """Arc length of the point of a polyline closest to (x, y); the first closest segment counts on ties.

    Args: line (V, >= 2) vertices, length (V,) their arc lengths.
    """
    best, position = np.inf, 0.0
    for i in range(len(line) - 1):
        distance, share = square_distance(line, i, x, y)
        if distance < best:
            best = distance
            position = length[i] + share * (length[i + 1] - length[i])
    return position


@kernel
def interpolate(line: Floats, length: Floats, position: float, pose: Floats) -> None:
    """Pose (3,) at an arc length; line (V, 3) is x, y and unwrapped heading.

    The position is clipped to 1e-5 m .. the length of the line, the heading wrapped to (-pi, pi].
    """
    position = min(max(position, 1e-5), length[-1])
    i = min(max(int(np.searchsorted(length, position)), 1), len(length) - 1)
    span = length[i] - length[i - 1]
    share = (position - length[i - 1]) / span if span > 0.0 else 0.0
    for c in range(3):
        pose[c] = line[i - 1, c] + share * (line[i, c] - line[i - 1, c])
    pose[2] = math.atan2(math.sin(pose[2]), math.cos(pose[2]))
