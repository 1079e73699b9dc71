"""Coverage: what a negative pool holds, in figures that say whether it is worth training on.

Everything is accumulated scene by scene, so that a pool of any size is read once, shard by shard, in little
memory. Distances are metres: the mean over the eight poses of the distance between two positions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.stores.negative_pool import NegativePool, NegativeRecord
from beyonddrive.datasets.stores.selection import (
    DEFAULT_COLUMN,
    DEFAULT_THRESHOLD,
    Distance,
    displacement,
    is_negative,
)
from beyonddrive.datasets.stores.selectors import NearestNegatives, Selector
from beyonddrive.engine.environment import write_made_with
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.plan import SCORE_COLUMNS

REPORT = "coverage.json"


@dataclass(frozen=True)
class CoverageReport:
    """Figures of a pool; a mean over nothing is None.

    Attributes:
        column: Column that makes a proposal a negative; several with commas between them.
        threshold: A proposal is a negative if such a column is strictly below; by column if they differ.
        num_scenes: Scenes with proposals.
        num_failed: Scenes whose mining failed.
        num_proposals: Proposals of all scenes.
        scenes_with_negative: Share of scenes of which at least one negative is selected.
        proposals_negative: Share of proposals that are negatives, selected or not.
        proposals_failing: Share of proposals below the threshold, by column.
        scenes_failing: Share of scenes with at least one proposal below the threshold, by column.
        nearest_negative_mean: Distance of the hard negative to the expert [m], the nearest of those that are
            selected, mean over scenes with one.
        nearest_negative_median: The same, median.
        expert_distance_mean: Distance of a proposal to the expert [m], mean over all.
        proposal_diversity: Mean pairwise distance of the proposals of a scene [m], mean over scenes with two.
        negative_diversity: The same among the negatives of a scene.
    """

    column: str
    threshold: float | dict[str, float]
    num_scenes: int
    num_failed: int
    num_proposals: int
    scenes_with_negative: float | None
    proposals_negative: float | None
    proposals_failing: dict[str, float | None]
    scenes_failing: dict[str, float | None]
    nearest_negative_mean: float | None
    nearest_negative_median: float | None
    expert_distance_mean: float | None
    proposal_diversity: float | None
    negative_diversity: float | None

    def table(self) -> str:
        """The report as lines for a terminal."""
        if isinstance(self.threshold, dict):
            rule = ", ".join(f"{column} < {limit:g}" for column, limit in self.threshold.items())
        else:
            rule = f"{self.column} < {self.threshold:g}"
        lines = [
            f"scenes {self.num_scenes}   failed {self.num_failed}   proposals {self.num_proposals}   "
            f"negative: {rule}",
            "",
            f"{'share of':<28}{'scenes':>10}{'proposals':>12}",
            f"{'with a negative / negative':<28}{_percent(self.scenes_with_negative):>10}"
            f"{_percent(self.proposals_negative):>12}",
        ]
        for column in SCORE_COLUMNS:
            name = f"  {column} < {_limit(self.threshold, column):g}"
            scenes, proposals = self.scenes_failing[column], self.proposals_failing[column]
            lines.append(f"{name:<28}{_percent(scenes):>10}{_percent(proposals):>12}")
        lines += [
            "",
            f"{'distance to the expert':<28}{'mean':>10}{'median':>12}",
            f"{'  nearest negative':<28}{_metres(self.nearest_negative_mean):>10}"
            f"{_metres(self.nearest_negative_median):>12}",
            f"{'  all proposals':<28}{_metres(self.expert_distance_mean):>10}",
            "",
            f"{'mean pairwise distance':<28}{'mean':>10}",
            f"{'  proposals':<28}{_metres(self.proposal_diversity):>10}",
            f"{'  negatives':<28}{_metres(self.negative_diversity):>10}",
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, values: NDArray[Any] | float) -> None:
        array = np.asarray(values, dtype=np.float64)
        self.total += float(array.sum())
        self.count += array.size

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class CoverageCounter:
    """Accumulates a :class:`CoverageReport` scene by scene.

    Args:
        column: Column that makes a proposal a negative.
        threshold: A proposal is a negative if its column is strictly below.
        distance: How the hard negative is chosen; see :mod:`beyonddrive.datasets.stores.selection`.
        selector: Selects in place of the nearest by these three. If it has no ``rules`` (threshold by
            column), a proposal is a negative if a column of its slots is below the default threshold.

    Raises:
        SelectionError: If column or threshold is out of range.
    """

    column: str = DEFAULT_COLUMN
    threshold: float = DEFAULT_THRESHOLD
    distance: Distance = "wrapped"
    selector: Selector | None = None
    _num_proposals: int = 0
    _scene_has: _Mean = field(default_factory=_Mean)
    _is_negative: _Mean = field(default_factory=_Mean)
    _plan_fails: dict[str, _Mean] = field(default_factory=lambda: {name: _Mean() for name in SCORE_COLUMNS})
    _scene_fails: dict[str, _Mean] = field(default_factory=lambda: {name: _Mean() for name in SCORE_COLUMNS})
    _to_expert: _Mean = field(default_factory=_Mean)
    _spread: _Mean = field(default_factory=_Mean)
    _negative_spread: _Mean = field(default_factory=_Mean)
    _nearest: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._select: Selector = self.selector or NearestNegatives(
            self.column, self.threshold, distance=self.distance
        )
        slots = self._select.slot_columns
        self._rules: dict[str, float] = dict(
            getattr(self._select, "rules", None) or dict.fromkeys(slots, DEFAULT_THRESHOLD)
        )
        limits = set(self._rules.values())
        self._limits: float | dict[str, float] = limits.pop() if len(limits) == 1 else self._rules

    def add(self, record: NegativeRecord) -> None:
        """Count one scene."""
        plans, scores, expert = record.plans, record.scores, record.expert
        self._num_proposals += len(plans)
        for name in SCORE_COLUMNS:
            below = is_negative(scores, name, _limit(self._limits, name))
            self._plan_fails[name].add(below)
            self._scene_fails[name].add(bool(below.any()))
        negative = np.zeros(len(plans), np.bool_)
        for column, threshold in self._rules.items():
            negative |= is_negative(scores, column, threshold)
        self._is_negative.add(negative)

        to_expert = displacement(plans, expert)
        self._to_expert.add(to_expert)
        pairs = displacement(plans[:, None], plans[None])
        _add_spread(self._spread, pairs)
        _add_spread(self._negative_spread, pairs[negative][:, negative])
        indices, valid = self._select(plans, scores, expert)
        self._scene_has.add(bool(valid.any()))
        if valid.any():
            self._nearest.append(float(to_expert[indices[valid]].min()))

    def report(self, num_failed: int = 0) -> CoverageReport:
        """Figures of the scenes counted so far."""
        return CoverageReport(
            column=", ".join(self._rules),
            threshold=self._limits,
            num_scenes=self._scene_has.count,
            num_failed=num_failed,
            num_proposals=self._num_proposals,
            scenes_with_negative=self._scene_has.value,
            proposals_negative=self._is_negative.value,
            proposals_failing={name: mean.value for name, mean in self._plan_fails.items()},
            scenes_failing={name: mean.value for name, mean in self._scene_fails.items()},
            nearest_negative_mean=float(np.mean(self._nearest)) if self._nearest else None,
            nearest_negative_median=float(np.median(self._nearest)) if self._nearest else None,
            expert_distance_mean=self._to_expert.value,
            proposal_diversity=self._spread.value,
            negative_diversity=self._negative_spread.value,
        )


def measure_coverage(
    pool: NegativePool,
    column: str = DEFAULT_COLUMN,
    threshold: float = DEFAULT_THRESHOLD,
    distance: Distance = "wrapped",
    selector: Selector | None = None,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> CoverageReport:
    """Read a pool once and report on it.

    Args:
        pool: The pool; an unfinished one is reported as far as it goes.
        column: Column that makes a proposal a negative.
        threshold: A proposal is a negative if its column is strictly below.
        distance: How the hard negative is chosen.
        selector: Selects in place of the nearest by these three, as for :class:`CoverageCounter`.
        progress: Wraps the tokens, for a progress bar.
    """
    counter = CoverageCounter(column, threshold, distance, selector)
    for token in progress(pool):
        counter.add(pool[token])
    return counter.report(num_failed=len(pool.failures))


def write_report(pool: NegativePool, report: CoverageReport) -> Path:
    """Write the report and the scenes that failed to ``coverage.json`` in the folder of the pool."""
    path = pool.root / REPORT
    values = {**report.to_dict(), "failures": dict(sorted(pool.failures.items()))}
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())
    write_made_with(path)
    return path


def _limit(limits: float | dict[str, float], column: str) -> float:
    """Below which score a column counts as failed."""
    return limits.get(column, DEFAULT_THRESHOLD) if isinstance(limits, dict) else limits


def _add_spread(mean: _Mean, pairs: NDArray[np.float64]) -> None:
    """Add the mean over the pairs of different plans of one scene; a single plan has no spread."""
    count = len(pairs)
    if count > 1:
        mean.add(float(pairs.sum()) / (count * (count - 1)))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100.0 * share:.1f} %"


def _metres(distance: float | None) -> str:
    return "-" if distance is None else f"{distance:.2f} m"
