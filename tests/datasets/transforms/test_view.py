"""A moved view shows the same world: plans, maps, agents and pictures agree before and after."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.navsim.sensors import Camera
from beyonddrive.datasets.transforms.agent_boxes import points_in_boxes
from beyonddrive.datasets.transforms.camera import CAMERAS, stitch
from beyonddrive.datasets.transforms.camera_rig import CROP_COLUMNS, CROP_ROWS, rig_of
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.status import HideStatus
from beyonddrive.datasets.transforms.view import ViewAugmentation, ViewError
from beyonddrive.datasets.transforms.vocabulary import LoadVocabularyScores
from beyonddrive.structures.sample import IGNORED_LABEL
from beyonddrive.structures.se2 import to_global, to_local
from beyonddrive.synth.rig import rig
from beyonddrive.visualization.projection import Projection

IMAGE = (960, 540)
SIZE = (256, 1024)
LENSES = {"pinhole": np.zeros(5), "as NAVSIM's": np.array([-0.356, 0.172, -0.0005, 0.0004, -0.052])}
POSES = [np.array([0.0, 0.6, np.radians(6.0)]), np.array([0.0, -0.6, np.radians(-6.0)])]
AHEAD = np.linspace(7.0, 15.0, 8)
PLAN = np.stack([AHEAD, 0.015 * AHEAD**2, 0.03 * AHEAD], axis=-1)
RADIUS = 0.6  # of markers on the ground [m]


def cameras(distortion):
    known = rig(IMAGE)
    return [
        Camera(
            Path(name),
            known[name]["cam_intrinsic"],
            known[name]["sensor2lidar_rotation"],
            known[name]["sensor2lidar_translation"],
            distortion,
        )
        for name in CAMERAS
    ]


def painted(views, markers):
    """The three pictures of a grey world with green discs on the ground, as a strip."""
    circle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    images = []
    for camera in views:
        view = Projection(camera.intrinsic, camera.rotation, camera.translation, camera.distortion)
        image = np.full((IMAGE[1], IMAGE[0], 3), 90, np.uint8)
        for x, y in markers:
            ring = np.stack([x + RADIUS * np.cos(circle), y + RADIUS * np.sin(circle), 0 * circle], axis=-1)
            pixels = view.ring(ring)
            if pixels is not None:
                cv2.fillPoly(image, [np.rint(pixels * 16 - 8).astype(np.int32)], (0, 255, 0), shift=4)
        images.append(image)
    return stitch(*images, SIZE)


def strip_pixels(views, points):
    """Where the strip shows points (N, 2) of the ground, by the pictures' own projection; else NaN."""
    width, height = IMAGE
    rows, columns = round(CROP_ROWS * height), round(CROP_COLUMNS * width)
    starts = (0, width - 2 * columns, 2 * width - 2 * columns)
    found = np.full((len(points), 2), np.nan)
    for start, crop, camera in zip(starts, (columns, 0, columns), views, strict=True):
        view = Projection(camera.intrinsic, camera.rotation, camera.translation, camera.distortion)
        pixels = view.to_pixels(np.column_stack([points, np.zeros(len(points))]))
        u, v = pixels.T
        seen = (u >= crop) & (u < width - crop) & (v >= rows) & (v < height - rows)
        found[seen] = pixels[seen] + [start - crop, -rows]
    return found * [SIZE[1] / (3 * width - 4 * columns), SIZE[0] / (height - 2 * rows)]


def greenness(strip, pixels):
    """How green the strip is at pixels (N, 2), from 0 (grey) to 1."""
    columns, rows = np.floor(pixels).astype(int).T
    return (strip[1, rows, columns].astype(int) - strip[0, rows, columns]) / 255.0


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("pose", POSES, ids=["left", "right"])
def test_the_moved_plan_lies_where_the_moved_picture_shows_the_plan(lens, pose):
    views = cameras(LENSES[lens])
    beside = np.array([[6.0, 6.0], [6.0, -6.0], [9.0, 12.0], [9.0, -12.0]])  # in the outer panels
    markers = np.concatenate([PLAN[:, :2], beside])
    given = {
        "camera": painted(views, markers),
        "camera_rig": rig_of(views, (IMAGE[1], IMAGE[0]), SIZE),
        "trajectory": PLAN.astype(np.float32),
    }
    np.testing.assert_array_equal(greenness(given["camera"], strip_pixels(views, markers)), 1.0)
    moved = ViewAugmentation().moved(dict(given), pose)
    places = np.concatenate([moved["trajectory"][:, :2], to_local(beside, pose)])
    pixels = strip_pixels(views, places)
    assert np.isfinite(pixels).all()
    green = greenness(moved["camera"], pixels)
    assert (green > 0.9).all(), green
    # It matters: where the picture was not moved, or the plan was not, the two part.
    assert greenness(given["camera"], pixels).mean() < 0.5
    assert greenness(moved["camera"], strip_pixels(views, markers)).mean() < 0.5
    np.testing.assert_allclose(to_global(moved["trajectory"], moved["view_pose"]), PLAN, atol=1e-5)
    assert (given["trajectory"] == PLAN.astype(np.float32)).all(), "what was given is as it was"


