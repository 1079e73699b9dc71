"""Exchange of features between the camera and the bird's-eye-view branch (MODELS, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.structures.tokens import as_map

PUBLISHED_WEIGHT_STD = 0.02
"""Standard deviation of the initial weights of linear layers in the fusion transformers."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with separate projections.

    Args:
        dim: Channels.
        num_heads: Heads; must divide ``dim``.
        dropout: Probability on attention weights and after the output projection.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"SelfAttention: {num_heads} heads do not divide {dim} channels")
        self.num_heads = num_heads
        self.dropout = dropout
        self.key = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.proj_dropout(self.proj(x.transpose(1, 2).flatten(-2)))


class FusionBlock(nn.Module):
    """Pre-norm transformer block: ``x += attention(LN x); x += mlp(LN x)``."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(dim)
        self.ln2 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, num_heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_ratio * dim),
            nn.ReLU(),
            nn.Linear(mlp_ratio * dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class FusionTransformer(nn.Module):
    """Transformer over the pooled tokens of both branches, with learned positions.

    Args:
        dim: Channels of a token.
        num_tokens: Image plus bird's-eye-view tokens.
        num_layers: Blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the hidden layer over ``dim``.
        dropout: Probability of every dropout.
    """

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(1, num_tokens, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(FusionBlock(dim, num_heads, mlp_ratio, dropout) for _ in range(num_layers))
        )
        self.ln_f = nn.LayerNorm(dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=PUBLISHED_WEIGHT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, num_tokens, dim) -> (B, num_tokens, dim)."""
        return self.ln_f(self.blocks(self.dropout(tokens + self.pos_emb)))


class FusionStage(nn.Module):
    """One exchange: pool both maps to tokens, transform them together, add the result back to the maps.

    Args:
        image_channels: Channels of the image map.
        bev_channels: Channels of the bird's-eye-view map.
        image_anchors: Rows and columns the image map is pooled to.
        bev_anchors: The same for the bird's-eye-view map.
        num_layers: Blocks of the transformer.
        num_heads: Its attention heads.
        mlp_ratio: Width of its hidden layers over ``image_channels``.
        dropout: Its dropout probability.
    """

    def __init__(
        self,
        image_channels: int,
        bev_channels: int,
        image_anchors: tuple[int, int],
        bev_anchors: tuple[int, int],
        num_layers: int,
        num_heads: int,
        mlp_ratio: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.image_anchors = (image_anchors[0], image_anchors[1])
        self.bev_anchors = (bev_anchors[0], bev_anchors[1])
        self.num_image_tokens = image_anchors[0] * image_anchors[1]
        self.bev_to_image = nn.Conv2d(bev_channels, image_channels, 1)
        self.image_to_bev = nn.Conv2d(image_channels, bev_channels, 1)
        num_tokens = self.num_image_tokens + bev_anchors[0] * bev_anchors[1]
        self.transformer = FusionTransformer(
            image_channels, num_tokens, num_layers, num_heads, mlp_ratio, dropout
        )

    def forward(self, image: Tensor, bev: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, C, H, W) and bird's-eye view (B, D, h, w) -> the same shapes."""
        image_tokens = _pool(image, self.image_anchors).flatten(2).transpose(1, 2)
        bev_tokens = self.bev_to_image(_pool(bev, self.bev_anchors)).flatten(2).transpose(1, 2)
        tokens = self.transformer(torch.cat([image_tokens, bev_tokens], dim=1))
        image_update = as_map(tokens[:, : self.num_image_tokens], self.image_anchors)
        bev_update = self.image_to_bev(as_map(tokens[:, self.num_image_tokens :], self.bev_anchors))
        return image + _resize(image_update, image), bev + _resize(bev_update, bev)


def _pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if x.shape[-2:] == size else F.adaptive_avg_pool2d(x, size)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
