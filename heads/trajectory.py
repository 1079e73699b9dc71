"""Regression heads: the trajectory query -> one plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.heads.base import Space, TrajectoryHead, as_poses, bound_heading
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput, SceneTokens, check_channels


class RegressionHead(TrajectoryHead):
    """MLP on query 0, trained by L1 to the expert in the head's own space.

    Args:
        space: ``'absolute'`` or ``'delta'``.
        in_channels: Channels of a query.
        hidden: Width of the hidden layer; None for a single linear layer.
        activation: Class of ``torch.nn``.
        statistics: Arguments of :class:`DeltaSpace` in delta space; those of navtrain by default.
        loss: Attraction; :class:`PlanL1Loss` of weight 10 by default.

    Raises:
        ValueError: If the attraction has no ``weight``, or torch no such activation.
    """

    def __init__(
        self,
        space: Space,
        in_channels: int,
        hidden: int | None,
        activation: str,
        statistics: dict[str, Any] | None,
        loss: dict[str, Any] | None,
    ) -> None:
        super().__init__(space, statistics)
        self.attraction = MODELS.build(loss or {"type": "PlanL1Loss", "weight": 10.0})
        if not hasattr(self.attraction, "weight"):
            raise ValueError(
                f"{type(self).__name__}: loss {type(self.attraction).__name__} has no attribute weight, "
                f"below which a repulsion has to stay: set self.weight, its slope far from the expert"
            )
        self.attraction_weight = self.attraction.weight
        if not hasattr(nn, activation):
            raise ValueError(f"{type(self).__name__}: activation {activation!r} is no class of torch.nn")
        self.in_channels = in_channels
        outputs = NUM_POSES * self.pose_dim
        if hidden is None:
            self.mlp = nn.Sequential(nn.Linear(in_channels, outputs))
        else:
            self.mlp = nn.Sequential(
                nn.Linear(in_channels, hidden), getattr(nn, activation)(), nn.Linear(hidden, outputs)
            )

    def query(self, tokens: SceneTokens) -> Tensor:
        """The trajectory query (B, d).

        Raises:
            ValueError: If it has other channels than the head was built for.
        """
        query = tokens.queries[:, 0]
        check_channels(type(self).__name__, self.in_channels, query.shape[-1], "queries")
        return query

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """``loss_trajectory``: weighted L1."""
        return {"loss_trajectory": self.attraction(output.encoded, self.expert(samples, output.encoded))}


@MODELS.register_module()
class AbsoluteTrajectoryHead(RegressionHead):
    """Poses in metres and radians (MODELS, section 3).

    Args:
        in_channels: Channels of a query.
        hidden: Width of the hidden layer: 1024 in TransFuser and LTF, 256 in LTF* without delta space, None
            for a single linear layer.
        activation: Class of ``torch.nn``: ReLU in TransFuser and LTF, SiLU in LTF* without delta space.
        bounded_heading: Heading = pi * tanh(raw) instead of raw.
        loss: Attraction; :class:`PlanL1Loss` of weight 10 by default.
    """

    def __init__(
        self,
        in_channels: int = 256,
        hidden: int | None = 1024,
        activation: str = "ReLU",
        bounded_heading: bool = True,
        loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__("absolute", in_channels, hidden, activation, None, loss)
        self.bounded_heading = bounded_heading

    def forward(self, tokens: SceneTokens) -> PlanOutput:
        """Plans of a batch; ``encoded`` is ``trajectory``."""
        query = self.query(tokens)
        if torch.is_autocast_enabled(query.device.type):
            # Beyond 32 m a number in bfloat16 is off by up to an eighth of a metre.
            with torch.autocast(query.device.type, enabled=False):
                outputs = self.mlp(query.float())
        else:
            outputs = self.mlp(query)
        plan = as_poses(outputs, self.pose_dim)
        if self.bounded_heading:
            plan = bound_heading(plan)
        return PlanOutput(trajectory=plan, encoded=plan)


@MODELS.register_module()
class DeltaTrajectoryHead(RegressionHead):
    """Normalised steps, sine and cosine of the heading (MODELS, section 4).

    Args:
        in_channels: Channels of a query.
        hidden: Width of the hidden layer.
        activation: Class of ``torch.nn``.
        statistics: Arguments of :class:`DeltaSpace`; those of navtrain by default.
        loss: Attraction; :class:`PlanL1Loss` of weight 10 by default.
    """

    def __init__(
        self,
        in_channels: int = 256,
        hidden: int | None = 256,
        activation: str = "SiLU",
        statistics: dict[str, Any] | None = None,
        loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__("delta", in_channels, hidden, activation, statistics, loss)

    def forward(self, tokens: SceneTokens) -> PlanOutput:
        """Plans of a batch; ``encoded`` holds the steps."""
        encoded = as_poses(self.mlp(self.query(tokens)), self.pose_dim)
        return PlanOutput(trajectory=self.decode(encoded), encoded=encoded)
