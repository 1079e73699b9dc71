"""The live world at HUGSIM's pipes: our driver, and planners that die, say nonsense or nothing."""

import json
import os
import pickle
import select
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from beyonddrive.deploy.drivers.hugsim_pipes import PipeSettings, drive_pipes
from beyonddrive.evaluation.closed_loop.hugsim.pipes import OBSERVATIONS, PLANS, Pipe
from beyonddrive.evaluation.closed_loop.hugsim.run_files import read_record
from beyonddrive.synth.live import batch, episode_files
from beyonddrive.synth.live import serve_pipes as serving
from beyonddrive.synth.live.drive import camera_points
from beyonddrive.synth.live.serve_pipes import serve_pipes
from beyonddrive.synth.live.server import _camera_points, poses_along
from beyonddrive.synth.live.town import LiveError
from beyonddrive.tests.deploy.drivers.conftest import driver, told  # noqa: F401
from beyonddrive.tests.synth.live.conftest import TINY
from beyonddrive.tools import closed_loop
from beyonddrive.visualization import episode_film

AHEAD = np.column_stack([np.zeros(8), 2.0 * np.arange(1, 9)])
SEEN, ABOVE = slice(0, 640), slice(640, 1000)
"""Columns of a film: the front camera, and the scene from above."""
LONG = 300.0
"""Nobody waits so long, unless something is wrong, or the machine has much else to do [s]."""


def jobs_in(live_folder, out, names=("a",), steps=3):
    """One scenario, as often as there are names."""
    settings = replace(TINY, max_steps=steps, pivot="camera", hugsim=TINY.hugsim.changed(resets=2))
    job = batch.jobs_of(live_folder, out, settings, (0,), ("easy",))[0]
    return [replace(job, folder=out / name) for name in names]


def planner_of(answers):
    """A planner at the pipes of a folder that sends one answer after the other, and then ends."""

    def work(folder):
        folder.mkdir(exist_ok=True)
        observations, plans = Pipe(folder / OBSERVATIONS), Pipe(folder / PLANS)
        heard = []
        for answer in answers:
            heard.append(observations.receive(LONG))
            if answer is not None:
                plans.send(answer, LONG)
        try:
            heard.append(observations.receive(LONG))
        finally:
            told_by[folder.name] = [pickle.loads(content) for content in heard if content]

    told_by = {}
    return work, told_by


def test_our_driver_drives_it(live_folder, tmp_path, driver):  # noqa: F811
    jobs = jobs_in(live_folder, tmp_path, ("a", "b"))
    reports = []

    def drive():
        for job in jobs:
            job.folder.mkdir(exist_ok=True)
            reports.append(drive_pipes(job.folder, driver, PipeSettings(first_wait=LONG, wait=LONG)))

    thread = threading.Thread(target=drive, daemon=True)
    thread.start()
    episodes = list(serve_pipes(jobs, LONG))
    thread.join(LONG)
    assert [report.headline() for report in reports] == ["3 plans in 1 session(s)"] * 2
    assert [episode["ends"] for episode in episodes] == [["3 steps"]] * 2
    assert episodes[0]["driver"]["counts"] == {"plans": 3}
    # The same scenario driven the same way is the same episode.
    assert episodes[0]["record"] == episodes[1]["record"]


