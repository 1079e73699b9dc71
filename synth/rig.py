"""The camera rig of the generated world: where the eight cameras sit and how they project."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

FULL_SIZE = (1920, 1080)
"""Width and height [px] of a NAVSIM image."""
FOCAL_LENGTH = 1545.0
"""Focal length at the full size [px]."""
PRINCIPAL_POINT = (960.0, 560.0)
"""Principal point at the full size [px]."""
LIDAR_POSITION = (1.1, 0.0, 1.95)
"""Origin of the LiDAR's rays in the ego frame [m]: the middle of the roof."""

_MOUNTS: dict[str, tuple[float, float, float, float]] = {
    # name: x, y, z [m] in the ego frame (rear axle on the ground), yaw of the optical axis [deg]
    "CAM_F0": (1.66, 0.0, 1.54, 0.0),
    "CAM_L0": (1.56, 0.51, 1.53, 55.0),
    "CAM_L1": (0.98, 0.56, 1.55, 110.0),
    "CAM_L2": (0.52, 0.52, 1.56, 140.0),
    "CAM_R0": (1.56, -0.51, 1.53, -55.0),
    "CAM_R1": (0.98, -0.56, 1.55, -110.0),
    "CAM_R2": (0.52, -0.52, 1.56, -140.0),
    "CAM_B0": (-0.34, 0.0, 1.58, 180.0),
}
CAMERA_NAMES = tuple(_MOUNTS)
"""The eight cameras of a frame (NAVSIM_FORMAT, section 2)."""


class CameraPose(TypedDict):
    """One entry of a frame's ``cams`` without its ``data_path`` (NAVSIM_FORMAT, section 2)."""

    sensor2lidar_rotation: NDArray[np.float64]
    sensor2lidar_translation: NDArray[np.float64]
    cam_intrinsic: NDArray[np.float64]
    distortion: NDArray[np.float64]


def rig(image_size: tuple[int, int] = FULL_SIZE) -> dict[str, CameraPose]:
    """The eight cameras for images of ``image_size`` = (width, height) pixels.

    Camera axes: x right, y down, z forward. The LiDAR frame is the ego frame: origin on the ground under
    the rear axle, x forward, y left, z up. A point p of a camera is ``rotation @ p + translation`` in the ego
    frame. The intrinsics are those of the full size scaled to ``image_size``; pixel i covers the
    interval [i, i + 1), so that scaling an image scales its intrinsics. There is no lens distortion.

    Raises:
        ValueError: If a side of the image is not positive.

    >>> cameras = rig((480, 270))
    >>> cameras["CAM_F0"]["cam_intrinsic"].tolist()
    [[386.25, 0.0, 240.0], [0.0, 386.25, 140.0], [0.0, 0.0, 1.0]]
    >>> (cameras["CAM_L0"]["sensor2lidar_rotation"] @ [0.0, 0.0, 1.0]).round(3).tolist()
    [0.574, 0.819, 0.0]
    """
    width, height = image_size
    if width < 1 or height < 1:
        raise ValueError(f"image_size {image_size!r} must be a positive (width, height)")
    scale_x, scale_y = width / FULL_SIZE[0], height / FULL_SIZE[1]
    intrinsic = np.array(
        [
            [FOCAL_LENGTH * scale_x, 0.0, PRINCIPAL_POINT[0] * scale_x],
            [0.0, FOCAL_LENGTH * scale_y, PRINCIPAL_POINT[1] * scale_y],
            [0.0, 0.0, 1.0],
        ]
    )
    cameras: dict[str, CameraPose] = {}
    for name, (x, y, z, yaw_degrees) in _MOUNTS.items():
        yaw = np.deg2rad(yaw_degrees)
        right = (np.sin(yaw), -np.cos(yaw), 0.0)
        down = (0.0, 0.0, -1.0)
        forward = (np.cos(yaw), np.sin(yaw), 0.0)
        cameras[name] = CameraPose(
            sensor2lidar_rotation=np.array([right, down, forward]).T.copy(),
            sensor2lidar_translation=np.array([x, y, z]),
            cam_intrinsic=intrinsic.copy(),
            distortion=np.zeros(5),
        )
    return cameras
