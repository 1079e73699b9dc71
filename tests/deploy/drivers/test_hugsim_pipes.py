"""An episode over the pipes, with simulators that keep to the protocol and some that do not."""

import itertools
import json
import os
import pickle
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.deploy.drivers import hugsim
from beyonddrive.deploy.drivers.engines import DriverError
from beyonddrive.deploy.drivers.hugsim import HugsimConventions, answer_of, garage_answer
from beyonddrive.deploy.drivers.hugsim_pipes import PipeSettings, drive_pipes
from beyonddrive.deploy.drivers.self_test import arc
from beyonddrive.evaluation.closed_loop.hugsim.messages import DONE
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import command_of

QUICK = PipeSettings(first_wait=10.0, wait=10.0)


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """The tracker of the self-test is compiled first: on a fresh machine that takes longer than any limit."""
    hugsim.self_test(HugsimConventions())


class Simulator:
    """The released simulator's side, as its loop does it: blocking files and plain pickles."""

    def __init__(self, folder):
        self.folder, self.answers = folder, []
        for name in ("obs_pipe", "plan_pipe"):
            if not (folder / name).exists():
                os.mkfifo(folder / name)

    def tell(self, content):
        with (self.folder / "obs_pipe").open("wb") as pipe:
            pipe.write(content if isinstance(content, bytes) else pickle.dumps(content))

    def hear(self):
        with (self.folder / "plan_pipe").open("rb") as pipe:
            self.answers.append(pickle.loads(pipe.read()))
        return self.answers[-1]

    def ask(self, content):
        self.tell(content)
        return self.hear()


@pytest.fixture
def episode(tmp_path, driver):
    """Run a simulator's script beside the driver, and return its answers and the driver's report."""

    def run(script, settings=QUICK):
        simulator = Simulator(tmp_path)
        failed = []

        def work():
            try:
                script(simulator)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        report = drive_pipes(tmp_path, driver, settings, {"planner": "Told"})
        thread.join(10)
        assert not failed, failed
        return simulator.answers, report

    return run


def test_an_episode_is_driven_to_its_end(episode, observation, told, tmp_path):
    def script(simulator):
        for step in range(3):
            simulator.ask(observation(step))
        simulator.tell(DONE)

    answers, report = episode(script)
    wanted = answer_of(told.answer, HugsimConventions())
    assert len(answers) == 3 and all(np.array_equal(answer, wanted) for answer in answers)
    assert report.headline() == "3 plans in 1 session(s)" and not report.trouble
    kept = json.loads((tmp_path / "driver.json").read_text())
    assert kept["fallbacks"] == 0 and kept["planner"] == "Told" and kept["plans"] == 3
    assert kept["sessions"][tmp_path.name]["ended"] == "done"
    lines = [json.loads(line) for line in (tmp_path / "driver_log.jsonl").read_text().splitlines()]
    assert [line["time"] for line in lines] == [0.0, 0.25, 0.5] and lines[0]["source"] == "planner"


def test_what_cannot_be_read_gets_a_plan_and_the_episode_goes_on(episode, observation, tmp_path):
    """Half a message, code, another kind of message, NaN, a camera without parameters."""
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    obs, info = observation(2)
    del info["cam_params"]["CAM_FRONT"]
    bad = [
        pickle.dumps(observation(1))[:-100],
        b"",
        (Evil(), {}),
        [1, 2, 3],
        observation(1, ego_velo=float("nan")),
        (obs, info),
    ]

    def script(simulator):
        simulator.ask(observation(0))
        for message in bad:
            simulator.ask(message)
        simulator.ask(observation(3))
        simulator.tell(DONE)

    answers, report = episode(script)
    assert not mark.exists()
    assert all(answer.shape == (8, 2) and np.isfinite(answer).all() for answer in answers)
    counts = report.sessions[tmp_path.name].counts
    assert counts == {"inference": 2, "bad_message": 3, "bad_frame": 3, "cached_plan": 6}
    assert report.headline().startswith("FALLBACKS: 6 of 8 plans in 1 session(s) are not the planner's")
    assert json.loads((tmp_path / "driver.json").read_text())["fallbacks"] == 6


def test_the_plan_is_driven_on_while_nothing_can_be_read(episode, observation, told):
    """The ego is taken to be where its plan has it, a step of 0.25 s later each time; then straight on."""
    told.answer = arc(6.0, 0.3)

    def script(simulator):
        simulator.ask(observation(0))
        for _ in range(8):
            simulator.ask(b"")
        simulator.tell(DONE)

    answers, report = episode(script)
    (counts,) = (session.counts for session in report.sessions.values())
    assert counts == {"inference": 1, "bad_message": 8, "cached_plan": 6, "straight_on": 2}
    # A car on a circle has the same circle ahead of it, up to the end of what was planned.
    for number in (2, 4, 6):
        assert np.allclose(answers[number][:5], answers[0][:5], atol=1e-6), number
    assert np.allclose(answers[1][:5], answers[0][:5], atol=0.05)
    assert np.allclose(answers[7], np.column_stack([np.zeros(8), 2.0 * np.arange(1, 9)]))


