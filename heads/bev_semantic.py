"""Auxiliary segmentation of the bird's-eye view (MODELS, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import SceneTokens, check_channels
from beyonddrive.structures.transfers import to_device

NUM_BEV_CLASSES = 7
"""Background, road, walkway, centreline, static object, vehicle, pedestrian (MODELS, section 1)."""


@MODELS.register_module()
class BEVSemanticHead(nn.Module):
    """Upscaled bird's-eye-view map -> class logits.

    The features cover the whole square around the ego and the target its front half only; the mapping
    between the two is left to be learned, as published.

    Args:
        in_channels: Channels of the upscaled map.
        num_classes: Classes of the target.
        map_size: Rows (forward) and columns (left) of the predicted map.
        loss: :class:`BEVSemanticLoss` of weight 10 by default.
    """

    def __init__(
        self,
        in_channels: int = 64,
        num_classes: int = NUM_BEV_CLASSES,
        map_size: tuple[int, int] = (128, 256),
        loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.map_size, self.num_classes = in_channels, tuple(map_size), num_classes
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(in_channels, num_classes, 1),
        )
        self.criterion = MODELS.build(loss or {"type": "BEVSemanticLoss", "weight": 10.0})

    def forward(self, tokens: SceneTokens) -> dict[str, Tensor]:
        """``bev_semantic_map`` (B, classes, *map_size) logits."""
        bev = tokens.require("bev", "BEVSemanticHead")
        check_channels(type(self).__name__, self.in_channels, bev.shape[1], "maps")
        logits = self.layers(bev)
        logits = F.interpolate(logits, size=self.map_size, mode="bilinear", align_corners=False)
        return {"bev_semantic_map": logits}

    def loss(self, tokens: SceneTokens, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_bev_semantic``."""
        logits = self(tokens)["bev_semantic_map"]
        target = to_device(stack_field(samples, "gt", "bev_semantic_map"), logits.device)
        return {"loss_bev_semantic": self.criterion(logits, target)}
