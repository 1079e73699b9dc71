"""Look-alikes of what the devkit gives an agent and takes from it (SUBMISSION, sections 1 and 4)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL

CAMERAS = ("cam_f0", "cam_l0", "cam_l1", "cam_l2", "cam_r0", "cam_r1", "cam_r2", "cam_b0")
"""Cameras as the devkit calls them."""
LIDAR = "lidar_pc"


@dataclass
class EgoStatus:
    """The ego at one time: pose relative to now, velocity and acceleration along its axes of that time."""

    ego_pose: Any
    ego_velocity: Any
    ego_acceleration: Any
    driving_command: Any
    in_global_frame: bool = False


@dataclass
class Camera:
    """A camera at one time; all None if it was not asked for."""

    image: Any = None
    sensor2lidar_rotation: Any = None
    sensor2lidar_translation: Any = None
    intrinsics: Any = None
    distortion: Any = None
    camera_path: Any = None


@dataclass
class Cameras:
    """The eight cameras at one time."""

    cam_f0: Camera
    cam_l0: Camera
    cam_l1: Camera
    cam_l2: Camera
    cam_r0: Camera
    cam_r1: Camera
    cam_r2: Camera
    cam_b0: Camera


@dataclass
class Lidar:
    """A sweep (6, N) x, y, z, intensity, ring, lidar id; None if it was not asked for."""

    lidar_pc: Any = None
    lidar_path: Any = None


@dataclass
class AgentInput:
    """What an agent sees: four entries each, oldest first, the last is now."""

    ego_statuses: list[Any]
    cameras: list[Any]
    lidars: list[Any]


@dataclass
class SensorConfig:
    """Which sensors an agent wants: all entries (True), none, or those at a list of indices."""

    cam_f0: bool | list[int]
    cam_l0: bool | list[int]
    cam_l1: bool | list[int]
    cam_l2: bool | list[int]
    cam_r0: bool | list[int]
    cam_r1: bool | list[int]
    cam_r2: bool | list[int]
    cam_b0: bool | list[int]
    lidar_pc: bool | list[int]

    @classmethod
    def build_all_sensors(cls, include: bool | list[int] = True) -> SensorConfig:
        """All sensors, at the same entries."""
        return cls(*[include] * len(fields(cls)))

    @classmethod
    def build_no_sensors(cls) -> SensorConfig:
        """No sensor."""
        return cls.build_all_sensors(False)


@dataclass
class TrajectorySampling:
    """How many poses, until when [s], and how far apart [s]; two of the three are enough.

    >>> TrajectorySampling(time_horizon=4, interval_length=0.5).num_poses
    8
    """

    num_poses: int | None = None
    time_horizon: float | None = None
    interval_length: float | None = None

    def __post_init__(self) -> None:
        if self.num_poses is None and self.time_horizon is not None and self.interval_length:
            self.num_poses = round(self.time_horizon / self.interval_length)
        elif self.time_horizon is None and self.num_poses is not None and self.interval_length:
            self.time_horizon = self.num_poses * self.interval_length
        elif self.interval_length is None and self.num_poses and self.time_horizon is not None:
            self.interval_length = self.time_horizon / self.num_poses
        if None in (self.num_poses, self.time_horizon, self.interval_length):
            raise ValueError("TrajectorySampling: give two of num_poses, time_horizon and interval_length")


def default_sampling() -> TrajectorySampling:
    """Eight poses, half a second apart."""
    return TrajectorySampling(time_horizon=NUM_POSES * POSE_INTERVAL, interval_length=POSE_INTERVAL)


@dataclass
class Trajectory:
    """A plan: poses (n, 3) x, y [m], heading [rad] of the rear axle, in the ego frame now."""

    poses: Any
    trajectory_sampling: Any = field(default_factory=default_sampling)

    def __post_init__(self) -> None:
        shape, wanted = np.shape(self.poses), (self.trajectory_sampling.num_poses, 3)
        if shape != wanted:
            raise ValueError(f"Trajectory: poses must have the shape {wanted} of the sampling, got {shape}")
