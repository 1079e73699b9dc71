"""The one-stage EPDMS metric against golden runs, and what it refuses."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS, RunError
from beyonddrive.evaluation.pdms_metric import EvaluationError, SceneRow
from beyonddrive.evaluation.scene_scoring import Motion
from beyonddrive.registry import METRICS
from beyonddrive.structures.sample import PlanSample

DATA = Path(__file__).parents[1] / "data"
LOGS = ("green_to_red", "fast_cross", "cone_clip")


@pytest.fixture(scope="module")
def runs():
    """Submissions of the scenes of three logs."""
    with np.load(DATA / "epdms/submissions.npz", allow_pickle=False) as file:
        data = dict(file)
    rows = np.array([name.split("veh-e_")[-1] in LOGS for name in data["log"]])
    per_scene = {key: data[key][rows] for key in ("token", "log")}
    return per_scene | {key: data[key][:, rows] for key in ("poses", "ec", "score", "stable")}


@pytest.fixture
def data_root(tmp_path):
    root = tmp_path / "root"
    (root / "navsim_logs/test").mkdir(parents=True)
    for log in LOGS:
        (path,) = (DATA / "epdms/navsim_logs/epdms").glob(f"*_{log}.pkl")
        shutil.copy(path, root / "navsim_logs/test")
    (root / "maps").symlink_to(DATA / "golden/pdms/data/maps")
    return root


def predicted(token, log, plan):
    sample = PlanSample(metainfo={"token": str(token), "log_name": str(log)})
    sample.pred = BaseDataElement(trajectory=torch.as_tensor(plan))
    return sample.to_dict()


def metric_of(root, **settings):
    return METRICS.build(dict(type="EPDMSMetric", split="test", data_root=str(root), **settings))


def test_figures_are_those_of_the_official_run(runs, data_root, tmp_path):
    k = int(np.flatnonzero(runs["stable"].all(axis=1) & (np.nanmin(runs["ec"], axis=1) == 0))[0])
    out = tmp_path / "rows.csv"
    metric = metric_of(data_root, out_file=str(out))
    samples = [
        predicted(token, log, plan)
        for token, log, plan in zip(runs["token"], runs["log"], runs["poses"][k], strict=True)
    ]
    metric.process(None, samples[::-1])
    metrics = metric.evaluate(len(samples))
    assert all(name.startswith("epdms_one_stage/") for name in metrics)
    assert metrics["epdms_one_stage/EPDMS"] == pytest.approx(100 * runs["score"][k].mean(), abs=1e-4)
    assert metrics["epdms_one_stage/EC"] == pytest.approx(100 * np.nanmean(runs["ec"][k]), abs=1e-4)
    assert metrics["epdms_one_stage/num_neighbors"] == np.isfinite(runs["ec"][k]).sum() > 3
    assert metrics["epdms_one_stage/num_scenes"] == len(samples)
    rows = {row["token"]: row for row in csv.DictReader(out.read_text().splitlines())}
    for token, ec, score in zip(runs["token"], runs["ec"][k], runs["score"][k], strict=True):
        assert rows[token]["EC"] == ("" if np.isnan(ec) else str(ec))
        assert float(rows[token]["EPDMS"]) == pytest.approx(score, abs=1e-6)
    assert list(next(iter(rows.values())))[2:-3] == list(RUN_COLUMNS)


def test_a_scene_without_a_score_is_nobodys_neighbour(runs, data_root):
    rows = [i for i, log in enumerate(runs["log"]) if str(log).endswith("fast_cross")]
    plans = runs["poses"][0][rows].copy()
    plans[1, 2, 0] = np.nan
    metric = metric_of(data_root)
    tokens, logs = runs["token"][rows], runs["log"][rows]
    metric.process(None, [predicted(*item) for item in zip(tokens, logs, plans, strict=True)])
    metrics = metric.evaluate(len(rows))
    assert metrics["epdms_one_stage/num_failed"] == 1 and list(metric.failures) == [tokens[1]]
    known = np.isfinite(runs["ec"][0][rows])
    # The scene itself and the one after it lose their comparison.
    assert metrics["epdms_one_stage/num_neighbors"] == known.sum() - known[1] - 1
    assert len(metric.rows) == len(rows)


def test_human_filter_can_be_switched_off(runs, data_root):
    figures = []
    for human_filter in (True, False):
        metric = metric_of(data_root, human_filter=human_filter)
        items = zip(runs["token"], runs["log"], runs["poses"][1], strict=True)
        metric.process(None, [predicted(*item) for item in items])
        figures.append(metric.evaluate(len(runs["token"]))["epdms_one_stage/EPDMS"])
    assert figures[0] > figures[1]


def test_scenes_that_contradict_each_other_do_not_cost_the_plans(data_root, tmp_path, monkeypatch):
    metric = metric_of(data_root, plans_file=str(tmp_path / "plans.npz"))
    motion = Motion(3.0, np.zeros((1, 41, 11)))
    rows = [SceneRow(token, "log", np.ones(9), np.nan, "", motion) for token in ("one", "two")]
    monkeypatch.setattr(metric, "_score", lambda: rows)
    metric.process(None, [predicted(row.token, "log", np.full((8, 3), 2.0)) for row in rows])
    with pytest.raises(RunError, match=r"apart \(one, two\)"):
        metric.evaluate(2)
    assert {token: plans.tolist() for token, plans in np.load(tmp_path / "plans.npz").items()} == {
        row.token: np.full((1, 8, 3), 2.0).tolist() for row in rows
    }


def test_two_stages_are_refused(data_root):
    with pytest.raises(EvaluationError, match=r"stages=2.*use TwoStageMetric"):
        metric_of(data_root, stages=2)
    metric = metric_of(data_root)
    with pytest.raises(EvaluationError, match="a follow-up scene"):
        metric.process(None, [predicted("0" * 17, "log", np.zeros((8, 3)))])


def test_no_score_at_all_is_an_error_not_a_number(data_root):
    metric = metric_of(data_root)
    metric.process(None, [predicted("0" * 16, "nowhere", np.zeros((8, 3)))])
    with pytest.raises(EvaluationError, match="EPDMS, one stage: none of 1 scenes could be scored"):
        metric.evaluate(1)
