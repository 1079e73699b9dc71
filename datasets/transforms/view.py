"""The sample as a car that stands a little aside and looks a little aside would have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.transforms.augmentation import Augmentation
from beyonddrive.datasets.transforms.base import HIDDEN, VIEW_POSE, Results
from beyonddrive.datasets.transforms.camera_rig import source_pixels
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.geometry import AGENT_EXTENT, LIDAR_EXTENT, MAP_CELL, Limits, exactly
from beyonddrive.structures.sample import IGNORED_LABEL
from beyonddrive.structures.se2 import rotate, to_local

_MAPS = ("bev_semantic_map", "future_bev_semantic_map")
_NEVER = ("vocabulary_scores",)
"""Facts about plans that are fixed in the car's frame: they cannot be turned."""
_MOVED = (
    "camera",
    "lidar",
    "points",
    "status",
    "trajectory",
    "negative_plans",
    "agent_states",
    "boxes",
    *_MAPS,
)
_SAME = (
    *("camera_rig", "agent_labels", "box_labels", "box_points", VIEW_POSE),
    *("negative_valid", "negative_scores", "negative_columns", "negative_times"),
)
"""Arrays that go with those that are moved, and are the same from everywhere."""


class ViewError(BeyondDriveError, ValueError):
    """A sample cannot be seen from aside; the message says what it lacks or has too much."""


