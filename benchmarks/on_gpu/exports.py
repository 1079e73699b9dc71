"""What the trained tiny planners plan on a GPU and on the CPU, and their export: torch.export and ONNX."""

from __future__ import annotations

import argparse
import copy
import io
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate

from beyonddrive.apis import init_planner
from beyonddrive.benchmarks.on_gpu.recipes import options_of, short_name, spelled, tiny_recipes
from beyonddrive.benchmarks.on_gpu.rows import FAIL, PASS, SKIPPED, Row, append, largest_of
from beyonddrive.deploy import ExportedPlanner, PlannerGraph
from beyonddrive.engine.runner import load_config
from beyonddrive.registry import DATASETS
from beyonddrive.tools import export

ALLOWED = 1e-3
"""Largest difference of a plan [m, rad] between devices and between a planner and its export."""
SCENES = 4


def _planner(recipe: str, data: Path, checkpoint: Path, device: str) -> tuple[Any, Any]:
    config = load_config(recipe, options_of(recipe, data))
    return init_planner(config, checkpoint, device), config


def plans(recipe: str, data: Path, checkpoint: Path, device: str) -> str:
    """Plan scenes on the device, on the CPU, and by the faster copy on the device.

    Raises:
        ValueError: If they differ.
    """
    here, config = _planner(recipe, data, checkpoint, "cpu")
    there, _ = _planner(recipe, data, checkpoint, device)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    batch = pseudo_collate([dataset[index] for index in range(SCENES)])
    made = []
    with torch.no_grad():
        for owner, planner in ((here, here), (there, there), (there, ExportedPlanner(there))):
            found = planner(**owner.data_preprocessor(copy.deepcopy(batch)), mode="predict")
            made.append(torch.stack([sample.pred.trajectory.float().cpu() for sample in found]))
    devices, copies = (float((made[i] - made[1]).abs().max()) for i in (0, 2))
    if not largest_of([devices, copies]) <= ALLOWED:
        raise ValueError(f"plans differ by {devices:.1e} from the CPU's, by {copies:.1e} from the copy's")
    return f"{SCENES} plans differ by {devices:.1e} from the CPU's, those of the faster copy by {copies:.1e}"


def program(recipe: str, data: Path, checkpoint: Path, device: str) -> str:
    """Export on the device by ``torch.export``, and run the program beside the graph on the CPU.

    Raises:
        ValueError: If they differ.
    """
    graph = PlannerGraph(_planner(recipe, data, checkpoint, "cpu")[0]).eval()
    given = graph.example_inputs()
    with torch.no_grad():
        expected = graph(*given)
        moved = tuple(value.to(device) for value in given)
        exported = torch.export.export(graph.to(device), moved, strict=False)
        outputs = exported.module()(*moved)
    worst = largest_of(float((a.cpu() - b).abs().max()) for a, b in zip(outputs, expected, strict=True))
    if not worst <= ALLOWED:
        raise ValueError(f"the program on {device} differs by {worst:.1e} from the graph on the CPU")
    return f"the program on {device} differs by {worst:.1e} from the graph on the CPU"


def onnx(recipe: str, data: Path, checkpoint: Path, device: str) -> str:
    """Run ``beyonddrive export`` to ONNX, which runs the file beside the planner (on the CPU).

    Raises:
        RuntimeError: If it refuses.
    """
    said = io.StringIO()
    out = checkpoint.parent / "planner.onnx"
    with redirect_stdout(said):
        code = export.main(
            [recipe, str(checkpoint), str(out), "--cfg-options", *spelled(options_of(recipe, data))]
        )
    if code != 0:
        raise RuntimeError("beyonddrive export has refused, see the log")
    return said.getvalue().strip().splitlines()[-1].rpartition(", ")[2]


WAYS: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "plans": (plans, ()),
    "torch.export": (program, ()),
    "ONNX": (onnx, ("onnx", "onnxscript", "onnxruntime")),
}
"""What is done, and the packages that it needs."""


def attempt(task: tuple[str, str], data: Path, work: Path, device: str) -> Row:
    """One planner in one way."""
    recipe, way = task
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = short_name(recipe)
    checkpoints = sorted((work / f"{name}-{device}").glob("epoch_*.pth"))
    row = partial(Row, "export", f"{name}, {way}")
    run, packages = WAYS[way]
    missing = [package for package in packages if find_spec(package) is None]
    if missing or not checkpoints:
        reason = f"{', '.join(missing)} not installed" if missing else "its training left no checkpoint"
        return row(SKIPPED, reason)
    try:
        return row(PASS, run(recipe, data, checkpoints[-1], device), f"{ALLOWED:g}")
    except Exception as error:  # one planner must not end the others
        return row(FAIL, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}", f"{ALLOWED:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Plan and export."""
    parser = argparse.ArgumentParser(description="Plans and exports of trained tiny planners.")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that make_cache has made")
    parser.add_argument("--work", type=Path, required=True, help="folder in which trainings has worked")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--recipes", nargs="+", help="config files; default: all tiny ones")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    # (a repulsion acts in training alone)
    recipes = args.recipes or [recipe for recipe in tiny_recipes() if "beyonddrive" not in Path(recipe).name]
    tasks = [(recipe, way) for way in args.ways for recipe in recipes]
    work = partial(attempt, data=args.data.absolute(), work=args.work.absolute(), device=args.device)
    failed = False
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for row in pool.map(work, tasks):
            failed |= row.verdict == FAIL
            append(args.out, row)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
