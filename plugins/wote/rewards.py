"""WoTE's rewards: how good a plan is, from the bird's-eye view now and after it (MODELS, section 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beyonddrive.heads.layers import RectifiedConv2d
from beyonddrive.plugins.wote.world_model import splat_weights
from beyonddrive.structures.held import HoldsConstants
from beyonddrive.structures.tokens import as_map


class RewardNet(HoldsConstants, nn.Module):
    """Map and ego feature, now and in the future -> a feature, then an imitation and several metric logits.

    The map now holds the ego feature of the plan too, as the world model's input does. The first convolution
    is linear, so its response to the map alone is computed once per scene, and that to the ego feature only
    in the cells next to the ego.

    Args:
        dim: Channels of tokens.
        bev_size: Rows and columns of the map.
        num_metrics: Rewards next to the imitation reward.
        hidden: Width of the hidden layer of every reward.
    """

    def __init__(
        self, dim: int = 256, bev_size: tuple[int, int] = (8, 8), num_metrics: int = 5, hidden: int = 128
    ) -> None:
        super().__init__()
        self.dim = dim
        self.bev_size = (bev_size[0], bev_size[1])
        self.held: nn.ModuleList | None = None
        self.conv1 = nn.Conv2d(2 * dim, dim, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(dim)
        start = splat_weights(torch.zeros(2), self.bev_size)
        self.start_cells: list[tuple[int, float]] = [
            (int(cell), float(start[cell])) for cell in start.nonzero()[:, 0]
        ]
        self.fuse = nn.Sequential(nn.Linear(3 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.imitation = _reward(dim, hidden)
        self.metrics = nn.ModuleList(_reward(dim, hidden) for _ in range(num_metrics))

    def prepare(self, bev: Tensor) -> Tensor:
        """The part (B, d, rows, columns) of the first convolution that sees the map now (B, N, d)."""
        return F.conv2d(as_map(bev, self.bev_size), self.conv1.weight[:, : self.dim], padding=1)

    def forward(self, now: Tensor, future_bev: Tensor, ego: Tensor, future_ego: Tensor) -> Tensor:
        """Features of plans.

        Args:
            now: :meth:`prepare` of the map now.
            future_bev: (B, A, N, d) map after each of A plans.
            ego: (B, A, d) ego feature now.
            future_ego: (B, A, d) ego feature after the plan.

        Returns:
            (B, A, d).
        """
        scene = self.forward_map(now, future_bev, ego)
        fused: Tensor = self.fuse(torch.cat([ego, future_ego, scene], dim=-1))
        return fused

    def forward_map(self, now: Tensor, future_bev: Tensor, ego: Tensor) -> Tensor:
        """What the two maps say of the plans: (B, A, d); arguments as for :meth:`forward`."""
        x = self._conv1(now, future_bev, ego)
        return self._conv2(x).mean(dim=(-2, -1)).unflatten(0, future_bev.shape[:2])

    def rewards(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, A, d) -> imitation logits (B, A) and metric logits (B, num_metrics, A)."""
        metrics = [metric(features)[..., 0] for metric in self.metrics]
        return self.imitation(features)[..., 0], torch.stack(metrics, dim=1)

    def hold(self) -> None:
        """Fold the batch norms into the convolutions."""
        folded = (self._folded(self.conv1, self.bn1), self._folded(self.conv2, self.bn2))
        self.held = nn.ModuleList(RectifiedConv2d(weight, bias) for weight, bias in folded)

    def _conv1(self, now: Tensor, future_bev: Tensor, ego: Tensor) -> Tensor:
        """First convolution, batch norm and ReLU: (B * A, d, rows, columns)."""
        future = as_map(future_bev.flatten(0, 1), self.bev_size)
        known = now[:, None] + self._response_to(ego)
        if self.training:
            weight, bias = self.conv1.weight[:, self.dim :], self.conv1.bias
            return F.relu(self.bn1(F.conv2d(future, weight, bias, padding=1) + known.flatten(0, 1)))
        known = known * _affine(self.bn1)[0][:, None, None]
        if self.held is not None:
            held: Tensor = self.held[0](future, known.flatten(0, 1))
            return held
        weight, bias = self._folded(self.conv1, self.bn1)
        return F.relu(F.conv2d(future, weight, bias, padding=1) + known.flatten(0, 1))

    def _response_to(self, ego: Tensor) -> Tensor:
        """First convolution's response (B, A, d, rows, columns) to (B, A, d) put where the ego is now."""
        rows, columns = self.bev_size
        # Turned by half a turn, the kernel is the response to a single cell.
        kernel = self.conv1.weight[:, : self.dim].flip(2, 3)
        response = ego.new_zeros(())
        for cell, weight in self.start_cells:
            top, left = cell // columns - 1, cell % columns - 1
            high, low = max(-top, 0), min(rows - top, 3)
            near, far = max(-left, 0), min(columns - left, 3)
            patch = torch.einsum("bac,ocij->baijo", ego * weight, kernel[:, :, high:low, near:far])
            around = (0, 0, left + near, columns - left - far, top + high, rows - top - low)
            response = response + F.pad(patch, around).permute(0, 1, 4, 2, 3)
        return response

    def _conv2(self, x: Tensor) -> Tensor:
        if self.training:
            return F.relu(self.bn2(self.conv2(x)))
        if self.held is not None:
            held: Tensor = self.held[1](x)
            return held
        return F.relu(F.conv2d(x, *self._folded(self.conv2, self.bn2), padding=1))

    def _folded(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        """Weight and bias with the batch norm in them, for the channels that are new: the last ``dim``."""
        scale, shift = _affine(norm)
        assert conv.bias is not None
        return conv.weight[:, -self.dim :] * scale[:, None, None, None], conv.bias * scale + shift


def _reward(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a batch norm in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
