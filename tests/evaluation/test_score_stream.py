"""Scenes scored as a stream: the same results in the same order, wherever they are made."""

import os
from dataclasses import dataclass

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.engine.executors import ProcessExecutor, RayExecutor, SerialExecutor, WorkerLostError
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, ScoreSettings
from beyonddrive.evaluation.score_stream import ScoringPool, score_scenes, stream


@pytest.fixture
def scenes(golden_scenes):
    return [
        ScenePlans(item.scene.token, item.scene.log_name, item.scores["poses"][:4])
        for item in golden_scenes[:6]
    ]


def same(left, right):
    assert [scene.token for scene in left] == [scene.token for scene in right]
    for one, other in zip(left, right, strict=True):
        assert one.values is not None and one.reason == ""
        np.testing.assert_array_equal(one.values, other.values)


def test_every_way_of_scoring_gives_the_same(scenes, split_root, tmp_path):
    """With plans or by token; from logs or a store; here, in processes, and beside another job."""
    plans = {scene.token: scene.plans for scene in scenes}
    cache_metrics(NavsimRoot(split_root), "train", SceneFilter(), tmp_path / "caches", SerialExecutor())
    given = SceneScorer("train", data_root=split_root)
    stored = SceneScorer("train", tmp_path / "caches", plans=plans)
    ordered = sorted(scenes, key=lambda scene: (scene.log_name, scene.token))
    tokens = [scene.token for scene in ordered]
    expected = given.score(ordered)
    same(list(score_scenes(given, scenes[::-1], 0, "")), expected)
    same(stored.score_stored(tokens), expected)
    for executor in (SerialExecutor(), ProcessExecutor(2)):
        jobs = [tokens[:1], tokens[1:2], tokens[2:]]
        parts = stream(stored, SceneScorer.score_stored, jobs, executor)
        same([scene for part in parts for scene in part], expected)
    with ScoringPool(given, 1) as pool:
        futures = [pool.submit([scene]) for scene in ordered]
        same([future.result()[0] for future in futures], expected)
    by_log = SceneScorer("train", data_root=split_root, plans=plans)
    logs = NavsimRoot(split_root).log_paths("train")
    found = [by_log.score_log(path, plans) for path in logs]
    same([scene for log in found for scene in log.results], expected)
    assert not any(log.cut_off for log in found)


@pytest.mark.slow
def test_ray_gives_the_same(scenes, split_root):
    pytest.importorskip("ray")
    given = SceneScorer("train", data_root=split_root)
    jobs = [[scene] for scene in scenes]
    parts = stream(given, SceneScorer.score, jobs, RayExecutor(num_workers=1))
    same([scene for part in parts for scene in part], given.score(scenes))


@dataclass
class DyingScorer:
    """Takes its process with it."""

    def score(self, scenes):
        os._exit(1)


def test_a_killed_worker_ends_the_stream(scenes):
    work = DyingScorer.score
    with pytest.raises(WorkerLostError, match="a worker process was killed"):
        list(stream(DyingScorer(), work, [scenes[:1], scenes[1:2]], ProcessExecutor(2)))


def test_a_reason_is_said_once(scenes, split_root):
    """It stands behind the token of its scene, so it does not name it again."""
    scene = scenes[0]
    scorer = SceneScorer("train", data_root=split_root, settings=ScoreSettings())
    endless, unknown = scene._replace(plans=np.full((2, 8, 3), np.nan)), scene._replace(token="0" * 16)
    results = scorer.score([endless, unknown, scene])
    assert results[0].reason == "2 plan(s) hold NaN or infinity, the first is plan 0"
    assert "no frame of split" in results[1].reason and "Error" not in results[1].reason
    assert results[2].values is not None
