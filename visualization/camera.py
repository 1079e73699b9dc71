"""Camera views with plans laid on the ground."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.datasets.navsim.sensors import camera_of
from beyonddrive.structures.boxes import EGO_LENGTH, EGO_REAR_AXLE_TO_CENTER, box_corners, ego_corners
from beyonddrive.structures.se2 import to_local
from beyonddrive.visualization import palette
from beyonddrive.visualization.canvas import Canvas, Picture, text_width
from beyonddrive.visualization.failures import Verdict
from beyonddrive.visualization.layers import PlanLayer
from beyonddrive.visualization.projection import Projection

CAMERA_LABELS = {
    "CAM_F0": "front",
    "CAM_L0": "front left",
    "CAM_R0": "front right",
    "CAM_L1": "left",
    "CAM_R1": "right",
    "CAM_L2": "rear left",
    "CAM_R2": "rear right",
    "CAM_B0": "rear",
}
SIDE_SHARE = 1088.0 / 1920.0
"""Width of a side camera beside the front camera."""
EGO_FRONT = EGO_REAR_AXLE_TO_CENTER + 0.5 * EGO_LENGTH
"""Distance from the rear axle to the front bumper [m]."""
REACH = 150.0
"""A plan is drawn this far [m]: beyond it is a pixel wide."""
STEP = 0.25
"""Spacing of the points of a ribbon [m]."""
RIBBONS: dict[str, tuple[float, float]] = {
    "expert": (0.32, 0.9),
    "plan": (1.7, 0.34),
    "proposals": (0.12, 0.75),
}
"""Width on the ground [m] and opacity by role: a plan is a carpet, the expert a line on it."""


def draw_camera(
    scene: Scene,
    sensor_root: Path,
    layers: Sequence[PlanLayer] = (),
    cameras: Sequence[str] = ("CAM_F0",),
    width: int = 960,
    height: int = 540,
) -> Picture:
    """Images of the current frame, side by side, with plans projected on the ground (z = 0 of the ego frame).

    Args:
        scene: The scene.
        sensor_root: Folder that image paths are relative to.
        layers: Plans; proposals are drawn first, then plans, then the expert.
        cameras: Names of the cameras, from left to right, such as ``("CAM_L0", "CAM_F0", "CAM_R0")``.
        width: Width of the result [px].
        height: Height of the result [px]; images are cropped to fill their share, not stretched.

    Returns:
        uint8 RGB (height, width, 3).

    Raises:
        SensorError: If an image is missing or damaged.
        ValueError: If a camera does not exist.
    """
    # Beside the front camera the others show their middle, as planners see them (MODELS, section 1).
    weights = [1.0 if name == "CAM_F0" or len(cameras) == 1 else SIDE_SHARE for name in cameras]
    edges = (np.cumsum([0.0, *weights]) * width / sum(weights)).round().astype(int)
    views = [
        _draw_one(scene, Path(sensor_root), layers, name, int(right - left), height)
        for name, left, right in zip(cameras, edges[:-1], edges[1:], strict=True)
    ]
    return np.concatenate(views, axis=1)


def _draw_one(
    scene: Scene, sensor_root: Path, layers: Sequence[PlanLayer], name: str, width: int, height: int
) -> Picture:
    if name not in CAMERA_LABELS:
        raise ValueError(f"there is no camera {name!r}; a frame has {sorted(CAMERA_LABELS)}")
    camera = camera_of(scene.now, name, sensor_root)
    image, projection = fill_window(
        camera.image(),
        Projection(camera.intrinsic, camera.rotation, camera.translation, camera.distortion),
        width,
        height,
    )
    canvas = Canvas(width, height, image)
    rank = {"proposals": 0, "plan": 1, "expert": 2}
    for layer in sorted(layers, key=lambda item: rank[item.role]):
        _draw_ribbons(canvas, projection, layer)
    for layer in layers:
        if layer.role != "proposals":
            _draw_moments(canvas, projection, scene, layer)
    label = CAMERA_LABELS[name]
    canvas.rectangle(10.0, 10.0, text_width(label, 13) + 18.0, 24.0, palette.INK, alpha=0.6, radius=5.0)
    canvas.text(19.0, 22.0, label, 13, palette.PAPER, anchor="lm")
    return canvas.finish()


def fill_window(
    image: Picture, projection: Projection, width: int, height: int
) -> tuple[Picture, Projection]:
    """Scale an image so that it fills a window, cut off what stands over, and move the camera along."""
    rows, columns = image.shape[:2]
    factor = max(width / columns, height / rows)
    size = (max(width, round(columns * factor)), max(height, round(rows * factor)))
    interpolation = cv2.INTER_AREA if factor < 1.0 else cv2.INTER_CUBIC
    resized = cv2.resize(image, size, interpolation=interpolation)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    scaled = projection.scaled(size[0] / columns, size[1] / rows)
    shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
    moved = Projection(shift @ scaled.intrinsic, scaled.rotation, scaled.translation, scaled.distortion)
    return np.ascontiguousarray(resized[top : top + height, left : left + width], dtype=np.uint8), moved


def plan_course(plan: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (n, 2) every 25 cm along a plan (8, 3), from the front bumper of the ego on."""
    corners = np.concatenate([np.zeros((1, 2)), plan[:, :2]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    length = min(float(along[-1]), REACH)
    at = np.arange(0.0, length + STEP, STEP).clip(max=length)
    course = np.stack([np.interp(at, along, corners[:, axis]) for axis in range(2)], axis=-1)
    return course[at >= EGO_FRONT]


def _draw_ribbons(canvas: Canvas, projection: Projection, layer: PlanLayer) -> None:
    width, alpha = RIBBONS[layer.role]
    for color, group in groupby(layer.painted(), key=lambda item: item[1]):
        rings = []
        for plan, _, _ in group:
            left, right = ribbon(plan, width)
            quads = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)  # (n - 1, 4, 3)
            rings += [ring for ring in map(projection.ring, quads) if ring is not None]
            if layer.role == "plan":
                edges = [piece for side in (left, right) for piece in projection.line(side)]
                canvas.stroke(edges, color, 2.0, alpha=0.9)
        canvas.fill(rings, color, alpha)


def ribbon(plan: NDArray[np.float64], width: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Left and right edge (n, 3) of a strip on the ground along a plan (8, 3); n = 0 for one that stands."""
    course = plan_course(plan)
    if len(course) < 2:
        return np.empty((0, 3)), np.empty((0, 3))
    tangent = np.gradient(course, axis=0)
    length = np.hypot(*tangent.T)
    course, tangent, length = (values[length > 1e-9] for values in (course, tangent, length))
    tangent = tangent / length[:, None]
    side = 0.5 * width * np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)
    ground = np.zeros((len(course), 1))
    return np.concatenate([course + side, ground], axis=-1), np.concatenate([course - side, ground], axis=-1)


def _draw_moments(canvas: Canvas, projection: Projection, scene: Scene, layer: PlanLayer) -> None:
    """The ego box on the ground where a plan fails, and the object that it fails by, where that is now."""
    for _, _, verdict in layer.painted():
        if verdict is None or verdict.moment is None:
            continue
        _draw_culprit(canvas, projection, scene, verdict)
        corners = ego_corners(to_local(verdict.pose_at(verdict.moment), scene.ego_pose))
        ring = projection.ring(np.concatenate([corners, np.zeros((4, 1))], axis=-1))
        if ring is not None:
            canvas.fill([ring], verdict.color, alpha=0.3)
            canvas.stroke([ring], verdict.color, 2.0, closed=True)


def _draw_culprit(canvas: Canvas, projection: Projection, scene: Scene, verdict: Verdict) -> None:
    """The edges of the box of what was hit or came too close."""
    objects = scene.objects(HISTORY - 1)
    for token, (x, y, z, length, width, height, yaw) in zip(objects.tokens, objects.boxes, strict=True):
        if verdict.mark is None or token != verdict.mark.object_token:
            continue
        footprint = box_corners(np.array([x, y]), yaw, length, width)  # (4, 2)
        bottom, top = (np.column_stack([footprint, np.full(4, z + side * height)]) for side in (-0.5, 0.5))
        posts = [np.stack([low, high]) for low, high in zip(bottom, top, strict=True)]
        rings = [np.concatenate([ring, ring[:1]]) for ring in (bottom, top)]
        pieces = [piece for edge in (*rings, *posts) for piece in projection.line(edge)]
        canvas.stroke(pieces, palette.PAPER, 4.0, alpha=0.8)
        canvas.stroke(pieces, verdict.color, 2.0)
