"""Focal loss of a bird's-eye-view segmentation (MODELS, section 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from beyonddrive.losses.semantic import BEVSemanticLoss
from beyonddrive.registry import MODELS

PROBABILITY_FLOOR = 1e-6


@MODELS.register_module()
class BEVFocalLoss(BEVSemanticLoss):
    """``-alpha (1 - p)^gamma log p``, p the probability of the true class; pixel mean times ``weight``.

    Args:
        weight: Weight of the term.
        target_stride: As for :class:`BEVSemanticLoss`.
        alpha: Factor.
        gamma: How much pixels that are right already count less.

    >>> import torch
    >>> loss = BEVFocalLoss(weight=1.0, alpha=0.5, gamma=2.0)
    >>> loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))
    tensor(0.0866)
    """

    def __init__(
        self, weight: float = 10.0, target_stride: int = 1, alpha: float = 0.5, gamma: float = 2.0
    ) -> None:
        super().__init__(weight, target_stride)
        if not alpha > 0 or gamma < 0:
            raise ValueError(
                f"BEVFocalLoss: alpha must be positive and gamma not negative, got {alpha}, {gamma}"
            )
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (B, classes, H, W) against labels (B, H * stride, W * stride) of any integer type.

        Raises:
            ValueError: If the sizes differ.
        """
        labels = self.thinned(logits, target)
        entropy = F.cross_entropy(logits.float(), labels, reduction="none")
        probability = (-entropy).exp().clamp(min=PROBABILITY_FLOOR)
        # (Below 1 a gamma has an infinite slope at 0, where pixels are that are quite right.)
        missing = (1 - probability).clamp(min=torch.finfo(probability.dtype).tiny)
        return self.weight * (-self.alpha * missing**self.gamma * probability.log()).mean()
