"""Packs what trainings of the plans need on a GPU: ``python results/effect/side_by_side/pack.py WORLD OUT``.

``WORLD`` is the generated world with its caches and pool (../README.md). ``OUT`` gets the scenes and
``rows.json``: for each distinct recipe its config with all values, and where each field of its samples is.
Rows whose samples cannot be packed so are left out, and it is said why: ``beyonddrive sweep`` trains them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from beyonddrive.engine.config_values import OptionText
from beyonddrive.engine.configs import load_config
from beyonddrive.engine.files import write_atomically
from beyonddrive.engine.sweeps.folder import runs_of
from beyonddrive.engine.sweeps.plan import SweepPlan, read_plan
from beyonddrive.engine.together.packing import pack_scenes, unpack_scenes
from beyonddrive.engine.together.scenes import SceneTensors, TogetherError
from beyonddrive.registry import DATASETS, TRANSFORMS
from beyonddrive.structures.digests import sha256_of
from beyonddrive.structures.errors import BeyondDriveError

PLAN_FOLDER = Path(__file__).parents[1]
PLANS = ("planners", "ablations", "controls", "sizes")
WIDEST = "wote_tiny_1xb16-12e_synth"
"""A config whose samples have all inputs and targets that others have, but for negatives."""
GIVEN = {"gt.trajectory": "trajectory", "inputs.status": "status"}
"""What the steps of a pipeline are given, and what they call it."""
MADE_FROM = "made_from.json"
"""File of OUT that says of which world its scenes are."""
IMAGE_QUALITY = 75
"""Of WebP: what a machine takes along is limited."""
MADE_BY = {
    "LoadCameraStitch": ("inputs.camera",),
    "LoadLidarHistogram": ("inputs.lidar",),
    "AgentTargets": ("gt.agent_states", "gt.agent_labels"),
    "BEVMapTarget": ("gt.bev_semantic_map",),
    "FutureBEVMapTarget": ("gt.future_bev_semantic_map",),
}


def plan_of(name: str, world: Path) -> SweepPlan:
    """A plan of this folder, its rows set to the world."""
    plan = read_plan(PLAN_FOLDER / f"{name}.yml")
    rows = [replace(row, options={"data_root": str(world), **row.options}) for row in plan.rows]
    return replace(plan, rows=tuple(rows))


def digest(node: Any) -> str:
    """A short name for a config node."""
    return hashlib.blake2b(json.dumps(node, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()


def claim(out: Path, world: Path) -> None:
    """Begin, or go on with, a folder of the scenes of a world.

    Raises:
        SystemExit: If the folder has scenes of another one, or does not say of which.
    """
    wanted = {"world": sha256_of(world / "synth.json")}
    path = out / MADE_FROM
    there = json.loads(path.read_text()) if path.exists() else None
    if (there is None and any(out.glob("*.safetensors"))) or there not in (None, wanted):
        raise SystemExit(f"pack: {out}: has scenes of another world than {world}; name another folder")
    write_atomically(path, json.dumps(wanted).encode())


def without_place(text: str, world: Path) -> str:
    """A config as text, with ``WORLD`` where values say where the world is.

    >>> without_place("{'data_root': 'data', 'pool': 'data/pool'}", Path("data"))
    "{'data_root': 'WORLD', 'pool': 'WORLD/pool'}"
    """
    return re.sub(rf"(?<=['\"]){re.escape(str(world))}(?=['\"/])", "WORLD", text)


def main() -> None:
    """Pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    claim(args.out, args.world)

    options = plan_of("planners", args.world).rows[0].options
    widest = load_config(WIDEST, {key: OptionText(value) for key, value in options.items()})
    for loader, parts in (("train", ("inputs", "gt")), ("test", ("inputs",)), ("val", ("inputs",))):
        path = args.out / f"{loader}.safetensors"
        if not path.exists():
            dataset = DATASETS.build(widest[f"{loader}_dataloader"].dataset)
            scenes = SceneTensors.read(dataset, parts)
            scenes = scenes.select([key for key in scenes.fields if not key.startswith("gt.vocabulary")])
            print(path, pack_scenes(scenes, path, IMAGE_QUALITY), "bytes", flush=True)
    train = unpack_scenes(args.out / "train.safetensors")
    rows: dict[str, Any] = {}
    sources: dict[str, dict[str, str]] = {}
    for name in PLANS:
        plan = plan_of(name, args.world)
        for run in runs_of(plan, args.out / "configs" / name):
            if run.seed or run.weights or not run.is_trained or run.recipe in rows:
                continue
            config = load_config(run.config, {key: OptionText(value) for key, value in run.options.items()})
            settings = config.train_dataloader.dataset
            key = digest(settings.to_dict())
            try:
                for loader in ("val", "test"):
                    made_by_steps(config[f"{loader}_dataloader"].dataset, train.rows(train.tokens[:1]))
                if key not in sources:
                    made = {step["type"] for step in settings.feature_pipeline}
                    skipped = {field for step, own in MADE_BY.items() if step not in made for field in own}
                    scenes = train
                    if settings.scene_filter != widest.train_dataloader.dataset.scene_filter:
                        scenes = train.rows(_tokens(settings))
                    sources[key] = sources_of(settings, skipped, key, scenes, train, args.out)
            except BeyondDriveError as error:
                print(f"left out: {name}, {run.row}: {error}", flush=True)
                continue
            rows[run.recipe] = {
                "name": run.row,
                "plan": name,
                "config": without_place(config.dump(), args.world),
                "fields": sources[key],
            }
            print(run.recipe, name, run.row, flush=True)
    shutil.copytree(args.world / "vocabularies", args.out / "vocabularies", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("scores_*"))  # fmt: skip
    (args.out / "rows.json").write_text(json.dumps(rows, indent=1))


