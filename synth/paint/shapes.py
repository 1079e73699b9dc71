"""Bodies that painted things are made of: prisms, boxes, details on their faces, wheels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.polygon_soup import GLOW, SOLID, SoupBuilder

Ring = NDArray[np.float64]
Faces = dict[str, Ring]
"""Faces of a prism by name: front, rear, left, right (4, 3) and top (4, 3), seen from outside.

The corners of a side face run: lower left, lower right, upper right, upper left, as seen from outside."""


def prism(
    x: tuple[float, float],
    y: tuple[float, float],
    z: tuple[float, float],
    top_x: tuple[float, float] | None = None,
    top_y: tuple[float, float] | None = None,
) -> Faces:
    """Faces of a body between a lower and an upper rectangle [m]; x runs forward, y left, z up.

    >>> prism((0, 4), (-1, 1), (0, 1))["front"].tolist()
    [[4.0, -1.0, 0.0], [4.0, 1.0, 0.0], [4.0, 1.0, 1.0], [4.0, -1.0, 1.0]]
    """
    (x0, x1), (y0, y1), (z0, z1) = x, y, z
    tx0, tx1 = top_x or x
    ty0, ty1 = top_y or y
    a, b, c, d = (x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)
    e, f, g, h = (tx0, ty0, z1), (tx1, ty0, z1), (tx1, ty1, z1), (tx0, ty1, z1)
    faces = {
        "front": (b, c, g, f),
        "rear": (d, a, e, h),
        "left": (c, d, h, g),
        "right": (a, b, f, e),
        "top": (e, f, g, h),
    }
    return {name: np.array(face, dtype=np.float64) for name, face in faces.items()}


def parts_of(face: Ring, areas: ArrayLike) -> NDArray[np.float64]:
    """Parts (N, 4, 3) of a face.

    Args:
        face: (4, 3) corners.
        areas: (N, 4) u0, u1, v0, v1: shares of the width, left to right, and of the height.
    """
    u0, u1, v0, v1 = np.asarray(areas, dtype=np.float64).T
    u = np.stack([u0, u1, u1, u0], axis=1)[..., None]
    v = np.stack([v0, v0, v1, v1], axis=1)[..., None]
    lower_left, lower_right, upper_right, upper_left = face
    low = lower_left + u * (lower_right - lower_left)
    high = upper_left + u * (upper_right - upper_left)
    return low + v * (high - low)


def add_faces(
    builder: SoupBuilder, faces: Faces, color: Color, names: tuple[str, ...] | None = None, kind: int = SOLID
) -> None:
    """Add all faces, or those named."""
    for name in names or tuple(faces):
        builder.polygon(faces[name], color, kind)


def add_parts(
    builder: SoupBuilder,
    face: Ring,
    color: Color,
    *areas: tuple[float, float, float, float],
    glow: bool = False,
) -> None:
    """Add parts (u0, u1, v0, v1) of a face, as panes or, if ``glow``, as lamps."""
    builder.quads(parts_of(face, areas), color, GLOW if glow else SOLID)


def add_wheels(builder: SoupBuilder, places: tuple[float, ...], half_width: float, radius: float) -> None:
    """Add a wheel at each x of ``places`` on both sides [m]."""
    turns = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
    circle = np.column_stack([np.cos(turns), np.zeros(12), np.sin(turns)])
    for x in places:
        for side in (1.0, -1.0):
            # Counter-clockwise as seen from the outside of either side.
            outline = circle[::-1] if side > 0 else circle
            center = np.array([x, side * (half_width + 0.01), radius])
            builder.polygon(outline * (radius * 1.12) + center, (24, 24, 26))
            builder.polygon(outline[::2] * (radius * 0.55) + center, (138, 140, 144))


def tinted(color: Color, gain: float) -> Color:
    """A colour made lighter or darker."""
    return (min(color[0] * gain, 255.0), min(color[1] * gain, 255.0), min(color[2] * gain, 255.0))
