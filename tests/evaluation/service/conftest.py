"""Scenes with plans, and a scorer of them from metric caches."""

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.scene_scoring import SceneScorer, ScoreSettings


@pytest.fixture(scope="module")
def batch(golden_scenes):
    """Tokens and plans (6, 4, 8, 3) of the scenes of ``split_root``'s training split."""
    chosen = sorted(golden_scenes, key=lambda item: item.scene.log_name)[:6]
    return [item.scene.token for item in chosen], np.stack([item.scores["poses"][:4] for item in chosen])


@pytest.fixture
def scorer(split_root, tmp_path):
    cache_metrics(NavsimRoot(split_root), "train", SceneFilter(), tmp_path / "caches", SerialExecutor())
    return SceneScorer("train", tmp_path / "caches", settings=ScoreSettings(with_times=True))
