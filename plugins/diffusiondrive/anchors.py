"""Anchors that the diffusion starts from: positions of typical plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from beyonddrive.heads.plan_prior import PlanPrior
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.vocabulary import Vocabulary


class PlanAnchors(PlanPrior):
    """Positions of typical plans (MODELS, section 6).

    Args:
        size: Number of anchors.
        path: Vocabulary file with as many plans, or None.
        user: Who needs them, for messages.
    """

    what = "anchors"

    def __init__(self, size: int, path: str | Path | None = None, user: str = "PlanAnchors") -> None:
        super().__init__(size, path, user)
        self.points: Tensor
        self.register_buffer("points", torch.full((size, NUM_POSES, 2), torch.nan))

    def forward(self) -> Tensor:
        """Anchors (size, 8, 2) [m].

        Raises:
            PriorError: If there are none.

        >>> PlanAnchors(20)()
        Traceback (most recent call last):
            ...
        beyonddrive.heads.plan_prior.PriorError: PlanAnchors: has no anchors: load a checkpoint that ...
        """
        self.require()
        return self.points

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Take the positions of its plans."""
        with torch.no_grad():
            self.points.copy_(torch.from_numpy(np.asarray(vocabulary.plans[..., :2], np.float32)))
