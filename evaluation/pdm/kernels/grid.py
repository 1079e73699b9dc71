"""Which polygons hold a point: a grid over the scene that answers with a bit mask (PDMS_V1, section 4).

Every cell knows, for all polygons at once, whether its centre is inside, and lists the edges that touch it. A
point is inside a polygon if the way from the centre of its cell crosses an even number of the polygon's edges
and the centre is inside, or an odd number and the centre is outside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Indices, Ints
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings

SIZE = 100
"""Cells per side; a matter of speed only, as is where the grid lies."""
HALF_EXTENT = 100.0
"""The grid reaches so far from its centre [m]; points beyond are tested against all edges."""
SLACK = 1e-6
"""An edge is listed in every cell it comes this close to [m]."""


class Grid(NamedTuple):
    """Polygons of a scene, prepared for :func:`locate`. Masks are int64 words, one bit per polygon."""

    x0: float
    y0: float
    cell: float
    """Side of a cell [m]."""
    inside: Ints
    """(SIZE * SIZE, W) which polygons hold the centre of the cell."""
    starts: Indices
    """Edges near a cell: ``near[starts[cell] : starts[cell + 1]]``."""
    near: Floats
    """(K, 4) x0, y0, x1, y1 from the centre of the cell; coordinates this small lose nothing by it."""
    near_polygon: Indices
    """(K,)"""
    edges: Floats
    edge_starts: Ints
    bounds: Floats
    """(P, 4) min x, min y, max x, max y."""


def build_grid(polygons: PolygonRings, x: float, y: float, half_extent: float = HALF_EXTENT) -> Grid:
    """Prepare polygons for :func:`locate`; the grid is centred at (x, y) and reaches ``half_extent`` [m]."""
    edges, starts = polygons.edges()
    # Off round numbers, so that no centre of a cell lies on an edge of a map drawn on a lattice.
    x0, y0 = x - half_extent - 0.0137, y - half_extent - 0.0171
    cell = 2.0 * half_extent / SIZE
    words = max((len(polygons) + 63) // 64, 1)
    return Grid(x0, y0, cell, *_fill(edges, starts, x0, y0, cell, words))


def bit_mask(member: Bools) -> Ints:
    """Pack (..., P) booleans into (..., W) words.

    >>> bit_mask(np.array([True, False, True])).tolist()
    [5]
    """
    words = max((member.shape[-1] + 63) // 64, 1)
    padded = np.zeros((*member.shape[:-1], words * 64), dtype=bool)
    padded[..., : member.shape[-1]] = member
    return np.packbits(padded, axis=-1, bitorder="little").view(np.int64).copy()


@kernel
def side(x0: float, y0: float, x1: float, y1: float, x: float, y: float) -> float:
    """Positive if (x, y) is left of the edge, 0 on its line."""
    return (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)


@kernel
def _columns(edge: Floats, low: float, high: float) -> tuple[float, float]:
    """Range of x [m] that an edge covers between two values of y."""
    x_first, y_first, x_last, y_last = edge[0], edge[1], edge[2], edge[3]
    if y_first > y_last:
        x_first, y_first, x_last, y_last = x_last, y_last, x_first, y_first
    dx, dy = x_last - x_first, y_last - y_first
    x_start = x_first + dx * ((low - y_first) / dy) if low > y_first else x_first
    x_end = x_first + dx * ((high - y_first) / dy) if high < y_last else x_last
    return min(x_start, x_end), max(x_start, x_end)


@kernel
def _near_cells(
    edges: Floats, starts: Ints, kept: Bools, x0: float, y0: float, cell: float, counts: Indices
) -> tuple[Indices, Indices, Indices]:
    """All triples (cell, edge, polygon) of an edge that comes close to a cell, in the order of the edges.

    Adds to ``counts`` (SIZE * SIZE,) how many edges each cell has. Polygons that are not kept have none.
    """
    capacity = 2 * len(edges) + 1024
    cells, owners = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    polygons = np.empty(capacity, np.int32)
    count = 0
    per_metre = 1.0 / cell
    # Reciprocals and differences are rounded; the slack is far more than that.
    end_x, end_y = x0 + SIZE * cell, y0 + SIZE * cell
    for p in range(len(kept)):
        for e in range(starts[p], starts[p + 1] if kept[p] else starts[p]):
            ax, ay, bx, by = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
            low_x, high_x = min(ax, bx) - SLACK, max(ax, bx) + SLACK
            low_y, high_y = min(ay, by) - SLACK, max(ay, by) + SLACK
            if not (high_y >= y0 and low_y < end_y and high_x >= x0 and low_x < end_x):
                continue
            first_row = max(int((low_y - y0) * per_metre), 0)
            last_row = min(int((high_y - y0) * per_metre), SIZE - 1)
            first_column = max(int((low_x - x0) * per_metre), 0)
            last_column = min(int((high_x - x0) * per_metre), SIZE - 1)
            slanted = first_row < last_row and first_column < last_column
            for row in range(first_row, last_row + 1):
                first, last = first_column, last_column
                if slanted:
                    low, high = y0 + row * cell - SLACK, y0 + (row + 1) * cell + SLACK
                    left, right = _columns(edges[e], low, high)
                    first = max(int(max((left - SLACK - x0) * per_metre, 0.0)), first_column)
                    last = min(int(max((right + SLACK - x0) * per_metre, -1.0)), last_column)
                if count + last - first >= capacity:
                    more = np.empty(capacity, np.int32)
                    cells, owners = np.concatenate((cells, more)), np.concatenate((owners, more))
                    polygons = np.concatenate((polygons, more))
                    capacity *= 2
                for column in range(first, last + 1):
                    cells[count], owners[count], polygons[count] = row * SIZE + column, e, p
                    counts[row * SIZE + column] += 1
                    count += 1
    return cells[:count], owners[:count], polygons[:count]


@kernel
def _toggle_rows(
    edges: Floats, first: int, last: int, x0: float, y0: float, cell: float, bit: np.int64, toggles: Ints
) -> None:
    """Toggle, for edges first .. last, the first centre to their right in every row of centres they cross.

    Args: toggles (SIZE, SIZE) one word of the masks.
    """
    per_metre = 1.0 / cell
    for e in range(first, last):
        ax, ay, bx, by = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
        low, high = min(ay, by), max(ay, by)
        start = max((low - y0) * per_metre - 1.5, 0.0)
        if not start < SIZE or high < y0:
            continue
        for row in range(int(start), SIZE):
            y = y0 + (row + 0.5) * cell
            if y >= high:
                break
            if y < low:
                continue
            x = ax + (bx - ax) * ((y - ay) / (by - ay))
            column = int(min(max((x - x0) * per_metre - 0.5, -1.0), SIZE + 1.0)) + 1
            up = by > ay
            # The same predicate as in ``locate`` has the last word.
            while column > 0 and (side(ax, ay, bx, by, x0 + (column - 0.5) * cell, y) > 0.0) != up:
                column -= 1
            while column < SIZE and (side(ax, ay, bx, by, x0 + (column + 0.5) * cell, y) > 0.0) == up:
                column += 1
            if column < SIZE:
                toggles[row, column] ^= bit


@kernel
def _bounds(edges: Floats, starts: Ints) -> Floats:
    bounds = np.empty((len(starts) - 1, 4))
    for p in range(len(bounds)):
        low_x, low_y, high_x, high_y = np.inf, np.inf, -np.inf, -np.inf
        for e in range(starts[p], starts[p + 1]):
            # Rings are closed: every vertex starts an edge.
            x, y = edges[e, 0], edges[e, 1]
            low_x, low_y, high_x, high_y = min(low_x, x), min(low_y, y), max(high_x, x), max(high_y, y)
        bounds[p, 0], bounds[p, 1], bounds[p, 2], bounds[p, 3] = low_x, low_y, high_x, high_y
    return bounds


@kernel
def _fill(
    edges: Floats, starts: Ints, x0: float, y0: float, cell: float, words: int
) -> tuple[Ints, Indices, Floats, Indices, Floats, Ints, Floats]:
    bounds = _bounds(edges, starts)
    kept = np.empty(len(bounds), np.bool_)
    inside = np.zeros((SIZE * SIZE, words), np.int64)
    toggles = inside.reshape(SIZE, SIZE, words)
    end_x, end_y = x0 + SIZE * cell + SLACK, y0 + SIZE * cell + SLACK
    for p in range(len(bounds)):
        # What lies beside the grid toggles every row an even number of times.
        kept[p] = not (
            bounds[p, 0] > end_x
            or bounds[p, 1] > end_y
            or bounds[p, 2] < x0 - SLACK
            or bounds[p, 3] < y0 - SLACK
        )
        if kept[p]:
            bit = np.int64(1) << (p & 63)
            _toggle_rows(edges, starts[p], starts[p + 1], x0, y0, cell, bit, toggles[:, :, p >> 6])
    for row in range(SIZE):
        for c in range(row * SIZE + 1, (row + 1) * SIZE):
            for w in range(words):
                inside[c, w] ^= inside[c - 1, w]
    cell_starts = np.zeros(SIZE * SIZE + 2, np.int32)
    cells, owners, polygons = _near_cells(edges, starts, kept, x0, y0, cell, cell_starts[2:])
    for c in range(2, SIZE * SIZE + 2):
        cell_starts[c] += cell_starts[c - 1]
    near, near_polygon = np.empty((len(cells), 4)), np.empty(len(cells), np.int32)
    for i in range(len(cells)):
        c, e = cells[i], owners[i]
        k = cell_starts[c + 1]
        cell_starts[c + 1] = k + 1
        cx, cy = x0 + (c % SIZE + 0.5) * cell, y0 + (c // SIZE + 0.5) * cell
        near[k, 0], near[k, 1] = edges[e, 0] - cx, edges[e, 1] - cy
        near[k, 2], near[k, 3] = edges[e, 2] - cx, edges[e, 3] - cy
        near_polygon[k] = polygons[i]
    return inside, cell_starts[:-1].copy(), near, near_polygon, edges, starts, bounds


@kernel
def _on_edge(edge: Floats, x: float, y: float) -> bool:
    return min(edge[0], edge[2]) <= x <= max(edge[0], edge[2]) and min(edge[1], edge[3]) <= y <= max(
        edge[1], edge[3]
    )


@kernel
def _locate_far(grid: Grid, x: float, y: float, mask: Ints) -> None:
    """As :func:`locate`, for a point beyond the grid: crossings of a ray to the right."""
    for p in range(len(grid.bounds)):
        box = grid.bounds[p]
        if not (box[0] <= x <= box[2] and box[1] <= y <= box[3]):
            continue
        odd = False
        for e in range(grid.edge_starts[p], grid.edge_starts[p + 1]):
            edge = grid.edges[e]
            s = side(edge[0], edge[1], edge[2], edge[3], x, y)
            if s == 0.0 and _on_edge(edge, x, y):
                odd = False
                break
            if (edge[1] > y) != (edge[3] > y) and (s > 0.0) == (edge[3] > edge[1]):
                odd = not odd
        if odd:
            mask[p >> 6] |= np.int64(1) << (p & 63)


@kernel
def locate(grid: Grid, points: Floats, masks: Ints) -> None:
    """Set masks (N, W) to the polygons that hold points (N, 2); a point on a boundary is outside."""
    # Read once: a field of a tuple of arrays costs as much as a point if it is read in a loop.
    x0, y0, cell, words = grid.x0, grid.y0, grid.cell, grid.inside.shape[1]
    inside, starts, near, near_polygon = grid.inside, grid.starts, grid.near, grid.near_polygon
    for n in range(len(points)):
        x, y = points[n, 0], points[n, 1]
        column, row = (x - x0) / cell, (y - y0) / cell
        if not (0.0 <= column < SIZE and 0.0 <= row < SIZE):
            masks[n] = 0
            _locate_far(grid, x, y, masks[n])
            continue
        c = int(row) * SIZE + int(column)
        for w in range(words):
            masks[n, w] = inside[c, w]
        first, last = starts[c], starts[c + 1]
        x -= x0 + (int(column) + 0.5) * cell
        y -= y0 + (int(row) + 0.5) * cell
        boundary = False
        for i in range(first, last):
            ax, ay, bx, by = near[i, 0], near[i, 1], near[i, 2], near[i, 3]
            ux, uy = bx - ax, by - ay
            s = ux * (y - ay) - uy * (x - ax)
            boundary |= s == 0.0
            # The ends of the edge lie on both sides of the way, those of the way on both sides of the edge.
            if (x * ay - y * ax > 0.0) != (x * by - y * bx > 0.0) and (s > 0.0) != (uy * ax - ux * ay > 0.0):
                p = near_polygon[i]
                masks[n, p >> 6] ^= np.int64(1) << (p & 63)
        if boundary:
            for i in range(first, last):
                edge = near[i]
                if side(edge[0], edge[1], edge[2], edge[3], x, y) == 0.0 and _on_edge(edge, x, y):
                    p = near_polygon[i]
                    masks[n, p >> 6] &= ~(np.int64(1) << (p & 63))


@kernel
def locate_all(grid: Grid, points: Floats) -> Ints:
    """Masks (N, W) of points (N, 2)."""
    masks = np.empty((len(points), grid.inside.shape[1]), np.int64)
    locate(grid, points, masks)
    return masks
