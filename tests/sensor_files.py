"""Sensor files of a frame, for data roots that tests make of golden logs."""

import cv2
import numpy as np

from beyonddrive.datasets.navsim.sensors import write_pcd


def write_sensors(folder, frame, number):
    """Three images of 96 x 54 and a sweep of 500 points, where ``frame`` says; ``number`` is their seed."""
    rng = np.random.default_rng(number)
    for name in ("CAM_L0", "CAM_F0", "CAM_R0"):
        path = folder / frame["cams"][name]["data_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (54, 96, 3), dtype=np.uint8))
    points = rng.normal(0, 10, (6, 500)).astype(np.float32)
    points[4:] = 0
    write_pcd(folder / frame["lidar_path"], points)
