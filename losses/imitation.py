"""Attraction: distance of a plan to the expert's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.registry import MODELS


@MODELS.register_module()
class PlanL1Loss(nn.Module):
    """``weight * mean |plan - expert|`` over samples, poses and components (METHOD, section 4).

    Args:
        weight: The attraction weight w_t; :class:`RepulsiveHead` compares it with the repulsion weight.

    Raises:
        ValueError: If the weight is not positive.

    >>> import torch
    >>> PlanL1Loss(weight=10.0)(torch.zeros(2, 8, 3), torch.full((2, 8, 3), 0.5))
    tensor(5.)
    """

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"PlanL1Loss: weight must be positive, got {weight}")
        self.weight = weight

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Loss of predictions (B, 8, D) against expert plans (B, 8, D), both in the head's own space."""
        return self.weight * F.l1_loss(prediction, target)
