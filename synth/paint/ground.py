"""The ground of a map as polygons: verges, sidewalks, kerbs, road surface and car parks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.polygon import orient

from beyonddrive.datasets.maps.nuplan_map import MapError, MapLayer, NuPlanMap
from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.polygon_soup import FLAT, SoupBuilder

VERGE: Color = (104, 122, 74)
"""What lies between everything else: grass."""
_SIDEWALK: Color = (168, 162, 153)
_KERB: Color = (203, 201, 195)
_GUTTER: Color = (72, 71, 72)
_ASPHALT: Color = (93, 94, 98)
_CAR_PARK: Color = (107, 106, 107)
_CYCLE_LANE: Color = (124, 84, 74)
ROAD_LAYERS = (
    "lanes_polygons",
    "gen_lane_connectors_scaled_width_polygons",
    "intersections",
    # Roadblocks may be wider than their lanes: cycle lanes belong to them and are no lanes of the map.
    "lane_groups_polygons",
    "lane_group_connectors",
)
"""Layers whose polygons are road surface."""
CAR_PARK_LAYERS = ("carpark_areas",)
_TILE = 30.0
"""Side of the squares that large areas are cut into [m]."""
_OVERLAP = 0.1
"""Tiles overlap by this [m], so that no seam shows between them."""


def optional_layer(nuplan_map: NuPlanMap, name: str) -> MapLayer | None:
    """A layer, or None if this map has none of this name."""
    names = getattr(nuplan_map, "layer_names", None)
    if names is not None and name not in names:
        return None
    return nuplan_map.layer(name)


def near_region(layer: MapLayer | None, region: shapely.Polygon) -> NDArray[np.int64]:
    """Rows of a layer that touch the region, ascending; none if the layer is missing."""
    if layer is None or len(layer.ids) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.sort(layer.tree.query(region, predicate="intersects"))


def _areas(nuplan_map: NuPlanMap, names: Iterable[str], region: shapely.Polygon) -> list[shapely.Geometry]:
    areas: list[shapely.Geometry] = []
    for name in names:
        layer = optional_layer(nuplan_map, name)
        if layer is not None:
            areas += list(layer.geometries[near_region(layer, region)])
    return [area if area.is_valid else area.buffer(0.0) for area in areas]


def road_surface(nuplan_map: NuPlanMap, region: shapely.Polygon) -> shapely.Geometry:
    """Lanes, connectors and intersections as one area, slivers between neighbours closed.

    Raises:
        MapError: If the map has no lanes at all.
    """
    if optional_layer(nuplan_map, "lanes_polygons") is None:
        raise MapError(f"{nuplan_map.path}: no layer 'lanes_polygons': pictures need at least the lanes")
    return _closed(shapely.union_all(_areas(nuplan_map, ROAD_LAYERS, region))).simplify(0.03)


def _closed(area: shapely.Geometry, gap: float = 0.8) -> shapely.Geometry:
    """An area without the gaps between its parts that are narrower than ``gap`` [m]."""
    return area.buffer(gap / 2, join_style="mitre").buffer(-gap / 2, join_style="mitre")


def cycle_lanes(nuplan_map: NuPlanMap, region: shapely.Polygon) -> shapely.Geometry:
    """Strips of roadblocks that are no lanes and as wide as a bicycle needs; empty if there are none."""
    blocks = shapely.union_all(_areas(nuplan_map, ("lane_groups_polygons",), region))
    lanes = shapely.union_all(_areas(nuplan_map, ("lanes_polygons", "carpark_areas"), region))
    rest = blocks.difference(lanes.buffer(0.05, join_style="mitre"))
    # What is narrower than a metre vanishes in this, and is no cycle lane.
    core = rest.buffer(-0.5, join_style="mitre").buffer(0.5, join_style="mitre")
    strips = [part for part in polygons_of(core) if part.area / part.length < 1.5 and part.length > 12.0]
    return shapely.union_all(strips)


def car_park_surface(nuplan_map: NuPlanMap, region: shapely.Polygon) -> shapely.Geometry:
    """Car parks as one area; empty if the map has none."""
    return shapely.union_all(_areas(nuplan_map, CAR_PARK_LAYERS, region)).simplify(0.03)


def walkway_surface(
    nuplan_map: NuPlanMap, region: shapely.Polygon, paved: shapely.Geometry
) -> shapely.Geometry:
    """Walkways as one area; a strip along the ``paved`` area if the map has none."""
    walkways = shapely.union_all(_areas(nuplan_map, ("walkways",), region))
    if walkways.is_empty:
        walkways = paved.buffer(2.4, join_style="mitre", mitre_limit=2.0)
    return walkways.simplify(0.03)


def polygons_of(area: shapely.Geometry) -> list[shapely.Polygon]:
    """The polygons of any geometry, lines and points left out."""
    parts = shapely.get_parts(shapely.get_parts(area))
    return [part for part in parts if part.geom_type == "Polygon" and part.area > 1e-4]


def outline(area: shapely.Geometry) -> shapely.Geometry:
    """The boundary of the polygons of any geometry; empty if it has none."""
    return shapely.MultiPolygon(polygons_of(area)).boundary


def _tiles(area: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """Cut an area along a grid fixed to the world, with a little overlap."""
    for polygon in polygons_of(area):
        shapely.prepare(polygon)
        x0, y0, x1, y1 = polygon.bounds
        for i in range(int(np.floor(x0 / _TILE)), int(np.ceil(x1 / _TILE))):
            for j in range(int(np.floor(y0 / _TILE)), int(np.ceil(y1 / _TILE))):
                square = shapely.box(
                    i * _TILE - _OVERLAP,
                    j * _TILE - _OVERLAP,
                    (i + 1) * _TILE + _OVERLAP,
                    (j + 1) * _TILE + _OVERLAP,
                )
                if polygon.intersects(square):
                    yield from polygons_of(polygon.intersection(square))


def flat_ring(xy: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) global -> (N, 3) on the ground of the painter's frame."""
    return np.column_stack([xy - origin, np.zeros(len(xy))])