@TRANSFORMS.register_module()
class ViewAugmentation(Augmentation):
    """Moves the car to the side and turns it: inputs, targets and negatives together.

    ``camera`` is warped (:func:`~beyonddrive.datasets.transforms.camera_rig.source_pixels`), ``lidar``,
    ``points`` and the semantic maps are turned, and ``trajectory``, valid ``negative_plans``,
    ``agent_states``, ``boxes`` and the velocity and acceleration in ``status`` are given in the frame of
    the moved car. The driving command, scores and times stay. Adds ``view_pose`` (3,): x, y [m], heading
    [rad] of the moved car in the frame of the scene, which brings a plan of this sample back to it
    (:func:`~beyonddrive.structures.se2.to_global`). Cells of maps that were not seen have the
    ``IGNORED_LABEL`` of :mod:`beyonddrive.structures.sample`, those of ``lidar`` and pixels are 0.

    It stands behind ``LoadNegatives``, which compares the expert with that of the pool.

    Args:
        max_yaw: Largest turn to either side [deg].
        max_shift: Largest shift to either side [m].
        pixel_size: Side of a cell of the semantic maps [m], that of ``BEVMapTarget``.
        extent: Agents with abs(x) or abs(y) beyond this are left out [m], that of ``AgentTargets``.
        lidar_extent: Half side of the LiDAR raster [m], that of ``LoadLidarHistogram``.
        unmoved: Arrays of transforms of your own that are the same from every pose, by name.
        **kwargs: ``seed`` and ``probability`` of :class:`Augmentation`.

    Raises:
        ViewError: If there is a camera image without its rig, scores of a vocabulary, or an array that this
            transform does not know.
    """

    def __init__(
        self,
        max_yaw: float = 5.0,
        max_shift: float = 0.5,
        pixel_size: float = 0.25,
        extent: float = 32.0,
        lidar_extent: float = 32.0,
        unmoved: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= max_yaw <= 45 or not 0 <= max_shift < np.inf:
            raise ValueError(
                f"ViewAugmentation: max_yaw must be in [0, 45] degrees and max_shift [m] not negative, got "
                f"{max_yaw} and {max_shift}"
            )
        if pixel_size <= 0 or extent <= 0 or lidar_extent <= 0:
            raise ValueError("ViewAugmentation: pixel_size, extent and lidar_extent must be positive")
        self.max_yaw, self.max_shift = max_yaw, max_shift
        self.pixel_size, self.extent, self.lidar_extent = pixel_size, extent, lidar_extent
        self.unmoved = tuple(unmoved)

    @property
    def geometry_taken(self) -> Limits:
        """Those of the transforms whose results it turns."""
        return {
            MAP_CELL: exactly(self.pixel_size),
            AGENT_EXTENT: exactly(self.extent),
            LIDAR_EXTENT: exactly(self.lidar_extent),
        }

    def change(self, results: Results, rng: np.random.Generator) -> Results:
        """Draw a pose and see the sample from there."""
        shift, yaw = rng.uniform(-1.0, 1.0, 2) * [self.max_shift, np.radians(self.max_yaw)]
        return self.moved(results, np.array([0.0, shift, yaw]))

    def moved(self, results: Results, pose: NDArray[np.float64]) -> Results:
        """The sample from a pose (3,): x, y [m], heading [rad] in its frame."""
        if found := [key for key in _NEVER if key in results]:
            raise ViewError(
                f"ViewAugmentation: the sample has {found[0]}, which are of plans in the frame of the scene; "
                f"take ViewAugmentation out of the pipeline of a planner that learns from them"
            )
        if "acceleration_ahead" in results.get(HIDDEN, ()):
            raise ViewError(
                "ViewAugmentation: HideStatus has hidden the acceleration ahead, which turning would mix "
                "with that to the side; put HideStatus behind ViewAugmentation"
            )
        known = {*_MOVED, *_SAME, *self.unmoved}
        other = [key for key in results if key not in known and isinstance(results[key], np.ndarray)]
        if other:
            raise ViewError(
                f"ViewAugmentation: the sample has {other[0]!r}, and nothing says how it looks from aside: "
                f"name it in unmoved if it is the same from every pose; else add it behind ViewAugmentation, "
                f"in the frame of {VIEW_POSE} of the results, or leave ViewAugmentation out"
            )
        moved = dict(results)
        if "camera" in moved:
            moved["camera"] = self._camera(results, pose)
        if "lidar" in moved:
            cell = 2 * self.lidar_extent / moved["lidar"].shape[-1]
            corner = (-self.lidar_extent, -self.lidar_extent)
            moved["lidar"] = np.stack(
                [turned_raster(layer, pose, cell, corner, 0) for layer in moved["lidar"]]
            )
        if "points" in moved:
            points = moved["points"].copy()
            points[:, :2] = to_local(points[:, :2], pose)
            moved["points"] = points
        for key in _MAPS:
            if key in moved:
                corner = (0.0, -0.5 * moved[key].shape[1] * self.pixel_size)
                labels = moved[key].astype(np.int16)
                moved[key] = turned_raster(labels, pose, self.pixel_size, corner, IGNORED_LABEL)
        if "status" in moved:
            status = moved["status"].copy()
            status[4:8] = rotate(status[4:8].reshape(2, 2), -pose[2]).reshape(4)
            moved["status"] = status
        if "trajectory" in moved:
            moved["trajectory"] = to_local(moved["trajectory"], pose).astype(np.float32)
        if "negative_plans" in moved:
            plans = to_local(moved["negative_plans"], pose).astype(np.float32)
            moved["negative_plans"] = np.where(moved["negative_valid"][:, None, None], plans, np.float32(0))
        if "agent_states" in moved:
            moved |= self._agents(moved["agent_states"], moved["agent_labels"], pose)
        if "boxes" in moved:
            boxes = moved["boxes"].copy()
            boxes[:, [0, 1, 6]] = to_local(boxes[:, [0, 1, 6]], pose)
            boxes[:, 7:9] = rotate(boxes[:, 7:9], -pose[2])
            moved["boxes"] = boxes
        moved[VIEW_POSE] = pose
        return moved

    def _camera(self, results: Results, pose: NDArray[np.float64]) -> NDArray[np.uint8]:
        if "camera_rig" not in results:
            raise ViewError(
                "ViewAugmentation: nothing says how the cameras are mounted; set rig=True in the "
                "LoadCameraStitch of feature_pipeline and make the cache anew: beyonddrive cache-features "
                "CONFIG"
            )
        if not np.isfinite(results["camera_rig"]).all():
            raise ViewError(
                "ViewAugmentation: the rig of its cameras (camera_rig) is not finite, as its log has it; "
                "leave the scene out of the scene filter"
            )
        image: NDArray[np.uint8] = results["camera"]
        size = (image.shape[1], image.shape[2])
        pixels = source_pixels(np.asarray(results["camera_rig"], np.float64), pose, size)
        # (OpenCV counts from the centre of the first pixel; what comes from nowhere is far outside)
        table = np.where(np.isnan(pixels), np.float32(-1e4), pixels - np.float32(0.5))
        maps = cv2.convertMaps(table[..., 0], table[..., 1], cv2.CV_16SC2)
        planes = [
            cv2.remap(plane, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) for plane in image
        ]
        return np.stack(planes).astype(np.uint8, copy=False)

    def _agents(
        self, states: NDArray[np.float32], labels: NDArray[np.bool_], pose: NDArray[np.float64]
    ) -> dict[str, Any]:
        """Agents in the frame of the moved car, nearest first, without those that are too far now."""
        agents = states[labels].copy()
        agents[:, :3] = to_local(agents[:, :3], pose)
        agents = agents[(np.abs(agents[:, :2]) <= self.extent).all(axis=1)]
        agents = agents[np.argsort(np.linalg.norm(agents[:, :2], axis=1), kind="stable")]
        packed = np.zeros_like(states)
        packed[: len(agents)] = agents
        return {"agent_states": packed, "agent_labels": np.arange(len(states)) < len(agents)}


def turned_raster(
    raster: NDArray[Any], pose: NDArray[np.float64], cell: float, corner: tuple[float, float], fill: float
) -> NDArray[Any]:
    """A raster (rows along x, columns along y) in the frame of a moved car; each cell is that of its middle.

    Args:
        raster: (rows, columns).
        pose: (3,) x, y [m], heading [rad] of the moved car.
        cell: Side of a cell [m].
        corner: x, y [m] of the outer corner of the first cell.
        fill: Value of cells that lay outside.

    >>> raster = np.zeros((4, 4), np.int16); raster[2, 0] = 1
    >>> turned_raster(raster, np.array([1.0, 0.0, 0.0]), 1.0, (0.0, -2.0), -1)[1:].tolist()
    [[1, 0, 0, 0], [0, 0, 0, 0], [-1, -1, -1, -1]]
    """
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    start = np.array(corner) + 0.5 * cell  # middle of the first cell
    turn = np.array([[cos, -sin], [sin, cos]])
    origin = (turn @ start + pose[:2] - start) / cell  # (row, column) that the first cell comes from
    matrix = np.array([[cos, sin, origin[1]], [-sin, cos, origin[0]]])  # of (column, row)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    size = (raster.shape[1], raster.shape[0])
    return cv2.warpAffine(raster, matrix, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
