"""Plans on the ground of an image: projection, clipping, cameras side by side."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import HISTORY
from beyonddrive.datasets.navsim.sensors import SensorError
from beyonddrive.structures.boxes import box_corners
from beyonddrive.synth.rig import rig
from beyonddrive.visualization import palette
from beyonddrive.visualization.camera import draw_camera, fill_window, plan_course, ribbon
from beyonddrive.visualization.failures import Verdict
from beyonddrive.visualization.layers import PlanLayer
from beyonddrive.visualization.projection import Projection, clip_near


def projection_of(name="CAM_F0", size=(320, 180), distortion=(0.0,) * 5):
    camera = rig(size)[name]
    return Projection(
        camera["cam_intrinsic"],
        camera["sensor2lidar_rotation"],
        camera["sensor2lidar_translation"],
        np.array(distortion),
    )


@pytest.fixture
def scene_and_sensors(world_folder):
    root = NavsimRoot(world_folder)
    return next(root.scenes("mini")), root.sensor_root("mini")


@pytest.mark.parametrize("distortion", [(0.0,) * 5, (-0.356, 0.173, -0.0002, 0.0005, -0.053)])
def test_projection_equals_that_of_opencv(distortion):
    projection = projection_of(distortion=distortion)
    points = np.array([[8.0, 1.0, 0.0], [20.0, -4.0, 1.0], [30.0, 6.0, 0.5]])
    rotation = projection.rotation.T
    expected = cv2.projectPoints(
        points,
        cv2.Rodrigues(rotation)[0],
        -rotation @ projection.translation,
        projection.intrinsic,
        np.array(distortion),
    )[0][:, 0]
    assert np.allclose(projection.to_pixels(points), expected, atol=1e-6)


def test_what_the_lens_does_not_see_has_no_pixel():
    plain = projection_of()
    assert np.isnan(plain.to_pixels([-5.0, 0.0, 0.0])).all()
    bent = projection_of(distortion=(-0.356, 0.173, 0.0, 0.0, -0.053))
    assert np.isfinite(plain.to_pixels([3.0, 5.0, 0.0])).all()
    assert np.isnan(bent.to_pixels([3.0, 5.0, 0.0])).all()  # would fold back into the image


def test_rings_are_cut_at_the_near_plane():
    ring = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 3.0], [-1.0, 0.0, 3.0]])
    cut = clip_near(ring, closed=True, near=1.0)
    assert len(cut) == 4 and cut[:, 2].min() == 1.0
    assert np.allclose(sorted(cut[cut[:, 2] == 1.0, 0]), [-0.5, 0.5])
    assert len(clip_near(ring - [0, 0, 5.0], closed=True)) == 0


def test_a_ribbon_has_its_width_and_starts_at_the_bumper(straight_plan):
    left, right = ribbon(straight_plan[0], 2.0)
    assert np.allclose(left[:, 1], 1.0) and np.allclose(right[:, 1], -1.0)
    assert left[0, 0] >= 4.049 and np.isclose(left[-1, 0], 20.0)
    assert len(plan_course(np.zeros((8, 3)))) == 0
    assert len(plan_course(1e6 * straight_plan[0])) < 700  # a plan to the horizon takes no more memory
    assert len(ribbon(np.zeros((8, 3)), 2.0)[0]) == 0


def test_the_plan_is_painted_where_it_projects(scene_and_sensors, straight_plan):
    scene, sensors = scene_and_sensors
    layer = PlanLayer("planner", straight_plan, "plan")
    picture = draw_camera(scene, sensors, [layer], width=640, height=360)
    assert picture.shape == (360, 640, 3) and picture.dtype == np.uint8
    column, row = projection_of(size=(640, 360)).to_pixels([10.0, 0.0, 0.0])
    painted = picture[int(row), int(column)].astype(int)
    assert painted[2] > painted[0] + 30  # blue on grey
    assert np.abs(picture[40, 600].astype(int) - 128).max() <= 2
    assert np.array_equal(picture, draw_camera(scene, sensors, [layer], width=640, height=360))


def test_the_front_arc_is_three_cameras_side_by_side(scene_and_sensors, straight_plan):
    scene, sensors = scene_and_sensors
    turn = 1.5 * straight_plan
    turn[0, :, 1] = 0.035 * turn[0, :, 0] ** 2
    layer = PlanLayer("human", turn, "expert")
    picture = draw_camera(scene, sensors, [layer], ("CAM_L0", "CAM_F0", "CAM_R0"), 1024, 256)
    assert picture.shape == (256, 1024, 3)
    green = np.abs(picture.astype(int) - palette.EXPERT).max(axis=-1) < 40
    # As wide as planners see them: 1088, 1920 and 1088 of 4096 columns.
    assert green[:, :272].any() and green[:, 272:752].any() and not green[:, 752:].any()


def test_images_fill_their_window_without_being_stretched():
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    image[40:60, 90:110] = 255
    view = Projection(
        np.array([[50.0, 0, 100], [0, 50.0, 50], [0, 0, 1]]), np.eye(3), np.zeros(3), np.zeros(5)
    )
    filled, moved = fill_window(image, view, 100, 100)
    assert filled.shape == (100, 100, 3)
    rows, columns = np.nonzero(filled[..., 0] > 128)
    assert np.ptp(rows) == np.ptp(columns) == 19
    assert np.allclose(moved.to_pixels([0.0, 0.0, 1.0]), [50.0, 50.0])


def test_missing_images_and_cameras_are_named(scene_and_sensors, tmp_path):
    scene, sensors = scene_and_sensors
    with pytest.raises(SensorError, match=r"CAM_F0.*missing"):
        draw_camera(scene, tmp_path)
    with pytest.raises(ValueError, match="CAM_X9"):
        draw_camera(scene, sensors, cameras=("CAM_X9",))


def test_the_object_that_a_plan_fails_by_is_framed_by_its_box(scene_and_sensors, straight_plan, make_verdict):
    scene, sensors = scene_and_sensors
    objects = scene.objects(HISTORY - 1)
    ahead = [i for i, box in enumerate(objects.boxes) if 8.0 < box[0] < 40.0 and abs(box[1]) < 0.4 * box[0]]
    index = ahead[0]
    verdict = make_verdict(NC=0.0, moments={"NC": 2.0}, poses=scene.ego_pose)
    explanation = verdict.explanation
    failures = tuple(replace(f, object_token=objects.tokens[index]) for f in explanation.failures)
    framed = Verdict(replace(explanation, failures=failures))
    with_box, without = (
        draw_camera(scene, sensors, [PlanLayer("p", straight_plan, "plan", verdicts=[v])]).astype(int)
        for v in (framed, verdict)
    )
    rows, columns = np.nonzero(np.abs(with_box - without).max(axis=-1))
    x, y, z, length, width, height, yaw = objects.boxes[index]
    corners = box_corners([x, y], yaw, length, width)
    corners = np.concatenate([np.column_stack([corners, np.full(4, z + s * height)]) for s in (-0.5, 0.5)])
    pixels = projection_of(size=(960, 540)).to_pixels(corners)
    assert np.allclose([columns.min(), rows.min()], pixels.min(axis=0), atol=5.0)
    assert np.allclose([columns.max(), rows.max()], pixels.max(axis=0), atol=5.0)
    column, row = pixels[0].astype(int)
    near = with_box[row - 2 : row + 3, column - 2 : column + 3]
    assert (np.abs(near - palette.FAILURES["NC"]).max(axis=-1) < 30).any()
