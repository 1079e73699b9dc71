"""Every config file is complete, says only what differs, and has the settings of its publication."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config

from beyonddrive.checkpoints.loading import has_weights
from beyonddrive.datasets.stores.selectors import NearestNegatives
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.engine.configs import load_config
from beyonddrive.engine.geometry import check_geometry
from beyonddrive.engine.hooks import PlannerCheckpointHook
from beyonddrive.heads.repulsive import RepulsiveHead
from beyonddrive.losses.agents import CAMERA_FIELD_OF_VIEW
from beyonddrive.losses.repulsive import RepulsiveDistanceLoss
from beyonddrive.registry import DATASETS, HOOKS, METRICS, MODELS, PARAM_SCHEDULERS

ROOT = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("[!_]*/*.py"))

NAVTRAIN_POOL = "data/cache/navsim/pools/navtrain_train"
REPELLED = {
    # config: weight of the repulsion and of the attraction that it opposes, pool, split
    "ltf/ltf-beyonddrive_r34_8xb4-100e_navtrain.py": (5.0, 10.0, NAVTRAIN_POOL, "trainval"),
    "ltf/ltf-beyonddrive_tiny_1xb16-12e_synth.py": (5.0, 10.0, "data/synth/pool/train", "train"),
    "ltf/ltf-beyonddrive-online_tiny_1xb16-12e_synth.py": (5.0, 10.0, "data/synth/pool/train", "train"),
    "diffusiondrive/diffusiondrive-beyonddrive_r34_8xb8-100e_navtrain.py": (
        *(60.0, 96.0),
        *(NAVTRAIN_POOL, "trainval"),
    ),
    "diffusiondrive/diffusiondrive-beyonddrive_tiny_1xb16-12e_synth.py": (
        *(60.0, 96.0),
        *("data/synth/pool/train", "train"),
    ),
    "meanfuser/meanfuser-beyonddrive_r34_8xb4-100e_navtrain.py": (
        *(1.5, 2.0),
        *(NAVTRAIN_POOL, "trainval"),
    ),
    "meanfuser/meanfuser-beyonddrive_tiny_1xb16-12e_synth.py": (1.5, 2.0, "data/synth/pool/train", "train"),
    "wote/wote-beyonddrive_r34_8xb16-30e_navtrain.py": (0.5, 1.0, NAVTRAIN_POOL, "trainval"),
    "wote/wote-beyonddrive_tiny_1xb16-12e_synth.py": (0.5, 1.0, "data/synth/pool/train", "train"),
    "hydra_mdp/hydra_mdp-beyonddrive_r34_8xb16-30e_navtrain.py": (
        *(0.5, 1.0),
        *(NAVTRAIN_POOL, "trainval"),
    ),
    "hydra_mdp/hydra_mdp-beyonddrive_tiny_1xb16-12e_synth.py": (0.5, 1.0, "data/synth/pool/train", "train"),
}


def test_there_are_configs():
    assert len(CONFIGS) >= 10


@pytest.mark.parametrize("name", CONFIGS)
def test_every_optimizer_is_fused(name):
    """A gradient scaler then asks nothing on the host; a recipe with another optimizer may forget it."""
    wrapper = load_config(ROOT / name).get("optim_wrapper")
    assert wrapper is None or wrapper.optimizer.fused


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
            training = dataset
            continue
        evaluator = config[f"{part}_evaluator"]
        metric, *_ = [
            METRICS.build(one) for one in (evaluator if isinstance(evaluator, list) else [evaluator])
        ]
        assert metric.scorer.split == dataset.split
    for hook in [*config.default_hooks.values(), *config.custom_hooks]:
        HOOKS.build(hook)
    planner = MODELS.build(config.model)
    if name in REPELLED:
        check_repulsion(name, planner, training.transforms)
    assert has_weights(planner) == (config.get("train_dataloader") is not None)
    if has_weights(planner):
        check_geometry(planner, training)
    if config.get("param_scheduler") is not None:
        optimizer = torch.optim.AdamW(planner.parameters(), lr=config.optim_wrapper.optimizer.lr)
        PARAM_SCHEDULERS.build(
            dict(config.param_scheduler, end=config.train_cfg.max_epochs),
            default_args={"optimizer": optimizer},
        )


def _without_filter_file(dataset):
    """Scene filters of NAVSIM come with its data, which is not here."""
    return {"scene_filter": None} if isinstance(dataset.get("scene_filter"), str) else {}


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if not name.startswith(("human", "constant", "pdm_closed"))]
)
def test_checkpoints_are_selected_on_validation_scenes(name):
    config = load_config(ROOT / name)
    val, test = config.val_dataloader.dataset, config.test_dataloader.dataset
    assert val.split != test.split
    hook = HOOKS.build(config.default_hooks.checkpoint)
    assert isinstance(hook, PlannerCheckpointHook)
    assert hook.save_best == ["pdms/PDMS"] and hook.rules == ["greater"]


OWN_SCHEDULE = {"diffusiondrive/diffusiondrive-beyonddrive_r34_8xb8-100e_navtrain.py"}
"""Published with another schedule than their planner."""


def lines_of(path):
    """Lines of a config that say something."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_every_beyonddrive_config_is_in_the_table():
    assert set(REPELLED) == {name for name in CONFIGS if "beyonddrive" in name}


