"""The moments of failure are those that the explanation of a score names."""

from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.evaluation.pdm import build_metric_cache, explain, score
from beyonddrive.evaluation.pdm.explain.failure_times import failure_times
from beyonddrive.structures.plan import SCORE_COLUMNS

GOLDEN = Path(__file__).parents[2] / "data/golden/pdms/data"
MOMENTS = ("NC", "DAC", "TTC", "DDC")


@pytest.fixture(scope="module")
def cases():
    """Metric caches of golden scenes with plans that fan out to both sides."""
    root = NavsimRoot(GOLDEN)
    found = []
    for scene in root.scenes("golden"):
        fan = np.repeat(scene.expert_plan[None], 24, 0)
        fan[:, :, 1] += np.linspace(-12, 12, 24)[:, None] * np.linspace(0.125, 1.0, 8)
        fan[::2, :, :2] *= 1.4
        found.append((build_metric_cache(scene, root.map(scene.map_location)), fan))
    return found


def test_times_are_those_of_the_explanation(cases):
    seen = dict.fromkeys(MOMENTS, 0)
    for cache, plans in cases:
        times = failure_times(score(cache, plans))
        for row, explanation in zip(times, explain(cache, plans), strict=True):
            for column in MOMENTS:
                failures = explanation.of(column)
                wanted = failures[0].time if failures else np.inf
                assert row[SCORE_COLUMNS.index(column)] == pytest.approx(wanted, abs=1e-9), column
                seen[column] += bool(failures)
    assert min(seen.values()) > 10


def test_the_moment_of_the_whole_score_is_the_first_critical_one(cases):
    unknown = 0
    for cache, plans in cases:
        scores = score(cache, plans)
        times = failure_times(scores)
        critical = times[:, [SCORE_COLUMNS.index(name) for name in ("NC", "DAC", "TTC")]]
        assert np.array_equal(times[:, -1], critical.min(axis=1))
        full = (scores.values[:, [0, 1, 3]] == 1.0).all(axis=1)
        assert np.isinf(times[full, -1]).all()
        assert np.isfinite(times[~full, -1]).all()
        for column in ("EP", "C"):
            assert np.isinf(times[:, SCORE_COLUMNS.index(column)]).all()
        unknown += int(full.sum())
    assert unknown > 0
