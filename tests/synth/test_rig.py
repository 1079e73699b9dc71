import numpy as np
import pytest

from beyonddrive.synth.rig import CAMERA_NAMES, rig


def test_rig_has_the_eight_cameras_of_the_format():
    cameras = rig()
    assert set(cameras) == {f"CAM_{name}" for name in ("F0", "L0", "L1", "L2", "R0", "R1", "R2", "B0")}
    for pose in cameras.values():
        assert set(pose) == {
            "sensor2lidar_rotation",
            "sensor2lidar_translation",
            "cam_intrinsic",
            "distortion",
        }
        rotation = pose["sensor2lidar_rotation"]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        assert 1.5 <= pose["sensor2lidar_translation"][2] <= 1.6
        assert pose["distortion"].tolist() == [0.0] * 5


@pytest.mark.parametrize(
    ("name", "degrees"), [("F0", 0), ("L0", 55), ("R0", -55), ("L1", 110), ("R2", -140), ("B0", 180)]
)
def test_cameras_look_where_their_names_say(name, degrees):
    forward = rig()[f"CAM_{name}"]["sensor2lidar_rotation"] @ [0.0, 0.0, 1.0]
    yaw = np.deg2rad(degrees)
    np.testing.assert_allclose(forward, [np.cos(yaw), np.sin(yaw), 0.0], atol=1e-12)


def test_image_axes_point_right_and_down():
    rotation = rig()["CAM_F0"]["sensor2lidar_rotation"]
    np.testing.assert_allclose(rotation @ [1.0, 0.0, 0.0], [0.0, -1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(rotation @ [0.0, 1.0, 0.0], [0.0, 0.0, -1.0], atol=1e-12)


def test_intrinsics_follow_the_image_size():
    full = rig((1920, 1080))["CAM_B0"]["cam_intrinsic"]
    assert full.tolist() == [[1545.0, 0.0, 960.0], [0.0, 1545.0, 560.0], [0.0, 0.0, 1.0]]
    small = rig((480, 540))["CAM_B0"]["cam_intrinsic"]
    np.testing.assert_allclose(small, [[386.25, 0, 240], [0, 772.5, 280], [0, 0, 1]])


def test_cameras_do_not_share_arrays():
    cameras = rig()
    cameras["CAM_F0"]["cam_intrinsic"][0, 0] = 0.0
    assert all(cameras[name]["cam_intrinsic"][0, 0] > 0.0 for name in CAMERA_NAMES[1:])


def test_a_size_without_pixels_is_refused():
    with pytest.raises(ValueError, match="image_size"):
        rig((0, 270))
