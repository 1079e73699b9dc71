"""Planners that sample: the noise of a scene depends on the head's seed and the scene's token only."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from beyonddrive.plugins.base.head_planner import SensorPlanner
from beyonddrive.plugins.base.planner import Inputs
from beyonddrive.plugins.base.preprocessor import PlannerInputError
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import to_device

NOISE = "noise"
"""Name of the input that plans may start from."""


class Sampling(Protocol):
    """What ``propose`` reads of a sampling strategy."""

    @property
    def guidance(self) -> float:
        """Classifier-free guidance scale."""

    @property
    def noise(self) -> float:
        """Standard deviation of the start points; of heads with noise of their own a factor on that.

        Such are those of DiffusionDrive and MeanFuser, which plan with 1 and know no guidance.
        """

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

    def propose(
        self, tokens: SceneTokens, draws: Tensor, guidance: float, noise: float, steps: int
    ) -> Tensor:
        """Plans (B, P, 8, 3) from standard-normal noise (B, P, ...)."""


class SamplingPlanner(SensorPlanner):
    """A sensor planner whose plans start from noise; by :meth:`propose` it is a generator of negatives.

    What a scene is predicted from is the noise of its token, :meth:`noise_of`, whoever asks: an evaluation, a
    round of mining, a driver, or an exported graph that is given it as the input :data:`NOISE`,
    standard-normal numbers (B, num_proposals, ...). Without that input and without samples there are no
    tokens, and every scene starts from the same noise, made from the head's seed. ``propose`` reads neither.
    """

    def plan_from(
        self, tokens: SceneTokens, inputs: Inputs, samples: Sequence[PlanSample] | None = None
    ) -> PlanOutput:
        """Plans of scenes that have been encoded."""
        draws = inputs.get(NOISE)
        if draws is None and samples is not None:
            names = [sample.metainfo.get("token", "") for sample in samples]
            draws = to_device(self.noise_of(names), tokens.queries.device)
        return self.trajectory_head(tokens, draws=draws)

    @property
    def knows_guidance(self) -> bool:
        """Whether the guidance of a strategy does anything; of a head that does not say so, it does."""
        return bool(getattr(self.sampling_head, "knows_guidance", True))

    def noise_of(self, scenes: Sequence[str]) -> Tensor:
        """Standard-normal noise (B, num_proposals, ...) that the plans of scenes start from, on the CPU.

        Args:
            scenes: Their tokens.
        """
        head = self.sampling_head
        generators = [scene_generator(head.seed, token) for token in scenes]
        return self.draw_scenes(len(scenes), head.num_proposals, generators, torch.device("cpu"))

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
            num_proposals: Plans per scene.
            strategy: What the head's ``propose`` is given.
            generator: Source of the noise, on any device; the global one of the CPU by default. One per scene
                makes the plans of a scene independent of the batch.

        Returns:
            (B, num_proposals, 8, 3) plans.
        """
        self._check_inputs(inputs, None)
        tokens = self.encode(inputs)
        draws = self.draw_scenes(len(tokens.queries), num_proposals, generator, tokens.queries.device)
        return self.sampling_head.propose(tokens, draws, strategy.guidance, strategy.noise, strategy.steps)

    @property
    def sampling_head(self) -> SamplingHead:
        """The trajectory head, without wrappers."""
        return cast("SamplingHead", self.trajectory_head.bare)

    def draw_scenes(
        self,
        batch: int,
        num_proposals: int,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        device: torch.device,
    ) -> Tensor:
        """Standard-normal noise of scenes.

        Args:
            batch: Scenes B; with a generator per scene they say how many.
            num_proposals: Plans P per scene.
            generator: One for all, or one per scene; the global one of the CPU by default.
            device: Where the noise goes.

        Returns:
            (B, P, 8, D), D numbers per pose as the head draws them.
        """
        head = self.sampling_head
        if isinstance(generator, Sequence):
            draws = torch.cat([head.draw(1, num_proposals, scene) for scene in generator])
        else:
            draws = head.draw(batch, num_proposals, generator)
        return to_device(draws, device)

    def _check_inputs(self, inputs: Inputs, samples: Sequence[PlanSample] | None) -> None:
        super()._check_inputs(inputs, samples)
        noise = inputs.get(NOISE)
        if noise is None:
            return
        head = self.sampling_head
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
