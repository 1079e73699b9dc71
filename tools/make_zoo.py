"""Make a zoo of trained planners: ``beyonddrive make-zoo WORK_DIRS ... --out FOLDER``.

WORK_DIRS are folders with the work folders of trainings by published configs, at any depth. FOLDER gets the
checkpoint of the last epoch of each, or with ``--checkpoint best`` the one marked as best, without optimiser
and logs, as ``CONFIG.safetensors``, an index, and checksums; ``init_planner(CONFIG, "zoo", zoo=FOLDER)``
reads it.

A training whose model is not that of the published config is refused; other settings that differ, such as
fewer epochs, are written into the index. Nothing is written if anything is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.tools._command_line import command_parser, refuse_file, run_command

if TYPE_CHECKING:
    from mmengine.config import Config

    from beyonddrive.checkpoints.zoo import Released

_RECIPE = ("optim_wrapper", "param_scheduler", "train_cfg", "train_dataloader.batch_size")
"""Settings whose differences from the published config the index tells."""
_PROVENANCE = ("seed", "processes", "git", "data", "validation")
"""What the index takes over from the ``run.json`` of a training."""
_CONFIG_OF_START = "vis_data/config.py"
"""Recipe of a start, in the folder of its log; the one in the work folder is that of the last start."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("make-zoo", "Make a folder of released checkpoints from trainings.")
    parser.add_argument(
        "work_dirs", metavar="WORK_DIRS", nargs="+", type=Path, help="folders with work folders"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder of the zoo")
    parser.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="which one is released; best: by validation (default: last)",
    )
    parser.add_argument("--half", action="store_true", help="round parameters to float16; buffers stay")
    parser.add_argument(
        "--max-mb", type=float, default=5.0, help="most that a checkpoint may take (default 5)"
    )
    args = parser.parse_args(argv)
    refuse_file(parser, "--out", args.out)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Make a zoo; the exit code is 1 if anything is refused."""
    args = parse_args(argv)
    return run_command("make-zoo", lambda: make_zoo(args))


def make_zoo(args: argparse.Namespace) -> int:
    """Find the trainings, write the zoo, print what is in it."""
    from beyonddrive.checkpoints.zoo import read_zoo, write_zoo

    trainings = find_trainings(args.work_dirs)
    released = (release(*training, half=args.half, best=args.checkpoint == "best") for training in trainings)
    write_zoo(args.out, released, args.max_mb)
    for name, entry in read_zoo(args.out).items():
        megabytes = (args.out / entry.file).stat().st_size / 1e6
        print(f"{name}: {megabytes:.2f} MB, {entry.precision}, sha256 {entry.sha256}")
        if entry.precision == "float16":
            print(f"  rounding moves a plan by {entry.plan_difference:.1e} m at most (made-up inputs)")
        for change in entry.changes:
            print(f"  not as published: {change}")
    return 0


def find_trainings(work_dirs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Work folders below folders, and the config file that each has.

    Raises:
        ZooError: If there is none, one has no single config, or two are of one config.
    """
    from beyonddrive.checkpoints.zoo import ZooError
    from beyonddrive.engine.runner import LAST_CHECKPOINT

    found: dict[str, tuple[Path, Path]] = {}
    marks = {path.resolve() for work_dir in work_dirs for path in work_dir.rglob(LAST_CHECKPOINT)}
    for folder in sorted(path.parent for path in marks):
        configs = sorted(folder.glob("*.py"))
        if len(configs) != 1:
            raise ZooError(
                f"{folder}: has {len(configs)} configs; a training leaves one beside its checkpoints"
            )
        name = configs[0].stem
        if name in found:
            raise ZooError(
                f"{name}: was trained in {found[name][0]} and in {folder}; leave one of them there"
            )
        found[name] = (folder, configs[0])
    if not found:
        raise ZooError(
            f"{', '.join(map(str, work_dirs))}: no training below (a folder with {LAST_CHECKPOINT}); "
            f"beyonddrive train CONFIG --work-dir {work_dirs[0] / 'NAME'} makes one"
        )
    return list(found.values())


