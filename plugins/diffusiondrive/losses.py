"""Scores of modes: which of several plans is the expert's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Sigmoid focal loss of every element: easy ones count less, positive ones ``alpha``, others 1 - alpha.

    Args:
        logits: Any shape.
        target: The same shape, 0 or 1.
        gamma: Power of 1 - p of the true class.
        alpha: Weight of the positive class.

    >>> import torch
    >>> focal_loss(torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor([0.0433, 0.1300])
    """
    probability = logits.sigmoid()
    wrong = target * (1 - probability) + (1 - target) * probability
    weight = target * alpha + (1 - target) * (1 - alpha)
    return weight * wrong.pow(gamma) * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
