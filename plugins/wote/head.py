"""WoTE's trajectory head: refine anchors, imagine the scene after each, take the best (MODELS, section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.heads.base import TrajectoryHead, as_poses, bound_heading
from beyonddrive.heads.plan_vocabulary import PlanVocabulary
from beyonddrive.losses.imitation import wrapped_difference
from beyonddrive.plugins.wote.losses import WorldModelLoss
from beyonddrive.plugins.wote.plan_encoder import PlanEncoder
from beyonddrive.plugins.wote.rewards import RewardNet
from beyonddrive.plugins.wote.world_model import WorldModel, splat_weights
from beyonddrive.registry import MODELS
from beyonddrive.structures.held import HoldsConstants
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.scene_random import SceneRandom
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import to_device

METRICS = ("NC", "DAC", "EP", "TTC", "C")
"""Sub-scores that the metric rewards stand for, in the order of the heads."""
PLANS_AT_ONCE = 32
"""Plans computed together at test time: their activations stay in the processor's cache."""


@MODELS.register_module()
class WorldModelHead(HoldsConstants, TrajectoryHead):
    """Anchors + offsets, each rewarded after a look into the future that it leads to.

    In training the rewards are those of the anchors themselves, whose sub-scores are known; at test time
    those of the refined anchors. The reward is a weighted sum of logarithms: of the imitation probability, of
    NC, of DAC, and of ``5 TTC + 2 C + 5 EP``.

    Args:
        num_anchors: Anchors A.
        anchors: File with them, made by ``beyonddrive build-vocabulary``.
        dim: Channels of tokens.
        bev_size: Rows and columns of the bird's-eye-view tokens.
        num_heads: Attention heads everywhere.
        encoder: Settings of the :class:`PlanEncoder`.
        offset_layers: Decoder layers between the anchors' features and the map.
        offset_ffn_dim: Width of their feed-forward layers.
        offset_hidden: Width of the hidden layer that gives the offsets.
        world_model: Settings of the :class:`WorldModel`.
        reward_hidden: Width of the hidden layer of every reward.
        imitation_weight: Weight of the logarithm of the imitation reward in the final one.
        loss: Settings of the :class:`WorldModelLoss`.
    """

    def __init__(
        self,
        num_anchors: int = 256,
        anchors: str | Path | None = None,
        dim: int = 256,
        bev_size: tuple[int, int] = (8, 8),
        num_heads: int = 8,
        encoder: dict[str, Any] | None = None,
        offset_layers: int = 3,
        offset_ffn_dim: int = 1024,
        offset_hidden: int = 1024,
        world_model: dict[str, Any] | None = None,
        reward_hidden: int = 128,
        imitation_weight: float = 0.1,
        loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__("absolute")
        self.anchors = PlanVocabulary(num_anchors, anchors, "WorldModelHead")
        self.held: Tensor | None
        self.register_buffer("held", None, persistent=False)
        self.encoder = PlanEncoder(dim, **{"num_heads": num_heads, **(encoder or {})})
        self.offset_decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, num_heads, offset_ffn_dim, 0.0, batch_first=True)
            for _ in range(offset_layers)
        )
        self.offset = nn.Sequential(
            nn.Linear(dim, offset_hidden), nn.ReLU(), nn.Linear(offset_hidden, NUM_POSES * 3)
        )
        self.offset_score = nn.Sequential(
            nn.Linear(dim, reward_hidden), nn.ReLU(), nn.Linear(reward_hidden, 1)
        )
        self.world_model = WorldModel(dim, bev_size, **{"num_heads": num_heads, **(world_model or {})})
        self.reward = RewardNet(dim, bev_size, len(METRICS), reward_hidden)
        self.imitation_weight = imitation_weight
        self.criterion: WorldModelLoss = MODELS.build({"type": "WorldModelLoss", **(loss or {})})
        self.attraction_weight = self.criterion.offset_weight

    def forward(self, tokens: SceneTokens) -> PlanOutput:
        """Plans of a batch: ``proposals`` (B, A, 8, 3), their ``scores`` (B, A), and the best of them."""
        status, anchors = tokens.queries[:, 0], self.anchors()
        bev = tokens.require("memory", "WorldModelHead")
        mixed = self.encoder.mix(anchors[None]) if self.held is None else self.held
        offsets, _ = self.offsets(self.encoder.with_status(mixed, status), bev)
        plans = anchors + offsets
        imitation, metrics, _ = self.rewards(self.encoder(plans, status), bev)
        scores = self.final_reward(imitation, metrics)
        best = scores.argmax(dim=1)
        trajectory = plans[torch.arange(plans.shape[0], device=plans.device), best]
        return PlanOutput(trajectory, trajectory, plans, scores, {"imitation_logits": imitation})

    def training_output(
        self, tokens: SceneTokens, samples: Sequence[PlanSample], sampled: Tensor | None = None
    ) -> PlanOutput:
        """Offsets and rewards of the anchors.

        Args:
            tokens: The scene.
            samples: Read for their random numbers only (:class:`SceneRandom`).
            sampled: (B,) anchors whose future is supervised too; drawn by default.

        Returns:
            ``trajectory`` is the plan of highest reward; ``extras`` holds ``offset_logits`` (B, A),
            ``imitation_logits`` (B, A), ``metric_logits`` (B, 5, A), ``sampled`` (B,) and ``future_memory``
            (B, N, d), the map after the sampled anchor.
        """
        status, anchors = tokens.queries[:, 0], self.anchors()
        bev = tokens.require("memory", "WorldModelHead")
        features = self.encoder(anchors[None], status)
        offsets, offset_logits = self.offsets(features, bev)
        if sampled is None:
            sampled = SceneRandom(samples, len(bev), bev.device).integers(len(anchors))
        imitation, metrics, future = self.rewards(features, bev, sampled)
        assert future is not None
        plans = anchors + offsets
        rows = torch.arange(plans.shape[0], device=plans.device)
        scores = self.final_reward(imitation, metrics)
        trajectory = plans[rows, scores.argmax(dim=1)]
        extras = {
            "offset_logits": offset_logits,
            "imitation_logits": imitation,
            "metric_logits": metrics,
            "sampled": sampled,
            "future_memory": future,
        }
        return PlanOutput(trajectory, trajectory, plans, scores, extras)

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """Terms of offsets and rewards; see :class:`WorldModelLoss`.

        Raises:
            VocabularyError: If the scores of a sample are of other anchors.
            KeyError: If a sample has no ``vocabulary_scores``.
        """
        assert output.proposals is not None
        device = output.proposals.device
        scores = to_device(stack_field(samples, "gt", "vocabulary_scores"), device)
        self.anchors.check_scores(scores, to_device(stack_field(samples, "gt", "vocabulary_id"), device))
        expert = self.expert(samples, output.proposals)
        losses: dict[str, Tensor] = self.criterion(
            self.anchors(), output.proposals, output.extras, expert, sub_scores(scores)
        )
        return losses

    def hold(self) -> None:
        """Keep the features of the anchors, which no scene changes."""
        self.held = self.encoder.mix(self.anchors()[None]).detach()

    def supervised(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor:
        """The refined anchor (B, 8, 3) that the offset loss pulls: the one nearest to the expert."""
        assert output.proposals is not None
        nearest = self.criterion.nearest(self.anchors(), self.expert(samples, output.proposals))
        return output.proposals[torch.arange(len(nearest), device=nearest.device), nearest]

    def modes(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor | None:
        """All refined anchors (B, A, 8, 3)."""
        return output.proposals

    def difference(self, plans: Tensor, others: Tensor) -> Tensor:
        """``plans - others`` (..., 8, 3), headings within half a turn, as the loss takes it."""
        return wrapped_difference(plans, others)

    # ------------------------------------------------------------------ parts
    def offsets(self, features: Tensor, bev: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, A, d) and map -> offsets (B, A, 8, 3) and their imitation logits (B, A)."""
        for layer in self.offset_decoder:
            features = layer(features, bev)
        return bound_heading(as_poses(self.offset(features), 3)), self.offset_score(features)[..., 0]

    def rewards(
        self, ego: Tensor, bev: Tensor, sampled: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Imitation logits (B, A) and metric logits (B, 5, A) of plans with ego features (B, A, d).

        Also the map (B, N, d) after the plan ``sampled`` (B,) of every scene, if asked for.
        """
        prefix, now = self.world_model.prepare(bev), self.reward.prepare(bev)
        # The batch norms of training need all plans at once.
        step = ego.shape[1] if self.training or sampled is not None else PLANS_AT_ONCE
        end = splat_weights(self.anchors()[:, -1, :2], self.world_model.bev_size).to(ego.dtype)
        parts = []
        for start in range(0, ego.shape[1], step):
            chunk = ego[:, start : start + step]
            future_ego, future = self.world_model(bev, chunk, prefix)
            future = future + end[start : start + step, :, None] * future_ego[:, :, None]
            parts.append(self.reward(now, future, chunk, future_ego))
        chosen = None if sampled is None else future[torch.arange(bev.shape[0], device=bev.device), sampled]
        imitation, metrics = self.reward.rewards(torch.cat(parts, dim=1))
        return imitation, metrics, chosen

    def final_reward(self, imitation: Tensor, metrics: Tensor) -> Tensor:
        """Imitation logits (B, A) and metric logits (B, 5, A) -> final rewards (B, A)."""
        logs = nn.functional.logsigmoid(metrics.float())
        nc, dac, _, _, _ = logs.unbind(dim=1)
        _, _, progress, ttc, comfort = metrics.float().sigmoid().unbind(dim=1)
        total = 5 * ttc + 2 * comfort + 5 * progress
        # (Logits of -100 or so make the sum 0 and its logarithm minus infinity.)
        weighted = total.clamp(min=torch.finfo(total.dtype).tiny).log()
        imitated = imitation.float().log_softmax(dim=1)
        return self.imitation_weight * imitated + 0.5 * nc + 0.5 * dac + weighted


def sub_scores(vocabulary_scores: Tensor) -> Tensor:
    """Scores (B, A, 6) in the order NC, DAC, EP, TTC, C, DDC -> (B, 5, A) in the order of :data:`METRICS`."""
    return vocabulary_scores[..., : len(METRICS)].transpose(1, 2).float()
