"""Online mining in real trainings: a tiny planner, golden scenes, the real scorer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from beyonddrive.datasets.stores.manifests import StoreError, StoreKind
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.online_pools import read_index, write_index
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.evaluation.service import ScoringService
from beyonddrive.generators.mining_source import MiningError
from beyonddrive.generators.online import (
    OnlineMining,
    SomeScenes,
    describe_round,
    hash_weights,
    prepare_round,
    scenes_of_round,
)
from beyonddrive.generators.online_hook import OnlineNegativesHook
from beyonddrive.generators.strategies import StrategyError
from beyonddrive.tests.fake_ray import FakeRay
from beyonddrive.tools.train import main

REPOSITORY = Path(__file__).parents[2]
ONLINE = """
_base_ = "{repelled}"
train_cfg = dict(max_epochs=4, val_interval=9)
custom_hooks = [
    dict(type="EpochSeedHook"),
    dict(type="CheckpointGuardHook"),
    dict(
        type="OnlineNegativesHook",
        interval=2,
        begin=1,
        strategy=dict(type="OwnPlans", num_proposals=4),
        num_workers=0,
        shard_size=2,
    ),
]
"""


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


class Watch(Hook):
    """What the training saw: shares of samples with a negative, by epoch; optionally the end of it."""

    priority = "LOWEST"

    def __init__(self, kill_before=None, draw=False):
        self.kill_before, self.draw = kill_before, draw
        self.shares, self.drawn, self.modes = {}, {}, []

    def before_train_epoch(self, runner):
        self.modes.append(runner.model.training)
        if runner.epoch == self.kill_before:
            raise Killed

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.draw and batch_idx == 0:
            self.drawn[runner.epoch] = (float(torch.rand(1)), float(np.random.rand()))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.shares.setdefault(runner.epoch, []).append(float(outputs["negative_share"]))


@pytest.fixture
def online_recipe(tmp_path, repelled_recipe):
    path = tmp_path / "online_recipe.py"
    path.write_text(ONLINE.format(repelled=repelled_recipe))
    return path


def train(recipe, work_dir, options=None, watch=None, **kwargs):
    config = recipe if isinstance(recipe, Config) else load_config(recipe, options)
    runner = build_train_runner(config, str(work_dir), **kwargs)
    runner.register_hook(watch or Watch())
    runner.train()
    return runner


def rounds_in(work_dir):
    return sorted(path.name for path in (work_dir / "online_negatives").glob("epoch_*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_each_round_reaches_the_next_epoch(tmp_path, online_recipe, workers):
    """Also with persistent data workers, which live through all rounds, and a process that scores."""
    watch = Watch()
    options = {"train_dataloader.num_workers": workers, "train_dataloader.persistent_workers": bool(workers)}
    options["custom_hooks.2.num_workers"] = workers
    runner = train(online_recipe, tmp_path / "work", options, watch)
    assert set(watch.shares[0]) == {0.0}  # nothing is mined yet
    root = tmp_path / "work" / "online_negatives"
    assert rounds_in(tmp_path / "work") == ["epoch_0001", "epoch_0003"]
    assert read_index(root) == ["epoch_0003"]
    tokens = set(runner.train_dataloader.dataset.tokens)
    for name, epochs in (("epoch_0001", (1, 2)), ("epoch_0003", (3,))):
        pool = NegativePool(root / name, {"split": "train", "generator": "EgoStatusMLP"})
        assert set(pool) == tokens
        wanted = np.mean([(pool[token].scores[:, 6] < np.float32(0.6)).any() for token in pool])
        for epoch in epochs:
            assert np.mean(watch.shares[epoch]) == pytest.approx(wanted)
        assert wanted > 0
        assert pool[next(iter(pool))].plans.shape == (4, 8, 3)
    first, last = (NegativePool(root / name) for name in ("epoch_0001", "epoch_0003"))
    assert any(not np.allclose(first[token].plans, last[token].plans) for token in tokens)


def test_scenes_are_mined_without_what_replaces_negatives(tmp_path, online_recipe):
    config = load_config(online_recipe, {"train_cfg.max_epochs": 2})
    config.train_dataloader.dataset.pipeline.insert(0, {"type": "PerturbedNegatives"})
    runner = build_train_runner(config, str(tmp_path / "work"))
    runner.train()
    pool = NegativePool(tmp_path / "work/online_negatives/epoch_0001")
    assert set(pool) == set(runner.train_dataloader.dataset.tokens) and not pool.failures


def test_a_dry_run_mines_nothing_and_leaves_the_folder_alone(tmp_path, online_recipe, capfd):
    folder = tmp_path / "rounds"
    options = ["custom_hooks.2.begin=0", f"custom_hooks.2.folder={folder}"]
    assert main([str(online_recipe), "--dry-run", "--cfg-options", *options]) == 0
    assert "GFLOPs" in capfd.readouterr().out
    assert not folder.exists()


class Fails(Hook):
    """Ends the training at its first step, and remembers the processes that scored for it."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        (online,) = [hook for hook in runner.hooks if isinstance(hook, OnlineNegativesHook)]
        (service,) = online._services.values()
        self.processes = service.process_ids
        raise ValueError("a bad step")


