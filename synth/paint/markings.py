"""Paint on the road: lane lines, crossings, turn arrows and parking bays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.polygon import orient
from shapely.ops import substring

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.structures.se2 import wrap_angle
from beyonddrive.synth.paint.ground import (
    add_line,
    flat_ring,
    near_region,
    optional_layer,
    polygons_of,
    segments,
)
from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.polygon_soup import FLAT, SoupBuilder

WHITE: Color = (232, 232, 228)
_YELLOW: Color = (226, 178, 52)
_BAY: Color = (205, 205, 202)
_LINE_WIDTH = 0.16
_DASH, _GAP = 3.0, 5.0
"""Length of a dash and of the gap after it [m]."""


@dataclass(frozen=True)
class LanePath:
    """Centre line of a lane or a connector: points (N, 2) global, and headings at both ends."""

    id: int
    xy: NDArray[np.float64]

    @property
    def start_heading(self) -> float:
        """Heading at the first point [rad]."""
        return _heading(self.xy[: min(3, len(self.xy))])

    @property
    def end_heading(self) -> float:
        """Heading at the last point [rad]."""
        return _heading(self.xy[-min(3, len(self.xy)) :])


def _heading(xy: NDArray[np.float64]) -> float:
    along = xy[-1] - xy[0]
    return float(np.arctan2(along[1], along[0]))


def lane_paths(
    nuplan_map: NuPlanMap, region: shapely.Polygon
) -> tuple[dict[int, LanePath], dict[int, LanePath]]:
    """Centre lines of the lanes and of the connectors near a region, by id; empty without the layer."""
    layer = optional_layer(nuplan_map, "baseline_paths")
    lanes: dict[int, LanePath] = {}
    connectors: dict[int, LanePath] = {}
    if layer is None:
        return lanes, connectors
    for row in near_region(layer, region):
        xy = np.asarray(layer.geometries[row].coords)[:, :2]
        for column, paths in (("lane_fid", lanes), ("lane_connector_fid", connectors)):
            id = int(layer.columns[column][row])
            if id >= 0:
                paths[id] = LanePath(id, xy)
    return lanes, connectors


def add_lane_lines(
    builder: SoupBuilder,
    nuplan_map: NuPlanMap,
    region: shapely.Polygon,
    frame: shapely.Polygon,
    lanes: dict[int, LanePath],
    origin: NDArray[np.float64],
) -> None:
    """Add lines where two lanes touch: dashed within a roadblock, double yellow against oncoming traffic."""
    layer = nuplan_map.layer("lanes_polygons")
    rows = near_region(layer, region)
    groups = layer.columns.get("lane_group_fid", layer.ids)
    polygons = layer.geometries[rows]
    if len(rows) == 0:
        return
    pairs = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=0.4)
    for a, b in sorted(zip(*(side.tolist() for side in pairs), strict=True)):
        # Both polygons of a pair have to be known, so the region is wider than the frame that counts.
        if a >= b or not frame.contains(polygons[a].centroid):
            continue
        path_a, path_b = lanes.get(int(layer.ids[rows[a]])), lanes.get(int(layer.ids[rows[b]]))
        shared = polygons[a].exterior.intersection(polygons[b].buffer(0.45, join_style="mitre"))
        merged = shapely.line_merge(shared) if shared.geom_type == "MultiLineString" else shared
        for line in shapely.get_parts(merged):
            if line.geom_type != "LineString" or line.length < 4.0:
                continue
            # A lane that follows another touches it across the road; only touching sides get a line.
            xy = _without_end_caps(np.asarray(line.simplify(0.04).coords))
            across = _heading(xy[[0, -1]])
            along = path_a.end_heading if path_a else across
            if abs(np.sin(across - along)) > 0.6:
                continue
            if groups[rows[a]] == groups[rows[b]]:
                _add_dashes(builder, xy, origin)
                continue
            opposite = (
                path_a is not None
                and path_b is not None
                and np.cos(path_a.end_heading - path_b.start_heading) < 0.0
            )
            if opposite:
                solid = segments(xy, 14.0)
                add_line(builder, solid, 0.13, _YELLOW, origin, offset=0.14)
                add_line(builder, solid, 0.13, _YELLOW, origin, offset=-0.14)
            else:
                add_line(builder, segments(xy, 14.0), _LINE_WIDTH, WHITE, origin)


def _without_end_caps(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop first and last pieces that turn off around the end of a lane."""
    for _ in range(2):
        # A cap is as long as the reach of "touching", so that a bend of the lane itself is none.
        while len(xy) > 2 and np.linalg.norm(xy[1] - xy[0]) < 0.8 and _turns_off(xy[:3]):
            xy = xy[1:]
        xy = xy[::-1]
    return xy


def _turns_off(xy: NDArray[np.float64]) -> bool:
    return abs(float(np.sin(_heading(xy[:2]) - _heading(xy[1:])))) > 0.6


def _add_dashes(builder: SoupBuilder, xy: NDArray[np.float64], origin: NDArray[np.float64]) -> None:
    line = shapely.LineString(xy)
    for start in np.arange(1.0, line.length, _DASH + _GAP):
        dash = substring(line, start, min(start + _DASH, line.length))
        if dash.geom_type == "LineString":
            add_line(builder, np.asarray(dash.coords), _LINE_WIDTH, WHITE, origin)


