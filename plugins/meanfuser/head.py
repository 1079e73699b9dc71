"""Mean flow from a Gaussian mixture, and adaptive reconstruction: MeanFuser's head (MODELS, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from beyonddrive.heads.base import TrajectoryHead, draw_noise
from beyonddrive.heads.denoiser import ContextCache, PlanDenoiser, check_time_law, sinusoidal_embedding
from beyonddrive.heads.scene_map import SceneMap
from beyonddrive.plugins.meanfuser.losses import MeanFlowDraws, interval, mean_velocity
from beyonddrive.plugins.meanfuser.mixture import PlanMixture
from beyonddrive.plugins.meanfuser.reconstruction import PlanReconstruction
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.scene_random import SceneRandom
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import numbers_on, to_device

Noise = Literal["mixture", "gaussian"]
ClusterDistance = Literal["wrapped", "reference"]


class MeanFlowDenoiser(PlanDenoiser):
    """Mean velocity between two times: a :class:`PlanDenoiser` whose times are pairs (B, 2) of r and t."""

    def embed_time(self, time: Tensor) -> Tensor:
        """Sum of the embeddings of t and of t - r, (B, dim)."""
        start, end = time.unbind(dim=-1)
        return sinusoidal_embedding(end, self.dim) + sinusoidal_embedding(end - start, self.dim)


@MODELS.register_module()
class MeanFlowHead(TrajectoryHead):
    """Takes noise to plans in one step by a learned mean velocity, then makes one plan of all proposals.

    The context is a coarse map of the bird's-eye view and the queries after the trajectory query; its keys
    and values are computed once for all proposals and steps. Each proposal starts from one component of a
    mixture of Gaussians, which belong to clusters of expert plans.

    Args:
        dim: Channels of tokens.
        num_context: Context queries.
        map_size: Rows and columns of the coarse map: those of the upscaled bird's-eye view over
            ``map_stride``.
        map_stride: Rows and columns of the upscaled map per row and column of the coarse one.
        bev_size: Rows and columns of the bird's-eye-view tokens.
        bev_channels: Channels of the upscaled map.
        denoiser: More arguments of :class:`MeanFlowDenoiser`.
        reconstruction: More arguments of :class:`PlanReconstruction`.
        num_components: Components of the mixture.
        mixture: Vocabulary file with as many plans; not read if a checkpoint brings the mixture.
        center_scale: Factor on the means of the components; 0.5 as published.
        initial_std: Standard deviation of components that are made from plans; 0.1 as published.
        start: What proposals start from: ``'mixture'``, or ``'gaussian'`` for standard-normal noise.
        num_proposals: Proposals per scene, shared evenly by the components.
        steps: Steps from noise to plans at test time.
        flow_weight: Weight of the mean-flow term.
        arm_weight: Weight of the L1 distance of the reconstructed plan to the expert.
        time_mean: Mean of the logit of training times.
        time_std: Its standard deviation.
        instant_probability: Share of training samples with an interval of length 0.
        cluster_distance: How the component of an expert is chosen: ``'wrapped'`` wraps differences of
            headings at +-pi, ``'reference'`` does not, as in the release (MODELS, section 11, quirk 6).
        proposal_gradient: Let gradients of the reconstructed plan, and of a repulsion from all modes, reach
            the flow. The published planner does not.
        seed: Seed of the noise at test time.
        statistics: Arguments of :class:`DeltaSpace`; those of navtrain by default.

    Raises:
        ValueError: If a setting is out of range.
    """

    knows_guidance: ClassVar[bool] = False
    """Whether ``guidance`` of :meth:`propose` does anything."""

    def __init__(
        self,
        dim: int = 128,
        num_context: int = 30,
        map_size: tuple[int, int] = (32, 32),
        map_stride: int = 2,
        bev_size: tuple[int, int] = (8, 8),
        bev_channels: int = 64,
        denoiser: dict[str, Any] | None = None,
        reconstruction: dict[str, Any] | None = None,
        num_components: int = 8,
        mixture: str | Path | None = None,
        center_scale: float = 0.5,
        initial_std: float = 0.1,
        start: Noise = "mixture",
        num_proposals: int = 8,
        steps: int = 1,
        flow_weight: float = 7.0,
        arm_weight: float = 2.0,
        time_mean: float = -0.4,
        time_std: float = 1.0,
        instant_probability: float = 0.5,
        cluster_distance: ClusterDistance = "wrapped",
        proposal_gradient: bool = False,
        seed: int = 0,
        statistics: dict[str, Any] | None = None,
    ) -> None:
        super().__init__("delta", statistics)
        for name, value, choices in (
            ("start", start, get_args(Noise)),
            ("cluster_distance", cluster_distance, get_args(ClusterDistance)),
        ):
            if value not in choices:
                raise ValueError(f"MeanFlowHead: {name} must be one of {choices}, got {value!r}")
        if steps < 1 or num_proposals < 1:
            raise ValueError(
                f"MeanFlowHead: steps and num_proposals must be at least 1, got {steps}, {num_proposals}"
            )
        if not (flow_weight > 0 and arm_weight > 0):
            raise ValueError(
                f"MeanFlowHead: flow_weight and arm_weight must be positive, got {flow_weight}, {arm_weight}"
            )
        check_time_law("MeanFlowHead", time_mean, time_std)
        if not 0 <= instant_probability <= 1:
            raise ValueError(
                f"MeanFlowHead: instant_probability must be in [0, 1], got {instant_probability}"
            )
        assert self.delta is not None
        self.map_size = (map_size[0], map_size[1])
        self.scene_map = SceneMap(dim, bev_channels, bev_size, map_stride)
        size = {"pose_dim": self.pose_dim, "dim": dim}
        num_cells = map_size[0] * map_size[1]
        self.denoiser = MeanFlowDenoiser(**size, num_context=num_cells + num_context, **(denoiser or {}))
        self.reconstruction = PlanReconstruction(num_proposals, **size, **(reconstruction or {}))
        self.mixture = PlanMixture(num_components, self.delta, mixture, initial_std, "MeanFlowHead")
        self.center_scale = center_scale
        self.start = start
        self.num_proposals, self.steps = num_proposals, steps
        self.flow_weight = flow_weight
        self.attraction_weight = self.arm_weight = arm_weight
        self.time_mean, self.time_std = time_mean, time_std
        self.instant_probability = instant_probability
        self.cluster_distance = cluster_distance
        self.proposal_gradient = proposal_gradient
        self.seed = seed

    def forward(
        self, tokens: SceneTokens, draws: Tensor | None = None, steps: int | None = None
    ) -> PlanOutput:
        """Plan a batch.

        Args:
            tokens: Scene tokens.
            draws: (B, num_proposals, 8, 4) standard-normal noise. By default every scene gets the same, made
                from ``seed``, so that a plan depends on nothing but its scene.
            steps: Steps from noise to plans; the head's by default.

        Raises:
            PriorError: If there is no mixture.
        """
        if draws is None:
            draws = self.draw(1, self.num_proposals, torch.Generator().manual_seed(self.seed))
            draws = draws.to(tokens.queries.device).expand(len(tokens.queries), -1, -1, -1)
        context = self.denoiser.prepare(self.context(tokens))
        return self._reconstruct(tokens, self.sample(context, draws, steps))

    def context(self, tokens: SceneTokens) -> Tensor:
        """What conditions the flow: cells of the coarse map, row by row, then the queries; (B, N, dim).

        Raises:
            ValueError: If the backbone's map does not have ``map_size`` cells, or there is none.
        """
        cells = self.scene_map(tokens, "MeanFlowHead")
        if tuple(cells.shape[1:3]) != self.map_size:
            raise ValueError(
                f"MeanFlowHead: map_size is {self.map_size}, the upscaled map of the backbone with stride "
                f"{self.scene_map.stride} gives {tuple(cells.shape[1:3])}: make them agree"
            )
        return torch.cat([cells.flatten(1, 2), tokens.queries[:, 1:]], dim=1)

    def draw(self, batch: int, num_proposals: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard-normal noise (batch, num_proposals, 8, 4), on the generator's device or the CPU."""
        return draw_noise(batch, num_proposals, self.pose_dim, generator)

    def start_points(self, draws: Tensor, noise: float = 1.0) -> Tensor:
        """Where proposals start.

        Args:
            draws: (B, P, 8, 4) standard-normal noise; proposal i belongs to component ``i * K // P``.
            noise: Factor on the standard deviations.
        """
        if self.start == "gaussian":
            return noise * draws
        self.mixture.require()
        count = draws.shape[1]
        component = torch.arange(count, device=draws.device) * self.mixture.size // count
        spread, center = self.mixture.std[component], self.mixture.center[component]
        return noise * draws * spread[:, None] + self.center_scale * center[:, None]

    def sample(
        self,
        context: list[ContextCache],
        draws: Tensor,
        steps: int | None = None,
        noise: float = 1.0,
    ) -> Tensor:
        """Take noise to plans.

        Args:
            context: Keys and values of :meth:`context`, from ``denoiser.prepare``.
            draws: (B, P, 8, 4) standard-normal noise for any number of proposals.
            steps: Steps, evenly long; the head's by default.
            noise: Factor on the standard deviations of the start points.

        Returns:
            (B, P, 8, 4) plans in delta space.

        Raises:
            PriorError: If there is no mixture to start from.
            ValueError: If there are fewer steps than 1.
        """
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"MeanFlowHead: sampling needs at least one step, got {steps}")
        point = self.start_points(draws, noise)
        for step in range(steps):
            end, start = 1 - step / steps, 1 - (step + 1) / steps
            times = numbers_on(point.device, (start, end), point.dtype)[None]
            point = point - (end - start) * self.denoiser(point, times, context)
        return point

    def propose(
        self, tokens: SceneTokens, draws: Tensor, guidance: float, noise: float, steps: int
    ) -> Tensor:
        """Plans (B, P, 8, 3) for mining negatives, not reconstructed; as :meth:`sample`, no ``guidance``."""
        context = self.denoiser.prepare(self.context(tokens))
        return self.decode(self.sample(context, draws, steps, noise))

    def training_output(
        self,
        tokens: SceneTokens,
        samples: Sequence[PlanSample],
        draws: MeanFlowDraws | None = None,
        start: Tensor | None = None,
    ) -> PlanOutput:
        """Reconstructed plans of sampled proposals, and mean velocities at noisy expert plans, one each.

        Args:
            tokens: Scene tokens.
            samples: Samples with expert plans.
            draws: Random numbers of the mean flow; by default each sample's own (:class:`SceneRandom`).
            start: (B, P, 8, 4) standard-normal noise of the proposals; likewise.

        Returns:
            ``extras`` hold ``velocity`` and ``velocity_target`` (B, 8, 4), and ``proposals`` (B, P, 8, 4) in
            delta space.
        """
        context = self.context(tokens)
        data = self.expert(samples, context)
        random = SceneRandom(samples, len(data), data.device)
        if draws is None:
            draws = MeanFlowDraws.sample(random, (self.mixture.size, NUM_POSES, self.pose_dim))
        if start is None:
            start = random.normal(self.num_proposals, NUM_POSES, self.pose_dim)
        caches = self.denoiser.prepare(context)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.proposal_gradient):
            proposals = self.sample(caches, start)
        output = self._reconstruct(tokens, proposals)
        noise = self._expert_noise(samples, draws.noise)
        output.extras |= self._velocity(context, data, noise, draws)
        return output

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_flow``, weighted L1 of velocities, and ``loss_trajectory`` of the reconstructed plan."""
        extras = output.extras
        expert = self.expert(samples, output.encoded)
        return {
            "loss_flow": self.flow_weight * F.l1_loss(extras["velocity"], extras["velocity_target"]),
            "loss_trajectory": self.arm_weight * F.l1_loss(output.encoded, expert),
        }

    def modes(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor | None:
        """All proposals (B, P, 8, 4) in delta space, if they carry a gradient."""
        return output.extras["proposals"] if self.proposal_gradient else None

    def expert_components(self, expert: Tensor) -> Tensor:
        """Index (B,) of the cluster whose plan is nearest to each expert plan (B, 8, 3)."""
        self.mixture.require()
        difference = expert[:, None] - self.mixture.plans
        if self.cluster_distance == "wrapped":
            heading = torch.atan2(difference[..., 2:].sin(), difference[..., 2:].cos())
            difference = torch.cat([difference[..., :2], heading], dim=-1)
        return torch.linalg.vector_norm(difference, dim=-1).mean(dim=-1).argmin(dim=1)

    def _reconstruct(self, tokens: SceneTokens, proposals: Tensor) -> PlanOutput:
        encoded = self.reconstruction(proposals, tokens.queries[:, 1:])
        return PlanOutput(
            trajectory=self.decode(encoded),
            encoded=encoded,
            proposals=self.decode(proposals),
            extras={"proposals": proposals},
        )

    def _expert_noise(self, samples: Sequence[PlanSample], draws: Tensor) -> Tensor:
        """Noise (B, 8, 4) of the component that each expert belongs to; draws (B, K, 8, 4)."""
        noise = self.start_points(draws)
        expert = to_device(stack_field(samples, "gt", "trajectory"), noise.device, torch.float32)
        return noise[torch.arange(len(noise), device=noise.device), self.expert_components(expert)]

    def _velocity(
        self, context: Tensor, data: Tensor, noise: Tensor, draws: MeanFlowDraws
    ) -> dict[str, Tensor]:
        """Predicted and true velocity on the straight path from the expert plan (t = 0) to noise (t = 1)."""
        times = interval(draws.times, draws.instant, self.time_mean, self.time_std, self.instant_probability)
        end = times[:, 1, None, None]
        velocity = noise - data
        # Not under autocast: derivatives of half-precision numbers are mostly rounding. (A recipe's tf32 acts
        # here, too.)
        with torch.autocast(data.device.type, enabled=False):
            caches = self.denoiser.prepare(context.float())
            predicted = mean_velocity(
                lambda point, pair: self.denoiser(point[:, None], pair, caches)[:, 0],
                (1 - end) * data + end * noise,
                times,
                velocity,
            )
        return {"velocity": predicted, "velocity_target": velocity}
