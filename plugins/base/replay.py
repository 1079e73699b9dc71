"""The base of what is no planner: plans that somebody else made, read from the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from beyonddrive.plugins.base.planner import Inputs, Planner
from beyonddrive.plugins.base.preprocessor import PlannerInputError
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput


class ReplayPlanner(Planner):
    """Returns ``data_samples.gt.trajectory``.

    ``mode='tensor'`` without samples is refused, because inputs alone do not tell the plan.

    Args:
        data_preprocessor: Settings of the preprocessor; by default it passes on the status only.
    """

    required_inputs = ("status",)
    oracle = True

    def __init__(self, data_preprocessor: dict[str, Any] | None = None) -> None:
        super().__init__(data_preprocessor or {"type": "PlannerDataPreprocessor", "keys": ["status"]})

    def tensors(self, inputs: Inputs) -> dict[str, Tensor]:
        """Refuse: there is nothing to compute.

        Raises:
            PlannerInputError: Always.
        """
        raise PlannerInputError(
            f"{type(self).__name__} reads the driver's plan from data_samples and has no mode 'tensor'; use "
            "'predict' with samples that have gt.trajectory"
        )

    def loss(self, inputs: Inputs, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_trajectory``: zero, the distance of the plan to itself."""
        plan = self.plan(inputs, samples).trajectory
        return {"loss_trajectory": torch.zeros((), device=plan.device)}

    def plan(self, inputs: Inputs, samples: Sequence[PlanSample] | None = None) -> PlanOutput:
        """Plans of a batch.

        Raises:
            PlannerInputError: If there are no samples to read from, or they do not know the plan.
        """
        if not samples or any("_gt" not in sample or "trajectory" not in sample.gt for sample in samples):
            raise PlannerInputError(
                f"{type(self).__name__} needs data_samples with gt.trajectory: it replays what is there"
            )
        plan = stack_field(samples, "gt", "trajectory").to(inputs["status"].device)
        return PlanOutput(trajectory=plan, encoded=plan)
