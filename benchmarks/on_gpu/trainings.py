"""Short trainings of every tiny planner on a GPU and on the CPU, one in float16, one killed and resumed.

All run at the same time, each with its process group (NCCL on the GPU, gloo on the CPU) of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beyonddrive.benchmarks.on_gpu.recipes import options_of, short_name, spelled, tiny_recipes
from beyonddrive.benchmarks.on_gpu.rows import FAIL, PASS, Row, append
from beyonddrive.benchmarks.waits import Waits, told

EPOCHS = 4
STEPS_AN_EPOCH = 3
KILLED_AFTER = 7
"""In the middle of the third epoch, of which two are kept."""
ALLOWED = {"device": 2e-2, "resumed": 1e-5, "float16": 5e-2}
"""Relative differences of the loss of a step: GPU and CPU; with and without a kill, on one device, where
kernels that add up in any order round differently; float16 and float32. Rounding grows from step to step, and
by leaps where it changes which box is matched with which agent; the first step is held to :data:`FIRST`."""
FIRST = 1e-4
"""Relative difference of the first step's loss on GPU and CPU."""
LIMIT = 240.0
"""Seconds of one training."""


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        name: Folder of its work.
        recipe: Its config file.
        device: Where it runs.
        amp: In float16 (bfloat16 on the CPU).
        resume: After a kill that is a part of it.
    """

    name: str
    recipe: str
    device: str
    amp: bool = False
    resume: bool = False

    def run(self, data: Path, folder: Path) -> dict[str, Any]:
        """Train, and return what :class:`WatchedStepsHook` has written.

        Raises:
            RuntimeError: If it fails, with the last lines of its output.
        """
        if self.resume:
            self._start(data, folder, "--kill-after", str(KILLED_AFTER), ends=False)
            return self._start(data, folder, "--resume")
        return self._start(data, folder)

    def _start(self, data: Path, folder: Path, *more: str, ends: bool = True) -> dict[str, Any]:
        losses = folder / f"{self.name}.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
        command += ["-m", "beyonddrive.benchmarks.on_gpu.train_one", self.recipe]
        command += [
            "--losses",
            str(losses),
            "--work-dir",
            str(folder / self.name),
            *["--amp"] * self.amp,
            *more,
        ]
        command += [
            "--cfg-options",
            *spelled(options_of(self.recipe, data)),
            f"train_cfg.max_epochs={EPOCHS}",
        ]
        command += ["default_hooks.logger.interval=3"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if self.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        log = folder / f"{self.name}.log"
        with log.open("a") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
            try:
                code = process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.terminate()  # torchrun ends what it has started
                process.wait()
                raise
        if not ends:
            if code == 0 or losses.is_file():
                raise RuntimeError(f"the training was not killed after step {KILLED_AFTER}")
            return {}
        if code != 0:
            raise RuntimeError(_reason(log.read_text()))
        found: dict[str, Any] = json.loads(losses.read_text())
        return found


def _reason(output: str) -> str:
    """The error of a process below torchrun, which prints a report of its own after it."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.partition(":")[0] and "ChildFailed" not in line]
    at = [
        line.strip() for line in lines if line.strip().startswith("[rank0]:   File") and "beyonddrive" in line
    ]
    return " ".join([*(errors or lines)[-1:], *at[-2:]])[:600]


