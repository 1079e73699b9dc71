"""All eight cameras around a close view from above, each where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.sensors import SensorError
from beyonddrive.visualization import palette
from beyonddrive.visualization.camera import CAMERA_LABELS, draw_camera
from beyonddrive.visualization.canvas import Canvas, Picture
from beyonddrive.visualization.layers import PlanLayer

GRID: tuple[tuple[str | None, ...], ...] = (
    ("CAM_L0", "CAM_F0", "CAM_R0"),
    ("CAM_L1", None, "CAM_R1"),
    ("CAM_L2", "CAM_B0", "CAM_R2"),
)
"""Cameras by place, the ego in the middle and heading up."""
GAP = 6
"""Pixels between two pictures."""


def draw_surround(
    scene: Scene,
    sensor_root: Path,
    layers: Sequence[PlanLayer],
    middle: Picture,
    width: int = 1440,
    allow_missing: bool = False,
) -> Picture:
    """Images of the current frame of all cameras, with plans projected by the calibration of each.

    Args:
        scene: The scene.
        sensor_root: Folder that image paths are relative to.
        layers: Plans.
        middle: What is shown between the cameras, scaled to the size of one; seen from above.
        width: Width of the result [px]; its cells have the shape of NAVSIM's images, 16 to 9.
        allow_missing: Say in its place that an image is missing, instead of an error; not if all are.

    Returns:
        uint8 RGB (H, width, 3).

    Raises:
        SensorError: If an image is missing or damaged.
    """
    cell_width = (width - 2 * GAP) // 3
    cell_height = round(cell_width * 9.0 / 16.0)
    page = np.full((3 * cell_height + 2 * GAP, width, 3), palette.PAPER, np.uint8)
    missing: list[SensorError] = []
    for row, names in enumerate(GRID):
        for column, name in enumerate(names):
            if name is None:
                cell: Picture = np.asarray(cv2.resize(middle, (cell_width, cell_height)), dtype=np.uint8)
            else:
                try:
                    cell = draw_camera(scene, sensor_root, layers, (name,), cell_width, cell_height)
                except SensorError as error:
                    if not allow_missing:
                        raise
                    missing.append(error)
                    cell = _absent(name, cell_width, cell_height)
            top, left = row * (cell_height + GAP), column * (cell_width + GAP)
            page[top : top + cell_height, left : left + cell_width] = cell
    if len(missing) == len(CAMERA_LABELS):
        raise missing[0]
    return page


def _absent(name: str, width: int, height: int) -> Picture:
    canvas = Canvas(width, height, palette.SHADE)
    words = f"{CAMERA_LABELS[name]}: no image"
    canvas.text(0.5 * width, 0.5 * height, words, 15, palette.MUTED_INK, anchor="mm")
    return canvas.finish()
