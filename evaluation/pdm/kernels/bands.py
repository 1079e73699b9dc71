"""Bands around polylines, as GEOS buffers a line: flat ends, round joins of sixteen segments per quarter.

The vertices are those of ``shapely.buffer(line, half, quad_segs=16, cap_style="flat")`` but for what its
noding takes away, which is inside of the band.
"""

from __future__ import annotations

import math

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats, Ints

QUARTER_SEGMENTS = 16
ARC = 0.5 * math.pi / QUARTER_SEGMENTS
"""Angle of one segment of a round join [rad]."""
SHALLOW = 0.01
"""A concave vertex nearer than this to the one before is dropped [half widths]."""
SAME_OFFSET = 1e-3
"""Ends of two offset segments nearer than this are one vertex [half widths]."""
SAME_VERTEX = 1e-6
"""A vertex nearer than this to the one before is left out [half widths]."""
CLOSING = 80.0
"""Where offset segments do not meet, the ring turns back by one part in so many, inside of the band."""
LEFT, RIGHT = 1.0, -1.0


def ring_capacity(vertices: int, turning: float) -> int:
    """Vertices that the ring of any piece of a polyline has at most.

    Args: number of its vertices, and the sum of its turns [rad].
    """
    # Four per join and side and the segments of its arc, rounded up; ends may fold back, four half turns.
    return 2 * (5 * (vertices + 2) + math.ceil(turning / ARC)) + 8 * 2 * QUARTER_SEGMENTS + 8


@kernel
def band_ring(line: Floats, half: float, ring: Floats) -> int:
    """Write the ring around a polyline (n, 2) to ``ring`` (capacity, 2); return its number of vertices.

    The ring is not closed, runs clockwise, and may overlap itself at sharp bends: what it winds around is the
    band.
    """
    kept = np.empty(len(line), np.int64)
    n = 0
    for side in (LEFT, RIGHT):
        count = _without_shallow(line, half, side, kept)
        if side == RIGHT:
            kept[:count] = kept[:count][::-1].copy()
        n = _offset_side(line, kept, count, half, ring, n)
    x, y = ring[n - 1, 0] - ring[0, 0], ring[n - 1, 1] - ring[0, 1]
    if x * x + y * y < (SAME_VERTEX * half) ** 2:
        n -= 1
    return n


@kernel
def _append(ring: Floats, n: int, x: float, y: float, half: float) -> int:
    if n > 0:
        dx, dy = x - ring[n - 1, 0], y - ring[n - 1, 1]
        if dx * dx + dy * dy < (SAME_VERTEX * half) ** 2:
            return n
    if n == len(ring):
        raise ValueError("the ring of a band has more vertices than there is room for")
    ring[n, 0], ring[n, 1] = x, y
    return n + 1


@kernel
def _without_shallow(line: Floats, half: float, side: float, kept: Ints) -> int:
    """Rows of a line that count on one side: no repeated ones, no shallow bends on the inside."""
    kept[0], count = 0, 1
    nearest, shallow = np.inf, (SHALLOW * half) ** 2
    for i in range(1, len(line)):
        dx, dy = line[i, 0] - line[kept[count - 1], 0], line[i, 1] - line[kept[count - 1], 1]
        if dx != 0.0 or dy != 0.0:
            kept[count] = i
            count += 1
            nearest = min(nearest, dx * dx + dy * dy)
    changed = nearest < shallow
    while changed:
        changed, i = False, 1
        while i + 2 < count:
            a, b, c = kept[i], kept[i + 1], kept[i + 2]
            ux, uy = line[b, 0] - line[a, 0], line[b, 1] - line[a, 1]
            vx, vy = line[c, 0] - line[b, 0], line[c, 1] - line[b, 1]
            if ux * ux + uy * uy < shallow and (ux * vy - uy * vx) * side > 0.0:
                for j in range(i + 1, count - 1):
                    kept[j] = kept[j + 1]
                count -= 1
                changed = True
            i += 1
    return count


@kernel
def _offset_side(line: Floats, kept: Ints, count: int, half: float, ring: Floats, n: int) -> int:
    """Append the joins to the left of the kept vertices, then the flat end."""
    last_x, last_y = line[kept[0], 0], line[kept[0], 1]
    x, y = line[kept[1], 0], line[kept[1], 1]
    ux, uy = x - last_x, y - last_y
    scale = half / math.sqrt(ux * ux + uy * uy)
    ax, ay = -uy * scale, ux * scale
    for i in range(1, count - 1):
        next_x, next_y = line[kept[i + 1], 0], line[kept[i + 1], 1]
        vx, vy = next_x - x, next_y - y
        scale = half / math.sqrt(vx * vx + vy * vy)
        bx, by = -vy * scale, vx * scale
        turn = ux * vy - uy * vx
        if turn != 0.0 or ax * bx + ay * by < 0.0:
            n = _join(ring, n, last_x, last_y, x, y, next_x, next_y, ax, ay, bx, by, turn, half)
        last_x, last_y, x, y, ux, uy, ax, ay = x, y, next_x, next_y, vx, vy, bx, by
    n = _append(ring, n, x + ax, y + ay, half)
    return _append(ring, n, x - ax, y - ay, half)


@kernel
def _join(
    ring: Floats,
    n: int,
    last_x: float,
    last_y: float,
    x: float,
    y: float,
    next_x: float,
    next_y: float,
    ax: float,
    ay: float,
    bx: float,
    by: float,
    turn: float,
    half: float,
) -> int:
    """Append the join at (x, y) of segments with the offsets a and b."""
    is_one = (ax - bx) ** 2 + (ay - by) ** 2 < (SAME_OFFSET * half) ** 2
    if turn <= 0.0:
        n = _append(ring, n, x + ax, y + ay, half)
        if not is_one:
            n = _arc(ring, n, x, y, math.atan2(ay, ax), math.atan2(by, bx), half)
            n = _append(ring, n, x + bx, y + by, half)
        return n
    # Inner bend: offset segments p + t u and q + s v.
    px, py, ux, uy = last_x + ax, last_y + ay, x - last_x, y - last_y
    qx, qy, vx, vy = x + bx, y + by, next_x - x, next_y - y
    t = ((qx - px) * vy - (qy - py) * vx) / turn
    s = ((qx - px) * uy - (qy - py) * ux) / turn
    if 0.0 <= t <= 1.0 and 0.0 <= s <= 1.0:
        return _append(ring, n, px + t * ux, py + t * uy, half)
    n = _append(ring, n, x + ax, y + ay, half)
    if not is_one:
        share = CLOSING / (CLOSING + 1.0)
        n = _append(ring, n, x + share * ax, y + share * ay, half)
        n = _append(ring, n, x + share * bx, y + share * by, half)
        n = _append(ring, n, x + bx, y + by, half)
    return n


@kernel
def _arc(ring: Floats, n: int, x: float, y: float, start: float, end: float, half: float) -> int:
    """Append the vertices of a clockwise arc, without its end."""
    if start <= end:
        start += 2.0 * math.pi
    count = int((start - end) / ARC + 0.5)
    for i in range(count):
        angle = start - i * ((start - end) / count)
        n = _append(ring, n, x + half * math.cos(angle), y + half * math.sin(angle), half)
    return n
