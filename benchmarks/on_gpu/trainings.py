"""Short trainings of every tiny planner on a GPU and on the CPU, and of one in further ways.

It is trained in float16, killed and resumed, and with all settings of faster steps together. All run at the
same time, each with its process group (NCCL on the GPU, gloo on the CPU) of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beyonddrive.benchmarks.on_gpu.recipes import options_of, short_name, spelled, tiny_recipes
from beyonddrive.benchmarks.on_gpu.rows import FAIL, PASS, Row, append, largest_of
from beyonddrive.benchmarks.waits import Waits, told

EPOCHS = 4
STEPS_AN_EPOCH = 3
KILLED_AFTER = 7
"""In the middle of the third epoch, of which two are kept."""
ALLOWED = {"device": 2e-2, "resumed": 1e-5, "float16": 5e-2, "together": 5e-2}
"""Relative differences of the loss of a step: GPU and CPU; with and without a kill, on one device, where
kernels that add up in any order round differently; float16 and float32; all settings together, and what of
them changes more than rounding (:data:`CHANGING`) alone, in float32 on the CPU. Rounding grows from step to
step, and by leaps where it changes which box is matched with which agent; the first step is held to
:data:`FIRST`."""
FIRST = 1e-4
"""Relative difference of the first step's loss on GPU and CPU."""
LIMIT = 240.0
"""Seconds of one training."""
TOGETHER = "ltf_tiny"
"""Short name of the recipe that is trained with all settings together."""
ACCUMULATED = 2
CHANGING: dict[str, Any] = {
    "optim_wrapper.accumulative_counts": ACCUMULATED,
    "optim_wrapper.clip_grad.max_norm": 1.0,
}
"""Settings that change what is computed; what they come to is compared in float32 without the others."""
PLAIN: dict[str, Any] = {"channels_last": False, "optim_wrapper.optimizer.fused": False}
FASTER: dict[str, Any] = {
    "tf32": True,
    "channels_last": True,
    "optim_wrapper.optimizer.fused": True,
    "activation_checkpointing": ["backbone", "decoder"],
    "default_hooks.ema.type": "EMAHook",
}
COMPILED = {"compile.parts": ["decoder"]}
"""On a GPU only: on two cores of a CPU the compiler takes minutes. A small part, for the sake of time."""


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        name: Folder of its work.
        recipe: Its config file.
        device: Where it runs.
        amp: In float16 (bfloat16 on the CPU).
        resume: After a kill that is a part of it.
        settings: Options by dotted key that differ from the recipe.
    """

    name: str
    recipe: str
    device: str
    amp: bool = False
    resume: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_long(self) -> bool:
        """Whether it takes longer than the others: two trainings, or one that waits for a compiler."""
        return self.resume or not COMPILED.keys().isdisjoint(self.settings)

    def arguments(self, data: Path, folder: Path, *more: str) -> list[str]:
        """The command line of :mod:`train_one`."""
        options = {**options_of(self.recipe, data), "train_cfg.max_epochs": EPOCHS, **self.settings}
        return [
            self.recipe, "--losses", str(folder / f"{self.name}.json"),
            "--work-dir", str(folder / self.name), *["--amp"] * self.amp, *more,
            "--cfg-options", *spelled(options), "default_hooks.logger.interval=3",
        ]  # fmt: skip

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
        command += ["-m", "beyonddrive.benchmarks.on_gpu.train_one", *self.arguments(data, folder, *more)]
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
    """Largest relative difference of the losses of the steps that both have; as :func:`largest_of`."""
    both = ours["losses"].keys() & theirs["losses"].keys()
    pairs = [(ours["losses"][step], theirs["losses"][step]) for step in both]
    return largest_of(abs(a - b) / max(abs(b), 1e-6) for a, b in pairs)


def _first(found: dict[str, Any]) -> dict[str, Any]:
    """What was found, with the first step's loss only."""
    return {"losses": {step: loss for step, loss in found["losses"].items() if int(step) == 1}}


def all_settings(recipe: str, device: str) -> list[Job]:
    """A training with all settings together, and the one on the CPU that it is compared with."""
    name = short_name(recipe)
    faster = FASTER | (COMPILED if device == "cuda" else {})
    return [
        Job(f"{name}-together", recipe, device, amp=True, settings=CHANGING | faster),
        Job(f"{name}-accumulated", recipe, "cpu", settings=CHANGING | PLAIN),
    ]


def amiss(seen: Mapping[str, Any], device: str) -> list[str]:
    """What a training with all settings together did otherwise than they say, in words."""
    wanted = {
        "autocast": "float16" if device == "cuda" else "bfloat16",
        "tf32": True,
        "channels_last": True,
        "fused": True,
        "averaged": True,
        "max_norm": CHANGING["optim_wrapper.clip_grad.max_norm"],
        "checkpointed": FASTER["activation_checkpointing"],
        "compiled": COMPILED["compile.parts"] if device == "cuda" else [],
    }
    found = [f"{key} is {seen[key]}, not {value}" for key, value in wanted.items() if seen[key] != value]
    # (fewer where a gradient scaler has passed over one)
    most = EPOCHS * STEPS_AN_EPOCH // ACCUMULATED
    return found + ([] if 0 < seen["updates"] <= most else [f"{seen['updates']} updates, not {most}"])


def jobs_of(recipes: Sequence[str], device: str, mixed: str) -> list[Job]:
    """All trainings: each recipe on the device and on the CPU, and of ``mixed`` two more on the device.

    If that is the smallest LTF, it is also trained with all settings together.
    """
    jobs = []
    for recipe in recipes:
        name = short_name(recipe)
        jobs += [Job(f"{name}-{device}", recipe, device), Job(f"{name}-again", recipe, "cpu")]
    name = short_name(mixed)
    jobs += [
        Job(f"{name}-mixed", mixed, device, amp=True),
        Job(f"{name}-resumed", mixed, device, resume=True),
    ]
    return jobs + (all_settings(mixed, device) if name == TOGETHER else [])


def compare(
    found: dict[str, dict[str, Any] | str], device: str, recipes: Sequence[str], mixed: str
) -> list[Row]:
    """One row for each recipe, and for the further ones of ``mixed``, whose trainings have ended."""
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
            gaps = ours["waits_between"]
            text += f", waits between steps: {sum(map(bool, gaps))} of {len(gaps)} times"
            good = good and not all(gaps)  # (a hook that waits each time; a line of the log may)
        if ours["scale"] is not None:
            text += f", scale {ours['scale']:g} at the end"
        if kind == "together":
            wrong = amiss(ours["settings"], device)
            good = good and not wrong
            text += f"; {'; '.join(wrong) or _named(ours['settings'])}"
            text += "" if device == "cuda" else "; compile is left out on the CPU"
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
    row(f"{name}, all settings together", f"{name}-together", f"{name}-accumulated", "together",
        " from those of float32 with accumulation and clipping alone")  # fmt: skip
    return rows


def _named(seen: Mapping[str, Any]) -> str:
    """Settings that were at work, in words."""
    words = [seen["autocast"], "TF32", "channels_last", "fused optimizer", "averaged weights"]
    words += [f"{seen['updates']} updates, clipped at {seen['max_norm']:g}"]
    words += [f"activations of {' and '.join(seen['checkpointed'])} computed again"]
    return ", ".join(words + [f"{part} compiled" for part in seen["compiled"]])


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
    jobs.sort(key=lambda job: not job.is_long)  # the longest first
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
