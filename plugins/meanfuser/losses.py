"""Mean flow on plans: the average velocity between two times, learned in one pass (MODELS, section 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from beyonddrive.structures.scene_random import SceneRandom


@dataclass
class MeanFlowDraws:
    """The random numbers of one training step, so that a step can be repeated exactly.

    Attributes:
        noise: (B, K, 8, D) standard normal, one per component of the mixture.
        times: (B, 2) standard normal, turned into two times by :func:`interval`.
        instant: (B,) uniform in [0, 1), compared with the probability of an interval of length 0.
    """

    noise: Tensor
    times: Tensor
    instant: Tensor

    @classmethod
    def sample(cls, random: SceneRandom, shape: tuple[int, int, int]) -> MeanFlowDraws:
        """Draw in the order noise, times, instant for noise of ``shape`` (K, 8, D).

        >>> MeanFlowDraws.sample(SceneRandom([], 2, torch.device('cpu')), (8, 8, 4)).times.shape
        torch.Size([2, 2])
        """
        return cls(random.normal(*shape), random.normal(2), random.uniform())


def interval(
    normal: Tensor, instant: Tensor, mean: float = -0.4, std: float = 1.0, probability: float = 0.5
) -> Tensor:
    """Pairs of times r <= t in (0, 1) from standard-normal draws; 1 is noise, 0 is data.

    Args:
        normal: (B, 2) draws, turned into times by ``sigmoid(mean + std * normal)``.
        instant: (B,) uniform draws; where they are below ``probability``, r = t.
        mean: Mean of the logit of a time.
        std: Its standard deviation.
        probability: Share of samples with r = t, for which the mean velocity is the velocity.

    Returns:
        (B, 2) with r and t.

    >>> interval(torch.tensor([[1.4, 0.4], [1.4, 0.4]]), torch.tensor([0.9, 0.1]))
    tensor([[0.5000, 0.7311],
            [0.7311, 0.7311]])
    """
    times = torch.sigmoid(mean + std * normal).sort(dim=1).values
    start = torch.where(instant < probability, times[:, 1], times[:, 0])
    return torch.stack([start, times[:, 1]], dim=1)


def mean_velocity(
    network: Callable[[Tensor, Tensor], Tensor], point: Tensor, times: Tensor, velocity: Tensor
) -> Tensor:
    """What a mean velocity predicted by the network says of the velocity at ``point``.

    For the mean velocity u between r and t, ``u + (t - r) du/dt`` is the velocity at t, where du/dt is taken
    along the path and gets no gradient.

    Args:
        network: (points (B, 8, D), times (B, 2)) -> mean velocities (B, 8, D).
        point: (B, 8, D) points of the paths at t.
        times: (B, 2) r and t.
        velocity: (B, 8, D) velocities of the paths.

    Returns:
        (B, 8, D), to be compared with ``velocity``.
    """
    tangent = torch.stack([torch.zeros_like(times[:, 0]), torch.ones_like(times[:, 1])], dim=1)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
        mean, change = torch.func.jvp(network, (point, times), (velocity, tangent))[:2]
    return mean + (times[:, 1] - times[:, 0])[:, None, None] * change.detach()