def release(folder: Path, config_file: Path, half: bool, best: bool) -> Released:
    """Weights and description of a training.

    Raises:
        ZooError: If its model is not that of the published config, or there is not the one checkpoint.
        CheckpointError: If the checkpoint is damaged, of another planner, or holds NaN.
    """
    from beyonddrive.checkpoints.loading import load_weights
    from beyonddrive.checkpoints.weight_files import read_weights
    from beyonddrive.checkpoints.zoo import Released, ZooError, in_half_precision
    from beyonddrive.engine.configs import load_config
    from beyonddrive.registry import MODELS

    path = choose_checkpoint(folder, best)
    meta = read_weights(path).meta
    start = start_of(folder, meta.get("time"))
    recipe = None if start is None else start / _CONFIG_OF_START
    published = load_config(config_file.stem)
    trained = load_config(recipe if recipe is not None and recipe.is_file() else config_file)
    if faults := changes(published, trained, ("model",)):
        raise ZooError(
            f"{folder}: is no training of the published {config_file.stem}: {'; '.join(faults)}; give the "
            "config another name and a file of its own"
        )
    planner = MODELS.build(published.model).eval()
    load_weights(planner, path)
    state, difference = planner.state_dict(), 0.0
    if half:
        state = in_half_precision(planner, config_file.stem)
        rounded = MODELS.build(published.model).eval()
        rounded.load_state_dict(state)
        difference = plan_difference(planner, rounded)
    told: dict[str, Any] = {key: meta[key] for key in ("epoch", "iter", "best_score") if key in meta}
    return Released(
        config_file.stem,
        state,
        type(planner).__name__,
        "float16" if half else "float32",
        difference,
        tuple(changes(published, trained, _RECIPE)),
        {"checkpoint": path.name, **told, **provenance(start)},
    )


def choose_checkpoint(folder: Path, best: bool) -> Path:
    """The newest checkpoint of a work folder, or the one that is marked as best.

    Raises:
        ZooError: If several are best, each by another metric, or there is none.
    """
    from beyonddrive.checkpoints.zoo import ZooError
    from beyonddrive.engine.runner import find_last_checkpoint

    if not best:
        if (newest := find_last_checkpoint(folder)) is None:
            raise ZooError(f"{folder}: has no checkpoint")
        return newest
    found = sorted(folder.glob("best_*.pth"))
    if not found:
        raise ZooError(f"{folder}: has no checkpoint that is marked as best")
    if len(found) > 1:
        raise ZooError(
            f"{folder}: {', '.join(p.name for p in found)} are all best; leave the one that counts"
        )
    return found[0]


def changes(published: Config, trained: Config, keys: Sequence[str]) -> list[str]:
    """Settings of a training that are not those of the published config; folders of data may differ."""
    from beyonddrive.datasets.stores.manifests import differing_keys

    def named(settings: Any) -> Any:
        """Settings with the names of files instead of where they are."""
        if isinstance(settings, dict):
            return {key: named(value) for key, value in settings.items()}
        if isinstance(settings, (list, tuple)):
            return [named(value) for value in settings]
        is_file = isinstance(settings, str) and Path(settings).suffix in (".npz", ".npy")
        return Path(settings).name if is_file else settings

    def value(config: Config, key: str) -> Any:
        found: Any = config
        for part in key.split("."):
            found = (found or {}).get(part)
        return named(found.to_dict() if hasattr(found, "to_dict") else found)

    lines = [line for key in keys for line in differing_keys(value(trained, key), value(published, key), key)]
    return [line.replace("stored", "trained with", 1).replace("wanted", "published", 1) for line in lines]


def plan_difference(planner: Any, other: Any) -> float:
    """Largest difference [m, rad] between the plans of two planners for made-up inputs of four scenes."""
    import torch

    from beyonddrive.deploy.cost import random_inputs

    inputs = random_inputs(planner, 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        plans = [one(inputs, mode="tensor")["trajectory"] for one in (planner, other)]
    return float((plans[0] - plans[1]).abs().max())


def start_of(folder: Path, saved: str | None) -> Path | None:
    """Folder of the log of the start that wrote a checkpoint; None if no start has left a record.

    Args:
        folder: The work folder; a later start in it may have been another training, that left no checkpoint.
        saved: When the checkpoint was written, as it says it itself; None takes the newest start.
    """
    from beyonddrive.engine.hooks.run_record import RECORD

    starts: Iterator[Path] = (path.parent for path in folder.glob(f"*/{RECORD}"))
    # (both are local times; two starts of one second have names of which one is longer)
    before = (start for start in starts if saved is None or start.name[: len(saved)] <= saved)
    return max(before, key=lambda start: start.name, default=None)


def provenance(start: Path | None) -> dict[str, Any]:
    """What a start of a training wrote of itself; nothing if it is of an older version."""
    from beyonddrive.engine.hooks.run_record import RECORD

    facts = {} if start is None else json.loads((start / RECORD).read_text())
    return {key: facts[key] for key in _PROVENANCE if key in facts}


if __name__ == "__main__":
    sys.exit(main())
