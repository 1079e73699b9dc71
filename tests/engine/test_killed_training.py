"""A training that is killed again and again ends with the weights of an unbroken one, to the last bit."""

import signal
import time

import numpy as np
import pytest
import torch

from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.runner import build_train_runner, load_config

KILLS = 5
ACCUMULATION = {"optim_wrapper.accumulative_counts": 2}  # an epoch has three steps: gradients wait at its end
EMA = {"type": "EMAHook", "momentum": 0.1, "priority": "NORMAL"}
ONLINE = {
    "type": "OnlineNegativesHook",
    "interval": 2,
    "begin": 1,
    "strategy": {"type": "OwnPlans", "num_proposals": 4},
    "num_workers": 0,
    "shard_size": 2,
}


def _train(recipe, work_dir, options):
    torch.set_num_threads(1)  # a fork has none of its parent's other threads, and would wait for them
    build_train_runner(load_config(recipe, options), str(work_dir), resume=True).train()


@pytest.fixture
def train_and_kill(forked):
    """Train, or go on, in a process of its own that is killed after ``moment`` seconds; its exit code."""

    def run(recipe, work_dir, options, moment):
        process = forked(_train, recipe, work_dir, options)
        process.join(moment)
        if process.exitcode is None:
            process.kill()
            process.join()
        return process.exitcode

    return run


def checkpoints(work_dir):
    return {path.name: load_checkpoint_file(path) for path in sorted(work_dir.glob("*.pth"))}


def assert_same(one, other, where=""):
    """Everything that is learnt is the same to the last bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}.{index}")
    else:
        assert one == other, where


@pytest.mark.parametrize("kind", ["iterations, accumulation", "epochs, accumulation, EMA, online mining"])
def test_killed_trainings_end_like_unbroken_ones(
    tmp_path, blind_recipe, repelled_recipe, train_and_kill, kind
):
    options = {"train_cfg.max_epochs": 4, "train_cfg.val_interval": 2, "log_level": "ERROR"} | ACCUMULATION
    recipe = blind_recipe
    if kind.startswith("iterations"):
        options["train_cfg"] = {"by_epoch": False, "max_iters": 14, "val_interval": 4, "_delete_": True}
        options |= {"default_hooks.checkpoint.by_epoch": False, "default_hooks.checkpoint.interval": 3}
        schedule = {"type": "LinearLR", "by_epoch": False, "start_factor": 0.1, "_delete_": True}
        options["param_scheduler"] = schedule
        options["train_dataloader.sampler.type"] = "InfiniteSampler"
    else:
        recipe = repelled_recipe
        options["custom_hooks"] = [{"type": "EpochSeedHook"}, EMA, ONLINE]
    _train(recipe, tmp_path / "whole", options)  # here, so that the others inherit compiled kernels
    begun = time.monotonic()
    assert train_and_kill(recipe, tmp_path / "again", options, None) == 0
    duration = time.monotonic() - begun
    rng = np.random.default_rng(7)
    folders, kills = [tmp_path / "again"], 0
    while kills < KILLS:
        folders.append(tmp_path / f"killed_{len(folders)}")
        code = None
        while code != 0:
            moment = rng.uniform(0.0, duration) if kills < KILLS else None
            code = train_and_kill(recipe, folders[-1], options, moment)
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
    whole = checkpoints(tmp_path / "whole")
    assert len(whole) == 3
    for folder in folders:
        killed = checkpoints(folder)
        assert list(whole) == list(killed)
        for name, checkpoint in whole.items():
            for key in set(checkpoint) - {"meta", "message_hub"}:
                assert_same(checkpoint[key], killed[name][key], f"{folder.name}: {name}: {key}")
        assert not list(folder.rglob("*.partial"))
