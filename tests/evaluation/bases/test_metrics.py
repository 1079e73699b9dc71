"""EPDMS in reactive traffic and of two stages as metrics of the runner, against recorded official results."""

import csv
import json
import shutil
from itertools import chain
from pathlib import Path
from threading import Barrier, Lock, Thread, local

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

import beyonddrive.evaluation.bases.metrics as basis_metrics
import beyonddrive.evaluation.pdms_metric as pdms_metric
from beyonddrive.engine import runner
from beyonddrive.engine.wrapped_datasets import BadScene, lost_scenes, tokens_of
from beyonddrive.evaluation.pdms_metric import EvaluationError
from beyonddrive.evaluation.score_labels import BASES, ScoreLabel
from beyonddrive.registry import DATASETS, METRICS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.tools import report, score

REPOSITORY = Path(__file__).parents[3]
DATA = REPOSITORY / "tests" / "data" / "golden"
GOLDEN, MAPS = DATA / "two_stage", DATA / "pdms" / "data" / "maps"
SCENES = GOLDEN / "data" / "synthetic_scene_pickles"
CONSTANT_VELOCITY = {
    "cafe39e50e81decb": (1.0, 0.0, 1.0, 0.0),
    "2b0ddedf32b29798": (0.9888884571012245, 1.0, 0.9847581218725803, 1.0),
}
"""Official scores of the halves of groups: now, its follow-ups, previous, its follow-ups."""


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "two_stage.npz"))


@pytest.fixture
def split(tmp_path):
    """The split of the groups whose scenes are here."""
    values = json.loads((GOLDEN / "data/two_stage_split.json").read_text())
    there = {path.stem for path in (GOLDEN / "scenes").glob("*.npz")}
    groups = [g for g in values["reactive_all_mapping"] if {g[0], *chain(*g[2])} <= there]
    values.update(
        reactive_all_mapping=groups,
        tokens=[token for group in groups for token in group[:2]],
        reactive_synthetic_initial_tokens=[token for group in groups for token in chain(*group[2])],
    )
    path = tmp_path / "two_stage.json"
    path.write_text(json.dumps(values))
    return path, groups


def config_of(tmp_path, split, part="test", base=None):
    """A config whose test or validation is of two stages."""
    base = base or REPOSITORY / "configs/constant_velocity/constant_velocity_navtest.py"
    path = tmp_path / f"{part}_two_stage.py"
    path.write_text(
        f"""
_base_ = {str(base)!r}
_places = dict(
    split="two_stage",
    data_root={str(GOLDEN / "data")!r},
    maps_root={str(MAPS)!r},
    two_stage={str(split)!r},
    synthetic_scenes={str(SCENES)!r},
    cache_dir=None,
)
{part}_dataloader = dict(num_workers=0, dataset=dict(type="TwoStageDataset", scene_filter=None, **_places))
{part}_evaluator = dict(type="TwoStageMetric", num_workers=0, **_places)
"""
    )
    return path


def predicted(token, log, plan):
    sample = PlanSample(metainfo={"token": str(token), "log_name": str(log)})
    sample.pred = BaseDataElement(trajectory=torch.as_tensor(np.asarray(plan)))
    return sample.to_dict()


def samples_of(golden, tokens):
    """Plans of the first recorded submission."""
    row = {str(token): i for i, token in enumerate(golden["token"])}
    return [predicted(token, "", golden["poses"][0, row[token]]) for token in tokens]


def metric_of(split, kind="TwoStageMetric", **settings):
    if kind == "TwoStageMetric":
        settings.update(two_stage=str(split), synthetic_scenes=str(SCENES))
    places = {"split": "two_stage", "data_root": str(GOLDEN / "data"), "maps_root": str(MAPS)}
    return METRICS.build({"type": kind, **places, **settings})


