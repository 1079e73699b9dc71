"""Fused maps to plain bird's-eye-view tokens, for heads that do the decoding (MODELS, section 8)."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from beyonddrive.backbones.query_decoder import STATUS_DIM
from beyonddrive.backbones.transfuser import FusedFeatures, TopDown
from beyonddrive.registry import MODELS
from beyonddrive.structures.tokens import SceneTokens, as_map


@MODELS.register_module()
class BEVTokenizer(BaseModule):
    """Fused bird's-eye-view map + ego status -> :class:`SceneTokens` without decoded queries.

    ``queries`` is the status token alone, ``memory`` the bird's-eye-view tokens alone.

    Args:
        in_channels: Channels of the fused map.
        bev_size: Its rows and columns.
        dim: Channels of tokens.
        map_size: Rows and columns of the upscaled map; None for no map.
        map_channels: Channels of that map.
    """

    def __init__(
        self,
        in_channels: int = 512,
        bev_size: tuple[int, int] = (8, 8),
        dim: int = 256,
        map_size: tuple[int, int] | None = (64, 64),
        map_channels: int = 64,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.bev_size = (bev_size[0], bev_size[1])
        self.bev_proj = nn.Conv2d(in_channels, dim, 1)
        self.status_proj = nn.Linear(STATUS_DIM, dim)
        self.memory_embedding = nn.Embedding(bev_size[0] * bev_size[1], dim)
        self.map_proj: nn.Conv2d | None = None
        self.top_down: TopDown | None = None
        if map_size is not None:
            self.map_proj = nn.Conv2d(dim, in_channels, 1)
            self.top_down = TopDown(in_channels, map_channels, (map_size[0], map_size[1]))

    def forward(self, features: FusedFeatures, status: Tensor, with_map: bool = True) -> SceneTokens:
        """Tokens of a batch.

        Args:
            features: Maps of the backbone, of which the bird's-eye view is read.
            status: (B, 8) ego status.
            with_map: Make the upscaled map for dense heads, if there is one to make.
        """
        memory = self.bev_proj(features.bev).flatten(2).transpose(1, 2) + self.memory_embedding.weight
        upscaled = self.upscale(memory) if with_map else None
        return SceneTokens(self.status_proj(status)[:, None], status, memory, upscaled, features.points)

    def upscale(self, memory: Tensor) -> Tensor | None:
        """Tokens (B, N, dim) -> upscaled map (B, map_channels, *map_size), if there is one."""
        if self.map_proj is None or self.top_down is None:
            return None
        features: Tensor = self.top_down(self.map_proj(as_map(memory, self.bev_size)))
        return features
