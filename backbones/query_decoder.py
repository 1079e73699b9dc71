"""Transformer decoder: learned queries read bird's-eye-view and status tokens (MODELS, section 3)."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from beyonddrive.backbones.transfuser import FusedFeatures
from beyonddrive.registry import MODELS
from beyonddrive.structures.tokens import SceneTokens

STATUS_DIM = 8
"""Ego status: driving command one-hot (4), velocity x y [m/s], acceleration x y [m/s^2]."""


@MODELS.register_module()
class QueryDecoder(BaseModule):
    """Fused maps + ego status -> :class:`SceneTokens`.

    Args:
        in_channels: Channels of the fused map.
        bev_size: Its rows and columns.
        dim: Channels of tokens and queries.
        num_queries: Queries; the first is the trajectory query.
        num_layers: Decoder layers (post-norm, ReLU).
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
        dropout: Dropout probability.

    Raises:
        ValueError: Without a query.
    """

    def __init__(
        self,
        in_channels: int = 512,
        bev_size: tuple[int, int] = (8, 8),
        dim: int = 256,
        num_queries: int = 31,
        num_layers: int = 3,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        if num_queries < 1:
            raise ValueError(f"QueryDecoder: num_queries must be at least 1, got {num_queries}")
        super().__init__()
        self.dim = dim
        self.num_queries = num_queries
        self.bev_size = tuple(bev_size)
        self.bev_proj = nn.Conv2d(in_channels, dim, 1)
        self.status_proj = nn.Linear(STATUS_DIM, dim)
        self.memory_embedding = nn.Embedding(bev_size[0] * bev_size[1] + 1, dim)
        self.query_embedding = nn.Embedding(num_queries, dim)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, num_heads, ffn_dim, dropout, batch_first=True)
            for _ in range(num_layers)
        )

    def forward(self, features: FusedFeatures, status: Tensor) -> SceneTokens:
        """Decode a batch.

        Args:
            features: Maps of the backbone; ``top_down`` and ``points`` are passed on to the heads.
            status: (B, 8) ego status.
        """
        bev = self.bev_proj(features.bev).flatten(2).transpose(1, 2)
        memory = torch.cat([bev, self.status_proj(status)[:, None]], dim=1) + self.memory_embedding.weight
        queries = self.query_embedding.weight.expand(status.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, memory)
        return SceneTokens(queries, status, memory, features.top_down, features.points)
