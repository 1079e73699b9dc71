"""WoTE's latent world model: the bird's-eye view after the ego has driven a plan (MODELS, section 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from beyonddrive.heads.layers import EncoderLayer

SPLAT_AHEAD = 32.0
"""Metres ahead that the rows of the map are taken for when a feature is put into it (MODELS, quirk 12)."""
SPLAT_WIDTH = 64.0
"""The same for all columns together."""


def splat_weights(xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear weights of points in a map.

    Row ``x * rows / 32``, column ``y * columns / 64 + columns / 2``, as the original has it although the map
    covers 32 m behind the ego too; corners outside the map get nothing.

    Args:
        xy: (..., 2) positions [m].
        size: Rows and columns of the map.

    Returns:
        (..., rows * columns), cell by cell, row by row.

    >>> weights = splat_weights(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), (8, 8))
    >>> weights.nonzero().tolist(), weights.sum(-1).tolist()
    ([[0, 4], [1, 4], [1, 12]], [1.0, 1.0])
    """
    rows, columns = size
    row = xy[..., 0] * rows / SPLAT_AHEAD
    column = xy[..., 1] * columns / SPLAT_WIDTH + columns / 2
    # A tent around the point: exactly the bilinear weight of every cell, and 0 beyond its four corners.
    by_row = (1 - (torch.arange(rows, device=xy.device) - row[..., None]).abs()).clamp(min=0)
    by_column = (1 - (torch.arange(columns, device=xy.device) - column[..., None]).abs()).clamp(min=0)
    return (by_row[..., :, None] * by_column[..., None, :]).flatten(-2)


@dataclass
class _Prefix:
    """What all plans of a scene share in the first layer.

    Attributes:
        tokens: (B, S, d) shared tokens.
        query: (B, H, S, d / H) their queries; ``key`` and ``value`` likewise.
        peak: (B, H, S) largest logit of each query over the shared keys.
        mass: (B, H, S) sum of the exponentials of its logits minus the peak.
        attended: (B, H, S, d / H) the shared values, weighted by these exponentials.
    """

    tokens: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    peak: Tensor
    mass: Tensor
    attended: Tensor


