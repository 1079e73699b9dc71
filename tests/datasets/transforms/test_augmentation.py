"""Augmentations draw by seed, epoch and scene, however the scenes are read; off unless asked for."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.transforms.augmentation import Augmentation
from beyonddrive.datasets.transforms.photometric import PhotometricAugmentation
from beyonddrive.datasets.transforms.view import ViewAugmentation
from beyonddrive.engine.config_check import check_config
from beyonddrive.engine.config_values import ConfigError
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.engine.samplers import RoundDownSampler
from beyonddrive.generators.mining_job import mining_dataset

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 16, 64), np.uint8)
REPOSITORY = Path(__file__).parents[3]
VIEW = {"type": "ViewAugmentation"}


def drawn(step, token="a"):
    return step({"token": token, "camera": IMAGE})["camera"]


def test_draws_are_of_the_seed_the_epoch_and_the_scene():
    step = PhotometricAugmentation()
    np.testing.assert_array_equal(drawn(step), drawn(PhotometricAugmentation()))
    others = [drawn(step, "b"), drawn(PhotometricAugmentation(seed=1))]
    first = drawn(step)
    step.set_epoch(1)
    others.append(drawn(step))
    assert all((other != first).any() for other in others)
    step.set_epoch(0)
    np.testing.assert_array_equal(drawn(step), first)


def test_colours_change_within_their_ranges_and_nothing_else():
    given = {"token": "a", "camera": IMAGE, "status": np.ones(8)}
    kept = IMAGE.copy()
    made = PhotometricAugmentation()(given)
    assert made["status"] is given["status"] and made["camera"].dtype == np.uint8
    np.testing.assert_array_equal(given["camera"], kept)
    none = PhotometricAugmentation(brightness=0, contrast=0, saturation=0, gamma=0)
    np.testing.assert_array_equal(none(given)["camera"], IMAGE)
    light = PhotometricAugmentation(brightness=0.2, contrast=0, saturation=0, gamma=0)
    middle = np.full((3, 4, 4), 128, np.uint8)
    levels = [int(light({"token": str(n), "camera": middle})["camera"][0, 0, 0]) - 128 for n in range(64)]
    assert -51 <= min(levels) < -30 and 30 < max(levels) <= 51
    grey = PhotometricAugmentation(brightness=0, contrast=0, gamma=0, saturation=0.9)
    assert np.abs(grey({"token": "a", "camera": middle})["camera"].astype(int) - 128).max() <= 2  # stays grey


def test_a_share_of_the_samples_is_changed():
    step = PhotometricAugmentation(probability=0.25)
    share = np.mean([(drawn(step, str(token)) != IMAGE).any() for token in range(400)])
    assert 0.18 < share < 0.32
    assert (drawn(PhotometricAugmentation(probability=0.0)) == IMAGE).all()


def test_settings_and_samples_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 2"):
        ViewAugmentation(probability=2.0)
    with pytest.raises(ValueError, match=r"contrast must be in \[0, 1\), got 1"):
        PhotometricAugmentation(contrast=1.0)
    with pytest.raises(ValueError, match="no uint8 camera image"):
        PhotometricAugmentation()({"token": "a"})


def read(dataset, num_workers, epochs):
    """Plans of each epoch, by token, through workers that outlive epochs."""
    sampler = RoundDownSampler(dataset, shuffle=True, seed=0)
    loader = DataLoader(
        dataset, 2, sampler=sampler, num_workers=num_workers, collate_fn=list,
        persistent_workers=num_workers > 0,
    )  # fmt: skip
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        samples = [sample["data_samples"] for batch in loader for sample in batch]
        found.append({sample.metainfo["token"]: sample.gt.trajectory.numpy() for sample in samples})
    return found


def test_samples_are_the_same_for_any_number_of_workers_and_after_a_resume(world):
    def make():
        return NavsimDataset(
            world,
            "mini",
            scene_filter={"frame_interval": 1},
            feature_pipeline=[{"type": "EgoStatus"}, {"type": "PlanTarget"}],
            pipeline=[VIEW, {"type": "PackPlanInputs"}],
        )

    alone = read(make(), 0, (0, 1, 2))
    for workers in (1, 2):
        for left, right in zip(alone, read(make(), workers, (0, 1, 2)), strict=True):
            assert left.keys() == right.keys()
            for token, plan in left.items():
                np.testing.assert_array_equal(right[token], plan)
    assert all((alone[0][token] != alone[1][token]).any() for token in alone[0])
    [resumed] = read(make(), 1, (2,))
    for token, plan in alone[2].items():
        np.testing.assert_array_equal(resumed[token], plan)


@pytest.fixture
def augmented(blind_recipe):
    config = load_config(blind_recipe, {"log_level": "ERROR"})
    pipeline = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset.pipeline = [VIEW, *pipeline]
    return config


def test_a_training_tells_epochs_and_refuses_a_sampler_that_does_not(tmp_path, augmented):
    runner = build_train_runner(augmented, str(tmp_path / "run"))
    runner.train()
    [step] = [step for step in runner.train_dataloader.dataset.transforms if isinstance(step, Augmentation)]
    assert int(step._epoch) == 1  # the second of two
    augmented.train_dataloader.sampler.type = "DefaultSampler"
    with pytest.raises(
        ConfigError, match=r"does not tell ViewAugmentation which epoch it is.*RoundDownSampler"
    ):
        build_train_runner(augmented, str(tmp_path / "other")).train()


def test_negatives_are_mined_for_scenes_as_they_are(augmented):
    data = mining_dataset(augmented)
    assert [step["type"] for step in data["pipeline"]] == ["PackPlanInputs"]
    dataset = DATASETS.build(dict(augmented.train_dataloader.dataset))
    assert len(dataset.transforms) == 2
    assert not any(isinstance(step, Augmentation) for step in dataset.without(Augmentation).transforms)


def test_configs_add_augmentations_to_the_training_alone(tmp_path):
    bases = ["configs/ltf/ltf_tiny_1xb16-12e_synth.py", "configs/_base_/augmentations/{}.py"]
    lines = """
_base_ = [{bases}]
feature_pipeline = [_base_.feature_pipeline[0] | dict(rig=True), *_base_.feature_pipeline[1:]]
feature_cache = _base_.feature_cache + "-rig"
"""
    for name, steps in (
        ("photometric", ["PhotometricAugmentation"]),
        ("view", ["ViewAugmentation", "PhotometricAugmentation"]),
    ):
        path = tmp_path / f"{name}.py"
        paths = [str(REPOSITORY / base.format(name)) for base in bases]
        path.write_text(lines.format(bases=", ".join(map(repr, paths))))
        config = load_config(path)
        check_config(config)
        for phase in ("train", "val", "test"):
            data = config[f"{phase}_dataloader"].dataset
            wanted = [*(steps if phase == "train" else []), "PackPlanInputs"]
            assert [step["type"] for step in data.pipeline] == wanted
            assert data.feature_pipeline[0] == {"type": "LoadCameraStitch", "size": (64, 256), "rig": True}
            assert "features-camera-64x256-rig/" in data.cache_dir
