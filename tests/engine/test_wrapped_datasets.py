"""mmengine's wrappers and subsets under training, validation, and the hooks of the suite."""

import pytest
import torch

from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.runner import build_test_runner, build_train_runner, evaluate, load_config
from beyonddrive.engine.wrapped_datasets import tokens_of, unwrapped, unwrapped_settings
from beyonddrive.generators.mining_job import mining_dataset
from beyonddrive.generators.mining_source import DatasetSource, MiningError
from beyonddrive.generators.prior_hook import expert_plans

ONLINE = """
_base_ = "{blind}"
model = dict(repulsion=dict(weight=0.5))
_part = dict(_base_.train_dataloader.dataset, negatives=dict(online=True, progress="pair"))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(type="RepeatDataset", times=2, dataset=dict(_part, indices=2)),
            dict(_part, split="val", indices=[1, 2]),
        ],
    )
)
default_hooks = dict(
    online_negatives=dict(
        type="OnlineNegativesHook",
        interval=1,
        num_workers=0,
        strategy=dict(type="OwnPlans", num_proposals=4),
    )
)
"""


@pytest.fixture
def wrapped(blind_recipe):
    """The tiny recipe on two training scenes twice and two of the validation split."""
    config = load_config(blind_recipe)
    part = config.train_dataloader.dataset
    config.train_dataloader.dataset = {
        "type": "ConcatDataset",
        "datasets": [
            {"type": "RepeatDataset", "times": 2, "dataset": {**part, "indices": 2}},
            {**part, "split": "val", "indices": [1, 2]},
        ],
    }
    return config


def test_training_validation_and_test_under_wrappers(tmp_path, wrapped):
    wrapped.val_dataloader.dataset = {
        "type": "RepeatDataset",
        "times": 2,
        "dataset": wrapped.val_dataloader.dataset,
    }
    wrapped.test_dataloader.dataset = {
        "type": "ConcatDataset",
        "datasets": [{**wrapped.test_dataloader.dataset, "indices": [i]} for i in (2, 0)],
    }
    runner = build_train_runner(wrapped, str(tmp_path / "w"))
    runner.train()
    assert len(runner.train_dataloader.dataset) == 6 and len(unwrapped(runner.train_dataloader.dataset)) == 2
    assert runner.message_hub.get_scalar("val/pdms/num_scenes").current() == 3  # each once
    testing = build_test_runner(wrapped, work_dir=str(tmp_path / "t"))
    testing.model.load_state_dict(load_checkpoint_file(tmp_path / "w" / "epoch_2.pth")["state_dict"])
    result = evaluate(testing)
    assert result.metrics["pdms/num_scenes"] == 2 and not result.failures


def test_a_planner_fits_a_few_scenes(tmp_path, blind_recipe):
    """The first thing to try with a planner: the loss of two scenes falls, and only they are read."""
    options = {
        "train_dataloader.dataset.indices": 2,
        "train_cfg.max_epochs": 12,
        "train_cfg.val_interval": 99,
        "optim_wrapper.optimizer.lr": 0.01,
    }
    runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / "w"))
    runner.train()
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert len(losses) == 12 and losses[-1] < 0.95 * losses[0]
    assert len(tokens_of(runner.train_dataloader.dataset)) == 2


def test_experts_and_mining_sources_under_wrappers(wrapped, tmp_path):
    runner = build_train_runner(wrapped, str(tmp_path / "w"))
    dataset = runner.build_dataloader(wrapped.train_dataloader).dataset
    source = DatasetSource(dataset)
    first, second = unwrapped(dataset)
    assert source.tokens == [*first.tokens, *first.tokens, *second.tokens] and not source.lost
    assert source[4].token == second.tokens[0] and source[4].sample is not None
    plans = expert_plans(dataset, 100)
    assert plans.shape == (4, 8, 3)
    torch.testing.assert_close(plans[3], second.expert_plan(1))


def test_mining_chooses_one_data_set(wrapped):
    assert len(unwrapped_settings(wrapped.train_dataloader.dataset)) == 2
    assert mining_dataset(wrapped, split="train")["indices"] == 2
    with pytest.raises(MiningError, match=r"reads 2 data sets together, of splits train, val: give --split"):
        mining_dataset(wrapped)


def test_online_mining_under_wrappers(tmp_path, blind_recipe):
    """Each data set has rounds of its own, of its own scenes."""
    path = tmp_path / "online.py"
    path.write_text(ONLINE.format(blind=blind_recipe))
    runner = build_train_runner(load_config(path), str(tmp_path / "w"))
    runner.train()
    root = tmp_path / "w" / "online_negatives"
    parts = unwrapped(runner.train_dataloader.dataset)
    for folder, dataset in zip((root, root / "dataset_1"), parts, strict=True):
        pool = NegativePool(folder / "epoch_0001", {"split": dataset.split})
        assert set(pool) == set(dataset.tokens) and len(pool) == 2
