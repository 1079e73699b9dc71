"""Flow matching on plans: the path from noise to data and the velocities along it (MODELS, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from beyonddrive.structures.scene_random import SceneRandom

MIN_REMAINING_TIME = 0.05
"""Floor of 1 - t where a velocity is recovered from a predicted end point."""


@dataclass
class FlowDraws:
    """The random numbers of one training step, so that a step can be repeated exactly.

    Attributes:
        time: (B,) standard normal, one per sample, turned into a time by :func:`logit_normal_time`.
        noise: (B, 8, D) standard normal, not yet scaled.
        drop: (B,) uniform in [0, 1), compared with the drop probability; None if nothing is dropped.
    """

    time: Tensor
    noise: Tensor
    drop: Tensor | None = None

    @classmethod
    def sample(cls, random: SceneRandom, shape: tuple[int, int], with_drop: bool) -> FlowDraws:
        """Draw in the order time, noise, drop for plans of ``shape`` (8, D).

        >>> draws = FlowDraws.sample(SceneRandom([], 2, torch.device('cpu')), (8, 4), True)
        >>> draws.time.shape, draws.noise.shape, draws.drop.shape
        (torch.Size([2]), torch.Size([2, 8, 4]), torch.Size([2]))
        """
        return cls(random.normal(), random.normal(*shape), random.uniform() if with_drop else None)


def logit_normal_time(normal: Tensor, mean: float = -0.8, std: float = 0.8) -> Tensor:
    """Times in (0, 1) from standard-normal draws: ``sigmoid(mean + std * normal)``; 0 is noise, 1 is data.

    >>> logit_normal_time(torch.tensor([1.0]))
    tensor([0.5000])
    """
    return torch.sigmoid(mean + std * normal)


def interpolate(data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The point ``t * data + (1 - t) * noise`` of the straight path; plans (B, 8, D), time (B,)."""
    t = time[:, None, None]
    return t * data + (1 - t) * noise


def velocity_to(end: Tensor, point: Tensor, time: Tensor) -> Tensor:
    """Velocity at ``point`` that reaches ``end`` at t = 1: ``(end - point) / max(1 - t, 0.05)``.

    Args:
        end: (B, ..., 8, D) end points of the path.
        point: (B, ..., 8, D) where the path is now.
        time: (B,) or () times.

    >>> velocity_to(torch.ones(1, 8, 4), torch.zeros(1, 8, 4), torch.tensor([0.5])).unique()
    tensor([2.])
    """
    remaining = (1 - time).clamp(min=MIN_REMAINING_TIME)
    return (end - point) / remaining.reshape(*time.shape, *([1] * (point.dim() - time.dim())))
