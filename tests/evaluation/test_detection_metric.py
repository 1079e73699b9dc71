"""Average precision of boxes: nuScenes' numbers for cases that can be counted by hand."""

import sys

import numpy as np
import pytest
import torch

from beyonddrive.evaluation.detection_metric import DetectionMetric
from beyonddrive.evaluation.pdms_metric import EvaluationError
from beyonddrive.registry import METRICS

mmdet3d_only = pytest.mark.mmdet3d


def boxes(*places, heading=0.0):
    rows = [[x, y, 0.8, 4.0, 2.0, 1.5, heading, 1.0, 0.0] for x, y in places]
    return torch.tensor(rows).reshape(-1, 9)


def scene(token, true, found, scores=None, labels=None, points=None):
    gt = {"boxes": true, "box_labels": torch.zeros(len(true), dtype=torch.int64)}
    if points is not None:
        gt["box_points"] = torch.tensor(points)
    scores = torch.linspace(0.9, 0.5, len(found)) if scores is None else torch.tensor(scores)
    labels = torch.zeros(len(found), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return {"token": token, "gt": gt, "pred": {"boxes": found, "box_scores": scores, "box_labels": labels}}


def evaluated(*scenes, **settings):
    metric = METRICS.build({"type": "DetectionMetric", "classes": ["vehicle"], **settings})
    metric.process({}, scenes)
    figures = metric.evaluate(len(scenes))
    assert set(figures) <= set(metric.figures)
    return figures


def curve(recalls, precisions):
    """Area that nuScenes takes: precision above 0.1 over recall above 0.1, in 101 steps."""
    steps = np.linspace(0, 1, 101)
    return 100 * np.clip(np.interp(steps, recalls, precisions, right=0)[11:] - 0.1, 0, None).mean() / 0.9


def test_without_nuscenes_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nuscenes.eval.detection.algo", None)
    monkeypatch.setitem(sys.modules, "nuscenes.eval.common.utils", None)
    with pytest.raises(EvaluationError, match=r"make mmdet3d, or pip install .* or leave the metric out"):
        DetectionMetric()


@mmdet3d_only
def test_found_is_found():
    places = boxes((5, 0), (-9, 4))
    figures = evaluated(scene("a", places, places), scene("b", boxes(), boxes()))
    assert figures["detection/AP_vehicle"] == pytest.approx(100) == figures["detection/mAP"]
    assert figures["detection/num_scenes"] == 2
    for error in ("ATE", "ASE", "AOE", "AVE"):
        assert figures[f"detection/{error}_vehicle"] == pytest.approx(0, abs=1e-6)


@mmdet3d_only
def test_distance_decides_and_errors_are_measured():
    figures = evaluated(scene("a", boxes((5, 0)), boxes((5.0, 1.5), heading=0.3)))
    assert figures["detection/AP_vehicle"] == pytest.approx(50)  # within 2 m and 4 m, not 0.5 m and 1 m
    assert figures["detection/ATE_vehicle"] == pytest.approx(1.5)
    assert figures["detection/AOE_vehicle"] == pytest.approx(0.3, abs=1e-5)


@mmdet3d_only
def test_false_alarms_and_misses_cost_as_nuscenes_counts_them():
    true, found = boxes((5, 0), (-9, 4)), boxes((20, 20), (5, 0), (-9, 4))
    figures = evaluated(scene("a", true, found, scores=[0.9, 0.8, 0.7]))
    assert figures["detection/AP_vehicle"] == pytest.approx(
        curve([0.0, 0.5, 1.0], [0.0, 0.5, 2 / 3]), abs=1e-6
    )
    missed = evaluated(scene("a", true, boxes((5, 0))))["detection/AP_vehicle"]
    assert missed == pytest.approx(curve([0.5], [1.0]), abs=1e-6)
    assert evaluated(scene("a", true, boxes()))["detection/AP_vehicle"] == 0
    other = evaluated(scene("a", true, true, labels=[1, 1]))
    assert other["detection/AP_vehicle"] == 0  # pedestrians, where there are vehicles


@mmdet3d_only
def test_agents_without_points_do_not_count():
    true = boxes((5, 0), (-9, 4))
    assert evaluated(scene("a", true, true[:1], points=[3, 0]))["detection/AP_vehicle"] == pytest.approx(100)
    assert evaluated(scene("a", true, true[:1], points=[3, 1]))["detection/AP_vehicle"] < 60


@mmdet3d_only
def test_classes_that_are_nowhere_have_no_figure():
    here = boxes((5, 0))
    figures = evaluated(scene("a", here, here), classes=["vehicle", "pedestrian"])
    assert figures["detection/mAP"] == pytest.approx(100) and "detection/AP_pedestrian" not in figures
    with pytest.raises(EvaluationError, match="none of 1 scenes has an agent of pedestrian"):
        evaluated(scene("a", here, here), classes=["pedestrian"])
    with pytest.raises(ValueError, match="classes must be some of vehicle, pedestrian, bicycle"):
        DetectionMetric(classes=["tram"])


@mmdet3d_only
@pytest.mark.parametrize(("element", "remedy"), [("pred", "detection_head"), ("gt", "AgentBoxTargets")])
def test_samples_without_boxes_are_refused(element, remedy):
    broken = scene("a", boxes((5, 0)), boxes())
    del broken[element]["boxes"]
    with pytest.raises(EvaluationError, match=rf"scene a has no {element}\.boxes: .*{remedy}"):
        DetectionMetric().process({}, [broken])
