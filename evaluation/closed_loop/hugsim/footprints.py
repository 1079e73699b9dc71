"""Footprints of vehicles in the ground plane, and whether they touch (HUGSIM, section 6.3)."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

_SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])


def corners(poses: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (m, 4, 2) of rectangles: poses (m, 3) x, y, yaw of the middle, sizes (m, 2) width, length.

    >>> corners(np.zeros((1, 3)), np.array([[2.0, 4.0]]))[0].tolist()
    [[2.0, 1.0], [2.0, -1.0], [-2.0, -1.0], [-2.0, 1.0]]
    """
    along = 0.5 * sizes[:, 1, None] * _SIGNS[:, 0]
    across = 0.5 * sizes[:, 0, None] * _SIGNS[:, 1]
    cos, sin = np.cos(poses[:, 2, None]), np.sin(poses[:, 2, None])
    x = poses[:, 0, None] + along * cos - across * sin
    y = poses[:, 1, None] + along * sin + across * cos
    return np.stack([x, y], axis=-1)


def touch(
    poses: NDArray[np.float64],
    sizes: NDArray[np.float64],
    others: NDArray[np.float64],
    other_sizes: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Whether rectangles intersect pair by pair (m,); touching counts. Arguments as for :func:`corners`."""
    result = np.zeros(len(poses), dtype=bool)
    reach = 0.5 * (np.hypot(*sizes.T) + np.hypot(*other_sizes.T)) + 0.01
    near = np.flatnonzero(np.hypot(*(poses[:, :2] - others[:, :2]).T) <= reach)
    if len(near):
        mine = shapely.polygons(corners(poses[near], sizes[near]))
        theirs = shapely.polygons(corners(others[near], other_sizes[near]))
        result[near] = shapely.intersects(mine, theirs)
    return result
