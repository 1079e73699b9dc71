"""Turning and stretching the plans of a planner that is trained: the least that a score can be moved by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beyonddrive.structures.tokens import PlanOutput


@dataclass(frozen=True)
class PlanCalibration:
    """Plans turned about the ego and stretched along their way, all alike.

    A planner that is pushed away from failures plans further to the left, say, or slower, in every scene;
    that much can be had from two numbers, without a training. They are to be chosen on validation scenes
    (docs/negatives.md, "Calibration").

    Attributes:
        turn: Angle that plans are turned by, counter-clockwise [rad].
        stretch: Factor on positions; below 1 the plan is slower.

    Raises:
        ValueError: If ``stretch`` is not positive, or one of both is not finite.

    >>> plans = torch.tensor([[[1.0, 0.0, 0.0]] * 8])
    >>> PlanCalibration(turn=torch.pi / 2, stretch=2.0)(plans)[0, 0].round(decimals=4)
    tensor([0.0000, 2.0000, 1.5708])
    >>> PlanCalibration(stretch=0.0)
    Traceback (most recent call last):
        ...
    ValueError: PlanCalibration: stretch must be positive and turn finite, got stretch 0.0 and turn 0.0
    """

    turn: float = 0.0
    stretch: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.stretch < float("inf") or not abs(self.turn) < float("inf"):
            raise ValueError(
                f"PlanCalibration: stretch must be positive and turn finite, got stretch {self.stretch} and "
                f"turn {self.turn}"
            )

    def __call__(self, plans: Tensor) -> Tensor:
        """Plans (..., 8, 3): x [m], y [m], heading [rad] in the ego frame, calibrated."""
        cos, sin = self.stretch * math.cos(self.turn), self.stretch * math.sin(self.turn)
        x, y, heading = plans.unbind(dim=-1)
        return torch.stack([cos * x - sin * y, sin * x + cos * y, heading + self.turn], dim=-1)

    def of_output(self, output: PlanOutput) -> PlanOutput:
        """The plan and the proposals of a head, calibrated; ``encoded`` stays as the losses see it."""
        proposals = None if output.proposals is None else self(output.proposals)
        return replace(output, trajectory=self(output.trajectory), proposals=proposals)
