"""The route and its correction: the blocks that lead from the ego to its goal (PDMS_V1, section 12.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import (
    BACKWARD_DEPTH,
    FORWARD_DEPTH,
    FORWARD_TARGETS,
    LOOP_AREA,
    ROUTE_DISTANCE,
    ROUTE_HEADING,
    ROUTE_SQUARE,
)
from beyonddrive.structures.errors import BeyondDriveError


class RouteError(BeyondDriveError, ValueError):
    """A scene has no route, or one that is not on its map."""


def find_route(index: MapIndex, roadblock_ids: Sequence[str], pose: Floats) -> list[int]:
    """Blocks of the corrected route, in driving order.

    Args:
        index: The map.
        roadblock_ids: Ids as logged; may repeat, have gaps, or start elsewhere.
        pose: (3,) x, y, heading of the rear axle now.

    Raises:
        RouteError: If there are no ids, or one is not in the map.
    """
    route = _blocks(index, roadblock_ids)
    start, candidates = _start_block(index, route, pose)
    if start not in route:
        route = _lead_in(index, route, start, candidates)
    route = _cut_loops(index, _fill_gaps(index, route))
    return list(dict.fromkeys(route))


def route_lanes(index: MapIndex, route: Sequence[int]) -> list[int]:
    """Lanes and lane connectors of all blocks of a route, in order."""
    return list(dict.fromkeys(int(lane) for block in route for lane in index.lanes_of(block)))


def search(
    start: int, goals: Iterable[int], neighbors: Callable[[int], Iterable[int]], max_depth: int
) -> list[int] | None:
    """Breadth-first path from a block to the first of some goals, both included; None if there is none.

    A search that revisits blocks, with the parent that was entered last for every block and depth. Blocks
    are kept once per level: in the order they were entered first, for the goal, and in the order they were
    entered last, for the parents. That is the same path without the exponential queue.

    >>> graph = {1: [2, 3], 2: [4], 3: [4], 4: []}
    >>> search(1, [4], graph.__getitem__, 15)
    [1, 3, 4]
    """
    targets = frozenset(goals)
    first, last = [start], [start]
    parents: list[dict[int, int]] = []
    for _ in range(max_depth):
        for block in first:
            if block in targets:
                path = [block]
                for parent in reversed(parents):
                    path.append(parent[path[-1]])
                return path[::-1]
        entered_first: dict[int, None] = {}
        for block in first:
            for follower in neighbors(block):
                entered_first.setdefault(follower)
        entered_last: dict[int, int] = {}
        for block in last:
            for follower in neighbors(block):
                entered_last.pop(follower, None)
                entered_last[follower] = block
        first, last = list(entered_first), list(entered_last)
        parents.append(entered_last)
        if not first:
            break
    return None


def nearest_vertex(baseline: Floats, pose: Floats) -> tuple[float, float]:
    """Distance [m] of a pose to the nearest vertex of a baseline (V, 3), and its heading error there."""
    dx, dy = baseline[:, 0] - pose[0], baseline[:, 1] - pose[1]
    square = dx * dx + dy * dy
    vertex = int(square.argmin())
    error = baseline[vertex, 2] - pose[2]
    return math.sqrt(square[vertex]), abs(math.atan2(math.sin(error), math.cos(error)))


def _blocks(index: MapIndex, roadblock_ids: Sequence[str]) -> list[int]:
    if len(roadblock_ids) == 0:
        raise RouteError("the scene has no route (roadblock_ids is empty); leave it out with has_route=True")
    route = []
    for id in dict.fromkeys(roadblock_ids):
        try:
            block = index.block(int(id))
        except ValueError:
            block = None
        if block is None:
            raise RouteError(
                f"route id {id!r} (roadblock_ids) is neither a roadblock nor a roadblock connector of "
                f"{index.path}; log and map do not belong together"
            )
        route.append(block)
    return route


def _candidates(index: MapIndex, pose: Floats) -> list[int]:
    """Blocks at the rear axle, or the nearest of either kind."""
    x, y = float(pose[0]), float(pose[1])
    square = shapely.box(x - ROUTE_SQUARE, y - ROUTE_SQUARE, x + ROUTE_SQUARE, y + ROUTE_SQUARE)
    layers = ((index.roadblocks, 0), (index.block_connectors, index.num_roadblocks))
    found = [
        int(row) + offset
        for layer, offset in layers
        for row in np.sort(layer.tree.query(square, predicate="intersects"))
    ]
    if found:
        return found
    point = shapely.Point(x, y)
    return [int(np.min(layer.tree.query_nearest(point))) + offset for layer, offset in layers if len(layer)]


def _start_block(index: MapIndex, route: list[int], pose: Floats) -> tuple[int, list[int]]:
    """The block the ego is on, and the blocks that it could be on as well."""
    candidates = _candidates(index, pose)
    on_route: list[tuple[float, int]] = []
    off_route: list[tuple[float, int]] = []
    closest: list[float] = []
    for block in candidates:
        least = math.inf
        for lane in index.lanes_of(block):
            distance, error = nearest_vertex(index.baseline(int(lane)), pose)
            if error < ROUTE_HEADING and distance < ROUTE_DISTANCE:
                (on_route if block in route else off_route).append((distance, block))
            least = min(least, distance)
        closest.append(least)
    qualified = on_route or off_route
    if qualified:
        return min(qualified, key=lambda item: item[0])[1], [block for _, block in qualified]
    return candidates[int(np.argmin(closest))], candidates


def _lead_in(index: MapIndex, route: list[int], start: int, candidates: list[int]) -> list[int]:
    """Join a route that does not pass the ego to the block the ego is on."""
    back = search(route[0], candidates, index.block_predecessors, BACKWARD_DEPTH)
    if back is not None:
        return back[:0:-1] + route
    ahead = search(start, route[:FORWARD_TARGETS], index.block_successors, FORWARD_DEPTH)
    if ahead is not None:
        return ahead + route[route.index(ahead[-1]) + 1 :]
    return route


def _fill_gaps(index: MapIndex, route: list[int]) -> list[int]:
    """Insert the blocks that lie between two neighbours of the route that do not touch."""
    filled = route[:1]
    for block, follower in pairwise(route):
        if block not in index.block_predecessors(follower):
            path = search(block, [follower], index.block_successors, FORWARD_DEPTH)
            if path is not None and len(path) >= 3:
                filled += path[1:-1]
        filled.append(follower)
    return filled


def _cut_loops(index: MapIndex, route: list[int]) -> list[int]:
    """End a route where it comes back to a junction it has crossed."""
    earlier: list[shapely.Geometry] = []
    for position, block in enumerate(route):
        if not index.is_block_connector(block):
            continue
        polygon = index.block_polygon(block)
        if earlier:
            others = np.array(earlier, dtype=object)
            others = others[shapely.intersects(polygon, others)]
            if len(others) and (shapely.area(shapely.intersection(polygon, others)) > LOOP_AREA).any():
                return route[:position]
        earlier.append(polygon)
    return route
