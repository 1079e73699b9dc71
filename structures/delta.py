"""Delta space: plans as normalised steps and heading vectors (METHOD, "Delta representation")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NAVTRAIN_STATISTICS = {
    "dx": (-1.2698211669921875, 2.950225591659546, 7.475563049316406),
    "dy": (-5.012081146240234, 0.0607292577624321, 4.8563690185546875),
}
"""Minimum, mean and maximum of one step [m] over navtrain (METHOD, "Delta representation")."""


class DeltaSpace(nn.Module):
    """Maps plans (..., 8, 3) to (..., 8, 4) and back.

    A pose becomes ``[dx, dy, sin(heading), cos(heading)]``: dx, dy are differences of consecutive positions
    in the ego frame at t = 0, the first one from the origin, shifted by their mean and divided by their
    largest deviation from it; the heading is absolute. The statistics are buffers, so that a checkpoint
    carries them.

    Args:
        dx: Minimum, mean and maximum of a step along x [m].
        dy: The same along y [m].

    >>> space = DeltaSpace()
    >>> plan = torch.tensor([[2.0, 0.1, 0.05]] * 8).cumsum(0)
    >>> space.encode(plan).shape
    torch.Size([8, 4])
    >>> torch.allclose(space.decode(space.encode(plan)), plan, atol=1e-5)
    True
    """

    dim = 4

    def __init__(
        self,
        dx: Sequence[float] = NAVTRAIN_STATISTICS["dx"],
        dy: Sequence[float] = NAVTRAIN_STATISTICS["dy"],
    ) -> None:
        super().__init__()
        for name, (low, mean, high) in (("dx", dx), ("dy", dy)):
            if not low < mean < high:
                raise ValueError(
                    f"DeltaSpace: {name} must be (minimum, mean, maximum), got {low, mean, high}"
                )
        self.mean: Tensor
        self.scale: Tensor
        means = torch.tensor([dx[1], dy[1]])
        scales = torch.tensor([max(abs(v[2] - v[1]), abs(v[0] - v[1])) for v in (dx, dy)])
        self.register_buffer("mean", means)
        self.register_buffer("scale", scales)

    def encode(self, plans: Tensor) -> Tensor:
        """Plans (..., 8, 3) in metres and radians -> (..., 8, 4)."""
        xy = plans[..., :2]
        steps = torch.diff(xy, dim=-2, prepend=torch.zeros_like(xy[..., :1, :]))
        steps = (steps - self.mean) / self.scale
        heading = plans[..., 2:3]
        return torch.cat([steps, heading.sin(), heading.cos()], dim=-1)

    def decode(self, encoded: Tensor) -> Tensor:
        """(..., 8, 4) -> plans (..., 8, 3); sine and cosine need not be normalised."""
        xy = (encoded[..., :2] * self.scale + self.mean).cumsum(dim=-2)
        heading = torch.atan2(encoded[..., 2:3], encoded[..., 3:4])
        return torch.cat([xy, heading], dim=-1)


def step_statistics(plans: Tensor) -> dict[str, tuple[float, float, float]]:
    """Statistics of the steps of expert plans (N, 8, 3), ready to be given to :class:`DeltaSpace`.

    >>> step_statistics(torch.tensor([[[1.0, 0.0, 0.0]] * 8]).cumsum(1))['dx']
    (1.0, 1.0, 1.0)
    """
    xy = plans[..., :2]
    steps = torch.diff(xy, dim=-2, prepend=torch.zeros_like(xy[..., :1, :])).reshape(-1, 2)
    low, mean, high = steps.amin(0), steps.mean(0), steps.amax(0)
    return {name: (float(low[i]), float(mean[i]), float(high[i])) for i, name in enumerate(("dx", "dy"))}