@pytest.mark.parametrize("lost", ["timestamp", "ego_box", "ego_velo"])
def test_what_can_be_read_of_a_bad_frame_is_used(episode, observation, told, lost):
    """The ego is a metre aside of its plan: the plan leads back, unless nobody knows where the ego is."""

    def script(simulator):
        simulator.ask(observation(0))
        info = {"timestamp": 0.25, "ego_box": [1.0, 1.0, 0.0, 1.6, 3.0, 1.5, 0.0], "ego_velo": 4.0}
        simulator.ask(observation(1, **{**info, lost: float("nan")}))
        simulator.tell(DONE)

    told.answer = arc(4.0, 0.0)
    answers, report = episode(script)
    (counts,) = (session.counts for session in report.sessions.values())
    assert counts == {"inference": 1, "bad_frame": 1, "cached_plan": 1}
    assert np.allclose(answers[1][:, 0], 0.0 if lost == "ego_box" else 1.0)


@pytest.mark.parametrize(
    "harm",
    [
        lambda info: info["cam_params"]["CAM_FRONT"]["intrinsic"].update(W=float("inf")),
        lambda info: info["cam_params"]["CAM_FRONT"]["intrinsic"].update(H=float("nan")),
        lambda info: info["cam_params"]["CAM_FRONT"]["intrinsic"].update(cx=10**400),
        lambda info: info["cam_params"].update(CAM_FRONT=np.zeros(3)),
        lambda info: info["cam_params"]["CAM_FRONT"].update(intrinsic=np.zeros(3)),
        lambda info: info["cam_params"]["CAM_FRONT"].update(v2c=10**400),
        lambda info: info.update(ego_velo=10**5000),
        lambda info: info.update(ego_velo=1e308),
        lambda info: info.update(timestamp=[10**400]),
    ],
    ids=["inf", "nan", "huge", "array", "array of lens", "huge pose", "huge speed", "fast", "huge time"],
)
def test_no_number_of_a_simulator_ends_an_episode(episode, observation, harm):
    obs, info = observation(1, dt=0.25)
    harm(info)

    def script(simulator):
        simulator.ask(observation(0, dt=0.25))
        simulator.ask((obs, info))
        simulator.tell(DONE)

    answers, report = episode(script, replace(QUICK, variant="garage", follow_plan=True))
    (session,) = report.sessions.values()
    assert session.counts["inference"] == 1 and session.counts["bad_frame"] == 1 and session.fallbacks == 1
    sent = answers[1]["plan"] if isinstance(answers[1], dict) else answers[1]
    assert np.isfinite(sent).all() and np.abs(sent).max() < 20
    assert len(session.reasons["bad_frame"]) < 310


def test_a_driver_that_is_ended_leaves_what_it_has_driven(episode, observation, told, tmp_path):
    def script(simulator):
        simulator.ask(observation(0))
        simulator.tell(observation(1))

    def stopped(packed):
        if len(told.given) == 2:
            raise SystemExit(143)
        return arc(4.0, 0.0)

    told.answer = stopped
    with pytest.raises(SystemExit):
        episode(script)
    kept = json.loads((tmp_path / "driver.json").read_text())
    assert kept["plans"] == 1 and kept["sessions"][tmp_path.name]["ended"] == "the driver ended"


def test_a_planner_that_raises_drives_on_with_what_it_had(episode, observation, told):
    def script(simulator):
        simulator.ask(observation(0))
        told.answer = RuntimeError("gone")
        simulator.ask(observation(1))
        simulator.tell(DONE)

    answers, report = episode(script)
    (counts,) = (session.counts for session in report.sessions.values())
    assert counts == {"inference": 1, "planner_error": 1, "cached_plan": 1}
    assert np.abs(answers[1]).max() > 10


def test_a_driver_that_gives_up_says_none_to_the_garage_and_stands_in_the_release(
    episode, observation, told, tmp_path
):
    def script(simulator):
        told.answer = RuntimeError("gone")
        for step in range(2):
            simulator.ask(observation(step))
        simulator.tell(DONE)

    answers, report = episode(script, replace(QUICK, variant="garage", give_up=2))
    assert answers[1] is None and list(report.ended.values()) == ["gave up"]
    assert report.sessions.popitem()[1].counts["gave_up"] == 1
    answers, _ = episode(script, replace(QUICK, give_up=2))
    assert answers[1].shape == (8, 2) and np.abs(answers[1]).max() < 0.01
    # (the log has what was sent)
    lines = list(map(json.loads, (tmp_path / "driver_log.jsonl").read_text().splitlines()))
    assert [bool(np.any(line["plan"])) for line in lines] == [True, False]
    answers, _ = episode(script, replace(QUICK, give_up=2, conventions=HugsimConventions.released()))
    assert np.abs(answers[1]).max() < 0.01
    for controller in ("first_release", "main"):
        assert np.abs(command_of(answers[1], 0.0, 0.0, controller).inputs[0]).max() < 0.01


