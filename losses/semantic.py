"""Bird's-eye-view segmentation: cross-entropy over the pixels of the map (MODELS, section 3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import IGNORED_LABEL


@MODELS.register_module()
class BEVSemanticLoss(nn.Module):
    """Cross-entropy, mean over all pixels, times ``weight``; of unknown ones (``IGNORED_LABEL``) it is 0.

    The denominator counts them too, and so does not depend on how a batch is shared by ranks.

    Args:
        weight: Weight of the term.
        target_stride: Compare with every ``target_stride``-th pixel of the target in both directions. The
            published size is 1; small planners predict a coarser map and skip pixels to save time.

    >>> import torch
    >>> loss = BEVSemanticLoss(weight=2.0, target_stride=2)
    >>> loss(torch.zeros(1, 7, 2, 4), torch.zeros(1, 4, 8, dtype=torch.uint8))
    tensor(3.8918)
    """

    def __init__(self, weight: float = 1.0, target_stride: int = 1) -> None:
        super().__init__()
        if not weight > 0 or target_stride < 1:
            raise ValueError(
                f"BEVSemanticLoss: weight must be positive and target_stride at least 1, got {weight}, "
                f"{target_stride}; to train without this term give the planner bev_head=None"
            )
        self.weight = weight
        self.target_stride = target_stride

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (B, classes, H, W) against labels (B, H * stride, W * stride) of any integer type.

        Raises:
            ValueError: If the sizes differ.
        """
        labels = self.thinned(logits, target)
        count = (labels != IGNORED_LABEL).sum()
        # (Over no pixel at all the mean is NaN, and 0 times it, too: any labels will do, as they count 0.)
        labels = labels.where(count > 0, 0)
        return self.weight * (F.cross_entropy(logits, labels) * (count / labels.numel()))

    def thinned(self, logits: Tensor, target: Tensor) -> Tensor:
        """Labels (B, H, W) int64 of the pixels that the logits (B, classes, H, W) predict.

        Raises:
            ValueError: If the sizes differ.
        """
        offset = self.target_stride // 2
        target = target[:, offset :: self.target_stride, offset :: self.target_stride].long()
        if logits.shape[-2:] != target.shape[-2:]:
            raise ValueError(
                f"{type(self).__name__}: the head predicts {tuple(logits.shape[-2:])} pixels and the target "
                f"has {tuple(target.shape[-2:])} after stride {self.target_stride}: set map_size of the head "
                f"and target_stride so that they agree"
            )
        return target
