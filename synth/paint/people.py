"""Pedestrians, cyclists and things that stand on the road, as polygon soups in their own frame."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from beyonddrive.structures.digests import number_of
from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.polygon_soup import SHEET, SOLID, PolygonSoup, SoupBuilder
from beyonddrive.synth.paint.shapes import add_faces, add_parts, prism, tinted

_SKIN: tuple[Color, ...] = ((232, 190, 160), (198, 150, 116), (142, 98, 70), (96, 66, 50))
_HAIR: tuple[Color, ...] = ((40, 32, 28), (92, 64, 40), (160, 124, 72), (150, 150, 150))
_TOPS: tuple[Color, ...] = (
    (196, 52, 48), (48, 92, 168), (230, 230, 226), (52, 54, 60), (226, 176, 52), (62, 128, 88),
    (148, 74, 140), (222, 120, 60), (116, 150, 178),
)  # fmt: skip
_TROUSERS: tuple[Color, ...] = ((44, 52, 76), (40, 40, 42), (120, 106, 84), (86, 90, 96))
GAIT_PHASES = 8
"""Poses of a stride that walking is drawn in."""


def _limb(
    builder: SoupBuilder, x0: float, x1: float, y: float, z0: float, z1: float, thick: float, color: Color
) -> None:
    """A leg or an arm whose lower end is at x0 and upper end at x1."""
    half = thick / 2
    limb = prism((x0 - half, x0 + half), (y - half, y + half), (z0, z1), (x1 - half, x1 + half))
    add_faces(builder, limb, color)


def _head(builder: SoupBuilder, token: str, x: float, z: float, radius: float) -> None:
    number = number_of("head", token)
    builder.disc((x, 0.0, z), radius, _SKIN[number % len(_SKIN)])
    builder.disc((x - 0.03, 0.0, z + 0.4 * radius), radius * 0.85, _HAIR[(number >> 8) % len(_HAIR)])


def pedestrian_soup(token: str, length: float, width: float, height: float, phase: int) -> PolygonSoup:
    """A pedestrian in a box, base centre at the origin [m]; ``phase`` 0..7 of a stride, -1 standing."""
    number = number_of("pedestrian", token)
    top, trousers = _TOPS[number % len(_TOPS)], _TROUSERS[(number >> 8) % len(_TROUSERS)]
    h = height
    shoulder = min(0.24, 0.45 * max(width, 0.4)) * h / 1.75
    swing = 0.0 if phase < 0 else 0.3 * float(np.sin(2.0 * np.pi * phase / GAIT_PHASES)) * h / 1.75
    builder = SoupBuilder()
    leg = 0.15 * h / 1.75
    _limb(builder, swing, 0.0, 0.5 * leg + 0.02, 0.0, 0.48 * h, leg, trousers)
    _limb(builder, -swing, 0.0, -0.5 * leg - 0.02, 0.0, 0.48 * h, leg, tinted(trousers, 0.85))
    _limb(builder, -0.7 * swing, 0.0, shoulder + 0.04, 0.46 * h, 0.8 * h, 0.09, tinted(top, 0.8))
    _limb(builder, 0.7 * swing, 0.0, -shoulder - 0.04, 0.46 * h, 0.8 * h, 0.09, tinted(top, 0.8))
    torso = prism(
        (-0.12, 0.12),
        (-0.8 * shoulder, 0.8 * shoulder),
        (0.44 * h, 0.83 * h),
        (-0.1, 0.1),
        (-shoulder, shoulder),
    )
    add_faces(builder, torso, top)
    if number >> 16 & 3 == 0:
        add_faces(builder, prism((-0.26, -0.12), (-0.15, 0.15), (0.54 * h, 0.8 * h)), (70, 60, 52))
    _head(builder, token, 0.02, 0.91 * h, 0.075 * h)
    builder.close_solid(_foot(max(length, 0.3), max(width, 0.3)))
    return builder.build()


def bicycle_soup(token: str, length: float, width: float, height: float) -> PolygonSoup:
    """A bicycle with its rider in a box, base centre at the origin [m]."""
    number = number_of("bicycle", token)
    top, trousers = _TOPS[number % len(_TOPS)], _TROUSERS[(number >> 8) % len(_TROUSERS)]
    frame: Color = ((180, 40, 40), (40, 90, 160), (30, 30, 32), (60, 140, 90))[(number >> 16) % 4]
    long, h = length, height
    radius = min(0.35, 0.2 * long)
    builder = SoupBuilder()
    turns = np.linspace(0.0, 2.0 * np.pi, 14, endpoint=False)
    circle = np.column_stack([np.cos(turns), np.zeros(14), np.sin(turns)])
    for x in (long / 2 - radius, radius - long / 2):
        center = np.array([x, 0.0, radius])
        builder.polygon(
            circle * radius + center, (22, 22, 24), SHEET, holes=[circle[::-1] * (radius * 0.8) + center]
        )
        # From behind or ahead the ring is a line: this is the width of its tyre.
        edge = np.array([(0, -0.035, -1), (0, 0.035, -1), (0, 0.035, 1), (0, -0.035, 1)]) * (1, 1, radius)
        builder.polygon(edge + center, (28, 28, 30), SHEET)
    hip, crank, bar = (-0.12 * long, 0.52 * h), (0.0, 0.2 * h), (0.26 * long, 0.57 * h)
    rear, front = (radius - long / 2, radius), (long / 2 - radius, radius)
    for (x0, z0), (x1, z1) in (
        (rear, crank),
        (crank, bar),
        (hip, crank),
        (hip, bar),
        (hip, rear),
        (bar, front),
    ):
        along = np.array([x1 - x0, 0.0, z1 - z0])
        side = np.array([-along[2], 0.0, along[0]]) / np.linalg.norm(along) * 0.025
        a, b = np.array([x0, 0.0, z0]), np.array([x1, 0.0, z1])
        builder.polygon(np.stack([a - side, b - side, b + side, a + side]), frame, SHEET)
    handlebar = prism((bar[0] - 0.03, bar[0] + 0.03), (-0.26, 0.26), (bar[1] - 0.02, bar[1] + 0.04))
    add_faces(builder, handlebar, (30, 30, 32))
    for y, pedal in ((0.11, 0.08), (-0.11, 0.26)):
        _limb(builder, crank[0] + 0.05, hip[0] + 0.06, y, pedal * h, 0.56 * h, 0.13, trousers)
    torso = prism(
        (hip[0] - 0.12, hip[0] + 0.12),
        (-0.17, 0.17),
        (0.5 * h, 0.86 * h),
        (hip[0] + 0.16, hip[0] + 0.36),
        (-0.21, 0.21),
    )
    add_faces(builder, torso, top)
    for y in (0.24, -0.24):
        _limb(builder, bar[0], hip[0] + 0.3, y, 0.57 * h, 0.82 * h, 0.08, tinted(top, 0.8))
    builder.disc((hip[0] + 0.34, 0.0, 0.925 * h), 0.068 * h, _SKIN[(number >> 24) % len(_SKIN)])
    builder.disc(
        (hip[0] + 0.31, 0.0, 0.95 * h), 0.064 * h, ((226, 70, 50), (240, 240, 240), (50, 50, 56))[number % 3]
    )
    builder.close_solid(_foot(long, max(width, 0.3)))
    return builder.build()


def _foot(length: float, width: float) -> list[tuple[float, float]]:
    return [
        (-length / 2, -width / 2),
        (length / 2, -width / 2),
        (length / 2, width / 2),
        (-length / 2, width / 2),
    ]


def cone_soup(length: float, width: float, height: float) -> PolygonSoup:
    """A traffic cone in a box, base centre at the origin [m]."""
    builder = SoupBuilder()
    half = min(length, width) / 2
    add_faces(builder, prism((-half, half), (-half, half), (0.0, 0.06 * height)), (190, 72, 20))
    waist = 0.72 * half
    levels = ((0.06, (240, 96, 24)), (0.36, (244, 244, 240)), (0.58, (240, 96, 24)), (1.0, (240, 96, 24)))
    for (low, color), (high, _) in pairwise(levels):
        a, b = waist * (1.08 - low), waist * (1.08 - high)
        add_faces(builder, prism((-a, a), (-a, a), (low * height, high * height), (-b, b), (-b, b)), color)
    builder.close_solid(_foot(length, width))
    return builder.build()


def barrier_soup(length: float, width: float, height: float) -> PolygonSoup:
    """A barrier in a box: a wall with red and white stripes, base centre at the origin [m]."""
    builder = SoupBuilder()
    x, y = (-length / 2, length / 2), (-width / 2, width / 2)
    body = prism(x, y, (0.0, height), top_y=(0.4 * y[0], 0.4 * y[1]) if width < length else y)
    add_faces(builder, body, (216, 214, 208))
    for name, size in (("left", length), ("right", length), ("front", width), ("rear", width)):
        count = max(round(size / 0.9), 1)
        stripes = [((i + 0.1) / count, (i + 0.6) / count, 0.45, 0.92) for i in range(count)]
        add_parts(builder, body[name], (206, 48, 36), *stripes)
    builder.close_solid(_foot(length, width))
    return builder.build()


def sign_soup(length: float, width: float, height: float) -> PolygonSoup:
    """A construction-zone sign in a box: an orange diamond on a post, base centre at the origin [m]."""
    builder = SoupBuilder()
    half = max(length, width, 0.5) / 2
    add_faces(builder, prism((-0.04, 0.04), (-0.04, 0.04), (0.0, 0.6 * height)), (110, 112, 114))
    add_faces(builder, prism((-length / 2, length / 2), (-width / 2, width / 2), (0.0, 0.05)), (70, 70, 70))
    middle, reach = 0.68 * height, min(half, 0.32 * height)
    for scale, color, x in ((1.0, (34, 34, 34), 0.05), (0.9, (244, 128, 24), 0.051)):
        for side in (1.0, -1.0):
            r = reach * scale
            diamond = [
                (x * side, 0.0, middle - r), (x * side, side * r, middle), (x * side, 0.0, middle + r),
                (x * side, -side * r, middle),
            ]  # fmt: skip
            builder.polygon(diamond, color, SOLID)
    builder.close_solid(_foot(length, width))
    return builder.build()


def generic_soup(token: str, length: float, width: float, height: float) -> PolygonSoup:
    """Any other thing: a container that fills its box, base centre at the origin [m]."""
    color: Color = ((96, 104, 92), (120, 98, 74), (88, 96, 112), (140, 136, 128))[
        number_of("thing", token) % 4
    ]
    builder = SoupBuilder()
    body = prism((-length / 2, length / 2), (-width / 2, width / 2), (0.0, height))
    add_faces(builder, body, color)
    for name in ("front", "rear", "left", "right"):
        add_parts(builder, body[name], tinted(color, 0.75), (0.0, 1.0, 0.82, 0.9), (0.05, 0.95, 0.08, 0.14))
    builder.close_solid(_foot(length, width))
    return builder.build()
