"""What passes between encoder, decoder and heads, and what a trajectory head returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mmengine.structures import BaseDataElement
from torch import Tensor


@dataclass
class SceneTokens:
    """A scene as a planner's encoder sees it; heads read what they need.

    An encoder that has no bird's-eye view (the ego-status MLP, say) leaves ``memory`` and ``bev`` out.

    Attributes:
        queries: (B, Q, d) decoded queries; index 0 is the trajectory query, the rest are agent or context
            queries.
        status: (B, 8) ego status as given to the planner.
        memory: (B, K + 1, d) bird's-eye-view tokens, row by row, then the ego-status token; embeddings added.
        bev: (B, C, H, W) upscaled bird's-eye-view map, for dense heads.
        points: (B, C, H, W) map of the LiDAR points alone, before it meets the camera; rows along x from
            behind to ahead, columns along y from right to left.
    """

    queries: Tensor
    status: Tensor
    memory: Tensor | None = None
    bev: Tensor | None = None
    points: Tensor | None = None

    def require(self, name: Literal["memory", "bev", "points"], user: str) -> Tensor:
        """Return one of the maps, or say that ``user`` needs what this encoder does not give.

        >>> import torch
        >>> tokens = SceneTokens(queries=torch.zeros(1, 1, 4), status=torch.zeros(1, 8))
        >>> tokens.require('bev', 'BEVSemanticHead')
        Traceback (most recent call last):
            ...
        ValueError: BEVSemanticHead needs tokens.bev, which this planner's encoder does not give: ...
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            encoder = (
                "an encoder that reads points (PillarTransFuserBackbone, QueryDecoder)"
                if name == "points"
                else "an encoder with a bird's-eye view (TransFuserBackbone with top_down=True, QueryDecoder)"
            )
            raise ValueError(
                f"{user} needs tokens.{name}, which this planner's encoder does not give: use {encoder}, or "
                f"drop {user}"
            )
        return value


@dataclass
class PlanOutput:
    """Plans of a trajectory head.

    Attributes:
        trajectory: (B, 8, 3) the plan: x [m], y [m], heading [rad], ego frame at t = 0.
        encoded: (B, 8, D) the same plan in the head's own space, as the losses see it.
        proposals: (B, M, 8, 3) all modes of a multi-modal head.
        scores: (B, M) one score per mode, higher is better.
        extras: Whatever else the head's own loss needs.
        detections: Agents found around the ego, one element per scene: ``boxes`` (N, 9), ``box_scores`` (N,),
            ``box_labels`` (N,), as :mod:`beyonddrive.structures.agent_boxes` has them; None without a head.
    """

    trajectory: Tensor
    encoded: Tensor
    proposals: Tensor | None = None
    scores: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
    detections: Sequence[BaseDataElement] | None = None


def check_channels(head: str, wanted: int, given: int, what: str) -> None:
    """Refuse what a head was not built for, in words that say which setting is meant.

    Args:
        head: Name of the head whose ``in_channels`` it is.
        wanted: The channels that it was built for.
        given: Those that it gets.
        what: Whose channels these are.

    Raises:
        ValueError: If they differ.

    >>> check_channels("MyHead", 64, 256, "queries")
    Traceback (most recent call last):
        ...
    ValueError: MyHead: in_channels is 64, but the queries that it gets have 256 channels; make them agree
    """
    if given != wanted:
        raise ValueError(
            f"{head}: in_channels is {wanted}, but the {what} that it gets have {given} channels; make them "
            "agree"
        )


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens (B, rows * columns, C), row by row -> map (B, C, rows, columns), channels-last in memory.

    Splitting the rows first keeps the strides of a batch of one such that torch knows the layout: resizing is
    ten times faster.

    >>> import torch
    >>> as_map(torch.zeros(1, 6, 5), (2, 3)).shape
    torch.Size([1, 5, 2, 3])
    """
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)