@pytest.mark.parametrize("name", REPELLED)
def test_a_beyonddrive_config_is_its_planner_and_what_differs(name):
    assert len(lines_of(ROOT / name)) <= 8
    repelled = load_config(ROOT / name)
    plain = load_config(ROOT / Path(name).parent / Config._get_base_files(str(ROOT / name))[0])
    assert (
        ("repulsion" in plain.model) == ("negatives" in plain.train_dataloader.dataset) == ("online" in name)
    )
    for config in (plain, repelled):
        config.model.pop("repulsion", None)
        config.train_dataloader.dataset.pop("negatives", None)
        for key in ("negative_mining", "negative_selection", "pool_dir"):
            config._cfg_dict.pop(key, None)
        config.default_hooks.pop("online_negatives", None)
        if name in OWN_SCHEDULE:
            for node, key in (
                (config._cfg_dict, "optim_wrapper"),
                (config._cfg_dict, "auto_scale_lr"),
                (config.train_dataloader, "batch_size"),
            ):
                node.pop(key)
    assert plain._cfg_dict == repelled._cfg_dict


def check_repulsion(name, planner, transforms):
    """Head, loss, pool, selection, split, progress: those of the table and of METHOD, sections 3 and 4."""
    weight, attraction, pool, split = REPELLED[name]
    head = planner.trajectory_head
    assert isinstance(head, RepulsiveHead) and head.mode_repulsion is None
    asked = {"weight": weight, "attraction_weight": attraction}
    assert vars_of(head.repulsion) == vars_of(RepulsiveDistanceLoss(**asked))
    first, *others = transforms
    assert isinstance(first, LoadNegatives) and not any(isinstance(step, LoadNegatives) for step in others)
    assert (first.root, first.missing, first.online) == (Path(pool), "error", "online" in name)
    assert first.expected == {"split": split, "generator": None, "progress": "pair"}
    assert isinstance(first.selector, NearestNegatives)
    assert vars(first.selector) == vars(NearestNegatives("PDMS", 0.6, 1, "wrapped"))


def vars_of(loss):
    """Settings of a loss."""
    return {key: value for key, value in vars(loss).items() if not key.startswith("_")}


def test_a_folder_from_the_command_line_reaches_every_place_that_uses_it():
    config = load_config(ROOT / "ltf/ltf-beyonddrive_tiny_1xb16-12e_synth.py", {"data_root": "/elsewhere"})
    assert "data/synth" not in config.pretty_text.replace("tools/", "")
    assert config.train_dataloader.dataset.data_root == "/elsewhere"
    assert config.test_evaluator.cache_dir == "/elsewhere/cache/metrics/test"
    assert config.train_dataloader.dataset.negatives.pool == "/elsewhere/pool/train"


