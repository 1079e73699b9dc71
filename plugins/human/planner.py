"""Human replay: the driver's own plan, read from the targets; a bound for planners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from beyonddrive.plugins.base.planner import Inputs, Planner
from beyonddrive.plugins.base.preprocessor import PlannerInputError
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput


@MODELS.register_module()
class HumanReplay(Planner):
    """Returns ``data_samples.gt.trajectory``: ORACLE, it sees the future, and is no planner.

    It exists for the row "human" of a table, and to check a data set: what the driver did should score near
    the top. ``mode='tensor'`` without samples is refused, because inputs alone do not tell the future.

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
            "HumanReplay reads the driver's plan from data_samples and has no mode 'tensor'; use 'predict' "
            "with samples that have gt.trajectory"
        )

    def loss(self, inputs: Inputs, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_trajectory``: zero, the distance of the driver to himself."""
        plan = self.plan(inputs, samples).trajectory
        return {"loss_trajectory": torch.zeros((), device=plan.device)}

    def plan(self, inputs: Inputs, samples: Sequence[PlanSample] | None = None) -> PlanOutput:
        """Plans of a batch.

        Raises:
            PlannerInputError: If there are no samples to read from, or they do not know the driver's plan.
        """
        if not samples or any("_gt" not in sample or "trajectory" not in sample.gt for sample in samples):
            raise PlannerInputError(
                "HumanReplay needs data_samples with gt.trajectory: it replays the driver"
            )
        plan = stack_field(samples, "gt", "trajectory").to(inputs["status"].device)
        return PlanOutput(trajectory=plan, encoded=plan)
