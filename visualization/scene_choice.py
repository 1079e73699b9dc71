"""Which scenes are drawn: some by chance, or the worst by a column of their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import FUTURE
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.structures.errors import BeyondDriveError

HUMAN = "human"
"""Name of the log's driver among planners."""


class PlansError(BeyondDriveError, ValueError):
    """Plans cannot be drawn with these names, scenes or columns; the message names them and the remedy."""


def choose_tokens(
    root: NavsimRoot,
    split: str,
    count: int | None,
    seed: int,
    plans: Mapping[str, Mapping[str, NDArray[np.float64]]],
    pool: NegativePool | None = None,
    scene_filter: SceneFilter | None = None,
) -> list[str]:
    """Scenes of a split, chosen by chance among those for which all that is to be drawn is there.

    Args:
        root: The data root.
        split: Split of the scenes.
        count: How many; fewer if there are not so many. None for all.
        seed: Of the choice.
        plans: Plans by planner and token.
        pool: Negatives, if any.
        scene_filter: Which windows of the logs are scenes; None is the default filter.

    Raises:
        PlansError: If no scene of the split has the frames after now that are drawn, a plan of every planner
            and, if there is a pool, a record.
    """
    scene_filter = scene_filter or SceneFilter()
    every = {ref.token for ref in root.refs(split, scene_filter)}
    drawable = every
    if scene_filter.num_future_frames < FUTURE:  # (else there is no need to read the logs twice)
        drawable = every & _with_future(root, split, scene_filter)
    tokens = sorted(drawable)
    if every and not tokens:
        raise PlansError(
            f"split {split} of {root.root} has {len(every)} scenes, but not one with the {FUTURE} frames "
            f"after now that are drawn; take a split that has them"
        )
    kept = [
        t for t in tokens if all(t in by_token for by_token in plans.values()) and (pool is None or t in pool)
    ]
    if not kept:
        wanted = [*plans, *([f"the pool {pool.root}"] if pool is not None else [])]
        raise PlansError(
            f"split {split} of {root.root} has {len(tokens)} scenes, but not one that is known to "
            f"{' and '.join(wanted) or 'the scene filter'}; were they made for this split?"
        )
    if count is None:
        return kept
    chosen = np.random.default_rng(seed).permutation(len(kept))[:count]
    return [kept[index] for index in sorted(chosen)]


def _with_future(root: NavsimRoot, split: str, scene_filter: SceneFilter) -> set[str]:
    """Tokens of windows, of all that a filter might keep, that the log goes on behind for long enough."""
    longer = replace(
        scene_filter,
        num_future_frames=FUTURE,
        frame_interval=scene_filter.interval,  # (windows start where they did)
        max_scenes=None,
        tokens=None,
    )
    return {ref.token for ref in root.refs(split, longer)}


class Chosen(NamedTuple):
    """A scene that is among the worst: its value in the column, 0 to 1, and its place from 1 on."""

    token: str
    value: float
    rank: int


def worst_scenes(
    values: Mapping[str, NDArray[np.float64]], columns: Sequence[str], column: str, count: int
) -> list[Chosen]:
    """The scenes with the lowest values of a column, the worst first.

    Of equal values the one with the lower score comes first, then the token decides. Scenes that lose nothing
    in the column, or lack it, are not among them, so that there may be fewer than asked for.

    Args:
        values: (S,) scores by token.
        columns: Their names; the last is the score.
        column: By which.
        count: How many at most.

    Raises:
        PlansError: If there is no such column.

    >>> rows = {"a": np.array([1.0, 0.9]), "b": np.array([0.0, 0.0]), "c": np.array([0.5, 0.3])}
    >>> [chosen.token for chosen in worst_scenes(rows, ("DAC", "PDMS"), "DAC", 2)]
    ['b', 'c']
    """
    if column not in columns:
        raise PlansError(f"--column {column}: there is no such column, choose one of {', '.join(columns)}")
    index = list(columns).index(column)
    lost = [(row[index], row[-1], token) for token, row in values.items() if row[index] < 1.0]
    return [
        Chosen(token, float(value), rank) for rank, (value, _, token) in enumerate(sorted(lost)[:count], 1)
    ]
