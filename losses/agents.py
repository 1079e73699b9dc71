"""Detection of the agents around the ego: Hungarian matching, class and box terms (MODELS, section 3)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from beyonddrive.losses.counted_mean import CountOver, check_count_over, counted_mean
from beyonddrive.registry import MODELS
from beyonddrive.structures.host_work import solve_on_host

CAMERA_FIELD_OF_VIEW = 4 * math.pi / 9
"""Largest bearing [rad], to either side, at which the three front cameras see an agent (80 degrees)."""


def visible(states: Tensor, labels: Tensor, max_bearing: float) -> Tensor:
    """Labels (B, N) of the agents (B, N, 5) whose bearing from the ego is at most ``max_bearing`` [rad].

    >>> states = torch.tensor([[[1.0, 0, 0, 4, 2], [-1.0, 0, 0, 4, 2]]])
    >>> visible(states, torch.tensor([[True, True]]), CAMERA_FIELD_OF_VIEW)
    tensor([[ True, False]])
    """
    return labels & (torch.atan2(states[..., 1], states[..., 0]).abs() <= max_bearing)


@torch.no_grad()
def match_agents(
    states: Tensor, logits: Tensor, gt_states: Tensor, gt_labels: Tensor, class_cost: float, box_cost: float
) -> Tensor:
    """Cheapest one-to-one assignment of targets to predictions.

    The cost of a pair is ``class_cost`` times the binary cross-entropy of the logit against the target's
    label, plus ``box_cost`` times |dx| + |dy| where the target is valid.

    Args:
        states: (B, N, 5) predictions: x, y, heading, length, width.
        logits: (B, N) existence logits.
        gt_states: (B, N, 5) targets.
        gt_labels: (B, N) bool, which targets are valid.
        class_cost: Weight of the class cost.
        box_cost: Weight of the distance.

    Returns:
        (B, N) int64: for every prediction the index of its target.

    Raises:
        ValueError: If a cost is not finite, as after a diverged step.
    """
    labels = gt_labels[:, None, :].float()  # (B, 1, N) against predictions (B, N, 1)
    pair_logits = logits[:, :, None].expand(-1, -1, labels.shape[-1])
    cost = class_cost * F.binary_cross_entropy_with_logits(
        pair_logits, labels.expand_as(pair_logits), reduction="none"
    )
    distance = (states[:, :, None, :2] - gt_states[:, None, :, :2]).abs().sum(dim=-1)
    cost = cost + box_cost * labels * distance
    return solve_on_host(cost.double(), _assign)


def _assign(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Column (B, N) of every row of cost matrices (B, N, N), each column once, at the least sum."""
    if not np.isfinite(costs).all():
        raise ValueError(
            "match_agents: the matching cost is NaN or infinite: the agent predictions or targets hold such "
            "values; check the learning rate, or the targets of this batch"
        )
    return np.stack([linear_sum_assignment(matrix)[1] for matrix in costs]).astype(np.int64)


def agent_losses(
    states: Tensor,
    logits: Tensor,
    gt_states: Tensor,
    gt_labels: Tensor,
    matches: Tensor,
    count_over: CountOver = "all_ranks",
) -> tuple[Tensor, Tensor]:
    """Class and box loss, unweighted, of predictions matched to targets.

    Args:
        states: (B, N, 5) predictions.
        logits: (B, N) existence logits.
        gt_states: (B, N, 5) targets.
        gt_labels: (B, N) bool, which targets are valid.
        matches: (B, N) target index of every prediction.
        count_over: Whether the valid targets of all ranks are counted, or the own ones.

    Returns:
        Binary cross-entropy, mean over B * N; and L1 summed over the five components of the matched valid
        pairs, divided by the number of valid targets in the batch (at least 1); see :func:`counted_mean`.
    """
    labels = gt_labels.gather(1, matches).float()
    targets = gt_states.gather(1, matches[..., None].expand_as(states))
    classification = F.binary_cross_entropy_with_logits(logits, labels)
    distance = F.l1_loss(states, targets, reduction="none").sum(dim=-1)
    box = counted_mean((distance * labels).sum(), gt_labels.sum(), count_over)
    return classification, box


@MODELS.register_module()
class HungarianAgentLoss(nn.Module):
    """Matches predicted agents to targets and returns the weighted class and box terms.

    Args:
        class_weight: Weight of the class term, and of the class cost in the matching.
        box_weight: Weight of the box term, and of the distance in the matching.
        max_bearing: Targets beyond this bearing [rad] do not count. Give
            :data:`CAMERA_FIELD_OF_VIEW` (80 degrees) to planners without LiDAR; None keeps all.
        count_over: In distributed training the box term is divided by the number of valid targets of all
            ranks; ``'own_rank'``: of the rank's own batch, as in the release.

    With both weights 0 nothing is matched and no term is returned (MODELS, section 11, quirk 8).
    """

    def __init__(
        self,
        class_weight: float = 10.0,
        box_weight: float = 1.0,
        max_bearing: float | None = None,
        count_over: CountOver = "all_ranks",
    ) -> None:
        super().__init__()
        if class_weight < 0 or box_weight < 0:
            raise ValueError(
                f"HungarianAgentLoss: weights must not be negative, got {class_weight}, {box_weight}"
            )
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.max_bearing = max_bearing
        self.count_over = check_count_over(count_over, "HungarianAgentLoss")

    @property
    def active(self) -> bool:
        """Whether there is anything to compute."""
        return self.class_weight > 0 or self.box_weight > 0

    def forward(
        self, states: Tensor, logits: Tensor, gt_states: Tensor, gt_labels: Tensor
    ) -> dict[str, Tensor]:
        """Weighted terms ``loss_agent_class`` and ``loss_agent_box``; see :func:`agent_losses` for shapes.

        Raises:
            ValueError: If there are not as many predictions as targets.
        """
        if not self.active:
            return {}
        # (of more targets than predictions the cheapest would be matched, which are those of no agent)
        if states.shape[1] != gt_states.shape[1]:
            raise ValueError(
                f"HungarianAgentLoss: {states.shape[1]} agents are predicted and the targets have "
                f"{gt_states.shape[1]} rows: make num_agents of the agent head and of AgentTargets agree"
            )
        gt_labels = gt_labels.bool()
        if self.max_bearing is not None:
            gt_labels = visible(gt_states, gt_labels, self.max_bearing)
        matches = match_agents(states, logits, gt_states, gt_labels, self.class_weight, self.box_weight)
        classification, box = agent_losses(states, logits, gt_states, gt_labels, matches, self.count_over)
        return {
            "loss_agent_class": self.class_weight * classification,
            "loss_agent_box": self.box_weight * box,
        }
