"""``RepulsiveHead`` makes a BeyondDrive planner of any planner (METHOD, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.heads.base import TrajectoryHead
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput, SceneTokens


@MODELS.register_module()
class RepulsiveHead(TrajectoryHead):
    """Wraps a trajectory head: plans as it does, and repels its training output from hard negatives.

    A head that is supervised after each of several layers is repelled after each, and the terms are summed.

    Adds ``loss_repulsive`` to the head's terms, and logs ``negative_share``, the share of samples of the
    batch whose negative counts.

    A checkpoint of the wrapped planner has the same keys as one of the bare planner, so either loads into
    the other.

    Args:
        head: Settings of the wrapped :class:`TrajectoryHead`.
        loss: Settings of the repulsion, a :class:`RepulsiveDistanceLoss`. ``attraction_weight`` is taken from
            the head if it is not given.

    Raises:
        ValueError: If the head has no attraction to oppose, if the given ``attraction_weight`` is not the
            head's, or if the repulsion is not weaker than it.

    >>> head = RepulsiveHead(
    ...     head=dict(type='DeltaTrajectoryHead', in_channels=8, hidden=8),
    ...     loss=dict(type='RepulsiveDistanceLoss', weight=5.0, attraction_weight=10.0))
    >>> sorted(head.state_dict())[:3]
    ['delta.mean', 'delta.scale', 'mlp.0.bias']
    """

    def __init__(self, head: dict[str, Any], loss: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.head: TrajectoryHead = MODELS.build(head)
        weight = self.head.attraction_weight
        if weight is None:
            raise ValueError(
                f"RepulsiveHead: {type(self.head).__name__} has no attraction_weight, so nothing would hold "
                f"the plan against the repulsion; wrap a head that pulls its plan to the expert"
            )
        settings = {"type": "RepulsiveDistanceLoss", "attraction_weight": weight, **(loss or {})}
        if settings["attraction_weight"] != weight:
            raise ValueError(
                f"RepulsiveHead: loss.attraction_weight is {settings['attraction_weight']}, but the "
                f"attraction of {type(self.head).__name__} has weight {weight}: make them equal, or leave "
                f"attraction_weight out"
            )
        self.repulsion = MODELS.build(settings)
        self.space = self.head.space
        self.attraction_weight = weight
        self.register_state_dict_post_hook(_unwrap_keys)
        self.register_load_state_dict_pre_hook(_wrap_keys)

    @property
    def bare(self) -> TrajectoryHead:
        """The wrapped head."""
        return self.head.bare

    def forward(self, tokens: SceneTokens, **kwargs: Any) -> PlanOutput:
        """The wrapped head's plan."""
        return self.head(tokens, **kwargs)

    def training_output(
        self, tokens: SceneTokens, samples: Sequence[PlanSample], **kwargs: Any
    ) -> PlanOutput:
        """The wrapped head's training output."""
        return self.head.training_output(tokens, samples, **kwargs)

    def loss(self, output: PlanOutput, samples: Sequence[PlanSample]) -> dict[str, Tensor]:
        """The wrapped head's terms, ``loss_repulsive``, and the figures to log.

        Raises:
            KeyError: If a sample has no ``negatives``; a scene without negatives has a mask of False.
        """
        losses = self.head.loss(output, samples)
        prediction = self.supervised(output, samples)
        plans = stack_field(samples, "negatives", "plans").to(prediction.device, torch.float32)
        valid = stack_field(samples, "negatives", "valid").to(prediction.device, torch.bool)
        valid = self.repulsion.counted(plans, valid)
        negatives = self.encode(plans)
        layers = prediction.unsqueeze(1) if prediction.dim() == 3 else prediction  # (B, L, 8, D)
        terms = [self.repulsion(layer, negatives, valid) for layer in layers.unbind(dim=1)]
        losses["loss_repulsive"] = torch.stack(terms).sum()
        losses["negative_share"] = valid.any(dim=1).float().mean()
        return losses

    def supervised(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor:
        """The wrapped head's supervised plans."""
        return self.head.supervised(output, samples)

    def modes(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor | None:
        """The wrapped head's modes."""
        return self.head.modes(output, samples)

    def encode(self, plans: Tensor) -> Tensor:
        """Plans -> the wrapped head's own space."""
        return self.head.encode(plans)

    def decode(self, encoded: Tensor) -> Tensor:
        """The wrapped head's own space -> plans."""
        return self.head.decode(encoded)

    def tensors(self, output: PlanOutput) -> dict[str, Tensor]:
        """The wrapped head's raw outputs."""
        return self.head.tensors(output)


def _unwrap_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]) -> None:
    """Save ``<prefix>head.x`` as ``<prefix>x``."""
    wrapped = prefix + "head."
    for key in [key for key in state if key.startswith(wrapped)]:
        state[prefix + key[len(wrapped) :]] = state.pop(key)


def _wrap_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Load ``<prefix>x`` as ``<prefix>head.x``."""
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + "head." + key[len(prefix) :]] = state.pop(key)
