"""All that is to be seen on a GPU, in one table: ``benchmarks/on_gpu.sh`` runs this.

The parts run one after the other, each with a time limit of its own, and none stops the others; what one has
found is kept if it is killed. Written are ``on_gpu.md`` and ``on_gpu.json``, with card, driver, versions, git
hash, command and date; the exit code is 1 if anything has failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from beyonddrive.benchmarks.on_gpu.rows import FAIL, MEASURED, SKIPPED, Row, read, table
from beyonddrive.engine.environment import environment, git_state
from beyonddrive.engine.files import write_atomically

PATIENCE = 5.0
"""Seconds between asking a part to end and killing it, and for which it is then waited."""
MARK = "BEYONDDRIVE_ON_GPU_PART"
"""Variable in the environment of all that a part starts."""


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        name: What the rows of the table call it.
        limit: Seconds that it may take.
        command: Arguments of the interpreter.
    """

    name: str
    limit: float
    command: Sequence[str]


def parts_of(args: argparse.Namespace, out: Path) -> list[Part]:
    """The parts that were asked for, in their order."""
    workers = ["--workers", str(args.workers)]
    device = ["--device", args.device]
    rows = ["--out", str(out / "rows.jsonl")]
    data = ["--data", str(args.data), "--work", str(args.work)]
    on_gpu = "beyonddrive.benchmarks.on_gpu"
    few = ["--recipes", *args.recipes] if args.recipes else []
    limits = dict(zip(PARTS, args.limits, strict=True))
    steps = ["--json", str(out / "steps.json"), "--time-limit", str(max(limits["step"] - 25, 1))]
    commands = {
        "golden": ["-m", f"{on_gpu}.goldens", *device, *rows, *workers, *_named("--planners", args.goldens)],
        "training": ["-m", f"{on_gpu}.trainings", *device, *data, *rows, *workers, *few],
        "export": ["-m", f"{on_gpu}.exports", *device, *data, *rows, *workers, *few],
        "step": ["-m", "beyonddrive.benchmarks.train_step", *device, *steps, *shlex.split(args.step_options)],
    }
    return [Part(name, limits[name], commands[name]) for name in PARTS if name in args.parts]


PARTS = ("golden", "training", "export", "step")
LIMITS = (60.0, 130.0, 80.0, 170.0)
"""Seconds of the parts: within eight minutes also if each has to be killed."""


def _named(option: str, values: Sequence[str] | None) -> list[str]:
    return [option, *values] if values else []


def run(part: Part, out: Path) -> Row | None:
    """Run a part; a row if it did not end by itself, or ended badly."""
    started = time.monotonic()
    with (out / "log.txt").open("a") as log:
        log.write(f"==== {part.name}: {shlex.join(part.command)}\n")
        log.flush()
        mark = f"{os.getpid()}-{uuid4().hex}"
        process = subprocess.Popen(
            [sys.executable, *part.command],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, MARK: mark},
        )
        try:
            code: int | str = process.wait(part.limit)
        except subprocess.TimeoutExpired:
            code = f"stopped after its limit of {part.limit:g} s; what it had found is kept"
        finally:
            _end(process, mark)
    print(f"{part.name}: {time.monotonic() - started:.0f} s, {code}", flush=True)
    failed = {row.part for row in findings(out) if row.verdict == FAIL}
    if code == 0 or (code == 1 and part.name in failed):
        return None
    reason = code if isinstance(code, str) else f"ended with exit code {code}, see log.txt"
    return Row(part.name, "the whole part", FAIL, reason)


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End what a part has left running, also in sessions of its own, as torchrun's workers are."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + PATIENCE
        _send(number, process, mark)
        while _is_running(process, mark) and time.monotonic() < until:
            if number == signal.SIGKILL:  # (also what was started meanwhile)
                _send(number, process, mark)
            time.sleep(0.05)


def _send(number: signal.Signals, process: subprocess.Popen[bytes], mark: str) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    for other in _marked(mark):
        with suppress(ProcessLookupError):
            os.kill(other, number)


def _is_running(process: subprocess.Popen[bytes], mark: str) -> bool:
    return process.poll() is None or bool(_marked(mark))


