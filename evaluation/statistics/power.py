"""How many seeds and scenes it takes to see a difference of a given size.

The paired differences (S, T) of a pilot are split into what varies with the seed, what varies with the scene
and the rest (two-way analysis of variance without replication, random effects), which scipy does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from beyonddrive.evaluation.statistics.intervals import CONFIDENCE, StatisticsError


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

        >>> round(Spread(seeds=0.0, scenes=1.0, rest=0.0).half_width(1, 400), 3)
        0.098
        """
        variance = self.seeds / num_seeds + self.scenes / num_scenes + self.rest / (num_seeds * num_scenes)
        return float(stats.norm.ppf(0.5 + confidence / 2.0) * np.sqrt(variance))

    def scenes_for(self, half_width: float, num_seeds: int, confidence: float = CONFIDENCE) -> int | None:
        """Scenes that make the interval as narrow as that; None if no number does with so few seeds.

        >>> Spread(seeds=0.0, scenes=1.0, rest=0.0).scenes_for(0.098, 1)
        400
        """
        deviation = half_width / float(stats.norm.ppf(0.5 + confidence / 2.0))
        left = deviation**2 - self.seeds / num_seeds
        if left <= 0.0:
            return None
        return int(np.ceil((self.scenes + self.rest / num_seeds) / left - 1e-9))


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
