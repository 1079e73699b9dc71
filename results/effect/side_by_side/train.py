"""Trains packed recipes side by side on a GPU: ``python results/effect/side_by_side/train.py PACKED OUT``.

Needs what pack.py wrote, and no world. Each recipe is trained with every seed, one after the other, all
recipes at the same time. ``OUT`` gets the plans of every run for the test and the validation split
(plans-*.npz, ``recipe/seed/loader`` -> (N, 8, 3) in mm), weights of the runs that ``--weights`` names, and
runs-*.json.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.environment import environment
from beyonddrive.engine.files import atomic_file, write_atomically
from beyonddrive.engine.together.packing import unpack_scenes
from beyonddrive.engine.together.scenes import SceneTensors
from beyonddrive.engine.together.training import Training, new_planner, plans_of, seed_by_seed, train_together


class Store:
    """Fields of the packed files on a device, each there once."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder, self.limit = folder, limit
        self.device = torch.device("cpu")
        self._files: dict[str, SceneTensors] = {}
        self._moved: dict[tuple[str, str, tuple[str, ...]], torch.Tensor] = {}

    def file(self, name: str) -> SceneTensors:
        """A packed file on the CPU."""
        if name not in self._files:
            scenes = unpack_scenes(self.folder / f"{name}.safetensors", torch.get_num_threads())
            self._files[name] = scenes if self.limit is None else scenes.rows(scenes.tokens[: self.limit])
        return self._files[name]

    def scenes(self, fields: dict[str, str]) -> SceneTensors:
        """Scenes with fields from several files: those of the file with the fewest."""
        tokens = min((self.file(name).tokens for name in set(fields.values())), key=len)
        held = {key: self._field(name, key, tokens) for key, name in fields.items()}
        lengths = dict.fromkeys(
            made for name in sorted({*fields.values()}) for made in self.file(name).lengths
        )
        return SceneTensors(tokens, held, tuple(lengths))

    def _field(self, name: str, key: str, tokens: tuple[str, ...]) -> torch.Tensor:
        place = (name, key, (tokens[0], str(len(tokens)), str(self.device)))
        if place not in self._moved:
            scenes = self.file(name)
            value = scenes.fields[key]
            if scenes.tokens != tokens:
                row = {token: number for number, token in enumerate(scenes.tokens)}
                value = value[[row[token] for token in tokens]]
            self._moved[place] = value.to(self.device)
        return self._moved[place]