def test_a_planner_gets_its_official_two_stage_score_by_the_runner(tmp_path, monkeypatch, split):
    monkeypatch.chdir(tmp_path)
    path, groups = split
    config = runner.load_config(config_of(tmp_path, path))
    testing = runner.build_test_runner(config, out_file="rows.csv", plans_file="plans.npz")
    found = runner.evaluate(testing)
    assert not found.failures and found.metrics["two_stage/num_scenes"] == 18
    halves = np.array([CONSTANT_VELOCITY[group[0]] for group in groups])
    wanted = (halves[:, 0] * halves[:, 1] + halves[:, 2] * halves[:, 3]).mean() / 2
    assert found.metrics["two_stage/EPDMS"] == pytest.approx(100 * wanted, abs=1e-6)
    assert found.metrics["two_stage/stage_one_EPDMS"] == pytest.approx(100 * halves[:, ::2].mean(), abs=1e-6)
    assert found.metrics["two_stage/stage_two_EPDMS"] == pytest.approx(100 * halves[:, 1::2].mean(), abs=1e-6)
    assert "two_stage" in found.labels and "2 stages, reactive traffic" in found.labels["two_stage"]
    # the file is as beyonddrive score --basis writes it
    places = [
        "--data-root",
        GOLDEN / "data",
        "--maps-root",
        MAPS,
        "--split",
        "two_stage",
        "--two-stage",
        path,
    ]
    files = ["--plans", "plans.npz", "--out", "t", "--basis", "two-stage"]
    assert score.main([str(word) for word in (*places, *files)]) == 0
    rows, others = (
        sorted(csv.reader(Path(name).read_text().splitlines()))
        for name in ("rows.csv", "t_scenes/two-stage.csv")
    )
    assert rows == others
    assert report.main(["--row=a=rows.csv", "--row=b=t_scenes/two-stage.csv"]) == 0


def test_a_training_validates_by_two_stages(tmp_path, monkeypatch, split, blind_recipe):
    monkeypatch.chdir(tmp_path)
    path = config_of(tmp_path, split[0], "val", blind_recipe)
    config = runner.load_config(path)
    config.default_hooks.checkpoint.save_best = "two_stage/EPDMS"
    config.train_cfg.max_epochs = 1
    training = runner.build_train_runner(config, work_dir=str(tmp_path / "work"))
    training.train()
    assert list((tmp_path / "work").glob("best_two_stage_EPDMS*.pth"))


