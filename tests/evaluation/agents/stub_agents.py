"""Agents as users of the devkit write them; they import it by its own names."""

import numpy as np
import torch
from navsim.agents.abstract_agent import AbstractAgent
from navsim.common.dataclasses import AgentInput, SensorConfig, Trajectory
from navsim.planning.training.abstract_feature_target_builder import AbstractFeatureBuilder
from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling


class ConstantVelocity(AbstractAgent):
    """Of v2: takes a sampling."""

    def __init__(self, trajectory_sampling: TrajectorySampling, checkpoint_path: str = "", turn: float = 0.0):
        super().__init__(trajectory_sampling)
        self.turn, self.path, self.ready = turn, checkpoint_path, False

    def name(self):
        return "constant velocity"

    def get_sensor_config(self):
        return SensorConfig.build_no_sensors()

    def initialize(self):
        self.ready = True

    def compute_trajectory(self, agent_input: AgentInput):
        assert self.ready and type(agent_input) is AgentInput
        speed = float(np.hypot(*agent_input.ego_statuses[-1].ego_velocity))
        times = np.arange(1, 9) * 0.5
        poses = np.stack([speed * times, 0 * times, self.turn * times], axis=1)
        return Trajectory(poses.astype(np.float32), self._trajectory_sampling)


class Status(AbstractFeatureBuilder):
    def get_unique_name(self):
        return "status"

    def compute_features(self, agent_input):
        now = agent_input.ego_statuses[-1]
        parts = [now.driving_command, now.ego_velocity, now.ego_acceleration]
        return {"status": torch.cat([torch.tensor(part, dtype=torch.float32) for part in parts])}


class Learned(AbstractAgent):
    """With the default compute_trajectory: builders, forward."""

    def __init__(self, checkpoint_path: str):
        super().__init__(TrajectorySampling(time_horizon=4, interval_length=0.5))
        self.layer, self.path = torch.nn.Linear(8, 24), checkpoint_path

    def name(self):
        return "learned"

    def get_sensor_config(self):
        return SensorConfig.build_no_sensors()

    def initialize(self):
        self.load_state_dict(torch.load(self.path))

    def get_feature_builders(self):
        return [Status()]

    def forward(self, features):
        return {"trajectory": self.layer(features["status"]).unflatten(-1, (8, 3))}


class Coarse(ConstantVelocity):
    """The wrong sampling."""

    def compute_trajectory(self, agent_input):
        return Trajectory(np.zeros((4, 3)), TrajectorySampling(time_horizon=4, interval_length=1.0))


class Lost(ConstantVelocity):
    """NaN for one scene, an error for another."""

    count = 0

    def compute_trajectory(self, agent_input):
        self.count += 1
        if self.count == 2:
            raise KeyError("lane")
        trajectory = super().compute_trajectory(agent_input)
        if self.count == 1:
            trajectory.poses[3, 1] = np.nan
        return trajectory


class Privileged(ConstantVelocity):
    requires_scene = True

    def __init__(self):
        super().__init__(TrajectorySampling(time_horizon=4, interval_length=0.5))
        self.requires_scene = True


class Looking(ConstantVelocity):
    """Wants two cameras now, the sweep now and before."""

    def get_sensor_config(self):
        config = SensorConfig.build_no_sensors()
        config.cam_f0, config.cam_b0, config.lidar_pc = [3], True, [2, 3]
        return config


class Old(Learned):
    """Of v1.1: its base class takes no sampling."""

    def __init__(self, checkpoint_path: str):
        AbstractAgent.__init__(self, requires_scene=False)
        self.layer, self.path = torch.nn.Linear(8, 24), checkpoint_path
