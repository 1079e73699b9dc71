"""What HUGSIM says becomes a frame in the planner's convention, and a plan comes back in its own."""

from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.frame_inputs import FrameError, check_frame
from beyonddrive.deploy.drivers.hugsim import (
    HugsimConventions,
    answer_of,
    frame_of,
    garage_answer,
    planned,
    self_test,
    step_of,
)
from beyonddrive.deploy.drivers.self_test import arc
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import command_of
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.structures.frame import CACHED_PLAN, STRAIGHT_ON, Command
from beyonddrive.tests.deploy.drivers.conftest import CAMERAS

FAITHFUL, RELEASED = HugsimConventions(), HugsimConventions.released()


def test_ego_motion_is_that_of_its_rear_axle(observation):
    """Steering is positive to the right there, and a bend accelerates to its inside."""
    info = {"ego_velo": np.float64(6.0), "ego_steer": 0.1, "accelerate": -1.5, "timestamp": np.float64(2.5)}
    info["ego_box"] = [3.0, 1.0, 0.0, 1.6, 3.0, 1.5, 0.25]
    frame = frame_of(*observation(3, **info), "s", FAITHFUL)
    check_frame(frame)
    assert frame.velocity.tolist() == [6.0, 0.0] and frame.steering == -0.1
    assert frame.acceleration.tolist() == [-1.5, pytest.approx(-36 * np.tan(0.1) / 2.7)]
    assert frame.pose.tolist() == [3.0, 1.0, 0.25] and frame.time == 2.5
    assert [frame_of(*observation(command=c), "s", FAITHFUL).command for c in (0, 1, 2)] == [
        Command.RIGHT,
        Command.LEFT,
        Command.STRAIGHT,
    ]


def test_as_released_is_what_the_public_client_makes_of_it(observation):
    """HUGSIM, section 7."""
    frame = frame_of(*observation(ego_velo=6.0, ego_steer=0.1, accelerate=2.0, command=1), "s", RELEASED)
    assert np.allclose(frame.velocity, 6.0 * np.array([np.cos(-0.1), np.sin(-0.1)]))
    assert np.allclose(frame.acceleration, 2.0 * np.array([np.cos(-0.1), np.sin(-0.1)]))
    assert frame.command == Command.STRAIGHT
    plan = arc(0.01, 0.0)
    answer = answer_of(plan, RELEASED)
    assert answer.dtype == np.float32 and np.array_equal(answer, np.float32([[-y, x] for x, y, _ in plan]))


@pytest.mark.parametrize(
    ("controller", "counted"), [(None, 1), ("first_release", 1), ("main", 0), ("pr57", 0), ("resampled", 0)]
)
def test_as_released_a_plan_at_the_ego_is_sent_as_it_is_and_counted(
    observation, driver, told, controller, counted
):
    """As the public client sends it; the first release has no direction for it, and fails."""
    told.answer = np.zeros((8, 3))
    conventions = replace(RELEASED, controller=controller)
    driver.reset("s")
    plan, _ = planned(driver, *observation(), "s", conventions)
    answer = answer_of(plan.poses, conventions.told_by({}), plan.source)
    assert answer.dtype == np.float32 and np.array_equal(answer, np.zeros((8, 2)))
    counts = driver.close("s").counts
    assert counts.get("point_at_ego", 0) == counted and counts["inference"] == 1
    if controller in (None, "first_release"):
        with pytest.raises(HugsimError, match="has no heading in controller 'first_release'"):
            command_of(answer, 0.0, 0.0, "first_release")
    else:
        command_of(answer, 0.0, 0.0, controller)


@pytest.mark.parametrize(("last", "counted"), [(1e-60, 1), (1e-3, 0)])
def test_a_point_is_at_the_ego_if_it_is_there_as_it_is_sent(observation, driver, told, last, counted):
    told.answer = arc(3.0, 0.0)
    told.answer[-1] = [last, 0.0, 0.0]
    driver.reset("s")
    for conventions in (RELEASED, FAITHFUL):
        planned(driver, *observation(), "s", conventions)
    assert driver.close("s").counts.get("point_at_ego", 0) == counted


def test_as_released_cameras_stay_where_the_recorded_car_has_them(observation):
    views = frame_of(*observation(), "s", RELEASED).cameras
    for name, told in CAMERAS["nuscenes"]["cams"].items():
        np.testing.assert_allclose(views[name].rotation, np.array(told["v2c"])[:3, :3].T, atol=1e-12)


def test_without_a_front_camera_the_others_stay_where_they_are(observation):
    obs, info = observation()
    obs["rgb"].pop("CAM_FRONT")
    views = frame_of(obs, info, "s", FAITHFUL).cameras
    told = CAMERAS["nuscenes"]["cams"]["CAM_FRONT_LEFT"]
    np.testing.assert_allclose(views["CAM_FRONT_LEFT"].rotation, np.array(told["v2c"])[:3, :3].T, atol=1e-12)


