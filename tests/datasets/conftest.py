"""A small data root for the tests of the data sets: golden logs and maps, and sensor files made here."""

import pickle
import shutil
from pathlib import Path

import pytest

from beyonddrive.tests.sensor_files import write_sensors

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


@pytest.fixture(scope="session")
def world_template(tmp_path_factory):
    root = tmp_path_factory.mktemp("world") / "world"
    shutil.copytree(GOLDEN / "pdms" / "data" / "maps", root / "maps")
    for number, name in enumerate(("straight_free", "straight_cutroute", "curve_free")):
        path = next(LOGS.glob(f"*{name}.pkl"))
        (root / "navsim_logs" / "mini").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "navsim_logs" / "mini")
        for index, frame in enumerate(pickle.loads(path.read_bytes())[3:7]):
            write_sensors(root / "sensor_blobs" / "mini", frame, 10 * number + index)
    return root


@pytest.fixture
def world(world_template, tmp_path):
    """A data root to write in: split ``mini`` with 3 logs (14, 17, 14 frames), images of 96 x 54, sweeps."""
    root = tmp_path / "world"
    shutil.copytree(world_template, root, copy_function=shutil.copyfile)
    return root
