"""Configs are held against what reads them: whatever nothing would read is refused before any work."""

from pathlib import Path

import pytest

from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.losses.repulsive import RepulsiveDistanceLoss
from beyonddrive.plugins.ego_mlp.planner import EgoStatusMLP
from beyonddrive.registry import MODELS

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("optim_wrapper.optimizer.type", "AdamWW", r"optim_wrapper\.optimizer\.type='AdamWW': .*AdamW\?"),
        ("optim_wrapper.optimizer.learning_rate", 1.0, r"optimizer\.learning_rate=1\.0: AdamW has no such"),
        ("optim_wrapper.optimizer.lr", "fast", r"optimizer\.lr"),
        ("optim_wrapper.clip_grad.max_nrm", 3, r"clip_grad\.max_nrm=3: .*did you mean max_norm\?"),
        ("optim_wrapper.paramwise_cfg.bias_mult", 3, r"paramwise_cfg\.bias_mult=3: .*bias_lr_mult"),
        ("optim_wrapper.acumulative_counts", 2, r"did you mean accumulative_counts\?"),
        ("log_level", "debug", r"log_level='debug': did you mean DEBUG\?"),
        ("train_cfg.max_epoch", 3, r"train_cfg\.max_epoch=3: EpochBasedTrainLoop .*max_epochs\?"),
        ("val_cfg.fp8", True, r"val_cfg\.fp8=True: SceneValLoop has no such setting; there is fp16"),
        ("default_hooks.checkpoint.max_keep_ckpt", 5, r"max_keep_ckpt=5: .*did you mean max_keep_ckpts\?"),
        ("default_hooks.checkpoint.type", "CheckpointHok", r"no hook has this name; did you mean"),
        ("default_hooks.chekpoint.interval", 1, r"chekpoint=.*did you mean checkpoint\?"),
        ("custom_hooks", 7, "custom_hooks=7: it is a list of hooks"),
        ("custom_hooks.0.seed", 1, r"custom_hooks\.0\.seed=1: EpochSeedHook .*it has no settings"),
        ("val_evaluator.progress", "poled", r"val_evaluator\.progress='poled': it is 'pair' or 'pooled'"),
        ("val_evaluator.num_workers", "many", r"num_workers"),
        ("val_evaluator.num_workers", 1.5, r"val_evaluator\.num_workers=1\.5: it is a whole number"),
        ("val_evaluator.num_workers", -1, r"val_evaluator\.num_workers=-1: it must not be negative; 0"),
        (
            "test_evaluator",
            {"metrics": [{"type": "PDMSMetric", "num_workers": -1}], "_delete_": True},
            r"test_evaluator\.metrics\.0\.num_workers=-1: it must not be negative",
        ),
        ("train_cfg.val_interval", 0, r"train_cfg\.val_interval=0: it must be positive"),
        ("optim_wrapper.clip_grad.max_norm", 0.0, r"clip_grad\.max_norm=0\.0: .*clip_grad=None"),
        ("optim_wrapper.clip_grad.max_norm", float("nan"), r"clip_grad\.max_norm=nan: it must be positive"),
        (
            "auto_scale_lr.base_batch_size",
            -4,
            r"base_batch_size=-4: it must be positive: the scenes per step",
        ),
        ("launcher", "pytorch", r"launcher=pytorch: is not read from a config; give --launcher pytorch"),
        ("resume", "a/epoch_1.pth", r"resume=a/epoch_1\.pth: it is true or false; .*--resume a/epoch_1\.pth"),
        ("env_cfg.cudnn_benchmarkk", True, r"cudnn_benchmarkk=True: .*did you mean cudnn_benchmark\?"),
        ("env_cfg.mp_cfg.start_method", "fork", r"mp_cfg\.start_method='fork': .*mp_start_method\?"),
        ("env_cfg.dist_cfg.backnd", "gloo", r"dist_cfg\.backnd='gloo': .*did you mean backend\?"),
        ("randomness.sed", 3, r"randomness\.sed=3: .*did you mean seed\?"),
        ("param_scheduler.warm", 3, r"param_scheduler\.warm=3: WarmupCosineLR .*did you mean warmup\?"),
        ("train_dataloader.batchsize", 3, r"train_dataloader\.batchsize=3: .*did you mean batch_size\?"),
        ("train_dataloader.sampler.shufle", True, r"sampler\.shufle=True: RoundDownSampler .*shuffle\?"),
        ("train_dataloader.dataset.data_rot", "x", r"dataset\.data_rot='x': NavsimDataset .*data_root\?"),
        ("test_dataloader.dataset.scene_filter.max_scene", 5, r"max_scene=5: .*did you mean max_scenes\?"),
        ("train_dataloader.dataset.pipeline.0.keys", 5, r"pipeline\.0\.keys=5: PackPlanInputs has no such"),
        ("train_dataloader.dataset.pipeline.0.type", "Pack", r"pipeline\.0\.type='Pack': nothing has this"),
        ("train_dataloader.dataset.pipeline.7.type", "Pack", r"'7' is no item of a list of 1"),
        ("train_dataloader.batch_size.x", 5, r"train_dataloader\.batch_size is 2, and has no settings"),
        ("model.repulsion", 5.0, r"model\.repulsion=5\.0: it is a mapping of settings"),
        ("model", 5, "model=5: it is a mapping of settings"),
        ("train_dataloader", "x", "train_dataloader='x': it is a mapping of settings"),
        ("optim_wrapper", 5, "optim_wrapper=5: it is a mapping of settings"),
        ("param_scheduler", 5, "param_scheduler=5: it is a mapping of settings"),
        ("negative_mining", 5, "negative_mining=5: it is a mapping of settings"),
        ("model.hiden", 5, r"model\.hiden=5: EgoStatusMLP has no such setting; did you mean hidden\?"),
        ("model.trajectory_head.loss.wieght", 5, r"loss\.wieght=5: PlanL1Loss .*did you mean weight\?"),
        ("model.trajectory_head.loss.type", "PlanL3Loss", r"loss\.type='PlanL3Loss'.*PlanL1Loss\?"),
        ("log_processor.windw_size", 5, r"log_processor\.windw_size=5: .*did you mean window_size\?"),
        ("auto_scale_lr.base_batch", 5, r"auto_scale_lr\.base_batch=5: .*did you mean base_batch_size\?"),
        ("compile.mod", "x", r"compile\.mod='x': .*did you mean mode\?"),
        ("visualizer", {"type": "Visualiser"}, r"visualizer\.type='Visualiser': .*Visualizer\?"),
        ("data_root", 2024, r"data_root=2024: it is a text"),
        ("dataroot", "/mnt/navsim", r"dataroot: .*no such setting; did you mean data_root\?"),
        ("lr", 1e-3, r"lr: .*give the full key"),
    ],
)
def test_an_option_that_nothing_reads_is_refused_with_what_there_is(blind_recipe, option, value, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        load_config(blind_recipe, {option: value})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_cfg = dict(max_epoch=3)", r"train_cfg\.max_epoch=3"),
        ("default_hooks = dict(checkpoint=dict(max_keep_ckpt=3))", r"checkpoint\.max_keep_ckpt=3"),
        ("env_cfg = dict(cudnn_benchmarkk=True)", r"env_cfg\.cudnn_benchmarkk=True"),
        ("val_evaluator = dict(progress='poled')", r"val_evaluator\.progress='poled'"),
        ("log_level = 'debug'", r"log_level='debug'"),
        ("log_levl = 'DEBUG'", r"log_levl: there is no such setting; did you mean log_level\?"),
        ("train_datalaoder = dict(batch_size=3)", r"did you mean train_dataloader\?"),
        ("optim_wrapper = dict(optimizer=dict(type='AdamWW'))", r"optimizer\.type='AdamWW'"),
        ("model = 3 +", r"blind_recipe\.py: line \d+ is no Python"),
        ("model = undefined", r"blind_recipe\.py: cannot be read as a config: NameError"),
        ("train_dataloader = dict(batch_size=dict(a=1))", r"cannot be read as a config: TypeError"),
    ],
)
def test_a_mistake_in_a_config_file_is_refused(blind_recipe, line, message):
    blind_recipe.write_text(f"{blind_recipe.read_text()}\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(blind_recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pol": "p"},
            r"negatives\.pol='p': LoadNegatives has no such setting; did you mean pool\?",
        ),
        (
            {"selection": {"columns": "NC"}},
            r"selection\.columns='NC': NearestNegatives .*did you mean column\?",
        ),
        (
            {"selection": {"type": "WorstNegative"}},
            r"selection\.type='WorstNegative': .*Negatives\?",
        ),
        (
            {"selection": {"type": "WorstNegatives", "num": 2}},
            r"selection\.num=2: WorstNegatives has no such",
        ),
        ({"progress": "poled"}, r"negatives\.progress='poled': it is 'pair' or 'pooled'"),
    ],
)
def test_the_selection_of_negatives_is_held_against_its_selector(blind_recipe, options, message):
    with pytest.raises(ConfigError, match=message):
        load_config(blind_recipe, {"train_dataloader.dataset.negatives": options})
    good = {"pool": "p", "selection": {"column": "DAC", "spacing": 0.5}, "progress": "pair"}
    load_config(blind_recipe, {"train_dataloader.dataset.negatives": good})


