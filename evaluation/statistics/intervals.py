"""Means and paired differences of scores with intervals over training seeds and scenes.

A planner that was trained with S seeds and judged on T scenes has scores (S, T). Both are samples: other
seeds would have given other weights, and other scenes other situations. Two intervals say how far the mean
may be from that of all seeds and scenes. Figures are quoted with the *interval*: Student's over the seeds,
joined with the normal one over the scenes (:mod:`~beyonddrive.evaluation.statistics.spread`), which holds the
truth at least as often as it says, with two seeds, too. The *bootstrap* draws both anew, independently of
each other, since every seed was judged on every scene; of few seeds it cannot know how far another would lie.
With one seed it is all that there is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from beyonddrive.evaluation.statistics.spread import CONFIDENCE, Spread, StatisticsError, spread_of

RESAMPLES = 4999


@dataclass(frozen=True)
class Estimate:
    """A mean and how well it is known, in the unit of the scores.

    Attributes:
        mean: Over all seeds and scenes.
        interval: Both ends, over seeds and scenes; with one seed the bootstrap's, over scenes alone.
        bootstrap: The same by the bootstrap over seeds and scenes.
        std: Standard deviation of the means of the seeds, NaN with one seed.
        error_scenes: Standard error over scenes, of the mean over seeds; NaN with one scene.
        num_seeds: Seeds.
        num_scenes: Scenes.
        spread: What the scores vary with; None with fewer than two seeds or scenes.
    """

    mean: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    std: float
    error_scenes: float
    num_seeds: int
    num_scenes: int
    spread: Spread | None = None

    def as_numbers(self) -> dict[str, Any]:
        """Its values by name, without the spread, from which the interval follows."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "spread"}

    @property
    def is_above_zero(self) -> bool:
        """Whether the interval lies above 0."""
        return self.interval[0] > 0.0

    @property
    def is_below_zero(self) -> bool:
        """Whether the interval lies below 0."""
        return self.interval[1] < 0.0


