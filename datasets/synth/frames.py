"""Frames of a log in NAVSIM's format, from smooth motion (NAVSIM_FORMAT, section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.synth.motion import Motion
from beyonddrive.datasets.synth.network import Network
from beyonddrive.datasets.synth.recording import Signals
from beyonddrive.datasets.synth.rig import CameraPose
from beyonddrive.datasets.synth.roadside import StaticObject
from beyonddrive.datasets.synth.routes import Route
from beyonddrive.datasets.synth.tokens import token_of
from beyonddrive.datasets.synth.town_map import TownMap

STEPS_PER_FRAME = 5
"""The simulation runs at 10 Hz, logs at 2 Hz."""
FRAME_US = 500_000
"""Time between frames [us]."""
MOVING_RANGE = 90.0
"""Vehicles and bicycles are annotated up to this distance from the ego [m] ..."""
NEAR_RANGE = 60.0
"""... pedestrians and things that stand up to this one."""
LIGHT_RANGE = 120.0
"""Signals are listed up to this distance [m]."""

Frame = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Everything in a town at one frame."""

    center: NDArray[np.float64]
    heading: NDArray[np.float64]
    velocity: NDArray[np.float64]
    size: NDArray[np.float64]
    reach: NDArray[np.float64]
    """Distance up to which each object is annotated [m]."""
    types: list[str]
    tokens: list[str]


class Town:
    """A recorded town: what frames are cut from.

    Args:
        name: Unique name of the town, part of every token.
        location: Map location.
        offset: (2,) added to the town's coordinates to place it in the map [m].
        network: Street network.
        town_map: Ids of its map rows.
        motions: Smooth motion of everybody, sorted by name.
        static: What stands.
        signals: States of signals.
    """

    def __init__(
        self,
        name: str,
        location: str,
        offset: tuple[float, float],
        network: Network,
        town_map: TownMap,
        motions: Sequence[Motion],
        static: Sequence[StaticObject],
        signals: Signals,
    ) -> None:
        self.name = name
        self.location = location
        self.offset = np.array(offset, dtype=np.float64)
        self.network = network
        self.town_map = town_map
        self.motions = list(motions)
        self.static = list(static)
        self._tokens = [token_of(name, "track", m.name) for m in self.motions]
        self._static_tokens = [token_of(name, "thing", s.name) for s in self.static]
        self._token_of_name = {m.name: t for m, t in zip(self.motions, self._tokens, strict=True)}
        self._snapshots: dict[int, Snapshot] = {}
        self._rows: dict[int, dict[str, int]] = {}
        lights = [c for c in network.connections if c.signal is not None]
        self._light_ids = [town_map.connector[c.internal[0]] for c in lights]
        self._light_links = [c.signal for c in lights if c.signal is not None]
        self._light_xy = np.array([c.center[0] for c in lights], dtype=np.float64).reshape(-1, 2)
        self._signals = signals

    def snapshot(self, step: int) -> Snapshot:
        """Everything at a step, without distance limit; kept for the next ego."""
        if step not in self._snapshots:
            here = [i for i, m in enumerate(self.motions) if m.first <= step <= m.last]
            moving = [self.motions[i] for i in here]
            rows = [step - m.first for m in moving]
            self._snapshots[step] = Snapshot(
                np.array(
                    [m.center[r] for m, r in zip(moving, rows, strict=True)]
                    + [s.center for s in self.static],
                    dtype=np.float64,
                ).reshape(-1, 2),
                np.array(
                    [m.pose[r, 2] for m, r in zip(moving, rows, strict=True)]
                    + [s.heading for s in self.static],
                    dtype=np.float64,
                ),
                np.array(
                    [m.center_velocity[r] for m, r in zip(moving, rows, strict=True)]
                    + [(0.0, 0.0)] * len(self.static),
                    dtype=np.float64,
                ).reshape(-1, 2),
                np.array([m.size for m in moving] + [s.size for s in self.static]).reshape(-1, 3),
                np.array(
                    [NEAR_RANGE if m.type == "pedestrian" else MOVING_RANGE for m in moving]
                    + [NEAR_RANGE] * len(self.static),
                    dtype=np.float64,
                ),
                [m.type for m in moving] + [s.type for s in self.static],
                [self._tokens[i] for i in here] + self._static_tokens,
            )
        return self._snapshots[step]

    def snapshot_row(self, step: int, motion: Motion) -> int:
        """Row of somebody in the snapshot of a step, -1 if absent."""
        rows = self._rows.setdefault(step, {t: i for i, t in enumerate(self.snapshot(step).tokens)})
        return rows.get(self._token_of_name[motion.name], -1)

    def traffic_lights(self, step: int, point: NDArray[np.float64]) -> list[tuple[int, bool]]:
        """(lane connector id, is red) of the signals near a point."""
        near = np.hypot(*(self._light_xy - point).T) < LIGHT_RANGE
        return [
            (self._light_ids[i], self._signals.is_red(self._light_links[i], step))
            for i in np.flatnonzero(near)
        ]


