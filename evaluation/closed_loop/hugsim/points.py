"""Points of a reconstructed scene, and how many of them are in a box (HUGSIM, sections 5.1, 6.3, 6.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.engine.jit import kernel
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

MAX_POINTS = 100
"""More points of what stands than this in the ego's box are a collision."""
CELL = 2.0
"""Side of the squares that points are sorted into [m]."""
_END = 2**30
"""Squares are counted from -_END to _END - 1; what is beyond them belongs to the last ones."""
_COUNTED = 8
"""Squares per point up to which points are sorted by counting, in memory for all squares between them."""

ROAD, SIDEWALK, SKY = 0, 1, 10
"""Cityscapes train ids."""
MIN_OPACITY = 0.8
"""Points of a scene model that are less opaque than this are passed through."""


def to_record_frame(world: ArrayLike) -> NDArray[np.floating]:
    """Points (n, 3) of the world (x right, y down, z ahead) -> record frame (ahead, left, up).

    >>> to_record_frame([[1.0, 2.0, 3.0]]).tolist()
    [[3.0, -1.0, -2.0]]
    """
    xyz = np.asarray(world)
    return np.stack([xyz[:, 2], -xyz[:, 0], -xyz[:, 1]], axis=1)


def ground_and_scene(
    points: NDArray[np.floating], labels: NDArray[np.integer]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Points (n, 3) that the scorer takes for road, and those that stand on it, by train id (n,)."""
    return points[labels == ROAD], points[_is_solid(labels)]


def background(
    points: NDArray[np.floating], labels: NDArray[np.integer], opacity: NDArray[np.floating]
) -> NDArray[np.floating]:
    """The points (n, 3) of a scene model that end an episode when the ego runs into them."""
    return points[_is_solid(labels) & (opacity > MIN_OPACITY)]


def _is_solid(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    return (labels > SIDEWALK) & (labels != SKY)


class PointGrid:
    """Points sorted into squares of the ground plane, so that a box looks at its neighbourhood only.

    Args:
        points: (n, 3) float, record frame [m].

    Raises:
        HugsimError: If they have another shape or are not finite.
    """

    def __init__(self, points: ArrayLike) -> None:
        xyz = np.ascontiguousarray(points, dtype=np.float32)
        if xyz.ndim != 2 or xyz.shape[1] != 3 or not np.isfinite(xyz).all():
            raise HugsimError(f"points must be finite (n, 3), got {xyz.shape}")
        cells = _cells_of(xyz)
        low = cells.min(axis=1, initial=_END)
        sides = cells.max(axis=1, initial=-_END) - low + 1
        self.rows = (int(low[0]), int(low[0] + sides[0] - 1)) if len(xyz) else (0, -1)
        if 0 < sides.prod() <= _COUNTED * len(xyz):
            self.points, starts = _sorted_by_counting(xyz, cells, low, sides[0], sides[1])
            filled = np.flatnonzero(np.diff(starts))
            keys = (filled // sides[1] + low[0]) * (2 * _END) + filled % sides[1] + low[1]
            self.squares, first = keys, starts[filled]
        else:
            # (one floating point far away must not cost memory for all squares between)
            keys = cells[0] * (2 * _END) + cells[1]
            order = np.argsort(keys, kind="stable")
            self.points = xyz[order]
            self.squares, first = np.unique(keys[order], return_index=True)
        self.starts = np.append(first, len(xyz))

    def __len__(self) -> int:
        return len(self.points)

    def count_in_boxes(self, boxes: ArrayLike) -> NDArray[np.int64]:
        """Points strictly inside each box, in float32.

        Args:
            boxes: (m, 7) x, y, bottom, width, length, height, yaw; record frame.

        Returns:
            (m,) counts.
        """
        made = np.ascontiguousarray(boxes, dtype=np.float32).reshape(-1, 7)
        turn = np.stack([np.cos(made[:, 6]), np.sin(made[:, 6])], axis=1)
        return _count_in_boxes(self.points, self.squares, self.starts, self.rows, made, turn)

    def filled_cells(self, footprints: ArrayLike, width: float, length: float) -> NDArray[np.int64]:
        """How many of the 2 x 2 cells of a footprint have a ground point strictly inside.

        Args:
            footprints: (m, 3) x, y, yaw of the middle; record frame.
            width: Size across [m].
            length: Size along [m].

        Returns:
            (m,) 0 to 4.
        """
        poses = np.ascontiguousarray(footprints, dtype=np.float64).reshape(-1, 3)
        return _filled_cells(self.points, self.squares, self.starts, self.rows, poses, width, length)


@kernel
def _cells_of(xyz):  # type: ignore[no-untyped-def]
    """Row and column (2, n) of the square of each point."""
    cells = np.empty((2, len(xyz)), np.int64)
    for i in range(len(xyz)):
        for axis in range(2):
            cell = np.floor(np.float64(xyz[i, axis]) / CELL)
            cells[axis, i] = int(min(max(cell, -_END), _END - 1))
    return cells


@kernel
def _sorted_by_counting(  # type: ignore[no-untyped-def]
    xyz, cells, low, num_rows, num_columns
):
    """Points by square, those of a square in their order; where each square starts, and an end."""
    starts = np.zeros(num_rows * num_columns + 1, np.int64)
    for i in range(len(xyz)):
        starts[(cells[0, i] - low[0]) * num_columns + cells[1, i] - low[1] + 1] += 1
    starts = np.cumsum(starts)
    places = starts.copy()
    points = np.empty_like(xyz)
    for i in range(len(xyz)):
        square = (cells[0, i] - low[0]) * num_columns + cells[1, i] - low[1]
        place = places[square]
        for axis in range(3):
            points[place, axis] = xyz[i, axis]
        places[square] += 1
    return points, starts


@kernel
def _cells(center: float, reach: float) -> tuple[int, int]:
    """First and last square within reach of a coordinate."""
    first, last = np.floor((center - reach) / CELL), np.floor((center + reach) / CELL)
    return int(min(max(first, -_END), _END - 1)), int(min(max(last, -_END), _END - 1))


@kernel
def _count_in_boxes(  # type: ignore[no-untyped-def]
    points, squares, starts, rows, boxes, turn
):
    counts = np.zeros(len(boxes), np.int64)
    half = np.float32(0.5)
    for b in range(len(boxes)):
        x, y, z, width, length, height = boxes[b, :6]
        cos, sin = turn[b, 0], turn[b, 1]
        reach = half * np.sqrt(width * width + length * length) + np.float32(0.01)
        first_row, last_row = _cells(x, reach)
        first_column, last_column = _cells(y, reach)
        for row in range(max(first_row, rows[0]), min(last_row, rows[1]) + 1):
            line = row * (2 * _END)
            first = np.searchsorted(squares, line + first_column)
            after = np.searchsorted(squares, line + last_column + 1)
            for i in range(starts[first], starts[after]):
                dx, dy, dz = points[i, 0] - x, points[i, 1] - y, points[i, 2] - z
                along, across = cos * dx + sin * dy, cos * dy - sin * dx
                if abs(along) < half * length and abs(across) < half * width and 0 < dz < height:
                    counts[b] += 1
    return counts


@kernel
def _filled_cells(  # type: ignore[no-untyped-def]
    points, squares, starts, rows, poses, width, length
):
    counts = np.zeros(len(poses), np.int64)
    for b in range(len(poses)):
        x, y, yaw = poses[b]
        cos, sin = np.cos(yaw), np.sin(yaw)
        reach = 0.5 * np.sqrt(width * width + length * length) + 0.01
        first_row, last_row = _cells(x, reach)
        first_column, last_column = _cells(y, reach)
        filled = np.zeros(4, np.bool_)
        for row in range(max(first_row, rows[0]), min(last_row, rows[1]) + 1):
            line = row * (2 * _END)
            first = np.searchsorted(squares, line + first_column)
            after = np.searchsorted(squares, line + last_column + 1)
            for i in range(starts[first], starts[after]):
                dx, dy = points[i, 0] - x, points[i, 1] - y
                along, across = cos * dx + sin * dy, cos * dy - sin * dx
                if along != 0 and across != 0 and abs(along) < length / 2 and abs(across) < width / 2:
                    filled[2 * (along > 0) + (across > 0)] = True
        counts[b] = filled.sum()
    return counts
