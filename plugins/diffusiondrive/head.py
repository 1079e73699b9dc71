"""Truncated diffusion from anchors: DiffusionDrive's head (MODELS, section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from beyonddrive.heads.base import TrajectoryHead, draw_noise
from beyonddrive.heads.scene_map import SceneMap
from beyonddrive.plugins.diffusiondrive.anchors import PlanAnchors
from beyonddrive.plugins.diffusiondrive.ddim import DDIM, NUM_TRAIN_TIMES
from beyonddrive.plugins.diffusiondrive.denoiser import AnchoredDenoiser, LayerContext
from beyonddrive.plugins.diffusiondrive.losses import focal_loss
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SceneRandom
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import numbers_on

GRID_OFFSET = (1.2, 20.0)
"""Added to x and y [m] before they are divided by :data:`GRID_EXTENT`."""
GRID_EXTENT = (56.9, 46.0)
"""Metres along x and y that the interval -1 to 1 of the diffusion stands for."""


@dataclass
class DiffusionDraws:
    """The random numbers of one training step.

    Attributes:
        time: (B,) int64 diffusion time steps.
        noise: (B, M, 8, 2) standard normal.
    """

    time: Tensor
    noise: Tensor


def normalise(points: Tensor) -> Tensor:
    """Points (..., 2) [m] -> the space of the diffusion.

    >>> normalise(torch.tensor([[-1.2, -20.0], [55.7, 26.0]]))
    tensor([[-1., -1.],
            [ 1.,  1.]])
    """
    offset, extent = _grid(points)
    return 2 * (points + offset) / extent - 1


def denormalise(points: Tensor) -> Tensor:
    """The space of the diffusion -> points (..., 2) [m], the inverse of :func:`normalise`."""
    offset, extent = _grid(points)
    return (points + 1) / 2 * extent - offset


def _grid(like: Tensor) -> list[Tensor]:
    """:data:`GRID_OFFSET` and :data:`GRID_EXTENT`, each (2,), on the device of ``like``."""
    return [numbers_on(like.device, values, like.dtype) for values in (GRID_OFFSET, GRID_EXTENT)]


@MODELS.register_module()
class TruncatedDiffusionHead(TrajectoryHead):
    """Adds a little noise to anchor plans and denoises them in a few steps; plans are absolute poses.

    Query 0 is the ego query, the others are agent queries. Everything that depends on the scene alone is
    computed once for all steps. Noise is added at ``noise_time``, the first step runs at
    ``window * (steps - 1) / steps``, which differs from it (8 and 10) in the published planner, and an update
    goes back by one diffusion step only, not to the next step's time; trained weights expect that (MODELS,
    section 11, quirk 9).

    Args:
        num_anchors: Anchors, one mode each.
        anchors: Vocabulary file with ``num_anchors`` plans; not read if a checkpoint brings anchors.
        denoiser: Arguments of :class:`AnchoredDenoiser`.
        bev_size: Rows and columns of the bird's-eye-view tokens.
        bev_channels: Channels of the upscaled bird's-eye-view map.
        steps: Denoising steps at test time, at most ``window``.
        noise_time: Diffusion time of the noise at test time.
        window: Diffusion times that the steps at test time share evenly, the last one at 0.
        train_window: Training times are drawn from 0 to ``train_window - 1``.
        regression_weight: Weight of the L1 distance of the best mode, after each layer (12 x 8 as published).
        mode_weight: Weight of the focal loss of the modes' scores, after each layer (12 x 10 as published).
        seed: Seed of the noise at test time.

    Raises:
        ValueError: If a setting is out of range.
    """

    knows_guidance: ClassVar[bool] = False
    """Whether ``guidance`` of :meth:`propose` does anything."""

    def __init__(
        self,
        num_anchors: int = 20,
        anchors: str | Path | None = None,
        denoiser: dict[str, Any] | None = None,
        bev_size: tuple[int, int] = (8, 8),
        bev_channels: int = 64,
        steps: int = 2,
        noise_time: int = 8,
        window: int = 20,
        train_window: int = 50,
        regression_weight: float = 96.0,
        mode_weight: float = 120.0,
        seed: int = 0,
    ) -> None:
        super().__init__("absolute")
        windows = (window, train_window)
        if not 0 <= noise_time < NUM_TRAIN_TIMES or not all(1 <= size <= NUM_TRAIN_TIMES for size in windows):
            raise ValueError(
                f"TruncatedDiffusionHead: noise_time must be below {NUM_TRAIN_TIMES}, window and "
                f"train_window 1 to {NUM_TRAIN_TIMES} diffusion times, got {noise_time}, {window} and "
                f"{train_window}"
            )
        if not (regression_weight > 0 and mode_weight >= 0):
            raise ValueError(
                f"TruncatedDiffusionHead: regression_weight must be positive and mode_weight not negative, "
                f"got {regression_weight}, {mode_weight}"
            )
        self.anchors = PlanAnchors(num_anchors, anchors, "TruncatedDiffusionHead")
        self.denoiser = AnchoredDenoiser(**(denoiser or {}))
        self.scene_map = SceneMap(self.denoiser.dim, bev_channels, bev_size)
        self.ddim = DDIM()
        self.steps, self.noise_time, self.window = steps, noise_time, window
        self.train_window = train_window
        self.attraction_weight = self.regression_weight = regression_weight
        self.mode_weight = mode_weight
        self.seed = seed
        self.step_times(steps)

    @property
    def num_proposals(self) -> int:
        """Plans at test time: one per anchor."""
        return self.anchors.size

    def forward(
        self, tokens: SceneTokens, draws: Tensor | None = None, steps: int | None = None
    ) -> PlanOutput:
        """Plan a batch.

        Args:
            tokens: Scene tokens.
            draws: (B, M, 8, 2) standard-normal noise. By default every scene gets the same, made from
                ``seed``, so that a plan depends on nothing but its scene.
            steps: Denoising steps; the head's by default.

        Returns:
            The plan of the mode with the highest score; all modes are ``proposals``, their logits ``scores``.

        Raises:
            PriorError: If there are no anchors.
        """
        if draws is None:
            draws = self.draw(1, self.num_proposals, torch.Generator().manual_seed(self.seed))
            draws = draws.to(tokens.queries.device).expand(len(tokens.queries), -1, -1, -1)
        num_points = draws.shape[1] * NUM_POSES * (self.steps if steps is None else steps)
        context = self.context(tokens, None if torch.is_grad_enabled() else num_points)
        return _best(*self.sample(context, draws, steps))

    def context(self, tokens: SceneTokens, num_points: int | None = None) -> list[LayerContext]:
        """What the denoiser needs of the scene, the same for all steps.

        Args:
            tokens: Scene tokens.
            num_points: As for :meth:`AnchoredDenoiser.prepare`.
        """
        scene_map = self.scene_map(tokens, "TruncatedDiffusionHead")
        ego, agents = tokens.queries[:, :1], tokens.queries[:, 1:]
        return self.denoiser.prepare(scene_map, agents, ego, num_points)

    def draw(self, batch: int, num_proposals: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard-normal noise (batch, num_proposals, 8, 2), on the generator's device or the CPU."""
        return draw_noise(batch, num_proposals, 2, generator)

    def step_times(self, steps: int) -> list[int]:
        """Diffusion times that the steps run at.

        Raises:
            ValueError: If there are fewer than 1 or more than ``window``.

        >>> TruncatedDiffusionHead(denoiser=dict(dim=8)).step_times(4)
        [15, 10, 5, 0]
        """
        if not 1 <= steps <= self.window:
            raise ValueError(
                f"TruncatedDiffusionHead: sampling needs 1 to {self.window} steps (window), got {steps}"
            )
        return [self.window * index // steps for index in reversed(range(steps))]

    def sample(
        self,
        context: list[LayerContext],
        draws: Tensor,
        steps: int | None = None,
        trace: list[tuple[Tensor, list[tuple[Tensor, Tensor]]]] | None = None,
        noise: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Denoise the anchors.

        Args:
            context: The result of :meth:`context`.
            draws: (B, P, 8, 2) standard-normal noise; plan i starts from anchor i modulo their number.
            steps: Denoising steps; the head's by default.
            trace: If given, gets the noisy points [m] and the outputs of all layers of every step.
            noise: Factor on ``draws``.

        Returns:
            Poses (B, P, 8, 3) and logits (B, P).
        """
        anchors = self.anchors()
        start = normalise(anchors.repeat(-(-draws.shape[1] // len(anchors)), 1, 1)[: draws.shape[1]])
        time = torch.full((1,), self.noise_time, device=draws.device)
        noisy = self.ddim.add_noise(start.expand_as(draws), noise * draws, time)
        outputs: list[tuple[Tensor, Tensor]] = []
        for step_time in self.step_times(self.steps if steps is None else steps):
            points = denormalise(noisy.clamp(-1, 1))
            outputs = self.denoiser(points, torch.full((1,), step_time, device=draws.device), context)
            if trace is not None:
                trace.append((points, outputs))
            if step_time > 0:
                clean = normalise(outputs[-1][0][..., :2].float())
                noisy = self.ddim.step(clean, step_time, noisy)
        return outputs[-1]

    def propose(
        self, tokens: SceneTokens, draws: Tensor, guidance: float, noise: float, steps: int
    ) -> Tensor:
        """Plans (B, P, 8, 3) for mining negatives; as :meth:`sample`, which knows no ``guidance``."""
        return self.sample(self.context(tokens), draws, steps, noise=noise)[0]

    def training_output(
        self, tokens: SceneTokens, samples: Sequence[PlanSample], draws: DiffusionDraws | None = None
    ) -> PlanOutput:
        """Anchors with noise of a random time, denoised in one step.

        Args:
            tokens: Scene tokens.
            samples: Samples with expert plans.
            draws: The step's random numbers; by default each sample's own (:class:`SceneRandom`).

        Returns:
            The plan of the mode with the highest score. ``extras`` hold ``poses`` (B, L, M, 8, 3) and
            ``logits`` (B, L, M) after each of the L layers.
        """
        anchors = self.anchors()
        batch = len(tokens.queries)
        if draws is None:
            random = SceneRandom(samples, batch, tokens.queries.device)
            draws = DiffusionDraws(random.integers(self.train_window), random.normal(*anchors.shape))
        start = normalise(anchors).expand(batch, -1, -1, -1)
        noisy = self.ddim.add_noise(start, draws.noise, draws.time)
        outputs = self.denoiser(denormalise(noisy.clamp(-1, 1)), draws.time, self.context(tokens))
        output = _best(*outputs[-1])
        poses, logits = zip(*outputs, strict=True)
        output.extras = {"poses": torch.stack(poses, dim=1), "logits": torch.stack(logits, dim=1)}
        return output

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_trajectory``, L1 of the expert's mode, and ``loss_mode``, focal; sums over the layers."""
        expert = self.expert(samples, output.trajectory)
        chosen = self.supervised(output, samples)  # (B, L, 8, 3)
        regression = (chosen - expert[:, None]).abs().mean(dim=(0, 2, 3)).sum()
        logits = output.extras["logits"].transpose(0, 1)  # (L, B, M)
        target = F.one_hot(self.expert_modes(expert), self.anchors.size).to(logits.dtype)
        modes = focal_loss(logits, target.expand_as(logits)).mean(dim=(1, 2)).sum()
        return {
            "loss_trajectory": self.regression_weight * regression,
            "loss_mode": self.mode_weight * modes,
        }

    def expert_modes(self, expert: Tensor) -> Tensor:
        """Index (B,) of the anchor with the least mean distance [m] to each expert plan (B, 8, 3)."""
        distance = torch.linalg.vector_norm(expert[:, None, :, :2] - self.anchors(), dim=-1)
        return distance.mean(dim=-1).argmin(dim=1)

    def supervised(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor:
        """Plans (B, L, 8, 3) of the expert's mode after each layer."""
        poses = output.extras["poses"]
        modes = self.expert_modes(self.expert(samples, poses))
        index = modes[:, None, None, None, None].expand(-1, poses.shape[1], -1, *poses.shape[3:])
        return poses.gather(2, index)[:, :, 0]

    def modes(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor | None:
        """Plans (B, M, 8, 3) of all modes after the last layer."""
        return output.proposals


def _best(poses: Tensor, logits: Tensor) -> PlanOutput:
    best = logits.argmax(dim=1)[:, None, None, None].expand(-1, -1, *poses.shape[2:])
    plan = poses.gather(1, best)[:, 0]
    return PlanOutput(trajectory=plan, encoded=plan, proposals=poses, scores=logits)
