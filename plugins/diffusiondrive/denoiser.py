"""Denoiser of anchored diffusion: noisy anchors look into the scene, become plans (MODELS, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.heads.base import as_poses, bound_heading
from beyonddrive.heads.denoiser import LONGEST_PERIOD, sinusoidal_embedding, split_heads
from beyonddrive.plugins.diffusiondrive.map_lookup import MapLookup, pad_cells, sample_values
from beyonddrive.structures.geometry import LIDAR_EXTENT, Limits, exactly
from beyonddrive.structures.plan import NUM_POSES

POINT_CHANNELS = 64
"""Channels of an embedded point, half of them per coordinate."""
COST_OF_A_POINT = 5
"""Cells of the whole map that can be convolved in the time that one point takes; 4 by operations."""


def embed_points(points: Tensor, dim: int = POINT_CHANNELS) -> Tensor:
    """Embed points (..., 2) [m] as (..., dim): y, then x, each as alternating sines and cosines.

    >>> embed_points(torch.zeros(1, 2), 4)
    tensor([[0., 1., 0., 1.]])
    """
    exponent = torch.arange(dim // 4, device=points.device, dtype=torch.float32) / (dim // 4)
    frequency = 2 * math.pi / LONGEST_PERIOD**exponent
    angle = points.flip(-1)[..., None] * frequency  # (..., 2, dim / 4)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-3)


@dataclass
class LayerContext:
    """What one layer needs of a scene, the same for all modes and times.

    Attributes:
        values: (B, dim, H, W) map that the points sample; None if ``cells`` are looked up instead.
        cells: (B, H + 4, W + 4, dim) padded cells, of which only those around points are convolved; or None.
        agent_keys: (B, heads, N, dim / heads).
        agent_values: The same shape.
        ego: (B, 1, dim) what attention to the single ego query returns.
    """

    values: Tensor | None
    cells: Tensor | None
    agent_keys: Tensor
    agent_values: Tensor
    ego: Tensor


class AnchoredLayer(nn.Module):
    """Sample the map along the points, attend to agents and ego, modulate by time, score and refine.

    Its feed-forward part has no residual, as published (MODELS, section 11, quirk 9).

    Args:
        dim: Channels.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layer.
        dropout: Dropout probability after each attention.
        map_range: Half of the side of the square that the map covers [m].
    """

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float, map_range: float) -> None:
        super().__init__()
        self.map_range = map_range
        self.num_heads = num_heads
        self.dropout = dropout
        self.point_weights = nn.Linear(dim, NUM_POSES)
        self.map_value = MapLookup(dim)
        self.map_out = nn.Linear(dim, dim)
        self.agent_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.ego_attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.ReLU(), nn.Linear(ffn_dim, dim))
        self.modulation = nn.Linear(dim, 2 * dim)
        self.score = nn.Sequential(
            *(nn.Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim)),
            *(nn.Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim)),
            nn.Linear(dim, 1),
        )
        self.refine = nn.Sequential(
            *(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU()),
            nn.Linear(dim, NUM_POSES * 3),
        )

    def prepare(self, scene_map: Tensor, padded: Tensor | None, agents: Tensor, ego: Tensor) -> LayerContext:
        """Everything that does not depend on points and time; shapes as in :class:`AnchoredDenoiser`."""
        keys, values = _project(self.agent_attention, agents, 1, 3).chunk(2, dim=-1)
        # Softmax over a single key is 1: what is left of the attention is value and output projection.
        ego = self.ego_attention.out_proj(_project(self.ego_attention, ego, 2, 3))
        whole = self.map_value.values(scene_map) if padded is None else None
        keys, values = split_heads(keys, self.num_heads), split_heads(values, self.num_heads)
        return LayerContext(whole, padded, keys, values, ego)

    def forward(
        self, x: Tensor, points: Tensor, time: Tensor, context: LayerContext
    ) -> tuple[Tensor, Tensor]:
        """One layer.

        Args:
            x: (B, M, dim) embedded anchors.
            points: (B, M, 8, 2) [m].
            time: (B, 1, dim) embedded time, after its activation; its batch may be 1.
            context: The result of :meth:`prepare`.

        Returns:
            Poses (B, M, 8, 3) and logits (B, M).
        """
        x = x + self._drop(self.map_out(self._sample_map(x, points, context)))
        x = self.norms[0](x + self._drop(self._attend_agents(x, context)))
        x = self.norms[1](x + self._drop(context.ego.expand_as(x)))
        x = self.norms[2](self.ffn(x))
        scale, shift = self.modulation(time).chunk(2, dim=-1)
        x = x * (1 + scale) + shift
        poses = bound_heading(as_poses(self.refine(x), 3))
        poses = torch.cat([poses[..., :2] + points, poses[..., 2:]], dim=-1)
        return poses, self.score(x)[..., 0]

    def _sample_map(self, x: Tensor, points: Tensor, context: LayerContext) -> Tensor:
        grid = points.flip(-1) / self.map_range  # columns run along y, rows along x
        if context.values is not None:
            # Half-precision positions would be off by a part of a cell.
            sampled = sample_values(context.values.to(grid.dtype), grid)  # (B, dim, M, 8)
        else:
            assert context.cells is not None
            sampled = self.map_value.at(context.cells, grid)
        weights = self.point_weights(x).softmax(dim=-1)  # (B, M, 8)
        return (sampled * weights[:, None]).sum(dim=-1).transpose(1, 2)

    def _attend_agents(self, x: Tensor, context: LayerContext) -> Tensor:
        query = split_heads(_project(self.agent_attention, x, 0, 1), self.num_heads)
        x = F.scaled_dot_product_attention(query, context.agent_keys, context.agent_values)
        return self.agent_attention.out_proj(x.transpose(1, 2).flatten(-2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class AnchoredDenoiser(nn.Module):
    """(noisy points, time, scene) -> plans and logits after every layer.

    All layers start from the same embedded points; only the refined points pass from one to the next, without
    gradient (MODELS, section 6).

    Args:
        dim: Channels.
        num_layers: Layers.
        num_heads: Attention heads.
        ffn_dim: Width of the feed-forward layers.
        time_dim: Width of the hidden layer of the time embedding.
        dropout: Dropout probability after attentions.
        map_range: Half of the side of the square that the map covers [m].
    """

    def __init__(
        self,
        dim: int = 256,
        num_layers: int = 2,
        num_heads: int = 8,
        ffn_dim: int = 1024,
        time_dim: int = 1024,
        dropout: float = 0.1,
        map_range: float = 32.0,
    ) -> None:
        super().__init__()
        if dim % num_heads or dim % 2 or dim < 4:
            raise ValueError(f"AnchoredDenoiser: dim must be even and a multiple of {num_heads}, got {dim}")
        self.dim, self.map_range = dim, map_range
        self.point_encoder = nn.Sequential(
            nn.Linear(NUM_POSES * POINT_CHANNELS, dim), nn.ReLU(), nn.LayerNorm(dim), nn.Linear(dim, dim)
        )
        self.time_mlp = nn.Sequential(nn.Linear(dim, time_dim), nn.Mish(), nn.Linear(time_dim, dim))
        self.layers = nn.ModuleList(
            AnchoredLayer(dim, num_heads, ffn_dim, dropout, map_range) for _ in range(num_layers)
        )

    @property
    def geometry_taken(self) -> Limits:
        """The map that points are looked up in is that of the LiDAR raster."""
        return {LIDAR_EXTENT: exactly(self.map_range)}

    def prepare(
        self, scene_map: Tensor, agents: Tensor, ego: Tensor, num_points: int | None = None
    ) -> list[LayerContext]:
        """What the layers need of the scene, computed once for all steps.

        Args:
            scene_map: (B, H, W, dim), rows along x.
            agents: (B, N, dim) agent queries.
            ego: (B, 1, dim) trajectory query.
            num_points: Points of a scene that will be looked up in all steps, if that is known and no
                gradient is wanted: few are cheaper one by one than by convolving the whole map.
        """
        cells = scene_map.shape[1] * scene_map.shape[2]
        few = num_points is not None and num_points * COST_OF_A_POINT < cells
        padded = pad_cells(scene_map) if few else None
        return [layer.prepare(scene_map, padded, agents, ego) for layer in self._layers()]

    def forward(
        self, points: Tensor, time: Tensor, context: list[LayerContext]
    ) -> list[tuple[Tensor, Tensor]]:
        """Denoise.

        Args:
            points: (B, M, 8, 2) noisy points [m].
            time: (B,) or (1,) diffusion time steps.
            context: The result of :meth:`prepare`.

        Returns:
            Poses (B, M, 8, 3) and logits (B, M) of every layer.
        """
        features = self.point_encoder(embed_points(points.float()).flatten(-2))
        time = F.mish(self.time_mlp(sinusoidal_embedding(time.float(), self.dim)))[:, None]
        outputs = []
        for layer, cache in zip(self._layers(), context, strict=True):
            poses, logits = layer(features, points, time, cache)
            outputs.append((poses, logits))
            points = poses[..., :2].detach()
        return outputs

    def _layers(self) -> Iterable[AnchoredLayer]:
        return cast("Iterable[AnchoredLayer]", self.layers)


def _project(attention: nn.MultiheadAttention, x: Tensor, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` (thirds: query, key, value) of the packed input projection."""
    rows = slice(first * attention.embed_dim, last * attention.embed_dim)
    return F.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
