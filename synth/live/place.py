"""Where a scenario takes place: the path of the ego through a town, and HUGSIM's frames around it.

HUGSIM's world has its origin at the first camera of the path (HUGSIM, section 1): a to the right, b ahead.
The *scene frame* here is the same with x = b ahead and y = -a to the left, the plane of the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from beyonddrive.evaluation.closed_loop.hugsim.route import Route, pose_matrix
from beyonddrive.structures.se2 import rotate, to_global, to_local
from beyonddrive.synth.curves import arc_length, headings, project
from beyonddrive.synth.live.town import LiveError
from beyonddrive.synth.network import Network
from beyonddrive.synth.rig import rig

SPACING = 1.0
"""Between the poses of a path [m]."""
SMOOTH = 1.5
"""Width of the Gaussian that smooths it [m]."""
COMMAND_POSES = 20
"""The command tells where the path is so many poses ahead (HUGSIM, section 2) ..."""
COMMAND_OFFSET = 2.5
"""... and says right or left beyond this [m]."""
RIGHT, LEFT, FORWARD = 0, 1, 2
CAMERA = tuple(float(value) for value in rig()["CAM_F0"]["sensor2lidar_translation"])
"""The front camera in the frame of the rear axle [m]; it is the ego's pose in HUGSIM."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Place:
    """The path of a scenario.

    Attributes:
        lanes: Lanes that it follows, in order.
        station: Arc length at which it starts, from the beginning of the first lane [m].
        path: (N, 3) x, y, heading of the front camera, town coordinates, :data:`SPACING` apart.
        ends: Progress along the path at which each lane is left [m].
    """

    lanes: tuple[str, ...]
    station: float
    path: Floats
    ends: tuple[float, ...]

    @property
    def roads(self) -> tuple[str, ...]:
        """Roads of the lanes."""
        return tuple(lane.rsplit("_", 1)[0] for lane in self.lanes)

    @property
    def origin(self) -> Floats:
        """Pose (3,) of the scene frame in the town."""
        return self.path[0]

    @cached_property
    def _length(self) -> Floats:
        return arc_length(self.path[:, :2])

    def progress(self, point: ArrayLike) -> float:
        """Where a point (2,) of the town is along the path [m]."""
        return project(self.path[:, :2], np.asarray(point, dtype=np.float64))[0]

    def poses_at(self, progress: ArrayLike) -> Floats:
        """Poses (K, 3) on the path at a progress (K,) [m], town coordinates; straight on after its end."""
        wanted = np.asarray(progress, dtype=np.float64)
        yaw = np.unwrap(self.path[:, 2])
        columns = (self.path[:, 0], self.path[:, 1], yaw)
        poses = np.stack([np.interp(wanted, self._length, column) for column in columns], axis=1)
        past = np.maximum(wanted - self._length[-1], 0.0)[:, None]
        poses[:, :2] += past * [np.cos(yaw[-1]), np.sin(yaw[-1])]
        return poses

    def lane_at(self, progress: float) -> int:
        """Which of the lanes it is on, or has just left, at a progress [m]."""
        return min(int(np.searchsorted(self.ends, progress)), len(self.lanes) - 1)

    def to_scene(self, town: ArrayLike) -> Floats:
        """Poses (..., 3) or points (..., 2) of the town in the scene frame [m, rad]."""
        return to_local(town, self.origin)

    def to_town(self, scene: ArrayLike) -> Floats:
        """Poses (..., 3) or points (..., 2) of the scene frame in the town [m, rad]."""
        return to_global(scene, self.origin)

    def camera_of(self, ego: ArrayLike) -> Floats:
        """Front camera (3,) in the town, of HUGSIM's ego state (>= 3,): a, b, heading to the right."""
        a, b, heading = np.asarray(ego, dtype=np.float64)[:3]
        return self.to_town([b, -a, -heading])

    @cached_property
    def route(self) -> Route:
        """The recorded path as HUGSIM has it."""
        local = self.to_scene(self.path)
        poses = np.stack([pose_matrix([0.0, -yaw, 0.0], [-y, 0.0, x]) for x, y, yaw in local])
        ahead = self.path[np.minimum(np.arange(len(self.path)) + COMMAND_POSES, len(self.path) - 1)]
        left = rotate(ahead[:, :2] - self.path[:, :2], -self.path[:, 2])[:, 1]
        commands = np.where(left < -COMMAND_OFFSET, RIGHT, np.where(left > COMMAND_OFFSET, LEFT, FORWARD))
        return Route(poses, commands, CAMERA[2])


def camera_from(rear: ArrayLike) -> Floats:
    """Front camera (3,) of a rear axle (3,)."""
    x, y, heading = np.asarray(rear, dtype=np.float64)
    return np.array([x + CAMERA[0] * np.cos(heading), y + CAMERA[0] * np.sin(heading), heading])


def rear_of(camera: ArrayLike) -> Floats:
    """Rear axle (3,) of a front camera (3,)."""
    x, y, heading = np.asarray(camera, dtype=np.float64)
    return np.array([x - CAMERA[0] * np.cos(heading), y - CAMERA[0] * np.sin(heading), heading])


def place_of(network: Network, lanes: Sequence[str], station: float, length: float) -> Place:
    """The path along lanes, each of which leads on to the next.

    Args:
        network: Streets.
        lanes: Ids of lanes.
        station: Where the path starts on the first [m].
        length: Its length [m].

    Raises:
        LiveError: If there is no such lane, one does not lead on to the next, or they are too short.
    """
    known = {lane.id: lane for road in network.roads.values() for lane in road.lanes}
    ways = {(c.from_lane, c.to_lane): c for c in network.connections}
    pieces, ends = [], []
    for i, name in enumerate(lanes):
        if name not in known:
            raise LiveError(f"lanes: the town has no lane {name!r}; take the scenario with its own town")
        if i:
            way = ways.get((lanes[i - 1], name))
            if way is None:
                raise LiveError(f"lanes: lane {lanes[i - 1]} does not lead on to {name}")
            pieces.append(way.center[1:])
            # (a connection belongs to the lane that it leads to)
        pieces.append(known[name].center[1 if i else 0 :])
        ends.append(sum(map(len, pieces)) - 1)
    if not pieces:
        raise LiveError("lanes: name at least one")
    line = np.concatenate(pieces)
    total = arc_length(line)
    if station < 0 or station + length > total[-1]:
        raise LiveError(
            f"start_station, length: {station:g} + {length:g} m do not fit on lanes of {total[-1]:.1f} m"
        )
    fine = np.arange(0.0, total[-1], SPACING / 4)
    smooth = np.stack([np.interp(fine, total, line[:, axis]) for axis in (0, 1)], axis=1)
    smooth = gaussian_filter1d(smooth, SMOOTH / (SPACING / 4), axis=0, mode="nearest")
    along = arc_length(smooth)
    wanted = np.arange(station, station + length + 1e-9, SPACING)
    yaw = headings(smooth)
    path = np.stack([np.interp(wanted, along, column) for column in (smooth[:, 0], smooth[:, 1], yaw)], 1)
    left = tuple(float(total[end]) - station for end in ends)
    return Place(tuple(lanes), float(station), path, left)
