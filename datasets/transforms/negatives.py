"""Hard negatives of a training sample, read from a pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.negative_pool import NegativePool, NegativeRecord, PoolError
from beyonddrive.datasets.transforms.base import BaseTransform, Results
from beyonddrive.registry import SELECTORS, TRANSFORMS
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS
from beyonddrive.structures.se2 import wrap_angle

EXPERT_TOLERANCE = 1e-3
"""Metres and radians by which the expert of the pool may differ from the sample's (float32 round trips)."""


@TRANSFORMS.register_module()
class LoadNegatives(BaseTransform):
    """Adds the hard negatives of a scene (METHOD, section 3).

    Reads ``token`` and ``trajectory`` (8, 3); adds ``negative_plans`` (K, 8, 3) float32, ``negative_valid``
    (K,) bool and ``negative_scores`` (K, 7) float32, where K is the selector's number of slots. Slots without
    a negative are zero and invalid. The pool is opened at the first sample, so that a config can be built
    before its pool exists.

    Args:
        pool: Folder of the pool.
        selection: Config of a selector, by default the published one: the negative nearest to the expert
            among those with PDMS below 0.6. Without a ``type`` it is a ``NearestNegatives``.
        split: Split that the pool must have been made for; ``None`` accepts any.
        generator: Generator it must have been made with: name of its config, or a mapping with ``name``,
            ``config_hash``, ``checkpoint_hash``; ``None`` accepts any.
        progress: Progress mode its scores must have been made with, ``pair`` or ``pooled``; ``None`` accepts
            any.
        missing: What a scene without a record means: ``error``, or ``none`` for a sample without negatives.

    Raises:
        StoreError: At the first sample: no pool, an unfinished pool, or a scene that is not in it.
        PoolError: If the pool differs from what is stated or its expert is not the sample's.
    """

    def __init__(
        self,
        pool: str | Path,
        selection: Mapping[str, Any] | None = None,
        split: str | None = None,
        generator: str | Mapping[str, str] | None = None,
        progress: Literal["pair", "pooled"] | None = None,
        missing: Literal["error", "none"] = "error",
    ) -> None:
        if missing not in ("error", "none"):
            raise ValueError(f"LoadNegatives: missing must be 'error' or 'none', got {missing!r}")
        self.root = Path(pool)
        self.expected = {"split": split, "generator": generator, "progress": progress}
        self.missing = missing
        self.selector = SELECTORS.build({"type": "NearestNegatives", **(selection or {})})
        self._pool: NegativePool | None = None

    @property
    def pool(self) -> NegativePool:
        """The pool, opened and checked at first use."""
        if self._pool is None:
            self._pool = NegativePool(self.root, self.expected)
        return self._pool

    def transform(self, results: Results) -> Results:
        """Read ``token`` and ``trajectory``; add the negatives."""
        token = results["token"]
        slots: int = self.selector.num_slots
        plans = np.zeros((slots, NUM_POSES, 3), np.float32)
        scores = np.zeros((slots, len(SCORE_COLUMNS)), np.float32)
        valid = np.zeros(slots, np.bool_)
        if token in self.pool or self.missing == "error":
            record = self.pool[token]
            expert = np.asarray(results["trajectory"])
            self._check_expert(token, record, expert)
            chosen, valid = self.selector(record.plans, record.scores, expert)
            plans[valid] = record.plans[chosen[valid]]
            scores[valid] = record.scores[chosen[valid]]
        results.update(negative_plans=plans, negative_valid=valid, negative_scores=scores)
        return results

    def _check_expert(self, token: str, record: NegativeRecord, expert: NDArray[Any]) -> None:
        difference = expert.astype(np.float64) - record.expert
        difference[:, 2] = wrap_angle(difference[:, 2])
        worst = float(np.abs(difference).max())
        if not worst <= EXPERT_TOLERANCE:
            raise PoolError(
                f"{self.root}: scene {token} has another expert than the sample, they differ by {worst:.3g}; "
                "the pool was made from other data; mine one for this data set with tools/mine_negatives.py"
            )

    def __repr__(self) -> str:
        return f"LoadNegatives(pool={str(self.root)!r}, selector={type(self.selector).__name__})"