def add_crossings(
    builder: SoupBuilder,
    nuplan_map: NuPlanMap,
    frame: shapely.Polygon,
    lanes: dict[int, LanePath],
    origin: NDArray[np.float64],
) -> None:
    """Add zebra stripes, parallel to the traffic that they cross."""
    layer = optional_layer(nuplan_map, "crosswalks")
    if layer is None:
        return
    paths = list(lanes.values())
    tree = shapely.STRtree([shapely.LineString(path.xy) for path in paths])
    for row in near_region(layer, frame):
        for polygon in polygons_of(layer.geometries[row]):
            if not frame.contains(polygon.centroid):
                continue
            corners = np.asarray(polygon.minimum_rotated_rectangle.exterior.coords)[:4]
            sides = corners[1:3] - corners[0:2]
            longer = int(np.argmax(np.linalg.norm(sides, axis=1)))
            walking = sides[longer] / np.linalg.norm(sides[longer])
            near = tree.nearest(polygon.centroid) if paths else None
            if near is not None:
                path = paths[int(near)]
                ends = np.linalg.norm(path.xy[[0, -1]] - np.asarray(polygon.centroid.coords), axis=1)
                heading = path.start_heading if ends[0] < ends[1] else path.end_heading
                traffic = np.array([np.cos(heading), np.sin(heading)])
                # Of the two axes of the rectangle, people walk along the one that is across the traffic.
                walking = min(
                    (side / np.linalg.norm(side) for side in sides),
                    key=lambda axis: abs(float(axis @ traffic)),
                )
            _add_zebra(builder, polygon, walking, origin)


def _add_zebra(
    builder: SoupBuilder, polygon: shapely.Polygon, walking: NDArray[np.float64], origin: NDArray[np.float64]
) -> None:
    center = np.asarray(polygon.centroid.coords)[0]
    across = np.array([-walking[1], walking[0]])
    reach = (np.asarray(polygon.exterior.coords)[:, :2] - center) @ walking
    for start in np.arange(reach.min() + 0.3, reach.max() - 0.2, 1.0):
        low, high = center + start * walking, center + min(start + 0.5, reach.max()) * walking
        bar = shapely.Polygon([low - 20 * across, high - 20 * across, high + 20 * across, low + 20 * across])
        for part in polygons_of(bar.intersection(polygon)):
            builder.polygon(
                flat_ring(np.asarray(orient(part).exterior.coords)[:-1], origin),
                WHITE,
                FLAT,
                0.92,
            )


def add_turn_arrows(
    builder: SoupBuilder,
    lane: LanePath,
    turns: list[float],
    origin: NDArray[np.float64],
) -> None:
    """Add arrows before the end of a lane for its ``turns``, the changes of heading [rad] it leads to."""
    line = shapely.LineString(lane.xy)
    if line.length < 22.0 or not turns:
        return
    foot = np.asarray(line.interpolate(line.length - 11.0).coords)[0]
    ahead = np.asarray(line.interpolate(line.length - 8.0).coords)[0] - foot
    along = ahead / np.linalg.norm(ahead)
    left = np.array([-along[1], along[0]])

    def place(shape: list[tuple[float, float]]) -> NDArray[np.float64]:
        local = np.array(shape)
        return flat_ring(foot + local[:, :1] * along + local[:, 1:] * left, origin)

    builder.polygon(place([(0, -0.09), (1.9, -0.09), (1.9, 0.09), (0, 0.09)]), WHITE, FLAT)
    for turn in sorted(set(np.sign(np.round(wrap_angle(turns) / 0.6)).astype(int).tolist())):
        if turn == 0:
            head = [
                (1.9, -0.09),
                (2.5, -0.09),
                (2.5, -0.32),
                (3.6, 0.0),
                (2.5, 0.32),
                (2.5, 0.09),
                (1.9, 0.09),
            ]
        else:
            head = [(1.7, 0.09), (2.1, 0.5), (1.85, 0.62), (2.6, 1.05), (2.9, 0.3), (2.5, 0.38), (1.9, -0.09)]
            head = [(x, y * turn) for x, y in head]
            head = head[::-1] if turn < 0 else head
        builder.polygon(place(head[::-1] if turn > 0 else head), WHITE, FLAT)


def add_parking_bays(
    builder: SoupBuilder, nuplan_map: NuPlanMap, frame: shapely.Polygon, origin: NDArray[np.float64]
) -> None:
    """Add lines between the bays of car parks: every 6 m along a kerb strip, else every 2.6 m."""
    layer = optional_layer(nuplan_map, "carpark_areas")
    if layer is None:
        return
    for row in near_region(layer, frame):
        for polygon in polygons_of(layer.geometries[row]):
            if frame.contains(polygon.centroid):
                _add_bays(builder, polygon, origin)


def _add_bays(builder: SoupBuilder, polygon: shapely.Polygon, origin: NDArray[np.float64]) -> None:
    corners = np.asarray(polygon.minimum_rotated_rectangle.exterior.coords)[:4]
    if np.linalg.norm(corners[1] - corners[0]) < np.linalg.norm(corners[2] - corners[1]):
        corners = np.roll(corners, -1, axis=0)
    along, depth = corners[1] - corners[0], corners[3] - corners[0]
    length, width = float(np.linalg.norm(along)), float(np.linalg.norm(depth))
    # A bent or ragged car park has no rows that a rectangle could tell.
    if polygon.area < 0.75 * length * width or length > 150.0:
        return
    pitch = 6.0 if width < 3.5 else 2.6
    bay = depth if width < 8.0 else depth / width * 5.0
    for at in np.arange(pitch / 2, length, pitch):
        foot = corners[0] + at / length * along
        add_line(builder, np.stack([foot, foot + bay]), 0.11, _BAY, origin)
        if width >= 11.0:
            add_line(builder, np.stack([foot + depth, foot + depth - bay]), 0.11, _BAY, origin)
