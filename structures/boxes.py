"""Boxes in the plane: ego dimensions, corner order and object classes shared by score, world and pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EGO_LENGTH = 5.176
"""Length of the ego box [m] (PDMS_V1, section 0)."""
EGO_WIDTH = 2.297
"""Width of the ego box [m]."""
EGO_REAR_AXLE_TO_CENTER = 1.461
"""Distance from the rear axle forward to the centre of the ego box [m]."""
EGO_WHEELBASE = 3.089
"""Wheelbase of the ego [m]."""

OBJECT_TYPES = (
    "vehicle",
    "pedestrian",
    "bicycle",
    "traffic_cone",
    "barrier",
    "czone_sign",
    "generic_object",
    "ego",
)
"""Object classes of a NAVSIM log, in the order in which the PDM score sorts them (PDMS_V1, section 12.2)."""
AGENT_TYPES = ("vehicle", "pedestrian", "bicycle", "ego")
"""Classes that move by themselves; the rest is static."""


def box_corners(
    center: ArrayLike, heading: ArrayLike, length: ArrayLike, width: ArrayLike
) -> NDArray[np.float64]:
    """Corners (..., 4, 2) of boxes, in the order front-left, rear-left, rear-right, front-right.

    Args:
        center: (..., 2) box centres [m].
        heading: (...) headings [rad].
        length: (...) lengths along the heading [m].
        width: (...) widths across the heading [m].

    >>> box_corners([0.0, 0.0], 0.0, 4.0, 2.0).tolist()
    [[2.0, 1.0], [-2.0, 1.0], [-2.0, -1.0], [2.0, -1.0]]
    """
    center = np.asarray(center, dtype=np.float64)
    heading = np.asarray(heading, dtype=np.float64)
    along = np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    left = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    front = along * (np.asarray(length, dtype=np.float64) * 0.5)[..., None]
    side = left * (np.asarray(width, dtype=np.float64) * 0.5)[..., None]
    return np.stack(
        [center + front + side, center - front + side, center - front - side, center + front - side], axis=-2
    )


def ego_corners(rear_axle: ArrayLike) -> NDArray[np.float64]:
    """Corners (..., 4, 2) of the ego box at rear-axle poses (..., 3): x [m], y [m], heading [rad]."""
    pose = np.asarray(rear_axle, dtype=np.float64)
    along = np.stack([np.cos(pose[..., 2]), np.sin(pose[..., 2])], axis=-1)
    return box_corners(pose[..., :2] + EGO_REAR_AXLE_TO_CENTER * along, pose[..., 2], EGO_LENGTH, EGO_WIDTH)
