"""Coarse and fine bird's-eye view side by side, as one map that a trajectory head can look into."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.structures.tokens import SceneTokens, as_map


class SceneMap(nn.Module):
    """Upsampled bird's-eye-view tokens | upscaled map -> linear, ReLU, layer norm per cell.

    The rows of the map run along x, the columns along y (MODELS, sections 6 and 7).

    Args:
        dim: Channels of tokens and of the result.
        bev_channels: Channels of ``tokens.bev``.
        bev_size: Rows and columns of the bird's-eye-view tokens in ``tokens.memory``.
        stride: Keep every ``stride``-th row and column.
    """

    def __init__(
        self, dim: int, bev_channels: int = 64, bev_size: tuple[int, int] = (8, 8), stride: int = 1
    ) -> None:
        super().__init__()
        self.dim, self.stride = dim, stride
        self.bev_size = (bev_size[0], bev_size[1])
        self.proj = nn.Linear(dim + bev_channels, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: SceneTokens, user: str) -> Tensor:
        """Map (B, H, W, dim), where H and W are those of ``tokens.bev`` over the stride.

        Raises:
            ValueError: If the encoder gives ``user`` no map, or one of another size.
        """
        fine = tokens.require("bev", user)
        memory = tokens.require("memory", user)
        rows, columns = self.bev_size
        channels = self.proj.in_features - self.dim
        if memory.shape[1] <= rows * columns or fine.shape[1] != channels:
            raise ValueError(
                f"{user}: bev_size {self.bev_size} and bev_channels {channels} do not fit an encoder with "
                f"{memory.shape[1]} memory tokens and {fine.shape[1]} channels of the "
                f"upscaled map: bev_size is the backbone's bev_size / 32, bev_channels its top_down_channels"
            )
        coarse_weight, fine_weight = self.proj.weight.split([self.dim, fine.shape[1]], dim=1)
        # Interpolation weights add up to 1, so the projection may come first, on far fewer cells.
        coarse = F.linear(memory[:, : rows * columns], coarse_weight, self.proj.bias)
        coarse = F.interpolate(
            as_map(coarse, self.bev_size), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        step = self.stride
        projected = F.conv2d(fine[..., ::step, ::step], fine_weight[..., None, None])
        cells = (coarse[..., ::step, ::step] + projected).permute(0, 2, 3, 1)
        return self.norm(F.relu(cells))
