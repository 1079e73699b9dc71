"""HUGSIM's recorded cameras beside what drivers make of them (HUGSIM, section 2.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.deploy.drivers.hugsim import FRONT_CAMERA, HugsimConventions, frame_of
from beyonddrive.evaluation.closed_loop.hugsim.route import pose_matrix
from beyonddrive.evaluation.golden import FileComparison
from beyonddrive.structures.lenses import Pinhole

CAMERAS = "cameras.json"


def compare_cameras(path: Path, found: FileComparison) -> None:
    """Compare matrices, focal lengths and places of cameras as a frame has them with recorded ones."""
    for name, recorded in json.loads(path.read_text()).items():
        _compare_rig(name, recorded, found)


def _compare_rig(name: str, recorded: Mapping[str, Any], found: FileComparison) -> None:
    cameras = recorded["cams"]
    for camera, told in cameras.items():
        extrinsics = told["yaml"]["extrinsics"]
        for matrix in ("v2c", "l2c"):
            ours = pose_matrix(np.deg2rad(extrinsics[f"{matrix}_rot"]), extrinsics[f"{matrix}_trans"])
            found.add(f"{name} {camera} {matrix}", ours, told[matrix])
    info = {
        **dict.fromkeys(("ego_velo", "ego_steer", "accelerate", "timestamp", "command"), 0),
        "ego_box": np.zeros(7),
        "cam_params": {camera: _told(told) for camera, told in cameras.items()},
    }
    images = {
        camera: np.zeros((intrinsic["H"], intrinsic["W"], 3), np.uint8)
        for camera, intrinsic in ((camera, told["yaml"]["intrinsics"]) for camera, told in cameras.items())
    }
    views = frame_of({"rgb": images}, info, name, HugsimConventions()).cameras
    rect = pose_matrix(np.deg2rad(recorded["cam_rect"]["rot"]), recorded["cam_rect"]["trans"])
    placed = {camera: np.eye(4) for camera in cameras}
    for camera, view in views.items():
        placed[camera][:3, :3], placed[camera][:3, 3] = view.rotation, view.translation
    for camera, told in cameras.items():
        lens = views[camera].lens
        assert isinstance(lens, Pinhole)
        # (pixels of hundreds: as far as rounding goes)
        found.add(f"{name} {camera} focal lengths", [lens.fx, lens.fy], told["focal"], 1e-11)
        intrinsic = told["yaml"]["intrinsics"]
        found.add(f"{name} {camera} centre", [lens.cx, lens.cy], [intrinsic["cx"], intrinsic["cy"]])
        to_ego = np.linalg.inv(placed[FRONT_CAMERA]) @ placed[camera] @ rect
        found.add(f"{name} {camera} to the ego", to_ego, told["camera_to_ego"])
        found.add(f"{name} {camera} to the world", recorded["ego"] @ to_ego, told["camera_to_world"])


def _told(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A camera as ``cam_params`` has it."""
    intrinsic = recorded["yaml"]["intrinsics"]
    fields = {key: float(np.deg2rad(intrinsic[key])) for key in ("fovx", "fovy")}
    return {"intrinsic": {**intrinsic, **fields}, "v2c": recorded["v2c"], "l2c": recorded["l2c"]}