@pytest.mark.parametrize("name", [name for name in REPELLED if "navtrain" in name])
def test_two_options_move_all_that_a_navtrain_recipe_reads(name):
    """What the suite makes is below the second, so that the first may be read-only."""
    config = load_config(ROOT / name, {"data_root": "/mnt/navsim", "cache_root": "/scratch"})
    assert "'data/" not in config.pretty_text
    assert config.train_dataloader.dataset.negatives.pool == "/scratch/pools/navtrain_train"
    for key in ("vocabulary", "vocabulary_scores"):
        assert config.get(key, "/scratch/vocabularies/").startswith("/scratch/vocabularies/")


@pytest.mark.parametrize(
    "planner",
    [
        "ltf/ltf-delta_r34_8xb4-100e_navtrain.py",
        "transfuser/transfuser-pillars-centerpoint_r34_8xb4-100e_navtrain.py",  # with a list of metrics
        "constant_velocity/constant_velocity_navtest.py",
    ],
)
def test_navhard_behind_a_planner_changes_its_test_alone(planner, tmp_path):
    recipe = tmp_path / "navhard.py"
    bases = [f"beyonddrive::{planner}", "beyonddrive::_base_/datasets/navhard.py"]
    recipe.write_text(f"_base_ = {bases}\n")
    plain, judged = load_config(ROOT / planner), load_config(recipe)
    source, navhard = plain.test_dataloader.dataset, "data/navsim/navhard_two_stage"
    places = {
        "split": "test",
        "two_stage": "data/navsim/train_test_split/navhard_two_stage.yaml",
        "synthetic_scenes": f"{navhard}/synthetic_scene_pickles",
        "cache_dir": None,
    }
    roots = {"data_root": "data/navsim", "maps_root": "data/navsim/maps"}
    steps = {key: source[key] for key in ("feature_pipeline", "pipeline")}
    assert judged.test_dataloader.dataset == {
        "type": "TwoStageDataset",
        "scene_filter": None,
        "synthetic_sensors": f"{navhard}/sensor_blobs",
        **places,
        **roots,
        **steps,
    }
    assert judged.test_evaluator == {"type": "TwoStageMetric", "num_workers": 4, **places, **roots}
    for config in (plain, judged):
        for key in ("dataset", "test_evaluator"):
            (config.test_dataloader if key == "dataset" else config._cfg_dict).pop(key)
    assert judged._cfg_dict.pop("_places") == places  # (a name of the file, which nothing reads)
    assert plain._cfg_dict == judged._cfg_dict


class Recipe(NamedTuple):
    """What a publication says of a training."""

    optimizer: str
    lr: float
    weight_decay: float
    warmup: int | None
    eta_min: float | None
    span: int
    """Epochs that the schedule is computed for."""
    epochs: int
    batch: int
    processes: int
    is_mixed: bool
    clip: float | None


# MODELS, section 10, a row each, and METHOD, section 5. Image branches start from ImageNet weights, all else
# is random (MODELS, sections 2 and 10).
NAVSIM_V1 = Recipe("Adam", 1e-4, 0.0, None, None, 100, 100, 64, 1, True, None)
EGO_MLP = NAVSIM_V1._replace(span=50, epochs=50)
LTF_STAR = Recipe("AdamW", 2e-4, 0.0, 3, 1e-7, 100, 100, 4, 8, False, 50.0)
FLOW_POLICY = LTF_STAR._replace(lr=3e-4, warmup=2)
DIFFUSION = Recipe("AdamW", 6e-4, 1e-4, 3, 1e-6, 100, 100, 64, 8, True, None)
DIFFUSION_BD = DIFFUSION._replace(lr=2e-4, batch=8, is_mixed=False, clip=50.0)
WOTE = Recipe("AdamW", 1e-4, 1e-4, 3, 1e-6, 100, 30, 16, 8, True, None)
PUBLISHED = {
    "transfuser/transfuser_r34_1xb64-100e_navtrain.py": NAVSIM_V1,
    "ltf/ltf_r34_1xb64-100e_navtrain.py": NAVSIM_V1,
    "ego_mlp/ego_mlp_1xb64-50e_navtrain.py": EGO_MLP,
    "ltf/ltf-delta_r34_8xb4-100e_navtrain.py": LTF_STAR,
    "ltf/ltf-absolute_r34_8xb4-100e_navtrain.py": LTF_STAR,
    "ltf/ltf-beyonddrive_r34_8xb4-100e_navtrain.py": LTF_STAR,
    "flow_policy/flow_policy_r34_8xb4-100e_navtrain.py": FLOW_POLICY,
    "meanfuser/meanfuser_r34_8xb4-100e_navtrain.py": LTF_STAR,
    "meanfuser/meanfuser-beyonddrive_r34_8xb4-100e_navtrain.py": LTF_STAR,
    "diffusiondrive/diffusiondrive_r34_8xb64-100e_navtrain.py": DIFFUSION,
    "diffusiondrive/diffusiondrive-beyonddrive_r34_8xb8-100e_navtrain.py": DIFFUSION_BD,
    "wote/wote_r34_8xb16-30e_navtrain.py": WOTE,
    "wote/wote-beyonddrive_r34_8xb16-30e_navtrain.py": WOTE,
    # Our own planners, by recipes of others.
    "transfuser/transfuser-pillars_r34_8xb4-100e_navtrain.py": LTF_STAR,
    "transfuser/transfuser-pillars-centerpoint_r34_8xb4-100e_navtrain.py": LTF_STAR,
    "hydra_mdp/hydra_mdp_r34_8xb16-30e_navtrain.py": WOTE,
    "hydra_mdp/hydra_mdp-beyonddrive_r34_8xb16-30e_navtrain.py": WOTE,
}


