"""Districts: squares of a map with everything on them that does not move, prepared once per process.

Logs of one town share its districts, and a district looks the same whichever log asks for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.structures.se2 import wrap_angle
from beyonddrive.synth.paint.ground import (
    add_ground,
    car_park_surface,
    cycle_lanes,
    optional_layer,
    road_surface,
    walkway_surface,
)
from beyonddrive.synth.paint.houses import build_houses
from beyonddrive.synth.paint.markings import (
    LanePath,
    add_crossings,
    add_lane_lines,
    add_parking_bays,
    add_turn_arrows,
    lane_paths,
)
from beyonddrive.synth.paint.polygon_soup import PolygonSoup, SoupBuilder, merge
from beyonddrive.synth.paint.signals import RoadIndex
from beyonddrive.synth.paint.signs import build_signs
from beyonddrive.synth.paint.stops import add_stop_lines, find_stops

SIDE = 240.0
"""Side of a district [m]; a multiple of the side of the tiles that areas are cut into."""
_CONTEXT = 50.0
"""So much around a district is looked at, so that its rim fits to its neighbours [m]."""
_KEPT = 48
"""Districts kept per map; the one unused for longest goes."""


@dataclass(frozen=True)
class District:
    """A square of a map, in the painter's frame: global axes around the map's origin, ground at z = 0.

    Attributes:
        surfaces: Ground areas in painting order, without solids.
        markings: Paint on the road, without solids.
        solids: Houses, trees and signs.
        boxes: (M, 7) x y z l w h heading of houses and signs [m].
        tree_boxes: (K, 7) the same of trunks and crowns.
        crowns: (K / 2, 4) x y z radius of the trees' crowns [m].
        stopping_lanes: Ids of the lanes that have a stop line.
    """

    surfaces: PolygonSoup
    markings: PolygonSoup
    solids: PolygonSoup
    boxes: NDArray[np.float64]
    tree_boxes: NDArray[np.float64]
    crowns: NDArray[np.float64]
    stopping_lanes: frozenset[int]


_districts: WeakKeyDictionary[NuPlanMap, OrderedDict[tuple[int, int], District]] = WeakKeyDictionary()


def map_origin(nuplan_map: NuPlanMap) -> NDArray[np.float64]:
    """Origin (2,) of the painter's frame of a map: near its lanes, so that numbers stay small."""
    lanes = nuplan_map.layer("lanes_polygons").geometries
    low = shapely.bounds(lanes)[:, :2].min(axis=0) if len(lanes) else np.zeros(2)
    return np.floor(low / SIDE) * SIDE


def districts_of(nuplan_map: NuPlanMap, region: shapely.Polygon) -> Iterator[District]:
    """The districts that a region touches, south-west first.

    Raises:
        MapError: If the map has no lanes, or a layer is damaged.
    """
    kept = _districts.setdefault(nuplan_map, OrderedDict())
    x0, y0, x1, y1 = region.bounds
    for i in range(int(np.floor(x0 / SIDE)), int(np.floor(x1 / SIDE)) + 1):
        for j in range(int(np.floor(y0 / SIDE)), int(np.floor(y1 / SIDE)) + 1):
            district = kept.pop((i, j), None) or _build(nuplan_map, i, j)
            kept[i, j] = district
            while len(kept) > _KEPT:
                kept.popitem(last=False)
            yield district


def connectors_of_lanes(
    nuplan_map: NuPlanMap, lanes: dict[int, LanePath], connectors: dict[int, LanePath]
) -> dict[int, list[LanePath]]:
    """The connectors that leave each lane, lanes in ascending order."""
    layer = optional_layer(nuplan_map, "lane_connectors")
    leaving: dict[int, list[LanePath]] = {}
    if layer is not None:
        for id, lane in zip(layer.ids.tolist(), layer.columns["exit_lane_fid"].tolist(), strict=True):
            if id in connectors and lane in lanes:
                leaving.setdefault(lane, []).append(connectors[id])
    return dict(sorted(leaving.items()))


def _build(nuplan_map: NuPlanMap, i: int, j: int) -> District:
    frame = shapely.box(i * SIDE, j * SIDE, (i + 1) * SIDE, (j + 1) * SIDE)
    shapely.prepare(frame)
    region = frame.buffer(_CONTEXT, join_style="mitre")
    origin = map_origin(nuplan_map)
    road = road_surface(nuplan_map, region)
    car_parks = car_park_surface(nuplan_map, region)
    drivable = shapely.union_all([road, car_parks])
    walkways = walkway_surface(nuplan_map, region, drivable)
    bicycles = cycle_lanes(nuplan_map, region)
    surfaces = SoupBuilder()
    add_ground(surfaces, road, car_parks, walkways, bicycles, frame, origin)

    lanes, connectors = lane_paths(nuplan_map, region)
    inside = {id: path for id, path in lanes.items() if frame.contains(shapely.Point(path.xy[-1]))}
    stops = find_stops(nuplan_map, region, inside)
    markings = SoupBuilder()
    add_parking_bays(markings, nuplan_map, frame, origin)
    add_lane_lines(markings, nuplan_map, region, frame, lanes, origin)
    add_crossings(markings, nuplan_map, frame, lanes, origin)
    add_stop_lines(markings, list(stops.values()), origin)
    for lane, paths in connectors_of_lanes(nuplan_map, inside, connectors).items():
        turns = [float(wrap_angle(path.end_heading - path.start_heading)) for path in paths]
        # One way on, straight ahead, needs no arrow.
        if len(turns) > 1 or abs(turns[0]) > 0.6:
            add_turn_arrows(markings, lanes[lane], turns, origin)

    signs, sign_boxes = build_signs(list(stops.values()), RoadIndex(nuplan_map), origin)
    paved = shapely.union_all([drivable, walkways])
    x, y = np.array([i, j]) * SIDE - origin
    houses = build_houses(region, paved, drivable, origin).within(x, y, x + SIDE, y + SIDE)
    return District(
        surfaces.build(),
        markings.build(),
        merge([*houses.soups, *signs]),
        np.concatenate([houses.boxes, sign_boxes]),
        houses.tree_boxes,
        houses.crowns,
        frozenset(stops),
    )
