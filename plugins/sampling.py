"""Planners that sample: the noise of a scene depends on the head's seed and the scene's token only."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from beyonddrive.plugins.planner import Inputs, SensorPlanner
from beyonddrive.plugins.preprocessor import PlannerInputError
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput, SceneTokens

NOISE = "noise"
"""Name of the input that plans may start from."""


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
    """A sensor planner whose plans start from noise.

    The noise may be given as the input :data:`NOISE`, standard-normal numbers (B, num_proposals, ...) of the
    shape that the head's ``draw`` returns. Otherwise it is made from the head's seed: with samples from their
    tokens too, without them every scene starts from the same. ``propose`` does not read it.
    """

    def plan_from(
        self, tokens: SceneTokens, inputs: Inputs, samples: Sequence[PlanSample] | None = None
    ) -> PlanOutput:
        """Plans of scenes that have been encoded."""
        draws = inputs.get(NOISE)
        if draws is None and samples is not None:
            head = cast("SamplingHead", self.trajectory_head.bare)
            scenes = [scene_generator(head.seed, sample.metainfo.get("token", "")) for sample in samples]
            draws = self.draw_scenes(len(scenes), head.num_proposals, scenes, tokens.queries.device)
        return self.trajectory_head(tokens, draws=draws)

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

    def _check_inputs(self, inputs: Inputs, samples: Sequence[PlanSample] | None) -> None:
        super()._check_inputs(inputs, samples)
        noise = inputs.get(NOISE)
        if noise is None:
            return
        head = cast("SamplingHead", self.trajectory_head.bare)
        example = head.draw(1, head.num_proposals, torch.Generator())
        wanted = (len(inputs["status"]), *example.shape[1:])
        if tuple(noise.shape) != wanted or not bool(noise.isfinite().all()):
            raise PlannerInputError(
                f"input {NOISE!r} of {type(self).__name__} must be finite standard-normal numbers {wanted}, "
                f"got {tuple(noise.shape)}; leave it out to have them made from the head's seed"
            )


def scene_generator(seed: int, token: str) -> torch.Generator:
    """A generator on the CPU that gives a scene the same numbers in every batch and on every machine."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{token}".encode()))
