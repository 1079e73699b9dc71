"""Stop and yield signs beside the lanes that they are for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.polygon_soup import PolygonSoup, SoupBuilder
from beyonddrive.synth.paint.shapes import add_faces, prism
from beyonddrive.synth.paint.signals import RoadIndex, off_road
from beyonddrive.synth.paint.stops import Stop, StopKind

_RED: Color = (196, 32, 36)
_WHITE: Color = (240, 240, 238)
_BACK: Color = (128, 130, 132)
_POST: Color = (140, 142, 144)
_RADIUS = 0.46
"""Half the size of a plate [m]; a little more than a real one's."""
_MIDDLE = 2.15
"""Height of the middle of a plate [m]."""


def _plate(corners: int, turn: float, radius: float, x: float) -> NDArray[np.float64]:
    """A regular polygon that is seen by those who drive along +x."""
    angles = turn + np.arange(corners) * (2.0 * np.pi / corners)
    # From the driver's place -y is to the right, so that this runs counter-clockwise to the eye.
    return np.column_stack([np.full(corners, x), -radius * np.cos(angles), _MIDDLE + radius * np.sin(angles)])


def _sign(kind: StopKind) -> PolygonSoup:
    builder = SoupBuilder()
    add_faces(builder, prism((-0.04, 0.04), (-0.04, 0.04), (0.0, _MIDDLE + 0.2)), _POST)
    if kind == StopKind.YIELD:
        corners, turn, layers = 3, -np.pi / 2, ((1.2, _RED), (0.72, _WHITE))
    else:
        corners, turn, layers = 8, np.pi / 8, ((1.0, _WHITE), (0.93, _RED))
    builder.polygon(_plate(corners, turn, _RADIUS * layers[0][0], 0.05)[::-1], _BACK)
    for depth, (size, color) in enumerate(layers):
        builder.polygon(_plate(corners, turn, _RADIUS * size, -0.05 - 0.002 * depth), color)
    if kind != StopKind.YIELD:
        for u0, u1 in ((-0.3, -0.18), (-0.13, -0.01), (0.04, 0.16), (0.21, 0.33)):
            bar = [
                (-0.056, -y * 1.0, _MIDDLE + z) for y, z in ((u0, -0.12), (u1, -0.12), (u1, 0.12), (u0, 0.12))
            ]
            builder.polygon(bar, _WHITE, alpha=0.85)
    builder.close_solid([(-0.05, -0.2), (0.05, -0.2), (0.05, 0.2), (-0.05, 0.2)])
    return builder.build()


def build_signs(
    stops: Sequence[Stop], road: RoadIndex, origin: NDArray[np.float64]
) -> tuple[list[PolygonSoup], NDArray[np.float64]]:
    """Signs right of the stops that have one, one per approach, and their boxes (M, 7), painter's frame."""
    models = {kind: _sign(kind) for kind in (StopKind.SIGN, StopKind.YIELD)}
    soups: list[PolygonSoup] = []
    boxes: list[tuple[float, ...]] = []
    places: list[NDArray[np.float64]] = []
    for stop in stops:
        if stop.kind not in models:
            continue
        along = np.array([np.cos(stop.heading), np.sin(stop.heading)])
        rightward = np.array([along[1], -along[0]])
        foot = off_road(stop.point - 0.6 * along, rightward, road, stop.width / 2)
        # Lanes side by side find the same kerb.
        if any(np.linalg.norm(foot - place) < 2.5 for place in places):
            continue
        places.append(foot)
        x, y = foot - origin
        soups.append(models[stop.kind].moved(x, y, 0.0, stop.heading))
        boxes.append((x, y, 1.3, 0.1, 0.6, 2.6, stop.heading))
    return soups, np.array(boxes, dtype=np.float64).reshape(-1, 7)
