"""Golden scenes, and a data root with a working camera rig and images."""

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.evaluation.pdm.explain.explanation import PRECEDENCE, Explanation, Failure
from beyonddrive.structures.boxes import ego_corners
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.synth.rig import rig
from beyonddrive.visualization.failures import Verdict

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "pdms"
FREE, RED = "1fe355d5f82ad146", "40ac76e47b18bb99"
IMAGE_SIZE = (320, 180)


@pytest.fixture(scope="session")
def golden_root():
    return NavsimRoot(GOLDEN / "data")


@pytest.fixture(scope="session")
def free_scene(golden_root):
    """A straight road: the ego in the fourth of six lanes, a car park to its right."""
    return golden_root.find("golden", [FREE])[0][FREE]


@pytest.fixture(scope="session")
def red_scene(golden_root):
    """A junction with a red light on the route."""
    return golden_root.find("golden", [RED])[0][RED]


@pytest.fixture(scope="session")
def golden_rows():
    """Stable golden plans (N, 8, 3), scores (N, 7) and names of the free scene."""
    with np.load(next((GOLDEN / "scores").glob(f"*{FREE}.npz"))) as archive:
        stable = archive["stable"]
        return archive["poses"][stable], archive["scores"][stable], list(archive["names"][stable])


@pytest.fixture
def make_verdict():
    """Makes a verdict by hand: ``make_verdict(NC=0.0, moments={"NC": 2.0})``."""

    def make(moments=None, poses=None, position=None, **scores):
        values = np.array([scores.get(name, 1.0) for name in SCORE_COLUMNS])
        states = np.zeros((41, 11))
        if poses is not None:
            states[:, :3] = poses
        failures = []
        for name in (name for name in PRECEDENCE if scores.get(name, 1.0) < 1.0):
            time = (moments or {}).get(name, 4.0)
            place = ego_corners(states[round(time * 10), :3]).mean(axis=0) if position is None else position
            failures.append(Failure(name, time, np.asarray(place), f"fails {name} at {time:.1f} s"))
        return Verdict(Explanation(SCORE_COLUMNS, values, tuple(failures), states))

    return make


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory):
    """A data root, split ``mini``: one golden log with a camera rig and grey images."""
    root = tmp_path_factory.mktemp("pictures") / "world"
    shutil.copytree(GOLDEN / "data" / "maps", root / "maps")
    source = next((GOLDEN / "data" / "navsim_logs" / "golden").glob("*straight_free.pkl"))
    frames = pickle.loads(source.read_bytes())
    for frame in frames:
        for name, pose in rig(IMAGE_SIZE).items():
            frame["cams"][name] = {**frame["cams"][name], **pose}
    logs = root / "navsim_logs" / "mini"
    logs.mkdir(parents=True)
    (logs / source.name).write_bytes(pickle.dumps(frames))
    for camera in frames[3]["cams"].values():
        path = root / "sensor_blobs" / "mini" / camera["data_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((IMAGE_SIZE[1], IMAGE_SIZE[0], 3), 128, np.uint8))
    return root


@pytest.fixture
def straight_plan():
    """(1, 8, 3): 5 m/s straight ahead."""
    plan = np.zeros((1, 8, 3))
    plan[0, :, 0] = 2.5 * np.arange(1, 9)
    return plan
