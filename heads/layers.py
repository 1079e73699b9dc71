"""Layers that heads share and exported planners speed up: self-attention in parts, fixed convolutions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.structures.held import HoldsConstants


class EncoderLayer(HoldsConstants, nn.Module):
    """Post-norm layer with ReLU and without dropout: ``nn.TransformerEncoderLayer``, and its weights.

    Where no gradients are wanted, that one takes a path of torch that holds all attention weights in
    memory: for the 4096 plans of a vocabulary half a gigabyte more, and twice the time. This one uses the
    fused kernel, and can be run in parts.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layer.
    """

    def __init__(self, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.linear1 = nn.Linear(dim, ffn_dim)
        self.activation = nn.ReLU()
        self.linear2 = nn.Linear(ffn_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.held: nn.Linear | None = None

    def hold(self) -> None:
        """Make a layer of the weights that project queries, keys and values."""
        attention = self.self_attn
        self.held = nn.Linear(attention.embed_dim, 3 * attention.embed_dim, device="meta")
        self.held.weight, self.held.bias = attention.in_proj_weight, attention.in_proj_bias

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (..., N, d) -> (..., N, d)."""
        return self.finish(x, F.scaled_dot_product_attention(*self.project(x)))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (..., H, N, d / H) of tokens (..., N, d)."""
        attention = self.self_attn
        if self.held is None:
            projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        else:
            projected = self.held(x)
        query, key, value = (
            part.unflatten(-1, (attention.num_heads, -1)).transpose(-3, -2)
            for part in projected.chunk(3, dim=-1)
        )
        return query, key, value

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer after its attention, whose heads give ``attended`` (..., H, N, d / H)."""
        x = self.norm1(x + self.self_attn.out_proj(attended.transpose(-3, -2).flatten(-2)))
        normed: Tensor = self.norm2(x + self.linear2(self.activation(self.linear1(x))))
        return normed


class RectifiedConv2d(nn.Conv2d):
    """3x3 convolution of fixed weights; then a sum, if there is something to add, and a ReLU.

    Args:
        weight: (K, C, 3, 3).
        bias: (K,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], 3, padding=1, device="meta")
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and (B, K, H, W) to add -> (B, K, H, W)."""
        x = super().forward(x)
        return F.relu(x if other is None else x + other)
