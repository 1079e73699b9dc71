"""Settings of the whole suite, and a small data root with a recipe that trains on it in seconds."""

import gc
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

# Small tensors gain nothing from threads, and threads that spin starve the other test processes.
# Set before torch or numpy is imported, and inherited by the tools that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The suite makes and removes tens of thousands of small files, which is slow on some disks.
# They go into memory where it has room for many times as much as tests leave, and lets them run the programs
# that they write (it does not in a container of Docker's).
MEMORY, ROOM = Path("/dev/shm"), 8 << 30
if (
    MEMORY.is_dir()
    and os.access(MEMORY, os.W_OK)
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    and shutil.disk_usage(MEMORY).free > ROOM
):
    os.environ.setdefault("TMPDIR", str(MEMORY))
    tempfile.tempdir = None  # (pytest has asked for it before)

REPOSITORY = Path(__file__).parents[1]
GOLDEN_PDMS = REPOSITORY / "tests/data/golden/pdms"
BLIND_RECIPE = """
_base_ = "{repository}/configs/ego_mlp/ego_mlp_1xb16-12e_synth.py"
data_root = "{root}"
_data = dict(
    data_root=data_root,
    scene_filter=None,
    cache_dir=None,
    feature_pipeline=[dict(type="EgoStatus"), dict(type="PlanTarget")],
)
_scores = dict(cache_dir=None, data_root=data_root, num_workers=0)
model = dict(hidden=16, num_layers=1)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=_data)
val_dataloader = dict(num_workers=0, dataset=_data)
test_dataloader = dict(num_workers=0, dataset=_data)
val_evaluator = _scores
test_evaluator = _scores
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(logger=dict(interval=1))
log_level = "WARNING"
"""
REPELLED_RECIPE = """
_base_ = "{blind}"
model = dict(repulsion=dict(weight=0.5, window=dict()))
train_dataloader = dict(dataset=dict(negatives=dict(online=True, progress="pair")))
"""


SLOW_FILES = (
    "test_planners_meet_the_runner.py",
    "tools/test_demo.py",
    "deploy/test_export.py",
    "engine/test_killed_training.py",
    "tools/test_sweep.py",
    "test_wheel.py",
    "test_split_invariance.py",
)
"""Files that take half a minute and more, longest first."""


def pytest_collection_modifyitems(config, items):
    """Skip what needs mmdet3d where it is not installed, and mark what else is to be run where it is.

    Of several processes none is to be left with a slow file when the others have nothing to do any more, so
    those files come first; xdist would begin with the files that have most tests.
    """
    if hasattr(config, "workerinput"):
        places = {REPOSITORY / "tests" / name: number for number, name in enumerate(SLOW_FILES)}
        assert all(path.is_file() for path in places), "SLOW_FILES names a file that is gone"
        items.sort(key=lambda item: places.get(item.path, len(places)))
    missing = find_spec("mmdet3d") is None
    for item in items:
        if missing and item.get_closest_marker("mmdet3d"):
            item.add_marker(pytest.mark.skip(reason="mmdet3d is not installed"))
        # (some tests of recipes with pillars do without it, and skip themselves otherwise)
        if "pillars" in item.name.partition("[")[2] or "mmdet3d" in getattr(item, "fixturenames", ()):
            item.add_marker("mmdet3d")


def pytest_collection_finish():
    """Let the collector pass over the half million objects of imported modules, and look less often."""
    gc.set_threshold(20_000, 20, 20)
    _freeze()


def pytest_runtest_teardown(item, nextitem):
    """Modules that the tests of a file have imported, too."""
    if nextitem is None or nextitem.path != item.path:
        _freeze()


def _freeze():
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _threads_of_torch():
    """Take back the threads that a tool gave torch: a process forked later would wait for them for ever."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True, scope="session")
def _logs_are_checked_once():
    """Data roots of this process check a log once, by its content: trainings on few scenes do little else."""
    import pickle

    from beyonddrive.datasets.navsim import root

    read_log, known = root.read_log, {}

    def read_again(path):
        content = path.read_bytes() if path.is_file() else b""
        if content not in known:
            frames = read_log(path)
            if len(known) == 100:
                known.clear()
            known[content] = pickle.dumps(frames)
        return pickle.loads(known[content])

    root.read_log = read_again
    yield
    root.read_log = read_log


@pytest.fixture(autouse=True, scope="session")
def _configs_are_not_laid_out():
    """Configs are printed without line breaks: yapf, which chooses them, took a quarter of the time."""
    from beyonddrive.engine import mmengine_compat

    mmengine_compat.apply()
    place = mmengine_compat.formatting_module()
    lay_out = place.FormatCode
    place.FormatCode = lambda text, *more, **settings: (text, False)
    yield lay_out
    place.FormatCode = lay_out


@pytest.fixture
def laid_out_configs(_configs_are_not_laid_out, monkeypatch):
    """For a test that reads the text of a config as people do."""
    from beyonddrive.engine import mmengine_compat

    monkeypatch.setattr(mmengine_compat.formatting_module(), "FormatCode", _configs_are_not_laid_out)


@pytest.fixture(scope="session")
def mmdet3d():
    """mmdet3d, for tests that need it."""
    return pytest.importorskip("mmdet3d")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is late: ``gpu.put(tensor)`` is on it, ``gpu.log`` says what was asked and waited for."""
    from beyonddrive.tests.fake_gpu import install

    return install(monkeypatch)


