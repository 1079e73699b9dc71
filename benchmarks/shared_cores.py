"""Trainings at a time on the same cores: ``python benchmarks/shared_cores.py``.

Training steps of LTF tiny (batch 16) by one process, and by as many as there are cores, which all go on until
the last has been timed: with a thread for every core, as torch starts them, where threads that wait spin;
with threads that sleep meanwhile (``OMP_WAIT_POLICY=PASSIVE``); and with one thread each. Printed are the
median of a step [ms], the slowest process counting, and steps a second of all processes together over those
of one that is alone with a thread for every core.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from beyonddrive.benchmarks import train_step
from beyonddrive.engine.files import write_atomically

POLICY = "OMP_WAIT_POLICY"
SPINS: dict[str, str] = {}
SLEEPS = {POLICY: "PASSIVE"}
BATCH = 16


def work(threads: int, steps: int) -> None:
    """Time steps, print their median, and go on until told to stop, for the sake of the others."""
    torch.set_num_threads(threads)
    planner = copy.deepcopy(train_step.build("ltf-tiny"))
    step = train_step.Step(
        planner, train_step.Settings(channels_last=True, fused_adamw=True), torch.device("cpu")
    )
    data = train_step.batch_of(planner, BATCH)
    step(copy.copy(data))
    print("ready", flush=True)
    sys.stdin.readline()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step(copy.copy(data))
        times.append(time.perf_counter() - start)
    print(1e3 * median(times), flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        step(copy.copy(data))


def timed(count: int, threads: int, environment: dict[str, str], steps: int) -> list[float]:
    """Medians [ms] of processes that train at the same time."""
    command = [sys.executable, __file__, "--steps", str(steps), "--work", str(threads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    own = {key: value for key, value in os.environ.items() if key != POLICY}
    running = [subprocess.Popen(command, text=True, env=own | environment, **pipes) for _ in range(count)]
    try:
        for process in running:
            if _line(process) != "ready":
                raise RuntimeError("a process has ended before its first step")
        for process in running:
            _tell(process, "go")
        medians = [float(_line(process)) for process in running]
        for process in running:
            _tell(process, "stop")
    finally:
        for process in running:
            process.kill()
            process.wait()
    return medians


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description="Trainings that share cores.")
    parser.add_argument("--steps", type=int, default=20, help="steps that count")
    parser.add_argument("--cores", type=int, default=cores, help="threads of a process, and processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument("--work", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.work is not None:
        work(args.work, args.steps)
        return 0
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, LTF tiny, batch {BATCH}")
    print(f"{'processes':>9} {'threads':>7}  {'threads that wait':<18}{'ms':>8}{'times':>7}")
    alone = None
    rows: list[dict[str, Any]] = []
    for count in (1, args.cores):
        for threads, waiting, environment in (
            (args.cores, "spin", SPINS),
            (args.cores, "sleep", SLEEPS),
            (1, "-", SPINS),
        ):
            slowest = max(timed(count, threads, environment, args.steps))
            alone = slowest if alone is None else alone
            times = count * alone / slowest
            print(f"{count:>9} {threads:>7}  {waiting:<18}{slowest:>8.1f}{times:>7.2f}", flush=True)
            rows.append(
                {"processes": count, "threads": threads, "waiting": waiting, "ms": slowest, "times": times}
            )
            if args.json is not None:
                figures = {"cores": cores, "torch": torch.__version__, "batch": BATCH, "rows": rows}
                write_atomically(args.json, json.dumps(figures, indent=2).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
