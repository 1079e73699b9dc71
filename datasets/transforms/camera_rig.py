"""The stitched cameras as one projection of the world, and how the strip looks from a moved car.

A rig is float64 (3, 26): for the left, front and right panel of a strip the matrix of its lens (3, 3), which
gives pixels of the strip, pixel i covering the interval [i, i + 1); the matrix from homogeneous points of the
ego frame [m] to camera axes (3, 4); and the distortion k1, k2, p1, p2, k3 (5,). NAVSIM's images are as the
lenses made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.sensors import Camera
from beyonddrive.structures.lenses import distorted, square_limit

CROP_ROWS = 28 / 1080
"""Share of the rows cut from top and bottom of every image (MODELS, section 1)."""
CROP_COLUMNS = 416 / 1920
"""Share of the columns cut from both sides of the two outer images."""
FAR = 60.0
"""What is farther away than this, or above the horizon, is drawn as if it stood so far away [m]."""
_MIN_DEPTH = 0.1
_STEP = 4
"""Pixels from node to node of the grid on which a view is computed; between them it is interpolated."""
_UNDISTORT_STEPS = 30
"""Of the fixed-point iteration: errors far below a pixel in the corners of NAVSIM's images."""


class Panel(NamedTuple):
    """A panel of a rig.

    Attributes:
        lens: (3, 3).
        mount: (3, 4).
        distortion: (5,).
        left: First column.
        right: Column behind the last one.
    """

    lens: NDArray[np.floating]
    mount: NDArray[np.floating]
    distortion: NDArray[np.floating]
    left: int
    right: int


def rig_of(
    cameras: Sequence[Camera], image_size: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float64]:
    """The rig of a strip (:func:`~beyonddrive.datasets.transforms.camera.stitch`).

    Args:
        cameras: Left, front and right.
        image_size: (h, w) of each image [px].
        size: (H, W) of the strip [px].

    Raises:
        SensorError: If a calibration is not finite.
    """
    for camera in cameras:
        camera.check_calibration()
    height, width = image_size
    rows, columns = round(CROP_ROWS * height), round(CROP_COLUMNS * width)
    scale = np.diag([size[1] / (3 * width - 4 * columns), size[0] / (height - 2 * rows), 1.0])
    outer = width - 2 * columns
    panels = []
    for start, camera in zip((-columns, outer, outer + width - columns), cameras, strict=True):
        offset = np.array([[1.0, 0.0, start], [0.0, 1.0, -rows], [0.0, 0.0, 1.0]])
        mount = np.column_stack([camera.rotation.T, -camera.rotation.T @ camera.translation])
        lens = scale @ offset @ camera.intrinsic
        panels.append(np.concatenate([lens.ravel(), mount.ravel(), camera.distortion.ravel()]))
    return np.stack(panels)


def panels_of(rig: NDArray[np.floating], width: int) -> list[Panel]:
    """The panels of a strip of this width.

    >>> [(panel.left, panel.right) for panel in panels_of(np.zeros((3, 26)), 1024)]
    [(0, 272), (272, 752), (752, 1024)]
    """
    outer = (1.0 - 2.0 * CROP_COLUMNS) / (3.0 - 4.0 * CROP_COLUMNS)
    edges = np.rint(np.array([0.0, outer, 1.0 - outer, 1.0]) * width).astype(int).tolist()
    return [
        Panel(row[:9].reshape(3, 3), row[9:21].reshape(3, 4), row[21:], edges[index], edges[index + 1])
        for index, row in enumerate(rig)
    ]


