"""Values of a map at points: convolve the whole map, or only the cells around the points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.structures.held import HoldsConstants
from beyonddrive.structures.transfers import numbers_on

PATCH = 4
"""Cells per side that a 3 x 3 convolution reads to give the 2 x 2 cells around a point."""


class MapLookup(HoldsConstants, nn.Module):
    """``relu(3x3 convolution)`` of a map, interpolated bilinearly at points; 0 outside the map.

    Both ways give the same values to rounding. Few points are cheaper by :meth:`at`, many by :meth:`values`
    and :func:`sample_values`.

    Args:
        dim: Channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.held: nn.Conv2d | None = None
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def hold(self) -> None:
        """Keep a convolution without padding, which :meth:`at` needs, as a module."""
        self.held = nn.Conv2d(self.conv.in_channels, self.conv.out_channels, 3, device="meta")
        self.held.weight, self.held.bias = self.conv.weight, self.conv.bias

    def values(self, cells: Tensor) -> Tensor:
        """Values (B, dim, H, W) of all cells (B, H, W, dim)."""
        return F.relu(self.conv(cells.permute(0, 3, 1, 2)))

    def at(self, padded: Tensor, grid: Tensor) -> Tensor:
        """Values at points.

        Args:
            padded: (B, H + 4, W + 4, dim) cells, from :func:`pad_cells`.
            grid: (B, M, K, 2) column and row, -1 to 1 from edge to edge.

        Returns:
            (B, dim, M, K).
        """
        batch, rows, columns, _ = padded.shape
        size = numbers_on(grid.device, (columns - PATCH, rows - PATCH))
        position = (grid.flatten(1, 2) + 1) * size / 2 - 0.5  # (B, N, 2) in cells
        corner = position.floor()
        share = position - corner
        offset = torch.arange(2, device=grid.device)
        inside = (corner[..., None] + offset >= 0) & (corner[..., None] + offset < size[:, None])
        weight = torch.stack([1 - share, share], dim=-1) * inside  # (B, N, 2 for column and row, 2 corners)
        # Far outside all weights are 0, and any patch will do.
        first = (torch.minimum(corner.clamp(min=-1), size - 1) + 1).long()
        step = torch.arange(PATCH, device=grid.device)
        row, column = first[..., 1, None] + step, first[..., 0, None] + step
        scene = torch.arange(batch, device=grid.device)[:, None, None, None] * rows
        index = (scene + row[..., :, None]) * columns + column[..., None, :]  # (B, N, 4, 4)
        patches = padded.flatten(0, 2)[index.flatten(0, 1)].permute(0, 3, 1, 2)  # (B * N, dim, 4, 4)
        if self.held is None:
            values = F.conv2d(patches, self.conv.weight, self.conv.bias)
        else:
            values = self.held(patches)
        values = F.relu(values).unflatten(0, (batch, -1))
        weight = weight[..., 1, :, None] * weight[..., 0, None, :]  # (B, N, rows, columns)
        sampled = (values * weight[:, :, None]).sum(dim=(-2, -1))
        return sampled.transpose(1, 2).unflatten(-1, grid.shape[1:3])


def pad_cells(cells: Tensor) -> Tensor:
    """Cells (B, H, W, dim) with two rings of zeros: (B, H + 4, W + 4, dim)."""
    return F.pad(cells, (0, 0, 2, 2, 2, 2))


def sample_values(values: Tensor, grid: Tensor) -> Tensor:
    """Values (B, dim, H, W) at points (B, M, K, 2): (B, dim, M, K)."""
    return F.grid_sample(values, grid, align_corners=False)
