"""Houses and trees beside the streets: what a town has and a map does not.

Where they stand follows from the map alone, so that all logs and all runs see the same town.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.structures.digests import number_of
from beyonddrive.synth.paint.ground import outline
from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.polygon_soup import PolygonSoup, SoupBuilder
from beyonddrive.synth.paint.shapes import Ring, add_faces, add_parts, parts_of, prism, tinted

_WALLS: tuple[Color, ...] = (
    (186, 148, 122), (170, 104, 82), (206, 196, 178), (158, 158, 160), (196, 178, 140), (132, 120, 112),
    (214, 210, 202), (146, 126, 106), (176, 186, 190), (120, 84, 70),
)  # fmt: skip
_ROOFS: tuple[Color, ...] = ((122, 66, 52), (92, 84, 82), (106, 92, 80), (78, 80, 88))
_PANE: Color = (70, 84, 98)
_SHOP: Color = (52, 60, 66)
_STOREY = 3.1
_CROWN = (
    (0.0, 0.0, -0.15, 0.95, 0.62),
    (0.5, 0.3, 0.0, 0.62, 0.78),
    (-0.45, 0.2, 0.1, 0.66, 0.86),
    (0.1, -0.5, 0.15, 0.6, 0.94),
    (-0.15, 0.05, 0.5, 0.6, 1.08),
    (0.2, -0.15, 0.62, 0.36, 1.2),
)
"""Lumps of a crown: x, y, z and radius in shares of the crown's, brightness; dark ones below."""
_BUILDING_CELL = 12.0
_TREE_CELL = 9.0


@dataclass(frozen=True)
class Houses:
    """Houses and trees of a region, in the painter's frame.

    Attributes:
        soups: One soup per house or tree.
        boxes: (H, 7) x y z l w h heading of the houses [m].
        crowns: (K, 4) x y z radius of the trees' crowns [m].
    """

    soups: list[PolygonSoup]
    boxes: NDArray[np.float64]
    crowns: NDArray[np.float64]

    def within(self, x0: float, y0: float, x1: float, y1: float) -> Houses:
        """Those whose middle lies in a half-open rectangle of the painter's frame."""
        middles = np.concatenate([self.boxes[:, :2], self.crowns[:, :2]])
        inside = np.all((middles >= (x0, y0)) & (middles < (x1, y1)), axis=1)
        count = len(self.boxes)
        return Houses(
            [self.soups[i] for i in np.flatnonzero(inside)],
            self.boxes[inside[:count]],
            self.crowns[inside[count:]],
        )

    @property
    def tree_boxes(self) -> NDArray[np.float64]:
        """Boxes (2 K, 7) of trunks and crowns, as a LiDAR hits them."""
        x, y, z, radius = self.crowns.T
        zero = np.zeros(len(x))
        trunks = [x, y, z / 2, zero + 0.28, zero + 0.28, z, zero]
        crowns = [x, y, z, 1.5 * radius, 1.5 * radius, 1.4 * radius, zero]
        return np.concatenate([np.column_stack(trunks), np.column_stack(crowns)])