def main() -> int:
    """Train; 1 if a recipe failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packed", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then, with what is done")
    parser.add_argument("--rows", default="", help="only recipes whose name matches this expression")
    parser.add_argument(
        "--first", nargs="*", default=[], help="recipes by name, in groups: those that come first"
    )
    parser.add_argument("--processes", type=int, default=8, help="that build planners")
    parser.add_argument("--width", type=int, default=24, help="trainings at a time")
    parser.add_argument("--scenes", type=int, help="only the first ones, to try the scripts out")
    parser.add_argument("--epochs", type=int, help="fewer, to try the scripts out")
    parser.add_argument(
        "--part", default="0/1", help="which part of the recipes, like 0/3; one process for each"
    )
    parser.add_argument("--weights", default="^$", help="keep weights of these runs, name/seed, are kept")
    args = parser.parse_args()
    part, parts = part_of(parser, args.part)
    start = time.monotonic()
    mmengine_compat.apply()
    init_default_scope("beyonddrive")
    MMLogger.get_instance("effect", log_level="ERROR")  # (mmengine tells of every weight of every planner)
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    store = Store(args.packed, args.scenes)
    chosen = []
    rows: dict[str, Any] = json.loads((args.packed / "rows.json").read_text())
    for number, (recipe, row) in enumerate(rows.items()):
        if number % parts == part and re.search(args.rows, row["name"]):
            config = Config.fromstring(row["config"].replace("WORLD", str(args.packed)), ".py")
            if args.epochs:
                config.train_cfg.max_epochs = args.epochs
            chosen.append((recipe, config, row["fields"]))
    if not chosen:
        parser.error(
            f"--part {args.part}, --rows {args.rows!r}: none of {len(rows)} recipes of {args.packed}; they "
            f"are {', '.join(row['name'] for row in rows.values())}"
        )
    asked = [(recipe, seed) for recipe, _, _ in chosen for seed in range(args.seeds)]
    _prepared.update({recipe: (config, store.scenes(fields)) for recipe, config, fields in chosen})
    with ProcessPoolExecutor(args.processes, mp_context=get_context("fork")) as pool:
        # (many planners to build: one process would take minutes, and no CUDA is to be there when it forks)
        made = dict(zip(asked, pool.map(first_weights, *zip(*asked, strict=True)), strict=True))
    judged = {
        key: store.file(key) for key in ("test", "val") if (args.packed / f"{key}.safetensors").exists()
    }
    print(f"{time.monotonic() - start:.1f} s: {len(made)} planners to train", flush=True)

    store.device = device
    judged = {k: store.scenes(dict.fromkeys(v.fields, k)) for k, v in judged.items()}
    trainings = []
    for recipe, config, fields in chosen:
        begin = {s: {k: torch.from_numpy(v) for k, v in made[recipe, s].items()} for s in range(args.seeds)}
        trainings.append(Training(recipe, config, store.scenes(fields), range(args.seeds), begin))
        if rows[recipe]["name"] == "LTF":
            # A control that is no recipe: each scene gets the images of another one, in the test too.
            own = dict(trainings[-1].scenes.fields)
            own["inputs.camera"] = own["inputs.camera"][shift(len(trainings[-1].scenes)).to(device)]
            other = replace(trainings[-1].scenes, fields=own)
            trainings.append(Training("shuffled", config.copy(), other, range(args.seeds), begin))
            rows["shuffled"] = {"name": "LTF, images of other scenes", "plan": "planners"}
    groups: list[list[Training]] = [[] for _ in range(len(args.first) + 1)]
    for training in trainings:
        name = rows[training.name]["name"]
        groups[next((n for n, text in enumerate(args.first) if re.search(text, name)), -1)].append(training)
    order = [run for group in groups for run in seed_by_seed(group)]
    print(
        f"{time.monotonic() - start:.1f} s: {len(order)} trainings of {len(trainings)} recipes; judged on "
        f"{', '.join(f'{len(v)} {k}' for k, v in judged.items())} scenes",
        flush=True,
    )

    plans: dict[str, np.ndarray[Any, Any]] = {}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    finished: list[dict[str, Any]] = []

    def keep(training: Training, seed: int, planner: Any) -> None:
        for loader, scenes in judged.items():
            if training.name == "shuffled":
                fields = dict(scenes.fields)
                fields["inputs.camera"] = fields["inputs.camera"][shift(len(scenes)).to(device)]
                scenes = SceneTensors(scenes.tokens, fields)
            plans[f"{training.name}/{seed}/{loader}"] = in_mm(plans_of(planner, scenes))
        if re.search(args.weights, f"{rows[training.name]['name']}/{seed}"):
            weights[f"{training.name}/{seed}"] = training.weights[seed]
        seconds = round(time.monotonic() - start, 1)
        finished.append(
            {"recipe": training.name, "seed": seed, "seconds": seconds, "losses": training.losses[seed]}
        )
        print(f"{seconds} s: {rows[training.name]['name']}, seed {seed}: {training.losses[seed]}", flush=True)

    begun = time.monotonic()
    steps = train_together(trainings, device, keep, start + args.seconds, args.width, order)
    seconds = time.monotonic() - begun
    print(f"{steps} steps in {seconds:.1f} s: {steps / seconds:.0f} a second", flush=True)
    for training in trainings:
        if training.error is not None:
            print(f"failed: {rows[training.name]['name']}: {training.error!r}", flush=True)
    told = {
        "rows": {name: {"name": row["name"], "plan": row["plan"]} for name, row in rows.items()},
        "runs": finished,
        "failed": {t.name: repr(t.error) for t in trainings if t.error is not None},
        "seconds": {"training": seconds, "all": time.monotonic() - start},
        "steps": steps,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "peak memory [GB]": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None,
        "tokens": {loader: list(scenes.tokens) for loader, scenes in judged.items()},
        "made_with": environment(),
    }
    files = max(1, 4 // parts)
    for number in range(files):
        some = {key: value for index, (key, value) in enumerate(plans.items()) if index % files == number}
        with atomic_file(args.out / f"plans-{part}-{number}.npz") as file:
            np.savez_compressed(file, allow_pickle=False, **some)
    if weights:
        data = io.BytesIO()
        torch.save(
            {
                key: {k: v.half() if v.is_floating_point() else v for k, v in value.items()}
                for key, value in weights.items()
            },
            data,
        )
        write_atomically(args.out / f"weights-{part}.pt", data.getvalue())
    # (last: who reads it finds the plans of its runs)
    write_atomically(args.out / f"runs-{part}.json", json.dumps(told).encode())
    print(f"{time.monotonic() - start:.1f} s: done", flush=True)
    return int(bool(told["failed"]))


def part_of(parser: argparse.ArgumentParser, text: str) -> tuple[int, int]:
    """Number of a part, from 0, and of all parts, of a text such as ``0/3``."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        parser.error(f"--part {text}: write PART/PARTS, from 0/3 to 2/3 for three")
    return int(part), int(parts)


_prepared: dict[str, tuple[Config, SceneTensors]] = {}
"""Recipes and scenes on the CPU, for the processes that build planners."""


def first_weights(recipe: str, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Weights that a training starts from."""
    torch.set_num_threads(1)
    planner = new_planner(_prepared[recipe][0], seed, _prepared[recipe][1])
    return {key: value.numpy() for key, value in planner.state_dict().items()}


def in_mm(plans: torch.Tensor) -> np.ndarray[Any, Any]:
    """Plans in whole millimetres and milliradians, which take half the bytes."""
    return (plans.double() * 1000).round().to(torch.int32).numpy()


def shift(count: int) -> torch.Tensor:
    """For each of the scenes the number of another one: a fixed shuffled cycle."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    other = torch.empty(count, dtype=torch.int64)
    other[order] = order.roll(1)
    return other


if __name__ == "__main__":
    raise SystemExit(main())
