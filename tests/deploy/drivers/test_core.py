"""Every frame gets a plan, whatever it holds and the planner does; plans that are not the planner's count."""

import re
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from beyonddrive.apis import load_config
from beyonddrive.datasets.transforms.base import BaseTransform
from beyonddrive.datasets.transforms.camera import LoadCameraStitch
from beyonddrive.datasets.transforms.lidar import LoadLidarHistogram
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.points import LoadPoints
from beyonddrive.datasets.transforms.strip_rig import synth_rig
from beyonddrive.datasets.transforms.targets import AgentTargets, EgoStatus
from beyonddrive.deploy.drivers import DriverError, DriverSettings, FrameInputs, ModuleEngine, PlannerDriver
from beyonddrive.deploy.drivers.self_test import Motion, arc, check_convention, made_up_frame, warm_up
from beyonddrive.registry import MODELS
from beyonddrive.structures.frame import CACHED_PLAN, PLANNER, STRAIGHT_ON, CameraView, Command
from beyonddrive.structures.lenses import Pinhole


def test_the_planner_is_given_the_status_and_its_plan_comes_back(driver, told, frame):
    driver.reset("s", 7)
    plan = driver.plan(frame(command=Command.RIGHT, acceleration=np.array([0.5, -0.25])))
    assert plan.source == PLANNER and plan.reason == ""
    assert (plan.poses == told.answer).all()
    status = told.given[0]["inputs"]["status"]
    assert status.tolist() == [0, 0, 1, 0, 4.0, 0, 0.5, -0.25] and status.dtype == torch.float32
    assert driver.close("s").to_dict() == {"fallbacks": 0, "counts": {"inference": 1}, "reasons": {}}


def _nan(poses):
    poses = poses.copy()
    poses[3, 1] = np.nan
    return poses


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (RuntimeError("out of memory"), "planner_error", "RuntimeError: out of memory"),
        (_nan(arc(4.0, 0.1)), "bad_plan", "NaN"),
        (np.zeros((7, 3)), "bad_plan", r"shape \(N, 8, 3\)"),
        (100 * arc(4.0, 0.0), "bad_plan", "400 m/s"),
        (None, "bad_plan", "numbers"),
    ],
)
def test_a_planner_that_fails_is_replaced_by_its_last_plan_then_by_going_straight(
    driver, told, frame, answer, kind, said
):
    driver.reset("s")
    good = driver.plan(frame(time=0.0)).poses
    told.answer = (lambda _: None) if answer is None else answer
    later = driver.plan(frame(time=0.5, pose=good[0]))
    assert later.source == CACHED_PLAN
    # The ego is where the plan has it, so what is left of the plan lies ahead as it was made.
    assert np.allclose(later.poses[:7], arc(4.0, 0.1)[:7], atol=1e-6)
    assert driver.plan(frame(time=2.0, pose=good[3])).source == STRAIGHT_ON
    lost = driver.plan(frame(time=0.75, pose=np.array([50.0, 0.0, 0.0])))
    assert lost.source == STRAIGHT_ON and lost.poses[-1].tolist() == [16.0, 0.0, 0.0]
    report = driver.close("s")
    assert report.counts == {"inference": 1, kind: 3, CACHED_PLAN: 1, STRAIGHT_ON: 2}
    assert report.fallbacks == 3
    assert re.search(said, report.reasons[kind])


@pytest.mark.parametrize(
    "broken",
    [
        {"velocity": np.array([np.nan, 0.0])},
        {"acceleration": np.array([np.inf, 0.0])},
        {"pose": np.array([np.nan, 0.0, 0.0])},
        {"pose": "somewhere"},
        {"time": float("nan")},
        {"velocity": np.zeros(3)},
        {"cameras": {"CAM_F0": CameraView(np.zeros((0, 4, 3), np.uint8), None, np.eye(3), np.zeros(3))}},
        {"cameras": {"CAM_F0": CameraView(None, None, np.eye(3), np.zeros(3))}},
        {"lidar": np.zeros((6, 3))},
    ],
    ids=["velocity", "acceleration", "pose", "text", "time", "shape", "empty image", "no image", "sweep"],
)
def test_a_frame_that_cannot_be_never_reaches_the_planner(driver, told, frame, broken):
    driver.reset("s")
    driver.plan(frame(time=0.0))
    plan = driver.plan(replace(frame(time=0.25), **broken))
    assert plan.source in (CACHED_PLAN, STRAIGHT_ON) and np.isfinite(plan.poses).all()
    assert len(told.given) == 1 and driver.report("s").counts["bad_frame"] == 1
    assert driver.plan(frame(time=0.5)).source == PLANNER