def source_pixels(
    rig: NDArray[np.float64], pose: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Where in a strip the pixels of the strip of a moved car come from: float32 (H, W, 2), NaN for nowhere.

    Every pixel is taken to show the ground (z = 0), or what is :data:`FAR` away if that is nearer or the
    ground is not in its way. On the ground this is exact; what stands on it leans a little.

    Args:
        rig: The rig, fixed to the car.
        pose: (3,) x, y [m], heading [rad] of the moved car in the frame of the strip.
        size: (H, W) of the strip [px].
    """
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], np.float32)
    panels = panels_of(rig, size[1])
    pixels = np.empty((*size, 2), np.float32)
    for index, panel in enumerate(panels):
        points = _shown_points(panel, size[0]) @ turn.T
        points[..., :2] += pose[:2].astype(np.float32)
        whole = pixels[:, panel.left : panel.right]
        nodes = _project(points, panel)
        whole[:] = _between(nodes, whole.shape[:2])
        unseen, unseen_nodes = _outside(whole, panel, size[0]), _outside(nodes, panel, size[0])
        # What the panel itself does not show may be in its neighbours.
        for source in panels[max(index - 1, 0) : index] + panels[index + 1 : index + 2]:
            nodes = _project(points, source)
            columns = np.flatnonzero((unseen_nodes & ~_outside(nodes, source, size[0])).any(axis=0))
            if columns.size:
                first = max(int(columns[0]) - 1, 0)
                part = slice(first * _STEP, (int(columns[-1]) + 1) * _STEP)
                other = _between(nodes[:, first:], whole[:, part].shape[:2])
                found = unseen[:, part] & ~_outside(other, source, size[0])
                np.copyto(whole[:, part], other, where=found[..., None])
                unseen[:, part] &= ~found
        np.copyto(whole, np.float32(np.nan), where=unseen[..., None])
    return pixels


def _between(nodes: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Pixels (*size, 2) from those at the nodes of a grid; NaN beside a node that is NaN."""
    steps = np.array([[1 / _STEP, 0.0, 0.0], [0.0, 1 / _STEP, 0.0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found: NDArray[Any] = cv2.warpAffine(nodes, steps, (size[1], size[0]), flags=flags)
    return found


def _outside(pixels: NDArray[np.float32], panel: Panel, height: int) -> NDArray[np.bool_]:
    """Which pixels (..., 2) lie outside a panel, or are NaN."""
    u, v = pixels[..., 0], pixels[..., 1]
    return ~((u >= panel.left) & (u < panel.right) & (v >= 0) & (v < height))


def _project(points: NDArray[np.float32], panel: Panel) -> NDArray[np.float32]:
    """Pixels (..., 2) of points (..., 3) of the ego frame [m]; NaN where the lens does not see."""
    lens, mount = panel.lens.astype(np.float32), panel.mount.astype(np.float32)
    x, y, depth = np.moveaxis(points @ mount[:, :3].T + mount[:, 3], -1, 0).copy()
    seen = depth > _MIN_DEPTH
    depth[~seen] = 1.0
    x, y = x / depth, y / depth
    seen &= x * x + y * y <= square_limit(panel.distortion)
    x, y = _distorted(x, y, panel.distortion.astype(np.float32))
    u = lens[0, 0] * x + lens[0, 1] * y + lens[0, 2]
    v = lens[1, 0] * x + lens[1, 1] * y + lens[1, 2]
    pixels = np.stack([u, v], axis=-1)
    pixels[~seen] = np.nan
    return pixels


def _distorted(
    x: NDArray[np.floating], y: NDArray[np.floating], distortion: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Where the lens shows what a pinhole would show at x, y (at depth 1)."""
    return distorted(x, y, distortion) if distortion.any() else (x, y)


def _shown_points(panel: Panel, height: int) -> NDArray[np.float32]:
    """What a panel shows at the nodes of a grid: points (rows, columns, 3) of the ego frame [m]."""
    rays = _rays(panel.lens.tobytes() + panel.distortion.tobytes(), panel.left, panel.right, height)
    turn = panel.mount[:, :3]
    place = (-turn.T @ panel.mount[:, 3]).astype(np.float32)
    directions: NDArray[np.float32] = rays @ turn.astype(np.float32)
    down = directions[..., 2]
    ground = np.where(down < 0, -place[2] / np.minimum(down, np.float32(-1e-9)), np.float32(np.inf))
    wall = np.float32(FAR) / np.hypot(directions[..., 0], directions[..., 1])
    shown: NDArray[Any] = place + np.minimum(ground, wall)[..., None] * directions
    return shown


@lru_cache(maxsize=24)
def _rays(key: bytes, left: int, right: int, height: int) -> NDArray[np.float32]:
    """Directions (rows, columns, 3) of a panel's nodes in camera axes, at depth 1; of a lens, thus few."""
    values: NDArray[Any] = np.frombuffer(key, np.float64)
    lens, distortion = values[:9].reshape(3, 3), values[9:]
    u, v = np.meshgrid(np.arange(left, right + _STEP, _STEP) + 0.5, np.arange(0, height + _STEP, _STEP) + 0.5)
    shown = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(lens).T
    x, y = shown[..., 0].copy(), shown[..., 1].copy()
    for _ in range(_UNDISTORT_STEPS if distortion.any() else 0):
        there = _distorted(x, y, distortion)
        x += shown[..., 0] - there[0]
        y += shown[..., 1] - there[1]
    return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)
