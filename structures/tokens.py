"""What passes between backbone, decoder and heads, and what a trajectory head returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class SceneTokens:
    """A scene as a planner's encoder sees it; heads read what they need.

    Attributes:
        queries: (B, Q, d) decoded queries; index 0 is the trajectory query, the rest are agent or context
            queries.
        memory: (B, K + 1, d) bird's-eye-view tokens, then the ego-status token, embeddings added.
        bev: (B, C, H, W) upscaled bird's-eye-view map, for dense heads.
        status: (B, 8) ego status as given to the planner.
    """

    queries: Tensor
    memory: Tensor
    bev: Tensor
    status: Tensor


@dataclass
class PlanOutput:
    """Plans of a trajectory head.

    Attributes:
        trajectory: (B, 8, 3) the plan: x [m], y [m], heading [rad], ego frame at t = 0.
        encoded: (B, 8, D) the same plan in the head's own space, as the losses see it.
        proposals: (B, M, 8, 3) all modes of a multi-modal head.
        scores: (B, M) one score per mode, higher is better.
        extras: Whatever else the head's own loss needs.
    """

    trajectory: Tensor
    encoded: Tensor | None = None
    proposals: Tensor | None = None
    scores: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)
