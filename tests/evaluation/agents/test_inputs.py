"""What agents see is what the devkit would show them."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.navsim.follow_ups import FollowUpRoot
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.sensors import read_pcd, write_pcd
from beyonddrive.evaluation.agents import lookalikes
from beyonddrive.evaluation.agents.devkit import Devkit
from beyonddrive.evaluation.agents.inputs import AgentError, agent_input, wanted_entries
from beyonddrive.structures.se2 import to_global

LOOKALIKES = Devkit(lookalikes, lookalikes.TrajectorySampling, False)
TWO_STAGE = Path(__file__).parents[2] / "data/golden/two_stage/data"


@pytest.fixture
def scene_with_sensors(split_root):
    root = NavsimRoot(split_root)
    scene = next(root.scenes("test"))
    rng = np.random.default_rng(0)
    folder = root.sensor_root("test")
    for index, frame in enumerate(scene.frames[:4]):
        for name in ("CAM_F0", "CAM_B0"):
            path = folder / frame["cams"][name]["data_path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 256, (6 + index, 9, 3), dtype=np.uint8))
        points = rng.normal(0, 9, (6, 20)).astype(np.float32)
        points[4:] = 0
        write_pcd(folder / frame["lidar_path"], points)
    return root, scene


def test_ego_statuses_are_relative_to_now_and_in_the_devkits_types(split_root):
    root = NavsimRoot(split_root)
    none = wanted_entries(lookalikes.SensorConfig.build_no_sensors())
    for scene in root.scenes("test"):
        given = agent_input(scene, root, none, LOOKALIKES)
        assert [len(part) for part in (given.ego_statuses, given.cameras, given.lidars)] == [4, 4, 4]
        for index, status in enumerate(given.ego_statuses):
            frame = scene.frames[index]
            assert status.ego_pose.dtype == status.ego_velocity.dtype == np.float32
            back = to_global(status.ego_pose.astype(float)[None], scene.ego_pose)[0]
            np.testing.assert_allclose(back[:2], frame["ego2global_translation"][:2], atol=1e-4)
            motion = np.concatenate([status.ego_velocity, status.ego_acceleration])
            np.testing.assert_array_equal(motion, np.float32(frame["ego_dynamic_state"]))
            assert status.driving_command.tolist() == list(frame["driving_command"])
            assert not status.in_global_frame
        assert given.ego_statuses[-1].ego_pose.tolist() == [0, 0, 0]
        assert given.cameras[0].cam_f0 == lookalikes.Camera() and given.lidars[3].lidar_pc is None


def test_sensors_are_read_where_they_are_asked_for(scene_with_sensors):
    root, scene = scene_with_sensors
    config = lookalikes.SensorConfig.build_no_sensors()
    config.cam_f0, config.cam_b0, config.lidar_pc = [3], True, [2, 3]
    given = agent_input(scene, root, wanted_entries(config), LOOKALIKES)
    shapes = [cams.cam_b0.image.shape for cams in given.cameras]
    assert shapes == [(6, 9, 3), (7, 9, 3), (8, 9, 3), (9, 9, 3)]
    front = given.cameras[3].cam_f0
    path = root.sensor_root("test") / scene.now["cams"]["CAM_F0"]["data_path"]
    np.testing.assert_array_equal(front.image, cv2.imread(str(path))[..., ::-1])
    np.testing.assert_array_equal(front.intrinsics, scene.now["cams"]["CAM_F0"]["cam_intrinsic"])
    assert front.camera_path == str(path) and given.cameras[2].cam_f0.image is None
    assert [lidar.lidar_pc is None for lidar in given.lidars] == [True, True, False, False]
    sweep = read_pcd(root.sensor_root("test") / scene.now["lidar_path"])
    np.testing.assert_array_equal(given.lidars[3].lidar_pc, sweep)


def test_follow_up_scenes_are_seen_alike():
    root = FollowUpRoot(TWO_STAGE / "synthetic_scene_pickles")
    none = wanted_entries(lookalikes.SensorConfig.build_no_sensors())
    for ref in list(root.refs())[:3]:
        given = agent_input(root.load(ref), root, none, LOOKALIKES)
        assert given.ego_statuses[0].ego_pose.dtype == np.float64
        assert given.ego_statuses[-1].ego_pose.tolist() == [0, 0, 0]
        assert given.ego_statuses[0].ego_pose[0] <= 0


def test_cameras_of_follow_up_scenes_need_their_folder():
    root = FollowUpRoot(TWO_STAGE / "synthetic_scene_pickles")
    entries = wanted_entries(lookalikes.SensorConfig.build_all_sensors([3]))
    with pytest.raises(ValueError, match="--synthetic-sensors"):
        agent_input(root.load(next(root.refs())), root, entries, LOOKALIKES)


@pytest.mark.parametrize("value", [None, "all", [4], [-1], 1.5])
def test_a_sensor_configuration_that_means_nothing_is_refused(value):
    config = lookalikes.SensorConfig.build_no_sensors()
    config.cam_l1 = value
    with pytest.raises(AgentError, match="get_sensor_config: cam_l1"):
        wanted_entries(config)


def test_a_follow_up_scene_under_another_name_is_refused(tmp_path):
    source = next((TWO_STAGE / "synthetic_scene_pickles").glob("*.pkl"))
    shutil.copy(source, tmp_path / "other.pkl")
    root = FollowUpRoot(tmp_path)
    with pytest.raises(ValueError, match=f"other.pkl: holds scene {source.stem}"):
        root.load(next(root.refs()))
    assert not list(root.refs(scene_filter=None))[1:] and not root.lost_scenes


def test_no_tokens_are_no_follow_up_scenes():
    root = FollowUpRoot(TWO_STAGE / "synthetic_scene_pickles")
    assert list(root.refs()) and not list(root.refs(scene_filter=SceneFilter(num_future_frames=0, tokens=[])))
