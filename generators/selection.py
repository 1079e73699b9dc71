"""Selection: which of the scored proposals of a scene become its hard negatives (METHOD, section 3).

A proposal is a negative if one column of its score is strictly below a threshold; the hard negative is the
negative nearest to the expert. A selector turns the proposals of a scene into a fixed number of slots, so
that samples can be batched: an empty slot is invalid and repels nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.registry import SELECTORS
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS
from beyonddrive.structures.se2 import wrap_angle

Distance = Literal["wrapped", "reference"]
DISTANCES: tuple[str, ...] = get_args(Distance)

DEFAULT_COLUMN = "PDMS"
DEFAULT_THRESHOLD = 0.6
"""A proposal below it fails (METHOD, section 3)."""


class SelectionError(ValueError):
    """A selection is configured wrongly or its arrays do not fit together."""


class Selection(NamedTuple):
    """Chosen proposals.

    Attributes:
        indices: (..., K) int64 index of the proposal in each slot; 0 in an invalid slot.
        valid: (..., K) bool whether the slot holds a negative.
    """

    indices: NDArray[np.int64]
    valid: NDArray[np.bool_]


def squared_distance(
    plans: ArrayLike, expert: ArrayLike, distance: Distance = "wrapped"
) -> NDArray[np.float64]:
    """Mean over time of dx^2 + dy^2 + dheading^2 between plans and an expert (METHOD, section 3).

    Args:
        plans: (..., 8, 3) plans: x [m], y [m], heading [rad].
        expert: (..., 8, 3) expert plan, broadcast against ``plans``.
        distance: ``wrapped`` takes the heading difference modulo 2 pi; ``reference`` takes the plain
            difference, as the published code does (MODELS, section 11, quirk 6).

    Returns:
        (...) metres and radians squared, summed without weights.

    >>> turned = np.zeros((8, 3)); turned[:, 2] = 2 * np.pi
    >>> round(float(squared_distance(turned, np.zeros((8, 3)))), 6)
    0.0
    >>> round(float(squared_distance(turned, np.zeros((8, 3)), 'reference')), 6)
    39.478418
    """
    check_distance(distance)
    difference = np.asarray(plans, dtype=np.float64) - np.asarray(expert, dtype=np.float64)
    if distance == "wrapped":
        difference[..., 2] = wrap_angle(difference[..., 2])
    return np.asarray(np.square(difference).sum(axis=-1).mean(axis=-1))


def is_negative(
    scores: ArrayLike, column: str = DEFAULT_COLUMN, threshold: float = DEFAULT_THRESHOLD
) -> NDArray[np.bool_]:
    """Whether each score (..., 7) is strictly below the threshold in a column.

    The threshold is rounded to the type of the scores, so that a score stored as float32 is not below a
    threshold that it equals.

    >>> is_negative([[1, 1, 1, 1, 1, 1, 0.6], [1, 0, 1, 1, 1, 1, 0.0]]).tolist()
    [False, True]
    >>> is_negative(np.full((1, 7), 0.7, np.float32), 'EP', 0.7).tolist()
    [False]
    """
    array = np.asarray(scores)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    index = check_rule(column, threshold)
    return np.asarray(array[..., index] < array.dtype.type(threshold))


def select_negatives(
    plans: ArrayLike,
    scores: ArrayLike,
    expert: ArrayLike,
    column: str = DEFAULT_COLUMN,
    threshold: float = DEFAULT_THRESHOLD,
    num: int = 1,
    distance: Distance = "wrapped",
) -> Selection:
    """Choose the ``num`` negatives nearest to the expert, nearest first (METHOD, section 3).

    Among equally near negatives the one with the lower index comes first.

    Args:
        plans: (..., P, 8, 3) proposals: x [m], y [m], heading [rad], ego frame at t = 0.
        scores: (..., P, 7) their scores in the order of ``SCORE_COLUMNS``.
        expert: (..., 8, 3) expert plan.
        column: Column that decides.
        threshold: A proposal is a negative if its column is strictly below; in (0, 1].
        num: Slots K; those beyond the number of negatives are invalid.
        distance: See :func:`squared_distance`.

    Raises:
        SelectionError: If shapes do not agree, a number is not finite or an option is unknown.

    >>> plans = np.zeros((3, 8, 3)); plans[:, :, 1] = [[3.0], [1.0], [2.0]]
    >>> scores = np.ones((3, 7)); scores[[0, 2], 6] = 0.0
    >>> select_negatives(plans, scores, np.zeros((8, 3)), num=3)
    Selection(indices=array([2, 0, 0]), valid=array([ True,  True, False]))
    """
    plans, scores, expert = _checked(plans, scores, expert)
    if num < 1:
        raise SelectionError(f"num: at least one negative must be asked for, got {num}")
    squared = squared_distance(plans, expert[..., None, :, :], distance)  # (..., P)
    squared = np.where(is_negative(scores, column, threshold), squared, np.inf)
    missing = max(num - squared.shape[-1], 0)
    if missing:
        squared = np.pad(squared, [(0, 0)] * (squared.ndim - 1) + [(0, missing)], constant_values=np.inf)
    order = np.argsort(squared, axis=-1, kind="stable")[..., :num]
    valid = np.isfinite(np.take_along_axis(squared, order, axis=-1))
    return Selection(np.where(valid, order, 0).astype(np.int64), valid)


class Selector(Protocol):
    """Fills a fixed number of slots with negatives."""

    @property
    def num_slots(self) -> int:
        """Slots K per sample."""
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

    >>> NearestNegatives(column='DAC').num_slots
    1
    """

    def __init__(
        self,
        column: str = DEFAULT_COLUMN,
        threshold: float = DEFAULT_THRESHOLD,
        num: int = 1,
        distance: Distance = "wrapped",
    ) -> None:
        check_rule(column, threshold)
        check_distance(distance)
        if num < 1:
            raise SelectionError(f"NearestNegatives: num must be at least 1, got {num}")
        self.column, self.threshold, self.num, self.distance = column, threshold, num, distance

    @property
    def num_slots(self) -> int:
        """Slots K per sample."""
        return self.num

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        return select_negatives(plans, scores, expert, self.column, self.threshold, self.num, self.distance)


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

    >>> NearestNegativesPerColumn(num=2).slot_columns
    ('NC', 'NC', 'DAC', 'DAC', 'TTC', 'TTC')
    """

    def __init__(
        self,
        columns: Sequence[str] = ("NC", "DAC", "TTC"),
        threshold: float | Mapping[str, float] = DEFAULT_THRESHOLD,
        num: int = 1,
        distance: Distance = "wrapped",
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
                column, threshold[column] if isinstance(threshold, Mapping) else threshold, num, distance
            )
            for column in columns
        ]

    @property
    def slot_columns(self) -> tuple[str, ...]:
        """Column of each slot."""
        return tuple(selector.column for selector in self._selectors for _ in range(selector.num))

    @property
    def num_slots(self) -> int:
        """Slots K per sample."""
        return len(self.slot_columns)

    def __call__(self, plans: ArrayLike, scores: ArrayLike, expert: ArrayLike) -> Selection:
        """Choose from plans (..., P, 8, 3) with scores (..., P, 7) and expert (..., 8, 3)."""
        parts = [selector(plans, scores, expert) for selector in self._selectors]
        return Selection(
            np.concatenate([part.indices for part in parts], axis=-1),
            np.concatenate([part.valid for part in parts], axis=-1),
        )


def check_rule(column: str, threshold: float) -> int:
    """Return the index of a score column after checking the rule that makes a negative.

    Raises:
        SelectionError: If the column is unknown or the threshold is outside (0, 1].
    """
    if column not in SCORE_COLUMNS:
        raise SelectionError(f"column: {column!r} is not a score column, choose one of {list(SCORE_COLUMNS)}")
    if not 0.0 < threshold <= 1.0:
        raise SelectionError(f"threshold: must be in (0, 1] because scores are in [0, 1], got {threshold}")
    return SCORE_COLUMNS.index(column)


def check_distance(distance: str) -> None:
    """Raise :class:`SelectionError` unless ``distance`` is known."""
    if distance not in DISTANCES:
        raise SelectionError(f"distance: {distance!r} is unknown, choose one of {list(DISTANCES)}")


def _checked(plans: Any, scores: Any, expert: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    plans, scores, expert = np.asarray(plans), np.asarray(scores), np.asarray(expert)
    pose = (NUM_POSES, 3)
    if plans.ndim < 3 or plans.shape[-2:] != pose:
        raise SelectionError(f"plans: must be (..., P, {NUM_POSES}, 3), got {plans.shape}")
    lead, count = plans.shape[:-3], plans.shape[-3]
    if scores.shape != (*lead, count, len(SCORE_COLUMNS)):
        wanted = (*lead, count, len(SCORE_COLUMNS))
        raise SelectionError(f"scores: must be {wanted} for plans {plans.shape}, got {scores.shape}")
    if expert.shape != (*lead, *pose):
        raise SelectionError(f"expert: must be {(*lead, *pose)} for plans {plans.shape}, got {expert.shape}")
    for name, array in (("plans", plans), ("scores", scores), ("expert", expert)):
        if not np.isfinite(array).all():
            raise SelectionError(f"{name}: hold NaN or infinity")
    return plans, scores, expert
