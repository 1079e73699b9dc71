"""The map under a bird's-eye view: roads, lanes, intersections, crossings, route and traffic lights."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.structures.se2 import rotate, to_global, to_local
from beyonddrive.visualization import palette
from beyonddrive.visualization.canvas import Canvas, parts_of
from beyonddrive.visualization.lane_marks import lane_marks
from beyonddrive.visualization.layers import View

if TYPE_CHECKING:
    from beyonddrive.datasets.maps.nuplan_map import MapLayer, NuPlanMap
    from beyonddrive.datasets.navsim.scene import Scene

STRIPE = 0.55
"""Width of a stripe of a crossing, and of the gap after it [m]."""


class MapPainter:
    """Paints the surroundings of one scene.

    Args:
        canvas: Where to paint.
        view: The window.
        scene: Gives the ego pose, the route and the lights.
        nuplan_map: The map.
    """

    def __init__(self, canvas: Canvas, view: View, scene: Scene, nuplan_map: NuPlanMap) -> None:
        self.canvas, self.view, self.scene, self.map = canvas, view, scene, nuplan_map
        self._origin = np.asarray(scene.ego_pose, dtype=np.float64)
        self._window = shapely.Polygon(to_global(view.corners(), self._origin))
        self._marks = lane_marks(nuplan_map)

    def paint(self, centerline: NDArray[np.float64] | None = None) -> None:
        """Paint everything.

        Args:
            centerline: (V, 2+) global vertices to mark instead of the centrelines of the route's lanes.
        """
        canvas = self.canvas
        groups = self._shapes(self._layer("lane_groups_polygons"))
        intersections = self._shapes(self._layer("intersections"))
        parks = self._shapes(self._layer("carpark_areas"))
        canvas.fill(self._shapes(self._optional("walkways")), palette.WALKWAY)
        outlines = [np.asarray(shape.exterior.coords) for shape in [*parks, *groups, *intersections]]
        canvas.stroke(outlines, palette.ROAD_EDGE, 3.0)
        canvas.fill(parks, palette.CAR_PARK)
        self._label_car_parks(parks)
        canvas.fill(groups, palette.ROAD)
        canvas.fill(intersections, palette.INTERSECTION)
        self._route_surface()
        self._crossings()
        self._lane_edges()
        self._route_line(centerline)
        self._chevrons()
        self._lights()

    def _layer(self, name: str) -> MapLayer:
        return self.map.layer(name)

    def _optional(self, name: str) -> MapLayer | None:
        """Layers that neither caching nor scoring needs may be absent."""
        return self.map.layer(name) if name in self.map.layer_names else None

    def _rows(self, layer: MapLayer) -> NDArray[np.int64]:
        """Rows whose geometry meets the window, ascending."""
        return np.sort(layer.tree.query(self._window, predicate="intersects"))

    def _shapes(self, layer: MapLayer | None) -> list[shapely.Geometry]:
        """Geometries of a layer in the window, in pixels."""
        if layer is None:
            return []
        return self._pixels(layer.geometries[self._rows(layer)])

    def _pixels(self, geometries: NDArray[np.object_]) -> list[shapely.Geometry]:
        if len(geometries) == 0:
            return []
        moved = shapely.transform(
            shapely.force_2d(geometries), lambda xy: self.view.to_pixels(to_local(xy, self._origin))
        )
        kind = "Polygon" if "Polygon" in geometries[0].geom_type else "LineString"
        return [part for shape in moved for part in parts_of(shape, kind)]

    def _label_car_parks(self, parks: list[shapely.Geometry]) -> None:
        window = shapely.box(0.0, 0.0, self.view.width, self.view.height)
        for park in parks:
            visible = shapely.intersection(park if park.is_valid else park.buffer(0.0), window)
            if visible.area > (8.0 * self.view.scale) ** 2:
                middle = visible.representative_point()
                self.canvas.stamp(middle.x, middle.y, "P", 22, palette.ROAD_EDGE)

    def _route_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the route's lanes in ``lanes_polygons`` and of its connectors in ``lane_connectors``."""
        route = np.array([int(name) for name in self.scene.roadblock_ids], dtype=np.int64)
        lanes, connectors = self._layer("lanes_polygons"), self._layer("lane_connectors")
        return (
            np.flatnonzero(np.isin(lanes.column("lane_group_fid"), route)),
            np.flatnonzero(np.isin(connectors.column("lane_group_connector_fid"), route)),
        )

    def _route_surface(self) -> None:
        lanes = self._layer("lanes_polygons")
        widths = self._layer("gen_lane_connectors_scaled_width_polygons")
        lane_rows, connector_rows = self._route_rows()
        connector_ids = self._layer("lane_connectors").ids[connector_rows]
        self.canvas.fill(self._pixels(lanes.geometries[lane_rows]), palette.ROUTE)
        on_route = np.isin(widths.column("lane_connector_fid"), connector_ids)
        self.canvas.fill(self._pixels(widths.geometries[on_route]), palette.ROUTE)

    def _baselines(self, column: str, ids: NDArray[np.int64]) -> list[NDArray[np.float64]]:
        """Centrelines (n, 2) of lanes (``lane_fid``) or connectors (``lane_connector_fid``), ego frame."""
        layer = self._layer("baseline_paths")
        rows = np.flatnonzero(np.isin(layer.column(column), ids))
        lines = [np.asarray(layer.geometries[row].coords)[:, :2] for row in rows]
        return [to_local(line, self._origin) for line in lines]

    def _lane_edges(self) -> None:
        """Both sides of every lane, without its ends, which are no markings."""
        sides = self._marks.sides(self._rows(self._layer("lanes_polygons")))
        self.canvas.stroke(self.view.to_pixels(to_local(sides, self._origin)), palette.LANE_EDGE, 1.5)

    def _route_line(self, centerline: NDArray[np.float64] | None) -> None:
        if centerline is not None:
            lines = [to_local(np.asarray(centerline)[:, :2], self._origin)]
        else:
            lane_rows, connector_rows = self._route_rows()
            lines = self._baselines("lane_fid", self._layer("lanes_polygons").ids[lane_rows])
            lines += self._baselines("lane_connector_fid", self._layer("lane_connectors").ids[connector_rows])
        pixels = [self.view.to_pixels(line) for line in lines]
        self.canvas.stroke(pixels, palette.CENTERLINE, 1.5, dash=(9.0, 7.0))

    def _chevrons(self) -> None:
        """Small arrows along the lanes."""
        arrows = self._marks.arrows(self._rows(self._layer("lanes_polygons")))
        self.canvas.fill(
            self.view.to_pixels(to_local(arrows, self._origin)),
            palette.mix(palette.ROAD, palette.MUTED_INK, 0.4),
        )

    def _crossings(self) -> None:
        """Zebra stripes across the short side of every crosswalk."""
        layer = self._optional("crosswalks")
        if layer is None:
            return
        stripes = []
        for row in self._rows(layer):
            frame = layer.geometries[row].minimum_rotated_rectangle
            if frame.geom_type != "Polygon":
                continue
            a, b, _, d = np.asarray(frame.exterior.coords)[:4, :2]
            long, short = (b - a, d - a) if np.hypot(*(b - a)) >= np.hypot(*(d - a)) else (d - a, b - a)
            length = float(np.hypot(*long))
            count = max(1, int(length / (2.0 * STRIPE)))
            for index in range(count):
                low = a + long * ((2 * index + 0.5) / (2 * count))
                high = a + long * ((2 * index + 1.5) / (2 * count))
                stripes.append(np.stack([low, high, high + short, low + short]))
        self.canvas.fill(
            [self.view.to_pixels(to_local(stripe, self._origin)) for stripe in stripes],
            palette.CROSSWALK,
            0.85,
        )

    def _lights(self) -> None:
        """A bar where signalled connectors leave a lane, one segment per connector from left to right.

        Red connectors are also drawn along their course.
        """
        connectors = self._layer("lane_connectors")
        by_lane: dict[int, list[tuple[NDArray[np.float64], bool]]] = {}
        for name, red in self.scene.traffic_lights:
            if int(name) not in connectors:  # the score passes over such lights as well
                continue
            row = connectors.row_of(int(name))
            for line in self._baselines("lane_connector_fid", connectors.ids[[row]]):
                by_lane.setdefault(int(connectors.column("exit_lane_fid")[row]), []).append((line, red))
        red_lines = [line for group in by_lane.values() for line, red in group if red]
        self.canvas.stroke(
            [self.view.to_pixels(line) for line in red_lines], palette.RED_LIGHT, 2.0, alpha=0.35
        )
        for lane, group in by_lane.items():
            before = self._baselines("lane_fid", np.array([lane]))
            stop = group[0][0][0]
            forward = before[0][-1] - before[0][-2] if before else group[0][0][1] - stop
            heading = float(np.arctan2(forward[1], forward[0]))
            # Where a connector leads, seen along the lane: the leftmost first.
            group.sort(key=lambda item: -float(rotate(item[0][-1] - stop, -heading)[1]))
            left = rotate([0.0, 1.0], heading)
            marks = [stop + left * side for side in np.linspace(1.4, -1.4, len(group) + 1)]
            bars = [self.view.to_pixels(np.stack(pair)) for pair in pairwise(marks)]
            self.canvas.stroke(bars, palette.PAPER, 7.0)
            for bar, (_, red) in zip(bars, group, strict=True):
                self.canvas.stroke([bar], palette.RED_LIGHT if red else palette.OTHER_LIGHT, 4.0)
