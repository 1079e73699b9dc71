"""Frames of a log in NAVSIM's format, from smooth motion (NAVSIM_FORMAT, section 2)."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.synth.recorded_town import RecordedTown
from beyonddrive.synth.rig import CameraPose
from beyonddrive.synth.routes import Route
from beyonddrive.synth.tokens import token_of

STEPS_PER_FRAME = 5
"""The simulation runs at 10 Hz, logs at 2 Hz."""
FRAME_US = 500_000
"""Time between frames [us]."""
Frame = dict[str, Any]


def _annotations(
    town: RecordedTown, step: int, pose: NDArray[np.float64], ego: int, log_name: str
) -> dict[str, Any]:
    seen = town.around(step, pose[:2], without=ego)
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    to_ego = np.array([[cosine, -sine], [sine, cosine]])
    center, velocity = (seen.center - pose[:2]) @ to_ego, seen.velocity @ to_ego
    size = town.size[seen.index]
    heading = seen.heading - pose[2]
    heading = np.arctan2(np.sin(heading), np.cos(heading))
    tokens = [town.tokens[i] for i in seen.index]
    return {
        "gt_boxes": np.column_stack([center, size[:, 2] / 2, size, heading]).reshape(-1, 7),
        "gt_names": np.array([town.types[i] for i in seen.index], dtype="<U14"),
        "gt_velocity_3d": np.column_stack([velocity, np.zeros(len(size))]).reshape(-1, 3),
        "instance_tokens": [token_of(log_name, step, token) for token in tokens],
        "track_tokens": tokens,
    }


def dump_log(frames: Sequence[Frame]) -> bytes:
    """Pickle of a log that ends with the last of ``frames``; equal frames give equal bytes."""
    return pickle.dumps([*frames[:-1], {**frames[-1], "sample_next": None}], protocol=4)


def build_frames(
    town: RecordedTown,
    ego: int,
    route: Route,
    first_step: int,
    count: int,
    log_name: str,
    start_us: int,
    cameras: Mapping[str, CameraPose],
) -> list[Frame]:
    """Build the frames of one log.

    Args:
        town: Recorded town.
        ego: Which of the town's movers is the ego; it is not annotated.
        route: Its route.
        first_step: Simulation step of the first frame.
        count: Frames.
        log_name: Name of the log; tokens follow from it.
        start_us: Time stamp of the first frame [us].
        cameras: Camera rig.
    """
    motion = town.motions[ego]
    steps = [first_step + STEPS_PER_FRAME * i for i in range(count)]
    tokens = [token_of(log_name, "frame", i) for i in range(count)]
    log_token, scene_token = token_of(log_name, "log"), token_of(log_name, "scene")
    # Arrays that all frames share are written once per log.
    identity, origin, no_turn = np.eye(4), np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    shared = {name: {key: np.array(value) for key, value in cameras[name].items()} for name in cameras}
    frames: list[Frame] = []
    for i, step in enumerate(steps):
        row = step - motion.first
        x, y, yaw = motion.pose[row]
        sample = int(motion.rear_index[row])
        rotation = np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
        ego2global = np.eye(4)
        ego2global[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        ego2global[:2, 3] = np.array([x, y]) + town.offset
        sideways = float(motion.speed[row] ** 2 * motion.curvature[row])
        frames.append(
            {
                "token": tokens[i],
                "frame_idx": i,
                "timestamp": start_us + i * FRAME_US,
                "log_name": log_name,
                "log_token": log_token,
                "scene_name": f"{log_name}-0001",
                "scene_token": scene_token,
                "map_location": town.location,
                "roadblock_ids": route.blocks(int(route.place[sample]), town.town_map),
                "vehicle_name": "pacifica",
                "can_bus": np.array(
                    [
                        *ego2global[:3, 3],
                        *rotation,
                        *(motion.acceleration[row], sideways, 9.81),
                        *(0.0, 0.0, motion.speed[row] * motion.curvature[row]),
                        *(motion.speed[row], 0.0, 0.0, yaw, np.degrees(yaw)),
                    ]
                ),
                "lidar_path": f"{log_name}/MergedPointCloud/{tokens[i]}.pcd",
                "lidar2ego_translation": origin,
                "lidar2ego_rotation": no_turn,
                "lidar2ego": identity,
                "ego2global_translation": ego2global[:3, 3].copy(),
                "ego2global_rotation": rotation,
                "ego2global": ego2global,
                "lidar2global": ego2global,
                "ego_dynamic_state": [
                    float(motion.speed[row]),
                    0.0,
                    float(motion.acceleration[row]),
                    sideways,
                ],
                "traffic_lights": town.traffic_lights(step, np.array([x, y])),
                "driving_command": route.command(sample, np.array([x, y])),
                "cams": {
                    name: {"data_path": f"{log_name}/{name}/{tokens[i]}.jpg", **camera}
                    for name, camera in shared.items()
                },
                "anns": _annotations(town, step, np.array([x, y, yaw]), ego, log_name),
                "sample_prev": tokens[i - 1] if i > 0 else None,
                "sample_next": tokens[i + 1] if i + 1 < count else None,
            }
        )
    return frames
