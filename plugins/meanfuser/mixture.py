"""The mixture of Gaussians that the mean flow starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from beyonddrive.heads.plan_prior import PlanPrior, PriorError
from beyonddrive.structures.delta import DeltaSpace
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.vocabulary import Vocabulary


class PlanMixture(PlanPrior):
    """A Gaussian for the steps of each cluster of plans, in delta space (MODELS, section 7).

    Args:
        size: Number of components.
        delta: The space; owned by the head, not by this module.
        path: Vocabulary file with as many plans, or None.
        std: Standard deviation of all components and numbers; the published value is 0.1.
        user: Who needs it, for messages.

    Attributes:
        plans: (K, 8, 3) centre of each cluster of plans.
        center: (K, 4) mean over the plans and poses of a cluster, in delta space.
        std: (K, 4) standard deviations.
    """

    what = "mixture"

    def __init__(
        self,
        size: int,
        delta: DeltaSpace,
        path: str | Path | None = None,
        std: float = 0.1,
        user: str = "PlanMixture",
    ) -> None:
        super().__init__(size, path, user)
        if not std > 0:
            raise PriorError(f"{user}: std of the mixture must be positive, got {std}")
        self.initial_std = std
        self._delta = (delta,)  # in a tuple, so that its buffers are not this module's too
        self.plans: Tensor
        self.center: Tensor
        self.std: Tensor
        self.register_buffer("plans", torch.full((size, NUM_POSES, 3), torch.nan))
        self.register_buffer("center", torch.full((size, DeltaSpace.dim), torch.nan))
        self.register_buffer("std", torch.full((size, DeltaSpace.dim), torch.nan))

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Take its plans, and the mean steps of the experts around them; those of the plans if not known."""
        delta = self._delta[0]
        plans = torch.from_numpy(np.asarray(vocabulary.plans, np.float32)).to(delta.mean.device)
        center = delta.encode(plans).mean(dim=1)
        if len(vocabulary.step_means):
            means = torch.from_numpy(np.asarray(vocabulary.step_means, np.float32)).to(delta.mean.device)
            center = torch.cat([(means[:, :2] - delta.mean) / delta.scale, means[:, 2:]], dim=1)
        with torch.no_grad():
            self.plans.copy_(plans)
            self.center.copy_(center)
            self.std.fill_(self.initial_std)
