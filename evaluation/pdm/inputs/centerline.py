"""From the ego along the route: starting lane and centre line (PDMS_V1, sections 12.5, 12.6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.inputs.drivable_map import DrivableMap
from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex
from beyonddrive.evaluation.pdm.inputs.route import RouteError, nearest_vertex
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import CENTERLINE_BLOCKS
from beyonddrive.evaluation.pdm.kernels.str_tree import listing_order
from beyonddrive.structures.boxes import ego_corners


def starting_lane(index: MapIndex, lanes: Sequence[int], local: DrivableMap, pose: Floats) -> int:
    """The route's lane that the ego is in, or the nearest one.

    Args:
        index: The map.
        lanes: Lanes of the route, in order.
        local: Polygons around the ego.
        pose: (3,) x, y, heading of the rear axle now.

    Raises:
        RouteError: If the route has no lanes.
    """
    if not lanes:
        raise RouteError(f"no block of the route has a lane in {index.path}; get the map again")
    by_id: dict[int, int] = {}
    for lane in lanes:
        by_id[int(index.lane_ids[lane])] = lane
    rows = np.flatnonzero(np.isin(local.ids, np.fromiter(by_id, dtype=np.int64)))
    rows = rows[shapely.intersects_xy(index.polygon_geometries[local.rows[rows]], pose[0], pose[1])]
    if len(rows):
        errors = np.array(
            [nearest_vertex(index.baseline(by_id[int(local.ids[row])]), pose)[1] for row in rows]
        )
        best = rows[errors == errors.min()]
        if len(best) > 1:
            rank = np.argsort(listing_order(shapely.bounds(index.polygon_geometries[local.rows])))
            best = best[np.argsort(rank[best])]
        return by_id[int(local.ids[best[0]])]
    return _nearest_lane(index, lanes, pose)


def _nearest_lane(index: MapIndex, lanes: Sequence[int], pose: Floats) -> int:
    corners = ego_corners(pose)
    box = shapely.Polygon(corners)
    polygons = np.array([index.lane_polygon(lane) for lane in lanes], dtype=object)
    center = corners.mean(axis=0)
    holding = np.flatnonzero(shapely.contains_xy(polygons, center[0], center[1]))
    if len(holding):
        return lanes[int(holding[0])]
    return lanes[int(np.argmin(shapely.distance(polygons, box)))]


def route_centerline(index: MapIndex, route: Sequence[int], lanes: Sequence[int], start: int) -> Floats:
    """Vertices (V, 3) x, y, heading of the centre line from the start of ``start`` to the end of the route.

    Joints keep the last vertex of one lane and the first of the next.
    """
    ids = [int(index.block_ids[block]) for block in route]
    own = index.block_id_of(start)
    first = ids.index(own) if own in ids else 0
    goal = ids[first : first + CENTERLINE_BLOCKS][-1]
    path = _cheapest_path(index, frozenset(lanes), start, goal)
    return np.concatenate([index.baseline(lane) for lane in path])


def _cheapest_path(index: MapIndex, allowed: frozenset[int], start: int, goal: int) -> list[int]:
    """Lanes of the shortest way to a lane of block ``goal``, or of the way that gets through most lanes."""
    frontier = {start: 1.0}  # in the order of insertion, which breaks ties
    depth = {start: 1}
    parent: dict[int, int] = {}
    expanded: dict[int, float] = {}
    end = None
    while frontier:
        lane = min(frontier, key=frontier.__getitem__)
        cost = frontier.pop(lane)
        if index.block_id_of(lane) == goal:
            end = lane
            break
        expanded[lane] = cost
        for follower in index.lane_successors(lane):
            if follower not in allowed or follower in expanded:
                continue
            new_cost = cost + index.baseline_length(follower)
            if follower not in frontier or new_cost < frontier[follower]:
                frontier[follower] = new_cost
                parent[follower] = lane
                depth[follower] = depth[lane] + 1
    if end is None:
        deepest = max(depth[lane] for lane in expanded)
        end = min((lane for lane in expanded if depth[lane] == deepest), key=expanded.__getitem__)
    path = [end]
    while path[-1] != start:
        path.append(parent[path[-1]])
    return path[::-1]