def add_area(
    builder: SoupBuilder,
    area: shapely.Geometry,
    color: Color,
    origin: NDArray[np.float64],
    alpha: float = 1.0,
) -> None:
    """Add an area of any size with holes, cut into tiles."""
    for tile in _tiles(area):
        tile = orient(tile)
        rings = [flat_ring(np.asarray(ring.coords)[:-1], origin) for ring in (tile.exterior, *tile.interiors)]
        builder.polygon(rings[0], color, FLAT, alpha, holes=rings[1:])


def add_line(
    builder: SoupBuilder,
    xy: NDArray[np.float64],
    width: float,
    color: Color,
    origin: NDArray[np.float64],
    offset: float = 0.0,
    alpha: float = 1.0,
) -> None:
    """Add a line (N, 2) as a chain of quads, shifted ``offset`` metres to its left."""
    if len(xy) < 2:
        return
    step = np.diff(xy, axis=0)
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
    tangent = np.concatenate([step[:1], step[:-1] + step[1:], step[-1:]])
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]])
    left = xy + normal * (offset + width / 2)
    right = xy + normal * (offset - width / 2)
    for i in range(len(xy) - 1):
        quad = np.stack([right[i], right[i + 1], left[i + 1], left[i]])
        builder.polygon(flat_ring(quad, origin), color, FLAT, alpha)


def segments(xy: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """A line (N, 2) with further points so that no piece is longer than ``longest`` [m]."""
    return np.asarray(shapely.segmentize(shapely.LineString(xy), longest).coords)


def add_ground(
    builder: SoupBuilder,
    road: shapely.Geometry,
    car_parks: shapely.Geometry,
    walkways: shapely.Geometry,
    bicycles: shapely.Geometry,
    frame: shapely.Polygon,
    origin: NDArray[np.float64],
) -> None:
    """Add all surfaces within ``frame``, lowest first: sidewalks, kerbs, car parks, road, cycle lanes."""
    clip = frame.buffer(_OVERLAP, join_style="mitre")
    both = shapely.union_all([road, car_parks])
    drivable = _closed(both, 2.0)
    kerb = drivable.buffer(0.22, join_style="mitre", mitre_limit=2.0).difference(drivable.buffer(-0.1))
    for area, color in (
        (walkways, _SIDEWALK),
        (kerb, _KERB),
        (drivable.difference(both.buffer(-0.05)), _ASPHALT),
        (car_parks, _CAR_PARK),
        (road, _ASPHALT),
        (bicycles, _CYCLE_LANE),
    ):
        add_area(builder, area.intersection(clip), color, origin)
    for line in _lines_of(outline(bicycles).intersection(frame)):
        add_line(builder, segments(line, 12.0), 0.12, _KERB, origin)
    gutter = outline(drivable.buffer(-0.1).simplify(0.06))
    for line in _lines_of(gutter.intersection(frame)):
        add_line(builder, segments(line, 12.0), 0.16, _GUTTER, origin, alpha=0.75)


def _lines_of(lines: shapely.Geometry) -> Iterator[NDArray[np.float64]]:
    """The points (N, 2) of each line of a geometry."""
    merged = shapely.line_merge(lines) if lines.geom_type == "MultiLineString" else lines
    for part in shapely.get_parts(merged):
        if part.geom_type in ("LineString", "LinearRing"):
            yield np.asarray(part.coords)
