"""Scenes: poses and plans equal the recorded ones, and bad values name where they are."""

import copy

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import FUTURE, HISTORY, Scene, SceneError, ego_yaw
from beyonddrive.structures.se2 import to_global


@pytest.fixture
def scene(frames):
    return Scene("a_log", "mini", copy.deepcopy(frames[:14]))


def test_golden_scenes(golden):
    root = NavsimRoot(golden / "pdms" / "data")
    scenes = list(root.scenes("golden"))
    assert len(scenes) == 12 and root.problems == []
    for scene in scenes:
        stages = np.load(next((golden / "pdms" / "stages").glob(f"*{scene.token}.npz")))
        # (numpy 1 and 2 differ by an ulp in the heading)
        np.testing.assert_allclose(scene.ego_pose, stages["ego_state"][:3], rtol=1e-15, atol=0)
        np.testing.assert_array_equal(scene.ego_dynamic, stages["ego_state"][3:7])
        assert scene.ego_dynamic.dtype == np.float32
        assert scene.timestamp_us == stages["ego_time_us"]
        scores = np.load(next((golden / "pdms" / "scores").glob(f"*{scene.token}.npz")))
        np.testing.assert_allclose(scene.expert_plan, scores["poses"][0], rtol=0, atol=1e-13)


def test_what_a_scene_knows(scene, frames):
    assert scene.token == frames[3]["token"]
    assert scene.map_location == "us-ma-boston"
    assert scene.roadblock_ids == frames[3]["roadblock_ids"]
    assert scene.ego_poses.shape == (HISTORY + FUTURE, 3)
    np.testing.assert_array_equal(scene.driving_command, [0, 1, 0, 0])
    np.testing.assert_allclose(to_global(scene.expert_plan, scene.ego_pose), scene.ego_poses[4:12], atol=1e-9)


def test_traffic_light_ids_are_text_whatever_they_were(scene):
    scene.now["traffic_lights"] = [(12, True), (np.int64(13), np.bool_(False)), (14.0, 1)]
    assert scene.traffic_lights == [("12", True), ("13", False), ("14", True)]
    scene.frames[5]["traffic_lights"] = [(7, False)]
    assert scene.lights(5) == [("7", False)] and scene.lights(HISTORY - 1) == scene.traffic_lights


def test_heading_is_that_of_the_x_y_z_order():
    roll, pitch, yaw = 0.02, -0.03, 0.7

    def axis(angle, index):
        q = np.zeros(4)
        q[0], q[index] = np.cos(angle / 2), np.sin(angle / 2)
        return q

    def product(a, b):
        w, v = a[0] * b[0] - a[1:] @ b[1:], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
        return np.concatenate([[w], v])

    q = product(product(axis(roll, 1), axis(pitch, 2)), axis(yaw, 3))
    assert ego_yaw(q) == pytest.approx(yaw, abs=1e-14)
    z_y_x = product(product(axis(yaw, 3), axis(pitch, 2)), axis(roll, 1))
    assert abs(ego_yaw(z_y_x) - yaw) > 1e-4  # the trap: the two orders differ
    assert ego_yaw(3.0 * q) == pytest.approx(yaw, abs=1e-14)
    assert ego_yaw(np.stack([q, -q])) == pytest.approx([yaw, yaw], abs=1e-14)


def test_objects_of_a_frame(scene):
    objects = scene.objects(3)
    annotations = scene.now["anns"]
    assert len(objects) == len(annotations["gt_names"]) > 0
    assert objects.tokens == list(annotations["track_tokens"])
    np.testing.assert_array_equal(objects.boxes, annotations["gt_boxes"])
    np.testing.assert_array_equal(objects.velocity, annotations["gt_velocity_3d"][:, :2])


def test_frame_without_objects(scene):
    scene.now["anns"] = {
        "gt_boxes": np.zeros((0, 7)),
        "gt_names": np.zeros(0, "U1"),
        "gt_velocity_3d": np.zeros((0, 3)),
        "track_tokens": [],
        "instance_tokens": [],
    }
    objects = scene.objects(3)
    assert len(objects) == 0 and objects.boxes.shape == (0, 7) and objects.velocity.shape == (0, 2)


@pytest.mark.parametrize("key", ["ego2global_translation", "ego2global_rotation"])
def test_pose_that_is_not_finite(scene, key):
    scene.frames[6][key] = scene.frames[6][key] * np.nan
    with pytest.raises(SceneError, match=rf"{scene.token}.*frame 6: {key} is not finite"):
        _ = scene.ego_pose


def test_zero_quaternion(scene):
    scene.frames[2]["ego2global_rotation"] = np.zeros(4)
    with pytest.raises(SceneError, match="ego2global_rotation is zero"):
        _ = scene.ego_poses


def test_state_that_is_not_finite(scene):
    scene.now["ego_dynamic_state"] = [1.0, np.inf, 0.0, 0.0]
    with pytest.raises(SceneError, match="ego_dynamic_state"):
        _ = scene.ego_dynamic


@pytest.mark.parametrize("key", ["gt_boxes", "gt_velocity_3d"])
def test_object_that_is_not_finite(scene, key):
    scene.now["anns"][key][1, 0] = np.nan
    with pytest.raises(SceneError, match=rf"frame 3: anns\.{key}: object 1"):
        scene.objects(3)


def test_unknown_class_and_reserved_token(scene):
    names = list(scene.now["anns"]["gt_names"])
    scene.now["anns"]["gt_names"] = ["unicorn", *names[1:]]
    with pytest.raises(SceneError, match=r"unknown classes \['unicorn'\]"):
        scene.objects(3)
    scene.now["anns"]["gt_names"] = names
    scene.now["anns"]["track_tokens"][0] = "red_light_12"
    with pytest.raises(SceneError, match="reserved"):
        scene.objects(3)


def test_scene_with_little_or_no_future(frames):
    short = Scene("a_log", "mini", frames[: HISTORY + 7])
    assert short.token == frames[3]["token"]
    with pytest.raises(SceneError, match=r"7 future frames.*num_future_frames"):
        _ = short.expert_plan
    with pytest.raises(SceneError, match="needs 4 frames, got 3"):
        Scene("a_log", "mini", frames[:3])
