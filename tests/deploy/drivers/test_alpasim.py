"""The service as AlpaSim's runtime calls it, with its traps and with runtimes that misbehave."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("carla_driver_interface", reason="the extra 'alpasim' is not installed")

import grpc
from carla_driver_interface import protocol as wire
from carla_driver_interface.geometry import Pose, Trajectory, waypoints_to_proto
from carla_driver_interface.inprocess import in_process_channel
from carla_driver_interface.server import serving
from carla_driver_interface.testing import FakeCamera, FakeLoop
from scipy.spatial.transform import Rotation

from beyonddrive.datasets.navsim.image_files import image_size
from beyonddrive.datasets.transforms.camera import LoadCameraStitch
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.strip_rig import CAMERAS, stitch, synth_rig
from beyonddrive.datasets.transforms.targets import EgoStatus
from beyonddrive.deploy.drivers import DriverError, FrameInputs, PlannerDriver, alpasim, alpasim_cameras
from beyonddrive.deploy.drivers.alpasim import AlpasimDriver, AlpasimSettings
from beyonddrive.deploy.drivers.alpasim_cameras import declared_cameras, decoded_image
from beyonddrive.deploy.drivers.frame_inputs import FrameError
from beyonddrive.deploy.drivers.run_report import RunReport
from beyonddrive.deploy.drivers.self_test import arc
from beyonddrive.structures.frame import Command

START = 1_600_000_000_000_000
STEP = 100_000
SIZE = (480, 270)


def camera(name, rotation, size=SIZE, place=(1.6, 0.0, 1.5), fx=None):
    """A declared camera with the lens of the rig."""
    made = wire.AvailableCamera(logical_id=name)
    scale = size[0] / 1920
    lens = made.intrinsics.opencv_pinhole_param
    lens.focal_length_x = lens.focal_length_y = 1545 * scale if fx is None else fx
    lens.principal_point_x, lens.principal_point_y = 960 * scale, 560 * scale
    made.intrinsics.resolution_w, made.intrinsics.resolution_h = size
    pose = Pose.from_rotation(np.array(place), Rotation.from_matrix(rotation))
    made.rig_to_camera.CopyFrom(pose.to_proto())
    return made


def rig_cameras(size=SIZE):
    return [camera(n, r, size) for n, r in zip(CAMERAS, synth_rig().rotations, strict=True)]


def jpeg(seed=0, size=SIZE):
    image = np.random.default_rng(seed).integers(1, 256, (size[1], size[0], 3), dtype=np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


class Runtime:
    """What the runtime does in a session, call by call."""

    def __init__(self, channel, uuid="a", seed=1, cameras=None):
        self.stub, self.uuid = wire.EgodriverServiceStub(channel), uuid
        request = wire.DriveSessionRequest(session_uuid=uuid, random_seed=seed)
        request.rollout_spec.vehicle.available_cameras.extend(rig_cameras() if cameras is None else cameras)
        self.stub.start_session(request)

    def ego(self, poses, velocity=(4.0, 0.0), acceleration=(0.0, 0.0), states=True):
        """Poses (stamp, x, y, yaw), each with the same state."""
        request = wire.RolloutEgoTrajectory(session_uuid=self.uuid)
        for stamp, x, y, yaw in poses:
            pose = Pose.from_xyz_yaw(x, y, 0.3, yaw)
            request.trajectory.poses.append(pose.to_proto_at_time(stamp))
            if states:
                state = wire.DynamicState()
                state.linear_velocity.x, state.linear_velocity.y = velocity
                state.linear_acceleration.x, state.linear_acceleration.y = acceleration
                request.dynamic_states.append(state)
        self.stub.submit_egomotion_observation(request)

    def images(self, end, names=CAMERAS, content=None):
        for index, name in enumerate(names):
            request = wire.RolloutCameraImage(session_uuid=self.uuid)
            image = request.camera_image
            image.logical_id, image.frame_start_us, image.frame_end_us = name, end - 17_000, end
            image.image_bytes = jpeg(index) if content is None else content
            self.stub.submit_image_observation(request)

    def route(self, points):
        request = wire.RouteRequest(session_uuid=self.uuid)
        request.route.waypoints.extend(waypoints_to_proto(np.asarray(points, np.float64).reshape(-1, 3)))
        self.stub.submit_route(request)

    def drive(self, now, step=STEP):
        request = wire.DriveRequest(session_uuid=self.uuid, time_now_us=now, time_query_us=now + step)
        return Trajectory.from_proto(self.stub.drive(request).trajectory)

    def close(self):
        self.stub.close_session(wire.DriveSessionCloseRequest(session_uuid=self.uuid))


@pytest.fixture
def policy(told):
    features = [LoadCameraStitch((16, 64)), EgoStatus()]
    driver = PlannerDriver(told, FrameInputs(features, [PackPlanInputs()], synth_rig()))
    return AlpasimDriver(driver, report=RunReport(None, {}))


@pytest.fixture
def runtime(policy):
    channels = []

    def start(*args, **fields):
        channels.append(in_process_channel(policy, mode="alpasim"))
        return Runtime(channels[0], *args, **fields)

    yield start
    for channel in channels:
        channel.close()


def counts(policy, uuid="a"):
    return policy.driver.report(uuid).counts


def status(told, index=-1):
    return told.given[index]["inputs"]["status"].tolist()


def test_a_plan_lies_ahead_of_the_ego_in_the_local_frame(runtime, policy, told):
    """Anchored now, half a second apart, left is left, with float64 until the wire."""
    told.answer = np.zeros((8, 3)) + [2.5, 0.25, 0.1] * np.arange(1, 9)[:, None]
    session = runtime()
    session.ego([(START, 100.0, -50.0, np.pi / 2)])
    session.images(START)
    plan = session.drive(START)
    assert plan.timestamps_us == [START + 500_000 * k for k in range(9)]
    assert np.allclose(plan.positions[0, :2], [100.0, -50.0])
    assert np.allclose(plan.positions[1, :2] - plan.positions[0, :2], [-0.25, 2.5], atol=1e-5)
    assert np.allclose([pose.yaw for pose in plan.poses], np.pi / 2 + 0.1 * np.arange(9), atol=1e-5)
    assert np.allclose([np.linalg.norm(pose.quat_xyzw) for pose in plan.poses], 1.0)
    assert counts(policy) == {"inference": 1}


@pytest.mark.parametrize(
    ("velocity", "poses", "wanted", "fallback"),
    [
        ((4.0, 0.1), [(-STEP, 0.0, 0.0, 0.0), (0, 0.4, 0.0, 0.0)], (4.0, 0.1), False),
        ((0.0, 0.0), [(-STEP, 0.0, 0.0, 0.0), (0, 0.0, 0.0, 0.0)], (0.0, 0.0), False),
        ((0.0, 0.0), [(-STEP, 0.0, 0.0, 1.57), (0, 0.0, 0.4, 1.57)], (4.0, 0.0), True),
        ((0.0, 4.0), [(-STEP, 0.0, 0.0, np.pi / 2), (0, 0.0, 0.4, np.pi / 2)], (4.0, 0.0), True),
        ((9.0, 0.0), [(-STEP, 0.0, 0.0, 0.0), (0, 0.4, 0.0, 0.0)], (4.0, 0.0), True),
        ((np.nan, 0.0), [(-STEP, 0.0, 0.0, 0.0), (0, 0.4, 0.0, 0.0)], (4.0, 0.0), True),
        ((4.0, 0.0), [(0, 7.0, 3.0, 1.0)], (4.0, 0.0), False),
        ((0.0, 0.0), [(-17_000, 0.0, 0.0, 0.0), (0, 0.068, 0.0, 0.0)], (4.0, 0.0), True),
    ],
    ids=["told", "stands", "zero", "world axes", "too fast", "nan", "first", "17 ms"],
)
def test_what_is_told_of_the_motion_is_believed_unless_the_poses_say_otherwise(
    runtime, policy, told, velocity, poses, wanted, fallback
):
    session = runtime()
    session.ego([(START + stamp, x, y, yaw) for stamp, x, y, yaw in poses], velocity)
    session.images(START)
    session.drive(START)
    assert np.allclose(status(told)[4:6], wanted, atol=0.02)
    assert counts(policy).get("dynamic_state_fallback", 0) == int(fallback)


def test_an_acceleration_comes_from_three_poses(runtime, told):
    session = runtime()
    poses = [(START + k * STEP, 0.0, 0.5 * 2.0 * (0.1 * k) ** 2 + 0.3 * k, np.pi / 2) for k in range(-2, 1)]
    session.ego(poses, states=False)
    session.images(START)
    session.drive(START)
    assert np.allclose(status(told)[4:], [2.9, 0.0, 2.0, 0.0], atol=0.02)


@pytest.mark.parametrize(
    ("points", "command"),
    [
        ([[42.0, 3.0, 0.0], [60.0, 9.0, 0.0], [np.nan] * 3], Command.LEFT),
        ([[np.nan] * 3, [42.0, -3.0, 0.0]], Command.RIGHT),
        ([[1.0, 4.0, 0.0], [42.0, 1.0, 0.0]], Command.STRAIGHT),
        ([[np.nan] * 3] * 4, Command.STRAIGHT),
        ([], Command.UNKNOWN),
    ],
)
def test_the_route_becomes_a_command(runtime, told, points, command):
    session = runtime()
    session.route(points)
    session.ego([(START, 0.0, 0.0, 0.0)])
    session.images(START)
    session.drive(START)
    assert np.argmax(status(told)[:4]) == command


@pytest.mark.parametrize("distance", [0.0, -1.0, float("nan"), float("inf")])
def test_beyond_no_distance_there_is_no_waypoint(distance):
    for name in ("route_distance", "route_threshold"):
        with pytest.raises(DriverError, match=f"--{name.replace('_', '-')}: must be positive and finite"):
            AlpasimSettings(**{name: distance})


def test_the_newest_whole_set_of_images_counts_not_the_last_to_arrive(runtime, policy, told):
    policy.settings = AlpasimSettings(reduce_images=False)
    session = runtime()
    session.ego([(START, 0.0, 0.0, 0.0)])
    session.images(START)
    session.images(START - STEP, content=jpeg(9))
    session.images(START + STEP, content=jpeg(10))
    session.drive(START)
    wanted = stitch(*(decoded_image(jpeg(k)) for k in range(3)), (16, 64))
    assert np.array_equal(told.given[0]["inputs"]["camera"], wanted)
    assert counts(policy) == {"inference": 1}


def test_images_are_decoded_as_fine_as_the_strip_needs_them(runtime, policy, told):
    """A strip of 64 pixels takes images of 480 at a quarter; what is smooth looks the same."""
    smooth = np.linspace(20, 230, SIZE[0])[None, :, None] * np.linspace(0.3, 1, SIZE[1])[:, None, None]
    content = cv2.imencode(".jpg", np.repeat(smooth, 3, axis=2).astype(np.uint8))[1].tobytes()
    assert decoded_image(content, 4).shape == (68, 120, 3)
    for number, reduce_images in enumerate((False, True)):
        policy.settings = AlpasimSettings(reduce_images=reduce_images)
        session = runtime(str(number))
        session.ego([(START, 0.0, 0.0, 0.0)])
        session.images(START, content=content)
        session.drive(START)
    whole, reduced = (given["inputs"]["camera"].int() for given in told.given)
    assert (whole - reduced).abs().float().mean() < 2


def test_cameras_that_are_missing_late_black_or_broken(runtime, policy, told):
    """A rollout goes on by the cached plan, then straight on, and every reason is counted."""
    session = runtime()
    now = START

    def where(stamp):
        return (stamp, 4e-6 * (stamp - START), 0.0, 0.0)

    session.ego([where(now)])
    session.images(now)
    good = session.drive(now)
    black = cv2.imencode(".png", np.zeros((270, 480, 3), np.uint8))[1].tobytes()
    now += STEP
    for content in (None, b"", jpeg()[:900], b"no image", black):
        now += STEP
        session.ego([where(now)])
        session.images(now, CAMERAS[:2] if content is None else CAMERAS, content)
        plan = session.drive(now)
        assert plan.timestamps_us[0] == now and len(plan) == 9
        # (the plan of before, where it was in the world)
        assert np.allclose(plan.positions[5], good.interpolate(now + 2_500_000).position, atol=0.05)
    for _ in range(2):
        now += 8 * STEP
        session.ego([where(now)])
        plan = session.drive(now)
    assert np.allclose(plan.positions[-1, 0] - plan.positions[0, 0], 16.0, atol=1e-3)
    found = counts(policy)
    assert found["cached_plan"] == 6 and found["straight_on"] == 1 and found["inference"] == 1
    assert found["camera_missing"] == 3 and found["camera_black"] == 1 and found["bad_frame"] == 3
    session.ego([where(now + STEP)])
    session.images(now + STEP)
    session.drive(now + STEP)
    assert counts(policy)["inference"] == 2


def test_an_image_that_would_fill_the_memory_is_not_decoded(runtime, policy, monkeypatch):
    """As a PNG of zeros does, which has a thousandth of the bytes that it unfolds into."""
    monkeypatch.setattr(alpasim_cameras, "_MOST_PIXELS", 480 * 270)
    contents = [
        cv2.imencode(kind, np.zeros((rows, 480, 3), np.uint8))[1].tobytes()
        for kind in (".png", ".jpg")
        for rows in (270, 271)
    ]
    decoded = []
    monkeypatch.setattr(cv2, "imdecode", lambda *_: decoded.append(None))
    session = runtime()
    for step, content in enumerate(contents):
        now = START + step * STEP
        session.ego([(now, 0.0, 0.0, 0.0)])
        session.images(now, content=content)
        session.drive(now)
    assert len(decoded) == 2 and counts(policy)["bad_frame"] == 4
    with pytest.raises(FrameError, match=r"an image of \d+ bytes has 480 x 271 pixels, 129600 are allowed"):
        decoded_image(contents[-1])


@pytest.mark.parametrize("size", [(1, 1), (33, 7), (640, 480)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (".png", []),
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    ],
    ids=["png", "jpeg", "progressive"],
)
def test_the_size_of_an_image_is_read_from_its_header(size, kind, options):
    content = cv2.imencode(kind, np.zeros((size[1], size[0], 3), np.uint8), options)[1].tobytes()
    assert image_size(content) == size
    assert image_size(content[:12]) == image_size(b"") == image_size(b"GIF89a" + bytes(20)) == (0, 0)


@pytest.mark.parametrize("lost", [(np.nan, 0.0, 0.0), (0.8, np.inf, 0.0)])
def test_a_pose_that_is_none_is_driven_through_from_the_last_that_is_one(runtime, policy, lost):
    """The package lets plans begin at the newest pose it has, so that it must not have that one."""
    session = runtime()
    session.ego([(START, 0.0, 0.0, 0.0)])
    session.images(START)
    good = session.drive(START)
    now = START + 2 * STEP
    session.ego([(START + STEP, 0.4, 0.0, 0.0), (now, *lost)])
    session.images(now)
    plan = session.drive(now)
    assert len(plan) == 9 and plan.timestamps_us[0] == now
    for pose in plan.poses:
        assert np.isfinite([*pose.position, *pose.quat_xyzw]).all()
    assert np.allclose(plan.positions[0], [0.4, 0.0, 0.3], atol=1e-6)
    # (the plan of before, where it was in the world)
    assert np.allclose(plan.positions[5], good.interpolate(now + 2_500_000).position, atol=0.05)
    found = counts(policy)
    assert found["bad_frame"] == 1 and found["cached_plan"] == 1 and found["inference"] == 1
    session.ego([(now + STEP, 1.2, 0.0, 0.0)])
    session.images(now + STEP)
    session.drive(now + STEP)
    assert counts(policy)["inference"] == 2


def test_a_pose_that_is_sent_again_makes_no_other_the_newest(runtime, policy):
    """A runtime sends the pose of the step before again; poses that are known already change nothing."""
    session = runtime()
    session.ego([(START, 0.0, 0.0, 0.0)])
    session.images(START)
    session.drive(START)
    now = START + STEP
    session.ego([(now, np.nan, 0.0, 0.0)])
    session.ego([(START, 0.0, 0.0, 0.0)])
    session.images(now)
    session.drive(now)
    assert counts(policy)["bad_frame"] == 1 and counts(policy)["inference"] == 1
    now += STEP
    session.ego([(now, 0.8, 0.0, 0.0)])
    session.ego([(now - STEP, np.nan, 0.0, 0.0)])
    session.images(now)
    session.drive(now)
    assert counts(policy)["bad_frame"] == 1 and counts(policy)["inference"] == 2


def test_a_session_whose_first_pose_is_none_holds(runtime, policy):
    session = runtime()
    session.ego([(START, np.nan, 0.0, 0.0)])
    session.images(START)
    assert len(session.drive(START)) == 0 and counts(policy)["no_ego"] == 1


def test_no_pose_and_a_stale_pose(runtime, policy):
    session = runtime()
    session.images(START)
    assert len(session.drive(START)) == 0
    session.ego([(START - STEP, 0.0, 0.0, 0.0)])
    plan = session.drive(START)
    assert plan.timestamps_us[0] == START and len(plan) == 9
    assert counts(policy) == {"no_ego": 1, "straight_on": 1, "anchor_stale": 1, "inference": 1}


@pytest.mark.parametrize(("apart", "said"), [(-STEP, "100 ms older"), (2 * STEP, "200 ms newer")])
def test_a_pose_of_another_moment_is_told_by_how_far_it_is_off(runtime, policy, apart, said):
    session = runtime()
    session.images(START)
    session.ego([(START + apart, 0.0, 0.0, 0.0)])
    session.drive(START)
    assert policy.driver.report("a").reasons == {"anchor_stale": f"the newest pose is {said} than the call"}


def test_a_run_says_first_what_plans_were_made_from_that_was_not_as_it_should_be(runtime, policy, caplog):
    """No plan is a fallback: the state is zero, the pose and then the images are of before the call."""
    good, session = runtime("good"), runtime("a")
    for one in (good, session):
        one.ego([(START - STEP, 0.0, 0.0, 0.0), (START, 0.4, 0.0, 0.0)])
        one.images(START)
        one.drive(START)
    good.close()
    assert policy.report.headline() == "1 plans in 1 session(s)"
    late = START + STEP
    session.ego([(late, 0.8, 0.0, 0.0)], (0.0, 0.0))
    session.drive(late)
    session.images(late + 10_000)
    session.drive(late + 10_000)
    with caplog.at_level(logging.WARNING):
        session.close()
    said = "TROUBLES: anchor_stale 1, dynamic_state_fallback 2, images_late 1; 4 plans in 2 session(s)"
    assert policy.report.headline() == f"{said}, all of the planner"
    assert policy.report.to_dict()["fallbacks"] == 0
    assert "session a, closed: 0 fallbacks" in caplog.text and "'images_late': 1" in caplog.text


@pytest.mark.parametrize("answer", [RuntimeError("boom"), np.full((8, 3), np.nan), np.zeros((3, 3)), "text"])
def test_a_planner_that_fails_loses_no_rollout(runtime, policy, told, answer):
    first, other = runtime("a"), runtime("b")
    for session in (first, other):
        session.ego([(START, 0.0, 0.0, 0.0)])
        session.images(START)
    good = told.answer
    told.answer = (lambda _: answer) if isinstance(answer, str) else answer
    plan = first.drive(START)
    assert np.isfinite(plan.positions).all() and np.allclose(plan.positions[-1, 0], 16.0, atol=1e-4)
    told.answer = good
    assert len(other.drive(START)) == 9
    assert counts(policy, "a")["straight_on"] == 1 and counts(policy, "b") == {"inference": 1}


def _refused(act):
    with pytest.raises(grpc.RpcError) as caught:
        act()
    return caught.value.code(), caught.value.details()


def test_sessions_that_cannot_be_driven_are_refused_and_others_go_on(runtime, policy):
    good = runtime("good")
    code, said = _refused(lambda: runtime("good"))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    front = rig_cameras()[1]
    code, said = _refused(lambda: runtime("one camera", cameras=[front]))
    assert code == grpc.StatusCode.FAILED_PRECONDITION and "of what the left camera of rig 'synth'" in said
    dummies = [camera(name, np.eye(3), place=(0.0, 0.0, 0.0)) for name in CAMERAS]
    code, said = _refused(lambda: runtime("dummies", cameras=dummies))
    assert code == grpc.StatusCode.FAILED_PRECONDITION and "placeholder without a mount" in said
    nothing = [camera(name, r, fx=-1.0) for name, r in zip(CAMERAS, synth_rig().rotations, strict=True)]
    assert "positive focal lengths" in _refused(lambda: runtime("lens", cameras=nothing))[1]
    large = [camera(name, r) for name, r in zip(CAMERAS, synth_rig().rotations, strict=True)]
    for made in large:
        made.intrinsics.resolution_w = made.intrinsics.resolution_h = 2**31 - 1
    assert (
        "CAM_F0 declares 2147483647 x 2147483647 pixels" in _refused(lambda: runtime("L", cameras=large))[1]
    )
    turned = [camera(name, r) for name, r in zip(CAMERAS, synth_rig().rotations, strict=True)]
    turned[0].rig_to_camera.quat.x = float("inf")
    assert "CAM_L0 its place in the rig is not finite" in _refused(lambda: runtime("T", cameras=turned))[1]
    ghost = runtime("again")
    ghost.close()
    ghost.close()
    assert _refused(lambda: ghost.drive(START))[0] == grpc.StatusCode.NOT_FOUND
    assert _refused(lambda: good.images(START, ["CAM_X"]))[0] == grpc.StatusCode.INVALID_ARGUMENT
    good.ego([(START, 0.0, 0.0, 0.0)])
    good.images(START)
    assert len(good.drive(START)) == 9 and counts(policy, "good") == {"inference": 1}
    runtime("again").close()


def test_sessions_that_nobody_closes_keep_no_images(runtime, policy, told, monkeypatch, caplog):
    """They are silent for long when another begins; one in use keeps its own, and one that speaks goes on."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, perf_counter=time.perf_counter)
    monkeypatch.setattr(alpasim, "time", clock)
    policy.driver.inputs.num_history_frames = 1
    sessions = {name: runtime(name) for name in ("left", "used", "planning")}
    kept = {name: session.state.frame_history for name, session in policy._sessions.items()}

    def step(name, now=START):
        sessions[name].ego([(now, 0.0, 0.0, 0.0)])
        sessions[name].images(now)
        return sessions[name].drive(now)

    for name in sessions:
        step(name)
    own = told.answer

    def answer(packed):
        if "slow" not in sessions:  # (a plan takes 700 s)
            clock.now = 500.0
            sessions["used"].route([[10.0, 0.0, 0.0]])
            clock.now = 1000.0
            sessions["slow"] = runtime("slow")
        return own

    clock.now, told.answer = 300.0, answer
    step("planning", START + STEP)
    counted = {name: [len(frames) for frames in history.values()] for name, history in kept.items()}
    assert counted == {"left": [0, 0, 0], "used": [1, 1, 1], "planning": [2, 2, 2]}
    assert counts(policy, "left") == {"inference": 1, "images_forgotten": 4}
    assert not any("images_forgotten" in counts(policy, name) for name in ("used", "planning"))
    said = "4 images and frames forgotten: the session was silent for 600 s, and nobody closed it"
    assert f"session left: {said}" in caplog.text
    runtime("another")
    assert len(step("left", START + STEP)) == 9
    assert counts(policy, "left")["inference"] == 2 and counts(policy, "left")["images_forgotten"] == 4
    with pytest.raises(DriverError, match="--forget-after: must be positive and finite, got 0"):
        AlpasimSettings(forget_after=0.0)


