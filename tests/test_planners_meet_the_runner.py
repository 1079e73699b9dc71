"""Every tiny recipe as a user runs it: caches, vocabulary, pool, two epochs with validation, an evaluation.

The recipes are those of ``configs/*/*synth*.py``, found by themselves, in a folder whose ``data/synth`` holds
twelve golden scenes with sensor files made here instead of a generated world.
"""

import csv
import json
import pickle
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pyogrio
import pytest

import beyonddrive
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.configs import load_config
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.tests.sensor_files import write_sensors
from beyonddrive.tools import cache_features, cache_metrics, mine_negatives, score_vocabulary, test, train

CONFIGS = Path(beyonddrive.__path__[0]) / "configs"
GOLDEN = Path(__file__).parent / "data" / "golden" / "pdms" / "data"
RECIPES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("*/*synth*.py"))
GENERATOR = "flow_policy/flow_policy_tiny_1xb16-12e_synth.py"
POOL = "data/synth/pool/train"
SHORT = ["train_cfg.max_epochs=2", "train_cfg.val_interval=1", "train_dataloader.batch_size=3"]
SIZES = {
    "TruncatedDiffusionHead": ["num_anchors=4"],
    "MeanFlowHead": ["num_components=4", "num_proposals=4"],
}
"""Heads that start from clusters of the experts, of whom there are six."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder to run in: splits train, val and test of 6, 3 and 3 scenes, and vocabularies of plans."""
    folder = tmp_path_factory.mktemp("recipes")
    root = folder / "data" / "synth"
    for number, log in enumerate(sorted((GOLDEN / "navsim_logs/golden").glob("*.pkl"))[:12]):
        split = "train" if number < 6 else "val" if number < 9 else "test"
        (root / "navsim_logs" / split).mkdir(parents=True, exist_ok=True)
        shutil.copy(log, root / "navsim_logs" / split)
        write_sensors(root / "sensor_blobs" / split, pickle.loads(log.read_bytes())[3], number)
    shutil.copytree(GOLDEN / "maps", root / "maps", copy_function=shutil.copyfile)
    for path in (root / "maps").rglob("*.gpkg"):
        if "lanes_polygons" in pyogrio.list_layers(path)[:, 0]:  # a golden map that lacks what targets read
            meta, _, lanes, _ = pyogrio.raw.read(path, layer="lanes_polygons")
            no = {"geometry": lanes[:0], "field_data": [], "fields": [], "geometry_type": "Polygon"}
            pyogrio.raw.write(path, **no, layer="walkways", append=True, crs=meta["crs"])
    (root / "scene_filters").mkdir()
    for split in ("train", "val", "test"):
        (root / "scene_filters" / f"{split}.yaml").write_text("has_route: true\n")
    experts = np.stack([scene.expert_plan for scene in NavsimRoot(root).scenes("train")])
    (root / "vocabularies").mkdir()
    for size in (32, 64):
        plans = np.concatenate([experts * scale for scale in np.linspace(0.1, 1.2, 11)])[:size]
        np.savez(root / "vocabularies" / f"plans_{size}.npz", plans=plans.astype(np.float32))
    return folder


def run(tool, *arguments):
    assert tool.main([str(argument) for argument in arguments]) == 0, arguments


def options(*values):
    return ["--cfg-options", *values] if values else []


@cache
def caches(recipe):
    """Fill the caches that a recipe reads; those that other recipes have filled are passed over."""
    config = load_config(CONFIGS / recipe)
    loaders = [name for name in ("train", "val", "test") if config.get(f"{name}_dataloader")]
    if any(config[f"{name}_dataloader"].dataset.get("cache_dir") for name in loaders):
        run(cache_features, CONFIGS / recipe, "--loaders", *loaders, "--num-workers", 0)
    run(cache_metrics, CONFIGS / recipe, "--loaders", *loaders[-2:], "--num-workers", 0)
    return config


@cache
def vocabulary_scores(store, vocabulary):
    run(score_vocabulary, CONFIGS / GENERATOR, "train", vocabulary, "--out", store, "--num-workers", 0)


@cache
def pool():
    """Negatives of the generator of the suite, itself trained for two epochs here."""
    work_dir, _ = trained(GENERATOR)
    few = options("negative_mining.strategy.num_proposals=8")
    run(
        mine_negatives, CONFIGS / GENERATOR, work_dir / "epoch_2.pth", "--out", POOL, "--num-workers", 0, *few
    )


@cache
def trained(recipe):
    """Work folder and options of two epochs."""
    config = caches(recipe)
    for step in config.train_dataloader.dataset.pipeline:
        if step.type == "LoadVocabularyScores":
            vocabulary_scores(step.store, step.vocabulary)
    if (config.train_dataloader.dataset.get("negatives") or {}).get("pool"):
        pool()
    given = list(SHORT)
    head = config.model.get("trajectory_head", {}).get("type")
    given += [f"model.trajectory_head.{size}" for size in SIZES.get(head, ())]
    if "online_negatives" in config.default_hooks:
        given += [f"default_hooks.online_negatives.{value}" for value in ("interval=1", "num_workers=0")]
    work_dir = Path("work_dirs") / Path(recipe).stem
    run(train, CONFIGS / recipe, *options(*given))
    return work_dir, tuple(given)


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_tiny_recipe_trains_validates_and_is_evaluated(recipe, here, capfd):
    if "pillars" in recipe:
        pytest.importorskip("mmdet3d")
    config = caches(recipe)
    arguments = [CONFIGS / recipe]
    given = ()
    if config.get("train_dataloader") is not None:
        work_dir, given = trained(recipe)
        (scalars,) = work_dir.glob("*/vis_data/scalars.json")
        lines = [json.loads(line) for line in scalars.read_text().splitlines()]
        validations = [line for line in lines if "pdms/PDMS" in line]
        assert [line["step"] for line in validations] == [1, 2]
        for line in validations:
            assert (line["pdms/num_scenes"], line["pdms/num_failed"]) == (3, 0)
            assert 0 <= line["pdms/PDMS"] <= 100
        assert (work_dir / "epoch_2.pth").is_file()
        (best,) = work_dir.glob("best_pdms_PDMS_epoch_*.pth")
        arguments.append(best)
    capfd.readouterr()
    test_options = [value for value in given if value.startswith("model.")]
    run(test, *arguments, "--out", "rows.csv", "--plans", "plans.npz", *options(*test_options))
    with Path("rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and not any(row["error"] for row in rows)
    mean = 100 * np.mean([float(row[SCORE_COLUMNS[-1]]) for row in rows])
    assert f"PDMS  {mean:>7.2f}" in capfd.readouterr().out
    with np.load("plans.npz") as plans:
        assert sorted(plans) == sorted(row["token"] for row in rows)
        assert all(plans[token].shape == (1, 8, 3) for token in plans)


def test_every_folder_of_recipes_has_a_tiny_one():
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert {recipe.split("/")[0] for recipe in RECIPES} == folders
