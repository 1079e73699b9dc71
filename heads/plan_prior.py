"""Plans that a head starts from or chooses among, made from experts.

They are part of the planner's checkpoint. A planner without one gets them from a vocabulary file
(``beyonddrive build-vocabulary``), or from the experts of its training data (``ExpertPriorHook``).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from beyonddrive.structures.clustering import build_vocabulary, describe_vocabulary
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import check_plans
from beyonddrive.structures.vocabulary import COMMAND, Vocabulary, VocabularyError, read_vocabulary


class PriorError(BeyondDriveError, ValueError):
    """A planner has no anchors or mixture, or they do not fit; the message says where to get them."""


class PlanPrior(nn.Module):
    """Base: buffers that hold NaN until a checkpoint, a file or :meth:`fit` fills them.

    A file is read when the buffers are needed for the first time, and only if no checkpoint has filled them:
    a planner can be built without it, and a trained planner no longer needs it.

    Args:
        size: Number of plans.
        path: Vocabulary file, or None.
        user: Who needs it, for messages.
    """

    what = "plans"

    def __init__(self, size: int, path: str | Path | None, user: str) -> None:
        super().__init__()
        if size < 1:
            raise PriorError(f"{user}: needs at least one of its {self.what}, got {size}")
        self.size, self.user = size, user
        self.path = None if path is None else Path(path)
        self._checked = False
        self.register_load_state_dict_post_hook(_forget_check)

    @property
    def missing(self) -> bool:
        """Whether the buffers have never been filled."""
        return any(bool(buffer.isnan().all()) for buffer in self.buffers())

    @abstractmethod
    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Fill the buffers from a vocabulary of ``size`` plans."""

    def fit(self, plans: NDArray[np.floating], seed: int = 0) -> None:
        """Fill the buffers from expert plans (S, 8, 3) by k-means; equal plans and seeds give equal ones.

        Raises:
            VocabularyError: If there are fewer different plans than ``size``.
            PlanError: If plans have another shape or hold NaN.
        """
        checked = check_plans(plans, "expert plans")
        clusters = build_vocabulary(checked, self.size, seed)
        self.set_vocabulary(describe_vocabulary(checked, clusters, {}))
        self.forget()

    def require(self) -> None:
        """Make sure that the buffers hold numbers, reading the file if need be.

        Raises:
            PriorError: If they do not; names what is missing and how to get it.
        """
        if self._checked:
            return
        if self.missing:
            self._read()
        broken = [name for name, buffer in self.named_buffers() if not bool(buffer.isfinite().all())]
        if broken:
            raise PriorError(
                f"{self.user}: the {self.what} ({', '.join(broken)}) hold NaN or infinity: load another "
                f"checkpoint, or convert the official one together with its data file"
            )
        self._checked = True

    def forget(self) -> None:
        """Check the buffers anew before they are used next: something has written to them."""
        self._checked = False

    def _read(self) -> None:
        if self.path is None:
            raise PriorError(
                f"{self.user}: has no {self.what}: load a checkpoint that holds them, give the path of a "
                f"vocabulary of {self.size} plans ({COMMAND}), or train with ExpertPriorHook among the "
                f"custom_hooks"
            )
        try:
            self.set_vocabulary(read_vocabulary(self.path, self.size))
        except VocabularyError as error:
            raise PriorError(f"{self.user}: cannot read its {self.what}: {error}") from error


def plan_priors(model: nn.Module) -> list[PlanPrior]:
    """Priors of a planner."""
    return [module for module in model.modules() if isinstance(module, PlanPrior)]


def _forget_check(module: nn.Module, incompatible_keys: Any) -> None:
    assert isinstance(module, PlanPrior)
    module.forget()
