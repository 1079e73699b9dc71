"""Auxiliary detection of the agents around the ego (MODELS, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.registry import MODELS
from beyonddrive.structures.geometry import AGENT_EXTENT, Limits
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import SceneTokens, check_channels
from beyonddrive.structures.transfers import to_device

AGENT_RANGE = 32.0
"""Half of the side of the square in which agents are predicted [m]."""


@MODELS.register_module()
class AgentHead(nn.Module):
    """Agent queries -> boxes and existence logits.

    With both loss weights 0 (as in LTF* and LTFv7) the head stays part of the checkpoint and of the outputs,
    but its parameters do not require gradients, so that distributed training finds no unused ones.

    Args:
        in_channels: Channels of a query.
        hidden: Width of the hidden layer.
        num_agents: Agent queries, taken after the trajectory query.
        loss: :class:`HungarianAgentLoss` with its defaults.
    """

    def __init__(
        self,
        in_channels: int = 256,
        hidden: int = 1024,
        num_agents: int = 30,
        loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.num_agents = in_channels, num_agents
        self.states = nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, 5))
        self.label = nn.Linear(in_channels, 1)
        self.criterion = MODELS.build(loss or {"type": "HungarianAgentLoss"})
        if not self.criterion.active:
            self.requires_grad_(False)

    @property
    def geometry_taken(self) -> Limits:
        """Agents farther away than it can place them are no targets."""
        return {AGENT_EXTENT: (0.0, AGENT_RANGE)} if self.criterion.active else {}

    @property
    def trains_by_forward(self) -> bool:
        """Whether training calls ``forward``."""
        return bool(self.criterion.active)

    def forward(self, tokens: SceneTokens) -> dict[str, Tensor]:
        """``agent_states`` (B, N, 5) x, y, heading, length, width; ``agent_labels`` (B, N) logits."""
        queries = self.queries(tokens)
        raw = self.states(queries)
        states = torch.cat(
            [AGENT_RANGE * raw[..., :2].tanh(), torch.pi * raw[..., 2:3].tanh(), raw[..., 3:]], dim=-1
        )
        return {"agent_states": states, "agent_labels": self.label(queries)[..., 0]}

    def queries(self, tokens: SceneTokens) -> Tensor:
        """Agent queries (B, N, d).

        Raises:
            ValueError: If the decoder gives fewer, or with other channels.
        """
        queries = tokens.queries[:, 1 : 1 + self.num_agents]
        if queries.shape[1] != self.num_agents:
            raise ValueError(
                f"AgentHead: needs {self.num_agents} agent queries after the trajectory query, the decoder "
                f"gives {tokens.queries.shape[1]} queries in all: set num_queries to {self.num_agents + 1}"
            )
        check_channels(type(self).__name__, self.in_channels, queries.shape[-1], "queries")
        return queries

    def loss(self, tokens: SceneTokens, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_agent_class`` and ``loss_agent_box``; nothing if both weights are 0."""
        if not self.criterion.active:
            return {}
        output = self(tokens)
        device = tokens.queries.device
        return self.criterion(
            output["agent_states"],
            output["agent_labels"],
            to_device(stack_field(samples, "gt", "agent_states"), device),
            to_device(stack_field(samples, "gt", "agent_labels"), device),
        )


@MODELS.register_module()
class DecodedAgentHead(AgentHead):
    """Agent queries of its own, which read the bird's-eye-view tokens; the rest as :class:`AgentHead`.

    Args:
        in_channels: Channels of tokens and queries.
        num_agents: Agent queries.
        num_layers: Decoder layers (post-norm, ReLU).
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
        kwargs: As for :class:`AgentHead`.
    """

    def __init__(
        self,
        in_channels: int = 256,
        num_agents: int = 30,
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels=in_channels, num_agents=num_agents, **kwargs)
        self.query_embedding = nn.Embedding(num_agents, in_channels)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(in_channels, num_heads, ffn_dim, 0.0, batch_first=True)
            for _ in range(num_layers)
        )
        if not self.criterion.active:
            self.requires_grad_(False)

    def queries(self, tokens: SceneTokens) -> Tensor:
        """Queries (B, N, d) that have read ``tokens.memory``."""
        memory = tokens.require("memory", "DecodedAgentHead")
        check_channels(type(self).__name__, self.in_channels, memory.shape[-1], "tokens")
        queries = self.query_embedding.weight.expand(memory.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory)
        return queries
