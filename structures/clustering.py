"""Representative plans by k-means (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beyonddrive.structures.plan import NUM_POSES, check_plans
from beyonddrive.structures.vocabulary import FloatArray, Vocabulary, VocabularyError

HEADING_SCALE = 1.0
"""Metres that an error of one radian counts as."""
CHUNK_VALUES = 1 << 22
"""Distances held in memory at a time (32 MB)."""


def build_vocabulary(
    plans: NDArray[np.floating], size: int, seed: int = 0, max_iterations: int = 50
) -> NDArray[np.float32]:
    """Cluster plans by k-means; the same plans, size and seed give the same vocabulary.

    Distances are those of the 8 poses in x, y and on the unit circle of the heading (a radian counts as a
    metre), so headings wrap. Started by k-means++; a cluster that loses its plans restarts at the plan that
    is farthest from its centre. Memory is 256 bytes per plan and 32 MB for distances.

    Args:
        plans: (S, 8, 3) plans: x [m], y [m], heading [rad], ego frame at t = 0.
        size: Number of clusters V.
        seed: Seed of the start.
        max_iterations: Stop after so many rounds, if plans still change clusters then.

    Returns:
        (V, 8, 3) float32 cluster centres, largest cluster first.

    Raises:
        PlanError: If plans have another shape or hold NaN or infinity.
        VocabularyError: If there are fewer different plans than clusters.

    >>> plans = np.zeros((6, 8, 3))
    >>> plans[:, :, 0] = [[1], [1.2], [5], [5.2], [5.4], [9]]
    >>> build_vocabulary(plans, 3)[:, 0, 0].round(1)
    array([5.2, 1.1, 9. ], dtype=float32)
    """
    points = _to_points(check_plans(plans, "expert plans"))
    if size < 1:
        raise VocabularyError(f"size: a vocabulary needs at least 1 plan, got {size}")
    if len(points) < size:
        raise VocabularyError(
            f"{len(points)} plans cannot be cut into {size} clusters: read more scenes (another split or a "
            f"smaller frame_interval) or ask for a smaller vocabulary"
        )
    centres = _start(points, size, np.random.default_rng(seed))
    labels = np.full(len(points), -1)
    for _ in range(max_iterations):
        nearest, distances = _nearest(points, centres)
        if np.array_equal(nearest, labels):
            break
        labels = _without_empty(nearest, distances, size)
        counts = np.bincount(labels, minlength=size)
        order = np.argsort(labels, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        centres = np.add.reduceat(points[order], starts, axis=0) / counts[:, None]
    counts = np.bincount(labels, minlength=size)
    ranking = np.lexsort((centres[:, -4], -counts))  # equal counts: by how far forward they end
    return _to_plans(centres[ranking])


def assign_plans(plans: NDArray[np.floating], vocabulary: NDArray[np.floating]) -> NDArray[np.int64]:
    """Index (S,) of the vocabulary plan nearest to each plan (S, 8, 3), in the metric of the clustering.

    >>> vocabulary = np.stack([np.zeros((8, 3)), np.ones((8, 3))])
    >>> assign_plans(vocabulary[::-1] * 0.9, vocabulary).tolist()
    [1, 0]
    """
    points = _to_points(check_plans(plans))
    return _nearest(points, _to_points(check_plans(vocabulary, "vocabulary")))[0]


def describe_vocabulary(
    plans: NDArray[np.floating], vocabulary: NDArray[np.floating], meta: Mapping[str, Any]
) -> Vocabulary:
    """Add to a vocabulary what is known of the plans (S, 8, 3) of its clusters.

    Raises:
        VocabularyError: If a plan of the vocabulary is the nearest one of no plan.
    """
    checked = check_plans(plans, "expert plans")
    labels = assign_plans(checked, vocabulary)
    counts = np.bincount(labels, minlength=len(vocabulary))
    if not counts.all():
        raise VocabularyError(
            f"vocabulary: plan {int(np.flatnonzero(counts == 0)[0])} is nearest to none of {len(plans)} plans"
        )
    xy = np.concatenate([np.zeros_like(checked[:, :1, :2]), checked[..., :2]], axis=1)
    heading = checked[..., 2:]
    steps = np.concatenate([np.diff(xy, axis=1), np.sin(heading), np.cos(heading)], axis=-1)
    means, stds = np.empty((len(vocabulary), 4)), np.empty((len(vocabulary), 4))
    order = np.argsort(labels, kind="stable")
    for index, members in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        means[index], stds[index] = steps[members].mean(axis=(0, 1)), steps[members].std(axis=(0, 1))
    return Vocabulary(
        np.asarray(vocabulary, np.float32),
        counts.astype(np.int64),
        means,
        stds,
        {**meta, "num_plans": len(plans)},
    )


# ------------------------------------------------------------------ k-means
def _to_points(plans: FloatArray) -> FloatArray:
    heading = plans[..., 2:]
    circle = [HEADING_SCALE * np.cos(heading), HEADING_SCALE * np.sin(heading)]
    return np.concatenate([plans[..., :2], *circle], axis=-1).reshape(len(plans), -1)


def _to_plans(points: FloatArray) -> NDArray[np.float32]:
    poses = points.reshape(len(points), NUM_POSES, 4)
    heading = np.arctan2(poses[..., 3:], poses[..., 2:3])
    return np.concatenate([poses[..., :2], heading], axis=-1).astype(np.float32)


def _start(points: FloatArray, size: int, rng: np.random.Generator) -> FloatArray:
    """k-means++: every next centre is a point, drawn with the square of its distance to those before."""
    squares = np.einsum("ij,ij->i", points, points)
    chosen = [int(rng.integers(len(points)))]
    distances = np.full(len(points), np.inf)
    for _ in range(size - 1):
        centre = points[chosen[-1]]
        # The differences of nearly equal squares can fall below 0, or stay above it for the centre itself.
        np.minimum(distances, squares - 2 * (points @ centre) + squares[chosen[-1]], out=distances)
        distances[distances < 1e-9 * (1 + squares)] = 0.0
        total = np.cumsum(distances)
        if not total[-1] > 0:
            raise VocabularyError(
                f"only {len(chosen)} of {len(points)} plans are different, {size} clusters are wanted: read "
                f"more scenes or ask for a smaller vocabulary"
            )
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1], side="right")))
    return points[chosen]


def _nearest(points: FloatArray, centres: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Nearest centre of every point, and the square of the distance to it."""
    offset = np.einsum("ij,ij->i", centres, centres)
    labels, distances = np.empty(len(points), np.int64), np.empty(len(points))
    step = max(1, CHUNK_VALUES // len(centres))
    for start in range(0, len(points), step):
        chunk = points[start : start + step]
        table = chunk @ (-2 * centres.T)
        table += offset
        nearest = table.argmin(axis=1)
        labels[start : start + step] = nearest
        squares = np.einsum("ij,ij->i", chunk, chunk)
        distances[start : start + step] = squares + table[np.arange(len(chunk)), nearest]
    return labels, distances


def _without_empty(labels: NDArray[np.int64], distances: FloatArray, size: int) -> NDArray[np.int64]:
    """Give every empty cluster the farthest point that does not leave another one empty."""
    counts = np.bincount(labels, minlength=size)
    empty = np.flatnonzero(counts == 0)
    if len(empty) == 0:
        return labels
    labels = labels.copy()
    farthest = iter(np.argsort(-distances, kind="stable"))
    for cluster in empty:
        point = next(index for index in farthest if counts[labels[index]] > 1)
        counts[labels[point]] -= 1
        labels[point], counts[cluster] = cluster, 1
    return labels
