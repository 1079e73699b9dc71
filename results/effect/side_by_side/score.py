"""Scores the plans that train.py left: ``python results/effect/side_by_side/score.py WORLD TRAINED OUT``.

All plans of a scene are scored at once. ``OUT`` gets a folder for each plan of `results/effect`, as
``beyonddrive sweep --out`` lays it out, so that ``beyonddrive sweep --report-only`` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.sweeps.folder import runs_of
from beyonddrive.engine.sweeps.records import made_from, write_record
from beyonddrive.evaluation.plan_files import read_label
from beyonddrive.evaluation.score_labels import ScoreLabel
from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv
from beyonddrive.results.effect.side_by_side.pack import PLANS, plan_of
from beyonddrive.structures.plan import SCORE_COLUMNS

LOADERS = ("test", "val")


def main() -> None:
    """Score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num-workers", default="2")
    args = parser.parse_args()
    told, plans = read_trained(args.trained)
    done = {(run["recipe"], run["seed"]): run for run in told["runs"]}
    keys = sorted(done)
    scores, labels = {}, {}
    for loader in LOADERS:
        tokens = told["tokens"][loader]
        stacked = np.stack([plans[f"{recipe}/{seed}/{loader}"] for recipe, seed in keys], axis=1)
        scores[loader], labels[loader] = score(args, loader, dict(zip(tokens, stacked, strict=True)))
    for name in PLANS:
        plan = plan_of(name, args.world)
        for run in runs_of(plan, args.out / name):
            if (found := done.get((run.recipe, run.seed))) is None:
                continue
            column = keys.index((run.recipe, run.seed))
            for loader in LOADERS:
                found_scenes = [ScoredScene(token, "", v[column]) for token, v in scores[loader].items()]
                text = scenes_to_csv(found_scenes, SCORE_COLUMNS, labels[loader])
                write_atomically(run.results(loader), text.encode())
            record = {
                **made_from(run),
                "checkpoint": "last epoch",
                "seconds": {},
                "losses": found["losses"],
                "made_with": {**told["made_with"], "device": told["device"]},
            }
            write_record(run, record)
    for recipe, seed in keys:
        if recipe == "shuffled":
            print(
                "shuffled",
                seed,
                np.mean([s[keys.index((recipe, seed))] for s in scores["test"].values()], axis=0),
            )


def read_trained(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What all parts tell of their runs, and plans (N, 8, 3) by ``recipe/seed/loader``.

    Raises:
        SystemExit: If there is no run, one is in two parts, or parts were judged on different scenes, as
            where an earlier training left files of parts that the later one does not have.
    """
    parts = {path: json.loads(path.read_text()) for path in sorted(folder.glob("runs-*.json"))}
    runs: dict[tuple[str, int], Path] = {}
    remedy = "delete the files of earlier trainings (runs-*, plans-*), or train into another folder"
    for path, part in parts.items():
        if part["tokens"] != next(iter(parts.values()))["tokens"]:
            raise SystemExit(f"score: {path}: was judged on other scenes than {next(iter(parts))}; {remedy}")
        for run in part["runs"]:
            if (other := runs.setdefault((run["recipe"], run["seed"]), path)) != path:
                name = f"{part['rows'][run['recipe']]['name']}, seed {run['seed']}"
                raise SystemExit(f"score: {path}: has {name}, as {other} has; {remedy}")
    if not runs:
        raise SystemExit(f"score: {folder}: holds no run (runs-*.json) that was trained to its end")
    plans: dict[str, Any] = {}
    for path in sorted(folder.glob("plans-*.npz")):
        with np.load(path) as archive:
            plans |= {key: archive[key] / 1000.0 for key in archive.files}
    told = {**next(iter(parts.values())), "runs": [run for part in parts.values() for run in part["runs"]]}
    return told, plans


def score(
    args: argparse.Namespace, split: str, plans: dict[str, Any]
) -> tuple[dict[str, Any], ScoreLabel | None]:
    """Scores (N, 7) of the plans (N, 8, 3) of every scene, by ``beyonddrive score``, and their label."""
    folder = args.trained / "scores"
    folder.mkdir(exist_ok=True)
    given, made = folder / f"{split}-plans.npz", folder / f"{split}-scores.npz"
    np.savez(given, **plans)
    command = ["-m", "beyonddrive", "score", "--data-root", str(args.world), "--split", split]
    command += ["--plans", str(given), "--out", str(made), "--num-workers", args.num_workers]
    command += ["--cache-dir", str(args.world / "cache" / "metrics" / split)]
    subprocess.run([sys.executable, *command], check=True)
    with np.load(made) as archive:
        return {token: archive[token] for token in plans}, read_label(made)


if __name__ == "__main__":
    main()
