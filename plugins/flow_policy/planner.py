"""FlowPolicy: the flow-matching planner that also generates the negatives (METHOD, sections 1 and 2)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from beyonddrive.heads.flow import FlowHead
from beyonddrive.plugins.planner import Inputs, SensorPlanner
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput


class Sampling(Protocol):
    """What :meth:`FlowPolicy.propose` reads of a sampling strategy."""

    @property
    def guidance(self) -> float:
        """Classifier-free guidance scale."""

    @property
    def noise(self) -> float:
        """Standard deviation of the start points."""

    @property
    def steps(self) -> int:
        """Euler steps."""


@MODELS.register_module()
class FlowPolicy(SensorPlanner):
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

    def plan(self, inputs: Inputs, samples: Sequence[PlanSample] | None = None) -> PlanOutput:
        """Plans of a batch; the noise of a scene depends on the head's seed and the scene's token only."""
        tokens = self.encode(inputs)
        if samples is None:
            return self.trajectory_head(tokens)
        head = self.flow_head
        draws = [
            head.draw(1, head.num_proposals, scene_generator(head.seed, sample.metainfo.get("token", "")))
            for sample in samples
        ]
        return self.trajectory_head(tokens, draws=torch.cat(draws).to(tokens.queries.device))

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
        if isinstance(generator, Sequence):
            draws = torch.cat([head.draw(1, num_proposals, scene) for scene in generator])
        else:
            draws = head.draw(len(context), num_proposals, generator)
        draws = draws.to(context.device)
        encoded = head.sample(context, draws, strategy.guidance, strategy.noise, strategy.steps)
        return head.decode(encoded)


def scene_generator(seed: int, token: str) -> torch.Generator:
    """A generator on the CPU that gives a scene the same numbers in every batch and on every machine."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{token}".encode()))
