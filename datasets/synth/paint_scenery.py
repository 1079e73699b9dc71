"""Everything about a place that does not move, prepared once for all frames of a log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.datasets.synth import paint_ground, paint_markings
from beyonddrive.datasets.synth.paint_houses import build_houses
from beyonddrive.datasets.synth.paint_shadows import scenery_shadows
from beyonddrive.datasets.synth.paint_signals import Signals, build_signals
from beyonddrive.datasets.synth.paint_soup import PolygonSoup, SoupBuilder, merge
from beyonddrive.structures.se2 import wrap_angle

REACH = 130.0
"""Scenery is prepared this far around the path of a log [m]."""


@dataclass(frozen=True)
class Scenery:
    """The still parts of a place, in the painter's frame: global axes around ``origin``, ground at z = 0.

    Attributes:
        origin: (2,) global coordinates of the painter's origin [m].
        ground: Surfaces and paint on them, in painting order; it has no solids.
        ground_circles: (P, 3) x, y, radius [m] around each polygon of ``ground``.
        solids: Houses, trees and posts.
        solid_middles: (S, 2) middles of the solids' feet [m].
        boxes: (M, 7) x y z l w h heading of what a LiDAR hits.
        signals: Traffic lights.
    """

    origin: NDArray[np.float64]
    ground: PolygonSoup
    ground_circles: NDArray[np.float64]
    solids: PolygonSoup
    solid_middles: NDArray[np.float64]
    boxes: NDArray[np.float64]
    signals: Signals


def prepare_scenery(
    nuplan_map: NuPlanMap, path: ArrayLike, lit_connectors: set[int], sun: NDArray[np.float64]
) -> Scenery:
    """Prepare what may be seen from a path.

    Args:
        nuplan_map: The map; every layer but ``lanes_polygons`` may be missing.
        path: (N, 2) global positions the ego takes [m].
        lit_connectors: Ids of the lane connectors that have a traffic light in some frame.
        sun: (3,) vector towards the sun, its length the strength of its light.

    Raises:
        MapError: If there are no lanes, or a layer is damaged.
    """
    path = np.asarray(path, dtype=np.float64).reshape(-1, 2)
    origin = np.floor(path.mean(axis=0) / 100.0) * 100.0
    region = shapely.box(*(path.min(axis=0) - REACH), *(path.max(axis=0) + REACH))
    lanes, connectors = paint_markings.lane_paths(nuplan_map, region)

    road = paint_ground.road_surface(nuplan_map, region)
    car_parks = paint_ground.car_park_surface(nuplan_map, region)
    walkways = paint_ground.walkway_surface(nuplan_map, region, shapely.union_all([road, car_parks]))
    crossing_layer = paint_ground.optional_layer(nuplan_map, "intersections")
    crossings = (
        list(crossing_layer.geometries[paint_ground.near_region(crossing_layer, region)])
        if crossing_layer is not None
        else []
    )
    signals = build_signals(connectors, lit_connectors, crossings, road, origin)

    ground = SoupBuilder()
    paint_ground.add_ground(ground, road, car_parks, walkways, origin)
    paint_markings.add_parking_bays(ground, car_parks, origin)
    paint_markings.add_lane_lines(ground, nuplan_map, region, lanes, origin)
    paint_markings.add_crossings(ground, nuplan_map, region, lanes, origin)
    paint_markings.add_stop_lines(ground, nuplan_map, region, signals.lanes, origin)
    for lane, turns in _lane_turns(nuplan_map, lanes, connectors):
        paint_markings.add_turn_arrows(ground, lane, turns, origin)

    paved = shapely.union_all([road, car_parks, walkways])
    houses = build_houses(region, paved, shapely.union_all([road, car_parks]), origin)
    solids = merge([*houses.soups, *signals.posts])
    shadows = scenery_shadows(np.concatenate([houses.boxes, signals.boxes]), houses.crowns, sun)
    soup = merge([ground.build(), shadows])
    return Scenery(
        origin,
        soup,
        _circles(soup),
        solids,
        solids.feet.mean(axis=1),
        np.concatenate([houses.boxes, houses.tree_boxes, signals.boxes]),
        signals,
    )


def _lane_turns(
    nuplan_map: NuPlanMap,
    lanes: dict[int, paint_markings.LanePath],
    connectors: dict[int, paint_markings.LanePath],
) -> list[tuple[paint_markings.LanePath, list[float]]]:
    """Lanes that lead to more than one place or turn, with the changes of heading of their connectors."""
    layer = paint_ground.optional_layer(nuplan_map, "lane_connectors")
    if layer is None:
        return []
    turns: dict[int, list[float]] = {}
    for id, lane in zip(layer.ids.tolist(), layer.columns["exit_lane_fid"].tolist(), strict=True):
        if id in connectors and lane in lanes:
            path = connectors[id]
            turns.setdefault(lane, []).append(float(wrap_angle(path.end_heading - path.start_heading)))
    # One way on, straight ahead, needs no arrow.
    return [
        (lanes[lane], found) for lane, found in sorted(turns.items()) if len(found) > 1 or abs(found[0]) > 0.6
    ]


def _circles(soup: PolygonSoup) -> NDArray[np.float64]:
    """A circle (x, y, radius) around each polygon of a soup of flat polygons."""
    starts = soup.contours[soup.polygons[:-1]]
    if len(starts) == 0:
        return np.zeros((0, 3))
    xy = soup.points[:, :2]
    low = np.minimum.reduceat(xy, starts)
    high = np.maximum.reduceat(xy, starts)
    return np.column_stack([(low + high) / 2, np.linalg.norm(high - low, axis=1) / 2])
