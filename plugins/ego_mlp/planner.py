"""Ego-status MLP: a planner that sees nothing but its own motion and the command (MODELS, section 9)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from beyonddrive.backbones.query_decoder import STATUS_DIM
from beyonddrive.plugins.base.head_planner import HeadPlanner
from beyonddrive.plugins.base.planner import Inputs
from beyonddrive.registry import MODELS
from beyonddrive.structures.tokens import SceneTokens

COMMAND_DIM = 4
"""Length of the driving command at the start of the status."""
LINEAR_HEAD: dict[str, Any] = {
    "type": "AbsoluteTrajectoryHead",
    "hidden": None,
    "bounded_heading": False,
    "loss": {"type": "PlanL1Loss", "weight": 1.0},
}
"""The published head: one linear layer, raw poses."""


@MODELS.register_module()
class EgoStatusMLP(HeadPlanner):
    """Ego status -> plan, without looking; the blind baseline.

    Args:
        hidden: Width of the hidden layers.
        num_layers: Hidden layers.
        trajectory_head: Settings of the head on the last hidden layer, bare or wrapped; :data:`LINEAR_HEAD`
            by default. Its ``in_channels`` is ``hidden`` unless given.
        kwargs: As for :class:`HeadPlanner`.
    """

    required_inputs = ("status",)

    def __init__(
        self,
        hidden: int = 512,
        num_layers: int = 3,
        trajectory_head: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        head = _with_input(trajectory_head or LINEAR_HEAD, hidden)
        preprocessor = data_preprocessor or {"type": "PlannerDataPreprocessor", "keys": ["status"]}
        super().__init__(trajectory_head=head, data_preprocessor=preprocessor, **kwargs)
        widths = [STATUS_DIM] + [hidden] * num_layers
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)

    def encode(self, inputs: Inputs) -> SceneTokens:
        """One query per scene; the published network takes the command last."""
        status = inputs["status"]
        ordered = torch.cat([status[:, COMMAND_DIM:], status[:, :COMMAND_DIM]], dim=1)
        return SceneTokens(queries=self.encoder(ordered)[:, None], status=status)


def _with_input(head: dict[str, Any], in_channels: int) -> dict[str, Any]:
    if "head" in head:
        return {**head, "head": _with_input(head["head"], in_channels)}
    return {"in_channels": in_channels, **head}
