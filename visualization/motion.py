"""How the objects of a scene move after now, by the rules of the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.structures.plan import POSE_INTERVAL
from beyonddrive.structures.se2 import to_global, to_local, wrap_angle


class AgentTrack:
    """Motion of one object over the next seconds, in the ego frame now.

    Attributes:
        kind: Its class.
        size: Length and width [m].
        times: (n,) seconds after now.
        poses: (n, 3) x, y, heading (unwrapped).
    """

    def __init__(self, kind: str, size: tuple[float, float]) -> None:
        self.kind, self.size = kind, size
        self._times: list[float] = []
        self._poses: list[NDArray[np.float64]] = []

    def add(self, time: float, pose: NDArray[np.float64]) -> None:
        """Append the pose (3,) at a later time."""
        if self._poses:
            pose = pose.copy()
            pose[2] = self._poses[-1][2] + wrap_angle(pose[2] - self._poses[-1][2])
        self._times.append(time)
        self._poses.append(pose)

    @property
    def times(self) -> NDArray[np.float64]:
        """(n,) seconds after now."""
        return np.array(self._times)

    @property
    def poses(self) -> NDArray[np.float64]:
        """(n, 3) x [m], y [m], heading [rad]."""
        return np.array(self._poses).reshape(-1, 3)

    def pose_at(self, time: float) -> NDArray[np.float64] | None:
        """Interpolated pose (3,), None while not there; an object seen once is always there.

        These are the rules of the score (PDMS_V1, section 12.2).
        """
        times, poses = self.times, self.poses
        if len(times) > 1 and not times[0] <= time <= times[-1]:
            return None
        return np.array([np.interp(time, times, poses[:, axis]) for axis in range(3)])


def agent_tracks(scene: Scene) -> dict[str, AgentTrack]:
    """Objects of the current and all later frames by track token, in the ego frame now."""
    tracks: dict[str, AgentTrack] = {}
    for index in range(HISTORY - 1, len(scene.frames)):
        objects = scene.objects(index)
        poses = to_local(to_global(objects.boxes[:, [0, 1, 6]], scene.ego_poses[index]), scene.ego_pose)
        for token, kind, box, pose in zip(objects.tokens, objects.types, objects.boxes, poses, strict=True):
            track = tracks.setdefault(token, AgentTrack(kind, (float(box[3]), float(box[4]))))
            track.add((index - HISTORY + 1) * POSE_INTERVAL, pose)
    return tracks
