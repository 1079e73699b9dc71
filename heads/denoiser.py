"""The vector field of the flow head: one token per plan that attends to the scene (MODELS, section 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.structures.plan import NUM_POSES

LONGEST_PERIOD = 10000.0
"""Base of the geometric series of frequencies in the time embedding."""


def sinusoidal_embedding(time: Tensor, dim: int) -> Tensor:
    """Embed times (...) as (..., dim): ``[sin(t f_j) | cos(t f_j)]``, f_j from 1 down to 1 / 10000.

    >>> sinusoidal_embedding(torch.tensor([0.0]), 4)
    tensor([[0., 0., 1., 1.]])
    """
    half = dim // 2
    exponent = torch.arange(half, device=time.device, dtype=torch.float32) * (-math.log(LONGEST_PERIOD))
    angle = time[..., None] * torch.exp(exponent / (half - 1))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Tokens (B, N, d) by attention head: (B, heads, N, d / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


@dataclass
class ContextCache:
    """Keys and values (B, heads, N, d / heads) of the context tokens: the same for all plans and times."""

    key: Tensor
    value: Tensor


def check_time_law(head: str, mean: float, std: float) -> None:
    """Refuse training times that nobody can draw: their logit is normal, with this mean and deviation.

    Raises:
        ValueError: With the name of the head.
    """
    if not (abs(mean) < float("inf") and 0 <= std < float("inf")):
        raise ValueError(f"{head}: time_mean must be finite and time_std not negative, got {mean} and {std}")


class PlanDenoiser(nn.Module):
    """(noisy plan, time, context) -> clean plan or velocity, whichever the head was trained for.

    A plan is one token, so self-attention in its decoder layer reduces to the value and output projections,
    and many plans of one scene can share the keys and values of that scene's context.

    Args:
        pose_dim: Numbers per pose.
        dim: Channels of tokens.
        num_context: Context tokens.
        num_layers: Decoder layers (post-norm, ReLU).
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
        dropout: Dropout probability.
    """

    def __init__(
        self,
        pose_dim: int = 4,
        dim: int = 256,
        num_context: int = 30,
        num_layers: int = 1,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % 2 or dim < 4:
            raise ValueError(f"PlanDenoiser: dim must be even and at least 4, got {dim}")
        self.pose_dim, self.dim, self.num_heads = pose_dim, dim, num_heads
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, num_context + 1, dim))
        self.pos_emb = nn.Parameter(torch.zeros(1, 1, dim))
        self.input_proj = nn.Linear(NUM_POSES * pose_dim, dim)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, num_heads, ffn_dim, dropout, batch_first=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.output_proj = nn.Linear(dim, NUM_POSES * pose_dim)

    def prepare(self, context: Tensor) -> list[ContextCache]:
        """Keys and values of the context (B, N, dim), one entry per layer.

        Raises:
            ValueError: If the network was built for another number of tokens or channels.
        """
        position = self.cond_pos_emb[:, 1:]
        if context.shape[1:] != position.shape[1:]:  # (a single token would go with any number)
            raise ValueError(
                f"{type(self).__name__}: was built for {position.shape[1]} context tokens of {self.dim} "
                f"channels (num_context, dim), and gets {context.shape[1]} of {context.shape[2]}: queries "
                f"after the first are decoder.num_queries - 1, their channels decoder.dim; make them agree"
            )
        memory = context + position
        return [ContextCache(*self._keys_and_values(layer, memory)) for layer in self._layers()]

    def forward(self, plans: Tensor, time: Tensor, context: Tensor | list[ContextCache]) -> Tensor:
        """Denoise.

        Args:
            plans: (B, P, 8, D) noisy plans, P per scene.
            time: (B,) or (1,) times in [0, 1], one per scene.
            context: (B, N, dim) context tokens, or the result of :meth:`prepare`; its batch may be 1.

        Returns:
            (B, P, 8, D).
        """
        caches = self.prepare(context) if isinstance(context, Tensor) else context
        token = self.embed_time(time)[:, None].to(plans.dtype) + self.cond_pos_emb[:, :1]
        x = self.input_proj(plans.flatten(-2)) + self.pos_emb  # (B, P, dim)
        for layer, cache in zip(self._layers(), caches, strict=True):
            x = self._layer(layer, x, token, cache)
        return self.output_proj(self.norm(x)).unflatten(-1, (NUM_POSES, self.pose_dim))

    def embed_time(self, time: Tensor) -> Tensor:
        """Embed the times of scenes (B, ...) as (B, dim)."""
        return sinusoidal_embedding(time, self.dim)

    def _layer(
        self, layer: nn.TransformerDecoderLayer, x: Tensor, token: Tensor, cache: ContextCache
    ) -> Tensor:
        attention = layer.self_attn
        _, _, weight = attention.in_proj_weight.chunk(3)
        _, _, bias = attention.in_proj_bias.chunk(3)
        # Softmax over a single token is 1: what is left of self-attention is value and output projection.
        x = layer.norm1(x + layer.dropout1(attention.out_proj(F.linear(x, weight, bias))))
        x = layer.norm2(x + layer.dropout2(self._cross_attention(layer, x, token, cache)))
        hidden = layer.dropout(F.relu(layer.linear1(x)))
        return layer.norm3(x + layer.dropout3(layer.linear2(hidden)))

    def _cross_attention(
        self, layer: nn.TransformerDecoderLayer, x: Tensor, token: Tensor, cache: ContextCache
    ) -> Tensor:
        attention = layer.multihead_attn
        key, value = self._keys_and_values(layer, token)
        batch = (x.shape[0], -1, -1, -1)
        key = torch.cat([key.expand(batch), cache.key.expand(batch)], dim=2)
        value = torch.cat([value.expand(batch), cache.value.expand(batch)], dim=2)
        weight, bias = attention.in_proj_weight[: self.dim], attention.in_proj_bias[: self.dim]
        query = split_heads(F.linear(x, weight, bias), self.num_heads)
        dropout = attention.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return attention.out_proj(x.transpose(1, 2).flatten(-2))

    def _keys_and_values(self, layer: nn.TransformerDecoderLayer, memory: Tensor) -> tuple[Tensor, Tensor]:
        attention = layer.multihead_attn
        weight, bias = attention.in_proj_weight[self.dim :], attention.in_proj_bias[self.dim :]
        key, value = F.linear(memory, weight, bias).chunk(2, dim=-1)
        return split_heads(key, self.num_heads), split_heads(value, self.num_heads)

    def _layers(self) -> Iterable[nn.TransformerDecoderLayer]:
        return cast("Iterable[nn.TransformerDecoderLayer]", self.layers)
