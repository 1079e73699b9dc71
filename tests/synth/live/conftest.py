"""A town to drive in with a few scenarios, and drivers that need no planner."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml

from beyonddrive.structures.frame import DrivenPlan, DriverReport
from beyonddrive.structures.se2 import to_local
from beyonddrive.synth.live import episode_files, run_folder, summary
from beyonddrive.synth.live.choose import scenarios_of
from beyonddrive.synth.live.drive import LiveSettings
from beyonddrive.synth.live.scenario import TOWNS
from beyonddrive.synth.live.town import build_live_town

pytest.importorskip("libsumo")

TINY = LiveSettings(image_size=(96, 54), max_steps=120)


class FollowPath:
    """Goes along the path of the scenario at one speed; it knows the path, and sees nobody."""

    def __init__(self, speed=7.0):
        self.speed = speed
        self.frames = []

    def attach(self, stage):
        self.stage = stage

    def reset(self, session, seed=None):
        self.report = DriverReport()
        self.frames = []

    def plan(self, frame):
        self.frames.append(frame)
        self.report.count("inference")
        path = self.stage.place.path
        rear = self.stage.place.to_town(frame.pose)
        along = self.stage.place.progress(rear[:2]) + 0.5 * self.speed * np.arange(1, 9)
        stations = np.arange(len(path), dtype=float)
        poses = np.stack([np.interp(along, stations, column) for column in path.T], axis=1)
        beyond = np.maximum(along - stations[-1], 0.0)[:, None]
        poses[:, :2] += beyond * [np.cos(path[-1, 2]), np.sin(path[-1, 2])]
        return DrivenPlan(to_local(poses, rear))

    def close(self, session):
        return self.report


class Killed(FollowPath):
    """Its process is killed in the second scenario once the first is done; in the third it never plans."""

    def __init__(self, first):
        super().__init__()
        self.first = first

    def plan(self, frame):
        if "easy_01" in frame.session:
            while not self.first.exists():
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)
        while "medium" in frame.session:
            time.sleep(0.02)
        return super().plan(frame)


def points_of(poses):
    """A plan as HUGSIM takes it."""
    return np.stack([-poses[:, 1], poses[:, 0]], axis=1)


def made_up(name, seed, hdscore, collided=0, kilometres=0.1):
    """How an episode might have gone."""
    scores = {**dict.fromkeys(summary.FIGURES, 1.0), "hdscore": hdscore}
    return {
        "name": name, "seed": seed, "difficulty": name.split("_")[0], "scores": scores, "ends": ["Complete"],
        "kilometres": kilometres, "collided": bool(collided), "steps": 10,
        "driver": {"fallbacks": collided, "counts": {}},
    }  # fmt: skip


def write_made_up(folder, episodes, **settings):
    """A folder of a run with these episodes."""
    run_folder.claim(folder, {"config": "planner", "preset": "pr57", **settings})
    for episode in episodes:
        path = folder / f"seed_{episode['seed']}" / episode["name"]
        path.mkdir(parents=True)
        (path / episode_files.EPISODE).write_text(json.dumps(episode))


@pytest.fixture(scope="session")
def live_folder(tmp_path_factory):
    """Folder of scenarios of one town: ``<difficulty>/*.yaml`` and ``towns``."""
    folder = tmp_path_factory.mktemp("live")
    town = build_live_town(folder / TOWNS, 0, 1)
    for scenario in scenarios_of(town, {"easy": 2, "medium": 1, "hard": 3, "extreme": 1}):
        path = folder / scenario.hugsim.difficulty / f"{scenario.name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(scenario.to_dict(), sort_keys=False))
    return folder


@pytest.fixture(scope="session")
def live_town(live_folder):
    """The town."""
    return build_live_town(live_folder / TOWNS, 0, 1)


@pytest.fixture(scope="session")
def scenarios(live_town):
    """Scenarios by mode, such as ``hard_00``."""
    found = scenarios_of(live_town, {"easy": 2, "medium": 1, "hard": 3, "extreme": 1})
    return {scenario.hugsim.mode: scenario for scenario in found}


@pytest.fixture
def tiny():
    """Settings for small pictures and short episodes."""
    return replace(TINY)


@pytest.fixture
def follow():
    """The driver that follows the path."""
    return FollowPath


@pytest.fixture
def answer():
    """Makes a plan HUGSIM's."""
    return points_of
