"""A small data root for the tests of the data sets: golden logs and maps, and sensor files made here."""

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.navsim.sensors import write_pcd

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
LOGS = GOLDEN / "pdms" / "data" / "navsim_logs" / "golden"


@pytest.fixture(scope="session")
def golden():
    return GOLDEN


@pytest.fixture
def log_path():
    """A golden log of 17 frames."""
    return next(LOGS.glob("*cutroute.pkl"))


@pytest.fixture
def frames(log_path):
    """The same log, read by plain pickle: what the reader's result is compared with, and what tests break."""
    return pickle.loads(log_path.read_bytes())


def _write_sensors(folder, frame, number):
    rng = np.random.default_rng(number)
    for name in ("CAM_L0", "CAM_F0", "CAM_R0"):
        path = folder / frame["cams"][name]["data_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (54, 96, 3), dtype=np.uint8))
    points = rng.normal(0, 10, (6, 500)).astype(np.float32)
    points[4:] = 0
    write_pcd(folder / frame["lidar_path"], points)


@pytest.fixture(scope="session")
def world_template(tmp_path_factory):
    root = tmp_path_factory.mktemp("world") / "world"
    shutil.copytree(GOLDEN / "pdms" / "data" / "maps", root / "maps")
    for number, name in enumerate(("straight_free", "straight_cutroute", "curve_free")):
        path = next(LOGS.glob(f"*{name}.pkl"))
        (root / "navsim_logs" / "mini").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "navsim_logs" / "mini")
        for index, frame in enumerate(pickle.loads(path.read_bytes())[3:7]):
            _write_sensors(root / "sensor_blobs" / "mini", frame, 10 * number + index)
    return root


@pytest.fixture
def world(world_template, tmp_path):
    """A data root to write in: split ``mini`` with 3 logs (14, 17, 14 frames), images of 96 x 54, sweeps."""
    root = tmp_path / "world"
    shutil.copytree(world_template, root, copy_function=shutil.copyfile)
    return root
