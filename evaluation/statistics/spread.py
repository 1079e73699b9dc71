"""What of scores varies with the seed and what with the scene: how well a mean is known, and what would be.

Scores or paired differences (S, T) are split into what varies with the seed, what varies with the scene
and the rest (two-way analysis of variance without replication, random effects), which scipy does not have.
From that follow the width of an interval, and how many seeds and scenes a narrower one takes.

What varies with the seed is known from few seeds, so it takes Student's quantile; the scenes are many and
take the normal one. The half widths of both parts are independent, so their squares add up (as MOVER, the
method of variance estimates recovery, joins intervals).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from beyonddrive.structures.errors import BeyondDriveError

CONFIDENCE = 0.95


class StatisticsError(BeyondDriveError, ValueError):
    """Scores that give no interval: of the wrong shape, not finite, or not paired."""


@dataclass(frozen=True)
class Spread:
    """Variances of paired differences, in the square of their unit.

    Attributes:
        seeds: Of the effect of the seed.
        scenes: Of the effect of the scene.
        rest: Of what is left.
    """

    seeds: float
    scenes: float
    rest: float

    def half_width(self, num_seeds: int, num_scenes: int, confidence: float = CONFIDENCE) -> float:
        """Half the width of the interval of a mean difference over so many seeds and scenes.

        Infinite with one seed if anything varies with it: one seed does not say how far another would lie.

        >>> round(Spread(seeds=0.0, scenes=1.0, rest=0.0).half_width(1, 400), 3)
        0.098
        >>> round(Spread(seeds=1.0, scenes=0.0, rest=0.0).half_width(3, 400), 3)
        2.484
        """
        of_seeds = self.seeds / num_seeds + self.rest / (num_seeds * num_scenes)
        squares = [_square_quantile(confidence) * self.scenes / num_scenes]
        if of_seeds > 0.0:
            squares.append(_square_quantile(confidence, num_seeds) * of_seeds)
        return float(np.sqrt(sum(squares)))

    def scenes_for(self, half_width: float, num_seeds: int, confidence: float = CONFIDENCE) -> int | None:
        """Scenes that make the interval as narrow as that; None if no number does with so few seeds.

        >>> Spread(seeds=0.0, scenes=1.0, rest=0.0).scenes_for(0.098, 1)
        400
        """
        if not np.isfinite(self.half_width(num_seeds, 1, confidence)):
            return None
        student = _square_quantile(confidence, num_seeds) if num_seeds > 1 else 0.0
        left = half_width**2 - student * self.seeds / num_seeds
        if left <= 0.0:
            return None
        wanted = _square_quantile(confidence) * self.scenes + student * self.rest / num_seeds
        return max(1, int(np.ceil(wanted / left - 1e-9)))

    def seeds_for(
        self, half_width: float, num_scenes: int, confidence: float = CONFIDENCE, most: int = 1000
    ) -> int | None:
        """Fewest seeds that make the interval as narrow as that; None if not even ``most`` do.

        >>> spread = Spread(seeds=0.5, scenes=100.0, rest=100.0)
        >>> spread.seeds_for(0.5, 3000), spread.seeds_for(0.5, 1000)
        (20, None)
        """
        found = (n for n in range(1, most + 1) if self.half_width(n, num_scenes, confidence) <= half_width)
        return next(found, None)


@cache
def _square_quantile(confidence: float, num_seeds: int | None = None) -> float:
    """Square of the two-sided quantile: Student's of so many seeds (infinite for one), else the normal."""
    tail = 0.5 + confidence / 2.0
    if num_seeds is None:
        return float(stats.norm.ppf(tail)) ** 2
    return float(stats.t.ppf(tail, num_seeds - 1)) ** 2 if num_seeds > 1 else float("inf")


def spread_of(differences: ArrayLike) -> Spread:
    """Split the variance of paired differences (S, T) of at least two seeds and two scenes.

    Raises:
        StatisticsError: If there are fewer, or one is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise StatisticsError(
            f"a spread needs finite differences of at least two seeds and two scenes, got {values.shape}"
        )
    num_seeds, num_scenes = values.shape
    by_seed, by_scene = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_scene[None] + values.mean()
    square_rest = float((rest**2).sum()) / ((num_seeds - 1) * (num_scenes - 1))
    square_seeds = num_scenes * float(np.var(by_seed, ddof=1))
    square_scenes = num_seeds * float(np.var(by_scene, ddof=1))
    return Spread(
        max(0.0, (square_seeds - square_rest) / num_scenes),
        max(0.0, (square_scenes - square_rest) / num_seeds),
        square_rest,
    )
