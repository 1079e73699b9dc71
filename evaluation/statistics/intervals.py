"""Means and paired differences of scores with intervals over training seeds and scenes.

A planner that was trained with S seeds and judged on T scenes has scores (S, T). Both are samples: other
seeds would have given other weights, and other scenes other situations. The bootstrap draws both anew,
independently of each other, since every seed was judged on every scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from beyonddrive.structures.errors import BeyondDriveError

CONFIDENCE = 0.95
RESAMPLES = 4999


class StatisticsError(BeyondDriveError, ValueError):
    """Scores that give no interval: of the wrong shape, not finite, or not paired."""


@dataclass(frozen=True)
class Estimate:
    """A mean and how well it is known, in the unit of the scores.

    Attributes:
        mean: Over all seeds and scenes.
        low: Lower end of the bootstrap interval over seeds and scenes; over scenes alone with one seed.
        high: Upper end.
        seed_low: Lower end of Student's interval of the means of the seeds, NaN with one seed. With few seeds
            it is the wider and the more honest one.
        seed_high: Upper end.
        std: Standard deviation of the means of the seeds, NaN with one seed.
        error_scenes: Standard error over scenes, of the mean over seeds; NaN with one scene.
        num_seeds: Seeds.
        num_scenes: Scenes.
    """

    mean: float
    low: float
    high: float
    seed_low: float
    seed_high: float
    std: float
    error_scenes: float
    num_seeds: int
    num_scenes: int

    @property
    def widest(self) -> tuple[float, float]:
        """The wider of both: with few seeds a bootstrap cannot know how far another seed would lie."""
        low, high = self.seed_low, self.seed_high
        return (low, high) if high - low > self.high - self.low else (self.low, self.high)

    @property
    def is_above_zero(self) -> bool:
        """Whether the bootstrap interval lies above 0."""
        return self.low > 0.0

    @property
    def is_below_zero(self) -> bool:
        """Whether the bootstrap interval lies below 0."""
        return self.high < 0.0


def estimate(
    scores: ArrayLike, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean of scores (S, T) of S seeds on T scenes, with its intervals.

    Args:
        scores: (S, T), finite.
        confidence: Of both intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap; the same seed gives the same interval.

    Raises:
        StatisticsError: If the shape is another, or a score is not finite.

    >>> both = estimate([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    >>> round(both.mean, 3), both.num_seeds, both.low <= both.mean <= both.high
    (0.833, 2, True)
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise StatisticsError(f"scores must have the shape (seeds, scenes), got {values.shape}")
    if not np.isfinite(values).all():
        raise StatisticsError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    num_seeds, num_scenes = values.shape
    low, high = _bootstrap(values.tobytes(), num_seeds, confidence, resamples, seed)
    means = values.mean(axis=1)
    seed_low = seed_high = std = np.nan
    if num_seeds > 1:
        std = float(np.std(means, ddof=1))
        # Student's interval of equal means is a point, which scipy computes with a warning.
        seed_low, seed_high = (float(means[0]),) * 2
        if std > 0.0:
            interval = stats.ttest_1samp(means, 0.0).confidence_interval(confidence)
            seed_low, seed_high = float(interval.low), float(interval.high)
    error = float(stats.sem(values.mean(axis=0))) if num_scenes > 1 else np.nan
    return Estimate(float(values.mean()), low, high, seed_low, seed_high, std, error, num_seeds, num_scenes)


def paired_difference(
    scores: ArrayLike,
    baseline: ArrayLike,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """How much higher ``scores`` (S, T) are than those of a ``baseline`` (S, T), scene by scene.

    The same row is the same seed and the same column the same scene, in both. A baseline that has no seeds
    (it is not trained) has the shape (1, T).

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
    return estimate(ours - theirs, confidence, resamples, seed)


@lru_cache(maxsize=1000)
def _bootstrap(
    scores: bytes, num_seeds: int, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of the mean (S, T), drawing seeds and scenes independently.

    A report, its pictures and the documents ask for the same ones, and each takes tens of milliseconds.
    """
    values = np.frombuffer(scores).reshape(num_seeds, -1)
    num_scenes = values.shape[1]
    if num_scenes < 2:
        return float("nan"), float("nan")
    batch = max(1, 2_000_000 // num_scenes)

    def mean_of(seeds: NDArray[np.int64], scenes: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        # (B, S) rows and (B, T) columns that are drawn -> (B,) means; rows are summed up first.
        del axis  # the last, as scipy asks of a vectorised statistic
        rows, columns = np.atleast_2d(seeds), np.atleast_2d(scenes)
        counts = np.stack([np.bincount(row, minlength=num_seeds) for row in rows]) / num_seeds
        means = np.take_along_axis(counts @ values, columns, axis=1).mean(axis=1)
        return means.reshape(np.shape(scenes)[:-1])

    if num_seeds == 1:
        data: tuple[NDArray[np.int64], ...] = (np.arange(num_scenes),)

        def statistic(scenes: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
            return values[0][scenes].mean(axis=axis)

    else:
        data, statistic = (np.arange(num_seeds), np.arange(num_scenes)), mean_of  # type: ignore[assignment]
    found = stats.bootstrap(
        data,
        statistic,
        n_resamples=resamples,
        batch=batch,
        vectorized=True,
        paired=False,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
