"""Random smooth changes of a plan of a given size, drawn by nobody who knows the scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL

_LEAST_SPEED = 1.0
"""Metres per second below which a sideways offset no longer turns the heading: nobody turns on the spot."""


def perturbed(plan: ArrayLike, squared_distance: float, direction: ArrayLike) -> NDArray[np.float64]:
    """Move a plan ahead or back and sideways, more with time, until it is so far from where it was.

    Offsets grow with the square of time, along and across the plan's own headings; headings turn with the
    sideways offset.

    Args:
        plan: (8, 3) x [m], y [m], heading [rad].
        squared_distance: Mean over time of dx^2 + dy^2 + dheading^2 that the result is to have, as the
            distance of a negative is measured (METHOD, section 3).
        direction: (2,) how much of it goes ahead, and how much to the left; its length does not matter.

    Returns:
        (8, 3).

    Raises:
        ValueError: If the direction is zero, or the distance negative.

    >>> moved = perturbed(np.zeros((8, 3)), 4.0, [1.0, 0.0])
    >>> round(float(np.square(moved).sum(-1).mean()), 6), moved[:, 1].tolist() == [0.0] * 8
    (4.0, True)
    """
    poses = np.asarray(plan, dtype=np.float64)
    ahead, left = np.asarray(direction, dtype=np.float64)
    if not np.hypot(ahead, left) > 0.0 or not squared_distance >= 0.0:
        raise ValueError(
            f"perturbed: direction {[ahead, left]} or distance {squared_distance} is out of range"
        )
    time = np.arange(1, NUM_POSES + 1) / NUM_POSES
    along, across = ahead * time**2, left * time**2
    steps = np.diff(poses[:, :2], axis=0, prepend=np.zeros((1, 2)))
    speed = np.maximum(np.hypot(*steps.T) / POSE_INTERVAL, _LEAST_SPEED)
    cosine, sine = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    offset = np.stack(
        [
            cosine * along - sine * across,
            sine * along + cosine * across,
            np.gradient(across, POSE_INTERVAL) / speed,
        ],
        axis=-1,
    )
    scale = np.sqrt(squared_distance / np.square(offset).sum(axis=-1).mean())
    return np.asarray(poses + scale * offset)