def _tokens(settings: Any) -> list[str]:
    """Scenes of a row that trains on others than the widest does."""
    light = [{"type": "EgoStatus"}, {"type": "PlanTarget"}]
    dataset = DATASETS.build({**settings, "feature_pipeline": light, "cache_dir": None, "negatives": None})
    return [str(dataset.get_data_info(index)["token"]) for index in range(len(dataset))]


def sources_of(
    settings: Any, skipped: set[str], key: str, scenes: SceneTensors, train: SceneTensors, out: Path
) -> dict[str, str]:
    """Which file has which field of a row's samples; writes those that no file has yet.

    Raises:
        TogetherError: As :func:`made_by_steps`.
    """
    own = made_by_steps(settings, scenes)
    # (nothing reads the scores of negatives in training)
    rest = sorted(field for field in own.fields if field not in {*GIVEN, "negatives.scores"})
    found = {field: "train" for field in train.fields if field not in skipped}
    if not rest and len(scenes) < len(train):
        rest = ["gt.trajectory"]
    if rest:
        path = out / f"part-{key}.safetensors"
        pack_scenes(own.select(rest), path)
        found |= dict.fromkeys(rest, path.stem)
    return found


def made_by_steps(settings: Any, scenes: SceneTensors) -> SceneTensors:
    """What the pipeline of a row makes of the experts and the status of scenes.

    Raises:
        TogetherError: If the row's samples are not those that are packed, with more fields: its data set is
            another one, or a step draws anew in every epoch or changes what it is given.
    """
    if settings.type != "NavsimDataset":
        raise TogetherError(
            f"{settings.type}: makes other samples than those that are packed; beyonddrive sweep trains it"
        )
    steps = list(settings.pipeline)
    if settings.get("negatives"):
        steps.insert(0, {"type": "LoadNegatives", "split": settings.split, **settings.negatives})
    given = scenes.select(list(GIVEN))
    own = SceneTensors.read(Targets(given, [TRANSFORMS.build(dict(step)) for step in steps]))
    for field, value in given.fields.items():
        if field in own.fields and not torch.equal(own.fields[field], value):
            raise TogetherError(
                f"{', '.join(step['type'] for step in steps)}: {field} is not what is packed; beyonddrive "
                "sweep trains it"
            )
    return own


class Targets:
    """What the steps of a pipeline make of a scene's expert and status."""

    def __init__(self, scenes: SceneTensors, transforms: list[Any]) -> None:
        self.scenes, self.transforms = scenes, transforms

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Any:
        results: Any = {name: self.scenes.fields[field][index].numpy() for field, name in GIVEN.items()}
        results["token"] = self.scenes.tokens[index]
        for step in self.transforms:
            results = step(results)
        return results


if __name__ == "__main__":
    main()