class TheirMLP(EgoStatusMLP):
    """A planner of another package, with a setting that means something to it alone."""

    __module__ = "their_planners"

    def __init__(self, own=None, **kwargs):
        super().__init__(**kwargs)
        self.own = own


def test_a_planner_of_anyones_own_takes_what_ours_take_as_strictly(blind_recipe):
    MODELS.register_module(module=TheirMLP)
    try:
        load_config(blind_recipe, {"model.type": "TheirMLP", "model.own": {"type": "what they like"}})
        options = {"model.type": "TheirMLP", "model.trajectory_head.type": "DeltaTrajectoryHed"}
        with pytest.raises(ConfigError, match=r"nothing has this name; did you mean DeltaTrajectoryHead\?"):
            load_config(blind_recipe, options)
    finally:
        MODELS.module_dict.pop("TheirMLP")


class TheirRepulsion(RepulsiveDistanceLoss):
    """A repulsion of another package, with a setting of its own."""

    def __init__(self, sharpness=1.0, **kwargs):
        super().__init__(**kwargs)
        self.sharpness = sharpness


def test_a_repulsion_of_anyones_own_may_have_a_loss_of_modes(blind_recipe):
    MODELS.register_module(module=TheirRepulsion)
    try:
        modes = {"weight": 1.0, "margin": 0.5}
        own = {"type": "TheirRepulsion", "sharpness": 2.0, "weight": 3.0, "mode_loss": modes}
        load_config(blind_recipe, {"model.repulsion": own})
        with pytest.raises(ConfigError, match=r"repulsion\.sharpnes=.*did you mean sharpness\?"):
            load_config(blind_recipe, {"model.repulsion": {**own, "sharpnes": 2.0}})
    finally:
        MODELS.module_dict.pop("TheirRepulsion")


