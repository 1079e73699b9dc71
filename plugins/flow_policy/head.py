"""Flow matching on plans: FlowPolicy's head (METHOD, section 1; MODELS, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from beyonddrive.heads.base import TrajectoryHead, draw_noise
from beyonddrive.heads.denoiser import PlanDenoiser, check_time_law
from beyonddrive.plugins.flow_policy.losses import FlowDraws, interpolate, logit_normal_time, velocity_to
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SceneRandom
from beyonddrive.structures.tokens import PlanOutput, SceneTokens

Prediction = Literal["x", "v"]
HeadingMean = Literal["arithmetic", "circular"]


@MODELS.register_module()
class FlowHead(TrajectoryHead):
    """Samples plans in delta space by integrating a learned velocity from noise to data.

    The context are the queries after the trajectory query. All steps and branches of one call share the
    keys and values of the context; the unconditional branch sees a context of zeros.

    Args:
        denoiser: Arguments of :class:`PlanDenoiser`.
        prediction: ``'x'``: the network predicts the clean plan; ``'v'``: the velocity.
        flow_weight: Weight of the L1 distance between velocities.
        noise: Standard deviation of the noise in training, and by default in sampling.
        time_mean: Mean of the logit of the training time.
        time_std: Its standard deviation.
        drop_probability: Share of training samples whose context is replaced by zeros.
        num_proposals: Plans sampled at test time.
        steps: Euler steps at test time.
        guidance: Classifier-free guidance scale at test time.
        heading_mean: How headings are averaged over proposals into the plan: the published planner takes
            the arithmetic mean, which is wrong near +-pi; ``'circular'`` is right everywhere.
        seed: Seed of the noise at test time.
        statistics: Arguments of :class:`DeltaSpace`; those of navtrain by default.

    Raises:
        ValueError: If a setting is out of range.
    """

    knows_guidance: ClassVar[bool] = True
    """Whether ``guidance`` of :meth:`propose` does anything."""

    def __init__(
        self,
        denoiser: dict[str, Any] | None = None,
        prediction: Prediction = "x",
        flow_weight: float = 50.0,
        noise: float = 0.2,
        time_mean: float = -0.8,
        time_std: float = 0.8,
        drop_probability: float = 0.1,
        num_proposals: int = 1,
        steps: int = 5,
        guidance: float = 1.0,
        heading_mean: HeadingMean = "arithmetic",
        seed: int = 0,
        statistics: dict[str, Any] | None = None,
    ) -> None:
        super().__init__("delta", statistics)
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"FlowHead: prediction must be one of {get_args(Prediction)}, got {prediction!r}"
            )
        if heading_mean not in get_args(HeadingMean):
            raise ValueError(
                f"FlowHead: heading_mean must be one of {get_args(HeadingMean)}, got {heading_mean!r}"
            )
        if num_proposals < 1 or steps < 1 or not abs(guidance) < float("inf"):
            raise ValueError(
                f"FlowHead: num_proposals and steps must be at least 1 and guidance finite, got "
                f"{num_proposals}, {steps} and {guidance}"
            )
        if not (flow_weight > 0 and 0 < noise < float("inf")):
            raise ValueError(
                f"FlowHead: flow_weight and noise must be positive, got {flow_weight} and {noise}"
            )
        check_time_law("FlowHead", time_mean, time_std)
        if not 0 <= drop_probability <= 1:
            raise ValueError(f"FlowHead: drop_probability must be in [0, 1], got {drop_probability}")
        self.denoiser = PlanDenoiser(**{"pose_dim": self.pose_dim, **(denoiser or {})})
        self.prediction = prediction
        self.attraction_weight = self.flow_weight = flow_weight
        self.noise = noise
        self.time_mean, self.time_std = time_mean, time_std
        self.drop_probability = drop_probability
        self.num_proposals, self.steps, self.guidance = num_proposals, steps, guidance
        self.heading_mean = heading_mean
        self.seed = seed

    def forward(self, tokens: SceneTokens, draws: Tensor | None = None) -> PlanOutput:
        """Sample ``num_proposals`` plans per scene and average them.

        Args:
            tokens: Scene tokens.
            draws: (B, num_proposals, 8, 4) standard-normal start points. By default every scene gets the
                same ones, made from ``seed``, so that a plan depends on nothing but its scene.
        """
        context = self.context(tokens)
        if draws is None:
            draws = self.draw(1, self.num_proposals, torch.Generator().manual_seed(self.seed))
            draws = draws.to(context.device).expand(context.shape[0], -1, -1, -1)
        encoded = self.sample(context, draws)
        proposals = self.decode(encoded)
        trajectory = proposals.mean(dim=1)
        if self.heading_mean == "circular":
            heading = torch.atan2(proposals[..., 2].sin().mean(dim=1), proposals[..., 2].cos().mean(dim=1))
            trajectory = torch.cat([trajectory[..., :2], heading[..., None]], dim=-1)
        return PlanOutput(trajectory=trajectory, encoded=self.encode(trajectory), proposals=proposals)

    def context(self, tokens: SceneTokens) -> Tensor:
        """The queries (B, N, d) that condition the flow."""
        return tokens.queries[:, 1:]

    def draw(self, batch: int, num_proposals: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard-normal start points (batch, num_proposals, 8, 4), on the generator's device or the CPU."""
        return draw_noise(batch, num_proposals, self.pose_dim, generator)

    def sample(
        self,
        context: Tensor,
        draws: Tensor,
        guidance: float | None = None,
        noise: float | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Integrate from noise to plans by uniform Euler steps.

        Args:
            context: (B, N, d) conditioning tokens.
            draws: (B, P, 8, 4) standard-normal start points.
            guidance: Classifier-free guidance scale s: ``v = v_u + s * (v_c - v_u)``; the head's by default.
            noise: Factor on ``draws``; the head's by default.
            steps: Euler steps; the head's by default.

        Returns:
            (B, P, 8, 4) plans in delta space.

        Raises:
            ValueError: If there are fewer steps than 1.
        """
        guidance = self.guidance if guidance is None else guidance
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"FlowHead: sampling needs at least one step, got {steps}")
        point = draws * (self.noise if noise is None else noise)
        conditional = self.denoiser.prepare(context)
        unconditional = self.denoiser.prepare(torch.zeros_like(context[:1]))
        for step in range(steps):
            time = torch.full((1,), step / steps, device=point.device, dtype=point.dtype)
            velocity = self.velocity(self.denoiser(point, time, conditional), point, time)
            if guidance != 1.0:
                free = self.velocity(self.denoiser(point, time, unconditional), point, time)
                velocity = free + guidance * (velocity - free)
            point = point + velocity / steps
        return point

    def propose(
        self, tokens: SceneTokens, draws: Tensor, guidance: float, noise: float, steps: int
    ) -> Tensor:
        """Plans (B, P, 8, 3) for mining negatives; as :meth:`sample`, published with 0.5, 0.4 and 5."""
        return self.decode(self.sample(self.context(tokens), draws, guidance, noise, steps))

    def velocity(self, predicted: Tensor, point: Tensor, time: Tensor) -> Tensor:
        """Velocity at ``point`` (B, ..., 8, 4) that the network's output stands for."""
        return velocity_to(predicted, point, time) if self.prediction == "x" else predicted

    def training_output(
        self, tokens: SceneTokens, samples: Sequence[PlanSample], draws: FlowDraws | None = None
    ) -> PlanOutput:
        """One noisy plan per sample, denoised.

        Args:
            tokens: Scene tokens.
            samples: Samples with expert plans.
            draws: The step's random numbers; by default each sample's own (:class:`SceneRandom`).

        Returns:
            ``encoded`` is the predicted clean plan; ``extras`` hold the predicted velocity and its target.
        """
        context = self.context(tokens)
        data = self.expert(samples, context)
        with_drop = self.training and self.drop_probability > 0
        if draws is None:
            random = SceneRandom(samples, len(data), data.device)
            draws = FlowDraws.sample(random, (NUM_POSES, self.pose_dim), with_drop)
        if draws.drop is not None and with_drop:
            context = torch.where((draws.drop < self.drop_probability)[:, None, None], 0.0, context)
        time = logit_normal_time(draws.time, self.time_mean, self.time_std)
        noise = self.noise * draws.noise
        point = interpolate(data, noise, time)
        predicted = self.denoiser(point[:, None], time, context)[:, 0]
        velocity = self.velocity(predicted, point, time)
        if self.prediction == "x":
            clean, target = predicted, velocity_to(data, point, time)
        else:
            clean, target = point + (1 - time)[:, None, None] * predicted, data - noise
        return PlanOutput(
            trajectory=self.decode(clean),
            encoded=clean,
            extras={"velocity": velocity, "velocity_target": target},
        )

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_flow``: weighted L1 between predicted and true velocity."""
        extras = output.extras
        return {"loss_flow": self.flow_weight * F.l1_loss(extras["velocity"], extras["velocity_target"])}
