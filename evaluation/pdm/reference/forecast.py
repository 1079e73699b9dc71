"""What the reference planner expects of traffic: straight on, as now (PDMS_V1, section 12.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex
from beyonddrive.evaluation.pdm.inputs.tracks import IS_AGENT, TYPE_INDEX
from beyonddrive.evaluation.pdm.kernels.arrays import Bools, Floats, Ints
from beyonddrive.evaluation.pdm.kernels.collision import Traffic, box_bounds
from beyonddrive.evaluation.pdm.kernels.constants import (
    BICYCLE,
    FORECAST_INTERVAL,
    FORECAST_RADIUS,
    LEAD_STRIDE,
    MAX_BICYCLES,
    MAX_PEDESTRIANS,
    MAX_STATIC,
    MAX_VEHICLES,
    NUM_FORECASTS,
    NUM_MAPS,
    PEDESTRIAN,
    STOPPED_TRACK_SPEED,
    VEHICLE,
)
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonRings
from beyonddrive.structures.boxes import ego_corners
from beyonddrive.structures.se2 import to_global

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.scene import Scene


@dataclass(frozen=True, eq=False)
class Forecast:
    """Objects near the ego, every 0.2 s, and the red lights on its route.

    Attributes:
        traffic: The N objects, as collision kernels take them.
        heading: (N,) heading of the boxes [rad].
        speed: (N,) [m/s], 0 for static classes.
        lights: Polygons of the R lanes and connectors that are red now; they stay so.
        light_centers: (R, 2) centroids.
        light_bounds: (R, 4) min x, min y, max x, max y.
        ignored: (N + R,) what the ego overlaps already, and a red connector that it is entirely in.
    """

    traffic: Traffic
    heading: Floats
    speed: Floats
    lights: PolygonRings
    light_shapes: NDArray[np.object_]
    light_centers: Floats
    light_bounds: Floats
    ignored: Bools


def forecast(scene: Scene, current: int, index: MapIndex, lanes: list[int], pose: Floats) -> Forecast:
    """Forecast the objects of frame ``current``.

    Args:
        scene: The scene.
        current: Index of the current frame.
        index: The map.
        lanes: Lanes of the corrected route.
        pose: (3,) rear axle now.
    """
    objects = scene.objects(current)
    types = np.array([TYPE_INDEX[name] for name in objects.types], dtype=np.int64)
    boxes = to_global(objects.boxes[:, [0, 1, 6]], pose)
    velocity = to_global(objects.velocity, np.array([0.0, 0.0, pose[2]]))
    rows = _red_lanes(scene, index, lanes)
    return forecast_objects(
        types,
        boxes,
        objects.boxes[:, 3:5],
        velocity,
        index.polygons.take(rows),
        index.polygon_geometries[rows],
        pose,
    )


def forecast_objects(
    types: Ints,
    boxes: Floats,
    size: Floats,
    velocity: Floats,
    lights: PolygonRings,
    light_shapes: NDArray[np.object_],
    pose: Floats,
) -> Forecast:
    """Forecast objects (N,) from their state now.

    Args:
        types: (N,) indices into :data:`beyonddrive.structures.boxes.OBJECT_TYPES`.
        boxes: (N, 3) global centre x, y [m] and heading [rad].
        size: (N, 2) length and width [m].
        velocity: (N, 2) global velocity [m/s]; that of static classes is not looked at.
        lights: Polygons of the R lanes and connectors of the route whose light is red,
        light_shapes: (R,) and the same as shapely geometries.
        pose: (3,) rear axle of the ego now.
    """
    box = ego_corners(pose)
    kept = _nearest(types, np.hypot(*(boxes[:, :2] - box.mean(axis=0)).T))
    types, boxes, size, velocity = types[kept], boxes[kept], size[kept], velocity[kept]
    agent = IS_AGENT[types]
    speed = np.where(agent, np.hypot(velocity[:, 0], velocity[:, 1]), 0.0)
    traffic = _straight_on(boxes, size, velocity, speed, agent)
    ego = shapely.Polygon(box)
    touching = shapely.intersects(shapely.polygons(_corners(traffic)), ego)
    traffic.ignored[:] = touching
    return Forecast(
        traffic,
        np.ascontiguousarray(boxes[:, 2]),
        speed,
        lights,
        light_shapes,
        shapely.get_coordinates(shapely.centroid(light_shapes)).reshape(-1, 2),
        shapely.bounds(light_shapes).reshape(-1, 4),
        np.concatenate([touching, shapely.within(ego, light_shapes)]),
    )


def _nearest(types: Ints, distance: Floats) -> Ints:
    """Rows of the nearest objects of each kind, static ones first."""
    near = distance <= FORECAST_RADIUS
    groups = (
        (~IS_AGENT[types], MAX_STATIC),
        (types == VEHICLE, MAX_VEHICLES),
        (types == PEDESTRIAN, MAX_PEDESTRIANS),
        (types == BICYCLE, MAX_BICYCLES),
    )
    kept = []
    for member, most in groups:
        rows = np.flatnonzero(member & near)
        # Sorted by class before by distance, which matters at equal distances.
        rows = rows[np.lexsort((types[rows], distance[rows]))]
        kept.append(rows[:most])
    return np.concatenate(kept)


def _straight_on(
    boxes: Floats,
    size: Floats,
    velocity: Floats,
    speed: Floats,
    agent: Bools,
) -> Traffic:
    """Every box moves along its heading, or backwards if its velocity points that way; it never turns."""
    cos, sin = np.cos(boxes[:, 2]), np.sin(boxes[:, 2])
    turn = boxes[:, 2] - np.arctan2(velocity[:, 1], velocity[:, 0])
    backwards = np.abs(np.arctan2(np.sin(turn), np.cos(turn))) >= np.pi / 2
    along = np.where(backwards, -speed, speed)
    times = (FORECAST_INTERVAL * np.arange(NUM_FORECASTS))[:, None]
    moving = np.empty((NUM_FORECASTS, len(boxes), 4))
    moving[..., 0] = boxes[:, 0] + times * (along * cos)
    moving[..., 1] = boxes[:, 1] + times * (along * sin)
    moving[..., 2], moving[..., 3] = cos, sin
    half = np.ascontiguousarray(size * 0.5)
    return Traffic(
        moving,
        half,
        box_bounds(moving, half),
        agent,
        ~agent | (speed <= STOPPED_TRACK_SPEED),
        np.zeros(len(boxes), dtype=bool),
        np.arange(NUM_MAPS) // LEAD_STRIDE,
    )


def _corners(traffic: Traffic) -> Floats:
    """Corners (N, 4, 2) now, in the order of :func:`beyonddrive.structures.boxes.box_corners`."""
    x, y, cos, sin = traffic.boxes[0].T
    along = np.stack([cos, sin], axis=-1) * traffic.half[:, :1]
    left = np.stack([-sin, cos], axis=-1) * traffic.half[:, 1:]
    center = np.stack([x, y], axis=-1)
    return np.stack(
        [center + along + left, center - along + left, center - along - left, center + along - left], 1
    )


def _red_lanes(scene: Scene, index: MapIndex, lanes: list[int]) -> Ints:
    """Polygon rows of the lanes of the route whose light is red."""
    by_id = {str(index.lane_ids[lane]): lane for lane in lanes}
    red = [by_id[id] for id, is_red in scene.traffic_lights if is_red and id in by_id]
    return index.lane_polygon_rows(np.array(list(dict.fromkeys(red)), dtype=np.int64))
