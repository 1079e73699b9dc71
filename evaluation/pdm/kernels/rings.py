"""Distances between rings: boxes and bands as polygons without holes."""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats

TOUCHING = 1e-7
"""Nearer than this is a touch [m]; edges that lie on each other are apart by rounding."""


@kernel
def point_segment(px: float, py: float, ax: float, ay: float, bx: float, by: float) -> float:
    """Squared distance of a point to a segment."""
    ux, uy, dx, dy = bx - ax, by - ay, px - ax, py - ay
    square = ux * ux + uy * uy
    along = dx * ux + dy * uy
    if square == 0.0 or along <= 0.0:
        return dx * dx + dy * dy
    if along >= square:
        return (px - bx) ** 2 + (py - by) ** 2
    cross = ux * dy - uy * dx
    return cross * cross / square


@kernel
def box_ring(pose: Floats, half_length: float, half_width: float, ring: Floats) -> None:
    """Write the corners of a box around a pose (>= 3,) x, y, heading to ``ring`` (4, 2), clockwise."""
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    for i in range(4):
        along = half_length if i == 1 or i == 2 else -half_length
        across = half_width if i < 2 else -half_width
        ring[i, 0] = pose[0] + along * cos - across * sin
        ring[i, 1] = pose[1] + along * sin + across * cos


@kernel
def separation(a: Floats, b: Floats, x: float, y: float) -> float:
    """How far b (m, 2) lies beyond a (n, 2) in a direction, a unit vector; negative if it does not."""
    end, start = -np.inf, np.inf
    for i in range(len(a)):
        end = max(end, a[i, 0] * x + a[i, 1] * y)
    for j in range(len(b)):
        start = min(start, b[j, 0] * x + b[j, 1] * y)
    return start - end


@kernel
def winds_around(ring: Floats, x: float, y: float) -> bool:
    """Whether a ring (n, 2) winds around a point; where it overlaps itself as well."""
    winding, last = 0, len(ring) - 1
    for i in range(len(ring)):
        ax, ay, bx, by = ring[last, 0], ring[last, 1], ring[i, 0], ring[i, 1]
        last = i
        if (ay > y) == (by > y):
            continue
        left = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        if by > ay and left > 0.0:
            winding += 1
        elif by < ay and left < 0.0:
            winding -= 1
    return winding != 0


@kernel
def ring_distance(a: Floats, b: Floats, limit: float) -> float:
    """Distance of polygons (n, 2), (m, 2), 0 if they touch; ``limit`` if they are not nearer than that."""
    if winds_around(a, b[0, 0], b[0, 1]) or winds_around(b, a[0, 0], a[0, 1]):
        return 0.0
    best = limit * limit
    for i in range(len(a)):
        for j in range(len(b)):
            dx, dy = a[i, 0] - b[j, 0], a[i, 1] - b[j, 1]
            best = min(best, dx * dx + dy * dy)
    last_a = len(a) - 1
    for i in range(len(a)):
        ax, ay, bx, by = a[last_a, 0], a[last_a, 1], a[i, 0], a[i, 1]
        last_a = i
        low_x, high_x, low_y, high_y = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
        last_b = len(b) - 1
        for j in range(len(b)):
            cx, cy, dx, dy = b[last_b, 0], b[last_b, 1], b[j, 0], b[j, 1]
            last_b = j
            apart_x = max(max(min(cx, dx) - high_x, low_x - max(cx, dx)), 0.0)
            apart_y = max(max(min(cy, dy) - high_y, low_y - max(cy, dy)), 0.0)
            if apart_x * apart_x + apart_y * apart_y > best:
                continue
            ux, uy, vx, vy = bx - ax, by - ay, dx - cx, dy - cy
            side_c, side_d = ux * (cy - ay) - uy * (cx - ax), ux * (dy - ay) - uy * (dx - ax)
            side_a, side_b = vx * (ay - cy) - vy * (ax - cx), vx * (by - cy) - vy * (bx - cx)
            if side_c * side_d < 0.0 and side_a * side_b < 0.0:
                return 0.0
            best = min(
                best,
                min(
                    min(point_segment(cx, cy, ax, ay, bx, by), point_segment(dx, dy, ax, ay, bx, by)),
                    min(point_segment(ax, ay, cx, cy, dx, dy), point_segment(bx, by, cx, cy, dx, dy)),
                ),
            )
            if best <= TOUCHING * TOUCHING:
                return 0.0
    return math.sqrt(best)


@kernel
def rings_touch(a: Floats, b: Floats) -> bool:
    """Whether two polygons have a point in common."""
    return ring_distance(a, b, 2.0 * TOUCHING) == 0.0
