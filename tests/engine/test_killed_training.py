"""A training that is killed again and again ends with the weights of an unbroken one, to the last bit."""

import multiprocessing
import signal
import time

import numpy as np
import pytest
import torch

from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.tests.forks import serve_trainings

KILLS = 5
NEVER = 1e6
"""Seconds that no training takes."""
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


@pytest.fixture(scope="module")
def train_and_kill():
    """Train, or go on, in a fork that is killed after ``moment`` seconds, or in its parent; the exit code.

    The parent is a process that does nothing but train: from forks of this one, in which other tests may
    have started threads of autograd, torch takes no gradients.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    parent = context.Process(target=serve_trainings, args=(theirs,))
    parent.start()
    theirs.close()

    def run(*job, moment=None):
        ours.send((job, moment))
        return ours.recv()

    yield run
    ours.send(None)
    parent.join()


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
    assert train_and_kill(recipe, tmp_path / "whole", options) == 0
    begun = time.monotonic()
    assert train_and_kill(recipe, tmp_path / "again", options, moment=NEVER) == 0
    duration = time.monotonic() - begun
    rng = np.random.default_rng(7)
    folders, kills = [tmp_path / "again"], 0
    while kills < KILLS:
        folders.append(tmp_path / f"killed_{len(folders)}")
        code = None
        while code != 0:
            moment = rng.uniform(0.0, duration) if kills < KILLS else NEVER
            code = train_and_kill(recipe, folders[-1], options, moment=moment)
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