@pytest.fixture
def split_root(tmp_path):
    """Data root whose splits train, val and test hold 6, 3 and 3 golden scenes; copies, free to be broken."""
    root = tmp_path / "data"
    for index, log in enumerate(sorted((GOLDEN_PDMS / "data/navsim_logs/golden").glob("*.pkl"))):
        folder = root / "navsim_logs" / ("train" if index < 6 else "val" if index < 9 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, folder)
    (root / "maps").symlink_to(GOLDEN_PDMS / "data/maps")
    return root


@pytest.fixture
def blind_recipe(tmp_path, split_root):
    """Config file of a tiny ego-status planner on ``split_root``."""
    path = tmp_path / "blind_recipe.py"
    path.write_text(BLIND_RECIPE.format(repository=REPOSITORY, root=split_root))
    return path


@pytest.fixture
def repelled_recipe(tmp_path, blind_recipe):
    """``blind_recipe`` with the repulsion from negatives that are mined in training."""
    path = tmp_path / "repelled_recipe.py"
    path.write_text(REPELLED_RECIPE.format(blind=blind_recipe))
    return path


@pytest.fixture
def last_bits_of_numpy(request):
    """For scenes in which an object is aligned with the ego to the last bit, or plans turn by half a turn.

    There arctan2 decides, which numpy 1.26 rounds otherwise than versions that scores are known for.
    """
    import numpy as np

    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        request.applymarker(pytest.mark.xfail(reason="arctan2 of this numpy rounds otherwise"))


@pytest.fixture
def version_table(tmp_path):
    """Compare what code gives on fixed scenes with ``tests/data/versions.json``, entry by entry.

    ``check(name, version, arrays)`` fails if arrays have changed and their version has not, or if the table
    is not of this version; either way it says what to write where.
    """
    import json

    import numpy as np

    path = REPOSITORY / "tests/data/versions.json"

    def sketch(array):
        """Type, shape and four projections: they tell any change but one of the last bits."""
        array = np.asarray(array)
        flat = array.astype(np.float64).reshape(-1)
        flat = np.clip(np.nan_to_num(flat, nan=-1.0), -1e6, 1e6)
        weights = np.stack([np.random.default_rng(seed).uniform(-1, 1, len(flat)) for seed in range(4)])
        size = max(len(flat), 1) ** 0.5
        return {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "scale": float(f"{np.linalg.norm(flat) / size:.7g}"),
            "sketch": [float(f"{value:.7g}") for value in weights @ flat / size],
        }

    def same(left, right):
        if {key: left[key] for key in ("dtype", "shape")} != {key: right[key] for key in ("dtype", "shape")}:
            return False
        return np.allclose(left["sketch"], right["sketch"], rtol=0, atol=1e-4 * right["scale"] + 1e-9)

    def check(name, version, arrays):
        entry = {"version": version, "arrays": {key: sketch(arrays[key]) for key in sorted(arrays)}}
        table = json.loads(path.read_text())
        known = table.get(name)
        now = tmp_path / "versions.json"
        now.write_text(_one_line_an_array({**table, name: entry}))
        assert known is not None, f"{name} is new: copy its entry from {now} to {path}"
        equal = known["arrays"].keys() == entry["arrays"].keys() and all(
            same(entry["arrays"][key], known["arrays"][key]) for key in known["arrays"]
        )
        if known["version"] == version:
            assert equal, f"{name} gives other arrays than version {version} did: raise its version"
        else:
            raise AssertionError(f"{name} has version {version} now: copy its entry from {now} to {path}")

    return check


def _one_line_an_array(table):
    """A table of versions as JSON whose changes can be read."""
    import json

    entries = []
    for name, entry in sorted(table.items()):
        arrays = [
            f"  {json.dumps(key)}: {json.dumps(array, sort_keys=True)}"
            for key, array in sorted(entry["arrays"].items())
        ]
        head = f' {json.dumps(name)}: {{"version": {entry["version"]}, "arrays": {{'
        entries.append("\n".join([head, ",\n".join(arrays), " }}"]))
    return "{\n" + ",\n".join(entries) + "\n}\n"


@pytest.fixture
def survives_kills(tmp_path):
    """``survives_kills(job)`` kills ``job(folder)`` at three random moments and finishes it each time.

    Whatever the moment, the folder must end with the bytes of one that nobody killed, and nothing half
    written in it.
    """
    import random
    import time

    from beyonddrive.tests.forks import start_fork

    def contents(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def check(job, ignore=lambda name: False):
        unbroken = start_fork(job, tmp_path / "unbroken")
        started = time.monotonic()  # (after the fork, which takes longer than a small job in a large process)
        unbroken.join()
        seconds = time.monotonic() - started
        assert unbroken.exitcode == 0
        wanted = {name: data for name, data in contents(tmp_path / "unbroken").items() if not ignore(name)}
        moments = random.Random(0)
        ends = []
        while ends.count(-9) < 3 and len(ends) < 20:
            folder = tmp_path / f"killed-{len(ends)}"
            process = start_fork(job, folder)
            process.join(moments.uniform(0.05, 0.9) * seconds)
            # (a machine that has less to do than at first has ended it: the next one is killed sooner)
            seconds *= 0.7 if process.exitcode == 0 else 1
            process.kill()
            process.join()
            ends.append(process.exitcode)
            job(folder)
            found = contents(folder)
            assert not [name for name in found if name.endswith((".partial", ".lock"))]
            assert {name: data for name, data in found.items() if not ignore(name)} == wanted
        assert ends.count(-9) == 3, f"too few kills came in time: {ends}"

    return check
