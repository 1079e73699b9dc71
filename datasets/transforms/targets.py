"""The ego status, and the targets that come from the log alone: expert plan and agents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from beyonddrive.datasets.navsim.scene import HISTORY, FrameObjects, Scene
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.frame import Frame
from beyonddrive.structures.geometry import AGENT_EXTENT


@TRANSFORMS.register_module()
class EgoStatus(BaseTransform):
    """Adds ``status``: float32 (8,), driving command (4), vx, vy [m/s], ax, ay [m/s2] (MODELS, section 1)."""

    def transform(self, results: Results) -> Results:
        """Read ``scene``; add ``status``."""
        scene: Scene = results["scene"]
        results["status"] = np.concatenate([scene.driving_command.astype(np.float32), scene.ego_dynamic])
        return results

    def observe(self, frame: Frame, results: Results) -> Results:
        """Add ``status``."""
        results["status"] = frame.status
        return results


@TRANSFORMS.register_module()
class PlanTarget(BaseTransform):
    """Adds ``trajectory``: float32 (8, 3), the expert plan (MODELS, section 1)."""

    is_target = True

    def transform(self, results: Results) -> Results:
        """Read ``scene``; add ``trajectory``."""
        results["trajectory"] = results["scene"].expert_plan.astype(np.float32)
        return results


@TRANSFORMS.register_module()
class AgentTargets(BaseTransform):
    """Adds the vehicles around the ego, nearest first.

    ``agent_states``: float32 (num_agents, 5) x, y [m], heading [rad], length, width [m] in the ego frame,
    rows without an agent 0; ``agent_labels``: bool (num_agents,), which rows have one (MODELS, section 1).

    Args:
        num_agents: Rows.
        extent: Vehicles with abs(x) or abs(y) beyond this are left out [m].
    """

    is_target = True

    def __init__(self, num_agents: int = 30, extent: float = 32.0) -> None:
        if num_agents < 1 or extent <= 0:
            raise ValueError("AgentTargets: num_agents and extent must be positive")
        self.num_agents = num_agents
        self.extent = extent

    @property
    def geometry(self) -> Mapping[str, float]:
        """How far away agents are targets."""
        return {AGENT_EXTENT: self.extent}

    def transform(self, results: Results) -> Results:
        """Read ``scene``; add ``agent_states`` and ``agent_labels``."""
        scene: Scene = results["scene"]
        self.add(scene.objects(HISTORY - 1), results)
        return results

    def add(self, objects: FrameObjects, results: Results) -> None:
        """Add the targets made from the objects of one frame."""
        vehicle = np.array([kind == "vehicle" for kind in objects.types], dtype=bool)
        # float32 before the comparison and the order, as the published targets are made.
        boxes = objects.boxes.astype(np.float32)[vehicle][:, [0, 1, 6, 3, 4]]
        boxes = boxes[(np.abs(boxes[:, :2]) <= self.extent).all(axis=1)]
        nearest = np.argsort(np.linalg.norm(boxes[:, :2], axis=1), kind="stable")[: self.num_agents]
        states = np.zeros((self.num_agents, 5), np.float32)
        states[: len(nearest)] = boxes[nearest]
        results["agent_states"] = states
        results["agent_labels"] = np.arange(self.num_agents) < len(nearest)
