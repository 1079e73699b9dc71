"""Losses of the vocabulary planner: imitation, distilled sub-scores, attraction of the expected plan."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.losses.imitation import soft_imitation_loss, wrapped_difference
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import SCORE_COLUMNS

METRICS = SCORE_COLUMNS[:6]
"""NC, DAC, EP, TTC, C, DDC."""


@MODELS.register_module()
class VocabularyLoss(nn.Module):
    """Terms of :class:`VocabularyHead`.

    ``loss_imitation``: cross-entropy against the softmax of minus the distances to the expert;
    ``loss_nc`` ... ``loss_ddc``: binary cross-entropy of every sub-score; ``loss_expectation``: mean L1
    between the expected plan and the expert.

    Args:
        imitation_weight: Weight of the imitation.
        temperature: Distances are divided by it [m]: small values tell near plans apart more sharply.
        metric_weights: Weights by sub-score that replace the default 1.
        expectation_weight: Weight of the expected plan; a repulsion has to be weaker.

    Raises:
        ValueError: If a weight is unknown or not positive.
    """

    def __init__(
        self,
        imitation_weight: float = 1.0,
        temperature: float = 1.0,
        metric_weights: Mapping[str, float] | None = None,
        expectation_weight: float = 1.0,
    ) -> None:
        super().__init__()
        given = dict(metric_weights or {})
        if unknown := sorted(given.keys() - set(METRICS)):
            raise ValueError(f"VocabularyLoss: metric_weights: {unknown} are unknown, known are {METRICS}")
        self.metric_weights = {name: float(given.get(name, 1.0)) for name in METRICS}
        values = (imitation_weight, temperature, expectation_weight, *self.metric_weights.values())
        if not all(value > 0 for value in values):
            raise ValueError(f"VocabularyLoss: weights and temperature must be positive, got {values}")
        self.imitation_weight = imitation_weight
        self.temperature = temperature
        self.expectation_weight = expectation_weight

    def forward(
        self,
        plans: Tensor,
        expected: Tensor,
        imitation: Tensor,
        metrics: Tensor,
        expert: Tensor,
        scores: Tensor,
    ) -> dict[str, Tensor]:
        """Weighted terms.

        Args:
            plans: (V, 8, 3) the vocabulary.
            expected: (B, 8, 3) expected plans.
            imitation: (B, V) logits.
            metrics: (B, V, 6) logits.
            expert: (B, 8, 3).
            scores: (B, V, 6) sub-scores in [0, 1].
        """
        # As a matrix product, |a|^2 - 2ab + |b|^2 cancels between plans tens of metres long: centimetres are
        # lost in float32, metres under TF32.
        distances = torch.cdist(
            _on_circle(expert), _on_circle(plans), compute_mode="donot_use_mm_for_euclid_dist"
        )
        distances = distances / self.temperature
        entropy = F.binary_cross_entropy_with_logits(metrics.float(), scores, reduction="none")
        difference = wrapped_difference(expected, expert)
        losses = {
            "loss_imitation": self.imitation_weight * soft_imitation_loss(imitation, distances),
            "loss_expectation": self.expectation_weight * difference.abs().mean(),
        }
        for name, term in zip(METRICS, entropy.mean(dim=(0, 1)), strict=True):
            losses[f"loss_{name.lower()}"] = self.metric_weights[name] * term
        return losses


def _on_circle(plans: Tensor) -> Tensor:
    """(N, 8, 3) -> (N, 32) x, y, cos and sin of the heading, whose distances wrap as headings do."""
    heading = plans[..., 2:]
    return torch.cat([plans[..., :2], heading.cos(), heading.sin()], dim=-1).flatten(1)
