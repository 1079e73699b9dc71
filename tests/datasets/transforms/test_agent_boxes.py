"""Agents as targets of a detector, and inputs taken away."""

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import HISTORY
from beyonddrive.datasets.transforms.agent_boxes import AgentBoxTargets, BlankInputs, points_in_boxes
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.structures.agent_boxes import AGENT_CLASSES


@pytest.fixture
def scene(split_root):
    return next(iter(NavsimRoot(split_root).scenes("train")))


def test_boxes_are_the_agents_within_the_extent(scene):
    objects = scene.objects(HISTORY - 1)
    results = AgentBoxTargets(extent=20.0).transform({"scene": scene})
    agents = [
        (kind, box, velocity)
        for kind, box, velocity in zip(objects.types, objects.boxes, objects.velocity, strict=True)
        if kind in AGENT_CLASSES and np.abs(box[:2]).max() <= 20.0
    ]
    assert len(agents) > 0 and "box_points" not in results
    assert results["boxes"].shape == (len(agents), 9) and results["boxes"].dtype == np.float32
    for row, (kind, box, velocity) in enumerate(agents):
        assert results["boxes"][row] == pytest.approx(np.r_[box, velocity], rel=1e-6)
        assert AGENT_CLASSES[results["box_labels"][row]] == kind


def test_points_in_each_box_are_counted_and_packed(scene):
    alone = AgentBoxTargets().transform({"scene": scene})["boxes"]
    centre = np.concatenate([alone[:1, :3], np.ones((1, 1), np.float32)], axis=1)
    results = AgentBoxTargets().transform({"scene": scene, "points": np.repeat(centre, 3, axis=0)})
    assert results["box_points"][0] >= 3
    packed = PackPlanInputs().transform({**results, "status": np.zeros(8, np.float32), "token": "a"})
    gt = packed["data_samples"].gt
    assert gt.boxes.shape == (len(alone), 9) and gt.box_labels.dtype == gt.box_points.dtype
    assert gt.box_points.tolist() == results["box_points"].tolist()


def test_points_on_a_turned_box():
    turned = np.array([[0.0, 0, 0, 4, 2, 2, np.pi / 2]])
    points = np.array([[0, 1.9, 0], [0.9, 0, 0.9], [1.9, 0, 0], [0, 0, 1.1]])
    assert points_in_boxes(points, turned).tolist() == [2]
    assert points_in_boxes(points[:0], turned).tolist() == [0]
    assert points_in_boxes(points, turned[:0]).shape == (0,)


def test_inputs_are_taken_away():
    given = {"points": np.ones((5, 4), np.float32), "camera": np.ones((3, 2, 2), np.uint8)}
    blank = BlankInputs(["points", "camera"]).transform(dict(given))
    assert blank["points"].shape == (0, 4)
    assert blank["camera"].dtype == np.uint8 and not blank["camera"].any()
    with pytest.raises(KeyError, match=r"no input 'lidar'; the arrays are \['camera', 'points'\]"):
        BlankInputs(["lidar"]).transform(dict(given))
    with pytest.raises(ValueError, match="at least one input"):
        BlankInputs([])
    with pytest.raises(ValueError, match="extent must be positive"):
        AgentBoxTargets(extent=0)
