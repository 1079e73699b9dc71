"""Whether a box touches a polygon: obstacles of a corridor, the ego on a red lane."""

from __future__ import annotations

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Floats


@kernel
def segment_in_box(ax: float, ay: float, bx: float, by: float, half_length: float, half_width: float) -> bool:
    """Whether a segment, given in the frame of a box, has a point in common with it."""
    if min(ax, bx) > half_length or max(ax, bx) < -half_length:
        return False
    if min(ay, by) > half_width or max(ay, by) < -half_width:
        return False
    nx, ny = ay - by, bx - ax
    return abs(nx * ax + ny * ay) <= abs(nx) * half_length + abs(ny) * half_width


@kernel
def box_in_corridor(box: Floats, half_length: float, half_width: float, edges: Floats) -> bool:
    """Whether a box x, y, cos, sin touches the polygon with these edges (E, 4)."""
    x, y, cos, sin = box[0], box[1], box[2], box[3]
    reach = half_length + half_width
    inside = False
    for e in range(len(edges)):
        ax, ay, bx, by = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        if (ay > y) != (by > y) and x < ax + (bx - ax) * ((y - ay) / (by - ay)):
            inside = not inside
        if min(ax, bx) - reach > x or max(ax, bx) + reach < x:
            continue
        if min(ay, by) - reach > y or max(ay, by) + reach < y:
            continue
        ax, ay, bx, by = ax - x, ay - y, bx - x, by - y
        if segment_in_box(
            ax * cos + ay * sin,
            ay * cos - ax * sin,
            bx * cos + by * sin,
            by * cos - bx * sin,
            half_length,
            half_width,
        ):
            return True
    return inside
