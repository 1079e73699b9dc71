from dataclasses import dataclass, field
from typing import Any, List, Optional, Union

import numpy as np
from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling


@dataclass
class Camera:
    image: Optional[np.ndarray] = None
    sensor2lidar_rotation: Optional[np.ndarray] = None
    sensor2lidar_translation: Optional[np.ndarray] = None
    intrinsics: Optional[np.ndarray] = None
    distortion: Optional[np.ndarray] = None
    camera_path: Optional[Any] = None


@dataclass
class Cameras:
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
    lidar_pc: Optional[np.ndarray] = None
    lidar_path: Optional[Any] = None


@dataclass
class EgoStatus:
    ego_pose: np.ndarray
    ego_velocity: np.ndarray
    ego_acceleration: np.ndarray
    driving_command: np.ndarray
    in_global_frame: bool = False


@dataclass
class AgentInput:
    ego_statuses: List[EgoStatus]
    cameras: List[Cameras]
    lidars: List[Lidar]


@dataclass
class Annotations:
    boxes: np.ndarray
    names: List[str]
    velocity_3d: np.ndarray
    instance_tokens: List[str]
    track_tokens: List[str]


@dataclass
class Trajectory:
    poses: np.ndarray
    trajectory_sampling: TrajectorySampling = field(
        default_factory=lambda: TrajectorySampling(time_horizon=4, interval_length=0.5)
    )

    def __post_init__(self):
        assert self.poses.ndim == 2
        assert len(self.poses) == self.trajectory_sampling.num_poses
        assert self.poses.shape[1] == 3


@dataclass
class SensorConfig:
    cam_f0: Union[bool, List[int]]
    cam_l0: Union[bool, List[int]]
    cam_l1: Union[bool, List[int]]
    cam_l2: Union[bool, List[int]]
    cam_r0: Union[bool, List[int]]
    cam_r1: Union[bool, List[int]]
    cam_r2: Union[bool, List[int]]
    cam_b0: Union[bool, List[int]]
    lidar_pc: Union[bool, List[int]]

    @classmethod
    def build_all_sensors(cls, include: Union[bool, List[int]] = True):
        return cls(*[include] * 9)

    @classmethod
    def build_no_sensors(cls):
        return cls(*[False] * 9)