def test_settings_that_a_base_has_left_to_another_type_are_told_how_to_go(blind_recipe):
    with pytest.raises(ConfigError, match=r"head\..*has no such.*write _delete_=True beside the new type"):
        load_config(blind_recipe, {"model.trajectory_head.type": "RepulsiveHead"})


def test_what_mmengine_and_torch_take_may_be_set(blind_recipe):
    options = {
        "optim_wrapper.optimizer.amsgrad": True,
        "optim_wrapper.accumulative_counts": 2,
        "optim_wrapper.clip_grad": {"type": "value", "clip_value": 1.0, "_delete_": True},
        "train_cfg.dynamic_intervals": [(1, 2)],
        "val_cfg.fp16": True,
        "default_hooks.checkpoint.save_begin": 2,
        "default_hooks.checkpoint.out_dir": "elsewhere",
        "default_hooks.logger.out_suffix": ".log",
        "custom_hooks.1": {"type": "EMAHook", "momentum": 0.1, "begin_epoch": 2},
        "env_cfg.dist_cfg.timeout": 1800,
        "env_cfg.resource_limit": 4096,
        "randomness.deterministic": True,
        "train_dataloader.prefetch_factor": 2,
        "train_dataloader.num_batch_per_epoch": 2,
        "train_dataloader.sampler.round_up": False,
        "param_scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 0.1, "_delete_": True},
        "visualizer": {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}]},
        "compile": {"mode": "default"},
        "model_wrapper_cfg": {"broadcast_buffers": True},
        "test_evaluator": [{"type": "PDMSMetric", "split": "test"}],
        "auto_scale_lr": {"base_batch_size": 16, "enable": True},
        "model.init_cfg": {"type": "Constant", "val": 0.0},
    }
    config = load_config(blind_recipe, options)
    assert config.custom_hooks[1].momentum == 0.1 and config.param_scheduler.gamma == 0.1
    for name in ("auto_scale_lr", "compile", "visualizer"):  # of mmengine, though the config has none
        assert load_config(blind_recipe, {name: None}).get(name) is None


def test_online_mining_takes_what_its_settings_take(blind_recipe):
    hook = {"type": "OnlineNegativesHook", "interval": 2, "share": 0.5}
    assert load_config(blind_recipe, {"custom_hooks": [hook]}).custom_hooks[0].share == 0.5
    with pytest.raises(ConfigError, match=r"custom_hooks\.0\.shar=.*did you mean share\?"):
        load_config(blind_recipe, {"custom_hooks": [{**hook, "shar": 1}]})


@pytest.mark.parametrize(
    "path", [p for p in sorted(CONFIGS.glob("*/*.py")) if p.parent.name != "_base_"], ids=lambda p: p.stem
)
def test_every_recipe_passes(path):
    load_config(path)