def test_missing_and_black_cameras_are_counted_by_name(told, frame):
    inputs = FrameInputs([LoadCameraStitch((16, 64))], [PackPlanInputs()], synth_rig())
    driver = PlannerDriver(told, inputs)
    driver.reset("s")
    whole = made_up_frame(inputs.rig).cameras
    assert driver.plan(frame(cameras=whole)).source == PLANNER
    without = {name: view for name, view in whole.items() if name != "CAM_R0"}
    assert driver.plan(frame(time=0.1, cameras=without)).source == CACHED_PLAN
    black = {**whole, "CAM_L0": replace(whole["CAM_L0"], image=np.zeros_like(whole["CAM_L0"].image))}
    assert driver.plan(frame(time=0.2, cameras=black)).source == CACHED_PLAN
    counts = driver.close("s").counts
    assert (counts["camera_missing"], counts["camera_black"], counts["inference"]) == (1, 1, 1)
    behind = np.diag([-1.0, 1.0, -1.0])
    away = {name: replace(view, rotation=view.rotation @ behind) for name, view in whole.items()}
    driver.reset("t")
    assert "looks elsewhere" in driver.plan(frame("t", cameras=away)).reason


def test_a_transform_that_knows_no_frames_says_so(told, frame):
    class Own(BaseTransform):
        def transform(self, results):
            return results

    driver = PlannerDriver(told, FrameInputs([Own()], [], synth_rig()))
    driver.reset("s")
    assert "Own: does not say how" in driver.plan(frame()).reason
    with pytest.raises(DriverError, match="Own: does not say how"):
        warm_up(driver)


def test_targets_are_not_asked_for(told, frame):
    inputs = FrameInputs([EgoStatus(), AgentTargets()], [PackPlanInputs()], synth_rig())
    assert [type(step) for step in inputs.features] == [EgoStatus]


def test_points_come_from_the_frame_or_are_absent(told, frame):
    features = [LoadLidarHistogram(extent=4.0, size=4, max_count=1), LoadPoints(seed=1)]
    driver = PlannerDriver(told, FrameInputs(features, [PackPlanInputs()], synth_rig()))
    driver.reset("s")
    sweep = np.array([[2.5, -0.5, 1.0, 51.0], [99.0, 0.0, 1.0, 0.0]], np.float32).T
    driver.plan(frame(lidar=sweep))
    driver.plan(frame(time=0.1))
    seen, none = (packed["inputs"] for packed in told.given)
    assert seen["lidar"][0, 3, 1] == 1 and seen["lidar"].sum() == 1
    assert seen["points"].tolist() == [[2.5, -0.5, 1.0, pytest.approx(0.2)]]
    assert none["lidar"].sum() == 0 and none["points"].shape == (0, 4)
    assert not driver.wants_lidar
    told.required_inputs = ("points", "status")
    assert driver.wants_lidar


def test_history_is_half_a_second_apart_at_any_rate(told, frame):
    class Earlier(BaseTransform):
        num_history_frames = 3

        def transform(self, results):
            return results

        def observe(self, frame, results):
            return {**results, "inputs": {}, "times": [earlier.time for earlier in frame.history]}

    driver = PlannerDriver(told, FrameInputs([Earlier()], [], synth_rig()))
    for rate in (4, 10):
        driver.reset("s")
        told.given.clear()
        for step in range(3 * rate):
            driver.plan(frame(time=step / rate))
        assert told.given[0]["times"] == [0.0] * 3
        last = (3 * rate - 1) / rate
        assert np.allclose(told.given[-1]["times"], [last - 1.5, last - 1.0, last - 0.5])


def test_a_session_that_was_not_begun_is_an_error(driver, frame):
    with pytest.raises(DriverError, match="was not begun"):
        driver.plan(frame())
    driver.reset("s")
    driver.close("s")
    with pytest.raises(DriverError, match="was not begun"):
        driver.plan(frame())


