"""The devkit's abstract classes, for agents that are run where no devkit is (SUBMISSION, section 3)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from beyonddrive.evaluation.agents.lookalikes import Trajectory, default_sampling


class AbstractAgent(nn.Module, ABC):
    """An agent; takes the arguments of both versions of the devkit.

    Args:
        trajectory_sampling: Of its plans (v2).
        requires_scene: Whether it looks at more than its input.
    """

    requires_scene = False

    def __init__(self, trajectory_sampling: Any = None, requires_scene: bool = False) -> None:
        super().__init__()
        if isinstance(trajectory_sampling, bool):  # v1.1, by position
            trajectory_sampling, requires_scene = None, trajectory_sampling
        self._trajectory_sampling = trajectory_sampling or default_sampling()
        self.requires_scene = requires_scene or type(self).requires_scene

    @abstractmethod
    def name(self) -> str:
        """What it is called."""

    @abstractmethod
    def get_sensor_config(self) -> Any:
        """Which sensors it wants."""

    @abstractmethod
    def initialize(self) -> None:
        """Load weights; called once before use."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Batched features in, a dictionary with ``trajectory`` (B, n, 3) out."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def get_feature_builders(self) -> list[Any]:
        """What makes features of an input."""
        raise NotImplementedError(f"{type(self).__name__} has no feature builders")

    def get_target_builders(self) -> list[Any]:
        """What makes targets of a scene."""
        raise NotImplementedError(f"{type(self).__name__} has no target builders")

    def compute_trajectory(self, agent_input: Any) -> Any:
        """Features, forward, and the plan of the one scene."""
        self.eval()
        features: dict[str, Any] = {}
        for builder in self.get_feature_builders():
            features.update(builder.compute_features(agent_input))
        with torch.no_grad():
            predictions = self.forward({name: value.unsqueeze(0) for name, value in features.items()})
        return Trajectory(predictions["trajectory"].squeeze(0).numpy(), self._trajectory_sampling)


class AbstractFeatureBuilder:
    """Makes features of an input."""

    @abstractmethod
    def get_unique_name(self) -> str:
        """Name of its cache."""

    @abstractmethod
    def compute_features(self, agent_input: Any) -> dict[str, Any]:
        """Tensors by name, without a batch."""


class AbstractTargetBuilder:
    """Makes targets of a scene."""

    @abstractmethod
    def get_unique_name(self) -> str:
        """Name of its cache."""

    @abstractmethod
    def compute_targets(self, scene: Any) -> dict[str, Any]:
        """Tensors by name, without a batch."""