def largest(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest relative difference of the losses of the steps that both have; infinite if they share none."""
    both = ours["losses"].keys() & theirs["losses"].keys()
    pairs = [(ours["losses"][step], theirs["losses"][step]) for step in both]
    return max((abs(a - b) / max(abs(b), 1e-6) for a, b in pairs), default=float("inf"))


def _first(found: dict[str, Any]) -> dict[str, Any]:
    """What was found, with the first step's loss only."""
    return {"losses": {step: loss for step, loss in found["losses"].items() if int(step) == 1}}


def jobs_of(recipes: Sequence[str], device: str, mixed: str) -> list[Job]:
    """All trainings: each recipe on the device and on the CPU, and of ``mixed`` two more on the device."""
    jobs = []
    for recipe in recipes:
        name = short_name(recipe)
        jobs += [Job(f"{name}-{device}", recipe, device), Job(f"{name}-again", recipe, "cpu")]
    name = short_name(mixed)
    jobs += [
        Job(f"{name}-mixed", mixed, device, amp=True),
        Job(f"{name}-resumed", mixed, device, resume=True),
    ]
    return jobs


def compare(
    found: dict[str, dict[str, Any] | str], device: str, recipes: Sequence[str], mixed: str
) -> list[Row]:
    """One row for each recipe, and for the two more of ``mixed``, whose trainings have ended."""
    steps = EPOCHS * STEPS_AN_EPOCH
    rows = []

    def row(what: str, first: str, second: str, kind: str, note: str, least: int = steps) -> None:
        if first not in found or second not in found:
            return
        ours, theirs = found[first], found[second]
        if isinstance(ours, str) or isinstance(theirs, str):
            reason = ours if isinstance(ours, str) else theirs
            rows.append(Row("training", what, FAIL, str(reason), f"{ALLOWED[kind]:g}"))
            return
        difference = largest(ours, theirs)
        number = len(ours["losses"])
        good = difference <= ALLOWED[kind] and number >= least and ours["device"] == device
        allowed = f"{ALLOWED[kind]:g}"
        text = f"{number} steps by {ours['backend']} on {ours['device']}"
        text += f", losses differ by {difference:.1e}{note}"
        if kind == "device":
            start = largest(_first(ours), _first(theirs))
            good = good and start <= FIRST
            text += f", the first by {start:.1e}"
            allowed += f", first {FIRST:g}"
        if ours["watched"]:
            text += f", {told(ours['watched'], Waits(ours['waits']))}"
        if ours["scale"] is not None:
            text += f", scale {ours['scale']:g} at the end"
        figures: dict[str, object] = {"ours": ours, "theirs": theirs}
        rows.append(Row("training", what, PASS if good else FAIL, text, allowed, figures))

    for recipe in recipes:
        name = short_name(recipe)
        row(name, f"{name}-{device}", f"{name}-again", "device", " from the CPU's")
    name = short_name(mixed)
    reference = f"{name}-{device}"
    kind = "float16 with GradScaler" if device == "cuda" else "bfloat16"
    row(f"{name}, {kind}", f"{name}-mixed", reference, "float16", " from float32's")
    left = steps - 2 * STEPS_AN_EPOCH
    row(f"{name}, killed after step {KILLED_AFTER}, resumed", f"{name}-resumed", reference, "resumed",
        " from an unbroken training's", left)  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Train and compare."""
    parser = argparse.ArgumentParser(description="Short trainings on a GPU and on the CPU.")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that make_cache has made")
    parser.add_argument("--work", type=Path, required=True, help="folder for logs and checkpoints")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--recipes", nargs="+", help="config files; default: all tiny ones")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    recipes = args.recipes or tiny_recipes()
    mixed = next((recipe for recipe in recipes if "ltf_tiny" in recipe), recipes[0])
    args.work.mkdir(parents=True, exist_ok=True)

    def attempt(job: Job) -> dict[str, Any] | str:
        try:
            return job.run(args.data.absolute(), args.work.absolute())
        except Exception as error:  # one training must not end the others
            log = args.work / f"{job.name}.log"
            if log.is_file():
                print(f"---- {job.name}\n{log.read_text()[-6000:]}", flush=True)
            return f"{type(error).__name__}: {' '.join(str(error).split())}"[:700]

    jobs = jobs_of(recipes, args.device, mixed)
    # The longest first: what resumes is two trainings.
    jobs.sort(key=lambda job: not job.resume)
    found: dict[str, dict[str, Any] | str] = {}
    written: dict[str, Row] = {}
    with ThreadPoolExecutor(args.workers) as pool:
        futures = {pool.submit(attempt, job): job.name for job in jobs}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            for row in compare(found, args.device, recipes, mixed):
                if row.what not in written:  # (at once: the rest may be killed)
                    written[row.what] = row
                    append(args.out, row)
    return int(any(row.verdict == FAIL for row in written.values()))


if __name__ == "__main__":
    sys.exit(main())
