"""MeanFuser: mean flow from a Gaussian mixture and adaptive reconstruction (MODELS, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from beyonddrive.heads.mean_flow import MeanFlowHead
from beyonddrive.plugins.planner import Inputs
from beyonddrive.plugins.sampling import Sampling, SamplingPlanner
from beyonddrive.registry import MODELS


@MODELS.register_module()
class MeanFuserPlanner(SamplingPlanner):
    """Camera and ego status -> a proposal per component of a mixture, and one plan made of all of them.

    Args:
        trajectory_head: Settings of a :class:`MeanFlowHead`, bare or wrapped.
        kwargs: As for :class:`SensorPlanner`.
    """

    def __init__(self, trajectory_head: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(trajectory_head=trajectory_head, **kwargs)
        bare = self.trajectory_head.bare
        if not isinstance(bare, MeanFlowHead):
            raise ValueError(
                f"MeanFuserPlanner: trajectory_head must be a MeanFlowHead, got {type(bare).__name__}"
            )

    @property
    def mean_flow_head(self) -> MeanFlowHead:
        """The mean-flow head, without wrappers."""
        head = self.trajectory_head.bare
        assert isinstance(head, MeanFlowHead)
        return head

    @torch.no_grad()
    def propose(
        self,
        inputs: Inputs,
        num_proposals: int,
        strategy: Sampling,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Plans around the planner's own, for mining negatives; not reconstructed.

        Args:
            inputs: As for :meth:`forward`.
            num_proposals: Plans per scene, shared evenly by the components of the mixture.
            strategy: ``steps``, and ``noise``, the factor on the mixture's standard deviations; there is no
                guidance.
            generator: Source of the noise; one per scene makes the plans of a scene independent of the batch.

        Returns:
            (B, num_proposals, 8, 3) plans.
        """
        self._check_inputs(inputs, None)
        head = self.mean_flow_head
        context = head.context(self.encode(inputs))
        draws = self.draw_scenes(len(context), num_proposals, generator, context.device)
        return head.decode(head.sample(head.denoiser.prepare(context), draws, strategy.steps, strategy.noise))