@pytest.mark.parametrize("data_set", ["nuscenes", "waymo"])
def test_cameras_are_where_the_golden_data_have_them(observation, data_set):
    """Seen from the front camera, whose pose the ego's is there, and with the same focal lengths."""
    frame = frame_of(*observation(data_set=data_set, size=(450, 800)), "s", FAITHFUL)
    front = frame.cameras["CAM_FRONT"]
    assert abs(front.rotation[1, 2]) < 1e-12 < front.rotation[0, 2]  # (ahead is where it looks)
    to_front = np.eye(4)
    to_front[:3, :3], to_front[:3, 3] = front.rotation.T, -front.rotation.T @ front.translation
    righted = np.eye(4)
    righted[:3, 3] = CAMERAS[data_set]["cam_rect"]["trans"]
    for name, view in frame.cameras.items():
        golden = CAMERAS[data_set]["cams"][name]
        assert np.allclose([view.lens.fx, view.lens.fy], golden["focal"])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = view.rotation, view.translation
        assert np.allclose(to_front @ pose @ righted, golden["camera_to_ego"], atol=1e-9)
    left = frame.cameras["CAM_FRONT_LEFT"]
    assert left.rotation[1, 2] > 0.5 and left.translation[1] > 0.3 and left.translation[2] > 1.0


def test_small_images_have_smaller_lenses(observation):
    frame = frame_of(*observation(size=(90, 160)), "s", FAITHFUL)
    assert np.isclose(
        frame.cameras["CAM_FRONT"].lens.fx, CAMERAS["nuscenes"]["cams"]["CAM_FRONT"]["focal"][0] / 5
    )


def test_depth_becomes_points_around_the_ego(observation):
    conventions = HugsimConventions(sweep="depth")
    obs, info = observation()
    for name in obs["depth"]:
        obs["depth"][name][:] = 5.0 if name == "CAM_FRONT" else np.nan
    points = frame_of(obs, info, "s", conventions).lidar
    assert points.dtype == np.float32 and points.shape[0] == 4 and points.shape[1] == 12 * 20
    assert np.allclose(points[0], 5.0 + 1.7, atol=0.15)  # (a plane, 5 m ahead of the camera)
    assert points[1].min() < -2.5 and points[1].max() > 2.5
    del obs["depth"]
    with pytest.raises(FrameError, match=r"obs\.depth: is missing"):
        frame_of(obs, info, "s", conventions)


def _without(key):
    return lambda obs, info: info.pop(key)


def _set(key, value):
    return lambda obs, info: info.__setitem__(key, value)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_without("ego_velo"), r"info\.ego_velo: is missing"),
        (_set("ego_velo", float("nan")), r"info\.ego_velo: must be 1 finite"),
        (_set("ego_box", [1.0, 2.0]), r"info\.ego_box: must be 7 finite"),
        (_set("ego_box", "abc"), r"info\.ego_box: must be numbers"),
        (_set("command", 7), "0 right, 1 left or 2 forward, got 7"),
        (_set("cam_params", None), r"info\.cam_params: must be dictionaries"),
        (lambda obs, info: info["cam_params"].pop("CAM_BACK"), r"cam_params\.CAM_BACK: is missing"),
        (
            lambda obs, info: info["cam_params"]["CAM_FRONT"].pop("v2c"),
            r"CAM_FRONT: cannot be read \(Key",
        ),
        (
            lambda obs, info: info["cam_params"]["CAM_FRONT"]["intrinsic"].update(fovx=65.1),
            r"fovx: must be between 0 and pi, got 65\.1",
        ),
        (lambda obs, info: info["cam_params"]["CAM_FRONT"].update(v2c=np.ones((4, 4))), "no rigid motion"),
        (
            lambda obs, info: info["cam_params"]["CAM_FRONT"].update(v2c=np.diag([-1.0, 1.0, 1.0, 1.0])),
            "no rigid motion",
        ),
        (lambda obs, info: obs["rgb"].update(CAM_FRONT=np.zeros((4, 4), np.uint8)), r"uint8 \(H, W, 3\)"),
        (lambda obs, info: obs["rgb"].update(CAM_FRONT=np.zeros((0, 4, 3), np.uint8)), r"uint8 \(H, W, 3\)"),
        (lambda obs, info: obs["rgb"].update(CAM_FRONT=np.zeros((4, 4, 3))), r"uint8 \(H, W, 3\)"),
        (lambda obs, info: obs.pop("rgb"), r"obs\.rgb, info\.cam_params"),
    ],
)
def test_what_is_missing_or_wrong_is_named(observation, harm, said):
    obs, info = observation()
    harm(obs, info)
    with pytest.raises(FrameError, match=said):
        frame_of(obs, info, "s", FAITHFUL)