@pytest.mark.parametrize("lens", LENSES)
def test_a_view_that_is_not_moved_is_the_same(lens):
    views = cameras(LENSES[lens])
    image = np.random.default_rng(0).integers(0, 255, (3, *SIZE), np.uint8)
    given = {"camera": image, "camera_rig": rig_of(views, (IMAGE[1], IMAGE[0]), SIZE)}
    moved = ViewAugmentation().moved(given, np.zeros(3))["camera"]
    assert np.abs(moved.astype(int) - image)[:, :, 1:-1].max() <= 12  # (maps are rounded to 1/32 of a pixel)


def results(pose_of_agent=(12.0, 4.0, 0.3)):
    """A sample without a picture: maps and a LiDAR raster with a blot at the end of the plan, and agents."""
    end = PLAN[-1, :2]
    raster = np.zeros((128, 256), np.uint8)
    rows, columns = np.mgrid[:128, :256]
    places = np.stack([(rows + 0.5) * 0.25, (columns + 0.5 - 128) * 0.25], axis=-1)
    raster[np.linalg.norm(places - end, axis=-1) < 0.8] = 5
    rows, columns = np.mgrid[:256, :256]
    places = np.stack([(rows + 0.5) * 0.25 - 32, (columns + 0.5) * 0.25 - 32], axis=-1)
    lidar = (np.linalg.norm(places - end, axis=-1) < 0.8).astype(np.float32)[None]
    states = np.zeros((30, 5), np.float32)
    states[0] = [*pose_of_agent, 4.5, 2.0]
    states[1] = [31.9, -31.9, 1.0, 4.0, 1.9]
    negatives = np.stack([PLAN, PLAN * [1, -1, -1], np.zeros((8, 3))]).astype(np.float32)
    return {
        "token": "a",
        "log_name": "log",
        "trajectory": PLAN.astype(np.float32),
        "status": np.array([0, 1, 0, 0, 8.0, 0.5, 1.0, -0.2], np.float32),
        "bev_semantic_map": raster,
        "future_bev_semantic_map": raster.copy(),
        "lidar": lidar,
        "points": np.array([[*end, 0.4, 7.0]], np.float32),
        "agent_states": states,
        "agent_labels": np.arange(30) < 2,
        "negative_plans": negatives,
        "negative_valid": np.array([True, True, False]),
        "negative_scores": np.ones((3, 7), np.float32),
    }


@pytest.mark.parametrize("pose", POSES, ids=["left", "right"])
def test_all_of_a_sample_moves_together(pose):
    given = results()
    moved = ViewAugmentation().moved(given, pose)
    end = moved["trajectory"][-1, :2]
    for key in ("bev_semantic_map", "future_bev_semantic_map"):
        # The middle of the blot is where the plan ends.
        spot = np.argwhere(moved[key] == 5).mean(axis=0)
        np.testing.assert_allclose((spot + 0.5 - [0, 128]) * 0.25, end, atol=0.15)
        assert (moved[key] == IGNORED_LABEL).any() and set(np.unique(moved[key])) == {IGNORED_LABEL, 0, 5}
    spot = np.argwhere(moved["lidar"][0] > 0).mean(axis=0)
    np.testing.assert_allclose((spot + 0.5 - 128) * 0.25, end, atol=0.15)
    np.testing.assert_allclose(moved["points"][0, :2], end, atol=1e-5)
    np.testing.assert_array_equal(moved["points"][0, 2:], given["points"][0, 2:])
    np.testing.assert_allclose(to_global(moved["agent_states"][0, :3], pose), [12.0, 4.0, 0.3], atol=1e-5)
    np.testing.assert_array_equal(moved["agent_states"][0, 3:], given["agent_states"][0, 3:])
    np.testing.assert_allclose(
        to_global(moved["negative_plans"][:2], pose), given["negative_plans"][:2], atol=1e-5
    )
    assert not moved["negative_plans"][2].any(), "what is not valid stays zero"
    # Velocity and acceleration are the car's, in its new axes; the command stays.
    status = moved["status"]
    np.testing.assert_array_equal(status[:4], given["status"][:4])
    for pair in (slice(4, 6), slice(6, 8)):
        before, after = given["status"][pair], status[pair]
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), rel=1e-6)
        angle = np.arctan2(after[1], after[0]) - np.arctan2(before[1], before[0])
        assert angle == pytest.approx(-pose[2], abs=1e-6)
    assert moved["agent_labels"].sum() in (1, 2)
    packed = PackPlanInputs()(moved)
    assert packed["data_samples"].gt.bev_semantic_map.min() == IGNORED_LABEL
    assert packed["data_samples"].metainfo["view_pose"] == tuple(pose.tolist())
    untouched = results()
    for key, value in given.items():
        np.testing.assert_array_equal(value, untouched[key], err_msg=f"{key} of the cache was written to")


