"""Losses of WoTE: offsets, imitation of the nearest anchors, distilled sub-scores (MODELS, section 8)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.losses.imitation import PROBABILITY_FLOOR, soft_imitation_loss, wrapped_difference
from beyonddrive.registry import MODELS


@MODELS.register_module()
class WorldModelLoss(nn.Module):
    """Terms of :class:`WorldModelHead`.

    ``loss_offset``: mean L1 between the refined anchor nearest to the expert and the expert;
    ``loss_imitation`` and ``loss_offset_imitation``: soft cross-entropies of the two imitation rewards;
    ``loss_metrics``: binary cross-entropy of the metric rewards against the anchors' sub-scores.

    Args:
        offset_weight: Weight of the offsets.
        imitation_weight: Weight of the imitation reward.
        offset_imitation_weight: Weight of that of the offset decoder.
        metric_weight: Weight of the metric rewards.
    """

    def __init__(
        self,
        offset_weight: float = 1.0,
        imitation_weight: float = 1.0,
        offset_imitation_weight: float = 0.1,
        metric_weight: float = 5.0,
    ) -> None:
        super().__init__()
        weights = (offset_weight, imitation_weight, offset_imitation_weight, metric_weight)
        if not all(weight > 0 for weight in weights):
            raise ValueError(f"WorldModelLoss: weights must be positive, got {weights}")
        self.offset_weight = offset_weight
        self.imitation_weight = imitation_weight
        self.offset_imitation_weight = offset_imitation_weight
        self.metric_weight = metric_weight

    @staticmethod
    def distances(anchors: Tensor, expert: Tensor) -> Tensor:
        """L2 distance (B, A) over all poses and components, metres and radians alike."""
        return wrapped_difference(anchors, expert[:, None]).flatten(-2).norm(dim=-1)

    def nearest(self, anchors: Tensor, expert: Tensor) -> Tensor:
        """Anchor (B,) of (A, 8, 3) nearest to the expert (B, 8, 3)."""
        return self.distances(anchors, expert).argmin(dim=1)

    def forward(
        self,
        anchors: Tensor,
        plans: Tensor,
        logits: Mapping[str, Tensor],
        expert: Tensor,
        sub_scores: Tensor,
    ) -> dict[str, Tensor]:
        """Weighted terms.

        Args:
            anchors: (A, 8, 3).
            plans: (B, A, 8, 3) refined anchors.
            logits: ``imitation_logits`` (B, A), ``offset_logits`` (B, A), ``metric_logits`` (B, M, A).
            expert: (B, 8, 3).
            sub_scores: (B, M, A) in [0, 1].
        """
        distances = self.distances(anchors, expert)
        rows = torch.arange(len(plans), device=plans.device)
        pulled = plans[rows, distances.argmin(dim=1)]
        probability = logits["metric_logits"].float().sigmoid()
        entropy = -(
            sub_scores * (probability + PROBABILITY_FLOOR).log()
            + (1 - sub_scores) * (1 - probability + PROBABILITY_FLOOR).log()
        )
        offset = F.l1_loss(wrapped_difference(pulled, expert), torch.zeros_like(expert))
        imitation = soft_imitation_loss(logits["imitation_logits"], distances, PROBABILITY_FLOOR)
        offset_imitation = soft_imitation_loss(logits["offset_logits"], distances, PROBABILITY_FLOOR)
        return {
            "loss_offset": self.offset_weight * offset,
            "loss_imitation": self.imitation_weight * imitation,
            "loss_offset_imitation": self.offset_imitation_weight * offset_imitation,
            "loss_metrics": self.metric_weight * entropy.mean(),
        }