def test_processes_that_score_end_with_a_training_that_fails(tmp_path, online_recipe):
    options = {"custom_hooks.2.num_workers": 1, "custom_hooks.2.begin": 0}
    runner = build_train_runner(load_config(online_recipe, options), str(tmp_path / "work"))
    fails = Fails()
    runner.register_hook(fails)
    with pytest.raises(ValueError, match="a bad step"):
        runner.train()
    (process,) = fails.processes
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.fixture
def ray(monkeypatch):
    """A stand-in for Ray; its actors are no processes of their own, and get no nicer."""
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(os, "nice", lambda step: 0)
    return ray


def on_ray(**settings):
    settings = {"num_workers": 2, "on_ray": True, **settings}
    return {f"custom_hooks.2.{name}": value for name, value in settings.items()}


def test_actors_on_ray_score_as_the_training_itself_does(tmp_path, online_recipe, ray):
    class Looks(Watch):
        def before_train_epoch(self, runner):
            found.append((ray.is_initialized(), len(ray.actors)))

    found = []
    train(online_recipe, tmp_path / "here")
    assert not ray.entered
    train(online_recipe, tmp_path / "ray", on_ray(ray_address="head:6379"), Looks())
    assert ray.entered == [{"address": "head:6379", "num_cpus": None, "log_to_driver": False}]
    # In the cluster from the start; actors come with the first round and stay for the second.
    assert found == [(True, 0), (True, 2), (True, 2), (True, 2)]
    assert ray.started == 2 and not ray.actors and not ray.is_initialized()
    for name in ("epoch_0001", "epoch_0003"):
        here, there = (
            NegativePool(tmp_path / place / "online_negatives" / name) for place in ("here", "ray")
        )
        assert set(here) == set(there) and not there.failures
        for token in here:
            np.testing.assert_array_equal(here[token].scores, there[token].scores)


def test_a_cluster_that_the_process_was_in_before_is_left_alone(tmp_path, online_recipe, ray):
    ray.init(num_cpus=4)
    train(online_recipe, tmp_path / "work", {**on_ray(), "train_cfg.max_epochs": 2})
    assert ray.entered == [{"num_cpus": 4}] and ray.started == 2
    assert ray.is_initialized() and not ray.actors


def test_a_cluster_started_here_has_a_core_for_every_actor(tmp_path, online_recipe, ray):
    config = load_config(online_recipe, {**on_ray(num_workers=3, begin=0), "train_cfg.max_epochs": 1})
    data = config.train_dataloader.dataset
    config.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [data, data]}
    build_train_runner(config, str(tmp_path / "work")).train()
    assert [settings["num_cpus"] for settings in ray.entered] == [6] and ray.started == 6


def test_data_sets_share_the_memory_of_their_scorers(tmp_path, online_recipe, ray, monkeypatch):
    told = []
    start = ScoringService.start
    monkeypatch.setattr(ScoringService, "start", lambda it: told.append(it.settings.cache_bytes) or start(it))
    options = {**on_ray(num_workers=1, begin=0, cache_bytes=10**6), "train_cfg.max_epochs": 1}
    config = load_config(online_recipe, options)
    data = config.train_dataloader.dataset
    config.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [data, data]}
    build_train_runner(config, str(tmp_path / "work")).train()
    assert told == [500_000, 500_000]


