"""Sensor files of a generated log: eight camera images and a LiDAR sweep per frame."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.datasets.navsim.sensors import SensorError, camera_of, lidar_path_of, read_pcd, write_pcd
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.digests import number_of
from beyonddrive.synth.camera import Painter
from beyonddrive.synth.lidar import LidarConfig, scan
from beyonddrive.synth.rig import CAMERA_NAMES, FULL_SIZE, CameraPose, rig

JPEG_QUALITY = 90
Frame = dict[str, Any]


@dataclass(frozen=True)
class RenderCount:
    """Files that a call has written, and complete ones that it has found and kept."""

    written: int
    kept: int


def with_rig(frames: Sequence[Frame], image_size: tuple[int, int] = FULL_SIZE) -> list[Frame]:
    """Copies of frames with the cameras of :func:`rig` in the place of their own; paths stay."""
    cameras = rig(image_size)
    return [
        {
            **frame,
            "cams": {
                name: {"data_path": frame["cams"][name]["data_path"], **cameras[name]}
                for name in CAMERA_NAMES
            },
        }
        for frame in frames
    ]


def render_log(
    frames: Sequence[Frame],
    nuplan_map: NuPlanMap,
    out_dir: Path,
    image_size: tuple[int, int] = FULL_SIZE,
    cameras: Collection[str] = CAMERA_NAMES,
    lidar: bool = True,
    frames_to_render: Iterable[int] | None = None,
    seed: int = 0,
) -> RenderCount:
    """Write the sensor files of a log; each appears complete or not, complete ones are kept.

    Args:
        frames: All frames of the log in order, with the cameras of ``rig(image_size)``.
        nuplan_map: Their map; every layer but ``lanes_polygons`` may be missing.
        out_dir: Folder that the paths in the frames are relative to.
        image_size: Width and height [px].
        cameras: Names of the cameras to paint.
        lidar: Whether to write the sweeps.
        frames_to_render: Indices of the frames to render; all by default.
        seed: Daylight and sensor noise follow from it, the name of the log and the tokens of the frames.

    Returns:
        How many files were written and how many were there already.

    Raises:
        SensorError: If a frame lacks a camera, its intrinsics are not those of ``image_size``, or a path
            leaves ``out_dir``.
        MapError: If the map has no lanes.
    """
    chosen = list(range(len(frames)) if frames_to_render is None else frames_to_render)
    poses = rig(image_size)
    jobs: list[tuple[int, str, Path]] = []
    kept = 0
    for index in chosen:
        for name in cameras:
            path = _checked_camera(frames[index], name, poses, image_size, out_dir)
            if _is_image(path, image_size):
                kept += 1
            else:
                jobs.append((index, name, path))
        if lidar:
            path = lidar_path_of(frames[index], out_dir)
            if _is_sweep(path):
                kept += 1
            else:
                jobs.append((index, "", path))
    if not jobs:
        return RenderCount(0, kept)
    painter = Painter(nuplan_map, frames, seed)
    for index, name, path in jobs:
        if name:
            # Truncated files are found and made again, so nothing has to wait for the disk.
            write_atomically(path, encode_jpeg(painter.paint(index, poses[name], image_size)), sync=False)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pcd(path, sweep_of(frames[index], painter.obstacles(index), seed), sync=False)
    return RenderCount(len(jobs), kept)


def sweep_of(
    frame: Frame, obstacles: NDArray[np.float64], seed: int, config: LidarConfig | None = None
) -> NDArray[np.float32]:
    """LiDAR sweep (6, N) of a frame: its boxes, and ``obstacles`` (M, 7) in the ego frame."""
    anns = frame["anns"]
    boxes = np.asarray(anns["gt_boxes"], dtype=np.float64).reshape(-1, 7)
    others = np.array([name != "ego" for name in anns["gt_names"]], dtype=bool)
    kinds = [str(name) for name in anns["gt_names"] if name != "ego"] + ["scenery"] * len(obstacles)
    return scan(np.concatenate([boxes[others], obstacles]), kinds, number_of(seed, frame["token"]), config)


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """JPEG bytes of an RGB image; equal images give equal bytes."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        raise RuntimeError(f"an image of shape {image.shape} could not be encoded as JPEG")
    return data.tobytes()


def _checked_camera(
    frame: Frame, name: str, poses: dict[str, CameraPose], image_size: tuple[int, int], out_dir: Path
) -> Path:
    """Path of the image of a camera whose calibration is that of the rig."""
    if name not in poses:
        raise SensorError(f"there is no camera {name!r}; the rig has {', '.join(poses)}")
    camera = camera_of(frame, name, out_dir)
    pose = poses[name]
    for key, stored, painted in (
        ("cam_intrinsic", camera.intrinsic, pose["cam_intrinsic"]),
        ("sensor2lidar_rotation", camera.rotation, pose["sensor2lidar_rotation"]),
        ("sensor2lidar_translation", camera.translation, pose["sensor2lidar_translation"]),
        ("distortion", camera.distortion, pose["distortion"]),
    ):
        if stored.shape != painted.shape or not np.allclose(stored, painted, atol=1e-6):
            raise SensorError(
                f"frame {frame['token']}: cams.{name}.{key} is not that of the rig for {image_size[0]}x"
                f"{image_size[1]} images; use rig(image_size) for the log, or with_rig(frames, image_size)"
            )
    return camera.path


def _is_image(path: Path, image_size: tuple[int, int]) -> bool:
    """Whether a complete JPEG of this size is there."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return False
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] in (0xC0, 0xC1, 0xC2):
            # Frame header: length (2), precision (1), height (2), width (2).
            height, width = (int.from_bytes(data[at + k : at + k + 2], "big") for k in (5, 7))
            return (width, height) == tuple(image_size)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _is_sweep(path: Path) -> bool:
    """Whether a complete sweep is there."""
    try:
        read_pcd(path)
    except SensorError:
        return False
    return True
