"""The bird's-eye-view target: which class each cell ahead of the ego belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import MapError, MapLayer, NuPlanMap
from beyonddrive.datasets.navsim.scene import HISTORY, FrameObjects, Scene, SceneError
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.boxes import box_corners
from beyonddrive.structures.geometry import MAP_CELL, Limits, exactly
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.se2 import to_global, to_local

ROAD, WALKWAY, CENTERLINE, STATIC, VEHICLE, PEDESTRIAN = range(1, 7)
"""Classes in the order in which they are drawn; 0 is nothing."""
BOX_CLASSES = {
    STATIC: ("czone_sign", "barrier", "traffic_cone", "generic_object"),
    VEHICLE: ("vehicle",),
    PEDESTRIAN: ("pedestrian",),
}
_LINE_WIDTH = 2

Shapes = dict[int, list[NDArray[np.float64]]]
"""Rings or lines (K, 2) [m] in the ego frame, by class."""


@TRANSFORMS.register_module()
class BEVMapTarget(BaseTransform):
    """Adds ``bev_semantic_map``: uint8 (rows, columns), classes 0 .. 6 of the cells ahead of the ego.

    0 nothing, 1 road (lanes, intersections), 2 walkways, 3 centrelines, 4 static objects, 5 vehicles,
    6 pedestrians; a later class covers an earlier one. Row 0 is at the rear axle and rows run ahead; columns
    run from right to left, the ego between the two in the middle (MODELS, section 1).

    Args:
        shape: (rows, columns).
        pixel_size: Side of a cell [m].
        radius: Map objects within this distance of the rear axle are drawn [m].
        walkways: Whether to draw them; off for maps without that layer.
    """

    is_target = True

    def __init__(
        self,
        shape: Sequence[int] = (128, 256),
        pixel_size: float = 0.25,
        radius: float = 32.0,
        walkways: bool = True,
    ) -> None:
        rows, columns = (int(value) for value in shape)
        if rows < 1 or columns < 1 or pixel_size <= 0 or radius <= 0:
            raise ValueError("BEVMapTarget: shape, pixel_size and radius must be positive")
        self.shape = (rows, columns)
        self.pixel_size = pixel_size
        self.radius = radius
        self.walkways = walkways

    @property
    def geometry(self) -> Mapping[str, float]:
        """Side of a cell."""
        return {MAP_CELL: self.pixel_size}

    @property
    def geometry_taken(self) -> Limits:
        """All maps of a sample have the same cells."""
        return {MAP_CELL: exactly(self.pixel_size)}

    def transform(self, results: Results) -> Results:
        """Read ``scene`` and ``root``; add ``bev_semantic_map``."""
        scene: Scene = results["scene"]
        nuplan_map: NuPlanMap = results["root"].map(scene.map_location)
        shapes = self._map_shapes(nuplan_map, scene.ego_pose)
        results["bev_semantic_map"] = self.draw(shapes, scene.objects(HISTORY - 1))
        return results

    def draw(self, shapes: Shapes, objects: FrameObjects) -> NDArray[np.uint8]:
        """Rasterise map shapes and boxes, all in the ego frame [m]: uint8 ``shape``."""
        result = np.zeros(self.shape, np.uint8)
        for label in (ROAD, WALKWAY, CENTERLINE):
            self._paint(result, label, shapes.get(label, []), closed=label != CENTERLINE)
        types = np.array(objects.types, dtype=object)
        for label, names in BOX_CLASSES.items():
            boxes = objects.boxes[np.isin(types, names)]
            corners = box_corners(boxes[:, :2], boxes[:, 6], boxes[:, 3], boxes[:, 4])
            # The ring is closed by repeating its first corner, as a polygon's exterior is.
            self._paint(result, label, [np.vstack([box, box[:1]]) for box in corners], closed=True)
        return result

    def _paint(
        self, result: NDArray[np.uint8], label: int, shapes: Iterable[NDArray[np.float64]], closed: bool
    ) -> None:
        # Drawn with x to the right and y down, then transposed: OpenCV's lines are not symmetric in the two.
        mask = np.zeros(self.shape[::-1], np.uint8)
        for shape in shapes:
            pixels = (shape / self.pixel_size + [0, self.shape[1] / 2]).astype(np.int32)[:, None]
            if closed:
                cv2.fillPoly(mask, [pixels], 255)
            else:
                cv2.polylines(mask, [pixels], False, 255, _LINE_WIDTH)
        result[mask.T > 0] = label

    # ------------------------------------------------------------------ map
    def _map_shapes(self, nuplan_map: NuPlanMap, pose: NDArray[np.float64]) -> Shapes:
        patch = shapely.Point(pose[:2]).buffer(self.radius, quad_segs=16)
        lanes = nuplan_map.layer("lanes_polygons")
        road = [lanes, nuplan_map.layer("intersections")]
        shapes = {ROAD: [ring for layer in road for ring in _rings(_near(layer, patch), pose)]}
        if self.walkways:
            try:
                walkways = nuplan_map.layer("walkways")
            except MapError as error:
                raise MapError(f"{error}, or set walkways=False in BEVMapTarget") from None
            shapes[WALKWAY] = list(_rings(_near(walkways, patch), pose))
        shapes[CENTERLINE] = self._centerlines(nuplan_map, lanes, patch, pose)
        return shapes

    def _centerlines(
        self, nuplan_map: NuPlanMap, lanes: MapLayer, patch: Any, pose: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        paths = nuplan_map.layer("baseline_paths")
        lines = []
        for layer, column in (
            (lanes, "lane_fid"),
            (nuplan_map.layer("lane_connectors"), "lane_connector_fid"),
        ):
            near = layer.ids[_rows_near(layer, patch)]
            rows = np.flatnonzero(np.isin(paths.column(column), near))
            lines += [to_local(shapely.get_coordinates(paths.geometries[row]), pose) for row in rows]
        return lines


def _rows_near(layer: MapLayer, patch: Any) -> NDArray[np.intp]:
    return np.sort(layer.tree.query(patch, predicate="intersects"))


def _near(layer: MapLayer, patch: Any) -> NDArray[np.object_]:
    return layer.geometries[_rows_near(layer, patch)]


def _rings(polygons: NDArray[np.object_], pose: NDArray[np.float64]) -> Iterable[NDArray[np.float64]]:
    """Exterior rings in the ego frame; holes are not drawn."""
    for part in shapely.get_parts(polygons):
        yield to_local(shapely.get_coordinates(part.exterior), pose)


@TRANSFORMS.register_module()
class FutureBEVMapTarget(BEVMapTarget):
    """Adds ``future_bev_semantic_map``: :class:`BEVMapTarget` at the end of a plan, in the ego frame now.

    The map is the same; objects are where the log has them 4 s later. The ego itself is not drawn. Settings
    are those of :class:`BEVMapTarget`.

    Raises:
        SceneError: If a scene ends before.
    """

    def transform(self, results: Results) -> Results:
        """Read ``scene`` and ``root``; add ``future_bev_semantic_map``."""
        scene: Scene = results["scene"]
        nuplan_map: NuPlanMap = results["root"].map(scene.map_location)
        last = HISTORY - 1 + NUM_POSES
        if last >= len(scene.frames):
            raise SceneError(
                f"scene {scene.token} of log {scene.log_name} has {len(scene.frames) - HISTORY} future "
                f"frames, FutureBEVMapTarget needs {NUM_POSES}; set num_future_frames of the scene filter to "
                f"at least {NUM_POSES}"
            )
        objects = scene.objects(last)
        boxes = objects.boxes.copy()
        poses = to_local(to_global(boxes[:, [0, 1, 6]], scene.ego_poses[last]), scene.ego_pose)
        boxes[:, [0, 1, 6]] = poses
        shapes = self._map_shapes(nuplan_map, scene.ego_pose)
        results["future_bev_semantic_map"] = self.draw(shapes, replace(objects, boxes=boxes))
        return results
