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

PERTURBED_SHARE = 0.25
"""Share of the proposals, rounded down, that modes leave to perturbed plans."""
FULL_SHIFT_WAY = 10.0
"""Metres that a plan must drive to be moved sideways in full; a car that stands cannot be."""


@STRATEGIES.register_module()
class OwnPlans:
    """The plans of any planner, perturbed: proposals for mining its own failures.

    First the plan itself, then the other modes of a multi-modal planner, best first if it scores them, then
    these plans in turn, each stretched along its way and bent sideways more and more towards its end. A mode
    that is the plan is not repeated, and modes leave a quarter of the places (:data:`PERTURBED_SHARE`) to
    plans that are stretched or bent, if that is asked for.

    Args:
        num_proposals: Plans per scene; modes that find no place are left out.
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
        plans = []
        scenes = scene_generators(seed, tokens, stream)
        for sample, scene in zip(predict(planner, inputs, tokens), scenes, strict=True):
            own = own_plans(sample, self.num_proposals - self._num_perturbed)
            missing = self.num_proposals - len(own)
            base = own[torch.arange(missing, device=own.device) % len(own)]
            noise = torch.randn(missing, 2, generator=scene).to(own)
            near = perturb(base, self.stretch * noise[:, 0], self.lateral * noise[:, 1])
            plans.append(torch.cat([own, near]))
        return torch.stack(plans)

    @property
    def _num_perturbed(self) -> int:
        """Perturbed plans that there are at least."""
        return int(PERTURBED_SHARE * self.num_proposals) if self.stretch or self.lateral else 0


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


def own_plans(sample: PlanSample, limit: int) -> Tensor:
    """The plan of a scene and its other modes (at most ``limit``, 8, 3), best modes first."""
    plan = sample.pred.trajectory[None]
    if "proposals" not in sample.pred:
        return plan
    modes = sample.pred.proposals
    if "scores" in sample.pred:
        modes = modes[sample.pred.scores.argsort(descending=True, stable=True)]
    others = modes[(modes != plan).flatten(1).any(dim=1)]
    return torch.cat([plan, others[: limit - 1]])


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
