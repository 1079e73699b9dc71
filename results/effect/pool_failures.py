"""The nearest failure of every scene of a pool, as a planner is repelled from it, beside the experts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.selectors import NearestNegatives
from beyonddrive.evaluation.plan_files import PlanFile

FAILURE = "nearest failure"
"""Row of the tables of plans that is of the pool itself; rows beside it are of the same pool."""


@dataclass(frozen=True)
class PoolFailures:
    """Scenes of a pool.

    Attributes:
        tokens: N scenes.
        experts: (N, 8, 3) plans of the experts, ego frame.
        failures: (N, 8, 3) nearest failures; of scenes without one, whatever stands in its place.
        has_failure: (N,) which scenes have one.
    """

    tokens: tuple[str, ...]
    experts: NDArray[np.float64]
    failures: NDArray[np.float64]
    has_failure: NDArray[np.bool_]

    def plans(self, file: Path) -> NDArray[np.float64]:
        """Plans (N, 8, 3) of ``beyonddrive test --plans`` for the scenes.

        Raises:
            SystemExit: If the file lacks one of them.
            PlanFileError: If the file is missing or damaged, or has several plans of one.
            PlanError: If something in it is no plan.
        """
        plans = PlanFile(file)
        if lacking := sorted(set(self.tokens).difference(plans)):
            raise SystemExit(
                f"{file}: has no plan of {lacking[0]} ({len(lacking)} of the {len(self.tokens)} scenes "
                "of the pool lack); give plans of its split"
            )
        return np.stack([plans.one(token) for token in self.tokens])


def pool_failures(folder: Path) -> PoolFailures:
    """Read a pool."""
    pool = NegativePool(folder)
    select = NearestNegatives()
    records = [pool[token] for token in pool.tokens]
    chosen = [select(record.plans, record.scores, record.expert) for record in records]
    nearest = [record.plans[s.indices[0]] for record, s in zip(records, chosen, strict=True)]
    return PoolFailures(
        tuple(pool.tokens),
        np.stack([record.expert for record in records]).astype(np.float64),
        np.stack(nearest).astype(np.float64),
        np.array([bool(selection.valid[0]) for selection in chosen]),
    )
