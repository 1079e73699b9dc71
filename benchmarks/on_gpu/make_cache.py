"""What trainings on a machine without data read: ``python -m beyonddrive.benchmarks.on_gpu.make_cache OUT``.

OUT becomes a data root of the twelve golden scenes of this checkout, all of them in the split ``train``: the
feature caches of the tiny recipes, vocabularies with the scores of their plans, and a pool of negatives.
Sensor files are made up here and left out of OUT, for the caches hold what came of them. The same checkout
gives the same scenes, plans and scores.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyogrio

import beyonddrive
from beyonddrive.benchmarks.on_gpu.recipes import options_of, spelled, tiny_recipes
from beyonddrive.datasets.navsim.plain_pickle import load_plain_pickle
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.configs import load_config
from beyonddrive.tests.sensor_files import write_sensors
from beyonddrive.tools import cache_features, mine_negatives, score_vocabulary, train

CHECKOUT = Path(beyonddrive.__path__[0])
GOLDEN = CHECKOUT / "tests" / "data" / "golden" / "pdms" / "data"
GENERATOR = str(CHECKOUT / "configs" / "flow_policy" / "flow_policy_tiny_1xb16-12e_synth.py")
VOCABULARIES = (32, 64)
MADE_HERE = ("sensor_blobs",)
"""What OUT does not keep."""


def write_scenes(root: Path) -> None:
    """Logs, maps, sensor files and vocabularies."""
    for number, log in enumerate(sorted((GOLDEN / "navsim_logs" / "golden").glob("*.pkl"))):
        (root / "navsim_logs" / "train").mkdir(parents=True, exist_ok=True)
        shutil.copy(log, root / "navsim_logs" / "train")
        write_sensors(root / "sensor_blobs" / "train", load_plain_pickle(log)[3], number)
    shutil.copytree(GOLDEN / "maps", root / "maps", copy_function=shutil.copyfile)
    for path in (root / "maps").rglob("*.gpkg"):
        if "lanes_polygons" in pyogrio.list_layers(path)[:, 0]:  # a golden map that lacks what targets read
            meta, _, lanes, _ = pyogrio.raw.read(path, layer="lanes_polygons")
            no = {"geometry": lanes[:0], "field_data": [], "fields": [], "geometry_type": "Polygon"}
            pyogrio.raw.write(path, **no, layer="walkways", append=True, crs=meta["crs"])
    (root / "scene_filters").mkdir()
    (root / "scene_filters" / "train.yaml").write_text("has_route: true\n")
    experts = np.stack([scene.expert_plan for scene in NavsimRoot(root).scenes("train")])
    (root / "vocabularies").mkdir()
    for size in VOCABULARIES:
        plans = np.concatenate([experts * scale for scale in np.linspace(0.1, 1.2, 11)])[:size]
        np.savez(root / "vocabularies" / f"plans_{size}.npz", plans=plans.astype(np.float32))


def run(tool: object, *arguments: object) -> None:
    """Run a verb.

    Raises:
        RuntimeError: If it refuses.
    """
    if tool.main([str(argument) for argument in arguments]) != 0:  # type: ignore[attr-defined]
        raise RuntimeError(f"{tool.__name__} failed with {arguments}")  # type: ignore[attr-defined]


def make(root: Path, recipes: Sequence[str] | None = None) -> None:
    """Fill a folder that does not exist yet; with ``recipes``, by their feature caches alone."""
    write_scenes(root)
    made = set()
    for recipe in recipes or tiny_recipes():
        options = spelled(options_of(recipe, root))
        cache = load_config(recipe, {"data_root": str(root)}).train_dataloader.dataset.get("cache_dir")
        if cache and cache not in made:
            made.add(cache)
            run(cache_features, recipe, "--loaders", "train", "--num-workers", 0, "--cfg-options", *options)
    if not recipes:
        score_and_mine(root)
    for name in MADE_HERE:
        shutil.rmtree(root / name)


def score_and_mine(root: Path) -> None:
    """Scores of the vocabularies, and the pool of negatives of a generator that is trained for it."""
    for size in VOCABULARIES:
        plans = root / "vocabularies" / f"plans_{size}.npz"
        store = root / "vocabularies" / f"scores_{size}" / "train"
        run(
            score_vocabulary, GENERATOR, "train", plans, "--out", store, "--num-workers", 0, "--cfg-options",
            f"data_root={root}",
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run(
            train, GENERATOR, "--work-dir", folder, "--cfg-options", *spelled(options_of(GENERATOR, root)),
            "train_cfg.max_epochs=1",
        )  # fmt: skip
        run(
            mine_negatives, GENERATOR, Path(folder) / "epoch_1.pth", "--out", root / "pool" / "train",
            "--num-workers", 0, "--cfg-options", *spelled(options_of(GENERATOR, root)),
            "negative_mining.strategy.num_proposals=8",
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Make OUT, whole or not at all."""
    parser = argparse.ArgumentParser(description="Feature caches of tiny trainings.")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument(
        "--recipes", nargs="+", help="only the feature caches of these recipes, without scores and negatives"
    )
    args = parser.parse_args(argv)
    out: Path = args.out.absolute()
    if out.exists():
        parser.error(f"{out}: is there already")
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    make(partial, args.recipes)
    partial.replace(out)
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
