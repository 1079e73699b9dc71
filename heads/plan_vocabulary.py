"""Whole plans that a head chooses among, and the check that scores were made for the very same plans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from beyonddrive.heads.plan_prior import PlanPrior
from beyonddrive.structures.plan import NUM_POSES
from beyonddrive.structures.transfers import LateChecks
from beyonddrive.structures.vocabulary import Vocabulary, VocabularyError, vocabulary_id


class PlanVocabulary(PlanPrior):
    """Plans (V, 8, 3) from a checkpoint, a file, or experts.

    Args:
        size: Number of plans V.
        path: Vocabulary file with as many plans, or None.
        user: Who needs them, for messages.
    """

    what = "vocabulary of plans"

    def __init__(self, size: int, path: str | Path | None = None, user: str = "PlanVocabulary") -> None:
        super().__init__(size, path, user)
        self.plans: Tensor
        self.register_buffer("plans", torch.full((size, NUM_POSES, 3), torch.nan))
        self._identity: int | None = None
        self._checks = LateChecks()

    def forward(self) -> Tensor:
        """The plans (V, 8, 3): x [m], y [m], heading [rad], ego frame at t = 0.

        Raises:
            PriorError: If there are none.
        """
        self.require()
        return self.plans

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Take its plans."""
        with torch.no_grad():
            self.plans.copy_(torch.from_numpy(np.asarray(vocabulary.plans, np.float32)))

    @property
    def identity(self) -> int:
        """The number that tells these plans from others; see :func:`vocabulary_id`."""
        plans = self()
        if self._identity is None:  # once: it takes the plans to the CPU
            self._identity = vocabulary_id(plans.detach().cpu().float().numpy())
        return self._identity

    def forget(self) -> None:
        """Check and number the plans anew."""
        super().forget()
        self._identity = None

    def check_scores(self, scores: Tensor, identities: Tensor) -> None:
        """Refuse ``gt.vocabulary_scores`` (B, V, 6) of other plans; ``gt.vocabulary_id`` (B,) says of which.

        Raises:
            VocabularyError: Naming what differs and the remedy; on a GPU at a later call, so that no step
                waits.
        """
        identity = self.identity

        def error() -> VocabularyError:
            found = next((number for number in identities.tolist() if number != identity), identity)
            return VocabularyError(
                f"{self.user}: gt.vocabulary_scores are of {scores.shape[1]} plans with identity {found}, "
                f"the planner has {self.size} with identity {identity} ({self.path or 'from a checkpoint'}): "
                f"score the planner's own vocabulary (beyonddrive score-vocabulary), and name the same file "
                f"in the trajectory head and in LoadVocabularyScores"
            )

        if scores.shape[1] != self.size:
            raise error()
        self._checks((identities == identity).all(), error)
