"""Features of candidate plans that know of each other and of the ego status (MODELS, section 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from beyonddrive.heads.layers import EncoderLayer
from beyonddrive.structures.plan import NUM_POSES


class PlanEncoder(nn.Module):
    """Plans and a status token -> one feature per plan.

    Args:
        dim: Channels.
        hidden: Width of the embedding's hidden layer.
        num_layers: Encoder layers, in which the plans of a scene attend to each other.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
    """

    def __init__(
        self, dim: int = 256, hidden: int = 128, num_layers: int = 2, num_heads: int = 8, ffn_dim: int = 512
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(NUM_POSES * 3, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.layers = nn.ModuleList(EncoderLayer(dim, num_heads, ffn_dim) for _ in range(num_layers))
        self.fuse = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def mix(self, plans: Tensor) -> Tensor:
        """Plans (B, A, 8, 3) [m, rad] -> (B, A, d) features that know of each other."""
        x = self.embed(plans.flatten(-2))
        for layer in self.layers:
            x = layer(x)
        return x

    def with_status(self, mixed: Tensor, status: Tensor) -> Tensor:
        """Features (B or 1, A, d) and status tokens (B, d) -> (B, A, d)."""
        mixed = mixed.expand(status.shape[0], -1, -1)
        fused: Tensor = self.fuse(torch.cat([status[:, None].expand_as(mixed), mixed], dim=-1))
        return fused

    def forward(self, plans: Tensor, status: Tensor) -> Tensor:
        """Plans (B or 1, A, 8, 3) and status tokens (B, d) -> (B, A, d)."""
        return self.with_status(self.mix(plans), status)
