"""Trains the packed recipes side by side on a GPU: ``python results/effect/train.py PACKED OUT``.

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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.environment import environment
from beyonddrive.engine.together.packing import unpack_scenes
from beyonddrive.engine.together.scenes import SceneTensors
from beyonddrive.engine.together.training import Training, plans_of, train_together


class Store:
    """Fields of the packed files on a device, each there once."""

    def __init__(self, folder: Path, device: torch.device, limit: int | None = None) -> None:
        self.folder, self.device, self.limit = folder, device, limit
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
        return SceneTensors(tokens, {key: self._field(name, key, tokens) for key, name in fields.items()})

    def _field(self, name: str, key: str, tokens: tuple[str, ...]) -> torch.Tensor:
        place = (name, key, (tokens[0], str(len(tokens))))
        if place not in self._moved:
            scenes = self.file(name)
            value = scenes.fields[key]
            if scenes.tokens != tokens:
                row = {token: number for number, token in enumerate(scenes.tokens)}
                value = value[[row[token] for token in tokens]]
            self._moved[place] = value.to(self.device)
        return self._moved[place]


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packed", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then, with what is done")
    parser.add_argument("--rows", default="", help="only recipes whose name matches this expression")
    parser.add_argument("--scenes", type=int, help="only the first ones, to try the scripts out")
    parser.add_argument("--epochs", type=int, help="fewer, to try the scripts out")
    parser.add_argument(
        "--part", default="0/1", help="which part of the recipes, like 0/3; one process for each"
    )
    parser.add_argument("--weights", default="^$", help="keep weights of these runs, name/seed, are kept")
    args = parser.parse_args()
    start = time.monotonic()
    mmengine_compat.apply()
    init_default_scope("beyonddrive")
    MMLogger.get_instance("effect", log_level="ERROR")  # (mmengine tells of every weight of every planner)
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    store = Store(args.packed, device, args.scenes)
    judged = {
        loader: store.file(loader)
        for loader in ("test", "val")
        if (args.packed / f"{loader}.safetensors").exists()
    }
    judged = {k: store.scenes(dict.fromkeys(v.fields, k)) for k, v in judged.items()}
    print(
        f"{time.monotonic() - start:.1f} s: {', '.join(f'{len(v)} {k}' for k, v in judged.items())} scenes",
        flush=True,
    )

    trainings = []
    rows: dict[str, Any] = json.loads((args.packed / "rows.json").read_text())
    part, parts = map(int, args.part.split("/"))
    for number, (recipe, row) in enumerate(rows.items()):
        if number % parts != part or not re.search(args.rows, row["name"]):
            continue
        config = Config.fromstring(row["config"].replace("WORLD", str(args.packed)), ".py")
        if args.epochs:
            config.train_cfg.max_epochs = args.epochs
        trainings.append(Training(recipe, config, store.scenes(row["fields"]), range(args.seeds)))
    shuffled = next((t for t in trainings if rows[t.name]["name"] == "LTF"), None)
    if shuffled is not None:
        # A control that is no recipe: each scene gets the images of another one, in the test too.
        fields = dict(shuffled.scenes.fields)
        fields["inputs.camera"] = fields["inputs.camera"][shift(len(shuffled.scenes)).to(device)]
        other = SceneTensors(shuffled.scenes.tokens, fields)
        trainings.append(Training("shuffled", shuffled.config.copy(), other, range(args.seeds)))
        rows["shuffled"] = {"name": "LTF, images of other scenes", "plan": "planners"}
    print(f"{time.monotonic() - start:.1f} s: {len(trainings)} recipes, {args.seeds} seeds", flush=True)

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

    recording, training_s = train_together(trainings, device, keep, start + args.seconds)
    steps = sum(
        sum(map(len, t.losses.values())) * (len(t.scenes) // t.config.train_dataloader.batch_size)
        for t in trainings
    )
    print(f"recorded in {recording:.1f} s; {steps} steps of finished seeds in {training_s:.1f} s", flush=True)
    for training in trainings:
        if training.error is not None:
            print(f"failed: {rows[training.name]['name']}: {training.error!r}", flush=True)
    told = {
        "rows": {name: {"name": row["name"], "plan": row["plan"]} for name, row in rows.items()},
        "runs": finished,
        "failed": {t.name: repr(t.error) for t in trainings if t.error is not None},
        "seconds": {"recording": recording, "training": training_s, "all": time.monotonic() - start},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "peak memory [GB]": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None,
        "tokens": {loader: list(scenes.tokens) for loader, scenes in judged.items()},
        "made_with": environment(),
    }
    (args.out / f"runs-{part}.json").write_text(json.dumps(told))
    files = max(1, 4 // parts)
    for number in range(files):
        chosen = {key: value for index, (key, value) in enumerate(plans.items()) if index % files == number}
        with (args.out / f"plans-{part}-{number}.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **chosen)
    if weights:
        data = io.BytesIO()
        torch.save(
            {
                key: {k: v.half() if v.is_floating_point() else v for k, v in value.items()}
                for key, value in weights.items()
            },
            data,
        )
        (args.out / f"weights-{part}.pt").write_bytes(data.getvalue())
    print(f"{time.monotonic() - start:.1f} s: done", flush=True)


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
    main()
