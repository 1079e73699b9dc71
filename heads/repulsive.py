"""``RepulsiveHead`` makes a BeyondDrive planner of any planner (METHOD, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.heads.base import TrajectoryHead
from beyonddrive.losses.repulsive import Negatives, RepulsiveDistanceLoss
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample, stack_field
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.transfers import to_device

_OF_SAMPLES = ("valid_rule", "average", "count_over")
"""Settings of a repulsion that say which samples are repelled, and among how many each counts."""


@MODELS.register_module()
class RepulsiveHead(TrajectoryHead):
    """Wraps a trajectory head: plans as it does, and repels its training output from hard negatives.

    A head that is supervised after each of several layers is repelled after each, and the terms are summed.

    Adds ``loss_repulsive`` to the head's terms, ``loss_repulsive_modes`` with a ``mode_loss``, and logs
    ``negative_share``, the share of samples of the batch whose negative counts.

    A checkpoint of the wrapped planner has the same keys as one of the bare planner, so either loads into
    the other; only a repulsion of one's own that keeps something adds its own.

    Args:
        head: Settings of the wrapped :class:`TrajectoryHead`.
        loss: Settings of the repulsion, a :class:`RepulsiveDistanceLoss`. ``attraction_weight`` is taken from
            the head if it is not given.
        mode_loss: Settings of a second repulsion that acts on every mode of a multi-modal head, not only on
            the supervised one, averaged over the modes; None for none. It must have a margin: nothing holds
            the modes that are not supervised. What it does not say of ``valid_rule``, ``average`` and
            ``count_over`` is as in ``loss``.

    Raises:
        ValueError: If the head is no trajectory head or is repelled already, if it has no attraction to
            oppose, if the given ``attraction_weight`` is not the head's, if the repulsion is not weaker than
            it, or if ``mode_loss`` has no margin.

    >>> head = RepulsiveHead(
    ...     head=dict(type='DeltaTrajectoryHead', in_channels=8, hidden=8),
    ...     loss=dict(type='RepulsiveDistanceLoss', weight=5.0, attraction_weight=10.0))
    >>> sorted(head.state_dict())[:3]
    ['delta.mean', 'delta.scale', 'mlp.0.bias']
    """

    def __init__(
        self,
        head: dict[str, Any],
        loss: dict[str, Any] | None = None,
        mode_loss: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.head: TrajectoryHead = MODELS.build(head)
        if not isinstance(self.head, TrajectoryHead):
            raise ValueError(
                f"RepulsiveHead: the head must be a TrajectoryHead, got {type(self.head).__name__}"
            )
        if self.head.bare is not self.head:
            raise ValueError(
                "RepulsiveHead: the head is a RepulsiveHead already, and would be repelled twice: set the "
                "planner's repulsion, or make its trajectory_head a RepulsiveHead, not both"
            )
        weight = self.head.attraction_weight
        if weight is None:
            raise ValueError(
                f"RepulsiveHead: {type(self.head).__name__} has no attraction_weight, so nothing would hold "
                f"the plan against the repulsion; wrap a head that pulls its plan to the expert"
            )
        if mode_loss is not None and mode_loss.get("margin") is None:
            raise ValueError(
                "RepulsiveHead: mode_loss needs a margin: modes that are not supervised are held by nothing "
                "else. Set mode_loss.margin, with margin_unit='expert' for instance 1.0"
            )
        self.repulsion = self._build_loss(loss, weight)
        self.mode_repulsion: RepulsiveDistanceLoss | None = None
        if mode_loss is not None:
            shared = {key: value for key, value in (loss or {}).items() if key in _OF_SAMPLES}
            self.mode_repulsion = self._build_loss({**shared, **mode_loss}, weight)
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
            ValueError: If the negatives lack what the settings of a repulsion read, or no term of the wrapped
                head is summed.
        """
        losses = self.head.loss(output, samples)
        if not any("loss" in name for name in losses):
            raise ValueError(
                f"RepulsiveHead: nothing holds the plan: terms with 'loss' in their name are summed, and the "
                f"loss of {type(self.bare).__name__} gives {sorted(losses)}: rename the attraction"
            )
        layers = self.supervised(output, samples)
        layers = layers.unsqueeze(1) if layers.dim() == 3 else layers  # (B, L, 8, D)
        negatives = self._negatives(self.repulsion, samples, layers)
        terms = [self.repulsion(layer, negatives, self.difference) for layer in layers.unbind(dim=1)]
        losses["loss_repulsive"] = torch.stack(terms).sum()
        if self.mode_repulsion is not None:
            losses["loss_repulsive_modes"] = self._repel_modes(self.mode_repulsion, output, samples)
        losses["negative_share"] = negatives.valid.any(dim=1).float().mean()
        return losses

    def _repel_modes(
        self, repulsion: RepulsiveDistanceLoss, output: PlanOutput, samples: Sequence[PlanSample]
    ) -> Tensor:
        modes = self.modes(output, samples)
        if modes is None:
            raise ValueError(
                f"RepulsiveHead: mode_loss is set, but {type(self.bare).__name__} shows no modes: leave "
                f"mode_loss out, or wrap a multi-modal head"
            )
        negatives = self._negatives(repulsion, samples, modes)
        return repulsion(modes.flatten(0, 1), negatives.repeat(modes.shape[1]), self.difference)

    def _build_loss(self, loss: dict[str, Any] | None, weight: float) -> RepulsiveDistanceLoss:
        settings = {"type": "RepulsiveDistanceLoss", "attraction_weight": weight, **(loss or {})}
        if settings["attraction_weight"] != weight:
            raise ValueError(
                f"RepulsiveHead: loss.attraction_weight is {settings['attraction_weight']}, but the "
                f"attraction of {type(self.head).__name__} has weight {weight}: make them equal, or leave "
                f"attraction_weight out"
            )
        built: RepulsiveDistanceLoss = MODELS.build(settings)
        return built

    def _negatives(
        self, repulsion: RepulsiveDistanceLoss, samples: Sequence[PlanSample], like: Tensor
    ) -> Negatives:
        """The negatives of a batch as ``repulsion`` reads them, on the device of ``like``."""
        plans = to_device(stack_field(samples, "negatives", "plans"), like.device, torch.float32)
        valid = to_device(stack_field(samples, "negatives", "valid"), like.device, torch.bool)
        columns = times = expert = None
        if repulsion.needs_columns:
            columns = stack_field(samples, "negatives", "columns")
            repulsion.check_columns(columns)
            columns = to_device(columns, like.device)
        if repulsion.needs_times:
            if any("times" not in sample.negatives for sample in samples):
                raise ValueError(
                    "RepulsiveHead: loss.window needs to know when negatives fail, which these "
                    "samples do not say: load negatives by LoadNegatives, or leave window out"
                )
            times = to_device(stack_field(samples, "negatives", "times"), like.device, torch.float32)
        if repulsion.needs_expert:
            expert = self.expert(samples, like)
        return Negatives(self.encode(plans), repulsion.counted(plans, valid), columns, times, expert)

    def supervised(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor:
        """The wrapped head's supervised plans (B, 8, D) or (B, L, 8, D), in its own space."""
        return self.head.supervised(output, samples)

    def modes(self, output: PlanOutput, samples: Sequence[PlanSample]) -> Tensor | None:
        """The wrapped head's modes (B, M, 8, D), in its own space; None if it has one."""
        return self.head.modes(output, samples)

    def encode(self, plans: Tensor) -> Tensor:
        """Plans (..., 8, 3) in metres and radians -> the wrapped head's own space (..., 8, D)."""
        return self.head.encode(plans)

    def decode(self, encoded: Tensor) -> Tensor:
        """The wrapped head's own space (..., 8, D) -> plans (..., 8, 3) in metres and radians."""
        return self.head.decode(encoded)

    def difference(self, plans: Tensor, others: Tensor) -> Tensor:
        """The wrapped head's difference of plans in its own space."""
        return self.head.difference(plans, others)

    def tensors(self, output: PlanOutput) -> dict[str, Tensor]:
        """The wrapped head's raw outputs."""
        return self.head.tensors(output)


def _unwrap_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]) -> None:
    """Save ``<prefix>head.x`` as ``<prefix>x``."""
    wrapped = prefix + "head."
    for key in [key for key in state if key.startswith(wrapped)]:
        state[prefix + key[len(wrapped) :]] = state.pop(key)


def _wrap_keys(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Load ``<prefix>x`` as ``<prefix>head.x``, but for what a repulsion of one's own keeps."""
    own = {
        f"{prefix}{name}.{key}"
        for name, part in module.named_children()
        if name != "head"
        for key in part.state_dict()
    }
    for key in [key for key in state if key.startswith(prefix) and key not in own]:
        state[prefix + "head." + key[len(prefix) :]] = state.pop(key)
