"""Metrics known by what they can do: subclasses, several side by side, classes instead of names, wrappers."""

import csv

import numpy as np
import pytest
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ROOT_METRICS

from beyonddrive.apis import cache_metrics_of
from beyonddrive.engine.configs import ConfigError
from beyonddrive.engine.evaluators import check_roots, component_class, plan_metrics, set_result_files
from beyonddrive.engine.runner import build_test_runner, build_train_runner, evaluate, load_config
from beyonddrive.evaluation.pdms_metric import PDMSMetric
from beyonddrive.registry import METRICS

PDMS = {"type": "PDMSMetric", "split": "test"}
EPDMS = {"type": "EPDMSMetric", "split": "test"}
CONSTANT_VELOCITY = """
from mmengine.config import read_base

with read_base():
    from .base import *

from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.targets import EgoStatus, PlanTarget
from beyonddrive.engine.loops import SceneTestLoop
from beyonddrive.evaluation.pdms_metric import PDMSMetric
from beyonddrive.plugins.constant_velocity.planner import ConstantVelocity
from mmengine.dataset import DefaultSampler, RepeatDataset

model = dict(type=ConstantVelocity)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=RepeatDataset,
        times=2,
        dataset=dict(
            type=NavsimDataset,
            data_root=data_root,
            split="test",
            feature_pipeline=[dict(type=EgoStatus), dict(type=PlanTarget)],
            pipeline=[dict(type=PackPlanInputs)],
        ),
    ),
)
test_evaluator = dict(type=PDMSMetric, split="test", data_root=data_root)
test_cfg = dict(type=SceneTestLoop)
"""


@METRICS.register_module()
class StrictPDMS(PDMSMetric):
    """A user's own: same scores, another prefix."""

    default_prefix = "strict"


@METRICS.register_module()
class CountScenes(BaseMetric):
    """Takes no files."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {"count": len(results)}


@pytest.fixture
def config(blind_recipe):
    """Config of the tiny recipe; ``config(metrics)`` has these metrics in its test."""

    def make(*metrics):
        loaded = load_config(blind_recipe)
        loaded.test_evaluator = [dict(metric) for metric in metrics]
        return loaded

    return make


def written(config):
    return [(metric.get("out_file"), metric.get("plans_file")) for metric in plan_metrics(config, "test")]


def test_a_subclass_is_found_and_another_metric_is_left_alone(config):
    found = config({"type": "CountScenes"}, {"type": "StrictPDMS", "split": "test"})
    assert [metric.type for metric in plan_metrics(found, "test")] == ["StrictPDMS"]
    set_result_files(found, "r.csv", "p.npz")
    assert written(found) == [("r.csv", "p.npz")] and "out_file" not in found.test_evaluator[0]


def test_metrics_side_by_side_write_one_file_each(config):
    both = config(PDMS, EPDMS)
    set_result_files(both, "out/r.csv", "p.npz")
    assert written(both) == [("out/r_pdms.csv", "p.npz"), ("out/r_epdms_one_stage.csv", None)]
    named = config({**PDMS, "prefix": "mine"}, PDMS)
    set_result_files(named, "r.csv")
    assert [out for out, _ in written(named)] == ["r_mine.csv", "r_pdms.csv"]


def test_what_could_not_be_told_apart_or_written_is_refused(config):
    with pytest.raises(ConfigError, match="2 metrics have the prefix 'pdms'"):
        set_result_files(config(PDMS, {**PDMS, "progress": "pooled"}))
    with pytest.raises(ConfigError, match="nothing would write"):
        set_result_files(config({"type": "CountScenes"}), plans_file="p.npz")
    with pytest.raises(ConfigError, match=r"test_evaluator\.type: there is no metric 'PDMSMetrik'"):
        plan_metrics(config({"type": "PDMSMetrik"}), "test")
    with pytest.raises(ConfigError, match="has no type"):
        component_class({}, ROOT_METRICS, "beyonddrive", "x")
    assert component_class({"type": StrictPDMS}, ROOT_METRICS, "beyonddrive", "x") is StrictPDMS


def test_roots_are_compared_under_wrappers(config, tmp_path):
    wrapped = config({**PDMS, "data_root": str(tmp_path / "other")})
    wrapped.test_dataloader.dataset = {
        "type": "RepeatDataset", "times": 2, "dataset": wrapped.test_dataloader.dataset
    }  # fmt: skip
    with pytest.raises(ConfigError, match="make them one"):
        check_roots(wrapped)


def test_two_metrics_in_one_evaluation(tmp_path, blind_recipe):
    """A subclass beside EPDMS: caches, validation by a list of metrics, files, figures."""
    loaded = load_config(blind_recipe, {"train_cfg.max_epochs": 1})
    root = loaded.test_evaluator.data_root
    for part in ("val", "test"):
        both = [{"type": "StrictPDMS"}, {"type": "EPDMSMetric"}]
        shared = {"split": part, "data_root": root, "cache_dir": str(tmp_path / part)}
        loaded[f"{part}_evaluator"] = [{**metric, **shared} for metric in both]
    done = [(name, report.num_scenes) for name, report in cache_metrics_of(loaded)]
    assert done == [
        ("val", 3),
        ("test", 3),
    ]
    loaded.default_hooks.checkpoint.save_best = ["strict/PDMS", "epdms_one_stage/EPDMS"]
    build_train_runner(loaded, str(tmp_path / "w")).train()
    best = sorted(path.name for path in (tmp_path / "w").glob("best*.pth"))
    assert best == ["best_epdms_one_stage_EPDMS_epoch_1.pth", "best_strict_PDMS_epoch_1.pth"]
    files = {"out_file": tmp_path / "r.csv", "plans_file": tmp_path / "p.npz"}
    result = evaluate(build_test_runner(loaded, work_dir=str(tmp_path / "t"), **files))
    assert {"strict/PDMS", "epdms_one_stage/EPDMS"} <= set(result.metrics) and not result.failures
    tokens = []
    for name, column in (("r_strict.csv", "PDMS"), ("r_epdms_one_stage.csv", "EPDMS")):
        with (tmp_path / name).open() as file:
            rows = list(csv.DictReader(file))
        tokens.append([row["token"] for row in rows])
        assert len(rows) == 3 and all(row[column] for row in rows)
    with np.load(tmp_path / "p.npz") as plans:
        assert tokens[0] == tokens[1] and sorted(tokens[0]) == sorted(plans)


def test_a_config_in_mmengines_pure_python_style(tmp_path, split_root, monkeypatch):
    # mmengine takes packages in the environment's folder that are not in site-packages for Python's own.
    monkeypatch.setattr("mmengine.config.utils.PYTHON_ROOT_DIR", str(tmp_path / "elsewhere"))
    (tmp_path / "base.py").write_text(f"data_root = {str(split_root)!r}\ndefault_scope = 'beyonddrive'\n")
    path = tmp_path / "constant_velocity.py"
    path.write_text(CONSTANT_VELOCITY)
    loaded = load_config(path)
    (metric,) = plan_metrics(loaded, "test")
    files = {"out_file": tmp_path / "r.csv", "plans_file": tmp_path / "p.npz"}
    result = evaluate(build_test_runner(loaded, work_dir=str(tmp_path / "t"), **files))
    assert result.metrics["pdms/num_scenes"] == 3 and not result.failures  # each scene counts once
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 4 and (tmp_path / "p.npz").is_file()
    metric.cache_dir = str(tmp_path / "caches")
    assert [report.num_scenes for _, report in cache_metrics_of(loaded, ["test"])] == [3]
