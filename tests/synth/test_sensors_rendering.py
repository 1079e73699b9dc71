import numpy as np
import pytest

from beyonddrive.datasets.navsim.sensors import SensorError, read_image, read_pcd
from beyonddrive.synth.rig import CAMERA_NAMES, rig
from beyonddrive.synth.sensors import RenderCount, render_log, with_rig

SIZE = (160, 90)
BOXES = ((12.0, 0.0, 4.6, 1.9, 1.6, 0.0, "vehicle", "car", 4.0),)


@pytest.fixture(scope="module")
def log(make_frames):
    return make_frames(BOXES, count=2, image_size=SIZE, lights=[(3, True)])


def files(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_every_sensor_file_of_a_log_is_written(street, log, tmp_path):
    assert render_log(log, street, tmp_path, SIZE) == RenderCount(18, 0)
    for frame in log:
        for name in CAMERA_NAMES:
            assert read_image(tmp_path / frame["cams"][name]["data_path"]).shape == (90, 160, 3)
        points = read_pcd(tmp_path / frame["lidar_path"])
        assert points.shape[0] == 6
        ahead = (np.abs(points[1]) < 0.9) & (points[2] > 0.2) & (points[0] > 0) & (points[0] < 14)
        assert ahead.sum() > 20
    assert len(files(tmp_path)) == 18


def test_equal_inputs_give_equal_bytes_however_the_work_is_cut(street, log, tmp_path):
    render_log(log, street, tmp_path / "a", SIZE, seed=7)
    for index in (1, 0):
        render_log(log, street, tmp_path / "b", SIZE, frames_to_render=[index], seed=7)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    render_log(log, street, tmp_path / "c", SIZE, seed=8)
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_only_what_is_asked_for_is_written(street, log, tmp_path):
    count = render_log(
        log, street, tmp_path, SIZE, cameras=("CAM_F0", "CAM_R0"), lidar=False, frames_to_render=[1]
    )
    assert count == RenderCount(2, 0)
    assert set(files(tmp_path)) == {log[1]["cams"][name]["data_path"] for name in ("CAM_F0", "CAM_R0")}


def test_complete_files_are_kept_and_others_are_made_again(street, log, tmp_path):
    render_log(log, street, tmp_path, SIZE)
    whole = files(tmp_path)
    image = tmp_path / log[0]["cams"]["CAM_F0"]["data_path"]
    sweep = tmp_path / log[0]["lidar_path"]
    image.write_bytes(image.read_bytes()[:700])
    sweep.write_bytes(sweep.read_bytes()[:-40])
    (tmp_path / log[1]["lidar_path"]).unlink()
    assert render_log(log, street, tmp_path, SIZE) == RenderCount(3, 15)
    assert files(tmp_path) == whole
    assert render_log(log, street, tmp_path, SIZE) == RenderCount(0, 18)


def test_images_of_another_size_are_made_again(street, log, tmp_path):
    small = with_rig(log, (96, 54))
    render_log(small, street, tmp_path, (96, 54), cameras=["CAM_B0"], lidar=False)
    count = render_log(log, street, tmp_path, SIZE, cameras=["CAM_B0"], lidar=False)
    assert count == RenderCount(2, 0)
    assert read_image(tmp_path / log[0]["cams"]["CAM_B0"]["data_path"]).shape == (90, 160, 3)


def test_intrinsics_of_another_size_are_refused(street, log, tmp_path):
    with pytest.raises(SensorError, match=r"cams\.CAM_F0\.cam_intrinsic"):
        render_log(log, street, tmp_path, (320, 180))
    assert not files(tmp_path)


def test_other_cameras_can_be_replaced_by_the_rig(log):
    broken = [{**log[0], "cams": {n: {**c, "cam_intrinsic": np.eye(3)} for n, c in log[0]["cams"].items()}}]
    replaced = with_rig(broken, (640, 360))[0]["cams"]["CAM_L0"]
    assert replaced["data_path"] == log[0]["cams"]["CAM_L0"]["data_path"]
    np.testing.assert_array_equal(replaced["cam_intrinsic"], rig((640, 360))["CAM_L0"]["cam_intrinsic"])
    assert broken[0]["cams"]["CAM_L0"]["cam_intrinsic"][0, 0] == 1.0


def test_unknown_cameras_and_escaping_paths_are_refused(street, log, tmp_path):
    with pytest.raises(SensorError, match="CAM_X9"):
        render_log(log, street, tmp_path, SIZE, cameras=["CAM_X9"])
    outside = {**log[0]["cams"]["CAM_F0"], "data_path": "../escaped.jpg"}
    frames = [{**log[0], "cams": {**log[0]["cams"], "CAM_F0": outside}}]
    with pytest.raises(SensorError, match="leaves"):
        render_log(frames, street, tmp_path / "out", SIZE)
    assert not (tmp_path / "escaped.jpg").exists()
