"""Metric caches and scores of fixed scenes, by the versions that stores of them know."""

import numpy as np
import pytest

from beyonddrive.evaluation.pdm import score
from beyonddrive.evaluation.pdm.cache.metric_cache import CACHE_VERSION
from beyonddrive.evaluation.pdm.explain.failure_times import failure_times
from beyonddrive.structures.plan import SCORER_VERSION


@pytest.fixture
def plans():
    """Speeds from standing to 16 m/s, straight on, to the left and to the right."""
    time = np.arange(1, 9) * 0.5
    speeds = np.repeat([0.0, 3.0, 6.0, 10.0, 16.0], 3)[:, None]
    side = np.tile([0.0, 0.3, -0.3], 5)[:, None] * time**2
    return np.stack([speeds * time, side, np.zeros_like(side)], axis=-1)


def test_metric_caches_change_with_their_version_alone(golden_scenes, version_table):
    arrays = {}
    for number, golden in enumerate(golden_scenes):
        if number % 3:
            continue
        origin = golden.scene.ego_pose[:2]
        for key, array in golden.cache.to_arrays().items():
            if key in ("proposal", "centerline"):  # global: the origin would hide any change
                array = array - np.append(origin, 0.0)
            arrays[f"{key} {number}"] = array
    version_table("metric cache", CACHE_VERSION, arrays)


def test_scores_change_with_their_version_alone(golden_scenes, plans, version_table):
    arrays = {}
    for number, golden in enumerate(golden_scenes):
        scores = score(golden.cache, plans)
        arrays[f"scores {number}"] = scores.values
        arrays[f"times {number}"] = failure_times(scores)
        arrays[f"pooled {number}"] = score(golden.cache, plans, progress="pooled").values
    version_table("scorer", SCORER_VERSION, arrays)


def test_extended_scores_change_with_their_version_alone(golden_scenes, plans, version_table):
    arrays = {}
    for number, golden in enumerate(golden_scenes):
        scores = score(golden.cache, plans, version="v2", human_filter=False)
        arrays[f"scores {number}"] = scores.values
        arrays[f"human {number}"] = scores.human
    version_table("extended scorer", SCORER_VERSION, arrays)
