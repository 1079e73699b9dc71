"""A planner's own plans as proposals: what it would drive now, its other modes, and what lies near them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from beyonddrive.generators.strategies import StrategyError, Stream, scene_generators
from beyonddrive.registry import STRATEGIES
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.sample import PlanSample

FULL_SHIFT_WAY = 10.0
"""Metres that a plan must drive to be moved sideways in full; a car that stands cannot be."""


@STRATEGIES.register_module()
class OwnPlans:
    """The plans of any planner, perturbed: proposals for mining its own failures.

    First the plan itself, then the modes of a multi-modal planner, best first if it scores them, then these
    plans in turn, each stretched along its way and bent sideways more and more towards its end.

    Args:
        num_proposals: Plans per scene; modes beyond it are left out.
        stretch: Standard deviation of the logarithm of the factor on the way driven.
        lateral: Standard deviation of the sideways shift of the last pose [m].

    Raises:
        StrategyError: If a value is out of range.

    >>> OwnPlans(num_proposals=4).config
    {'type': 'OwnPlans', 'num_proposals': 4, 'stretch': 0.1, 'lateral': 1.0}
    """

    def __init__(self, num_proposals: int = 16, stretch: float = 0.1, lateral: float = 1.0) -> None:
        if num_proposals < 1 or not 0.0 <= stretch < math.inf or not 0.0 <= lateral < math.inf:
            raise StrategyError(
                f"OwnPlans: num_proposals must be at least 1, stretch and lateral not negative, got "
                f"{num_proposals}, {stretch} and {lateral}"
            )
        self.num_proposals, self.stretch, self.lateral = num_proposals, stretch, lateral

    @property
    def config(self) -> dict[str, Any]:
        """Config that builds the same strategy."""
        return {
            "type": type(self).__name__,
            "num_proposals": self.num_proposals,
            "stretch": self.stretch,
            "lateral": self.lateral,
        }

    def __call__(
        self,
        planner: Any,
        inputs: dict[str, Tensor],
        tokens: Sequence[str],
        seed: int = 0,
        stream: Stream = (),
    ) -> Tensor:
        """Plans (B, num_proposals, 8, 3); see :class:`beyonddrive.generators.strategies.Strategy`.

        Raises:
            StrategyError: If the planner does not predict.
        """
        own = own_plans(predict(planner, inputs, tokens), self.num_proposals)
        missing = self.num_proposals - own.shape[1]
        if not missing:
            return own
        draws = [torch.randn(missing, 2, generator=scene) for scene in scene_generators(seed, tokens, stream)]
        base = own[:, torch.arange(missing, device=own.device) % own.shape[1]]
        noise = torch.stack(draws).to(own)
        return torch.cat([own, perturb(base, self.stretch * noise[..., 0], self.lateral * noise[..., 1])], 1)


def predict(planner: Any, inputs: dict[str, Tensor], tokens: Sequence[str]) -> list[PlanSample]:
    """What the planner drives in these scenes: what an evaluation judges, the noise of the token included.

    Raises:
        StrategyError: If the planner does not predict.
    """
    samples = [PlanSample(metainfo={"token": token}) for token in tokens]
    try:
        predicted: list[PlanSample] = planner(inputs, samples, mode="predict")
    except TypeError as error:
        if callable(planner):
            raise
        raise StrategyError(f"{type(planner).__name__} is no planner: it does not predict") from error
    return predicted


def own_plans(samples: Sequence[PlanSample], limit: int) -> Tensor:
    """The plan and the modes (B, at most ``limit``, 8, 3) that were predicted, best modes first."""
    plans = torch.stack([sample.pred.trajectory for sample in samples])[:, None]
    if limit == 1 or "proposals" not in samples[0].pred:
        return plans
    modes = torch.stack([sample.pred.proposals for sample in samples])
    if "scores" in samples[0].pred:
        scores = torch.stack([sample.pred.scores for sample in samples])
        order = scores.argsort(dim=1, descending=True, stable=True)
        modes = modes.gather(1, order[:, :, None, None].expand_as(modes))
    return torch.cat([plans, modes[:, : limit - 1]], dim=1)


def perturb(plans: Tensor, stretch: Tensor, lateral: Tensor) -> Tensor:
    """Stretch plans along their way and bend them sideways.

    Args:
        plans: (..., 8, 3) plans.
        stretch: (...) logarithm of the factor on the way.
        lateral: (...) shift of the last pose to its left [m]; earlier poses are shifted by the square of
            their share of the time, all by less if the plan drives less than :data:`FULL_SHIFT_WAY`.

    >>> ahead = torch.zeros(8, 3); ahead[:, 0] = torch.arange(1.0, 9.0) * 2.0
    >>> moved = perturb(ahead, torch.tensor(math.log(1.5)), torch.tensor(2.0))
    >>> moved[-1, :2].tolist()
    [24.0, 2.0]
    """
    xy = plans[..., :2] * stretch.exp()[..., None, None]
    way = torch.diff(xy, dim=-2, prepend=torch.zeros_like(xy[..., :1, :])).norm(dim=-1)  # (..., 8)
    share = torch.arange(1, NUM_POSES + 1, device=plans.device, dtype=plans.dtype) / NUM_POSES
    full = (way.sum(dim=-1) / FULL_SHIFT_WAY).clamp(max=1.0)
    shift = (lateral * full)[..., None] * share**2
    heading = plans[..., 2]
    left = torch.stack([-heading.sin(), heading.cos()], dim=-1)
    rise = torch.diff(shift, dim=-1, prepend=torch.zeros_like(shift[..., :1]))
    turned = heading + torch.atan2(rise, way.clamp(min=0.1))
    return torch.cat([xy + shift[..., None] * left, turned[..., None]], dim=-1)
