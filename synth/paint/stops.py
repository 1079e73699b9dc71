"""Where lanes have to stop or yield, and the bars painted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.synth.paint.ground import add_line, near_region, optional_layer
from beyonddrive.synth.paint.markings import WHITE, LanePath
from beyonddrive.synth.paint.polygon_soup import SoupBuilder


class StopKind(IntEnum):
    """Why drivers stop: ``stop_polygon_type_fid`` of the layer ``stop_polygons``."""

    CROSSING = 0
    SIGN = 1
    LIGHT = 2
    TURN = 3
    YIELD = 4


@dataclass(frozen=True)
class Stop:
    """Where a lane has to stop: the middle of its end (2,) global, heading [rad], width [m], reason."""

    point: NDArray[np.float64]
    heading: float
    width: float
    kind: StopKind


def find_stops(nuplan_map: NuPlanMap, region: shapely.Polygon, lanes: dict[int, LanePath]) -> dict[int, Stop]:
    """Stops at the ends of lanes that touch a stop polygon, by lane."""
    layer = optional_layer(nuplan_map, "stop_polygons")
    rows = near_region(layer, region)
    areas = layer.geometries[rows] if layer is not None else np.zeros(0, dtype=object)
    kinds = layer.columns.get("stop_polygon_type_fid") if layer is not None else None
    tree = shapely.STRtree(areas)
    stops = {}
    for id, path in sorted(lanes.items()):
        kind = None
        end = shapely.Point(path.xy[-1])
        for i in sorted(tree.query(end, predicate="dwithin", distance=1.0).tolist()):
            number = int(kinds[rows[i]]) if kinds is not None else int(StopKind.SIGN)
            found = StopKind(number) if number in set(StopKind) else StopKind.SIGN
            if kind is None and found != StopKind.CROSSING:
                kind = found
        if kind is not None:
            stops[id] = stop_at(nuplan_map, path, kind)
    return stops


def stop_at(nuplan_map: NuPlanMap, path: LanePath, kind: StopKind) -> Stop:
    """The stop at the end of a lane."""
    lane_layer = nuplan_map.layer("lanes_polygons")
    polygon = lane_layer.geometries[lane_layer.row_of(path.id)]
    width = float(np.clip(polygon.area / max(shapely.LineString(path.xy).length, 1.0), 2.0, 6.0))
    return Stop(path.xy[-1], path.end_heading, width, kind)


def add_stop_lines(builder: SoupBuilder, stops: Sequence[Stop], origin: NDArray[np.float64]) -> None:
    """Add a bar at each stop, broken where drivers only have to yield."""
    for stop in stops:
        along = np.array([np.cos(stop.heading), np.sin(stop.heading)])
        left = np.array([-along[1], along[0]])
        middle = stop.point - 0.35 * along
        half = stop.width / 2 - 0.15
        pieces = np.array([[-half, half]])
        if stop.kind == StopKind.YIELD:
            edges = np.linspace(-half, half, 2 * max(int(half / 0.5), 2))
            pieces = edges.reshape(-1, 2)
        for start, end in pieces:
            add_line(builder, np.stack([middle + left * start, middle + left * end]), 0.45, WHITE, origin)
