"""The map at the end of a plan: objects where the log has them later, all else as it is now."""

from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import SceneError
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.transforms.bev_map import (
    CENTERLINE,
    PEDESTRIAN,
    STATIC,
    VEHICLE,
    BEVMapTarget,
    FutureBEVMapTarget,
)

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "pdms" / "data"
LAST = 11
"""Frame that is 4 s after the current one."""


def test_objects_are_where_they_will_be():
    root = NavsimRoot(GOLDEN)
    checked = moved = 0
    for scene in list(root.scenes("golden"))[:6]:
        given = {"scene": scene, "root": root}
        now = BEVMapTarget(walkways=False)(dict(given))["bev_semantic_map"]
        later = FutureBEVMapTarget(walkways=False)(dict(given))["future_bev_semantic_map"]
        assert later.shape == now.shape and later.dtype == np.uint8
        # Roads and lines are the same wherever no object is drawn in either map.
        free = (now < STATIC) & (later < STATIC)
        np.testing.assert_array_equal(now[free], later[free])
        assert (now[free] == CENTERLINE).any()
        moved += int((now != later).any())
        # Global position of every later vehicle, worked out by hand with a rotation matrix.
        (x, y, yaw), (x0, y0, yaw0) = scene.ego_poses[LAST], scene.ego_pose
        objects = scene.objects(LAST)
        for kind, box in zip(objects.types, objects.boxes, strict=True):
            if kind != "vehicle":
                continue
            point = complex(box[0], box[1]) * np.exp(1j * yaw) + complex(x - x0, y - y0)
            point *= np.exp(-1j * yaw0)
            row, column = int(point.real / 0.25), int(point.imag / 0.25 + 128)
            if 0 <= point.real / 0.25 < 128 and 0 <= column < 256:
                assert later[row, column] in (VEHICLE, PEDESTRIAN)
                checked += 1
    assert checked > 3 and moved > 3


def test_the_ego_is_not_drawn_and_the_scene_is_not_changed():
    root = NavsimRoot(GOLDEN)
    scene = next(iter(root.scenes("golden")))
    boxes = scene.objects(LAST).boxes.copy()
    results = {"scene": scene, "root": root}
    later = FutureBEVMapTarget(walkways=False)(results)["future_bev_semantic_map"]
    assert later.max() <= PEDESTRIAN
    np.testing.assert_array_equal(scene.objects(LAST).boxes, boxes)


def test_a_scene_that_ends_before_its_plan_is_named():
    root = NavsimRoot(GOLDEN)
    scene = next(iter(root.scenes("golden", SceneFilter(num_future_frames=7))))
    words = f"scene {scene.token} .* has 7 future frames.*num_future_frames"
    with pytest.raises(SceneError, match=words):
        FutureBEVMapTarget(walkways=False)({"scene": scene, "root": root})
