"""What an agent sees of one of our scenes (SUBMISSION, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import HISTORY, Scene, SceneError
from beyonddrive.datasets.navsim.sensors import camera_of, lidar_path_of, read_pcd
from beyonddrive.datasets.navsim.synthetic import SyntheticScene
from beyonddrive.evaluation.agents.devkit import Devkit
from beyonddrive.evaluation.agents.lookalikes import CAMERAS, LIDAR
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.se2 import to_local

Entries = Mapping[str, frozenset[int]]
"""Sensor -> which of the four entries are wanted."""


class AgentError(BeyondDriveError, RuntimeError):
    """An agent cannot be run, or returns what is no plan; the message names it, the scene and the reason."""


def wanted_entries(config: Any) -> Entries:
    """Which sensors a sensor configuration asks for.

    Raises:
        AgentError: If it lacks a sensor, or holds something else than booleans and indices.

    >>> from beyonddrive.evaluation.agents.lookalikes import SensorConfig
    >>> sorted(wanted_entries(SensorConfig.build_all_sensors([3]))["cam_f0"])
    [3]
    """
    entries = {}
    for name in (*CAMERAS, LIDAR):
        value = getattr(config, name, None)
        if isinstance(value, bool):
            entries[name] = frozenset(range(HISTORY)) if value else frozenset()
            continue
        try:
            entries[name] = frozenset(int(index) for index in value)  # type: ignore[union-attr]
        except (TypeError, ValueError):
            raise AgentError(
                f"get_sensor_config: {name} must be true, false or a list of entries, got {value!r}"
            ) from None
        if not entries[name] <= set(range(HISTORY)):
            raise AgentError(f"get_sensor_config: {name}: entries are 0 to {HISTORY - 1}, got {value!r}")
    return entries


def agent_input(scene: Scene, root: NavsimRoot, entries: Entries, devkit: Devkit) -> Any:
    """The input of an agent: four entries of ego status, cameras and LiDAR, the last is now.

    Args:
        scene: The scene.
        root: Where its sensor files are.
        entries: What is read of them.
        devkit: Classes of the result.

    Raises:
        SceneError: If a pose or motion is not finite.
        SensorError: If a sensor file that is wanted is missing or damaged.
    """
    data = devkit.data
    folder = root.sensor_root(scene.split) if any(entries.values()) else Path()
    # As the devkit has them: follow-up scenes in float64, all others in float32.
    kind = np.float64 if isinstance(scene, SyntheticScene) else np.float32
    poses = to_local(scene.ego_poses[:HISTORY], scene.ego_pose)
    statuses, cameras, lidars = [], [], []
    for index, frame in enumerate(scene.frames[:HISTORY]):
        motion = np.asarray(frame["ego_dynamic_state"], dtype=np.float32)
        if not np.isfinite(motion).all():
            raise SceneError(f"scene {scene.token}: frame {index}: ego_dynamic_state is not finite")
        statuses.append(
            data.EgoStatus(
                ego_pose=poses[index].astype(kind),
                ego_velocity=motion[:2],
                ego_acceleration=motion[2:],
                driving_command=np.asarray(frame["driving_command"]).astype(np.int64),
                in_global_frame=False,
            )
        )
        cameras.append(
            data.Cameras(
                **{
                    name: _camera(frame, name, folder, data)
                    if index in entries[name]
                    else data.Camera(**_NO_CAMERA)
                    for name in CAMERAS
                }
            )
        )
        path = lidar_path_of(frame, folder) if index in entries[LIDAR] else None
        lidars.append(
            data.Lidar(lidar_pc=None if path is None else read_pcd(path), lidar_path=path and str(path))
        )
    return data.AgentInput(ego_statuses=statuses, cameras=cameras, lidars=lidars)


_NO_CAMERA = dict.fromkeys(
    (
        "image",
        "sensor2lidar_rotation",
        "sensor2lidar_translation",
        "intrinsics",
        "distortion",
        "camera_path",
    )
)


def _camera(frame: dict[str, Any], name: str, sensor_root: Path, data: Any) -> Any:
    camera = camera_of(frame, name.upper(), sensor_root)
    return data.Camera(
        image=camera.image(),
        sensor2lidar_rotation=camera.rotation,
        sensor2lidar_translation=camera.translation,
        intrinsics=camera.intrinsic,
        distortion=camera.distortion,
        camera_path=str(camera.path),
    )
