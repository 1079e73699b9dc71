"""Jobs that fill stores end, after ``kill -9`` at random moments, with the artefacts of an unbroken run."""

import numpy as np
import pytest

from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.generators.expert_plans import SceneSource
from beyonddrive.generators.vocabulary_scoring import score_vocabulary
from beyonddrive.structures.vocabulary import Vocabulary

FEATURES = [{"type": "EgoStatus"}, {"type": "PlanTarget"}, {"type": "BEVMapTarget", "walkways": False}]


@pytest.fixture
def jobs(split_root):
    """Jobs by what they make; each works in this process on three golden scenes."""
    # Opened before the jobs are forked, so that the time goes into work and not into imports.
    scenes = list(NavsimRoot(split_root).scenes("test"))
    plans = np.stack([scene.expert_plan for scene in scenes])
    plans = np.repeat(plans, 20, axis=0).astype(np.float32)
    empty = np.zeros((len(plans), 4))
    vocabulary = Vocabulary(plans, np.ones(len(plans), np.int64), empty, empty, {})

    def features(folder):
        dataset = NavsimDataset(split_root, "test", feature_pipeline=FEATURES, lazy_init=True)
        assert cache_features(dataset, folder, SerialExecutor()).complete

    def metrics(folder):
        report = cache_metrics(NavsimRoot(split_root), "test", SceneFilter(), folder, SerialExecutor())
        assert report.complete

    def vocabulary_scores(folder):
        source = SceneSource(NavsimRoot(split_root), "test", SceneFilter())
        assert not score_vocabulary(source, vocabulary, folder, SerialExecutor()).failures

    return {"features": features, "metrics": metrics, "vocabulary scores": vocabulary_scores}


@pytest.mark.parametrize("kind", ["features", "metrics", "vocabulary scores"])
def test_a_store_survives_kills(jobs, survives_kills, kind, tmp_path):
    jobs[kind](tmp_path / "warm")  # kernels are compiled, maps are open
    survives_kills(jobs[kind])
