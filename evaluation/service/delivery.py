"""Scores that arrive one step later, by rule and not by how fast they were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from beyonddrive.evaluation.service.service import ScoreFuture, ScoringService

Context = TypeVar("Context")


class Delivered(NamedTuple, Generic[Context]):
    """Scores (B, N, columns) of the step before, and what was handed in with their plans."""

    context: Context
    scores: NDArray[np.float64]


class NextStepScores(Generic[Context]):
    """Hands in the plans of a step and gives the scores of the one before.

    What is handed in at one call is delivered at the next, never earlier and never later: if it is not ready
    by then, the step waits. So a training gives the same numbers however fast its scorers are.

    Args:
        service: Who scores.
    """

    def __init__(self, service: ScoringService) -> None:
        self._service = service
        self._before: tuple[Context, ScoreFuture[NDArray[np.float64]]] | None = None

    def exchange(self, tokens: Sequence[str], plans: Any, context: Context) -> Delivered[Context] | None:
        """Hand in plans (B, N, 8, 3); return the scores of the call before, None at the first.

        Raises:
            ScoringServiceError: As :meth:`ScoringService.submit` and its future, for the call before.
        """
        before, future = self._before, self._service.submit(tokens, plans)
        self._before = context, future
        return None if before is None else Delivered(before[0], before[1].result())

    def clear(self) -> None:
        """Forget what was handed in last, such as at the start of an epoch, from which a training resumes."""
        if self._before is not None:
            self._before[1].result()
        self._before = None
