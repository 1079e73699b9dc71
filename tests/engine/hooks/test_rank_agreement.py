"""What a run is told when ranks cannot agree, and the hooks that every run has."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler

from beyonddrive.engine.configs import ConfigError
from beyonddrive.engine.hooks import RankAgreementHook, SceneRandomHook
from beyonddrive.engine.hooks import rank_agreement as ranks
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


def test_buffers_are_averaged_unless_they_agree_to_the_bit(monkeypatch):
    """Of three ranks, because a mean of three equal numbers need not be that number."""
    same = torch.linspace(0.1, 1.7, 50)
    assert not torch.equal((same + same + same) / 3, same)
    others = torch.tensor([[1.0, torch.nan], [3.0, torch.nan]])

    def all_reduce(flat, op):
        rows = torch.stack([flat, *(torch.cat([same, row]) for row in others)])
        flat.copy_({"min": rows.amin(0), "max": rows.amax(0), "mean": (rows[0] + rows[1] + rows[2]) / 3}[op])

    monkeypatch.setattr(ranks, "all_reduce", all_reduce)
    monkeypatch.setattr(ranks, "broadcast", lambda flat: flat.fill_(7))
    buffers = [same.reshape(5, 10).clone(), torch.tensor(2.0), torch.tensor([torch.nan]), torch.tensor(3)]
    ranks.agree_on_buffers(buffers)
    assert torch.equal(buffers[0], same.reshape(5, 10)) and buffers[1] == 2.0
    assert buffers[2].isnan() and buffers[3] == 7


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
    for name in ("SceneRandomHook", "RankAgreementHook", "CheckpointGuardHook", "EpochSeedHook"):
        assert names.count(name) == 1


def test_every_sample_of_a_step_gets_its_seed():
    batch = {"data_samples": [PlanSample(metainfo={"token": token}) for token in "ab"] + [PlanSample()]}
    SceneRandomHook().before_train_iter(SimpleNamespace(seed=5, iter=9), 0, batch)
    seeds = [sample.metainfo.get(SEED_KEY) for sample in batch["data_samples"]]
    assert seeds == [step_seed(5, 9, "a"), step_seed(5, 9, "b"), None]
