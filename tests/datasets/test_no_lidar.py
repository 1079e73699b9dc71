"""The control of LiDAR: planners are given empty clouds, and all else is the scene's own."""

import numpy as np
import pytest

from beyonddrive.engine.configs import load_config
from beyonddrive.registry import DATASETS

CONTROL = """_base_ = [
    "beyonddrive::transfuser/transfuser-pillars-centerpoint_tiny_1xb16-12e_synth.py",
    "beyonddrive::_base_/datasets/no_lidar.py",
]
"""


@pytest.fixture
def configs(world, tmp_path):
    """The planner's config and that of its control, on three logs and without caches."""
    (tmp_path / "control.py").write_text(CONTROL)
    found = []
    for name in ("transfuser-pillars-centerpoint_tiny_1xb16-12e_synth", str(tmp_path / "control.py")):
        config = load_config(name, {"data_root": str(world)})
        for loader in ("train", "val", "test"):
            dataset = config[f"{loader}_dataloader"].dataset
            # (the maps of these logs are stubs)
            features = [part for part in dataset.feature_pipeline if part["type"] != "BEVMapTarget"]
            dataset.update(
                split="mini", scene_filter={"frame_interval": 1}, cache_dir=None, feature_pipeline=features
            )
        found.append(config)
    return found


@pytest.mark.parametrize("loader", ["train", "val", "test"])
def test_points_are_gone_and_all_else_stays(configs, loader):
    plain, control = (DATASETS.build(config[f"{loader}_dataloader"].dataset) for config in configs)
    assert plain.tokens == control.tokens and len(plain) > 0
    for ours, theirs in zip(control, plain, strict=True):
        assert len(theirs["inputs"]["points"]) > 0 and ours["inputs"]["points"].shape == (0, 4)
        for name in ("camera", "status"):
            np.testing.assert_array_equal(ours["inputs"][name], theirs["inputs"][name])
        assert ours["data_samples"].token == theirs["data_samples"].token
        gt, their_gt = ours["data_samples"].gt, theirs["data_samples"].gt
        names = set(gt.keys())
        assert names == set(their_gt.keys()) >= {"trajectory", "boxes", "box_points"}
        for name in names:
            np.testing.assert_array_equal(getattr(gt, name), getattr(their_gt, name))


def test_both_read_the_same_features(configs):
    plain, control = (DATASETS.build(config.train_dataloader.dataset) for config in configs)
    assert plain.feature_config == control.feature_config
