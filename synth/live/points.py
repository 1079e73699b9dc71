"""Points of a town as HUGSIM's scorer wants them: the road, and what stands beside it."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.synth.live.place import CAMERA, Place
from beyonddrive.synth.live.town import LiveTown
from beyonddrive.synth.paint.ground import CAR_PARK_LAYERS, ROAD_LAYERS, optional_layer

GROUND_SPACING = 0.4
"""Between points of the road [m]: any quarter of the ego's footprint holds one."""
GROUND_REACH = 60.0
"""Plans may reach so far from the path [m]."""
SOLID_REACH = 12.5
"""What stands farther from the path cannot be met: the episode ends before [m]."""
SOLID_TOP = 3.2
"""Nothing above the boxes that the scorer looks into [m]."""

Points = NDArray[np.float32]


def ground_points(town: LiveTown, place: Place) -> Points:
    """Points (n, 3) of everything that cars may drive on, HUGSIM's world frame."""
    line = shapely.LineString(place.path[:, :2] + town.offset)
    around = line.buffer(GROUND_REACH)
    roads = []
    for name in (*ROAD_LAYERS, *CAR_PARK_LAYERS):
        layer = optional_layer(town.nuplan_map, name)
        if layer is not None:
            roads += list(layer.geometries[np.sort(layer.tree.query(around, predicate="intersects"))])
    road = shapely.union_all(roads).intersection(around)
    shapely.prepare(road)
    low_x, low_y, high_x, high_y = road.bounds
    x, y = np.meshgrid(
        np.arange(low_x, high_x, GROUND_SPACING), np.arange(low_y, high_y, GROUND_SPACING), indexing="ij"
    )
    inside = shapely.contains_xy(road, x.ravel(), y.ravel())
    points = np.column_stack([x.ravel(), y.ravel()])[inside] - town.offset
    return _world(place, points, np.zeros(len(points)))


def solid_points(place: Place, boxes: NDArray[np.float64]) -> Points:
    """Points (n, 3) on and in boxes (M, 7) x y z l w h heading of the town near the path, world frame."""
    reach = SOLID_REACH + 0.5 * np.hypot(boxes[:, 3], boxes[:, 4])
    line = shapely.LineString(place.path[:, :2])
    near = shapely.distance(shapely.points(boxes[:, :2]), line) < reach
    parts = [_box_points(box) for box in boxes[near]]
    points = np.concatenate([np.zeros((0, 3)), *parts])
    return _world(place, points[:, :2], points[:, 2])


def _box_points(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the lower part of a box: a grid on its walls, or all through it if it is thin."""
    x, y, z, length, width, height, heading = box
    low, high = max(z - height / 2, 0.0), min(z + height / 2, SOLID_TOP)
    if high <= low:
        return np.zeros((0, 3))
    thin = min(length, width)
    step = float(np.clip(thin / 5, 0.05, 0.16))
    u, v = (np.linspace(-side / 2, side / 2, max(int(side / step), 1) + 1) for side in (length, width))
    grid_u, grid_v = (grid.ravel() for grid in np.meshgrid(u, v, indexing="ij"))
    if thin > 1.0:
        # More than 100 points have to be in the ego's box when it is in a wall: two rows of wall will do.
        rim = (np.abs(grid_u) > length / 2 - 1.5 * step) | (np.abs(grid_v) > width / 2 - 1.5 * step)
        grid_u, grid_v = grid_u[rim], grid_v[rim]
    levels = np.arange(low, high, step)
    cos, sin = np.cos(heading), np.sin(heading)
    flat = np.column_stack([x + cos * grid_u - sin * grid_v, y + sin * grid_u + cos * grid_v])
    return np.column_stack([np.tile(flat, (len(levels), 1)), np.repeat(levels, len(flat))])


def _world(place: Place, xy: NDArray[np.float64], height: NDArray[np.float64]) -> Points:
    local = place.to_scene(xy) if len(xy) else np.zeros((0, 2))
    return np.column_stack([-local[:, 1], CAMERA[2] - height, local[:, 0]]).astype(np.float32)
