"""Where vehicles of the current frame stand on the lanes of the map (EPDMS_TWO_STAGE, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import shapely

from beyonddrive.evaluation.pdm.inputs.map_index import MapIndex
from beyonddrive.evaluation.pdm.kernels.arrays import Floats
from beyonddrive.evaluation.pdm.kernels.constants import INTERSECTION, LANE, LANE_CONNECTOR
from beyonddrive.evaluation.pdm.kernels.polyline import arc_length, project

CHORD = 0.5
"""The heading of a point of a baseline is that of the chord to the point so far ahead [m]."""
HALF_WIDTH = 5.0
"""A connector whose polygon is not known is taken to be no wider than this to both sides [m]."""


@dataclass(frozen=True, eq=False)
class StartSegment:
    """The lane that a vehicle starts on.

    Attributes:
        lane: Its number in the map index.
        pose: (3,) nearest pose on its baseline: x, y, heading.
        progress: Arc length of that pose [m].
    """

    lane: int
    pose: Floats
    progress: float


class LaneLocator:
    """Finds the lanes, and the connectors inside junctions, that a point is strictly inside of."""

    def __init__(self, index: MapIndex) -> None:
        self.index = index
        shapes = index.polygon_geometries
        first = index.polygon_offsets
        self._lanes = shapely.STRtree(shapes[first[LANE] : first[LANE] + index.num_lanes])
        connectors = np.arange(index.num_lanes, len(index.lane_ids))
        # One whose polygon is not known costs the scenes in its junction, not the map.
        is_known = index.has_lane_polygon(connectors)
        self._damaged = connectors[~is_known]
        connectors = connectors[is_known]
        # (in the order of their polygons, which is not that of the connectors)
        rows = index.lane_polygon_rows(connectors) - first[LANE_CONNECTOR]
        order = np.argsort(rows, kind="stable")
        self._connector_of = connectors[order]
        self._connectors = shapely.STRtree(shapes[first[LANE_CONNECTOR] + rows[order]])
        self._junctions = shapely.STRtree(
            shapes[first[INTERSECTION] : first[INTERSECTION] + len(index.intersections)]
        )

    @cached_property
    def _damaged_of(self) -> dict[int, int]:
        """Junction -> a connector that is in it by its baseline and has not one polygon."""
        found: dict[int, int] = {}
        for connector in self._damaged.tolist():
            area = shapely.LineString(self.index.baseline(connector)[:, :2]).buffer(HALF_WIDTH)
            for junction in self._junctions.query(area, "intersects").tolist():
                found.setdefault(junction, connector)
        return found

    def is_on_road(self, x: float, y: float) -> bool:
        """Whether a point is in a lane or a junction."""
        point = shapely.Point(x, y)
        return bool(len(self._lanes.query(point, "within")) or len(self._junctions.query(point, "within")))

    def lanes_at(self, x: float, y: float) -> list[int]:
        """Lanes that contain a point, or else, in a junction, connectors that do.

        Raises:
            MapError: If a connector of that junction has no polygon, or several.
        """
        point = shapely.Point(x, y)
        lanes = sorted(int(row) for row in self._lanes.query(point, "within"))
        if lanes:
            return lanes
        junctions = self._junctions.query(point, "within").tolist()
        if not junctions:
            return lanes
        for junction in junctions:
            if junction in self._damaged_of:
                self.index.lane_polygon_rows(np.array([self._damaged_of[junction]]))  # (raises)
        return [int(self._connector_of[row]) for row in sorted(self._connectors.query(point, "within"))]

    def start_segment(self, x: float, y: float, heading: float) -> StartSegment | None:
        """The lane whose direction differs least from a heading; None off the lanes.

        Headings are compared without wrapping, as in the official code: 3.1 and -3.1 differ by 6.2.
        """
        best, least = None, np.inf
        for lane in self.lanes_at(x, y):
            pose, progress = nearest_pose(self.index.baseline(lane), x, y)
            difference = abs(pose[2] - heading)
            if difference < least:
                best, least = StartSegment(lane, pose, progress), difference
        return best


def nearest_pose(baseline: Floats, x: float, y: float) -> tuple[Floats, float]:
    """Pose (3,) of a baseline (V, >= 2) nearest to a point, and its arc length [m].

    >>> pose, progress = nearest_pose(np.array([[0.0, 0.0], [10.0, 0.0]]), 4.0, 1.0)
    >>> pose.tolist(), progress
    ([4.0, 0.0, 0.0], 4.0)
    """
    xy = np.ascontiguousarray(baseline[:, :2])
    length = arc_length(xy)
    progress = project(xy, length, x, y)
    here, ahead = _point(xy, length, progress), _point(xy, length, progress + CHORD)
    is_end = (ahead == here).all()
    chord = here - _point(xy, length, progress - CHORD) if is_end else ahead - here
    return np.array([*here, np.arctan2(chord[1], chord[0])]), progress


def _point(xy: Floats, length: Floats, position: float) -> Floats:
    return np.array([np.interp(position, length, xy[:, 0]), np.interp(position, length, xy[:, 1])])


_LOCATORS: WeakKeyDictionary[MapIndex, LaneLocator] = WeakKeyDictionary()


def lane_locator(index: MapIndex) -> LaneLocator:
    """The locator of a map, built at the first call and kept as long as the map."""
    locator = _LOCATORS.get(index)
    if locator is None:
        locator = _LOCATORS[index] = LaneLocator(index)
    return locator