def _annotations(town: Town, step: int, pose: NDArray[np.float64], own: str, log_name: str) -> dict[str, Any]:
    everything = town.snapshot(step)
    relative = everything.center - pose[:2]
    distance = np.hypot(relative[:, 0], relative[:, 1])
    rows = [int(i) for i in np.flatnonzero(distance < everything.reach) if everything.tokens[i] != own]
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    to_ego = np.array([[cosine, -sine], [sine, cosine]])
    center, velocity = relative[rows] @ to_ego, everything.velocity[rows] @ to_ego
    size = everything.size[rows]
    heading = everything.heading[rows] - pose[2]
    heading = np.arctan2(np.sin(heading), np.cos(heading))
    zeros = np.zeros(len(rows))
    return {
        "gt_boxes": np.column_stack([center, size[:, 2] / 2, size, heading]).reshape(-1, 7),
        "gt_names": np.array([everything.types[i] for i in rows], dtype="<U16"),
        "gt_velocity_3d": np.column_stack([velocity, zeros]).reshape(-1, 3),
        "instance_tokens": [token_of(log_name, step, everything.tokens[i]) for i in rows],
        "track_tokens": [everything.tokens[i] for i in rows],
    }


def build_frames(
    town: Town,
    ego: Motion,
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
        ego: Motion of the ego, which is not annotated.
        route: Its route.
        first_step: Simulation step of the first frame.
        count: Frames.
        log_name: Name of the log; tokens follow from it.
        start_us: Time stamp of the first frame [us].
        cameras: Camera rig.
    """
    own = token_of(town.name, "track", ego.name)
    steps = [first_step + STEPS_PER_FRAME * i for i in range(count)]
    tokens = [token_of(log_name, "frame", i) for i in range(count)]
    log_token, scene_token = token_of(log_name, "log"), token_of(log_name, "scene")
    identity = np.eye(4)
    frames: list[Frame] = []
    for i, step in enumerate(steps):
        row = step - ego.first
        x, y, yaw = ego.pose[row]
        sample = int(ego.rear_index[row])
        rotation = np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
        ego2global = np.eye(4)
        ego2global[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        ego2global[:2, 3] = np.array([x, y]) + town.offset
        sideways = float(ego.speed[row] ** 2 * ego.curvature[row])
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
                        *(ego.acceleration[row], sideways, 9.81),
                        *(0.0, 0.0, ego.speed[row] * ego.curvature[row]),
                        *(ego.speed[row], 0.0, 0.0, yaw, np.degrees(yaw)),
                    ]
                ),
                "lidar_path": f"{log_name}/MergedPointCloud/{tokens[i]}.pcd",
                "lidar2ego_translation": np.zeros(3),
                "lidar2ego_rotation": np.array([1.0, 0.0, 0.0, 0.0]),
                "lidar2ego": identity.copy(),
                "ego2global_translation": ego2global[:3, 3].copy(),
                "ego2global_rotation": rotation,
                "ego2global": ego2global,
                "lidar2global": ego2global.copy(),
                "ego_dynamic_state": [float(ego.speed[row]), 0.0, float(ego.acceleration[row]), sideways],
                "traffic_lights": town.traffic_lights(step, np.array([x, y])),
                "driving_command": route.command(sample, np.array([x, y])),
                "cams": {
                    name: {
                        "data_path": f"{log_name}/{name}/{tokens[i]}.jpg",
                        **{key: np.array(value) for key, value in camera.items()},
                    }
                    for name, camera in cameras.items()
                },
                "anns": _annotations(town, step, np.array([x, y, yaw]), own, log_name),
                "sample_prev": tokens[i - 1] if i > 0 else None,
                "sample_next": tokens[i + 1] if i + 1 < count else None,
            }
        )
    return frames