@pytest.mark.parametrize(
    ("installed", "error", "words"),
    [
        (False, ImportError, r"OnlineNegativesHook with on_ray needs Ray: pip install 'beyonddrive\[ray\]'"),
        (True, ConnectionError, "no cluster at nowhere:1"),
    ],
)
def test_ray_that_is_not_there_ends_the_training_before_it_starts(
    tmp_path, online_recipe, ray, monkeypatch, installed, error, words
):
    if not installed:
        monkeypatch.setitem(sys.modules, "ray", None)
    watch = Watch()
    with pytest.raises(error, match=words):
        train(online_recipe, tmp_path / "work", on_ray(ray_address="nowhere:1"), watch)
    assert watch.modes == []  # no epoch has begun


@pytest.mark.slow
def test_ray_itself_scores_a_round(tmp_path, online_recipe):
    ray = pytest.importorskip("ray")
    train(online_recipe, tmp_path / "work", {**on_ray(num_workers=1), "train_cfg.max_epochs": 2})
    pool = NegativePool(tmp_path / "work/online_negatives/epoch_0001")
    assert len(pool) == 6 and not pool.failures and not ray.is_initialized()


def test_what_is_mined_is_what_the_planner_plans(tmp_path, online_recipe):
    train(online_recipe, tmp_path / "work", {"train_cfg.max_epochs": 2})
    runner = build_train_runner(load_config(online_recipe), str(tmp_path / "other"))
    planner, dataset = runner.model, runner.build_dataloader(runner._train_dataloader).dataset
    checkpoint = load_checkpoint_file(tmp_path / "work" / "epoch_1.pth")["state_dict"]
    planner.load_state_dict(checkpoint)
    planner.eval()
    pool = NegativePool(tmp_path / "work" / "online_negatives" / "epoch_0001")
    assert pool.description.generator["checkpoint_hash"] == hash_weights(planner)
    for index, token in enumerate(dataset.tokens):
        status = torch.from_numpy(dataset.features(index)["status"])[None]
        with torch.no_grad():
            plan = planner({"status": status}, mode="tensor")["trajectory"][0].numpy()
        np.testing.assert_allclose(pool[token].plans[0], plan, atol=1e-5)


def test_a_resumed_training_ends_where_the_uninterrupted_one_does(tmp_path, online_recipe):
    options = {"train_cfg.max_epochs": 6}
    train(online_recipe, tmp_path / "whole", options)
    with pytest.raises(Killed):
        train(online_recipe, tmp_path / "killed", options, Watch(kill_before=4))
    # Killed while a later round was being mined, by weights that the resumed training will not have.
    stale = tmp_path / "killed" / "online_negatives" / "epoch_0005"
    shutil.copytree(tmp_path / "killed" / "online_negatives" / "epoch_0003", stale)
    write_index(stale.parent, ["epoch_0005"])
    train(online_recipe, tmp_path / "killed", options, resume=True)
    whole, again = (
        load_checkpoint_file(tmp_path / name / "epoch_6.pth")["state_dict"] for name in ("whole", "killed")
    )
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    pools = [
        NegativePool(tmp_path / name / "online_negatives" / "epoch_0005") for name in ("whole", "killed")
    ]
    assert pools[0].description == pools[1].description


def test_a_lost_round_is_mined_again_with_a_warning(tmp_path, online_recipe):
    with pytest.raises(Killed):
        train(online_recipe, tmp_path / "work", {"train_cfg.max_epochs": 4}, Watch(kill_before=2))
    shutil.rmtree(tmp_path / "work" / "online_negatives")
    watch = Watch()
    train(online_recipe, tmp_path / "work", {"train_cfg.max_epochs": 3}, watch, resume=True)
    assert set(watch.shares) == {2} and max(watch.shares[2]) > 0
    log = "".join(path.read_text() for path in (tmp_path / "work").glob("*/*.log"))
    assert "the negatives mined after epoch 1 are gone" in log


