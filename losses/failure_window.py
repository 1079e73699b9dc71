"""Which poses of a failing plan are to blame: those around the moment at which it fails."""

from __future__ import annotations

import torch
from torch import Tensor

from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL


class FailureWindow:
    """Weights of the poses of a negative by their distance in time from its moment of failure.

    A pose at the moment counts 1, others fall off as a Gaussian, slower before than after: what is driven
    before a failure leads to it. No weight exceeds 1, so that a repulsion weaker than the attraction stays
    weaker at every pose. A negative whose moment is not known (progress, comfort) counts 1 everywhere.

    Args:
        before: Standard deviation before the moment [s].
        after: Standard deviation after it [s].
        floor: Least weight of a pose.

    Raises:
        ValueError: If a time is not positive or ``floor`` is outside [0, 1).

    >>> window = FailureWindow(before=1.0, after=0.5)
    >>> [round(float(weight), 3) for weight in window(torch.tensor([2.0]))[0]]
    [0.325, 0.607, 0.882, 1.0, 0.607, 0.135, 0.011, 0.0]
    >>> window(torch.tensor([torch.inf]))[0].unique()
    tensor([1.])
    """

    def __init__(self, before: float = 1.0, after: float = 0.5, floor: float = 0.0) -> None:
        if not (before > 0 and after > 0 and 0 <= floor < 1):
            raise ValueError(
                f"FailureWindow: before and after must be positive seconds and floor in [0, 1), got "
                f"{before}, {after} and {floor}"
            )
        self.before, self.after, self.floor = before, after, floor

    def __call__(self, times: Tensor) -> Tensor:
        """Weights (..., 8) for moments of failure (...) [s], inf where unknown."""
        poses = POSE_INTERVAL * torch.arange(1, NUM_POSES + 1, device=times.device, dtype=times.dtype)
        known = torch.isfinite(times)[..., None]
        late = poses - torch.where(known, times[..., None], 0.0)  # seconds after the moment
        scale = torch.where(late > 0, self.after, self.before)
        exponents = -0.5 * (late / scale) ** 2
        # A moment before the first pose, or after the last, leaves the nearest pose at full weight
        # (before the exponential: of a narrow window nothing would be left to divide by).
        weights = torch.exp(exponents - exponents.amax(dim=-1, keepdim=True))
        return torch.where(known, weights.clamp(min=self.floor), 1.0)
