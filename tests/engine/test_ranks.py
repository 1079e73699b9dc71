"""What a run is told when ranks cannot agree, and the hooks that every run has."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler

from beyonddrive.engine import ranks
from beyonddrive.engine.configs import ConfigError
from beyonddrive.engine.hooks import RankAgreementHook, SceneRandomHook
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SEED_KEY, step_seed


def test_ranks_with_different_numbers_of_samples_are_refused(monkeypatch):
    monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda: (1, 2))
    sampler = DefaultSampler(range(7), round_up=False, seed=0)
    monkeypatch.setattr(ranks, "get_world_size", lambda: 2)
    monkeypatch.setattr(ranks, "all_gather", lambda own: [torch.tensor(4), own])
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(sampler=sampler))
    with pytest.raises(ConfigError, match=r"DefaultSampler gives the ranks \[4, 3\] samples.*RoundDown"):
        RankAgreementHook().before_train(runner)


def test_batch_norms_over_ranks_are_refused_without_a_gpu(tmp_path, blind_recipe, monkeypatch):
    runner = build_train_runner(load_config(blind_recipe, {"sync_bn": "torch"}), str(tmp_path / "w"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(type(runner), "distributed", True)
    with pytest.raises(ConfigError, match=r"sync_bn='torch'.*on GPUs only.*sync_bn=None"):
        runner.wrap_model(None, runner.model)


def test_hooks_that_a_run_cannot_do_without_are_added(tmp_path, blind_recipe):
    config = load_config(blind_recipe)
    config.custom_hooks = [{"type": "SceneRandomHook"}]
    runner = build_train_runner(config, str(tmp_path / "w"))
    names = [type(hook).__name__ for hook in runner.hooks]
    for name in ("SceneRandomHook", "RankAgreementHook", "CheckpointGuardHook"):
        assert names.count(name) == 1


def test_every_sample_of_a_step_gets_its_seed():
    batch = {"data_samples": [PlanSample(metainfo={"token": token}) for token in "ab"] + [PlanSample()]}
    SceneRandomHook().before_train_iter(SimpleNamespace(seed=5, iter=9), 0, batch)
    seeds = [sample.metainfo.get(SEED_KEY) for sample in batch["data_samples"]]
    assert seeds == [step_seed(5, 9, "a"), step_seed(5, 9, "b"), None]