def test_a_lost_round_before_the_last_is_told(tmp_path, online_recipe):
    options = {"custom_hooks.2.keep": 3, "custom_hooks.2.interval": 1, "train_cfg.max_epochs": 4}
    with pytest.raises(Killed):
        train(online_recipe, tmp_path / "work", options, Watch(kill_before=3))
    root = tmp_path / "work" / "online_negatives"
    assert read_index(root) == ["epoch_0003", "epoch_0002", "epoch_0001"]
    shutil.rmtree(root / "epoch_0002")
    train(online_recipe, tmp_path / "work", options, resume=True)
    log = "".join(path.read_text() for path in (tmp_path / "work").glob("*/*.log"))
    assert "of the 3 rounds that count, epoch_0002 are not there" in log
    assert "going on with epoch_0003, epoch_0001" in log and "negatives mined after" not in log
    assert read_index(root) == ["epoch_0003", "epoch_0001"]


def test_rounds_of_another_training_are_not_gone_on_with(tmp_path, online_recipe):
    """Complete rounds, of other weights than the checkpoint's training had when it mined."""
    with pytest.raises(Killed):
        train(online_recipe, tmp_path / "work", {"train_cfg.max_epochs": 4}, Watch(kill_before=2))
    train(online_recipe, tmp_path / "other", {"train_cfg.max_epochs": 2, "randomness.seed": 5})
    ours, theirs = (tmp_path / name / "online_negatives" for name in ("work", "other"))
    was = [NegativePool(rounds / "epoch_0001").description for rounds in (ours, theirs)]
    assert was[0].generator["checkpoint_hash"] != was[1].generator["checkpoint_hash"]
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    train(online_recipe, tmp_path / "work", {"train_cfg.max_epochs": 3}, resume=True)
    log = "".join(path.read_text() for path in (tmp_path / "work").glob("*/*.log"))
    assert "the negatives mined after epoch 1 are gone, or another training's" in log
    assert NegativePool(ours / "epoch_0001").description.generator not in [it.generator for it in was]


def test_only_pools_are_replaced(tmp_path):
    def describe(weights):
        source = SomeScenes(SimpleNamespace(tokens=["a", "b"]), [1])
        return describe_round(OnlineMining(), source, "train", "Planner", weights, seed=0)

    root = tmp_path / "epoch_0001"
    assert not prepare_round(root, describe("one"))
    assert not prepare_round(root, describe("one"))
    assert prepare_round(root, describe("other"))
    ShardWriter(tmp_path / "features", StoreKind("features", "make"), {}, "a test")
    with pytest.raises(StoreError, match="kind: stored 'features'"):
        prepare_round(tmp_path / "features", describe("one"))
    assert (tmp_path / "features" / "manifest.json").exists()


def test_rounds_add_up_and_visit_a_share_of_the_scenes(tmp_path, online_recipe):
    options = {"custom_hooks.2.keep": 3, "custom_hooks.2.interval": 1, "custom_hooks.2.share": 0.5}
    train(online_recipe, tmp_path / "work", options)
    root = tmp_path / "work" / "online_negatives"
    assert read_index(root) == ["epoch_0003", "epoch_0002", "epoch_0001"]
    visited = [set(NegativePool(root / name)) for name in read_index(root)]
    assert all(0 < len(tokens) < 6 for tokens in visited)
    assert len(set.union(*visited)) > min(len(tokens) for tokens in visited)


def test_rounds_choose_their_scenes_apart_from_each_other():
    tokens = [f"{number:016x}" for number in range(2000)]
    for seed in range(8):
        rounds = [set(scenes_of_round(tokens, 0.25, seed, number)) for number in (4, 8, 12, 16)]
        assert 0.62 < len(set().union(*rounds)) / len(tokens) < 0.74  # 1 - 0.75^4
        assert all(0.15 < len(rounds[0] & other) / len(rounds[0]) < 0.35 for other in rounds[1:])


def test_random_numbers_and_mode_of_the_training_are_left_alone(tmp_path, online_recipe):
    drawn = []
    for interval in (1, 9):
        watch = Watch(draw=True)
        # Without the hook that seeds every epoch, so that only the mining itself could shift the numbers.
        options = {"custom_hooks.2.interval": interval, "custom_hooks.0.type": "CheckpointGuardHook"}
        options["model.repulsion.weight"] = 0.0
        train(online_recipe, tmp_path / str(interval), options, watch)
        assert watch.modes == [True] * 4
        drawn.append(watch.drawn)
    assert drawn[0] == drawn[1]


