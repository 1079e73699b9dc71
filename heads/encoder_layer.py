"""Torch's encoder layer by the fused attention kernel, and in parts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def encode(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """Tokens (..., N, d) through a post-norm layer with ReLU and without dropout.

    The layer itself, where no gradients are wanted, takes a path of torch that holds all attention weights in
    memory: for the 4096 plans of a vocabulary half a gigabyte more, and twice the time.
    """
    query, key, value = project(layer, x)
    attended = F.scaled_dot_product_attention(query, key, value)
    return finish(layer, x, layer.self_attn.out_proj(attended.transpose(-3, -2).flatten(-2)))


def project(layer: nn.TransformerEncoderLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (..., H, N, d / H) of tokens (..., N, d)."""
    attention = layer.self_attn
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(-3, -2) for part in projected.chunk(3, dim=-1)
    )
    return query, key, value


def finish(layer: nn.TransformerEncoderLayer, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of the layer after its attention, whose output is ``attended``."""
    x = layer.norm1(x + attended)
    normed: Tensor = layer.norm2(x + layer.linear2(F.relu(layer.linear1(x))))
    return normed
