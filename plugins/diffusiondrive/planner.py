"""DiffusionDrive: truncated diffusion from anchors (MODELS, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from beyonddrive.heads.diffusion import TruncatedDiffusionHead
from beyonddrive.plugins.planner import Inputs
from beyonddrive.plugins.sampling import Sampling, SamplingPlanner
from beyonddrive.registry import MODELS


@MODELS.register_module()
class DiffusionDrivePlanner(SamplingPlanner):
    """Camera, LiDAR and ego status -> one plan per anchor, and the best of them.

    Args:
        trajectory_head: Settings of a :class:`TruncatedDiffusionHead`, bare or wrapped.
        kwargs: As for :class:`SensorPlanner`.
    """

    def __init__(self, trajectory_head: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(trajectory_head=trajectory_head, **kwargs)
        bare = self.trajectory_head.bare
        if not isinstance(bare, TruncatedDiffusionHead):
            raise ValueError(
                f"DiffusionDrivePlanner: trajectory_head must be a TruncatedDiffusionHead, got "
                f"{type(bare).__name__}"
            )

    @property
    def diffusion_head(self) -> TruncatedDiffusionHead:
        """The diffusion head, without wrappers."""
        head = self.trajectory_head.bare
        assert isinstance(head, TruncatedDiffusionHead)
        return head

    @torch.no_grad()
    def propose(
        self,
        inputs: Inputs,
        num_proposals: int,
        strategy: Sampling,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Plans around the planner's own, for mining negatives.

        Args:
            inputs: As for :meth:`forward`.
            num_proposals: Plans per scene; plan i starts from anchor i modulo their number.
            strategy: ``steps``, and ``noise``, the factor on the noise; there is no guidance.
            generator: Source of the noise; one per scene makes the plans of a scene independent of the batch.

        Returns:
            (B, num_proposals, 8, 3) plans.
        """
        self._check_inputs(inputs, None)
        head = self.diffusion_head
        tokens = self.encode(inputs)
        draws = self.draw_scenes(len(tokens.queries), num_proposals, generator, tokens.queries.device)
        return head.sample(head.context(tokens), draws, strategy.steps, noise=strategy.noise)[0]