class WorldModel(nn.Module):
    """Ego feature of a plan + bird's-eye view now -> both at the end of the plan, for many plans of a scene.

    A plan's sequence is [ego | map], with the ego feature also put into the map where the ego is now. The
    sequences of a scene differ in those two tokens only, so the first layer computes projections of the other
    tokens, and their attention among each other, once per scene: softmax over [shared | own] keys is the
    shared sum, rescaled, plus the own terms. The result is that of the plain layers up to rounding.

    Args:
        dim: Channels.
        bev_size: Rows and columns of the map.
        num_layers: Encoder layers (post-norm, ReLU), at least one.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
    """

    def __init__(
        self,
        dim: int = 256,
        bev_size: tuple[int, int] = (8, 8),
        num_layers: int = 2,
        num_heads: int = 8,
        ffn_dim: int = 512,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"WorldModel: num_layers must be at least 1, got {num_layers}")
        self.dim, self.num_heads = dim, num_heads
        self.bev_size = (bev_size[0], bev_size[1])
        self.position_embedding = nn.Embedding(bev_size[0] * bev_size[1] + 1, dim)
        self.layers = nn.ModuleList(EncoderLayer(dim, num_heads, ffn_dim) for _ in range(num_layers))
        start = splat_weights(torch.zeros(2), self.bev_size)
        self.start_cells: list[int] = start.nonzero()[:, 0].tolist()
        self.start_weights: list[float] = start[self.start_cells].tolist()
        num_cells = bev_size[0] * bev_size[1]
        shared = [cell for cell in range(num_cells) if cell not in self.start_cells]
        # Sequences are [ego | cells of the ego | other cells] inside; map_order undoes that. (Lists as
        # indices would be copied to the GPU in every step, and the host would wait.)
        order = [(self.start_cells + shared).index(cell) + 1 for cell in range(num_cells)]
        self.shared_cells: Tensor
        self.map_order: Tensor
        self.register_buffer("shared_cells", torch.tensor(shared, dtype=torch.int64), persistent=False)
        self.register_buffer("map_order", torch.tensor(order), persistent=False)

    def prepare(self, bev: Tensor) -> _Prefix:
        """Compute what all plans of the scenes (B, N, d) share."""
        layer = self._layers()[0]
        tokens = (bev + self.position_embedding.weight[1:]).index_select(1, self.shared_cells)
        query, key, value = self._project(layer, tokens)
        logits = query @ key.mT  # (B, H, S, S)
        peak = logits.amax(dim=-1)
        weights = (logits - peak[..., None]).exp()
        return _Prefix(tokens, query, key, value, peak, weights.sum(dim=-1), weights @ value)

    def forward(self, bev: Tensor, ego: Tensor, prefix: _Prefix) -> tuple[Tensor, Tensor]:
        """Look ahead.

        Args:
            bev: (B, N, d) bird's-eye-view tokens now.
            ego: (B, A, d) ego features of A plans.
            prefix: :meth:`prepare` of ``bev``.

        Returns:
            (B, A, d) ego features and (B, A, N, d) bird's-eye-view tokens at the end of the plans.
        """
        x = self._first_layer(prefix, self._own_tokens(bev, ego))
        batch, plans = x.shape[:2]
        x = x.flatten(0, 1)
        for layer in self._layers()[1:]:
            x = layer(x)
        x = x.unflatten(0, (batch, plans))
        return x[:, :, 0], x.index_select(2, self.map_order)

    def _own_tokens(self, bev: Tensor, ego: Tensor) -> Tensor:
        """The tokens (B, A, K, d) of the sequences that depend on the plan: the ego, and the map under it."""
        position = self.position_embedding.weight
        own = [ego + position[0]]
        own += [
            ego * weight + (bev[:, cell] + position[cell + 1])[:, None]
            for cell, weight in zip(self.start_cells, self.start_weights, strict=True)
        ]
        return torch.stack(own, dim=2)

    def _first_layer(self, prefix: _Prefix, own: Tensor) -> Tensor:
        """(B, A, K, d) own tokens of the plans -> (B, A, K + S, d) all tokens after the first layer."""
        layer = self._layers()[0]
        query, key, value = self._project(layer, own)  # (B, A, H, K, d / H)

        # Own queries see the shared keys and their own.
        shared_key, shared_value = prefix.key[:, None], prefix.value[:, None]  # (B, 1, H, S, d / H)
        num_shared = prefix.tokens.shape[1]
        logits = torch.cat([query @ shared_key.mT, query @ key.mT], dim=-1)
        weights = logits.softmax(dim=-1)
        of_own = weights[..., :num_shared] @ shared_value + weights[..., num_shared:] @ value

        # Shared queries see the shared keys, whose sum is known, and those of the plan.
        extra = prefix.query[:, None] @ key.mT  # (B, A, H, S, K)
        peak = torch.maximum(prefix.peak[:, None], extra.amax(dim=-1))
        extra = (extra - peak[..., None]).exp()
        known = (prefix.peak[:, None] - peak).exp()  # (B, A, H, S)
        mass = prefix.mass[:, None] * known + extra.sum(dim=-1)
        known, extra = known / mass, extra / mass[..., None]
        of_shared = known[..., None] * prefix.attended[:, None] + extra @ value  # (B, A, H, S, d / H)

        shared = prefix.tokens[:, None].expand(-1, own.shape[1], -1, -1)
        return layer.finish(
            torch.cat([own, shared], dim=2), torch.cat([of_own, of_shared.to(of_own.dtype)], dim=3)
        )

    @staticmethod
    def _project(layer: EncoderLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values (..., H, n, d / H) of tokens (..., n, d)."""
        query, key, value = layer.project(x)
        return query * (query.shape[-1] ** -0.5), key, value

    def _layers(self) -> list[EncoderLayer]:
        return [cast(EncoderLayer, layer) for layer in self.layers]
