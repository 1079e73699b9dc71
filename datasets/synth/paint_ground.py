"""The ground of a map as polygons: verges, sidewalks, kerbs, road surface and car parks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.polygon import orient

from beyonddrive.datasets.maps.nuplan_map import MapError, MapLayer, NuPlanMap
from beyonddrive.datasets.synth.paint_light import Color
from beyonddrive.datasets.synth.paint_soup import FLAT, SoupBuilder

VERGE: Color = (104, 122, 74)
"""What lies between everything else: grass."""
_SIDEWALK: Color = (168, 162, 153)
_KERB: Color = (203, 201, 195)
_GUTTER: Color = (72, 71, 72)
_ASPHALT: Color = (93, 94, 98)
_CAR_PARK: Color = (107, 106, 107)
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
    names = ("lanes_polygons", "gen_lane_connectors_scaled_width_polygons", "intersections")
    area = shapely.union_all(_areas(nuplan_map, names, region))
    return area.buffer(0.4, join_style="mitre").buffer(-0.4, join_style="mitre").simplify(0.03)


def car_park_surface(nuplan_map: NuPlanMap, region: shapely.Polygon) -> shapely.Geometry:
    """Car parks as one area; empty if the map has none."""
    return shapely.union_all(_areas(nuplan_map, ("carpark_areas",), region)).simplify(0.03)


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


def _tiles(area: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """Cut an area along a grid fixed to the world."""
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


def _chunks(ring: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """A line with further points so that no piece is longer than ``longest`` [m]."""
    return np.asarray(shapely.segmentize(shapely.LineString(ring), longest).coords)


def add_ground(
    builder: SoupBuilder,
    road: shapely.Geometry,
    car_parks: shapely.Geometry,
    walkways: shapely.Geometry,
    origin: NDArray[np.float64],
) -> None:
    """Add all surfaces, lowest first: sidewalks, kerbs, car parks, road."""
    add_area(builder, walkways, _SIDEWALK, origin)
    paved = shapely.union_all([road, car_parks])
    kerb = paved.buffer(0.22, join_style="mitre", mitre_limit=2.0)
    add_area(builder, kerb.difference(paved.buffer(-0.1)), _KERB, origin)
    add_area(builder, car_parks, _CAR_PARK, origin)
    add_area(builder, road, _ASPHALT, origin)
    for polygon in polygons_of(paved):
        for ring in (polygon.exterior, *polygon.interiors):
            line = _chunks(np.asarray(ring.simplify(0.06).coords), 12.0)
            side = 1.0 if ring.is_ccw == (ring is polygon.exterior) else -1.0
            # Exteriors run counter-clockwise with the road on their left; holes the other way round.
            side = (1.0 if ring.is_ccw else -1.0) * (1.0 if ring is polygon.exterior else -1.0)
            add_line(builder, line, 0.16, _GUTTER, origin, offset=0.1 * side, alpha=0.75)
