"""FlowPolicy: the flow-matching planner that also generates the negatives (METHOD, sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from beyonddrive.heads.flow import FlowHead
from beyonddrive.plugins.planner import Inputs
from beyonddrive.plugins.sampling import Sampling, SamplingPlanner
from beyonddrive.registry import MODELS


@MODELS.register_module()
class FlowPolicy(SamplingPlanner):
    """Samples plans by flow matching; as a planner, and as a generator by :meth:`propose`.

    Args:
        trajectory_head: Settings of a :class:`FlowHead`, bare or wrapped.
        kwargs: As for :class:`SensorPlanner`.
    """

    def __init__(self, trajectory_head: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(trajectory_head=trajectory_head, **kwargs)
        bare = self.trajectory_head.bare
        if not isinstance(bare, FlowHead):
            raise ValueError(f"FlowPolicy: trajectory_head must be a FlowHead, got {type(bare).__name__}")

    @property
    def flow_head(self) -> FlowHead:
        """The flow head, without wrappers."""
        head = self.trajectory_head.bare
        assert isinstance(head, FlowHead)
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
            num_proposals: Plans per scene; 64 as published.
            strategy: Guidance, noise and steps; 0.5, 0.4 and 5 as published.
            generator: Source of the noise, on any device; the global one of the CPU by default. One per scene
                makes the plans of a scene independent of the batch.

        Returns:
            (B, num_proposals, 8, 3) plans.
        """
        self._check_inputs(inputs, None)
        head = self.flow_head
        context = head.context(self.encode(inputs))
        draws = self.draw_scenes(len(context), num_proposals, generator, context.device)
        encoded = head.sample(context, draws, strategy.guidance, strategy.noise, strategy.steps)
        return head.decode(encoded)
