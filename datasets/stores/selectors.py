"""Selectors: rules that turn the scored proposals of a scene into slots (METHOD, section 3).

Their number is fixed so that samples can be batched: an empty slot is invalid and repels nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from beyonddrive.datasets.stores.selection import (
    DEFAULT_COLUMN,
    DEFAULT_THRESHOLD,
    Distance,
    Selection,
    SelectionError,
    check_distance,
    check_proposals,
    check_range,
    check_rule,
    is_negative,
    select_negatives,
    smallest,
    squared_distance,
)
from beyonddrive.registry import SELECTORS


class Selector(Protocol):
    """Fills a fixed number of slots with negatives."""

    @property
    def num_slots(self) -> int:
        """Slots K per sample."""
        ...

    @property
    def slot_columns(self) -> tuple[str, ...]:
        """Column that decides, by slot."""
        ...

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        ...


@SELECTORS.register_module()
class NearestNegatives:
    """The negatives nearest to the expert, as :func:`select_negatives` chooses them.

    Args:
        column: Column that decides.
        threshold: A proposal is a negative if its column is strictly below.
        num: Slots.
        distance: ``wrapped`` or ``reference``.
        min_distance: Negatives nearer to the expert [m] are left out.
        max_distance: Negatives farther from the expert [m] are left out.
        spacing: Least distance between the negatives of a sample [m].

    >>> NearestNegatives(column='DAC').num_slots
    1
    """

    def __init__(
        self,
        column: str = DEFAULT_COLUMN,
        threshold: float = DEFAULT_THRESHOLD,
        num: int = 1,
        distance: Distance = "wrapped",
        min_distance: float = 0.0,
        max_distance: float | None = None,
        spacing: float = 0.0,
    ) -> None:
        check_rule(column, threshold)
        check_distance(distance)
        check_range(min_distance, max_distance, spacing)
        if num < 1:
            raise SelectionError(f"NearestNegatives: num must be at least 1, got {num}")
        self.column, self.threshold, self.num, self.distance = column, threshold, num, distance
        self.min_distance, self.max_distance, self.spacing = min_distance, max_distance, spacing

    @property
    def num_slots(self) -> int:
        """Slots K per sample."""
        return self.num

    @property
    def slot_columns(self) -> tuple[str, ...]:
        """Column that decides, by slot."""
        return (self.column,) * self.num

    @property
    def rules(self) -> dict[str, float]:
        """Threshold below which a proposal is a negative, by the column that decides."""
        return {self.column: self.threshold}

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        return select_negatives(
            plans,
            scores,
            expert,
            self.column,
            self.threshold,
            self.num,
            self.distance,
            self.min_distance,
            self.max_distance,
            self.spacing,
        )


@SELECTORS.register_module()
class NearestNegativesPerColumn:
    """The nearest negatives of several sub-scores, each in its own slots.

    Slots keep the order of the columns, so that a loss can weight collision, off-road and time-to-collision
    negatives apart. One proposal may fill slots of several columns.

    Args:
        columns: Columns that decide.
        threshold: One for all columns, or one per column by name.
        num: Slots per column.
        distance: ``wrapped`` or ``reference``.
        kwargs: ``min_distance``, ``max_distance`` and ``spacing``, as for :class:`NearestNegatives`.

    >>> NearestNegativesPerColumn(num=2).slot_columns
    ('NC', 'NC', 'DAC', 'DAC', 'TTC', 'TTC')
    """

    def __init__(
        self,
        columns: Sequence[str] = ("NC", "DAC", "TTC"),
        threshold: float | Mapping[str, float] = DEFAULT_THRESHOLD,
        num: int = 1,
        distance: Distance = "wrapped",
        **kwargs: Any,
    ) -> None:
        if not columns or len(set(columns)) != len(columns):
            raise SelectionError(f"NearestNegativesPerColumn: columns must be distinct, got {list(columns)}")
        if isinstance(threshold, Mapping) and set(threshold) != set(columns):
            raise SelectionError(
                f"NearestNegativesPerColumn: threshold names {sorted(threshold)}, but columns are "
                f"{sorted(columns)}"
            )
        self._selectors = [
            NearestNegatives(
                column,
                threshold[column] if isinstance(threshold, Mapping) else threshold,
                num,
                distance,
                **kwargs,
            )
            for column in columns
        ]

    @property
    def slot_columns(self) -> tuple[str, ...]:
        """Column that decides, by slot."""
        return tuple(selector.column for selector in self._selectors for _ in range(selector.num))

    @property
    def num_slots(self) -> int:
        """Slots K per sample."""
        return len(self.slot_columns)

    @property
    def rules(self) -> dict[str, float]:
        """Threshold below which a proposal is a negative, by column that decides."""
        return {selector.column: selector.threshold for selector in self._selectors}

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        parts = [selector(plans, scores, expert) for selector in self._selectors]
        return Selection(
            np.concatenate([part.indices for part in parts], axis=-1),
            np.concatenate([part.valid for part in parts], axis=-1),
        )


class _OneNegative:
    """A selector of one slot, whose subclasses say which of the failing proposals fills it."""

    def __init__(self, column: str = DEFAULT_COLUMN, threshold: float = DEFAULT_THRESHOLD) -> None:
        self._index = check_rule(column, threshold)
        self.column, self.threshold = column, threshold

    @property
    def num_slots(self) -> int:
        """Slots K per sample."""
        return 1

    @property
    def slot_columns(self) -> tuple[str, ...]:
        """Column that decides, by slot."""
        return (self.column,)

    @property
    def rules(self) -> dict[str, float]:
        """Threshold below which a proposal is a negative, by the column that decides."""
        return {self.column: self.threshold}

    def _first_failing(self, places: ArrayLike, plans: ArrayLike, scores: ArrayLike) -> Selection:
        """The proposal with the lowest place (..., P) among those that fail."""
        return smallest(np.where(is_negative(scores, self.column, self.threshold), places, np.inf), 1, plans)


@SELECTORS.register_module()
class RandomNegatives(_OneNegative):
    """An ablation: any of the failing proposals in place of the nearest, the same one in every epoch.

    The places of the proposals are shuffled by the seed, alike in all scenes; the first that fails is chosen.

    Args:
        column: Column that decides.
        threshold: A proposal is a negative if its column is strictly below.
        seed: Of the order.

    >>> plans = np.zeros((3, 8, 3)); plans[:, :, 1] = [[1.0], [2.0], [3.0]]
    >>> all_fail = np.zeros((3, 7))
    >>> [RandomNegatives(seed=s)(plans, all_fail, np.zeros((8, 3))).indices.item() for s in range(4)]
    [1, 0, 1, 2]
    """

    def __init__(
        self, column: str = DEFAULT_COLUMN, threshold: float = DEFAULT_THRESHOLD, seed: int = 0
    ) -> None:
        super().__init__(column, threshold)
        self.seed = seed

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        plans, scores, _ = check_proposals(plans, scores, expert)
        order = np.random.default_rng(self.seed).permutation(plans.shape[-3])
        return self._first_failing(order, plans, scores)


@SELECTORS.register_module()
class WorstNegatives(_OneNegative):
    """An ablation: the proposal with the lowest score in place of the nearest that fails.

    Of equally bad ones, and with PDMS most failures are at 0, the farthest from the expert is chosen.

    Args:
        column: Column that decides.
        threshold: A proposal is a negative if its column is strictly below.

    >>> plans = np.zeros((3, 8, 3)); plans[:, :, 1] = [[1.0], [2.0], [3.0]]
    >>> scores = np.ones((3, 7)); scores[:, 6] = [0.2, 0.0, 0.0]
    >>> WorstNegatives()(plans, scores, np.zeros((8, 3))).indices.tolist()
    [2]
    """

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        plans, scores, expert = check_proposals(plans, scores, expert)
        away = squared_distance(plans, expert[..., None, :, :])
        worst_first = np.lexsort((-away, scores[..., self._index]), axis=-1)
        return self._first_failing(worst_first.argsort(axis=-1), plans, scores)


@SELECTORS.register_module()
class PassingPlans(_OneNegative):
    """A control: in place of each hard negative, a plan at about the same distance that does not fail.

    A sample has one where :class:`NearestNegatives` finds a negative and a proposal passes: the one whose
    *squared* distance to the expert is nearest to that of the negative, which takes a nearer plan rather than
    a farther one (beside a negative at 1 m one at 0.5 m, not at 1.4 m). So the same samples are repelled,
    about as far.

    Args:
        column: Column that decides.
        threshold: A proposal passes if its column is not below.
        distance: ``wrapped`` or ``reference``.

    >>> plans = np.zeros((3, 8, 3)); plans[:, :, 1] = [[1.0], [0.1], [1.2]]
    >>> scores = np.ones((3, 7)); scores[0, 6] = 0.0
    >>> PassingPlans()(plans, scores, np.zeros((8, 3))).indices.tolist()
    [2]
    """

    def __init__(
        self,
        column: str = DEFAULT_COLUMN,
        threshold: float = DEFAULT_THRESHOLD,
        distance: Distance = "wrapped",
    ) -> None:
        super().__init__(column, threshold)
        self._negatives = NearestNegatives(column, threshold, 1, distance)
        self.distance = distance

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        hard, found = self._negatives(plans, scores, expert)
        if np.shape(plans)[-3] == 0:
            return Selection(hard, found)
        away = squared_distance(plans, np.asarray(expert)[..., None, :, :], self.distance)  # (..., P)
        wanted = np.take_along_axis(away, hard, axis=-1)  # (..., 1)
        passes = ~is_negative(scores, self.column, self.threshold)
        gap = np.where(passes, np.abs(away - wanted), np.inf)
        best = gap.argmin(axis=-1)[..., None]
        valid = found & np.isfinite(np.take_along_axis(gap, best, axis=-1))
        return Selection(np.where(valid, best, 0), valid)
