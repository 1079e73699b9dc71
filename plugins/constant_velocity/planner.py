"""Constant velocity: straight ahead at the current speed, the baseline without parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from beyonddrive.plugins.base.planner import Inputs, Planner
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput

SPEED_COLUMN = 4
"""Column of the status that holds the speed along the heading [m/s]."""


@MODELS.register_module()
class ConstantVelocity(Planner):
    """Keeps heading and longitudinal speed; needs neither training nor a checkpoint.

    Args:
        data_preprocessor: Settings of the preprocessor; by default it passes on the status only.
    """

    required_inputs = ("status",)

    def __init__(self, data_preprocessor: dict[str, Any] | None = None) -> None:
        super().__init__(data_preprocessor or {"type": "PlannerDataPreprocessor", "keys": ["status"]})

    def tensors(self, inputs: Inputs) -> dict[str, Tensor]:
        """``trajectory`` (B, 8, 3)."""
        return {"trajectory": self.plan(inputs).trajectory}

    def loss(self, inputs: Inputs, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_trajectory``: L1 to the expert, for the log; there is nothing to train."""
        plan = self.plan(inputs).trajectory
        expert = stack_field(samples, "gt", "trajectory").to(plan.device)
        return {"loss_trajectory": F.l1_loss(plan, expert)}

    def plan(self, inputs: Inputs, samples: Sequence[PlanSample] | None = None) -> PlanOutput:
        """Plans of a batch."""
        plan = straight_plan(inputs["status"][:, SPEED_COLUMN])
        return PlanOutput(trajectory=plan, encoded=plan)


def straight_plan(speed: Tensor) -> Tensor:
    """Plans (B, 8, 3) straight ahead at constant ``speed`` (B,) [m/s].

    >>> straight_plan(torch.tensor([10.0]))[0, :, 0].tolist()
    [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]
    """
    time = POSE_INTERVAL * torch.arange(1, NUM_POSES + 1, device=speed.device, dtype=speed.dtype)
    x = speed[:, None] * time
    return torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], dim=-1)
