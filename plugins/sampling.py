"""Planners that sample: the noise of a scene depends on the head's seed and the scene's token only."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from beyonddrive.plugins.planner import Inputs, SensorPlanner
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput


class Sampling(Protocol):
    """What ``propose`` reads of a sampling strategy."""

    @property
    def guidance(self) -> float:
        """Classifier-free guidance scale."""

    @property
    def noise(self) -> float:
        """Standard deviation of the start points."""

    @property
    def steps(self) -> int:
        """Sampling steps."""


class SamplingHead(Protocol):
    """What a :class:`SamplingPlanner` needs of its bare trajectory head."""

    @property
    def seed(self) -> int:
        """Seed of the noise at test time."""

    @property
    def num_proposals(self) -> int:
        """Plans per scene at test time."""

    def draw(self, batch: int, num_proposals: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard-normal noise (batch, num_proposals, ...)."""


class SamplingPlanner(SensorPlanner):
    """A sensor planner whose plans start from noise."""

    def plan(self, inputs: Inputs, samples: Sequence[PlanSample] | None = None) -> PlanOutput:
        """Plans of a batch; without samples every scene starts from the same noise."""
        tokens = self.encode(inputs)
        if samples is None:
            return self.trajectory_head(tokens)
        head = cast("SamplingHead", self.trajectory_head.bare)
        draws = [
            head.draw(1, head.num_proposals, scene_generator(head.seed, sample.metainfo.get("token", "")))
            for sample in samples
        ]
        return self.trajectory_head(tokens, draws=torch.cat(draws).to(tokens.queries.device))

    def draw_scenes(
        self,
        batch: int,
        num_proposals: int,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        device: torch.device,
    ) -> Tensor:
        """Noise for ``propose``: from one generator, or from one per scene."""
        head = cast("SamplingHead", self.trajectory_head.bare)
        if isinstance(generator, Sequence):
            draws = torch.cat([head.draw(1, num_proposals, scene) for scene in generator])
        else:
            draws = head.draw(batch, num_proposals, generator)
        return draws.to(device)


def scene_generator(seed: int, token: str) -> torch.Generator:
    """A generator on the CPU that gives a scene the same numbers in every batch and on every machine."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{token}".encode()))
