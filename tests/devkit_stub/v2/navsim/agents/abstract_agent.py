from abc import ABC, abstractmethod

import torch
from navsim.common.dataclasses import Trajectory
from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling


class AbstractAgent(torch.nn.Module, ABC):
    def __init__(self, trajectory_sampling: TrajectorySampling, requires_scene: bool = False):
        super().__init__()
        self._trajectory_sampling = trajectory_sampling
        self.requires_scene = requires_scene

    @abstractmethod
    def name(self): ...

    @abstractmethod
    def get_sensor_config(self): ...

    @abstractmethod
    def initialize(self): ...

    def forward(self, features):
        raise NotImplementedError

    def get_feature_builders(self):
        raise NotImplementedError

    def get_target_builders(self):
        raise NotImplementedError

    def compute_trajectory(self, agent_input):
        self.eval()
        features = {}
        for builder in self.get_feature_builders():
            features.update(builder.compute_features(agent_input))
        features = {name: value.unsqueeze(0) for name, value in features.items()}
        with torch.no_grad():
            predictions = self.forward(features)
            poses = predictions["trajectory"].squeeze(0).numpy()
        return Trajectory(poses, self._trajectory_sampling)

    def compute_loss(self, features, targets, predictions):
        raise NotImplementedError

    def get_optimizers(self):
        raise NotImplementedError

    def get_training_callbacks(self):
        return []
