"""What the ego sees: camera images and LiDAR sweeps from wherever it is, and the frame as a log has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.frame import CameraView
from beyonddrive.structures.lenses import Pinhole
from beyonddrive.structures.se2 import to_local
from beyonddrive.synth.camera import Painter
from beyonddrive.synth.frames import FRAME_US, Frame
from beyonddrive.synth.live.place import Place, rear_of
from beyonddrive.synth.live.sumo_world import Everybody, SumoWorld
from beyonddrive.synth.live.town import LiveTown
from beyonddrive.synth.paint.light import daylight
from beyonddrive.synth.paint.scenery import prepare_scenery
from beyonddrive.synth.recorded_town import LIGHT_RANGE
from beyonddrive.synth.rig import CameraPose, rig
from beyonddrive.synth.routes import FORWARD, LEFT, RIGHT, ROADS_AHEAD
from beyonddrive.synth.sensors import sweep_of
from beyonddrive.synth.tokens import token_of

FRONT_CAMERAS = ("CAM_L0", "CAM_F0", "CAM_R0")
_BRAKING = -0.7
"""Loss of speed at which brake lamps shine [m/s2]."""
_STANDING = 0.25
"""Who drove once shows them below this speed, too [m/s]."""
_COMMANDS = (RIGHT, LEFT, FORWARD)
"""NAVSIM's place of HUGSIM's commands 0, 1, 2."""

Floats = NDArray[np.float64]


class _FramePainter(Painter):
    """Paints one frame after the other, which nobody knows beforehand."""

    def __init__(self, town: LiveTown, path: Floats, lit: set[int], log_name: str, seed: int) -> None:
        self._light = daylight(seed, log_name)
        self._set_up(prepare_scenery(town.nuplan_map, path, lit, self._light.sun))

    def show(self, frame: Frame, pose: Floats, brakes: frozenset[str]) -> None:
        """From now on frame 0 is this one."""
        self._frames, self._poses, self._brakes = [frame], pose[None], [brakes]
        self._prepared = None


class Eyes:
    """The sensors of a scenario.

    Args:
        town: Its town.
        place: Its path.
        world: The running SUMO, for its traffic lights.
        name: Name of the scenario: daylight and tokens follow from it.
        seed: And from this.
    """

    def __init__(self, town: LiveTown, place: Place, world: SumoWorld, name: str, seed: int) -> None:
        self._town, self._place, self._world = town, place, world
        self._name, self._seed = name, seed
        lights = [c for c in town.network.connections if c.signal is not None]
        near = [
            c for c in lights if np.hypot(*(place.path[:, :2] - c.center[0]).T).min() < LIGHT_RANGE + 20.0
        ]
        self._lights = [(town.ids.connector[c.internal[0]], c.signal, c.center[0]) for c in near]
        self._painter = _FramePainter(
            town, place.path[:, :2] + town.offset, {fid for fid, _, _ in self._lights}, name, seed
        )
        self._speeds: dict[str, float] = {}
        self._drove: set[str] = set()
        self.frame: Frame = {}

    def look(self, camera: Floats, state: Mapping[str, float], everybody: Everybody, time: float) -> Frame:
        """Take in what is around; the images that follow are of this moment.

        Args:
            camera: (3,) front camera in the town.
            state: speed, acceleration, sideways (acceleration) and command (HUGSIM's).
            everybody: Who is near.
            time: [s]

        Returns:
            The frame as NAVSIM's logs have it (NAVSIM_FORMAT, section 2), without cameras.
        """
        rear = rear_of(camera)
        local = to_local(everybody.pose, rear)
        along = np.stack([np.cos(local[:, 2]), np.sin(local[:, 2])], axis=1)
        tokens = [token_of(self._name, name) for name in everybody.names]
        command = np.zeros(4, dtype=np.int64)
        command[_COMMANDS[int(state["command"])]] = 1
        where = rear[:2] + self._town.offset
        number = round(time * 4)
        self.frame = {
            "token": token_of(self._name, "frame", number),
            "frame_idx": number,
            "timestamp": round(time * 2 * FRAME_US),
            "log_name": self._name,
            "map_location": self._town.location,
            "roadblock_ids": self._blocks(camera),
            "ego2global_translation": np.array([*where, 0.0]),
            "ego2global_rotation": np.array([np.cos(rear[2] / 2), 0.0, 0.0, np.sin(rear[2] / 2)]),
            "ego_dynamic_state": [state["speed"], 0.0, state["acceleration"], state["sideways"]],
            "driving_command": command,
            "traffic_lights": [
                (fid, self._world.is_red(*signal))
                for fid, signal, spot in self._lights
                if signal is not None and np.hypot(*(spot - rear[:2])) < LIGHT_RANGE
            ],
            "anns": {
                "gt_boxes": np.column_stack(
                    [local[:, :2], everybody.size[:, 2] / 2, everybody.size, local[:, 2]]
                ).reshape(-1, 7),
                "gt_names": np.array(everybody.kinds, dtype="<U14"),
                "gt_velocity_3d": np.column_stack(
                    [along * everybody.speed[:, None], np.zeros(len(everybody))]
                ).reshape(-1, 3),
                "instance_tokens": tokens,
                "track_tokens": tokens,
            },
        }
        brakes = self._brakes(everybody, tokens)
        self._painter.show(self.frame, np.array([*where, rear[2]]), brakes)
        return self.frame

    def images(
        self,
        size: tuple[int, int],
        cameras: Iterable[str] = FRONT_CAMERAS,
        poses: Mapping[str, CameraPose] | None = None,
    ) -> dict[str, CameraView]:
        """Images of cameras, those of NAVSIM's rig by default, of ``size`` (width, height)."""
        poses = poses or rig(size)
        views = {}
        for name in cameras:
            k = poses[name]["cam_intrinsic"]
            views[name] = CameraView(
                self._painter.paint(0, poses[name], size),
                Pinhole(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])),
                poses[name]["sensor2lidar_rotation"],
                poses[name]["sensor2lidar_translation"],
            )
        return views

    def sweep(self) -> NDArray[np.float32]:
        """LiDAR sweep (4, N) x, y, z, intensity in the ego frame."""
        return sweep_of(self.frame, self._painter.obstacles(0), self._seed)[:4]

    def standing(self) -> Floats:
        """Boxes (M, 7) x y z l w h heading of houses, trees and posts, town coordinates."""
        boxes = self._painter.scenery.boxes.copy()
        boxes[:, :2] += self._painter.scenery.origin - self._town.offset
        return boxes

    def _blocks(self, camera: Floats) -> list[str]:
        """Ids of the roads ahead on the route, and of their connections."""
        roads, ids = self._place.roads, self._town.ids
        now = self._place.lane_at(self._place.progress(camera[:2]))
        # (a connection belongs to the lane that it leads to)
        blocks = [str(ids.block_connector[roads[now - 1], roads[now]])] if now else []
        blocks.append(str(ids.roadblock[roads[now]]))
        for i in range(now + 1, min(now + 1 + ROADS_AHEAD, len(roads))):
            blocks += [str(ids.block_connector[roads[i - 1], roads[i]]), str(ids.roadblock[roads[i]])]
        return blocks

    def _brakes(self, everybody: Everybody, tokens: list[str]) -> frozenset[str]:
        shining, speeds = set(), {}
        for token, kind, speed in zip(tokens, everybody.kinds, everybody.speed, strict=True):
            if kind != "vehicle":
                continue
            speeds[token] = speed
            if speed > 4 * _STANDING:
                self._drove.add(token)
            slower = speed - self._speeds.get(token, speed) < _BRAKING * 0.25
            if slower or (speed < _STANDING and token in self._drove):
                shining.add(token)
        self._speeds = speeds
        return frozenset(shining)
