"""Selection: which of the scored proposals of a scene become its hard negatives (METHOD, section 3).

A proposal is a negative if one column of its score is strictly below a threshold; the hard negative is the
negative nearest to the expert. :mod:`selectors` holds the rules as configs name them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import NUM_POSES, SCORE_COLUMNS
from beyonddrive.structures.se2 import wrap_angle

Distance = Literal["wrapped", "reference"]
DISTANCES: tuple[str, ...] = get_args(Distance)

DEFAULT_COLUMN = "PDMS"
DEFAULT_THRESHOLD = 0.6
"""A proposal below it fails (METHOD, section 3)."""


class SelectionError(BeyondDriveError, ValueError):
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


def displacement(plans: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Mean distance of the positions of plans (..., 8, 3), broadcast against each other [m].

    >>> displacement(np.zeros((8, 3)), np.full((8, 3), [3.0, 4.0, 1.0])).tolist()
    5.0
    """
    difference = np.asarray(plans, dtype=np.float64)[..., :2] - np.asarray(others, dtype=np.float64)[..., :2]
    return np.asarray(np.hypot(difference[..., 0], difference[..., 1]).mean(axis=-1))


def select_negatives(
    plans: ArrayLike,
    scores: ArrayLike,
    expert: ArrayLike,
    column: str = DEFAULT_COLUMN,
    threshold: float = DEFAULT_THRESHOLD,
    num: int = 1,
    distance: Distance = "wrapped",
    min_distance: float = 0.0,
    max_distance: float | None = None,
    spacing: float = 0.0,
) -> Selection:
    """Choose the ``num`` negatives nearest to the expert, nearest first (METHOD, section 3).

    Among equally near negatives the one with the lower index comes first. Metres are the mean distance of two
    plans' positions (:func:`displacement`).

    Args:
        plans: (..., P, 8, 3) proposals: x [m], y [m], heading [rad], ego frame at t = 0.
        scores: (..., P, 7) their scores in the order of ``SCORE_COLUMNS``.
        expert: (..., 8, 3) expert plan.
        column: Column that decides.
        threshold: A proposal is a negative if its column is strictly below; in (0, 1].
        num: Slots K; those beyond the number of negatives are invalid.
        distance: See :func:`squared_distance`.
        min_distance: Negatives nearer to the expert [m] are left out.
        max_distance: Negatives farther from the expert [m] are left out; None for no limit.
        spacing: Each negative is at least this far [m] from those before it, so that several negatives are
            not one failure several times.

    Raises:
        SelectionError: If shapes do not agree, a number is not finite or an option is unknown.

    >>> plans = np.zeros((3, 8, 3)); plans[:, :, 1] = [[3.0], [1.0], [2.0]]
    >>> scores = np.ones((3, 7)); scores[[0, 2], 6] = 0.0
    >>> select_negatives(plans, scores, np.zeros((8, 3)), num=3)
    Selection(indices=array([2, 0, 0]), valid=array([ True,  True, False]))
    """
    plans, scores, expert = check_proposals(plans, scores, expert)
    if num < 1:
        raise SelectionError(f"num: at least one negative must be asked for, got {num}")
    check_range(min_distance, max_distance, spacing)
    squared = squared_distance(plans, expert[..., None, :, :], distance)  # (..., P)
    allowed = is_negative(scores, column, threshold)
    if min_distance > 0.0 or max_distance is not None:
        meters = displacement(plans, expert[..., None, :, :])
        allowed &= (meters >= min_distance) & (meters <= (np.inf if max_distance is None else max_distance))
    return smallest(np.where(allowed, squared, np.inf), num, plans, spacing)


def smallest(keys: ArrayLike, num: int, plans: ArrayLike, spacing: float = 0.0) -> Selection:
    """Fill ``num`` slots by the smallest keys (..., P), the smallest first; infinity is never chosen.

    Among equal keys the lower index comes first.

    Args:
        keys: (..., P), finite for what may be chosen.
        num: Slots K.
        plans: (..., P, 8, 3) plans of the keys.
        spacing: Each plan is at least this far [m] from those before it (:func:`displacement`).
    """
    left = np.array(keys, np.float64)
    indices = np.zeros((*left.shape[:-1], num), np.int64)
    valid = np.zeros(indices.shape, np.bool_)
    for slot in range(num if left.shape[-1] else 0):
        best = left.argmin(axis=-1)[..., None]  # (..., 1)
        found = np.isfinite(np.take_along_axis(left, best, axis=-1))
        valid[..., slot : slot + 1] = found
        indices[..., slot : slot + 1] = np.where(found, best, 0)
        np.put_along_axis(left, best, np.inf, axis=-1)
        if spacing > 0.0:
            chosen = np.take_along_axis(np.asarray(plans), best[..., None, None], axis=-3)
            left[displacement(plans, chosen) < spacing] = np.inf
    return Selection(indices, valid)


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


def check_range(min_distance: float, max_distance: float | None, spacing: float) -> None:
    """Raise :class:`SelectionError` unless these are distances [m] that leave something to choose from."""
    limit = np.inf if max_distance is None else max_distance
    if not (0.0 <= min_distance < limit and 0.0 <= spacing < np.inf):
        raise SelectionError(
            f"distances: wanted 0 <= min_distance < max_distance and spacing >= 0, got {min_distance}, "
            f"{max_distance} and {spacing}"
        )


def check_proposals(
    plans: ArrayLike, scores: ArrayLike, expert: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Plans (..., P, 8, 3), scores (..., P, 7) and expert (..., 8, 3) as arrays.

    Raises:
        SelectionError: If shapes do not agree, or a number is not finite.
    """
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
