"""Attraction: distance of a plan, or of each of many candidates, to the expert's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.registry import MODELS

PROBABILITY_FLOOR = 1e-6
"""WoTE keeps probabilities this far from 0 and 1 in logarithms (MODELS, section 8)."""


def wrapped_difference(plans: Tensor, others: Tensor) -> Tensor:
    """``plans - others`` (..., 8, 3), headings within half a turn."""
    difference = plans - others
    heading = difference[..., 2:]
    heading = heading - 2 * torch.pi * torch.round(heading / (2 * torch.pi))
    return torch.cat([difference[..., :2], heading], dim=-1)


def soft_imitation_loss(logits: Tensor, distances: Tensor, floor: float | None = None) -> Tensor:
    """Cross-entropy of a softmax over candidates against the softmax of minus their distances; batch mean.

    Args:
        logits: (B, V) one logit per candidate.
        distances: (B, V) distance of every candidate to the expert.
        floor: Probabilities are kept this far from 0 and 1. A candidate below it has no gradient, and
            stays there however near to the expert it is; None keeps every gradient.

    >>> soft_imitation_loss(torch.tensor([[0.0, 30.0]]), torch.tensor([[0.0, 100.0]]))
    tensor(30.)
    """
    target = (-distances).softmax(dim=-1)
    if floor is None:
        logarithm = logits.float().log_softmax(dim=-1)
    else:
        logarithm = logits.float().softmax(dim=-1).clamp(floor, 1 - floor).log()
    return -(target * logarithm).sum(dim=-1).mean()


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
