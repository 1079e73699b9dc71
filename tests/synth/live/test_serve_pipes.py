"""The live world at HUGSIM's pipes: our driver, and planners that die, say nonsense or nothing."""

import json
import os
import pickle
import select
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.deploy.drivers.hugsim_pipes import PipeSettings, drive_pipes
from beyonddrive.evaluation.closed_loop.hugsim.pipes import OBSERVATIONS, PLANS, Pipe
from beyonddrive.evaluation.closed_loop.hugsim.run_files import read_record
from beyonddrive.synth.live import batch
from beyonddrive.synth.live import serve_pipes as serving
from beyonddrive.synth.live.serve_pipes import serve_pipes
from beyonddrive.synth.live.town import LiveError
from beyonddrive.tests.deploy.drivers.conftest import driver, told  # noqa: F401
from beyonddrive.tests.synth.live.conftest import TINY
from beyonddrive.tools import closed_loop

AHEAD = np.column_stack([np.zeros(8), 2.0 * np.arange(1, 9)])


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
            heard.append(observations.receive(30.0))
            if answer is not None:
                plans.send(answer, 30.0)
        try:
            heard.append(observations.receive(5.0))
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
            reports.append(drive_pipes(job.folder, driver, PipeSettings(first_wait=30.0, wait=30.0)))

    thread = threading.Thread(target=drive, daemon=True)
    thread.start()
    episodes = list(serve_pipes(jobs, 30.0))
    thread.join(30)
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
    episodes = dict(zip([*bad, "good"], serve_pipes(jobs, 30.0), strict=True))
    thread.join(30)
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


def test_a_planner_that_says_nothing_is_given_up(live_folder, tmp_path):
    (episode,) = serve_pipes(jobs_in(live_folder, tmp_path), 0.2)
    assert episode["ends"] == ["planner_failure"] and episode["steps"] == 0
    assert episode["unscored"] and episode["scores"]["hdscore"] == 0.0
    assert "nobody has come to read for 0.2 s" in episode["driver"]["reasons"]["planner_failure"]


def test_a_scenario_that_fails_is_no_episode_and_ends_no_other(live_folder, tmp_path):
    first, second = jobs_in(live_folder, tmp_path, ("a", "b"))
    lost = replace(first, towns=tmp_path / "nowhere")
    failed, episode = serve_pipes([lost, second], 0.2)
    assert isinstance(failed, batch.Failed) and "there is no such town" in failed.reason
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
        (episode,) = serve_pipes([job], 60.0, tmp_path / "run.sh")
        # It hangs up when the last process that has it open is dead, and says nothing before.
        poll = select.poll()
        poll.register(handle, 0)
        assert poll.poll(20_000)
    finally:
        os.close(handle)
    assert episode["ends"] == ["1 steps"] and episode["driver"]["counts"] == {"plans": 1}
    assert (job.folder / "output.txt").read_text() == ""


def test_the_verb_starts_a_planner_for_every_scenario(live_folder, tmp_path, monkeypatch, capsys):
    """As HUGSIM does, by a script and a folder; the second planner dies after one plan."""
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planner.py").write_text(PLANNER)
    (tmp_path / "run.sh").write_text(f'exec {sys.executable} {tmp_path}/planner.py "$1" "$2"\n')
    words = ["serve", "--protocol", "pipes", "--scenarios", str(live_folder), "--difficulty", "easy"]
    words += ["--out", "out", "--planner", "run.sh", "--max-steps", "3", "--deadline", "30"]
    assert closed_loop.main(words) == 1
    said = capsys.readouterr().out
    assert "easy_00: 3 steps; nc 1.0" in said and "the other side has ended" in said
    first, second = sorted((tmp_path / "out" / "seed_0").iterdir())
    assert (first / "output.txt").read_text() == "device 0\n"
    assert (second / "output.txt").read_text() == "it crashed\n"
    assert (
        batch.read_episode(second)["ends"] == ["planner_failure"] and batch.read_episode(second)["steps"] == 1
    )
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["scenarios"] == 2
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["pivot"] == "camera" and settings["hugsim"]["resets"] == 2
    assert "HUGSIM's switches: preset pr57\n" in said
    # What is done is not driven again.
    assert closed_loop.main(words) == 0