def test_fallbacks_of_an_ego_that_stands_can_be_tracked_as_released(episode, observation, told):
    def script(simulator):
        told.answer = RuntimeError("gone")
        simulator.ask(observation(0, ego_velo=0.0))
        simulator.tell(DONE)

    (answer,), report = episode(script, replace(QUICK, conventions=HugsimConventions.released()))
    assert report.sessions.popitem()[1].fallbacks == 1
    command_of(answer, 0.0, 0.0, "first_release")


def test_a_message_that_cannot_be_read_is_answered_for_the_controller_that_was_told(
    episode, observation, told
):
    """The other's way of standing would turn the wheels."""

    def script(simulator):
        told.answer = np.zeros((8, 3))
        simulator.ask(observation(0, ego_velo=0.0, controller="pr57"))
        simulator.ask(b"half a message")
        simulator.tell(DONE)

    answers, report = episode(script)
    assert report.sessions.popitem()[1].counts == {"inference": 1, "bad_message": 1, "cached_plan": 1}
    assert not answers[0].any() and not answers[1].any()


def test_the_garage_is_told_how_the_ego_moves(episode, observation):
    def script(simulator):
        simulator.ask(observation(0, dt=0.1))
        simulator.ask(observation(1, dt=float("nan")))
        simulator.tell(DONE)

    answers, report = episode(script, replace(QUICK, variant="garage", follow_plan=True))
    assert answers[0]["pose_delta"][0] == pytest.approx(0.4, abs=0.01) and answers[0]["plan"].shape == (8, 2)
    assert answers[1].shape == (8, 2)
    assert report.sessions.popitem()[1].counts["tracker_instead"] == 1
    with pytest.raises(DriverError, match="only the garage"):
        PipeSettings(follow_plan=True)


def test_an_answer_that_means_another_thing_does_not_start(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(hugsim, "answer_of", lambda *args: answer_of(*args) * [-1.0, 1.0])
    with pytest.raises(DriverError, match="self-test"):
        drive_pipes(tmp_path / "out", driver, replace(QUICK, first_wait=0.2))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "harm",
    [
        lambda told: told["pose_delta"].__setitem__(1, -told["pose_delta"][1]),
        lambda told: told["pose_delta"].__setitem__(2, -told["pose_delta"][2]),
        lambda told: told.update(steer=-told["steer"]),
        lambda told: told.update(acc=-told["acc"]),
    ],
    ids=["place", "turn", "steering", "acceleration"],
)
def test_nor_does_one_that_moves_the_ego_elsewhere(driver, tmp_path, monkeypatch, harm):
    """Without the ego's own motion it matters to nobody."""

    def wrong(*args):
        told = garage_answer(*args)
        harm(told)
        return told

    monkeypatch.setattr(hugsim, "garage_answer", wrong)
    settings = replace(QUICK, variant="garage", first_wait=0.2)
    with pytest.raises(DriverError, match="self-test"):
        drive_pipes(tmp_path / "out", driver, replace(settings, follow_plan=True))
    assert "has sent nothing" in drive_pipes(tmp_path, driver, settings).trouble


@pytest.mark.parametrize("asked", [False, True], ids=["no frame yet", "no reader of the plan"])
def test_a_driver_ends_with_the_process_that_has_started_it(episode, observation, monkeypatch, told, asked):
    """Its parent is another from the second time on that it asks, or from its first plan on."""
    asks = itertools.count()
    monkeypatch.setattr(os, "getppid", lambda: 1 if (told.given if asked else next(asks)) else 1000)

    def script(simulator):
        if asked:
            simulator.tell(observation(0))

    _, report = episode(script)
    assert "the other side has ended" in report.trouble


def test_a_simulator_that_goes_away_leaves_the_record(episode, observation, tmp_path):
    def script(simulator):
        simulator.ask(observation(0))
        simulator.ask(observation(1))

    started = time.monotonic()
    # (within this the simulator has to send its second frame, too)
    answers, report = episode(script, replace(QUICK, wait=1.0))
    assert time.monotonic() - started < 5 and len(answers) == 2
    assert "has sent nothing for 1 s" in report.trouble
    kept = json.loads((tmp_path / "driver.json").read_text())
    assert kept["plans"] == 2 and kept["trouble"] == report.trouble
    assert "ended early" in report.headline()


def test_a_simulator_that_never_reads_the_plan(episode, observation, tmp_path):
    _, report = episode(lambda simulator: simulator.tell(observation(0)), replace(QUICK, wait=0.2))
    assert "nobody has come to read" in report.trouble
    assert json.loads((tmp_path / "driver.json").read_text())["plans"] == 1