def test_boxes_of_agents_move_with_their_points():
    box = np.array([[12.0, 4.0, 0.8, 4.5, 1.9, 1.6, 0.3, 5.0, 1.0]], np.float32)
    uniform = np.random.default_rng(0).uniform([9, 2, 0, 0], [15, 6, 2, 1], (500, 4))
    points = uniform.astype(np.float32)
    moved = ViewAugmentation().moved({"points": points, "boxes": box}, np.array([0.0, 0.5, 0.4]))
    assert points_in_boxes(moved["points"], moved["boxes"]) == points_in_boxes(points, box) > 50
    assert moved["boxes"][0, 2:6].tolist() == box[0, 2:6].tolist()
    assert moved["boxes"][0, 6] == pytest.approx(-0.1, abs=1e-6)
    speed = np.hypot(5.0, 1.0)
    course = np.arctan2(1.0, 5.0) - 0.4
    assert moved["boxes"][0, 7:] == pytest.approx([speed * np.cos(course), speed * np.sin(course)], rel=1e-5)
    assert box[0, 6] == np.float32(0.3)  # what is given stays


def test_agents_stay_sorted_and_in_the_square():
    given = results(pose_of_agent=(0.0, 10.0, 0.0))
    given["agent_states"][1, :2] = [0.0, -10.2]
    moved = ViewAugmentation().moved(given, np.array([0.0, -0.5, 0.0]))  # nearer to the second
    np.testing.assert_allclose(moved["agent_states"][:2, 1], [-9.7, 10.5], atol=1e-5)
    given["agent_states"][1, :2] = [0.0, 31.8]
    moved = ViewAugmentation().moved(given, np.array([0.0, -0.5, 0.0]))
    assert moved["agent_labels"].sum() == 1 and not moved["agent_states"][1:].any()


def test_samples_that_cannot_be_moved_are_refused():
    step = ViewAugmentation()
    with pytest.raises(ViewError, match="set rig=True in the LoadCameraStitch"):
        step({"token": "a", "camera": np.zeros((3, 16, 64), np.uint8)})
    with pytest.raises(ViewError, match=r"camera_rig\) is not finite"):
        step(
            {"token": "a", "camera": np.zeros((3, 16, 64), np.uint8), "camera_rig": np.full((3, 26), np.nan)}
        )
    with pytest.raises(ViewError, match="vocabulary_scores"):
        step({"token": "a", "vocabulary_scores": np.zeros((4, 7), np.float32)})
    with pytest.raises(ValueError, match=r"max_yaw must be in \[0, 45\]"):
        ViewAugmentation(max_yaw=-1.0)
    with pytest.raises(ValueError, match="must be positive"):
        ViewAugmentation(pixel_size=0.0)


@pytest.mark.parametrize(
    ("reader", "remedy"),
    [
        (LoadVocabularyScores("scores", "plans.npz"), "take ViewAugmentation out of the pipeline"),
        (LoadNegatives("pool"), "put ViewAugmentation behind LoadNegatives"),
    ],
)
def test_what_is_known_of_plans_is_not_added_once_the_view_has_moved(reader, remedy):
    moved = ViewAugmentation()({"token": "a", "trajectory": PLAN.astype(np.float32)})
    with pytest.raises(ValueError, match=f"the view of scene a has been moved.*{remedy}"):
        reader(moved)


def test_arrays_that_nothing_is_known_of_are_refused_or_named():
    given, pose = {**results(), "route": np.zeros((5, 2), np.float32)}, np.array([0.0, 0.5, 0.0])
    with pytest.raises(ViewError, match=r"has 'route'.*name it in unmoved"):
        ViewAugmentation().moved(given, pose)
    moved = ViewAugmentation(unmoved=["route"]).moved(given, pose)
    assert moved["route"] is given["route"]


def test_what_is_hidden_stays_hidden_when_the_view_moves():
    """Turning keeps zeros of both entries, and would fill one from the other."""
    results = {"token": "a", "status": np.arange(8, dtype=np.float32)}
    augmentation, pose = ViewAugmentation(), np.array([0.0, 0.0, 0.3])
    hidden = augmentation.moved(HideStatus(["acceleration"])(results), pose)
    assert not hidden["status"][6:].any()
    last = HideStatus(["acceleration_ahead"])(augmentation.moved(results, pose))
    assert last["status"][6] == 0 != last["status"][7]
    with pytest.raises(ViewError, match="put HideStatus behind ViewAugmentation"):
        augmentation.moved(HideStatus(["acceleration_ahead"])(results), pose)
