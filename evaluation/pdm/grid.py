"""Which polygons hold a point: a grid over the scene that answers with a bit mask (PDMS_V1, section 4).

Every cell knows, for all polygons at once, whether its centre is inside, and lists the edges that touch it. A
point is inside a polygon if the way from the centre of its cell crosses an even number of the polygon's edges
and the centre is inside, or an odd number and the centre is outside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beyonddrive.evaluation.pdm.arrays import Bools, Floats, Indices, Ints
from beyonddrive.evaluation.pdm.jit import kernel
from beyonddrive.evaluation.pdm.polygons import PolygonRings

CELL = 2.0
"""Side of a cell [m]; a matter of speed only."""
HALF_EXTENT = 100.0
"""The grid reaches so far from its centre [m]; points beyond are tested against all edges."""
SLACK = 1e-6
"""An edge is listed in every cell it comes this close to [m]."""


class Grid(NamedTuple):
    """Polygons of a scene, prepared for :func:`locate`. Masks are int64 words, one bit per polygon."""

    x0: float
    y0: float
    size: int
    inside: Ints
    """(size * size, W) which polygons hold the centre of the cell."""
    cell_starts: Ints
    cell_edges: Indices
    """Edges near a cell: ``cell_edges[cell_starts[cell] : cell_starts[cell + 1]]``."""
    edges: Floats
    edge_starts: Ints
    edge_polygon: Indices
    bounds: Floats
    """(P, 4) min x, min y, max x, max y."""


def build_grid(polygons: PolygonRings, x: float, y: float) -> Grid:
    """Prepare polygons for :func:`locate`; the grid is centred at (x, y)."""
    edges, starts = polygons.edges()
    size = round(2 * HALF_EXTENT / CELL)
    # Off round numbers, so that no centre of a cell lies on an edge of a map drawn on a lattice.
    x0, y0 = x - HALF_EXTENT - 0.0137, y - HALF_EXTENT - 0.0171
    words = max((len(polygons) + 63) // 64, 1)
    owner, bounds, inside, cell_starts, cell_edges = _fill(edges, starts, x0, y0, size, words)
    return Grid(x0, y0, size, inside, cell_starts, cell_edges, edges, starts, owner, bounds)


def bit_mask(member: Bools) -> Ints:
    """Pack (P,) booleans into (W,) words.

    >>> bit_mask(np.array([True, False, True])).tolist()
    [5]
    """
    words = max((len(member) + 63) // 64, 1)
    padded = np.zeros(words * 64, dtype=bool)
    padded[: len(member)] = member
    return np.packbits(padded, bitorder="little").view(np.int64).copy()


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
def _near_cells(edges: Floats, x0: float, y0: float, size: int) -> tuple[Indices, Indices]:
    """All pairs (cell, edge) of an edge that comes close to a cell, in the order of the edges."""
    capacity = 4 * len(edges) + 1024
    cells, owners = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    count = 0
    for e in range(len(edges)):
        edge = edges[e]
        bottom = (min(edge[1], edge[3]) - SLACK - y0) / CELL
        top = (max(edge[1], edge[3]) + SLACK - y0) / CELL
        if not (top >= 0.0 and bottom < size):
            continue
        if not (max(edge[0], edge[2]) + SLACK >= x0 and min(edge[0], edge[2]) - SLACK < x0 + size * CELL):
            continue
        for row in range(int(max(bottom, 0.0)), int(min(top, size - 0.5)) + 1):
            low, high = y0 + row * CELL - SLACK, y0 + (row + 1) * CELL + SLACK
            left, right = _columns(edge, low, high)
            left = (left - SLACK - x0) / CELL
            right = (right + SLACK - x0) / CELL
            if right < 0.0 or left >= size:
                continue
            first, last = int(max(left, 0.0)), int(min(right, size - 0.5))
            if count + last - first >= capacity:
                cells = np.concatenate((cells, np.empty(capacity, np.int32)))
                owners = np.concatenate((owners, np.empty(capacity, np.int32)))
                capacity *= 2
            for column in range(first, last + 1):
                cells[count], owners[count] = row * size + column, e
                count += 1
    return cells[:count], owners[:count]


@kernel
def _fill(
    edges: Floats, starts: Ints, x0: float, y0: float, size: int, words: int
) -> tuple[Indices, Floats, Ints, Ints, Indices]:
    polygons = len(starts) - 1
    owner = np.empty(len(edges), np.int32)
    bounds = np.empty((polygons, 4))
    inside = np.zeros((size * size, words), np.int64)
    for p in range(polygons):
        bounds[p, 0], bounds[p, 1], bounds[p, 2], bounds[p, 3] = np.inf, np.inf, -np.inf, -np.inf
        word, bit = p >> 6, np.int64(1) << (p & 63)
        for e in range(starts[p], starts[p + 1]):
            owner[e] = p
            ax, ay, bx, by = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
            bounds[p, 0], bounds[p, 1] = min(bounds[p, 0], ax), min(bounds[p, 1], ay)
            bounds[p, 2], bounds[p, 3] = max(bounds[p, 2], ax), max(bounds[p, 3], ay)
            # Toggle the first centre to the right of the edge in every row of centres that it crosses.
            low, high = min(ay, by), max(ay, by)
            first = int(max(np.ceil((low - y0) / CELL - 1.5), 0.0))
            for row in range(first, size):
                y = y0 + (row + 0.5) * CELL
                if y >= high:
                    break
                if y < low:
                    continue
                x = ax + (bx - ax) * ((y - ay) / (by - ay))
                column = int(min(max((x - x0) / CELL - 0.5, -1.0), size + 1.0)) + 1
                up = by > ay
                # The same predicate as in ``locate`` has the last word.
                while column > 0 and (side(ax, ay, bx, by, x0 + (column - 0.5) * CELL, y) > 0.0) != up:
                    column -= 1
                while column < size and (side(ax, ay, bx, by, x0 + (column + 0.5) * CELL, y) > 0.0) == up:
                    column += 1
                if column < size:
                    inside[row * size + column, word] ^= bit
    for row in range(size):
        for cell in range(row * size + 1, (row + 1) * size):
            for w in range(words):
                inside[cell, w] ^= inside[cell - 1, w]
    cells, owners = _near_cells(edges, x0, y0, size)
    cell_starts = np.zeros(size * size + 2, np.int64)
    for i in range(len(cells)):
        cell_starts[cells[i] + 2] += 1
    for cell in range(2, size * size + 2):
        cell_starts[cell] += cell_starts[cell - 1]
    cell_edges = np.empty(len(cells), np.int32)
    for i in range(len(cells)):
        cell_edges[cell_starts[cells[i] + 1]] = owners[i]
        cell_starts[cells[i] + 1] += 1
    return owner, bounds, inside, cell_starts[:-1].copy(), cell_edges


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
def locate(grid: Grid, x: float, y: float, mask: Ints) -> None:
    """Set ``mask`` (W,) to the polygons that hold (x, y); a point on a boundary is outside."""
    for w in range(len(mask)):
        mask[w] = 0
    column, row = (x - grid.x0) / CELL, (y - grid.y0) / CELL
    if not (0.0 <= column < grid.size and 0.0 <= row < grid.size):
        _locate_far(grid, x, y, mask)
        return
    cell = int(row) * grid.size + int(column)
    for w in range(len(mask)):
        mask[w] = grid.inside[cell, w]
    first, last = grid.cell_starts[cell], grid.cell_starts[cell + 1]
    if first == last:
        return
    cx, cy = grid.x0 + (int(column) + 0.5) * CELL, grid.y0 + (int(row) + 0.5) * CELL
    dx, dy = x - cx, y - cy
    boundary = False
    for i in range(first, last):
        e = grid.cell_edges[i]
        edge = grid.edges[e]
        s = side(edge[0], edge[1], edge[2], edge[3], x, y)
        if s == 0.0 and _on_edge(edge, x, y):
            boundary = True
        start = dx * (edge[1] - cy) - dy * (edge[0] - cx) > 0.0
        end = dx * (edge[3] - cy) - dy * (edge[2] - cx) > 0.0
        if start != end and (s > 0.0) != (side(edge[0], edge[1], edge[2], edge[3], cx, cy) > 0.0):
            p = grid.edge_polygon[e]
            mask[p >> 6] ^= np.int64(1) << (p & 63)
    if boundary:
        for i in range(first, last):
            e = grid.cell_edges[i]
            edge = grid.edges[e]
            if side(edge[0], edge[1], edge[2], edge[3], x, y) == 0.0 and _on_edge(edge, x, y):
                p = grid.edge_polygon[e]
                mask[p >> 6] &= ~(np.int64(1) << (p & 63))


@kernel
def locate_all(grid: Grid, points: Floats) -> Ints:
    """Masks (N, W) of points (N, 2)."""
    masks = np.empty((len(points), grid.inside.shape[1]), np.int64)
    for n in range(len(points)):
        locate(grid, points[n, 0], points[n, 1], masks[n])
    return masks