def test_every_navtrain_config_is_in_the_table():
    assert set(PUBLISHED) == {name for name in CONFIGS if "navtrain" in name}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_settings_that_are_published(name):
    config, wanted = load_config(ROOT / name), PUBLISHED[name]
    wrapper, schedule = config.optim_wrapper, config.param_scheduler or {}
    optimizer = torch.optim.Adam if wanted.optimizer == "Adam" else torch.optim.AdamW
    settings = {key: value for key, value in wrapper.optimizer.items() if key != "type"}
    built = optimizer([torch.nn.Parameter(torch.zeros(1))], **settings)
    assert (built.defaults["betas"], built.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    assert wrapper.get("accumulative_counts", 1) == 1 and config.get("paramwise_cfg") is None
    found = Recipe(
        optimizer=wrapper.optimizer.type,
        lr=built.defaults["lr"],
        weight_decay=settings.get("weight_decay", 0.0),
        warmup=schedule.get("warmup"),
        eta_min=schedule.get("eta_min"),
        span=schedule.get("end", config.train_cfg.max_epochs),
        epochs=config.train_cfg.max_epochs,
        batch=config.train_dataloader.batch_size,
        processes=config.auto_scale_lr.base_batch_size // config.train_dataloader.batch_size,
        is_mixed={"OptimWrapper": False, "AmpOptimWrapper": True}[wrapper.type],
        clip=(wrapper.get("clip_grad") or {}).get("max_norm"),
    )
    assert found == wanted
    assert config.randomness.seed == 0
    encoders = {part: config.model.get("backbone", {}).get(f"{part}_encoder") for part in ("image", "bev")}
    if "r34" in name:
        assert encoders == {
            "image": {"type": "StagedResNet", "name": "resnet34", "pretrained": True},
            "bev": {"name": "resnet34"},
        }
    else:
        assert encoders == {"image": None, "bev": None}


@pytest.mark.parametrize("name", [name for name in CONFIGS if "xb" in name])
def test_a_name_says_the_recipe(name):
    config = load_config(ROOT / name)
    processes, batch, epochs = map(int, re.search(r"_(\d+)xb(\d+)-(\d+)e_", name).groups())
    assert config.train_dataloader.batch_size == batch and config.train_cfg.max_epochs == epochs
    assert config.auto_scale_lr == {"base_batch_size": processes * batch, "enable": False}
    assert ("r34" in name) == (
        config.model.get("backbone", {}).get("image_encoder", {}).get("name") == "resnet34"
    )
    assert ("beyonddrive" in name) == ("repulsion" in config.model)


def test_targets_of_planners_with_cameras_alone_are_those_in_view():
    loss = load_config("ltf_r34_1xb64-100e_navtrain").model.agent_head.loss
    assert loss.max_bearing == CAMERA_FIELD_OF_VIEW
