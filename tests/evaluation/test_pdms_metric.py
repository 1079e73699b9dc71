"""The PDM metric against golden scores, and what it says when a scene cannot be scored."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

import beyonddrive.evaluation.pdms_metric as metrics_module
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.engine.executors import SerialExecutor
from beyonddrive.engine.wrapped_datasets import BadScene
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.metric_caching import cache_metrics
from beyonddrive.evaluation.pdms_metric import EvaluationError, PDMSMetric
from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer
from beyonddrive.evaluation.score_labels import ScoreLabel
from beyonddrive.evaluation.score_stream import score_scenes
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.structures.sample import PlanSample

GOLDEN = Path(__file__).parents[1] / "data/golden/pdms"
ROWS = slice(0, 6)


def golden_scenes(root, split="test"):
    """(token, log, poses (N, 8, 3), scores (N, 7)) of the scenes of a split, stable rows only."""
    scenes = []
    for log in sorted((root / "navsim_logs" / split).glob("*.pkl")):
        for path in sorted((GOLDEN / "scores").glob(f"{log.stem}__*.npz")):
            with np.load(path, allow_pickle=False) as data:
                keep = data["stable"]
                token = path.stem.split("__")[1]
                scenes.append((token, log.stem, data["poses"][keep][ROWS], data["scores"][keep][ROWS]))
    return scenes


def predicted(token, log, plan, proposals=None):
    sample = PlanSample(metainfo={"token": token, "log_name": log})
    sample.pred = BaseDataElement(trajectory=torch.as_tensor(plan))
    if proposals is not None:
        sample.pred.set_field(torch.as_tensor(proposals), "proposals")
    return sample.to_dict()


def evaluate(metric, samples, batch=None):
    metric.process(batch, samples)
    return metric.evaluate(len(samples) + len((batch or {}).get("bad_scenes", ())))


def test_means_are_those_of_the_official_scores(split_root, tmp_path):
    scenes = golden_scenes(split_root)
    out, plans = tmp_path / "results.csv", tmp_path / "plans.npz"
    metric = PDMSMetric(
        "test", data_root=str(split_root), oracle=True, out_file=str(out), plans_file=str(plans)
    )
    metrics = evaluate(metric, [predicted(token, log, poses[1], poses) for token, log, poses, _ in scenes])
    official = np.array([scores[1] for *_, scores in scenes])
    for column, name in enumerate(SCORE_COLUMNS):
        assert metrics[f"pdms/{name}"] == pytest.approx(100 * official[:, column].mean(), abs=1e-4)
    best = np.mean([scores[:, -1].max() for *_, scores in scenes])
    assert metrics["pdms/oracle_PDMS"] == pytest.approx(100 * best, abs=1e-4)
    assert metrics["pdms/num_scenes"] == 3 and metrics["pdms/num_failed"] == 0
    with out.open() as file:
        rows = {row["token"]: row for row in csv.DictReader(file)}
    told = MetricCaches("test", NavsimRoot(split_root)).logs_digest((token, log) for token, log, *_ in scenes)
    assert {ScoreLabel.parse(row["label"]).data for row in rows.values()} == {told} != {""}
    for token, log, _, scores in scenes:
        assert rows[token]["log"] == log and rows[token]["error"] == ""
        got = [float(rows[token][name]) for name in SCORE_COLUMNS]
        np.testing.assert_allclose(got, scores[1], atol=1e-6)
    with np.load(plans) as written:
        assert {token: written[token].shape for token in written} == {s[0]: (1, 8, 3) for s in scenes}


def test_a_scene_that_cannot_be_scored_is_named_and_the_rest_is_scored(split_root, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(metrics_module, "print_log", lambda text, *_, **__: said.append(text))
    (token, log, poses, scores), (nan_token, nan_log, *_), _ = golden_scenes(split_root)
    broken = poses[0].copy()
    broken[3, 1] = np.nan
    samples = [
        predicted(token, log, poses[0]),
        predicted("0" * 16, log, poses[0]),
        predicted(nan_token, nan_log, broken),
    ]
    out = tmp_path / "results.csv"
    metric = PDMSMetric("test", data_root=str(split_root), out_file=str(out))
    metrics = evaluate(metric, samples, {"bad_scenes": [BadScene("f" * 16, "cam_f0.jpg is missing")]})
    assert metrics["pdms/PDMS"] == pytest.approx(100 * scores[0, -1], abs=1e-4)
    assert metrics["pdms/num_scenes"] == 1 and metrics["pdms/num_failed"] == 3
    assert set(metric.failures) == {"0" * 16, nan_token, "f" * 16}
    assert "NaN" in metric.failures[nan_token] and "no frame" in metric.failures["0" * 16]
    assert "oracle" not in " ".join(metrics)
    rows = {row["token"]: row for row in csv.DictReader(out.read_text().splitlines())}
    assert rows[nan_token]["PDMS"] == "" and "NaN" in rows[nan_token]["error"]
    assert "cam_f0.jpg is missing" in rows["f" * 16]["error"]
    assert len(said) == 1 and "the figures are of 1 of 4 scenes" in said[0] and nan_token in said[0]


def test_what_the_data_set_has_lost_counts_as_failed(split_root, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(metrics_module, "print_log", lambda text, *_, **__: said.append(text))
    (token, log, poses, scores), *_ = golden_scenes(split_root)
    out = tmp_path / "results.csv"
    metric = PDMSMetric("test", data_root=str(split_root), out_file=str(out))
    lost = [
        BadScene("f" * 16, "no features"),
        BadScene("", "truncated.pkl: damaged", "truncated"),
        BadScene(token, "lost by another data set"),
    ]
    metric.process({"lost_scenes": lost}, [])
    metric.process(None, [predicted(token, log, poses[0])])
    metrics = metric.evaluate(1)
    assert metrics["pdms/PDMS"] == pytest.approx(100 * scores[0, -1], abs=1e-4)
    assert metrics["pdms/num_scenes"] == 1 and metrics["pdms/num_failed"] == 2
    assert metric.failures == {"f" * 16: "no features", "truncated": "truncated.pkl: damaged"}
    assert metric.share == "1 of 2 scenes, without those of 1 log(s) that cannot be read"
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["token"], row["log"], row["error"]) for row in rows if row["error"]] == [
        ("f" * 16, "", "no features"),
        ("", "truncated", "truncated.pkl: damaged"),
    ]
    assert any(metric.share in text for text in said)
    # The next evaluation starts anew.
    metric.process(None, [predicted(token, log, poses[0])])
    assert metric.evaluate(1)["pdms/num_failed"] == 0 and not metric.failures


def test_no_score_at_all_is_an_error_not_a_number(split_root, tmp_path):
    metric = PDMSMetric("test", data_root=str(split_root), out_file=str(tmp_path / "results.csv"))
    with pytest.raises(EvaluationError, match=r"none of 1 scenes could be scored.*no frame"):
        evaluate(metric, [predicted("0" * 16, "nowhere", np.zeros((8, 3)))])
    assert "no frame" in (tmp_path / "results.csv").read_text()


def test_a_scene_that_a_sampler_repeats_counts_once(split_root):
    scenes = golden_scenes(split_root)
    samples = [predicted(token, log, poses[1]) for token, log, poses, _ in scenes]
    once = evaluate(PDMSMetric("test", data_root=str(split_root)), samples)
    again = evaluate(PDMSMetric("test", data_root=str(split_root)), [*samples, samples[0], samples[0]])
    assert once == again


@pytest.fixture
def stored(split_root, tmp_path):
    """Metric caches of the test split."""
    report = cache_metrics(
        NavsimRoot(split_root), "test", SceneFilter(), tmp_path / "caches", SerialExecutor()
    )
    assert (report.num_scenes, report.num_new_logs, report.failures, report.problems) == (3, 3, {}, [])
    return tmp_path / "caches"


def jobs(root):
    return [ScenePlans(token, log, poses) for token, log, poses, _ in golden_scenes(root)]


def test_stored_caches_and_worker_processes_give_the_same_scores(split_root, stored):
    here = list(score_scenes(SceneScorer("test", data_root=split_root), jobs(split_root), 0, ""))
    scorer = SceneScorer("test", cache_dir=stored, data_root=split_root)
    there = list(score_scenes(scorer, jobs(split_root), 2, ""))
    assert [result.token for result in here] == [result.token for result in there]
    for mine, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(mine.values, other.values)


def test_a_scene_without_a_stored_cache_is_named(split_root, stored):
    scenes = [*jobs(split_root), ScenePlans("0" * 16, "log", np.zeros((1, 8, 3)))]
    results = list(score_scenes(SceneScorer("test", cache_dir=stored), scenes, 0, ""))
    (failed,) = [result for result in results if result.values is None]
    assert failed.token == "0" * 16 and "no scene" in failed.reason


def test_caches_of_another_split_or_of_changed_logs_are_refused(split_root, stored):
    with pytest.raises(StoreError, match="split: stored 'test', wanted 'val'"):
        MetricCaches("val", folder=stored)
    with pytest.raises(StoreError, match="beyonddrive cache-metrics"):
        MetricCaches("test", folder=stored / "nothing")
    root = NavsimRoot(split_root)
    MetricCaches("test", root, stored)
    logs = sorted((split_root / "navsim_logs/test").glob("*.pkl"))
    logs[0].write_bytes(next((split_root / "navsim_logs/train").glob("*.pkl")).read_bytes())
    with pytest.raises(StoreError, match=rf"1 log\(s\).*{logs[0].stem}"):
        MetricCaches("test", root, stored)


def test_a_metric_for_another_split_than_the_data_is_refused(split_root):
    metric = PDMSMetric("test", data_root=str(split_root))
    with pytest.raises(EvaluationError, match="the data set reads 'val'"):
        metric.dataset_meta = {"splits": ["val"]}
    with pytest.raises(StoreError, match="no store here"):
        PDMSMetric("test", cache_dir=str(split_root / "no")).dataset_meta = {"splits": ["test"]}
    with pytest.raises(ValueError, match="give cache_dir"):
        PDMSMetric("test")
