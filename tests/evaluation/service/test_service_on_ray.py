"""The scoring service with actors of a Ray cluster: the same scores, also after an actor is lost."""

import os
import signal

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer
from beyonddrive.evaluation.service import ScenesNotScoredError, ScoringService, ServiceSettings

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def batch(golden_scenes):
    chosen = sorted(golden_scenes, key=lambda item: item.scene.log_name)[:6]
    return [item.scene.token for item in chosen], np.stack([item.scores["poses"][:4] for item in chosen])


def test_scores_are_the_scorers_own_and_a_lost_actor_is_replaced(split_root, tmp_path, batch, caplog):
    cache_metrics(NavsimRoot(split_root), "train", SceneFilter(), tmp_path / "caches", SerialExecutor())
    scorer = SceneScorer("train", tmp_path / "caches")
    tokens, plans = batch
    given = [ScenePlans(token, "", some) for token, some in zip(tokens, plans, strict=True)]
    wanted = np.stack([scene.values for scene in scorer.score(given)])
    with ScoringService(scorer, ServiceSettings(2, max_pending=3, on_ray=True)) as service:
        np.testing.assert_array_equal(service.submit(tokens, plans).result(), wanted)
        np.testing.assert_array_equal(service.submit(tokens[::-1], plans[::-1]).result(), wanted[::-1])
        assert service.counts.kept > 0
        with pytest.raises(ScenesNotScoredError, match="no scene elsewhere"):
            service.submit(["elsewhere"], plans[:1]).result()
        actor = service._backend._actors[0]
        process = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
        os.kill(process, signal.SIGKILL)
        np.testing.assert_array_equal(service.submit(tokens, plans).result(), wanted)
        assert service.counts.restarts >= 1 and "was lost" in caplog.text
    assert not ray.is_initialized()