def _places(
    region: shapely.Polygon,
    side: float,
    name: str,
    paved: shapely.Geometry,
    keep_off: shapely.Geometry,
    reach: float,
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Candidates for building, one per cell of a world-fixed grid, within ``reach`` metres of the paved area.

    Yields:
        A number, a point of the cell, the nearest point of the paved area, and the unit vector from
        there to the point.
    """
    x0, y0, x1, y1 = region.bounds
    cells = [
        (i, j)
        for i in range(int(np.floor(x0 / side)), int(np.ceil(x1 / side)))
        for j in range(int(np.floor(y0 / side)), int(np.ceil(y1 / side)))
    ]
    numbers = [number_of(name, i, j) for i, j in cells]
    jitter = np.array([(number % 1009, number // 1009 % 1013) for number in numbers]) / 1013.0
    points = (np.array(cells) + jitter) * side
    border = outline(paved)
    shapely.prepare(border)
    lines = shapely.shortest_line(border, shapely.points(points))
    feet = shapely.get_coordinates(lines).reshape(-1, 2, 2)[:, 0]
    away = points - feet
    distance = np.linalg.norm(away, axis=1)
    free = ~shapely.contains_xy(keep_off, points[:, 0], points[:, 1]) & (distance < reach)
    for i in np.flatnonzero(free).tolist():
        yield numbers[i], points[i], feet[i], away[i] / max(distance[i], 1e-9)


@dataclass(frozen=True)
class _Lot:
    """Where a house may stand: its middle (2,), the direction of its street side, its size [m]."""

    shape: shapely.Polygon
    number: int
    center: NDArray[np.float64]
    along: NDArray[np.float64]
    length: float
    depth: float


def _lot(number: int, foot: NDArray[np.float64], outward: NDArray[np.float64]) -> _Lot:
    length, depth = 9.0 + number % 97 / 96.0 * 10.0, 8.0 + number // 97 % 89 / 88.0 * 4.0
    setback = 2.2 + number // 9000 % 53 / 52.0 * 2.2
    along = np.array([-outward[1], outward[0]])
    center = foot + outward * (setback + depth / 2)
    shape = shapely.Polygon(_rectangle(center, along, length + 1.0, depth))
    return _Lot(shape, number, center, along, length, depth)


def _rectangle(
    center: NDArray[np.float64], along: NDArray[np.float64], length: float, width: float
) -> NDArray[np.float64]:
    left = np.array([-along[1], along[0]])
    a, b = along * length / 2, left * width / 2
    return np.stack([center - a - b, center + a - b, center + a + b, center - a + b])


def _without_overlaps(shapes: list[shapely.Polygon], numbers: list[int]) -> list[int]:
    """Keep shapes that touch no other kept one; the one with the larger number stays."""
    if not shapes:
        return []
    tree = shapely.STRtree(shapes)
    left, right = tree.query(shapes, predicate="intersects")
    rivals: list[list[int]] = [[] for _ in shapes]
    for i, j in zip(left.tolist(), right.tolist(), strict=True):
        if i != j:
            rivals[i].append(j)
    state = np.zeros(len(shapes), dtype=np.int8)
    for i in sorted(range(len(shapes)), key=lambda k: (-numbers[k], k)):
        if all(state[j] == 0 for j in rivals[i]):
            state[i] = 1
    return np.flatnonzero(state).tolist()


def _house(number: int, length: float, depth: float) -> tuple[PolygonSoup, float]:
    """A house with its street side at -y, and its height [m]."""
    storeys = 2 + number % 4 if number >> 4 & 3 else 1 + number % 2
    gable = storeys <= 2
    height = storeys * _STOREY + (0.5 if not gable else 0.0)
    wall = _WALLS[(number >> 8) % len(_WALLS)]
    builder = SoupBuilder()
    body = prism((-length / 2, length / 2), (-depth / 2, depth / 2), (0.0, height))
    add_faces(builder, body, wall, ("front", "rear", "left", "right"))
    shop = bool(not gable and number >> 12 & 1)
    for name, size in (("right", length), ("front", depth), ("rear", depth), ("left", length)):
        front = name == "right"
        _add_windows(
            builder, body[name], size, storeys, height, shop and name != "left", front and not shop, wall
        )
    roof = _ROOFS[(number >> 14) % len(_ROOFS)]
    if gable:
        ridge = height + 0.32 * depth
        eave = 0.35
        x0, x1, y0, y1 = -length / 2, length / 2, -depth / 2 - eave, depth / 2 + eave
        for x, side in ((x1, 1), (x0, -1)):
            triangle = [(x, -depth / 2, height), (x, depth / 2, height), (x, 0.0, ridge)]
            builder.polygon(triangle if side > 0 else triangle[::-1], wall)
        low = height - 0.12
        builder.polygon([(x0, y0, low), (x1, y0, low), (x1, 0, ridge), (x0, 0, ridge)], roof)
        builder.polygon([(x1, y1, low), (x0, y1, low), (x0, 0, ridge), (x1, 0, ridge)], roof)
        height = ridge
    else:
        for name in ("front", "rear", "left", "right"):
            add_parts(builder, body[name], tinted(wall, 0.72), (0.0, 1.0, 1.0 - 0.45 / height, 1.0))
        builder.polygon(body["top"], roof)
    builder.close_solid(
        [
            (-length / 2, -depth / 2),
            (length / 2, -depth / 2),
            (length / 2, depth / 2),
            (-length / 2, depth / 2),
        ]
    )
    return builder.build(), height


def _add_windows(
    builder: SoupBuilder,
    face: Ring,
    size: float,
    storeys: int,
    height: float,
    shop: bool,
    door: bool,
    wall: Color,
) -> None:
    """Add the windows of a wall ``size`` metres wide, with shop windows or a door on the ground floor."""
    count = max(int(size / 2.9), 1)
    middles = (np.arange(count) + 0.5) / count
    half = 0.27 / count
    first = 1 if shop else 0
    floors = np.repeat(np.arange(first, storeys), count)
    middle = np.tile(middles, storeys - first)
    if door:
        there = ~((floors == 0) & (middle == middles[count // 2]))
        floors, middle = floors[there], middle[there]
        x = middles[count // 2]
        add_parts(builder, face, (84, 60, 46), (x - half * 0.8, x + half * 0.8, 0.0, 2.15 / height))
    low, high = (floors * _STOREY + 0.95) / height, (floors * _STOREY + 2.35) / height
    frames = np.column_stack([middle - half * 1.2, middle + half * 1.2, low - 0.2 / height, high])
    panes = np.column_stack([middle - half, middle + half, low, high])
    builder.quads(parts_of(face, frames), tinted(wall, 1.18))
    builder.quads(parts_of(face, panes), _PANE)
    if shop:
        areas = [((i + 0.08) / count, (i + 0.92) / count, 0.35 / height, 2.6 / height) for i in range(count)]
        add_parts(builder, face, _SHOP, *areas)
        add_parts(builder, face, tinted(wall, 0.6), (0.01, 0.99, 2.65 / height, 3.1 / height))


def _tree(number: int) -> tuple[PolygonSoup, float, float]:
    """A tree at the origin; its crown's radius and the height of its crown's middle [m]."""
    radius = 1.5 + (number >> 10) % 100 / 100.0 * 1.1
    middle = 2.4 + radius
    shade = 0.8 + (number >> 20) % 100 / 100.0 * 0.35
    green: Color = (74 * shade, 104 * shade, 52 * shade)
    builder = SoupBuilder()
    add_faces(
        builder,
        prism((-0.14, 0.14), (-0.14, 0.14), (0.0, middle), (-0.08, 0.08), (-0.08, 0.08)),
        (92, 72, 54),
    )
    for x, y, z, size, tone in _CROWN:
        center = np.array([x, y, z]) * radius + (0.0, 0.0, middle)
        builder.disc(center, size * radius, tinted(green, tone))
    builder.close_solid([(-0.15, -0.15), (0.15, -0.15), (0.15, 0.15), (-0.15, 0.15)])
    return builder.build(), radius, middle


def build_houses(
    region: shapely.Polygon, paved: shapely.Geometry, drivable: shapely.Geometry, origin: NDArray[np.float64]
) -> Houses:
    """Houses along the streets of a region and trees between them.

    Args:
        region: Where to build, global.
        paved: Everything that people or cars use, global; nothing is built on it.
        drivable: What cars use, global; trees keep a little off it.
        origin: (2,) origin of the painter's frame, global.
    """
    if paved.is_empty:
        return Houses([], np.zeros((0, 7)), np.zeros((0, 4)))
    keep_off = paved.buffer(0.9)
    shapely.prepare(keep_off)
    soups: list[PolygonSoup] = []
    boxes: list[tuple[float, ...]] = []
    lots: list[_Lot] = []
    for number, _, foot, outward in _places(region, _BUILDING_CELL, "house", paved, keep_off, 26.0):
        lot = _lot(number, foot, outward)
        if not keep_off.intersects(lot.shape):
            lots.append(lot)
    built = [lots[i] for i in _without_overlaps([lot.shape for lot in lots], [lot.number for lot in lots])]
    for lot in built:
        soup, height = _house(number_of("style", lot.number), lot.length, lot.depth)
        # The street side of a house is -y.
        heading = float(np.arctan2(-lot.along[1], -lot.along[0]))
        x, y = lot.center - origin
        soups.append(soup.moved(x, y, 0.0, heading))
        boxes.append((x, y, height / 2, lot.length, lot.depth, height, heading))

    forbidden = shapely.union_all([keep_off, drivable.buffer(1.5), *(lot.shape.buffer(1.2) for lot in built)])
    shapely.prepare(forbidden)
    spots: list[tuple[shapely.Polygon, int, NDArray[np.float64]]] = []
    for number, point, foot, outward in _places(region, _TREE_CELL, "tree", paved, keep_off, 9.0):
        place = foot + outward * 1.3 if number >> 41 & 1 else point
        spot = shapely.Point(place)
        if number >> 40 & 1 and not forbidden.contains(spot):
            spots.append((spot.buffer(2.0, quad_segs=2), number, place))
    crowns: list[tuple[float, ...]] = []
    for i in _without_overlaps([spot[0] for spot in spots], [spot[1] for spot in spots]):
        _, number, place = spots[i]
        soup, radius, middle = _tree(number)
        x, y = place - origin
        soups.append(soup.moved(x, y, 0.0, number % 628 / 100.0))
        crowns.append((x, y, middle, radius))
    return Houses(soups, np.array(boxes).reshape(-1, 7), np.array(crowns).reshape(-1, 4))
