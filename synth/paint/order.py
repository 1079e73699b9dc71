"""The order in which solids are painted: what may be hidden comes first."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.jit import kernel


@kernel
def _side_hides(a, b, x, y):  # type: ignore[no-untyped-def]
    """Whether quad a may hide quad b from (x, y) by the edges of a: 1 yes, 0 no, -1 if none parts them."""
    answer = -1
    for i in range(4):
        j = (i + 1) % 4
        ex, ey = a[j, 0] - a[i, 0], a[j, 1] - a[i, 1]
        outside = True
        for k in range(4):
            if ex * (b[k, 1] - a[i, 1]) - ey * (b[k, 0] - a[i, 0]) > 1e-6:
                outside = False
                break
        if not outside:
            continue
        # b is beyond this edge. From beyond it as well, a cannot hide b; from a's side, b cannot hide a.
        here = ex * (y - a[i, 1]) - ey * (x - a[i, 0])
        if here > 1e-9:
            return 1
        answer = 0
    return answer


@kernel
def paint_order(feet, rotation, translation, left, right, reach):  # type: ignore[no-untyped-def]
    """Indices of the solids that a camera may see, in painting order.

    Solids whose feet (S, 4, 2) are disjoint come out so that nothing is painted over what hides it; those
    that overlap are painted by distance. ``left`` and ``right`` are the tangents of the view's borders,
    ``reach`` [m] the distance beyond which nothing is painted.
    """
    count = len(feet)
    x, y = translation[0], translation[1]
    low = np.empty(count)
    high = np.empty(count)
    far = np.empty(count)
    seen = np.empty(count, dtype=np.int64)
    total = 0
    for s in range(count):
        nearest = 1e18
        lowest, highest = 1e9, -1e9
        ahead = False
        whole = True
        for i in range(4):
            dx, dy = feet[s, i, 0] - x, feet[s, i, 1] - y
            depth = rotation[0, 2] * dx + rotation[1, 2] * dy
            side = rotation[0, 0] * dx + rotation[1, 0] * dy
            nearest = min(nearest, math.sqrt(dx * dx + dy * dy))
            if depth > 0.2:
                ahead = True
                lowest = min(lowest, side / depth)
                highest = max(highest, side / depth)
            else:
                whole = False
        if not ahead or nearest > reach:
            continue
        # Canopies and arms stick out of their feet; a margin keeps them until they have left the view.
        margin = 3.0 / max(nearest, 1.0)
        if whole and (highest < left - margin or lowest > right + margin):
            continue
        low[s] = lowest if whole else -1e9
        high[s] = highest if whole else 1e9
        far[s] = nearest
        seen[total] = s
        total += 1
    seen = seen[:total]
    by_distance = np.argsort(-far[seen], kind="mergesort")
    seen = seen[by_distance]
    before = np.zeros((total, total), dtype=np.bool_)
    waiting = np.zeros(total, dtype=np.int64)
    for i in range(total):
        a = seen[i]
        for j in range(i + 1, total):
            b = seen[j]
            if high[a] < low[b] or high[b] < low[a]:
                continue
            first = _side_hides(feet[a], feet[b], x, y)
            second = _side_hides(feet[b], feet[a], x, y)
            a_cannot_hide = first == 0 or second == 1
            b_cannot_hide = first == 1 or second == 0
            if a_cannot_hide and not b_cannot_hide:
                before[i, j] = True
                waiting[j] += 1
            elif b_cannot_hide and not a_cannot_hide:
                before[j, i] = True
                waiting[i] += 1
    order = np.empty(total, dtype=np.int64)
    done = np.zeros(total, dtype=np.bool_)
    for n in range(total):
        chosen = -1
        for i in range(total):
            if not done[i] and waiting[i] == 0:
                chosen = i
                break
        if chosen < 0:
            for i in range(total):
                if not done[i]:
                    chosen = i
                    break
        done[chosen] = True
        order[n] = seen[chosen]
        for i in range(total):
            if before[chosen, i]:
                waiting[i] -= 1
    return order


def rectangles(
    center: NDArray[np.float64],
    heading: NDArray[np.float64],
    length: NDArray[np.float64],
    width: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Feet (N, 4, 2) of boxes, counter-clockwise."""
    cos, sin = np.cos(heading), np.sin(heading)
    along = np.stack([cos, sin], axis=-1) * (length / 2)[:, None]
    left = np.stack([-sin, cos], axis=-1) * (width / 2)[:, None]
    return np.stack(
        [center - along - left, center + along - left, center + along + left, center - along + left], axis=1
    )