def test_a_planner_that_fails_ends_its_scenario_and_no_other(live_folder, tmp_path):
    good, lost = pickle.dumps(AHEAD), AHEAD.copy()
    lost[2] = np.nan
    bad = {
        "half": (good[:40], "cannot be read"),
        "empty": (b"", "empty"),
        "none": (pickle.dumps(None), "got None"),
        "text": (pickle.dumps("left"), "got a str"),
        "nan": (pickle.dumps(lost), "NaN"),
        "point": (pickle.dumps(AHEAD[:1]), "N at least 2"),
        "long": (pickle.dumps(np.ones((60_000, 2))), "has 60000 points, 200 are allowed"),
        "endless": (b"x" * ((1 << 20) + 1), "the message is longer than 1048576 bytes"),
        "code": (b"cos\nsystem\n(S'true'\ntR.", "cannot be read"),
    }
    jobs = jobs_in(live_folder, tmp_path, (*bad, "good"))
    told_by = {}

    def plan():
        for name, (answer, _) in bad.items():
            work, heard = planner_of([good, answer])
            work(tmp_path / name)
            told_by.update(heard)
        work, heard = planner_of([good, pickle.dumps({"plan": AHEAD, "velo": 3.0}), good])
        work(tmp_path / "good")
        told_by.update(heard)

    thread = threading.Thread(target=plan, daemon=True)
    thread.start()
    episodes = dict(zip([*bad, "good"], serve_pipes(jobs, LONG), strict=True))
    thread.join(LONG)
    for name, (_, said) in bad.items():
        episode = episodes[name]
        assert episode["ends"] == ["planner_failure"] and episode["steps"] == 1, name
        assert episode["driver"]["counts"] == {"plans": 1, "planner_failure": 1}
        assert said in episode["driver"]["reasons"]["planner_failure"]
        assert len(read_record(tmp_path / name / "data.pkl")) == 1
        assert told_by[name][-1] == "Done"
    assert episodes["good"]["ends"] == ["3 steps"] and told_by["good"][-1] == "Done"
    obs, info = told_by["good"][1]
    assert info["timestamp"] == 0.25 and "rc" in info and len(obs["rgb"]) == 6
    # What is not painted is absent, not made up.
    assert set(obs) == {"rgb"}


def test_a_planner_that_says_nothing_is_given_up(live_folder, tmp_path):
    (episode,) = serve_pipes(jobs_in(live_folder, tmp_path), 0.2)
    assert episode["ends"] == ["planner_failure"] and episode["steps"] == 0
    assert episode["unscored"] and episode["scores"]["hdscore"] == 0.0
    assert "nobody has come to read for 0.2 s" in episode["driver"]["reasons"]["planner_failure"]


def test_a_scenario_that_fails_is_no_episode_and_ends_no_other(live_folder, tmp_path):
    first, second = jobs_in(live_folder, tmp_path, ("a", "b"))
    lost = replace(first, towns=tmp_path / "nowhere")
    failed, episode = serve_pipes([lost, second], 0.2)
    assert isinstance(failed, episode_files.Failed) and "there is no such town" in failed.reason
    assert episode["steps"] == 0
    with pytest.raises(LiveError, match=r"none\.sh: there is no such script"):
        next(serve_pipes([first], 0.2, tmp_path / "none.sh"))


PLANNER = """
import os, pickle, sys
import numpy as np

count = 0
while True:
    with open(sys.argv[2] + "/obs_pipe", "rb") as pipe:
        told = pickle.load(pipe)
    if isinstance(told, str):
        break
    count += 1
    if "easy_01" in sys.argv[2] and count == 2:
        raise SystemExit("it crashed")
    with open(sys.argv[2] + "/plan_pipe", "wb") as pipe:
        pickle.dump(np.column_stack([np.zeros(8), 2.0 * np.arange(1, 9)]), pipe)
print("device", sys.argv[1])
"""


CLEANS_UP = """
import os, pickle, sys

with open(sys.argv[1] + "/obs_pipe", "rb") as pipe:
    pickle.load(pipe)
for name in ("obs_pipe", "plan_pipe"):
    os.remove(sys.argv[1] + "/" + name)
"""


def test_a_planner_that_cleans_up_and_dies_ends_its_scenario_in_order(tmp_path):
    """What it drove counts, although nobody can be told ``Done`` any more."""
    steps = []
    session = SimpleNamespace(observe=lambda: ({}, {}), step=steps.append)
    pipes = Pipe(tmp_path / OBSERVATIONS), Pipe(tmp_path / PLANS)
    process = subprocess.Popen([sys.executable, "-c", CLEANS_UP, str(tmp_path)])
    report = serving._drive(session, pipes, LONG, process)
    assert report.counts == {"planner_failure": 1, "left_early": 1} and steps == [None]
    assert "has removed it" in report.reasons["left_early"]
    assert process.wait() == 0


STAYS = """
import os, pickle, sys, time
import numpy as np

lives = open(sys.argv[2] + "/lives", "wb")
for answer in (np.ones((8, 2)), None):
    with open(sys.argv[2] + "/obs_pipe", "rb") as pipe:
        pickle.load(pipe)
    if answer is not None:
        with open(sys.argv[2] + "/plan_pipe", "wb") as pipe:
            pickle.dump(answer, pipe)
time.sleep(600)
"""


