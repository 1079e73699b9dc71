"""Every config file is complete: its parts exist, and what can be built without data is built."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from beyonddrive.checkpoints.loading import has_weights
from beyonddrive.engine.hooks import PlannerCheckpointHook
from beyonddrive.engine.runner import load_config
from beyonddrive.registry import DATASETS, HOOKS, METRICS, MODELS, PARAM_SCHEDULERS

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("[!_]*/*.py"))


def test_there_are_configs():
    assert len(CONFIGS) >= 10


@pytest.mark.parametrize("name", CONFIGS)
def test_config_builds(name):
    if "pillars" in name:
        pytest.importorskip("mmdet3d")
    config = load_config(ROOT / name)
    assert config.default_scope == "beyonddrive"
    for part in ("train", "val", "test"):
        loader = config.get(f"{part}_dataloader")
        if loader is None:
            continue
        # Nothing is read from disk: neither data nor pool are needed to build a config.
        dataset = DATASETS.build(
            {**loader.dataset, **_without_filter_file(loader.dataset), "lazy_init": True}
        )
        if part == "train":
            continue
        metric = METRICS.build(config[f"{part}_evaluator"])
        assert metric.scorer.split == dataset.split
    for hook in [*config.default_hooks.values(), *config.custom_hooks]:
        HOOKS.build(hook)
    planner = MODELS.build(config.model)
    assert has_weights(planner) == (config.get("train_dataloader") is not None)
    if config.get("param_scheduler") is not None:
        optimizer = torch.optim.AdamW(planner.parameters(), lr=config.optim_wrapper.optimizer.lr)
        PARAM_SCHEDULERS.build(
            dict(config.param_scheduler, end=config.train_cfg.max_epochs),
            default_args={"optimizer": optimizer},
        )


def _without_filter_file(dataset):
    """Scene filters of NAVSIM come with its data, which is not here."""
    return {"scene_filter": None} if isinstance(dataset.get("scene_filter"), str) else {}


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith(("human", "constant"))])
def test_checkpoints_are_selected_on_validation_scenes(name):
    config = Config.fromfile(ROOT / name)
    val, test = config.val_dataloader.dataset, config.test_dataloader.dataset
    assert val.split != test.split
    hook = HOOKS.build(config.default_hooks.checkpoint)
    assert isinstance(hook, PlannerCheckpointHook)
    assert hook.save_best == ["pdms/PDMS"] and hook.rules == ["greater"]


@pytest.mark.parametrize(
    ("plain", "repelled"),
    [
        ("ltf/ltf-delta_r34_8xb4-100e_navtrain.py", "ltf/ltf-beyonddrive_r34_8xb4-100e_navtrain.py"),
        ("wote/wote_r34_8xb16-30e_navtrain.py", "wote/wote-beyonddrive_r34_8xb16-30e_navtrain.py"),
        ("wote/wote_tiny_1xb16-12e_synth.py", "wote/wote-beyonddrive_tiny_1xb16-12e_synth.py"),
        (
            "hydra_mdp/hydra_mdp_r34_8xb16-30e_navtrain.py",
            "hydra_mdp/hydra_mdp-beyonddrive_r34_8xb16-30e_navtrain.py",
        ),
        (
            "hydra_mdp/hydra_mdp_tiny_1xb16-12e_synth.py",
            "hydra_mdp/hydra_mdp-beyonddrive_tiny_1xb16-12e_synth.py",
        ),
        ("ltf/ltf_tiny_1xb16-12e_synth.py", "ltf/ltf-beyonddrive_tiny_1xb16-12e_synth.py"),
        (
            "diffusiondrive/diffusiondrive_tiny_1xb16-12e_synth.py",
            "diffusiondrive/diffusiondrive-beyonddrive_tiny_1xb16-12e_synth.py",
        ),
        (
            "meanfuser/meanfuser_r34_8xb4-100e_navtrain.py",
            "meanfuser/meanfuser-beyonddrive_r34_8xb4-100e_navtrain.py",
        ),
        (
            "meanfuser/meanfuser_tiny_1xb16-12e_synth.py",
            "meanfuser/meanfuser-beyonddrive_tiny_1xb16-12e_synth.py",
        ),
    ],
)
def test_a_beyonddrive_config_only_wraps_the_head_and_adds_the_pool(plain, repelled):
    plain, repelled = Config.fromfile(ROOT / plain), Config.fromfile(ROOT / repelled)
    assert repelled.model.trajectory_head.type == "RepulsiveHead"
    assert repelled.model.trajectory_head.head == plain.model.trajectory_head
    assert repelled.train_dataloader.dataset.pipeline[0].type == "LoadNegatives"
    for config in (plain, repelled):
        for key in ("negative_mining", "negative_selection", "pool_dir"):
            config._cfg_dict.pop(key, None)
        del config.model["trajectory_head"], config.train_dataloader.dataset["pipeline"]
    assert plain._cfg_dict == repelled._cfg_dict


def test_a_folder_from_the_command_line_reaches_every_place_that_uses_it():
    config = load_config(ROOT / "ltf/ltf-beyonddrive_tiny_1xb16-12e_synth.py", {"data_root": "/elsewhere"})
    assert "data/synth" not in config.pretty_text.replace("tools/", "")
    assert config.train_dataloader.dataset.data_root == "/elsewhere"
    assert config.test_evaluator.cache_dir == "/elsewhere/cache/metrics/test"
    assert config.train_dataloader.dataset.pipeline[0].pool == "/elsewhere/pool/train"


def test_the_published_recipe_is_the_one_of_the_paper():
    config = load_config(ROOT / "flow_policy/flow_policy_r34_8xb4-100e_navtrain.py")
    assert config.optim_wrapper.optimizer.lr == 3e-4 and config.optim_wrapper.optimizer.weight_decay == 0
    assert config.optim_wrapper.clip_grad.max_norm == 50
    assert config.param_scheduler.warmup == 2 and config.param_scheduler.eta_min == 1e-7
    assert config.train_cfg.max_epochs == 100 and config.train_dataloader.batch_size == 4


@pytest.mark.parametrize(
    ("name", "lr", "batch", "clip"),
    [
        ("diffusiondrive_r34_8xb64-100e_navtrain.py", 6e-4, 64, None),
        ("diffusiondrive-beyonddrive_r34_8xb8-100e_navtrain.py", 2e-4, 8, {"max_norm": 50.0}),
    ],
)
def test_diffusiondrive_has_two_published_recipes(name, lr, batch, clip):
    config = load_config(ROOT / "diffusiondrive" / name)
    optimizer, schedule = config.optim_wrapper.optimizer, config.param_scheduler
    assert (optimizer.lr, optimizer.weight_decay) == (lr, 1e-4)
    assert config.train_dataloader.batch_size == batch and config.optim_wrapper.clip_grad == clip
    assert (schedule.warmup, schedule.eta_min, config.train_cfg.max_epochs) == (3, 1e-6, 100)
