"""The recorded path of a scene: dense poses, heights, command and route completion (HUGSIM, section 5.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

PASSES = 5
"""How often gaps between poses are halved."""
MAX_GAP = 0.1
"""Neighbours farther apart than this get a pose in between [m]."""
COMPLETE_SHARE = 0.9
"""The route is complete when this share of its poses has been passed."""

Floats = NDArray[np.float64]


def pose_matrix(euler: ArrayLike, translation: ArrayLike) -> Floats:
    """Poses (..., 4, 4) of intrinsic XYZ Euler angles (..., 3) [rad] and translations (..., 3) [m].

    >>> pose_matrix([0, 0, 0], [1, 2, 3])[:3, 3].tolist()
    [1.0, 2.0, 3.0]
    """
    angles = np.asarray(euler, dtype=np.float64)
    pose: Floats = np.tile(np.eye(4), (*angles.shape[:-1], 1, 1))
    pose[..., :3, :3] = Rotation.from_euler("XYZ", angles).as_matrix()
    pose[..., :3, 3] = translation
    return pose


def euler_of(poses: Floats) -> Floats:
    """Intrinsic XYZ Euler angles (..., 3) [rad] of poses (..., 4, 4)."""
    angles: Floats = Rotation.from_matrix(poses[..., :3, :3]).as_euler("XYZ")
    return angles


class Route:
    """The path that the front camera was recorded on; world frame (x right, y down, z ahead).

    Args:
        poses: (M, 4, 4) camera to world.
        commands: (M,) 0 right, 1 left, 2 forward.
        camera_height: Height of the camera above the road [m].

    Attributes:
        poses: (D, 4, 4) dense poses.
        commands: (D - 1,) their commands; the last pose has none.

    Raises:
        HugsimError: If shapes do not fit or something is not finite.
    """

    def __init__(self, poses: ArrayLike, commands: ArrayLike, camera_height: float) -> None:
        given, known = np.asarray(poses, dtype=np.float64), np.asarray(commands, dtype=np.int64)
        if given.ndim != 3 or given.shape[1:] != (4, 4) or len(given) < 2 or known.shape != given.shape[:1]:
            raise HugsimError(
                f"ground parameters: expected two or more poses (M, 4, 4) with a command each, got "
                f"{given.shape} and {known.shape}"
            )
        if not np.isfinite(given).all() or not np.isfinite(camera_height):
            raise HugsimError("ground parameters: poses or camera height hold NaN or infinity")
        self.camera_height = float(camera_height)
        self.poses, self.commands = given, known
        for _ in range(PASSES):
            self.poses, self.commands = _densified(self.poses, self.commands)
        self._plane = self.poses[:, [0, 2], 3]

    def nearest(self, ab: ArrayLike) -> tuple[int, float]:
        """Dense pose nearest to a point (a, b) of the ground plane, and its distance [m]."""
        distance = np.hypot(*(self._plane - np.asarray(ab, dtype=np.float64)).T)
        index = int(distance.argmin())
        return index, float(distance[index])

    def ego_height(self, ab: ArrayLike) -> float:
        """World y of the ego's camera at a point (a, b)."""
        return self._height(self.nearest(ab)[0], ab)

    def road_height(self, ab: ArrayLike) -> float:
        """World y of the road at a point (a, b), as agents stand on it."""
        distance = np.hypot(*(self._plane[:-1] - np.asarray(ab, dtype=np.float64)).T)
        return self._height(int(distance.argmin()), ab) + self.camera_height

    def _height(self, index: int, ab: ArrayLike) -> float:
        a, b = np.asarray(ab, dtype=np.float64)
        local = np.linalg.inv(self.poses[index]) @ [a, 0.0, b, 1.0]
        local[1] = 0.0
        return float((self.poses[index] @ local)[1])

    def command(self, position: ArrayLike) -> int:
        """Command at a position (3,) in the world; beyond the last pose the last one there is."""
        gaps = np.linalg.norm(self.poses[:, :3, 3] - np.asarray(position, dtype=np.float64), axis=1)
        return int(self.commands[min(int(gaps.argmin()), len(self.commands) - 1)])

    def completion(self, ab: ArrayLike) -> tuple[float, float]:
        """Route completion at a point (a, b), which may exceed 1, and the distance from the path [m]."""
        index, distance = self.nearest(ab)
        return (index + 1) / (COMPLETE_SHARE * len(self.poses)), distance


def _densified(poses: Floats, commands: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    place = poses[:, :3, 3]
    wide = np.flatnonzero(np.linalg.norm(np.diff(place, axis=0), axis=1) > MAX_GAP)
    if not len(wide):
        return poses, commands[: len(poses) - 1]
    angles = euler_of(poses)
    middle = pose_matrix((angles[wide] + angles[wide + 1]) / 2, (place[wide] + place[wide + 1]) / 2)
    known = commands[: len(poses) - 1]
    return np.insert(poses, wide + 1, middle, axis=0), np.insert(known, wide + 1, known[wide])


def plan_in_record(plan: NDArray[np.floating], ego_box: Floats) -> Floats:
    """Entries (N - 1, 3) x, y, yaw of a plan (N, 2) right, ahead, placed on an ego box, record frame.

    The yaw of an entry points to the next point; the last point gives no entry.
    """
    right, ahead = plan[:, 0].astype(np.float64), plan[:, 1].astype(np.float64)
    cos, sin = np.cos(ego_box[6]), np.sin(ego_box[6])
    x = ego_box[0] + cos * ahead + sin * right
    y = ego_box[1] + sin * ahead - cos * right
    yaw = np.arctan2(np.diff(y), np.diff(x))
    return np.stack([x[:-1], y[:-1], yaw], axis=1)
