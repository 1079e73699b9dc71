"""Shadows on the ground: under things, and away from the sun."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.boxes import box_corners
from beyonddrive.synth.paint.polygon_soup import PolygonSoup, flat_polygons, merge

_COLOR = (18.0, 20.0, 26.0)
_LONGEST = 14.0
"""No shadow is longer than this [m], however low the sun."""


def contact_shadows(poses: NDArray[np.float64], sizes: NDArray[np.float64]) -> PolygonSoup:
    """A dark core and a soft rim under boxes with poses (N, 3) x y heading, lengths and widths (N, 2) [m]."""
    corners = [
        box_corners(poses[:, :2], poses[:, 2], sizes[:, 0] + grow, sizes[:, 1] + grow) for grow in (0.3, 0.05)
    ]
    return flat_polygons(np.concatenate(corners), _COLOR, np.repeat([0.22, 0.36], len(poses)))


def sun_shadows(boxes: NDArray[np.float64], sun: NDArray[np.float64], strength: float = 0.95) -> PolygonSoup:
    """What boxes (N, 7) x y z l w h heading that stand on the ground shade under a ``sun`` (3,).

    The shadow of a box is the area that its rectangle sweeps on the way to the shadow of its top: a
    hexagon.
    """
    corners = box_corners(boxes[:, :2], boxes[:, 6], boxes[:, 3], boxes[:, 4])
    top = boxes[:, 2] + boxes[:, 5] / 2
    slope = -sun[:2] / max(float(sun[2]), 1e-3)
    sweep = top[:, None] * slope
    length = np.linalg.norm(sweep, axis=1, keepdims=True)
    sweep *= np.minimum(1.0, _LONGEST / np.maximum(length, 1e-9))
    edge = np.roll(corners, -1, axis=1) - corners
    # The rectangle runs counter-clockwise: an edge looks towards the sweep if the sweep is on its right.
    leading = edge[..., 0] * sweep[:, None, 1] - edge[..., 1] * sweep[:, None, 0] < 0.0
    first = np.argmax(leading & ~np.roll(leading, 1, axis=1), axis=1)
    count = np.maximum(leading.sum(axis=1), 1)
    steps = np.arange(6)[None, :]
    # Corners of the hexagon: the first, then all leading ones moved, then the rest as they are.
    moved = (steps >= 1) & (steps <= count[:, None] + 1)
    index = (first[:, None] + np.where(steps == 0, 0, np.where(moved, steps - 1, steps - 2))) % 4
    outline = np.take_along_axis(corners, index[..., None], axis=1) + np.where(
        moved[..., None], sweep[:, None, :], 0.0
    )
    alpha = min(strength * float(np.linalg.norm(sun)), 0.5)
    return flat_polygons(outline, _COLOR, np.full(len(boxes), alpha))


def scenery_shadows(
    boxes: NDArray[np.float64], crowns: NDArray[np.float64], sun: NDArray[np.float64]
) -> PolygonSoup:
    """Shadows of houses and posts (M, 7) and of tree crowns (K, 4) x y z radius; all with a dim rim below."""
    turns = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
    circle = np.column_stack([np.cos(turns), np.sin(turns)])
    slope = -sun[:2] / max(float(sun[2]), 1e-3)
    shift = np.minimum(crowns[:, 2:3], _LONGEST / max(float(np.linalg.norm(slope)), 1e-6)) * slope
    alpha = min(1.0 * float(np.linalg.norm(sun)), 0.5)
    rounds = [
        flat_polygons(
            (crowns[:, :2] + offset)[:, None] + circle * crowns[:, 3:4, None] * size,
            _COLOR,
            np.full(len(crowns), share),
        )
        for offset, size, share in ((shift, 1.0, alpha), (np.zeros(2), 0.8, 0.12))
    ]
    houses = boxes[boxes[:, 3] > 2.0]
    feet = contact_shadows(houses[:, [0, 1, 6]], houses[:, 3:5] + 0.6)
    return merge([feet, sun_shadows(boxes, sun), *rounds])
