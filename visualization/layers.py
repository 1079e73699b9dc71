"""What every view of a scene shares: which plans are drawn, how, and where the bird's eye is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.structures.plan import check_plans
from beyonddrive.visualization.failures import Verdict, count_failures, precedence
from beyonddrive.visualization.palette import (
    EXPERT,
    EXTENDED_FAILURES,
    FAILURE_LABELS,
    PASS,
    PREDICTION,
    Color,
)

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.scene import Scene

Role = Literal["expert", "plan", "proposals"]


@dataclass(frozen=True)
class PlanLayer:
    """Plans that are drawn alike.

    Attributes:
        label: Their name in the legend.
        plans: (N, 8, 3) in the ego frame at t = 0.
        role: ``expert`` and ``plan`` are drawn boldly with their poses, ``proposals`` as a fine bundle.
        color: Colour; proposals with verdicts are coloured by what they fail instead.
        verdicts: One per plan or none at all; they colour proposals and mark the moment of failure.

    >>> PlanLayer('planner', np.zeros((1, 8, 3)), 'plan').color == PREDICTION
    True
    """

    label: str
    plans: NDArray[np.float64]
    role: Role
    color: Color | None = None
    verdicts: Sequence[Verdict] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plans", check_plans(self.plans, self.label))
        if self.color is None:
            object.__setattr__(self, "color", EXPERT if self.role == "expert" else PREDICTION)
        if self.verdicts and len(self.verdicts) != len(self.plans):
            raise ValueError(
                f"layer {self.label!r}: {len(self.verdicts)} verdicts for {len(self.plans)} plans; "
                f"score all plans of the layer or none"
            )

    @property
    def by_failure(self) -> bool:
        """Whether the plans are coloured by what they fail."""
        return self.role == "proposals" and len(self.verdicts) > 0

    def painted(self) -> Iterator[tuple[NDArray[np.float64], Color, Verdict | None]]:
        """Plans (8, 3) with colour and verdict, those that must stay visible last."""
        order = list(range(len(self.plans)))
        if self.by_failure:
            # A pass is the ground that failures stand out from; the gravest failure lies on top.
            names = precedence(self.verdicts[0].columns)
            rank = {None: len(names)} | {name: i for i, name in enumerate(names)}
            order.sort(key=lambda index: -rank[self.verdicts[index].first])
        for index in order:
            verdict = self.verdicts[index] if self.verdicts else None
            color = verdict.color if self.by_failure and verdict is not None else self.color
            assert color is not None
            yield self.plans[index], color, verdict

    def legend(self) -> list[tuple[str, Color, Role]]:
        """Legend entries: label, colour, role."""
        assert self.color is not None
        if not self.by_failure:
            return [(self.label, self.color, self.role)]
        counts = count_failures(self.verdicts)
        entries: list[tuple[str, Color, Role]] = [
            (f"{FAILURE_LABELS[name]} ({count})", EXTENDED_FAILURES[name], self.role)
            for name, count in counts.items()
        ]
        passing = len(self.verdicts) - sum(counts.values())
        if passing:
            entries.append((f"passes ({passing})", PASS, self.role))
        return entries


def expert_layer(scene: Scene) -> PlanLayer:
    """The driven trajectory of a scene."""
    return PlanLayer("human", np.asarray(scene.expert_plan)[None], "expert")


@dataclass(frozen=True)
class View:
    """A bird's-eye window, ego heading up.

    Attributes:
        width: Width of the picture [px].
        height: Height of the picture [px].
        ahead: Metres shown in front of the rear axle.
        behind: Metres shown behind it.

    >>> View(100, 100, ahead=80.0, behind=20.0).to_pixels([[0.0, 0.0], [10.0, 5.0]]).tolist()
    [[50.0, 80.0], [45.0, 70.0]]
    """

    width: int = 900
    height: int = 900
    ahead: float = 52.0
    behind: float = 18.0

    @property
    def scale(self) -> float:
        """Pixels per metre."""
        return self.height / (self.ahead + self.behind)

    def to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (..., 2+) in the ego frame [m] -> (..., 2) column and row [px]."""
        points = np.asarray(points, dtype=np.float64)
        column = self.width / 2.0 - points[..., 1] * self.scale
        row = (self.ahead - points[..., 0]) * self.scale
        return np.stack([column, row], axis=-1)

    def corners(self) -> NDArray[np.float64]:
        """Corners (4, 2) of the window in the ego frame [m]."""
        side = self.width / 2.0 / self.scale
        return np.array(
            [[self.ahead, side], [-self.behind, side], [-self.behind, -side], [self.ahead, -side]]
        )

    @classmethod
    def fit(cls, plans: Sequence[NDArray[np.float64]], width: int = 900, height: int = 900) -> View:
        """The window that shows all of some plans (N, 8, 3): between 56 and 110 metres from bottom to top.

        The farthest tenth of a large bundle may run out of it.
        """
        reach, side = 18.0, 12.0
        for bundle in plans:
            if len(bundle):
                share = 1.0 if len(bundle) < 10 else 0.9
                reach = max(reach, float(np.quantile(bundle[..., 0].max(axis=1), share)))
                side = max(side, float(np.quantile(np.abs(bundle[..., 1]).max(axis=1), share)))
        total = max((reach + 8.0) / 0.76, 2.0 * (side + 6.0) * height / width)
        total = float(np.clip(np.ceil(total / 2.0) * 2.0, 56.0, 110.0))
        return cls(width, height, ahead=0.76 * total, behind=0.24 * total)
