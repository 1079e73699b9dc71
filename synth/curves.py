"""Polylines: arc length, smooth resampling, offsetting, Gaussian smoothing. Points are (N, 2) in metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Points = NDArray[np.float64]


def arc_length(points: Points) -> NDArray[np.float64]:
    """Cumulative length (N,) [m] along a polyline.

    >>> arc_length(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [0.0, 5.0]
    """
    steps = np.hypot(np.diff(points[:, 0]), np.diff(points[:, 1]))
    return np.concatenate([[0.0], np.cumsum(steps)])


def without_short_steps(points: Points, minimum: float) -> Points:
    """Drop inner points closer than ``minimum`` metres to the point kept before or to the last point."""
    kept = [points[0]]
    for point in points[1:-1]:
        if np.hypot(*(point - kept[-1])) >= minimum and np.hypot(*(point - points[-1])) >= minimum:
            kept.append(point)
    return np.stack([*kept, points[-1]])


def resample(points: Points, spacing: float = 1.0) -> Points:
    """Return a smooth curve through ``points`` with vertices about ``spacing`` metres apart.

    First and last point stay exactly where they are, so that neighbouring curves keep meeting.

    >>> resample(np.array([[0.0, 0.0], [4.0, 0.0]]))[:, 0].tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    points = without_short_steps(points, 0.4)
    length = arc_length(points)
    count = max(round(float(length[-1]) / spacing), 1)
    stations = np.linspace(0.0, length[-1], count + 1)
    if len(points) == 2:
        curve = points[0] + (stations / length[-1])[:, None] * (points[1] - points[0])
    else:
        curve = CubicSpline(length, points, bc_type="natural")(stations)
    curve[0], curve[-1] = points[0], points[-1]
    return np.asarray(curve, dtype=np.float64)


def headings(points: Points) -> NDArray[np.float64]:
    """Unwrapped direction (N,) [rad] of a polyline by central differences."""
    step = np.gradient(points, axis=0)
    return np.asarray(np.unwrap(np.arctan2(step[:, 1], step[:, 0])), dtype=np.float64)


def offset(points: Points, distance: float | NDArray[np.float64]) -> Points:
    """Return the polyline shifted to the left by ``distance`` metres (negative: right).

    >>> offset(np.array([[0.0, 0.0], [2.0, 0.0]]), 1.5).tolist()
    [[0.0, 1.5], [2.0, 1.5]]
    """
    direction = headings(points)
    normal = np.stack([-np.sin(direction), np.cos(direction)], axis=-1)
    return points + normal * np.broadcast_to(np.asarray(distance, dtype=np.float64), len(points))[:, None]


def at(points: Points, length: NDArray[np.float64], station: NDArray[np.float64]) -> Points:
    """Points (M, 2) of a polyline at arc lengths ``station`` (M,); ``length`` is its :func:`arc_length`."""
    return np.stack([np.interp(station, length, points[:, axis]) for axis in (0, 1)], axis=-1)


def project(points: Points, point: NDArray[np.float64]) -> tuple[float, float]:
    """Return arc length and signed lateral offset (left positive) [m] of the closest point of a polyline.

    >>> project(np.array([[0.0, 0.0], [4.0, 0.0]]), np.array([1.0, -2.0]))
    (1.0, -2.0)
    """
    start, step = points[:-1], np.diff(points, axis=0)
    squared = np.maximum((step**2).sum(-1), 1e-12)
    share = np.clip(((point - start) * step).sum(-1) / squared, 0.0, 1.0)
    away = point - (start + share[:, None] * step)
    best = int(np.argmin((away**2).sum(-1)))
    lateral = (step[best, 0] * away[best, 1] - step[best, 1] * away[best, 0]) / np.sqrt(squared[best])
    return float(arc_length(points)[best] + share[best] * np.sqrt(squared[best])), float(lateral)
