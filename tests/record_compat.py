"""Record the artefacts of this version: ``python tests/record_compat.py``.

They go to ``tests/data/compat/<version>`` and stay there: ``test_compat.py`` reads those of every version as
users do. Training, caches and scores are of two golden scenes, whose data root is made anew each time.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from beyonddrive import cli
from beyonddrive.apis import init_planner, load_config
from beyonddrive.checkpoints.weight_files import write_weights
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.vocabulary_scores import VocabularyScores
from beyonddrive.engine.checkpoint_files import load_checkpoint_file
from beyonddrive.engine.environment import MADE_WITH
from beyonddrive.engine.runner import build_train_runner
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.pdm import score
from beyonddrive.evaluation.score_results import read_results
from beyonddrive.evaluation.statistics.score_table import RunKey, read_table, table_of, write_table
from beyonddrive.heads.plan_prior import plan_priors
from beyonddrive.registry import DATASETS, MODELS
from beyonddrive.structures.vocabulary import read_vocabulary
from beyonddrive.version import __version__
from beyonddrive.visualization.report import Report, render_report
from beyonddrive.visualization.report_inputs import (
    ScenePicture,
    read_coverage,
    read_picture_index,
    write_picture_index,
)
from beyonddrive.visualization.tables import summarise

GOLDEN = Path(__file__).parent / "data/golden/pdms/data"
COMPAT = Path(__file__).parent / "data/compat"
LOGS = ("2021.10.01.08.00.00_veh-g_straight_free.pkl", "2021.10.06.08.05.00_veh-g_curve2_gap.pkl")
PLANNERS = ("diffusiondrive", "flow_policy", "hydra_mdp", "ltf", "meanfuser", "transfuser", "wote")
NARROW = {
    "channels": (8, 8, 8, 8),
    "stem_width": 4,
    "num_heads": 2,
    "num_layers": 1,
    **dict.fromkeys(("dim", "in_channels", "hidden", "ffn_dim", "time_dim", "reward_hidden"), 16),
    **dict.fromkeys(("offset_ffn_dim", "offset_hidden"), 16),
    **dict.fromkeys(("offset_layers", "mixing_layers"), 1),
}
"""Settings of a tiny planner that are made smaller wherever they are, so that its weights are few."""
DATA = {
    "data_root": "data",
    "feature_pipeline": [
        {"type": "EgoStatus"},
        {"type": "PlanTarget"},
        {"type": "BEVMapTarget", "walkways": False},
    ],
    "cache_root": "stores",
    "feature_cache": "stores/features",
    **{f"{part}_dataloader.dataset.scene_filter": None for part in ("train", "val", "test")},
}
"""Settings of a config: where the scenes of :func:`make_data`, and what is stored of them, are."""


def make_data(folder):
    """The data root: two scenes in each of the splits train and test, one in val."""
    for split, logs in {"train": LOGS, "val": LOGS[:1], "test": LOGS}.items():
        (folder / "data/navsim_logs" / split).mkdir(parents=True)
        for log in logs:
            shutil.copy(GOLDEN / "navsim_logs/golden" / log, folder / "data/navsim_logs" / split)
    (folder / "data/maps").symlink_to(GOLDEN / "maps")


def narrowed(settings):
    """Settings of a model with less of everything that costs weights."""
    if isinstance(settings, dict):
        return {
            key: NARROW[key] if key in NARROW and settings[key] is not None else narrowed(value)
            for key, value in settings.items()
        }
    return settings


def inputs_of(planner):
    """Fixed inputs of one scene that need no random numbers."""

    def wave(*shape):
        count = int(np.prod(shape))
        return (0.5 + 0.5 * torch.sin(0.37 * torch.arange(count) ** 1.1)).reshape(1, *shape)

    backbone = getattr(planner, "backbone", None)
    inputs = {"status": wave(8)}
    if backbone is not None:
        inputs["camera"] = wave(3, *backbone.image_size)
    if "lidar" in planner.required_inputs:
        inputs["lidar"] = wave(backbone.lidar_channels, *backbone.bev_size)
    return inputs


def plan_of(planner):
    """The plan (8, 3) for these inputs."""
    with torch.no_grad():
        return planner(inputs_of(planner), mode="tensor")["trajectory"][0].double().numpy()


def readings(folder):
    """What is read of a version's artefacts, by what it is of: names and lists of numbers.

    Args:
        folder: That version's; the current folder has the data that :func:`make_data` makes.
    """
    found = {}
    for path in sorted((folder / "planners").glob("*.py")):
        (weights,) = [other for other in path.parent.glob(f"{path.stem}.*") if other != path]
        found[f"planners/{path.stem}"] = plan_of(init_planner(path, weights))
    found["resumed"] = resumed(folder)
    config = load_config(folder / "planners/ego_mlp.py")
    dataset = DATASETS.build({**config.test_dataloader.dataset, "cache_dir": folder / "features"})
    for index, token in enumerate(dataset.tokens):
        features = dataset.features(index)
        found[f"features/{token}"] = np.append(features["status"], features["bev_semantic_map"].mean())
    caches = MetricCaches("test", None, folder / "metrics")
    pool = NegativePool(folder / "pool", {"split": "train", "generator": "ego_mlp"})
    vocabulary = read_vocabulary(folder / "vocabulary.npz", 2)
    scores = VocabularyScores(folder / "vocabulary_scores", folder / "vocabulary.npz", "train")
    for token in sorted(dataset.tokens):
        found[f"metrics/{token}"] = score(caches[token], vocabulary.plans.astype(np.float64)).values
        found[f"pool/{token}"] = np.append(pool[token].plans[:, -1], pool[token].scores[:, [0, 6]])
        found[f"vocabulary_scores/{token}"] = scores[token]
    found["vocabulary"] = vocabulary.plans[:, -1]
    tables = {name: folder / f"{name}.csv" for name in ("results", "table_scenes/pdms", "table_scenes/epdms")}
    for name, path in tables.items():
        (row,) = rows = summarise([read_results(name, path)])
        found[name] = row.percent
        assert row.scored is not None and row.scored.num_scenes == 2
    coverage, pictures = read_coverage(folder / "pool/coverage.json"), read_picture_index(folder / "pictures")
    page = render_report(Report("Compatibility", rows, {"train": 1.0}, coverage, pictures))
    found["report"] = [page.count(text) for text in ("<img", "ego_mlp", f"{coverage['num_proposals']}")]
    for name in ("plans", "scores"):
        with np.load(folder / f"{name}.npz") as archive:
            for token in sorted(archive.files):
                found[f"{name}/{token}"] = archive[token].reshape(-1, archive[token].shape[-1])[-1]
    found["sweep"] = read_table(folder, "val").values
    return {name: np.asarray(values, np.float64).ravel().tolist() for name, values in found.items()}


def resumed(folder):
    """Weights of the training of two epochs that stopped after the first one, when it has gone on."""
    Path("again").mkdir()
    shutil.copy(folder / "planners/ego_mlp.pth", "again/epoch_1.pth")
    Path("again/last_checkpoint").write_text("again/epoch_1.pth")
    options = {"train_dataloader.dataset.cache_dir": None}
    options |= dict.fromkeys(("val_cfg", "val_dataloader", "val_evaluator"))
    config = load_config(folder / "planners/ego_mlp.py", options)
    runner = build_train_runner(config, work_dir="again", resume=True)
    runner.train()
    assert runner.iter == 2
    state = load_checkpoint_file("again/epoch_2.pth")["state_dict"]
    return torch.cat([value.flatten()[:8] for value in state.values()])


def record(folder):
    """Make the artefacts; works in the current folder, so that no path of this machine is in them."""
    make_data(Path())
    (folder / "planners").mkdir(parents=True)
    for family in PLANNERS:
        config = load_config(f"{family}_tiny_1xb16-12e_synth")
        config.model = narrowed(config.model.to_dict())
        config.dump(folder / f"planners/{family}.py")
        torch.manual_seed(0)
        planner = MODELS.build(config.model)
        experts = np.random.default_rng(0).normal(size=(100, 8, 3)).cumsum(axis=1)
        for prior in plan_priors(planner):
            prior.fit(experts)
        half = {k: v.half() if v.is_floating_point() else v for k, v in planner.state_dict().items()}
        write_weights(folder / f"planners/{family}.safetensors", half, {"planner": type(planner).__name__})
    config = load_config("ego_mlp_1xb16-12e_synth", DATA)
    config.model.update(hidden=16, num_layers=1)
    config.train_dataloader.batch_size = 2
    config.train_cfg.update(max_epochs=2, val_interval=2)
    config.dump("ego_mlp.py")
    verbs = [
        "cache-features ego_mlp.py",
        "cache-metrics ego_mlp.py",
        "train ego_mlp.py --work-dir work",
        "test ego_mlp.py work/epoch_1.pth --work-dir test --out results.csv --plans plans.npz",
        "mine ego_mlp.py work/epoch_1.pth --out pool --num-workers 0 --strategy type=OwnPlans "
        "num_proposals=4",
        "build-vocabulary ego_mlp.py train --size 2 --out vocabulary.npz",
        "score-vocabulary ego_mlp.py train vocabulary.npz --out vocabulary_scores --num-workers 0",
        "score --data-root data --split test --plans plans.npz --out scores.npz --num-workers 0",
        "score --data-root data --split test --plans plans.npz --out table --num-workers 0 "
        "--basis pdms,epdms",
    ]
    for words in verbs:
        assert cli.main(words.split()) == 0, words
    Path("pictures").mkdir()
    cv2.imwrite("pictures/a.png", np.zeros((2, 2, 3), np.uint8))
    write_picture_index(Path("pictures"), [ScenePicture("a", "log", "ego_mlp", Path("a.png"))])
    write_table(Path(), "val", table_of({RunKey("a", 0): {"x": [1.0, 0.5]}}, ["NC", "PDMS"]))
    shutil.copy("work/epoch_1.pth", folder / "planners/ego_mlp.pth")
    shutil.copy("ego_mlp.py", folder / "planners")
    shutil.copytree("stores/features/test", folder / "features")
    shutil.copytree("stores/metrics/test", folder / "metrics")
    for name in ("pool", "vocabulary_scores", "table_scenes", "pictures"):
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns(f"*{MADE_WITH}"))
    for name in ("results.csv", "plans.npz", "scores.npz", "scores_val.npz", "vocabulary.npz"):
        shutil.copy(name, folder)
    (folder / "expected.json").write_text(json.dumps(readings(folder), indent=1) + "\n")


if __name__ == "__main__":
    target = COMPAT / __version__
    if target.exists():
        sys.exit(f"{target} is there already, and what a version wrote does not change")
    with tempfile.TemporaryDirectory(prefix="beyonddrive-") as work:
        os.chdir(work)
        record(target)
    print(target, sum(path.stat().st_size for path in target.rglob("*")), "bytes")
