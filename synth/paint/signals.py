"""Traffic lights: a post beside the stop line and heads on an arm over the far side of the junction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.structures.se2 import wrap_angle
from beyonddrive.synth.paint.ground import CAR_PARK_LAYERS, ROAD_LAYERS, optional_layer
from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.markings import LanePath
from beyonddrive.synth.paint.polygon_soup import GLOW, PolygonSoup, SoupBuilder
from beyonddrive.synth.paint.shapes import add_faces, prism

_STEEL: Color = (92, 96, 100)
_HOUSING: Color = (26, 27, 28)
_FRAME: Color = (212, 178, 48)
_RED, _RED_OFF = (255, 42, 30), (66, 24, 22)
_GREEN, _GREEN_OFF = (36, 244, 124), (20, 52, 38)
_AMBER_OFF: Color = (66, 50, 20)
_CORE: Color = (255, 250, 235)
_LAMP = 0.27
"""Radius of a lamp [m]: nearly twice a real one's, so that its colour survives in small pictures."""
_POST_HEIGHT = 2.75
_ARM_HEIGHT = 5.0


class RoadIndex:
    """Answers what of a map cars may drive on, car parks included."""

    def __init__(self, nuplan_map: NuPlanMap) -> None:
        names = (*ROAD_LAYERS, *CAR_PARK_LAYERS)
        layers = {name: optional_layer(nuplan_map, name) for name in names}
        self._layers = [layer for layer in layers.values() if layer is not None]
        self._crossings = layers["intersections"]

    def covers(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points (N, 2), global, are on the road."""
        spots = shapely.points(points)
        covered = np.zeros(len(points), dtype=np.bool_)
        for layer in self._layers:
            covered[layer.tree.query(spots, predicate="intersects")[0]] = True
        return covered

    def crossing_at(self, point: NDArray[np.float64]) -> shapely.Geometry:
        """The intersection within 3 m of a point; empty if there is none."""
        if self._crossings is None:
            return shapely.Polygon()
        rows = self._crossings.tree.query(shapely.Point(point), predicate="dwithin", distance=3.0)
        return shapely.union_all(self._crossings.geometries[np.sort(rows)])


@dataclass(frozen=True)
class SignalHead:
    """One head: the connector whose light it shows, and how it looks when that is red and green."""

    connector: int
    red: PolygonSoup
    green: PolygonSoup


@dataclass(frozen=True)
class Signals:
    """All heads of a map, their posts and arms, and the boxes (M, 7) of the posts; painter's frame."""

    heads: list[SignalHead]
    posts: list[PolygonSoup]
    boxes: NDArray[np.float64]


@dataclass(frozen=True)
class _Approach:
    """Lanes that enter a junction side by side: stop points (L, 2) from right to left, heading, widths."""

    stops: NDArray[np.float64]
    heading: float
    connectors: list[list[LanePath]]

    @property
    def along(self) -> NDArray[np.float64]:
        return np.array([np.cos(self.heading), np.sin(self.heading)])


def _approaches(connectors: dict[int, LanePath], lit: set[int]) -> list[_Approach]:
    """Group the lit connectors by the point where they start, and those points by approach."""
    starts: list[list[LanePath]] = []
    for id in sorted(lit & set(connectors)):
        path = connectors[id]
        known = next((start for start in starts if np.linalg.norm(start[0].xy[0] - path.xy[0]) < 1.2), None)
        if known is None:
            starts.append([path])
        else:
            known.append(path)
    groups: list[list[list[LanePath]]] = []
    for start in starts:
        group = next((group for group in groups if _side_by_side(group[0][0], start[0])), None)
        if group is None:
            groups.append([start])
        else:
            group.append(start)
    approaches = []
    for group in groups:
        heading = group[0][0].start_heading
        left = np.array([-np.sin(heading), np.cos(heading)])
        ordered = sorted(group, key=lambda paths: float(paths[0].xy[0] @ left))
        approaches.append(_Approach(np.stack([paths[0].xy[0] for paths in ordered]), heading, ordered))
    return approaches


def _side_by_side(first: LanePath, second: LanePath) -> bool:
    """Whether two connectors start beside each other in the same direction."""
    heading = first.start_heading
    offset = second.xy[0] - first.xy[0]
    ahead = abs(float(offset @ (np.cos(heading), np.sin(heading))))
    turned = abs(float(wrap_angle(second.start_heading - heading)))
    return turned < 0.5 and ahead < 4.0 and float(np.linalg.norm(offset)) < 14.0


@cache
def _head(red: bool, scale: float) -> PolygonSoup:
    """A head around the origin that is seen by those who drive along x."""
    builder = SoupBuilder()
    r = _LAMP * scale
    add_faces(builder, prism((-0.22, 0.18), (-1.25 * r, 1.25 * r), (-3.4 * r, 3.4 * r)), _HOUSING)
    turns = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
    # Drivers look at the rear face (x < 0): seen from there, -y is to the right.
    circle = np.column_stack([np.zeros(12), -np.cos(turns), np.sin(turns)])
    board = np.array([(-0.23, 1.7, -3.9), (-0.23, -1.7, -3.9), (-0.23, -1.7, 3.9), (-0.23, 1.7, 3.9)]) * (
        1,
        r,
        r,
    )
    builder.polygon(board, _FRAME)
    builder.polygon(board * (1, 0.88, 0.94) - (0.01, 0, 0), _HOUSING)
    colors = (
        (2.2, _RED if red else _RED_OFF, red),
        (0.0, _AMBER_OFF, False),
        (-2.2, _GREEN_OFF if red else _GREEN, not red),
    )
    for height, color, lit in colors:
        middle = np.array([-0.25, 0.0, height * r])
        builder.polygon(circle * r + middle, color, GLOW)
        if lit:
            builder.polygon(circle * (1.9 * r) + middle - (0.01, 0, 0), color, GLOW, alpha=0.3)
            builder.polygon(circle * (0.45 * r) + middle - (0.02, 0, 0), _CORE, GLOW, alpha=0.4)
    builder.close_solid([(-0.25, -0.2), (0.2, -0.2), (0.2, 0.2), (-0.25, 0.2)])
    return builder.build()


def post(foot: NDArray[np.float64], height: float) -> PolygonSoup:
    """A post at ``foot`` (2,)."""
    builder = SoupBuilder()
    add_faces(builder, prism((-0.09, 0.09), (-0.09, 0.09), (0.0, height)), _STEEL)
    builder.close_solid()
    return builder.build().moved(foot[0], foot[1], 0.0, 0.0)


def _arm(foot: NDArray[np.float64], tip: NDArray[np.float64], height: float) -> PolygonSoup:
    builder = SoupBuilder()
    length = float(np.linalg.norm(tip - foot))
    add_faces(builder, prism((0.0, length), (-0.07, 0.07), (height - 0.07, height + 0.07)), _STEEL)
    builder.close_solid()
    along = tip - foot
    return builder.build().moved(foot[0], foot[1], 0.0, float(np.arctan2(along[1], along[0])))


def off_road(
    point: NDArray[np.float64], rightward: NDArray[np.float64], road: RoadIndex, start: float
) -> NDArray[np.float64]:
    """The first place right of a point that is off the road, half a metre further."""
    places = point + np.arange(start, 16.0, 0.25)[:, None] * rightward
    beside = np.flatnonzero(~road.covers(places))
    return places[beside[0]] + 0.5 * rightward if len(beside) else point + 16.0 * rightward


def _far_side(approach: _Approach, crossing: shapely.Geometry) -> float:
    """Distance from the stop line to the far side of the junction, 8 to 38 m."""
    middle = approach.stops.mean(axis=0)
    ray = shapely.LineString([middle, middle + 45.0 * approach.along])
    inside = ray.intersection(crossing)
    ends = shapely.get_coordinates(inside)
    if len(ends) == 0:
        lengths = [
            np.linalg.norm(path.xy[-1] - path.xy[0]) for paths in approach.connectors for path in paths
        ]
        return float(np.clip(max(lengths), 8.0, 38.0))
    return float(np.clip(np.max((ends - middle) @ approach.along) + 1.0, 8.0, 38.0))


def build_signals(
    connectors: dict[int, LanePath],
    lit: set[int],
    road: RoadIndex,
    origin: NDArray[np.float64],
    lane_width: float = 3.4,
) -> Signals:
    """Posts, arms and heads for the connectors ``lit`` that have lights.

    Args:
        connectors: Paths of the connectors near the log.
        lit: Ids of the connectors that some frame gives a light.
        road: Road surface.
        origin: (2,) origin of the painter's frame, global.
        lane_width: Width of the lanes [m].
    """
    heads: list[SignalHead] = []
    posts: list[PolygonSoup] = []
    boxes: list[tuple[float, ...]] = []
    for approach in _approaches(connectors, lit):
        along = approach.along
        rightward = np.array([along[1], -along[0]])
        crossing = road.crossing_at(approach.stops.mean(axis=0) + 3.0 * along)
        # Beside the stop line: one head for the lane next to it.
        foot = off_road(approach.stops[0] - 0.5 * along, rightward, road, lane_width / 2) - origin
        posts.append(post(foot, _POST_HEIGHT + 0.8))
        boxes.append((*foot, 1.8, 0.18, 0.18, 3.6, 0.0))
        center = np.array([*(foot - 0.15 * along), _POST_HEIGHT])
        heads.append(_both(_by_movement(approach.connectors[0])[-1], center, approach.heading, 0.85))
        # Across the junction: a head over the extension of each lane.
        reach = _far_side(approach, crossing)
        base = off_road(approach.stops[0] + reach * along, rightward, road, lane_width / 2) - origin
        tip = approach.stops[-1] + reach * along - origin
        posts.append(post(base, _ARM_HEIGHT + 0.3))
        posts.append(_arm(base, tip, _ARM_HEIGHT + 0.2))
        boxes.append((*base, 2.6, 0.18, 0.18, 5.2, 0.0))
        for stop, paths in zip(approach.stops, approach.connectors, strict=True):
            movements = _by_movement(paths)
            for i, connector in enumerate(movements):
                sideways = (i - (len(movements) - 1) / 2) * 1.15 * rightward
                center = np.array([*(stop + (reach - 0.2) * along + sideways - origin), _ARM_HEIGHT])
                heads.append(_both(connector, center, approach.heading, 1.0))
    return Signals(heads, posts, np.array(boxes, dtype=np.float64).reshape(-1, 7))


def _by_movement(paths: list[LanePath]) -> list[int]:
    """Connectors that get a head: the sharpest left turn, and the straightest of the others."""
    turns = {path.id: float(wrap_angle(path.end_heading - path.start_heading)) for path in paths}
    left = [id for id, turn in turns.items() if turn > 0.6]
    other = [id for id, turn in turns.items() if turn <= 0.6]
    chosen = [max(left, key=lambda id: turns[id])] if left else []
    return chosen + ([min(other, key=lambda id: abs(turns[id]))] if other else [])


def _both(id: int, center: NDArray[np.float64], heading: float, scale: float) -> SignalHead:
    x, y, z = center
    red, green = (_head(is_red, scale).moved(x, y, z, heading) for is_red in (True, False))
    return SignalHead(id, red, green)
