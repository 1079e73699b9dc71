"""A head that judges thousands of fixed plans and takes the best: see plugins/hydra_mdp/README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.heads.base import TrajectoryHead
from beyonddrive.heads.layers import EncoderLayer
from beyonddrive.heads.plan_vocabulary import PlanVocabulary
from beyonddrive.losses.imitation import wrapped_difference
from beyonddrive.plugins.hydra_mdp.losses import VocabularyLoss
from beyonddrive.registry import MODELS
from beyonddrive.structures.held import HoldsConstants
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import to_device

METRICS = SCORE_COLUMNS[:6]
"""Sub-scores that are predicted: NC, DAC, EP, TTC, C, DDC."""
SELECTION = {"imitation": 0.05, "NC": 0.5, "DAC": 0.5, "DDC": 0.5, "weighted": 1.0}
"""Weights of the logarithms in the final score; ``weighted`` is that of the weighted sub-scores."""
WEIGHTED = {"EP": 5.0, "TTC": 5.0, "C": 2.0}
"""Weights of the sub-scores that the PDM score adds up."""
EXTENT = 32.0
"""Metres that an embedded coordinate of 1 stands for."""


class ReadingLayer(nn.Module):
    """Post-norm layer in which tokens read a memory, but not each other: cost is linear in their number.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layer.
    """

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"ReadingLayer: {num_heads} heads do not divide {dim} channels")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.ReLU(), nn.Linear(ffn_dim, dim))
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Tokens (B or 1, V, d) and memory (B, N, d) -> (B, V, d)."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query(x), *self.key_value(memory).chunk(2, dim=-1))
        )
        query = query.expand(memory.shape[0], -1, -1, -1)
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)
        x = self.norm1(x + self.proj(read))
        normed: Tensor = self.norm2(x + self.ffn(x))
        return normed


@MODELS.register_module()
class VocabularyHead(HoldsConstants, TrajectoryHead):
    """Plans of a vocabulary read the scene, and are judged by an imitation head and one head per sub-score.

    The plan is the one with the highest final score: a weighted sum of the logarithms of the imitation
    probability, of NC, DAC and DDC, and of ``5 EP + 5 TTC + 2 C``.

    Args:
        size: Plans V in the vocabulary.
        vocabulary: File with them, made by ``beyonddrive build-vocabulary``.
        in_channels: Channels d of tokens.
        mixing_layers: Encoder layers in which the plans see each other, before they see the scene; the same
            for every scene, and computed once per batch.
        num_layers: Layers in which they read the scene.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
        hidden: Width of the hidden layers of the embedding and of every head.
        selection: Weights of the final score that replace those of :data:`SELECTION`.
        num_proposals: Plans that are returned with their scores, best first.
        loss: Settings of the :class:`VocabularyLoss`.

    Raises:
        ValueError: If a weight is unknown or negative, or there are too few plans to propose.
    """

    def __init__(
        self,
        size: int = 4096,
        vocabulary: str | Path | None = None,
        in_channels: int = 256,
        mixing_layers: int = 1,
        num_layers: int = 2,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        hidden: int = 256,
        selection: Mapping[str, float] | None = None,
        num_proposals: int = 64,
        loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__("absolute")
        given = dict(selection or {})
        wrong = [key for key, weight in given.items() if key not in SELECTION or not weight >= 0]
        if wrong:
            raise ValueError(
                f"VocabularyHead: selection: {wrong[0]}={given[wrong[0]]!r} is no weight; give numbers that "
                f"are not negative for {list(SELECTION)}"
            )
        if not 1 <= num_proposals <= size:
            raise ValueError(f"VocabularyHead: num_proposals must be 1 to {size}, got {num_proposals}")
        self.selection = {**SELECTION, **given}
        self.num_proposals = num_proposals
        self.vocabulary = PlanVocabulary(size, vocabulary, "VocabularyHead")
        self.held: Tensor | None
        self.register_buffer("held", None, persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(NUM_POSES * 4, hidden), nn.ReLU(), nn.Linear(hidden, in_channels)
        )
        self.mixing = nn.ModuleList(
            EncoderLayer(in_channels, num_heads, ffn_dim) for _ in range(mixing_layers)
        )
        self.layers = nn.ModuleList(ReadingLayer(in_channels, num_heads, ffn_dim) for _ in range(num_layers))
        self.imitation = _judge(in_channels, hidden)
        self.metrics = nn.ModuleDict({name: _judge(in_channels, hidden) for name in METRICS})
        self.criterion: VocabularyLoss = MODELS.build({"type": "VocabularyLoss", **(loss or {})})
        self.attraction_weight = self.criterion.expectation_weight

    def forward(self, tokens: SceneTokens) -> PlanOutput:
        """The best plan (B, 8, 3), and the ``num_proposals`` best with their scores."""
        plans = self.vocabulary()
        imitation, metrics = self.judge(tokens)
        scores, chosen = self.final_score(imitation, metrics).topk(self.num_proposals, dim=1)
        proposals = plans[chosen]
        extras = {"imitation_logits": imitation, "metric_logits": metrics}
        return PlanOutput(proposals[:, 0], proposals[:, 0], proposals, scores, extras)

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """Terms of :class:`VocabularyLoss`.

        Raises:
            VocabularyError: If the scores of a sample are of another vocabulary.
            KeyError: If a sample has no ``vocabulary_scores``.
        """
        device = output.trajectory.device
        scores = to_device(stack_field(samples, "gt", "vocabulary_scores"), device)
        self.vocabulary.check_scores(scores, to_device(stack_field(samples, "gt", "vocabulary_id"), device))
        losses: dict[str, Tensor] = self.criterion(
            self.vocabulary(),
            self.supervised(output, samples),
            output.extras["imitation_logits"],
            output.extras["metric_logits"],
            self.expert(samples, output.trajectory),
            scores,
        )
        return losses

    def supervised(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor:
        """The plan (B, 8, 3) that the imitation head expects: the mean of the vocabulary under its softmax.

        Headings are averaged on the circle. The plans themselves are fixed; this is where a gradient on a
        plan becomes one on the scores.
        """
        probability = output.extras["imitation_logits"].float().softmax(dim=-1)
        plans = self.vocabulary()
        circle = torch.cat([plans[..., :2], plans[..., 2:].sin(), plans[..., 2:].cos()], dim=-1)
        # Not under autocast: a mean of plans in bfloat16 is off by decimetres. (Where a recipe sets tf32 this
        # product is one, too: it is off by a centimetre or two.)
        with torch.autocast(plans.device.type, enabled=False):
            mean = (probability @ circle.flatten(1)).unflatten(-1, (NUM_POSES, 4))
        return torch.cat([mean[..., :2], torch.atan2(mean[..., 2:3], mean[..., 3:])], dim=-1)

    def difference(self, plans: Tensor, others: Tensor) -> Tensor:
        """``plans - others`` (..., 8, 3), headings within half a turn, as the loss takes it."""
        return wrapped_difference(plans, others)

    def judge(self, tokens: SceneTokens) -> tuple[Tensor, Tensor]:
        """Imitation logits (B, V) and logits (B, V, 6) of the sub-scores of :data:`METRICS`."""
        memory = tokens.require("memory", "VocabularyHead")
        x = self._features() if self.held is None else self.held
        for layer in self.layers:
            x = layer(x, memory)
        x = x + tokens.queries[:, :1]
        metrics = torch.cat([self.metrics[name](x) for name in METRICS], dim=-1)
        return self.imitation(x)[..., 0], metrics

    def hold(self) -> None:
        """Keep the features of the plans, which no scene changes."""
        self.held = self._features().detach()

    def _features(self) -> Tensor:
        """Features (1, V, d) of the plans, which know of each other."""
        plans = self.vocabulary()
        heading = plans[..., 2:]
        poses = torch.cat([plans[..., :2] / EXTENT, heading.sin(), heading.cos()], dim=-1)
        x: Tensor = self.embed(poses.flatten(1))[None]
        for layer in self.mixing:
            x = layer(x)
        return x

    def final_score(self, imitation: Tensor, metrics: Tensor) -> Tensor:
        """Final scores (B, V) of imitation logits (B, V) and logits (B, V, 6)."""
        logits = dict(zip(METRICS, metrics.float().unbind(dim=-1), strict=True))
        total = sum(weight * logits[name].sigmoid() for name, weight in WEIGHTED.items())
        assert isinstance(total, Tensor)
        score = self.selection["imitation"] * imitation.float().log_softmax(dim=-1)
        for name in ("NC", "DAC", "DDC"):
            score = score + self.selection[name] * F.logsigmoid(logits[name])
        # (A logit of -100 or so makes the sum 0 and its logarithm minus infinity.)
        return score + self.selection["weighted"] * total.clamp(min=torch.finfo(total.dtype).tiny).log()


def _judge(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
