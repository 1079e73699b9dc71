"""Repulsion: keep a plan away from a near-expert plan that fails (METHOD, section 4)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from beyonddrive.registry import MODELS

ValidRule = Literal["mask", "sum_positive"]
Reduction = Literal["nearest", "mean"]


@MODELS.register_module()
class RepulsiveDistanceLoss(nn.Module):
    """``-weight * mean over samples with a negative of mean |plan - negative|``.

    The mean runs over the samples that have a negative, not over the batch. A batch without any gives
    exactly 0 and a zero gradient.

    With ``weight`` as large as the attraction weight the total is unbounded below (moving away from the
    negative earns at least what moving away from the expert costs), so that is refused.

    Args:
        weight: Repulsion weight w_r; 0 switches the term off.
        attraction_weight: Weight w_t of the wrapped head's L1 term.
        valid_rule: ``'mask'`` trusts the sample's own mask. ``'sum_positive'`` also asks that the sum of all
            coordinates of the negative be > 0, as the public release does; it drops tight right turns
            (METHOD, section 6, fault 1) and exists for comparisons only.
        reduction: Of several negatives of a sample: ``'nearest'`` takes the first valid one (they are stored
            nearest to the expert first), ``'mean'`` the mean distance to all valid ones.
        clamp: If given, the distance of a sample counts up to this value (in the head's own space); beyond
            it the sample is repelled no further.

    Raises:
        ValueError: If a setting is out of range; in particular if ``weight >= attraction_weight``.

    >>> loss = RepulsiveDistanceLoss(weight=5.0, attraction_weight=10.0)
    >>> plan, negative = torch.zeros(2, 8, 3), torch.full((2, 1, 8, 3), 0.5)
    >>> loss(plan, negative, torch.tensor([[True], [False]]))
    tensor(-2.5000)
    >>> loss(plan, negative, torch.tensor([[False], [False]]))
    tensor(0.)
    >>> RepulsiveDistanceLoss(weight=10.0, attraction_weight=10.0)
    Traceback (most recent call last):
        ...
    ValueError: RepulsiveDistanceLoss: weight 10.0 must be smaller than attraction_weight 10.0: ...
    """

    def __init__(
        self,
        weight: float = 5.0,
        attraction_weight: float = 10.0,
        valid_rule: ValidRule = "mask",
        reduction: Reduction = "nearest",
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"RepulsiveDistanceLoss: weight must not be negative, got {weight}")
        if not weight < attraction_weight:
            raise ValueError(
                f"RepulsiveDistanceLoss: weight {weight} must be smaller than attraction_weight "
                f"{attraction_weight}: otherwise the loss has no minimum and the plan runs away from the "
                f"negative. Lower weight or raise the attraction weight of the wrapped head."
            )
        if valid_rule not in get_args(ValidRule):
            raise ValueError(
                f"RepulsiveDistanceLoss: valid_rule must be one of {get_args(ValidRule)}, got {valid_rule!r}"
            )
        if reduction not in get_args(Reduction):
            raise ValueError(
                f"RepulsiveDistanceLoss: reduction must be one of {get_args(Reduction)}, got {reduction!r}"
            )
        if clamp is not None and not clamp > 0:
            raise ValueError(f"RepulsiveDistanceLoss: clamp must be positive or None, got {clamp}")
        self.weight = weight
        self.attraction_weight = attraction_weight
        self.valid_rule = valid_rule
        self.reduction = reduction
        self.clamp = clamp

    def counted(self, plans: Tensor, valid: Tensor) -> Tensor:
        """Which negatives (B, K) count under ``valid_rule``.

        Args:
            plans: (B, K, 8, 3) negatives in metres and radians.
            valid: (B, K) bool mask of the samples.
        """
        if self.valid_rule == "sum_positive":
            return valid & (plans.sum(dim=(-2, -1)) > 0)
        return valid

    def forward(self, prediction: Tensor, negatives: Tensor, valid: Tensor) -> Tensor:
        """The term of a batch, a scalar <= 0.

        Args:
            prediction: (B, 8, D) plans in the head's own space.
            negatives: (B, K, 8, D) negatives in the same space; entries that are not valid may hold anything.
            valid: (B, K) bool, which negatives count.

        Raises:
            ValueError: If the shapes do not fit together.
        """
        shape = (prediction.shape[0], valid.shape[-1], *prediction.shape[1:])
        if negatives.shape != shape or valid.shape != shape[:2]:
            raise ValueError(
                f"RepulsiveDistanceLoss: prediction {tuple(prediction.shape)} (B, 8, D) needs negatives "
                f"(B, K, 8, D) and valid (B, K), got {tuple(negatives.shape)} and {tuple(valid.shape)}"
            )
        if self.reduction == "nearest":
            # Rank 1 in the running count marks the first valid negative of each sample.
            valid = valid & (valid.cumsum(dim=1) == 1)
        plans = prediction[:, None].expand_as(negatives)
        # An invalid entry may hold NaN, which survives multiplication by 0, also in the gradient.
        negatives = torch.where(valid[..., None, None], negatives.to(plans.dtype), plans.detach())
        distance = (plans - negatives).abs().mean(dim=(-2, -1)).float()  # (B, K), 0 where not valid
        per_sample = distance.sum(dim=1) / valid.sum(dim=1).clamp(min=1)
        if self.clamp is not None:
            per_sample = per_sample.clamp(max=self.clamp)
        samples = valid.any(dim=1).sum().clamp(min=1)
        return 0.0 - self.weight * per_sample.sum() / samples