def test_ranks_share_a_round(tmp_path, online_recipe):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [REPOSITORY / "tools/train.py", online_recipe, "--launcher", "pytorch"]
    command += ["--work-dir", tmp_path / "work", "--cfg-options", "train_cfg.max_epochs=2"]
    command += ["train_dataloader.batch_size=1", "env_cfg.dist_cfg.backend=gloo"]
    done = subprocess.run(
        [str(part) for part in command], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    root = tmp_path / "work" / "online_negatives"
    pool = NegativePool(root / "epoch_0001")
    assert len(pool) == 6
    assert len(list((root / "epoch_0001").glob("*.safetensors"))) == 3
    assert read_index(root) == ["epoch_0001"]
    (path,) = (tmp_path / "work").glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    shares = [line["negative_share"] for line in lines if "negative_share" in line]
    assert shares[:3] == [0.0] * 3 and max(shares[3:]) > 0


def test_base_configs_and_two_fields_mine_online(tmp_path, blind_recipe):
    base = REPOSITORY / "configs/_base_/negatives"
    bases = [str(path) for path in (blind_recipe, base / "published.py", base / "online.py")]
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        f"_base_ = {bases}\nmodel = dict(repulsion=dict(weight=0.5))\n"
        "default_hooks = dict(online_negatives=dict(interval=1, num_workers=0))\n"
    )
    build_train_runner(load_config(recipe), str(tmp_path / "work")).train()
    assert len(NegativePool(tmp_path / "work/online_negatives/epoch_0001")) == 6
    (path,) = (tmp_path / "work").glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    shares = [line["negative_share"] for line in lines if "negative_share" in line]
    assert shares[:3] == [0.0] * 3 and max(shares[3:]) > 0


def test_a_hook_that_nothing_reads_from_is_refused(tmp_path, online_recipe):
    config = load_config(online_recipe)
    del config.train_dataloader.dataset["negatives"]
    with pytest.raises(MiningError, match="nothing reads what it would mine"):
        build_train_runner(config, str(tmp_path / "work")).train()


def test_a_strategy_that_the_planner_cannot_follow_ends_the_training_before_it_starts(
    tmp_path, online_recipe
):
    config, watch = load_config(online_recipe), Watch()
    config.custom_hooks[2].strategy = {"type": "SamplingStrategy", "num_proposals": 4}
    with pytest.raises(StrategyError, match="EgoStatusMLP is not a generator"):
        train(config, tmp_path / "work", watch=watch)
    assert watch.shares == {}


@pytest.mark.parametrize(
    ("loop", "begin", "words"),
    [
        ({"by_epoch": True, "max_epochs": 4}, 4, r"begin=4 with train_cfg\.max_epochs=4: .*begin below 4"),
        ({"by_epoch": False, "max_iters": 9}, 1, r"train_cfg: IterBasedTrainLoop counts steps"),
    ],
)
def test_a_training_that_no_round_is_due_in_is_refused(tmp_path, online_recipe, loop, begin, words):
    config = load_config(online_recipe, {"custom_hooks.2.begin": begin})
    config.train_cfg = {**loop, "val_interval": 9}
    if not loop["by_epoch"]:
        config.param_scheduler, config.train_dataloader.sampler.type = None, "InfiniteSampler"
        config.default_hooks.checkpoint.by_epoch = False
    with pytest.raises(MiningError, match=words):
        build_train_runner(config, str(tmp_path / "work")).train()
    assert not (tmp_path / "work/online_negatives").exists()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"interval": 0}, ValueError, "interval and keep must be at least 1"),
        ({"keep": 0}, ValueError, "interval and keep must be at least 1"),
        ({"begin": -1}, ValueError, "begin not negative"),
        ({"share": 0.0}, MiningError, r"share: must be in \(0, 1\]"),
        ({"num_workers": -1}, MiningError, "out of range"),
        ({"num_workers": 0, "on_ray": True}, MiningError, "on_ray: with num_workers=0"),
        ({"strategy": {"type": "OwnPlans", "num_proposals": 0}}, ValueError, "num_proposals"),
        (
            {"strategy": {"type": "OwnPlans", "num_proposals": 2000}},
            MiningError,
            "2000 proposals .* take 1024",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        OnlineNegativesHook(**settings)


def test_the_training_itself_scores_any_number_of_plans():
    strategy = {"type": "OwnPlans", "num_proposals": 2000}
    assert OnlineNegativesHook(strategy=strategy, num_workers=0).mining.strategy == strategy
