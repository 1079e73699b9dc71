"""Marks of the lanes of a map, which pictures of one place after the other share: sides and arrows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.visualization.canvas import parts_of

if TYPE_CHECKING:
    from beyonddrive.datasets.maps.nuplan_map import MapLayer, NuPlanMap

CHEVRON_SPACING = 24.0
"""Metres between two arrows that show the direction of a lane."""
SHORTEST = 6.0
"""Lanes below this length have no arrow [m]."""
END = 0.4
"""What is nearer than this to an end of the centreline is an end of the lane, and no side of it [m]."""


class LaneMarks:
    """Marks of lanes in global coordinates [m]; those of a lane are made when they are first wanted.

    A lane without a centreline, which the score minds only on the route, has its outline for sides and no
    arrows.

    Args:
        lanes: The layer ``lanes_polygons``.
        baselines: The layer ``baseline_paths``.
    """

    def __init__(self, lanes: MapLayer, baselines: MapLayer) -> None:
        self._lanes, self._baselines = lanes, baselines
        self._path_of = {int(lane): row for row, lane in enumerate(baselines.column("lane_fid"))}
        self._sides: dict[int, NDArray[np.float64]] = {}
        self._arrows: dict[int, NDArray[np.float64]] = {}

    def sides(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Segments (S, 2, 2) of both sides of lanes, without their ends, which are no markings."""
        return _gathered(rows, self._sides, self._sides_of, 2)

    def arrows(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rings (A, 4, 2) of small arrows along lanes."""
        return _gathered(rows, self._arrows, self._arrows_of, 4)

    def _path(self, row: int) -> NDArray[np.float64] | None:
        place = self._path_of.get(int(self._lanes.ids[row]))
        if place is None:
            return None
        return np.asarray(self._baselines.geometries[place].coords, dtype=np.float64)[:, :2]

    def _sides_of(self, row: int) -> NDArray[np.float64]:
        path = self._path(row)
        ends = None if path is None else shapely.multipoints(path[[0, -1]])
        sides = []
        for polygon in parts_of(self._lanes.geometries[row], "Polygon"):
            ring = np.asarray(polygon.exterior.coords)[:, :2]
            segments = np.stack([ring[:-1], ring[1:]], axis=1)
            if ends is not None:
                segments = segments[shapely.distance(shapely.linestrings(segments), ends) >= END]
            sides.append(segments)
        return np.concatenate(sides) if sides else np.empty((0, 2, 2))

    def _arrows_of(self, row: int) -> NDArray[np.float64]:
        line = self._path(row)
        if line is None:
            return np.empty((0, 4, 2))
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
        if along[-1] < SHORTEST:
            return np.empty((0, 4, 2))
        count = max(1, int(along[-1] // CHEVRON_SPACING))
        at = (np.arange(count) + 0.5) * along[-1] / count
        tail, tip = (
            np.column_stack([np.interp(at + shift, along, line[:, axis]) for axis in (0, 1)])
            for shift in (-0.6, 0.6)
        )
        ahead = tip - tail
        forward = ahead / np.maximum(np.hypot(*ahead.T), 1e-9)[:, None]
        left = np.column_stack([-forward[:, 1], forward[:, 0]])
        return np.stack([tip, tail + 0.42 * left, tail + 0.3 * forward, tail - 0.42 * left], axis=1)


_OF_MAPS: WeakKeyDictionary[NuPlanMap, LaneMarks] = WeakKeyDictionary()


def lane_marks(nuplan_map: NuPlanMap) -> LaneMarks:
    """The marks of a map, the same for every picture of it."""
    found = _OF_MAPS.get(nuplan_map)
    if found is None:
        found = LaneMarks(nuplan_map.layer("lanes_polygons"), nuplan_map.layer("baseline_paths"))
        _OF_MAPS[nuplan_map] = found
    return found


def _gathered(
    rows: NDArray[np.int64],
    known: dict[int, NDArray[np.float64]],
    make: Callable[[int], NDArray[np.float64]],
    corners: int,
) -> NDArray[np.float64]:
    found = [np.empty((0, corners, 2))]
    for row in map(int, rows):
        if row not in known:
            known[row] = make(row)
        found.append(known[row])
    return np.concatenate(found)