def test_another_rig_is_resampled(runtime, policy, told):
    """Wide cameras, declared at one size and sent at another."""
    from beyonddrive.tests.datasets.transforms.test_strip_rig import turn

    names = ("camera_cross_left_120fov", "camera_front_wide_120fov", "camera_cross_right_120fov")
    cameras = [
        camera(name, turn(yaw), (960, 540), fx=300.0) for name, yaw in zip(names, (50, 0, -50), strict=True)
    ]
    tele = camera("camera_front_tele_30fov", turn(0), (960, 540), fx=1800.0)
    session = runtime(cameras=[*cameras, tele])
    session.ego([(START, 0.0, 0.0, 0.0)])
    session.images(START, names, jpeg(3))
    session.drive(START)
    assert counts(policy) == {"inference": 1} and told.given[0]["inputs"]["camera"].shape == (3, 16, 64)


def test_lenses_of_all_kinds_are_read():
    made = [camera(name, np.eye(3)) for name in ("pinhole", "fisheye", "f-theta", "inverse", "shield")]
    fisheye = made[1].intrinsics.opencv_fisheye_param
    fisheye.focal_length_x = fisheye.focal_length_y = 500.0
    fisheye.radial_coeffs.extend([-0.02, 0.001, 0.0, 0.0])
    theta = made[2].intrinsics.ftheta_param
    theta.angle_to_pixeldist_poly.extend([0.0, 480.0, 0.0, -20.0])
    theta.max_angle = 1.2
    inverse = made[3].intrinsics.ftheta_param
    angles = np.linspace(0.0, 1.2, 500)
    radii = 480 * angles - 20 * angles**3
    inverse.pixeldist_to_angle_poly.extend(np.polynomial.Polynomial.fit(radii, angles, 7).convert().coef)
    inverse.max_angle = 1.2
    made[4].intrinsics.bivariate_windshield_model_param.horizontal_poly.append(1.0)
    cameras, problems = declared_cameras({one.logical_id: one for one in made})
    assert list(problems) == ["shield"] and len(cameras) == 4
    rays = np.array([[np.sin(angle), 0.0, np.cos(angle)] for angle in (0.2, 0.6, 1.0)])
    at = {name: one.lens.project(rays)[:, 0] for name, one in cameras.items()}
    assert np.allclose(
        at["fisheye"], 500 * np.array([a - 0.02 * a**3 + 0.001 * a**5 for a in (0.2, 0.6, 1.0)])
    )
    assert np.allclose(at["f-theta"], 0.5 + np.array([480 * a - 20 * a**3 for a in (0.2, 0.6, 1.0)]))
    assert np.allclose(at["inverse"], at["f-theta"], atol=0.05)