@pytest.mark.parametrize(
    ("given", "controller"),
    [
        ("first_release", "first_release"),
        ("main", "main"),
        ("pr57", "pr57"),
        ("resampled", "resampled"),
        (None, "first_release"),
        (None, "main"),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 2e-3])
def test_who_means_to_stand_stands_and_turns_no_wheel(given, controller, noise):
    """In every version of the controller, from driving and from rest, for as long as it takes."""
    plan = np.random.default_rng(0).normal(0.0, noise, (8, 3))
    answer = answer_of(plan, replace(FAITHFUL, controller=given))
    assert np.abs(answer - np.stack([-plan[:, 1], plan[:, 0]], axis=1)).max() < 0.02
    for start in (0.0, 3.0):
        speed, steering = start, 0.0
        for _ in range(40):
            acceleration, rate = command_of(answer, speed, steering, controller).inputs[0]
            speed, steering = speed + 0.25 * acceleration, steering + 0.25 * rate
            assert abs(steering) < 1e-3, (controller, start)
        assert abs(speed) < 0.05


def test_the_controller_is_the_given_one_or_the_one_that_is_told():
    assert FAITHFUL.told_by({"controller": "pr57"}).controller == "pr57"
    assert replace(FAITHFUL, controller="main").told_by({"controller": "pr57"}).controller == "main"
    for odd in ({}, {"controller": "mine"}, {"controller": np.zeros(3)}, None):
        assert FAITHFUL.told_by(odd).controller is None


def test_a_standing_plan_has_no_direction_of_its_own():
    """Millimetres of noise turn no wheel where the controller reads directions as they are; none fails."""
    noise = np.random.default_rng(0).normal(0.0, 2e-3, (8, 3))
    straight = arc(4.0, 0.0)
    braking = straight.copy()
    braking[3:, :2] = straight[3, :2] + noise[3:, :2]
    for plan in (noise, np.zeros((8, 3)), braking):
        for controller in ("first_release", "main", "pr57", "resampled"):
            answer = answer_of(plan, replace(FAITHFUL, controller=controller))
            assert np.abs(answer - np.stack([-plan[:, 1], plan[:, 0]], axis=1)).max() < 0.05
            _, rate = command_of(answer, 1.0, 0.0, controller).inputs[0]
            if controller in ("pr57", "resampled"):
                assert abs(rate) < 0.01, (controller, plan)
    moving = arc(3.0, 0.2)
    assert np.array_equal(answer_of(moving, FAITHFUL), np.stack([-moving[:, 1], moving[:, 0]], axis=1))


@pytest.mark.parametrize("controller", ["first_release", "pr57"])
@pytest.mark.parametrize("source", [STRAIGHT_ON, CACHED_PLAN])
def test_what_is_not_the_planners_is_steadied_as_released_too(source, controller):
    """Straight on of an ego that stands is all zeros, which the first release cannot track."""
    standing, moving = np.zeros((8, 3)), arc(3.0, 0.2)
    conventions = replace(RELEASED, controller=controller)
    for answer in (
        answer_of(standing, conventions, source),
        garage_answer(standing, 0.0, 0.25, conventions, source)["plan"],
    ):
        assert answer.dtype == np.float32 and np.abs(answer).max() < 0.05
        assert np.abs(command_of(answer, 0.0, 0.0, controller).inputs[0]).max() < 0.01
    assert not answer_of(standing, RELEASED).any()
    assert np.array_equal(answer_of(moving, RELEASED, source), answer_of(moving, RELEASED))


@pytest.mark.parametrize("conventions", [FAITHFUL, RELEASED])
def test_the_self_test_passes_in_the_official_controller(conventions):
    self_test(conventions)


def test_the_garage_variant_moves_the_ego_along_the_plan():
    plan = arc(6.0, 0.2)
    answer = garage_answer(plan, 5.0, 0.25, FAITHFUL)
    assert np.array_equal(answer["plan"], answer_of(plan, FAITHFUL))
    forward, left, turn = answer["pose_delta"]
    assert forward == pytest.approx(1.5, abs=0.01) and left > 0 and turn == pytest.approx(0.05)
    assert answer["velo"] == pytest.approx(6.0, abs=0.02)
    assert answer["acc"] == pytest.approx(4.0, abs=0.1)
    # Steering is positive to the right, and turns the ego as fast as the plan does.
    assert answer["velo"] * np.tan(-answer["steer"]) / 2.7 == pytest.approx(0.2, abs=1e-3)
    assert garage_answer(np.zeros((8, 3)), 0.0, 0.25, FAITHFUL)["steer"] == 0.0
    assert step_of({"dt": 0.1}) == 0.1 and step_of({}) == 0.25
    with pytest.raises(DriverError, match="dt"):
        garage_answer(plan, 5.0, 2.0, FAITHFUL)
