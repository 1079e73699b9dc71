"""Standard errors over towns."""

import numpy as np
import pytest
from scipy import stats

from beyonddrive.results.effect.towns import error_over_towns


def test_towns_of_one_scene_are_scenes():
    values = np.random.default_rng(0).normal(size=60)
    assert error_over_towns(values, np.arange(60).astype(str)) == pytest.approx(stats.sem(values))


def test_scenes_that_are_alike_count_once():
    values = np.random.default_rng(1).normal(size=60)
    towns = np.arange(60).astype(str)
    found = error_over_towns(np.tile(values, 4), np.tile(towns, 4))
    assert found == pytest.approx(stats.sem(values)) and found > 1.9 * stats.sem(np.tile(values, 4))