def test_sessions_at_once_get_what_they_get_alone(policy, told):
    """Over a real channel, in threads: the same noise, and no session's frames in another's."""
    told.answer = lambda packed: arc(4.0 + packed["inputs"]["status"][4].item(), 0.0)

    def play(channel, index):
        session = Runtime(channel, f"s{index}", seed=index)
        plans = []
        for k in range(4):
            now = START + k * STEP
            session.ego([(now, 0.1 * index * k, 0.0, 0.0)], velocity=(float(index), 0.0))
            session.images(now)
            plans.append(session.drive(now).positions)
        session.close()
        return np.array(plans)

    with (
        serving(policy, 0, "127.0.0.1", mode="alpasim") as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        alone = [play(channel, index) for index in range(1, 5)]
        tokens = sorted(given["data_samples"].metainfo["token"] for given in told.given)
        told.given.clear()
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda index: play(channel, index), range(1, 5)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert sorted(given["data_samples"].metainfo["token"] for given in told.given) == tokens
    assert tokens[:4] == ["1/0", "1/1", "1/2", "1/3"]


def test_the_packages_own_loop_is_driven_to_the_left(policy, told, caplog):
    told.answer = arc(5.0, 0.15)
    cameras = [
        FakeCamera(name, *SIZE, 63.7, yaw_left_deg=yaw)
        for name, yaw in zip(CAMERAS, (55, 0, -55), strict=True)
    ]
    with caplog.at_level(logging.INFO), in_process_channel(policy, mode="alpasim") as channel:
        loop = FakeLoop(channel, cameras, step_s=0.5, initial_speed_mps=5.0)
        with pytest.MonkeyPatch.context() as patch:
            # (its debug message is of CARLA's runtime)
            patch.setattr("carla_driver_interface.testing.unpack_debug_info", lambda payload: None)
            result = loop.run(4, seed=7)
    assert result.lateral_offsets_m[-1] > 0.3 and result.ego.positions[-1, 0] > 6.0
    assert ", closed: 0 fallbacks" in caplog.text and "seed 7" in caplog.text


def test_an_answer_that_means_another_thing_is_not_served(policy, monkeypatch):
    from beyonddrive.deploy.drivers import alpasim

    right = alpasim.trajectory_of
    monkeypatch.setattr(alpasim, "trajectory_of", lambda poses, now: right(poses * [1.0, -1.0, -1.0], now))
    with pytest.raises(DriverError, match="self-test"):
        AlpasimDriver(policy.driver)


def test_a_server_ends_with_a_report(policy, told, tmp_path, monkeypatch):
    from beyonddrive.deploy.drivers import alpasim

    class Stopped(threading.Event):
        def wait(self, timeout=None):
            return True

    monkeypatch.setattr(alpasim.threading, "Event", Stopped)
    monkeypatch.setattr(alpasim.signal, "signal", lambda *_: None)
    assert (
        alpasim.serve(policy.driver, AlpasimSettings(), "127.0.0.1", 0, 2, {"planner": "Told"}, tmp_path) == 0
    )
    kept = json.loads((tmp_path / "driver.json").read_text())
    assert kept["protocol"] == "alpasim" and kept["settings"]["route_distance"] == 5.0
    with pytest.raises(DriverError, match="--bind, --port"):
        alpasim.serve(policy.driver, AlpasimSettings(), "no such host", 0, 2)


def test_a_port_at_which_another_driver_listens_is_refused(policy, monkeypatch):
    """gRPC would share it, so that each of the two would get some of the sessions."""
    from beyonddrive.deploy.drivers import alpasim

    class Stopped(threading.Event):
        def wait(self, timeout=None):
            return True

    monkeypatch.setattr(alpasim, "threading", SimpleNamespace(**{**vars(threading), "Event": Stopped}))
    monkeypatch.setattr(alpasim.signal, "signal", lambda *_: None)
    with serving(policy, 0, "127.0.0.1", 2, mode="alpasim") as port:
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(DriverError, match=f"somebody listens at {host}:{port}, maybe another driver"):
                alpasim.serve(policy.driver, AlpasimSettings(), host, port, 2)
    assert alpasim.serve(policy.driver, AlpasimSettings(), "127.0.0.1", port, 2) == 0


def test_a_server_that_ends_tells_of_sessions_that_nobody_closed(policy, told, tmp_path, monkeypatch, capsys):
    from beyonddrive.deploy.drivers import alpasim

    class Driven(threading.Event):
        """Is waited for as long as a runtime takes that closes one session of two."""

        def wait(self, timeout=None):
            port = capsys.readouterr().out.rsplit(":", 1)[1].strip()
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                for name in ("closed", "open"):
                    session = Runtime(channel, name)
                    session.ego([(START, 0.0, 0.0, 0.0)])
                    session.images(START)
                    session.drive(START)
                    if name == "closed":
                        session.close()
            return True

    # (grpc has events of its own)
    monkeypatch.setattr(alpasim, "threading", SimpleNamespace(**{**vars(threading), "Event": Driven}))
    monkeypatch.setattr(alpasim.signal, "signal", lambda *_: None)
    told.answer = RuntimeError("gone")
    assert alpasim.serve(policy.driver, AlpasimSettings(), "127.0.0.1", 0, 2, None, tmp_path) == 0
    kept = json.loads((tmp_path / "driver.json").read_text())
    assert {name: session["ended"] for name, session in kept["sessions"].items()} == {
        "closed": "closed",
        "open": "the server ended",
    }
    assert kept["fallbacks"] == 2
    assert "FALLBACKS: 2 of 2 plans in 2 session(s)" in capsys.readouterr().out
