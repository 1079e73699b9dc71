"""Hard negatives of a training sample, read from a pool."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from mmengine.logging import print_log
from numpy.typing import NDArray

from beyonddrive.datasets.stores.manifests import MANIFEST, StoreError
from beyonddrive.datasets.stores.negative_pool import KIND, NegativePool, NegativeRecord, PoolError
from beyonddrive.datasets.stores.online_pools import OnlinePools
from beyonddrive.datasets.stores.selectors import NearestNegatives, Selector
from beyonddrive.datasets.stores.sources import CachedPlace, DataPlace
from beyonddrive.datasets.transforms.base import VIEW_POSE, BaseTransform, Results
from beyonddrive.registry import SELECTORS, TRANSFORMS
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS
from beyonddrive.structures.se2 import wrap_angle

EXPERT_TOLERANCE = 1e-3
"""Metres and radians by which the expert of the pool may differ from the sample's (float32 round trips)."""

_REMEDY = "missing='none' of LoadNegatives lets scenes without a record train without a negative"


@TRANSFORMS.register_module()
class LoadNegatives(BaseTransform):
    """Adds the hard negatives of a scene (METHOD, section 3).

    Reads ``token`` and ``trajectory`` (8, 3); adds, for the K slots of the selector, ``negative_plans``
    (K, 8, 3) float32, ``negative_valid`` (K,) bool, ``negative_scores`` (K, 7) float32, ``negative_columns``
    (K,) int64 (the column that a slot is for, an index into ``SCORE_COLUMNS``) and ``negative_times`` (K,)
    float32 (seconds until the plan fails in that column, inf if no moment is known).
    Slots without a negative are zero and invalid. Pools are opened at the first sample, so that a config can
    be built before they exist.

    Args:
        pool: Folder of the pool; None if there is only what is mined ``online``.
        selection: Config of a selector, by default the published one: the negative nearest to the expert
            among those with PDMS below 0.6. Without a ``type`` it is a ``NearestNegatives``.
        split: Split that the pools must have been made for; ``None`` accepts any.
        generator: Generator that ``pool`` must have been made with: name of its config, or a mapping with
            ``name``, ``config_hash``, ``checkpoint_hash``; ``None`` accepts any.
        progress: Progress mode their scores must have been made with, ``pair`` or ``pooled``; ``None``
            accepts any.
        allow_partial: Accept a pool that was mined from a part of its split, because scenes were missing.
        missing: What a scene without a record in ``pool`` means, also one whose mining failed: ``error``, or
            ``none`` for a sample without negatives of that pool.
        online: Whether to read what an ``OnlineNegativesHook`` mines during this training, too: its plans
            join those of ``pool`` before the selection, and each new round counts from the next sample.
        scene: Whose negatives a sample gets: its ``own``; or, as controls, those of ``another`` scene of the
            pool, or the ``offset`` of another scene's negatives from its expert, added to this expert. Every
            scene lends its negatives to one other, always the same.

    Raises:
        StoreError: At the first sample: no pool, an unfinished pool, or a scene that is not in it.
        PoolError: If a pool differs from what is stated, its expert is not the sample's, or it has no other
            scene to lend.
        ValueError: If a sample has no ``trajectory``, or its view has been moved.
    """

    is_target = True
    config_parts: ClassVar[Mapping[str, type]] = {"selection": NearestNegatives}

    def __init__(
        self,
        pool: str | Path | None = None,
        selection: Mapping[str, Any] | None = None,
        split: str | None = None,
        generator: str | Mapping[str, str] | None = None,
        progress: Literal["pair", "pooled"] | None = None,
        missing: Literal["error", "none"] = "error",
        online: bool = False,
        allow_partial: bool = False,
        scene: Literal["own", "another", "offset"] = "own",
    ) -> None:
        if scene not in ("own", "another", "offset"):
            raise ValueError(f"LoadNegatives: scene must be 'own', 'another' or 'offset', got {scene!r}")
        if scene != "own" and (pool is None or online):
            raise ValueError(
                f"LoadNegatives: scene='{scene}' is for a pool that is there, not for online=True"
            )
        if missing not in ("error", "none"):
            raise ValueError(f"LoadNegatives: missing must be 'error' or 'none', got {missing!r}")
        if pool is None and not online:
            raise ValueError(f"LoadNegatives: give pool (made by: {KIND.command}), online=True, or both")
        self.root = None if pool is None else Path(pool)
        self.expected = {"split": split, "generator": generator, "progress": progress}
        self.missing = missing
        self.selector: Selector = SELECTORS.build({"type": "NearestNegatives", **(selection or {})})
        self.online, self.allow_partial, self.scene = online, allow_partial, scene
        self._lenders: dict[str, str] | None = None
        self._pool: NegativePool | None = None
        self._rounds: OnlinePools | None = None
        self._columns = np.array([SCORE_COLUMNS.index(name) for name in self.selector.slot_columns], np.int64)

    def check_sources(self, place: DataPlace | CachedPlace) -> None:
        """Refuse a pool that was made from other logs or maps than those of the data set."""
        if self.root is not None and (self.root / MANIFEST).exists():
            assert self.pool is not None
            self.pool.check_sources(place)
            if self.missing == "error" and (failures := self.pool.failures):
                token, why = next(iter(failures.items()))
                print_log(
                    f"{self.root}: mining failed for {len(failures)} scene(s), the first is {token}: {why}. "
                    f"A training ends where it meets one of them; {_REMEDY}",
                    "current",
                    logging.WARNING,
                )

    @property
    def pool(self) -> NegativePool | None:
        """The pool, opened and checked at first use; None if there is only ``online``."""
        if self._pool is None and self.root is not None:
            self._pool = NegativePool(self.root, self.expected, self.allow_partial)
        return self._pool

    def store_read(self) -> NegativePool | None:
        """The pool; None if there is only ``online``."""
        return self.pool

    def read_rounds(self, folder: str | Path) -> None:
        """Say where the rounds of online mining are; the hook calls it before any worker starts."""
        self._rounds = OnlinePools(folder, {**self.expected, "generator": None})

    def transform(self, results: Results) -> Results:
        """Read ``token`` and ``trajectory``; add the negatives."""
        token = results["token"]
        if "trajectory" not in results:
            raise ValueError(
                f"LoadNegatives: scene {token} has no expert plan (trajectory), by which negatives are "
                "chosen; put PlanTarget into the feature_pipeline and make the cache anew: beyonddrive "
                "cache-features CONFIG"
            )
        if VIEW_POSE in results:
            raise ValueError(
                f"LoadNegatives: the view of scene {token} has been moved, and pools are of plans in the "
                "frame of the scene; put ViewAugmentation behind LoadNegatives"
            )
        expert = np.asarray(results["trajectory"])
        slots = len(self._columns)
        plans = np.zeros((slots, NUM_POSES, 3), np.float32)
        scores = np.zeros((slots, len(SCORE_COLUMNS)), np.float32)
        times = np.full(slots, np.inf, np.float32)
        valid = np.zeros(slots, np.bool_)
        records = self._records(token)
        for name, record in records:
            self._check_expert(name, token, record, expert)
        if records and self.scene != "own":
            records = [self._lent(token)]
        if records:
            found = _merge([record for _, record in records])
            theirs = expert if self.scene == "own" else found.expert
            chosen, valid = self.selector(found.plans, found.scores, theirs)
            plans[valid] = found.plans[chosen[valid]]
            if self.scene == "offset":
                # (by whole turns nearer to its own expert first: the sum is then near the other one)
                turns = np.rint((plans[valid][..., 2] - theirs[..., 2]) / (2 * np.pi))
                plans[valid] += (expert - theirs).astype(np.float32)
                plans[valid, :, 2] -= (2 * np.pi * turns).astype(np.float32)
            scores[valid] = found.scores[chosen[valid]]
            times[valid] = found.times[chosen[valid], self._columns[valid]]
        results.update(negative_plans=plans, negative_valid=valid, negative_scores=scores)
        results["negative_columns"] = self._columns.copy()
        results["negative_times"] = times
        return results

    def _records(self, token: str) -> list[tuple[Path, NegativeRecord]]:
        """Records of a scene, each with where it is from."""
        records = []
        if self.pool is not None and (token in self.pool or self.missing == "error"):
            try:
                records.append((self.pool.root, self.pool[token]))
            except StoreError as error:
                if token in self.pool:
                    raise
                raise StoreError(f"{error}; {_REMEDY}") from error
        if self.online:
            if self._rounds is None:
                raise PoolError(
                    "LoadNegatives: online=True, but nothing mines: add dict(type='OnlineNegativesHook') to "
                    "custom_hooks, or set online=False"
                )
            records += [(self._rounds.root, record) for record in self._rounds.records(token)]
        return records

    def _lent(self, token: str) -> tuple[Path, NegativeRecord]:
        """Record of the scene that lends its negatives to a scene of the pool."""
        pool = self.pool
        assert pool is not None
        if self._lenders is None:
            if len(pool) < 2:
                raise PoolError(
                    f"{pool.root}: scene='{self.scene}' of LoadNegatives needs another scene to lend its "
                    f"negatives, and the pool has {token} alone; mine more scenes into another folder "
                    f"({KIND.command}), or set scene='own'"
                )
            order = sorted(pool, key=lambda name: (zlib.crc32(name.encode()), name))
            self._lenders = dict(zip(order, [*order[1:], order[0]], strict=True))
        return pool.root, pool[self._lenders[token]]

    def _check_expert(self, root: Path, token: str, record: NegativeRecord, expert: NDArray[Any]) -> None:
        difference = expert.astype(np.float64) - record.expert
        difference[:, 2] = wrap_angle(difference[:, 2])
        worst = float(np.abs(difference).max())
        if not worst <= EXPERT_TOLERANCE:
            raise PoolError(
                f"{root}: scene {token} has another expert than the sample, they differ by {worst:.3g}; "
                f"the pool was made from other data; mine one for this data set: {KIND.command}"
            )

    def __repr__(self) -> str:
        return f"LoadNegatives(pool={str(self.root)!r}, selector={type(self.selector).__name__})"


def _merge(records: Sequence[NegativeRecord]) -> NegativeRecord:
    """All proposals of several records of one scene."""
    if len(records) == 1:
        return records[0]
    return NegativeRecord(
        np.concatenate([record.plans for record in records]),
        np.concatenate([record.scores for record in records]),
        records[0].expert,
        np.concatenate([record.times for record in records]),
    )
