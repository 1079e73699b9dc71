"""Poses in the plane: wrapping angles and changing frames, for numpy arrays of any leading shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wrap_angle(angle: ArrayLike) -> NDArray[np.float64]:
    """Wrap radians to (-pi, pi].

    >>> round(float(wrap_angle(1.5 * np.pi)), 6)
    -1.570796
    """
    angle = np.asarray(angle, dtype=np.float64)
    return np.arctan2(np.sin(angle), np.cos(angle))


def rotate(xy: ArrayLike, yaw: ArrayLike) -> NDArray[np.float64]:
    """Rotate (..., 2) points or vectors counter-clockwise by ``yaw`` [rad] (broadcast over ...)."""
    xy = np.asarray(xy, dtype=np.float64)
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = xy[..., 0], xy[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def to_global(poses: ArrayLike, origin: ArrayLike) -> NDArray[np.float64]:
    """Poses (..., 3) or points (..., 2) given in the frame of ``origin`` (3,) -> global frame.

    Args:
        poses: x [m], y [m] and, if there are three columns, heading [rad].
        origin: x [m], y [m], heading [rad] of the frame, global.

    >>> to_global([1.0, 0.0, 0.0], [10.0, 5.0, np.pi / 2]).round(6).tolist()
    [10.0, 6.0, 1.570796]
    """
    poses = np.asarray(poses, dtype=np.float64)
    origin = np.asarray(origin, dtype=np.float64)
    xy = rotate(poses[..., :2], origin[..., 2]) + origin[..., :2]
    if poses.shape[-1] == 2:
        return xy
    return np.concatenate([xy, wrap_angle(poses[..., 2:3] + origin[..., 2:3])], axis=-1)


def to_local(poses: ArrayLike, origin: ArrayLike) -> NDArray[np.float64]:
    """Poses (..., 3) or points (..., 2) in the global frame -> the frame of ``origin`` (3,).

    >>> to_local([10.0, 6.0, 0.0], [10.0, 5.0, np.pi / 2]).round(6).tolist()
    [1.0, 0.0, -1.570796]
    """
    poses = np.asarray(poses, dtype=np.float64)
    origin = np.asarray(origin, dtype=np.float64)
    xy = rotate(poses[..., :2] - origin[..., :2], -origin[..., 2])
    if poses.shape[-1] == 2:
        return xy
    return np.concatenate([xy, wrap_angle(poses[..., 2:3] - origin[..., 2:3])], axis=-1)