def _marked(mark: str) -> list[int]:
    """Processes with this mark; a process whose parent has ended is no longer to be found by it."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # (of another user, or gone; that of a zombie is empty)
            if f"{MARK}={mark}".encode() in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
    return found


def findings(out: Path) -> list[Row]:
    """What the parts have found up to now."""
    return [*read(out / "rows.jsonl"), *step_rows(out / "steps.json")]


def step_rows(path: Path) -> list[Row]:
    """The figures of ``train_step.py``: a row for each planner and batch."""
    if not path.is_file():
        return []
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for step in json.loads(path.read_text())["steps"]:
        found.setdefault((step["planner"], step["batch"]), []).append(step)
    rows = []
    for (planner, batch), steps in found.items():
        reasons: dict[str, list[str]] = {}
        for step in steps:
            what = f"{planner}, batch {batch}, {step['variant']}"
            if "skipped" in step:
                reasons.setdefault(step["skipped"], []).append(step["variant"])
            elif "failed" in step:
                rows.append(Row("step", what, FAIL, step["failed"], figures=step))
            else:
                text = (
                    f"{step['ms']:.1f} ms, {step['per_second']:.0f} samples/s, {step['ratio']:.2f}x plain, "
                )
                text += f"{step['peak_mib']:.0f} MiB, loss {step['loss']:.5f}"
                rows.append(Row("step", what, MEASURED, text, figures=step))
        for reason, variants in reasons.items():
            rows.append(Row("step", f"{planner}, batch {batch}, {', '.join(variants)}", SKIPPED, reason))
    return rows


def facts(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures were made with."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "git": args.git or _git(),
        "command": args.command or shlex.join(sys.argv),
        "device": args.device,
        **environment(),
    }
    if args.device == "cuda":
        found["card"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        found["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return found


def _git() -> str:
    """Commit of the checkout."""
    found = git_state()
    if found is None:
        return "unknown: give it by --git"
    return f"{found['commit']}{', with changes' * found['changed']}"


def report(rows: Sequence[Row], made_with: dict[str, Any]) -> str:
    """The table, below what it was made with."""
    packages = ", ".join(f"{name} {version}" for name, version in made_with["packages"].items())
    where = made_with.get("card", made_with["cpu"].get("model", "CPU"))
    head = [
        f"# On {where}, {made_with['date']}",
        "",
        f"- commit: {made_with['git']}",
        f"- command: `{made_with['command']}`",
        f"- Python {made_with['python']}, {packages}",
    ]
    if "card" in made_with:
        head.append(
            f"- driver and memory {made_with['driver']}, CUDA {made_with['cuda']}, "
            f"cuDNN {made_with['cudnn']}, NCCL {made_with['nccl']}"
        )
    count = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ("pass", FAIL, SKIPPED)}
    head.append("- " + ", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return "\n".join([*head, "", table(rows), ""])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="on_gpu.sh", description="All that is to be seen on a GPU.", allow_abbrev=False
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--data", type=Path, required=True, help="folder that make_cache has made")
    parser.add_argument("--out", type=Path, required=True, help="folder for table, figures and log")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--limits", nargs=len(PARTS), type=float, default=LIMITS, help="seconds of each part")
    parser.add_argument("--workers", type=int, default=max((os.cpu_count() or 2) - 2, 1))
    parser.add_argument("--step-options", default="--batch 16 64 4", help="of benchmarks/train_step.py")
    parser.add_argument("--recipes", nargs="+", help="only these tiny recipes")
    parser.add_argument("--goldens", nargs="+", help="only these golden files")
    parser.add_argument("--git", help="hash of the commit, where the checkout has no .git")
    parser.add_argument("--command", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no GPU that torch can use; try the script itself by --device cpu")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, print the table and write it."""
    args = parse_args(argv)
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "rows.jsonl").write_text("")
    (out / "steps.json").unlink(missing_ok=True)
    made_with = facts(args)
    more: list[Row] = []
    for part in parts_of(args, out):
        row = run(part, out)
        more += [] if row is None else [row]
        rows = sorted([*findings(out), *more], key=lambda row: PARTS.index(row.part))
        # (written after every part: the machine may be taken away)
        figures = {**made_with, "rows": [asdict(row) for row in rows]}
        write_atomically(out / "on_gpu.json", (json.dumps(figures, indent=1) + "\n").encode())
        write_atomically(out / "on_gpu.md", report(rows, made_with).encode())
    print((out / "on_gpu.md").read_text(), flush=True)
    return int(any(row.verdict == FAIL for row in rows))


if __name__ == "__main__":
    sys.exit(main())