def test_a_planner_that_does_not_end_is_killed_with_all_that_it_started(live_folder, tmp_path, monkeypatch):
    """Its script does not exec, so that the planner is a child of the shell that was started."""
    monkeypatch.setattr(serving, "PATIENCE", 0.2)
    (job,) = jobs_in(live_folder, tmp_path, steps=1)
    job.folder.mkdir()
    os.mkfifo(job.folder / "lives")
    (tmp_path / "planner.py").write_text(STAYS)
    (tmp_path / "run.sh").write_text(f'{sys.executable} {tmp_path}/planner.py "$1" "$2"\necho ended\n')
    handle = os.open(job.folder / "lives", os.O_RDONLY | os.O_NONBLOCK)
    try:
        (episode,) = serve_pipes([job], LONG, tmp_path / "run.sh")
        # It hangs up when the last process that has it open is dead, and says nothing before.
        poll = select.poll()
        poll.register(handle, 0)
        assert poll.poll(20_000)
    finally:
        os.close(handle)
    assert episode["ends"] == ["1 steps"] and episode["driver"]["counts"] == {"plans": 1}
    assert (job.folder / "output.txt").read_text() == ""


def test_what_is_served_is_filmed_if_it_is_wanted(live_folder, tmp_path, monkeypatch):
    """The plans that came, what their frames lost, and that none came after the second planner's death."""
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    hurries = 0.5 * np.arange(1, 9) ** 2.0
    (tmp_path / "planner.py").write_text(
        PLANNER.replace("2.0 * np.arange(1, 9)", "0.5 * np.arange(1, 9) ** 2.0")
    )
    (tmp_path / "run.sh").write_text(f'exec {sys.executable} {tmp_path}/planner.py "$1" "$2"\n')
    draw, drawn = episode_film.draw_step, []

    def noted(row, nuplan_map, lines):
        drawn.append((row, lines))
        picture = draw(row, nuplan_map, lines)
        if row["plan"] is not None:
            without = draw({**row, "plan": None}, nuplan_map, lines)
            # The plan is on the road in both pictures, in the camera's and from above.
            assert all((picture[:, side] != without[:, side]).any() for side in (SEEN, ABOVE))
        return picture

    monkeypatch.setattr(episode_film, "draw_step", noted)
    words = ["serve", "--protocol", "pipes", "--scenarios", str(live_folder)]
    words += ["--difficulty", "easy", "medium", "--video", "easy"]
    words += ["--out", str(tmp_path / "out"), "--planner", str(tmp_path / "run.sh"), "--max-steps", "3"]
    assert closed_loop.main([*words, "--deadline", str(LONG)]) == 1
    first, second, other = sorted((tmp_path / "out" / "seed_0").iterdir())
    for folder, steps in ((first, 3), (second, 2)):
        with Image.open(folder / episode_files.VIDEO) as film:
            assert film.n_frames == steps and film.size == (640 + 360, 360 + 46)
    assert episode_files.read_episode(other) and not (other / episode_files.VIDEO).exists()
    heads, lost = zip(*(lines for _, lines in drawn), strict=True)
    assert ["END" in head for head in heads] == [False, False, True, False, True]
    assert [head.split()[1] for head in heads] == ["0.25", "0.50", "0.75", "0.25", "0.25"]
    assert heads[2].endswith("END: 3 steps") and heads[4].endswith("no plan  END: planner_failure")
    assert "the other side has ended" in lost[4]
    losses = episode_files.read_episode(first)["losses"]
    assert losses and sum(len(text.split("; ")) for text in lost[:3] if text) == sum(losses.values())
    for row, _ in drawn[:4]:
        # (the plan is straight on, and where the camera goes, the rear axle follows)
        assert np.allclose(row["plan"], np.column_stack([hurries, np.zeros((8, 2))]))
    assert drawn[4][0]["plan"] is None


