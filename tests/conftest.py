"""Settings of the whole suite, and a small data root with a recipe that trains on it in seconds."""

import os
import shutil
from pathlib import Path

import pytest

# Small tensors gain nothing from threads, and threads that spin starve the other test processes.
# Set before torch or numpy is imported, and inherited by the tools that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
def last_bits_of_numpy(request):
    """For scenes in which an object is aligned with the ego to the last bit, or plans turn by half a turn.

    There arctan2 decides, which numpy 1.26 rounds otherwise than versions that scores are known for.
    """
    import numpy as np

    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        request.applymarker(pytest.mark.xfail(reason="arctan2 of this numpy rounds otherwise"))
