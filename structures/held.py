"""Modules that can compute in advance what no input changes."""

from __future__ import annotations


class HoldsConstants:
    """Base of modules that have something to compute once instead of for every batch.

    An exported planner, whose weights are final, calls :meth:`hold` of all its modules of this kind.
    """

    def hold(self) -> None:
        """Compute it now, and use it from now on: later changes of weights do not reach it."""
        raise NotImplementedError