def test_a_video_shows_how_the_rear_axle_goes():
    turns = np.cumsum(np.full(20, 0.1))
    arc = np.column_stack([-np.cumsum(3.0 * np.sin(turns)), np.cumsum(3.0 * np.cos(turns))])
    assert np.allclose(poses_along(arc, "rear_axle"), np.column_stack([arc[:8, 1], -arc[:8, 0], turns[:8]]))
    # What is moved is on the points.
    assert np.allclose(camera_points(poses_along(arc.astype(np.float32), "camera")), arc[:8], atol=1e-5)
    # A turn may lead beyond 90 degrees; who drives back, or stands, is not turned.
    turns = np.cumsum(np.full(8, 0.4))
    arc = np.column_stack([-np.cumsum(3.0 * np.sin(turns)), np.cumsum(3.0 * np.cos(turns))])
    assert np.allclose(poses_along(arc, "rear_axle")[:, 2], turns)
    assert np.allclose(poses_along(-AHEAD, "camera"), np.column_stack([-AHEAD[:, 1], np.zeros((8, 2))]))
    noise = np.column_stack([1e-3 * (-1.0) ** np.arange(8), np.zeros(8)])
    assert not poses_along(noise, "rear_axle")[:, 2].any()
    short = poses_along(AHEAD[:2], "rear_axle")
    assert short[:, 0].tolist() == [2.0] + [4.0] * 7


def test_a_plan_that_comes_to_rest_keeps_its_heading_in_the_record():
    """A step of no length, or of noise, has no direction: the camera must not swing round for it."""
    turned = 6.0 * np.array([-np.sin(np.pi / 3), np.cos(np.pi / 3)])
    noise = np.random.default_rng(0).normal(0.0, 1e-3, (3, 2))
    for rest in (np.zeros((3, 2)), noise):
        points = turned + np.vstack([np.zeros((1, 2)), rest])
        recorded = _camera_points(points)
        assert np.abs(recorded - recorded[0]).max() < 0.01
        assert np.allclose(recorded, camera_points(poses_along(points, "rear_axle"))[:4])
    # Nor for one that drives back, or has not moved at all.
    assert np.allclose(_camera_points(-AHEAD), -AHEAD)
    assert np.allclose(_camera_points(noise), noise)


def test_a_video_that_a_finished_episode_lacks_is_named(live_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    monkeypatch.setattr(serving, "serve_pipes", lambda *_: iter(()))
    monkeypatch.setattr(closed_loop, "_write_figures", lambda *_: None)
    words = ["serve", "--protocol", "pipes", "--scenarios", str(live_folder), "--difficulty", "easy"]
    words += ["--out", str(tmp_path / "out")]
    folders = [job.folder for job in batch.jobs_of(live_folder, tmp_path / "out", TINY, (0,), ("easy",))]
    episode = {"name": "a", "difficulty": "easy", "ends": [], "steps": 1, "scores": {}, "driver": {}}
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / episode_files.EPISODE).write_text(json.dumps(episode))
    (folders[0] / episode_files.VIDEO).touch()
    monkeypatch.setattr(closed_loop, "_claim", lambda *_: None)
    assert closed_loop.main(words) == 0
    assert closed_loop.main([*words, "--video", "hard"]) == 0 and not capsys.readouterr().err
    assert closed_loop.main([*words, "--video"]) == 1
    assert capsys.readouterr().err.count(f"{folders[1]}: no video: it was driven before") == 1


def test_the_verb_starts_a_planner_for_every_scenario(live_folder, tmp_path, monkeypatch, capsys):
    """As HUGSIM does, by a script and a folder; the second planner dies after one plan."""
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planner.py").write_text(PLANNER)
    (tmp_path / "run.sh").write_text(f'exec {sys.executable} {tmp_path}/planner.py "$1" "$2"\n')
    words = ["serve", "--protocol", "pipes", "--scenarios", str(live_folder), "--difficulty", "easy"]
    words += ["--out", "out", "--planner", "run.sh", "--max-steps", "3", "--deadline", str(LONG)]
    assert closed_loop.main(words) == 1
    said = capsys.readouterr().out
    assert "easy_00: 3 steps; nc 1.0" in said and "the other side has ended" in said
    first, second = sorted((tmp_path / "out" / "seed_0").iterdir())
    assert (first / "output.txt").read_text() == "device 0\n"
    assert (second / "output.txt").read_text() == "it crashed\n"
    assert (
        episode_files.read_episode(second)["ends"] == ["planner_failure"]
        and episode_files.read_episode(second)["steps"] == 1
    )
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["scenarios"] == 2
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["pivot"] == "camera" and settings["hugsim"]["resets"] == 2
    assert "HUGSIM's switches: preset pr57\n" in said
    assert said.startswith("obs has rgb; semantic and depth, which HUGSIM has there too, are absent")
    # What is done is not driven again.
    assert closed_loop.main(words) == 0