def test_ranks_score_what_they_planned_and_all_know_the_whole(monkeypatch, golden, split):
    path, groups = split
    tokens = [token for group in groups for token in (*group[:2], *chain(*group[2]))]
    alone = metric_of(path)
    alone.process(None, samples_of(golden, tokens))
    wanted = alone.evaluate(len(tokens))
    rank, barrier, slots, lock = local(), Barrier(2), [None, None], Lock()

    def gather(value):
        slots[rank.number] = value
        barrier.wait(60)
        found = list(slots)
        barrier.wait(60)
        return found

    for module in (pdms_metric, basis_metrics):
        monkeypatch.setattr(module, "get_world_size", lambda: 2)
        monkeypatch.setattr(module, "all_gather_object", gather)
    score_part = basis_metrics.TwoStageMetric._score

    def one_at_a_time(metric):
        with lock:  # (processes of their own share nothing)
            return score_part(metric)

    monkeypatch.setattr(basis_metrics.TwoStageMetric, "_score", one_at_a_time)
    found = [None, None]

    def run(number):
        rank.number = number
        metric = metric_of(path)
        metric.process(None, samples_of(golden, tokens[number::2] + tokens[:1]))
        found[number] = metric.evaluate(len(tokens))

    threads = [Thread(target=run, args=(number,), daemon=True) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [wanted, wanted]


def test_a_group_with_a_scene_without_a_score_is_left_out_with_reasons(tmp_path, golden, split):
    path, groups = split
    tokens = [token for group in groups for token in (*group[:2], *chain(*group[2]))]
    bad, unknown = groups[0][2][0][0], groups[0][1]
    metric = metric_of(path, traffic="logged", out_file=str(tmp_path / "rows.csv"))
    lost = {"bad_scenes": [BadScene(bad, "no image")]}
    planned = [token for token in tokens if token not in (bad, unknown)]
    metric.process(lost, samples_of(golden, planned))
    metrics = metric.evaluate(len(tokens) - 1)
    first = {token for token in tokens if token in (*groups[0][:2], *chain(*groups[0][2]))}
    assert set(metric.failures) == first - {unknown} and metric.failures[bad] == "no image"
    assert "its group has scenes without a score" in metric.failures[groups[0][0]]
    assert metrics["two_stage/num_scenes"] == len(tokens) - len(first)
    row = {str(token): i for i, token in enumerate(golden["token"])}
    values, weights = golden["replay_score"][0], golden["replay_weight"][0]
    halves = [
        values[row[groups[1][half]]]
        * sum(weights[row[pair[half]]] * values[row[pair[half]]] for pair in groups[1][2])
        for half in (0, 1)
    ]
    assert metrics["two_stage/EPDMS"] == pytest.approx(100 * np.mean(halves), abs=1e-6)
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert {row["token"] for row in rows if row["group"]} == set(tokens) - first
    assert ScoreLabel.parse(rows[0]["label"]) == metric.label
    assert metric.label.basis == "two-stage-logged"
    alone = metric_of(path, traffic="logged")
    alone.process(None, samples_of(golden, [groups[0][0]]))
    with pytest.raises(EvaluationError, match="EPDMS, two stages: none of 1 scenes could be scored"):
        alone.evaluate(1)


def test_one_stage_in_reactive_traffic_is_that_of_the_basis(tmp_path, golden, split):
    path, groups = split
    tokens = [token for group in groups for token in group[:2]]
    for human_filter, name in ((True, "epdms-reactive"), (False, "epdms-reactive-unfiltered")):
        metric = metric_of(path, "ReactiveEPDMSMetric", human_filter=human_filter)
        metric.process(None, samples_of(golden, tokens))
        metrics = metric.evaluate(len(tokens))
        assert metric.label == ScoreLabel.of(BASES[name], tokens)
        scores = golden["scores_filtered" if human_filter else "scores_raw"][0]
        row = {str(token): i for i, token in enumerate(golden["token"])}
        for column, label in enumerate(metric.columns[:8]):
            mean = 100 * np.mean([scores[row[token], column] for token in tokens])
            assert metrics[f"epdms_reactive/{label}"] == pytest.approx(mean, abs=1e-4)


def test_what_does_not_fit_is_refused(tmp_path, split):
    path, _ = split
    with pytest.raises(EvaluationError, match=r"cache_dir='c'.*set cache_dir=None"):
        metric_of(path, cache_dir="c")
    with pytest.raises(EvaluationError, match=r"traffic='logged' and human_filter=False"):
        metric_of(path, traffic="logged", human_filter=False)
    metric = metric_of(path)
    metric.dataset_meta = {"splits": ["synthetic", "two_stage"]}
    with pytest.raises(EvaluationError, match="the data set reads 'test'"):
        metric.dataset_meta = {"splits": ["test"]}
    settings = {"type": "TwoStageDataset", "data_root": GOLDEN / "data", "two_stage": path}
    settings["synthetic_scenes"] = shutil.copytree(SCENES, tmp_path / "some")
    for key in ("scene_filter", "cache_dir"):
        with pytest.raises(ValueError, match=rf"{key}='x'.*set {key}=None"):
            DATASETS.build({**settings, key: "x"})
    with pytest.raises(ValueError, match="inputs_only must be true"):
        DATASETS.build({**settings, "inputs_only": False})
    # What a NavsimDataset has in its place may stay where it changes nothing.
    others = {"negatives": None, "indices": None, "allow_lost": False}
    DATASETS.build({**settings, **others, "lazy_init": True})
    for key, value in {"negatives": {"pool": "x"}, "indices": 3, "allow_lost": True}.items():
        with pytest.raises(ValueError, match=rf"TwoStageDataset: {key}=.*; set {key}=(None|False)"):
            DATASETS.build({**settings, **others, key: value})


def test_scenes_of_both_stages_are_the_data_set_and_lost_ones_are_known(tmp_path, split):
    path, groups = split
    some = shutil.copytree(SCENES, tmp_path / "some")
    lost = groups[0][2][0][0]
    (some / f"{lost}.pkl").unlink()
    dataset = DATASETS.build(
        {
            "type": "TwoStageDataset",
            "data_root": GOLDEN / "data",
            "two_stage": path,
            "synthetic_scenes": some,
        }
    )
    tokens = [token for group in groups for token in (*group[:2], *chain(*group[2]))]
    assert sorted([*tokens_of(dataset), lost]) == sorted(tokens)
    [(name, reason, _)] = lost_scenes(dataset)
    assert name == lost and "there is no such follow-up scene" in reason