def test_noise_belongs_to_the_session_its_seed_and_the_step(told, frame):
    """Whatever runs beside it, a session's planner is given the same tokens."""

    def tokens(driver, names):
        told.given.clear()
        threads = [threading.Thread(target=_drive, args=(driver, frame, name)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(
            (packed["data_samples"].metainfo["log_name"], packed["data_samples"].metainfo["token"])
            for packed in told.given
        )

    inputs = FrameInputs([EgoStatus()], [PackPlanInputs()], synth_rig())
    alone = tokens(PlannerDriver(told, inputs), ["a"])
    assert alone == [("a", "1/0"), ("a", "1/1"), ("a", "1/2")]
    beside = tokens(PlannerDriver(told, inputs), ["a", "bb", "ccc"])
    assert [pair for pair in beside if pair[0] == "a"] == alone
    assert {token[0] for _, token in beside} == {"1", "2", "3"}
    paired = tokens(PlannerDriver(told, inputs, DriverSettings(seed=9)), ["a", "bb"])
    assert {token for _, token in paired} == {"9/0", "9/1", "9/2"}


def _drive(driver, frame, name):
    driver.reset(name, len(name))
    for step in range(3):
        driver.plan(frame(name, 0.1 * step))


def test_a_planner_that_samples_gives_a_session_the_same_plans(frame):
    config = load_config("flow_policy_tiny_1xb16-12e_synth")
    torch.manual_seed(0)
    planner = MODELS.build(config.model).eval()
    inputs = FrameInputs.from_config(config)
    assert inputs.rig.name == "synth"
    plans = []
    for seed in (1, 1, 2):
        driver = PlannerDriver(ModuleEngine(planner), inputs)
        driver.reset("s", seed)
        made = [driver.plan(replace(made_up_frame(inputs.rig, "s"), time=0.5 * step)) for step in range(2)]
        assert [plan.source for plan in made] == [PLANNER] * 2, made
        plans.append([plan.poses for plan in made])
    assert np.array_equal(plans[0], plans[1])
    assert not np.array_equal(plans[0], plans[2]) and not np.array_equal(*plans[0])


def test_an_oracle_cannot_drive():
    with pytest.raises(DriverError, match="reads the future"):
        ModuleEngine(MODELS.build({"type": "HumanReplay"}))


def test_the_self_test_finds_a_frame_that_is_another():
    def motion(points):
        return Motion(points[-1, 1], points[-1, 0])

    check_convention(lambda poses: poses, motion)
    for wrong in (np.diag([1.0, -1.0, 1.0]), np.diag([-1.0, 1.0, 1.0]), np.zeros((3, 3))):
        with pytest.raises(DriverError, match="self-test"):
            check_convention(lambda poses, wrong=wrong: poses @ wrong, motion)


def test_lenses_project_as_they_say():
    lens = Pinhole(1545.0, 1545.0, 960.0, 560.0, (-0.356123, 0.172545, -0.00213, 0.000464, -0.05231))
    pixels = np.stack(np.meshgrid(np.linspace(20, 1900, 7), np.linspace(20, 1060, 5)), axis=-1)
    assert np.abs(lens.project(lens.rays(pixels)) - pixels).max() < 1e-6
    half = lens.scaled(0.5, 0.5)
    assert np.allclose(half.project(lens.rays(pixels)), pixels / 2)
    assert np.isnan(lens.project(np.array([[0.0, 0.0, -1.0], [5.0, 0.0, 1.0]]))).all()


@pytest.mark.parametrize("step", [0.0, -0.25], ids=["stands still", "goes back"])
def test_time_that_does_not_go_on_fills_no_memory(told, frame, step):
    class Earlier(BaseTransform):
        num_history_frames = 3

        def transform(self, results):
            return results

        def observe(self, frame, results):
            return {**results, "inputs": {}}

    driver = PlannerDriver(told, FrameInputs([Earlier()], [], synth_rig()))
    driver.reset("s")
    for number in range(50):
        assert driver.plan(frame(time=100.0 + step * number)).source == PLANNER
    assert len(driver._sessions["s"].earlier) == 1


@pytest.mark.parametrize(
    ("name", "base", "rig"),
    [
        ("ltf_mine_synth.py", "ltf/ltf_tiny_1xb16-12e_synth.py", "synth"),
        ("config.py", "ltf/ltf_tiny_1xb16-12e_synth.py", "synth"),
        ("config.py", "_base_/datasets/synth_lidar.py", "synth"),
        ("config.py", "ltf/ltf_r34_1xb64-100e_navtrain.py", "navsim"),
        ("mine_navtest.py", "ltf/ltf_tiny_1xb16-12e_synth.py", "navsim"),
    ],
)
def test_the_rig_is_that_of_the_data_that_a_config_or_its_bases_name(tmp_path, name, base, rig):
    (tmp_path / name).write_text(f"_base_ = 'beyonddrive::{base}'\n")
    assert FrameInputs.from_config(load_config(str(tmp_path / name))).rig.name == rig


def test_a_config_that_a_comment_names_says_nothing_of_the_rig(tmp_path):
    base = "beyonddrive::ltf/ltf-delta_r34_8xb4-100e_navtrain.py"
    lines = ["# begun as a copy of", "# ltf_tiny_1xb16-12e_synth.py", f"_base_ = {base!r}", ""]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    assert FrameInputs.from_config(load_config(str(tmp_path / "mine.py"))).rig.name == "navsim"


def test_a_config_that_names_no_data_has_to_be_told_its_rig(tmp_path):
    config = load_config("ltf_tiny_1xb16-12e_synth")
    (tmp_path / "mine.py").write_text(config.dump())
    config = load_config(str(tmp_path / "mine.py"))
    with pytest.raises(DriverError, match=r"mine\.py: neither its name .* by --rig navsim or synth"):
        FrameInputs.from_config(config)
    assert FrameInputs.from_config(config, "synth").rig.name == "synth"