def estimate(
    scores: ArrayLike, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean of scores (S, T) of S seeds on T scenes, with its intervals, which are NaN of one scene.

    Args:
        scores: (S, T), finite.
        confidence: Of both intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap; the same seed gives the same interval.

    Raises:
        StatisticsError: If the shape is another, or a score is not finite.

    >>> both = estimate([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    >>> round(both.mean, 3), both.num_seeds, both.interval[0] < both.bootstrap[0] < both.mean
    (0.833, 2, True)
    """
    return estimates([scores], confidence, resamples, seed)[0]


def estimates(
    scores: Iterable[ArrayLike], confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """Estimate several scores, each as :func:`estimate` does, those of the same shape from the same draws.

    The draws take most of the time, so that the rows of a table cost little more than one of them.

    Raises:
        StatisticsError: If a shape is another than (S, T), or a score is not finite.
    """
    arrays = [_checked(values) for values in scores]
    intervals = _INTERVALS.of(arrays, confidence, resamples, seed)
    return [
        _estimate(values, interval, confidence) for values, interval in zip(arrays, intervals, strict=True)
    ]


def difference_of(scores: ArrayLike, baseline: ArrayLike) -> NDArray[np.float64]:
    """Scores (S, T) minus those of a baseline (S, T), which has the shape (1, T) if it is not trained.

    The same row is the same seed and the same column the same scene, in both.

    Raises:
        StatisticsError: If the shapes do not fit.
    """
    ours, theirs = np.asarray(scores, np.float64), np.asarray(baseline, np.float64)
    fits = ours.ndim == theirs.ndim == 2 and ours.shape[1] == theirs.shape[1]
    if not fits or theirs.shape[0] not in (1, ours.shape[0]):
        raise StatisticsError(
            f"scores {ours.shape} and those of the baseline {theirs.shape} are not paired: give the same "
            "seeds and scenes"
        )
    return ours - theirs


def paired_difference(
    scores: ArrayLike,
    baseline: ArrayLike,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """How much higher ``scores`` are than those of a ``baseline``, scene by scene: see :func:`difference_of`.

    Raises:
        StatisticsError: If the shapes do not fit.
    """
    return estimate(difference_of(scores, baseline), confidence, resamples, seed)


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise StatisticsError(f"scores must have the shape (seeds, scenes), got {values.shape}")
    if not np.isfinite(values).all():
        raise StatisticsError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    return values


def _estimate(values: NDArray[np.float64], bootstrap: tuple[float, float], confidence: float) -> Estimate:
    num_seeds, num_scenes = values.shape
    mean, means = float(values.mean()), values.mean(axis=1)
    std = float(np.std(means, ddof=1)) if num_seeds > 1 else np.nan
    error = float(stats.sem(values.mean(axis=0))) if num_scenes > 1 else np.nan
    interval, spread = bootstrap, None
    if min(values.shape) > 1:
        spread = spread_of(values)
        half = spread.half_width(num_seeds, num_scenes, confidence)
        interval = mean - half, mean + half
    return Estimate(mean, interval, bootstrap, std, error, num_seeds, num_scenes, spread)


_Key = tuple[bytes, tuple[int, ...], float, int, int]
"""Digest and shape of scores, confidence, resamples and seed."""


class _Intervals:
    """Bootstrap intervals, those of the last scores kept: a report and the documents ask for the same."""

    KEPT = 2000

    def __init__(self) -> None:
        self._known: dict[_Key, tuple[float, float]] = {}

    def of(
        self, arrays: Sequence[NDArray[np.float64]], confidence: float, resamples: int, seed: int
    ) -> list[tuple[float, float]]:
        """Intervals of the means of arrays (S, T)."""
        keys: list[_Key] = [
            (hashlib.sha256(values.tobytes()).digest(), values.shape, confidence, resamples, seed)
            for values in arrays
        ]
        found = {key: self._known[key] for key in keys if key in self._known}
        missing = {key: values for key, values in zip(keys, arrays, strict=True) if key not in found}
        for shape in {values.shape for values in missing.values()}:
            alike = {key: values for key, values in missing.items() if values.shape == shape}
            drawn = _bootstrap(np.stack(list(alike.values())), confidence, resamples, seed)
            found.update(zip(alike, drawn, strict=True))
        self._known |= found
        for key in list(self._known)[: -self.KEPT]:
            del self._known[key]
        return [found[key] for key in keys]


_INTERVALS = _Intervals()


def _bootstrap(
    scores: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> list[tuple[float, float]]:
    """Percentile intervals of the means of scores (N, S, T), drawing seeds and scenes independently."""
    number, num_seeds, num_scenes = scores.shape
    if num_scenes < 2:
        return [(float("nan"), float("nan"))] * number

    def means(*drawn: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        # (B, S) seeds, if there are several, and (B, T) scenes -> (N, B): how often each was drawn weighs it.
        del axis  # the last, as scipy asks of a vectorised statistic
        by_seed = _shares(drawn[-1], num_scenes) @ scores.reshape(-1, num_scenes).T
        by_seed = by_seed.reshape(len(by_seed), number, num_seeds)
        if num_seeds == 1:
            return by_seed[..., 0].T
        return np.einsum("bns,bs->nb", by_seed, _shares(drawn[0], num_seeds))

    data = [np.arange(size) for size in (num_seeds, num_scenes) if size > 1]
    found = stats.bootstrap(
        data,
        means,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // num_scenes),
        vectorized=True,
        paired=False,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    lows, highs = np.atleast_1d(found.low, found.high)
    return [(_rounded(low), _rounded(high)) for low, high in zip(lows, highs, strict=True)]


def _rounded(value: float) -> float:
    """To twelve digits: the last ones of a product depend on what else is multiplied beside it."""
    return float(f"{value:.12g}")


def _shares(drawn: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """How often each of ``size`` was drawn, of the number of draws: (B, draws) numbers -> (B, size)."""
    places = drawn + size * np.arange(len(drawn))[:, None]
    counts = np.bincount(places.ravel(), minlength=size * len(drawn))
    return counts.reshape(len(drawn), size) / drawn.shape[1]
